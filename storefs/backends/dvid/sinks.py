"""Where long answers go piece by piece: into an array's memory, or a file."""

from __future__ import annotations

from typing import IO

from storefs.errors import ServerFault

_SHOWN = 300


class MemorySink:
    """Fills `target` exactly; what comes after it is kept, in part, for the message."""

    def __init__(self, target: memoryview) -> None:
        self._target = target
        self.length = 0
        self._rest = b""

    def restart(self) -> None:
        """Begin again."""
        self.length, self._rest = 0, b""

    def write(self, piece: bytes) -> None:
        """Take the next piece."""
        start, stop = self.length, self.length + len(piece)
        room = max(0, self._target.nbytes - start)
        if room:
            self._target[start : min(stop, self._target.nbytes)] = piece[:room]
        self._rest = (self._rest + piece[room:])[:_SHOWN]
        self.length = stop

    def check(self, what: str, url: str) -> None:
        """Raise ServerFault where what came is not as long as the target; an error text behind it is shown."""
        if self.length == self._target.nbytes:
            return
        said = " ".join(self._rest.decode("utf-8", "replace").split())
        shown = f"; behind the last voxel: {said}" if said.isprintable() and said else ""
        raise ServerFault(f"{what}: expected {self._target.nbytes} bytes, got {self.length}{shown}", url=url)


class FileSink:
    """Writes to `file`, which must be able to seek where an answer may have to be asked for again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.tell() if file.seekable() else None
        self.length = 0

    def restart(self) -> None:
        """Begin again. Raises ServerFault for a file that cannot."""
        if self.length:
            if self._start is None:
                raise ServerFault("the answer broke off, and this file cannot be written anew")
            self._file.seek(self._start)
            self._file.truncate()
        self.length = 0

    def write(self, piece: bytes) -> None:
        """Take the next piece."""
        self._file.write(piece)
        self.length += len(piece)
