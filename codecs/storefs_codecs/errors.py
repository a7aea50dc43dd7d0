"""What can go wrong with encoded bytes.

DecodeError(ValueError)     the bytes are not a valid chunk of the declared shape and dtype
EncodeError(ValueError)     the array cannot be written in this encoding
MissingExtra(ImportError)   the encoding needs an optional library; the message names the extra
"""

from __future__ import annotations


class DecodeError(ValueError):
    """The bytes are not a valid chunk; names the codec, what was expected and what was found."""

    def __init__(
        self,
        codec: str,
        problem: str,
        expected: object = None,
        found: object = None,
        where: str | None = None,
    ) -> None:
        super().__init__(codec, problem, expected, found, where)
        self.codec = codec
        self.problem = problem
        self.expected = expected
        self.found = found
        self.where = where

    def located(self, where: str) -> DecodeError:
        """The same failure, saying which chunk of which volume it struck."""
        return DecodeError(self.codec, self.problem, self.expected, self.found, self.where or where)

    def __str__(self) -> str:
        detail = [
            f"{word} {value}"
            for word, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        what = f"{self.codec}: {self.problem}" + (f" ({', '.join(detail)})" if detail else "")
        return f"{what} [{self.where}]" if self.where else what


class EncodeError(ValueError):
    """The array cannot be written in this encoding; names the codec and the reason."""

    def __init__(self, codec: str, problem: str) -> None:
        super().__init__(codec, problem)
        self.codec = codec
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.codec}: {self.problem}"


class MissingExtra(ImportError):  # says what is missing
    """An optional library is not installed; the message says which extra brings it."""

    def __init__(self, codec: str, library: str, extra: str) -> None:
        super().__init__(codec, library, extra)
        self.codec = codec
        self.library = library
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"{self.codec} needs the package {self.library!r}, which is not installed: "
            f"pip install 'storefs[{self.extra}]'"
        )
