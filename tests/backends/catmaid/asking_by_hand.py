"""Plans driven by hand: each request is answered by a function, and noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from storefs.errors import StorefsError
from storefs.plans import At, Body, Call, Get, Once, Plan, Race, Reply, drive
from tests.backends.catmaid.specimen import png, tissue

T = TypeVar("T")
Answer = Callable[[Any], Any]

TILE = Body(png(tissue((1, 64, 64))[0]))
GONE = None


class Asked:
    """Answers requests by `answer`, whose StorefsErrors are the answers of a race; notes them in `requests`."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Any] = []

    def __call__(self, request: Any) -> Any:
        match request:
            case Race():
                return tuple((self._caught(one), 1.0) for one in request.requests)
            case Once():
                return drive(request.plan(), self)
        self.requests.append(request)
        found = self.answer(request)
        if isinstance(found, StorefsError):
            raise found
        return found

    def _caught(self, request: Any) -> Any:
        try:
            return self(request)
        except StorefsError as error:
            return error

    @property
    def paths(self) -> list[str]:
        """What was asked for, as text."""
        return [path_of(request) for request in self.requests]

    def run(self, plan: Plan[T]) -> T:
        """What `plan` comes to."""
        return drive(plan, self)


def path_of(request: Any) -> str:
    """The address or path of a request."""
    if isinstance(request, At):
        return request.request.path
    return "/".join(request.path) if isinstance(request, Call) else str(request.path)


def served(host: str, found: Any = TILE) -> Answer:
    """A host that answers every request with `found`, and all others with "gone"."""
    return lambda request: found if path_of(request).startswith(host) else GONE


def json_reply(text: str, status: int = 200, content_type: str = "application/json") -> Reply:
    """What a server answers."""
    return Reply(status, text.encode(), content_type)


def is_image(request: Any) -> bool:
    """Whether a request is for a tile, to be read whole."""
    return isinstance(request, At) and isinstance(request.request, Get)
