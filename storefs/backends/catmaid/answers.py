"""What a CATMAID server's answers mean: JSON, or one of its many ways to say no. Pure.

Failures come as `{"error", "detail", "type"}`; servers before 2020.02 send them with status 200. `detail` is the
server's traceback and never shown. A wrong token is ignored by the server, which then answers as it does to strangers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from storefs.errors import MetadataError, NoSuchVolume, Refused, ServerFault, StorefsError

if TYPE_CHECKING:
    from storefs.plans import Reply

OK = 200
_REFUSED = frozenset({401, 403, 407})
NOT_FOUND = frozenset({404, 410})
_REDIRECTS = range(300, 400)
_ABSENT_TYPES = frozenset({"DoesNotExist", "Http404"})
_ABSENT_WORDS = ("does not exist", "doesn't belong", "matches the given query", "There is no stack")
_SHOWN = 200


def read_json(reply: Reply, what: str, url: str, *, with_token: bool = False) -> Any:  # noqa: ANN401  # any JSON value
    """The JSON in `reply` to the question for `what`.

    Raises Refused, NoSuchVolume, ServerFault for the server's errors, MetadataError for what is no JSON.
    """
    document = _json(reply.data)
    if reply.status != OK:
        raise failure(reply.status, document, what, url, with_token=with_token)
    if document is None:
        if _is_page(reply):
            raise MetadataError(
                f"{what}: the server answered with a web page instead of JSON; is this the address of a CATMAID "
                "server, and does it want a login first?",
                url=url,
            )
        raise MetadataError(f"{what}: the answer is no JSON, or cut short", url=url)
    if is_failure(document):
        raise failure(OK, document, what, url, with_token=with_token)
    return document


def is_failure(document: object) -> bool:
    """Whether `document` is an error that came as if it were an answer."""
    return isinstance(document, dict) and "error" in document and "sid" not in document


def failure(status: int, document: object, what: str, url: str, *, with_token: bool = False) -> StorefsError:
    """What to raise for an answer that is no success; `document` is its body, if that is JSON."""
    said, kind = _words(document), ""
    if isinstance(document, dict):
        kind = str(document.get("type") or "")
    answer = f"{what}: the server answered {status}" + (f": {said}" if said else "")
    if status in _REFUSED or kind == "PermissionError" or "required permissions" in said:
        hint = (
            "a token was sent, but CATMAID ignores a wrong one: it may be mistyped, expired or another server's"
            if with_token
            else "pass token=… or set CATMAID_API_TOKEN; where a web server in front asks, user=… and password=…"
        )
        return Refused(f"{answer}; {hint}", url=url)
    absent = kind in _ABSENT_TYPES or any(words in said for words in _ABSENT_WORDS)
    if absent or status in NOT_FOUND:
        return NoSuchVolume(answer, url=url)
    if "linked multiple times" in said:
        return MetadataError(f"{answer} A stack has one place in a project: unlink it on the server", url=url)
    if status in _REDIRECTS:
        return ServerFault(f"{answer}, which leads elsewhere: give the address that it leads to", url=url)
    return ServerFault(answer, url=url)


def tile_failure(reply: Reply, url: str) -> StorefsError:
    """What to raise for an answer, to the question for a tile, that is neither a tile nor "not there"."""
    error = failure(reply.status, _json(reply.data), "tile", url)
    # once a volume is open, nothing is "no such volume"
    return ServerFault(error.message, url=url) if isinstance(error, NoSuchVolume) else error


def _json(data: bytes) -> Any:  # noqa: ANN401  # any JSON value
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _is_page(reply: Reply) -> bool:
    return "html" in reply.content_type or reply.data.lstrip()[:1] == b"<"


def _words(document: object) -> str:
    """What an error says, on one line."""
    if not isinstance(document, dict):
        return ""
    said = document.get("error")
    if not isinstance(said, str):
        # the only detail that is no traceback stands alone
        said = document.get("detail") if "type" not in document else None
    return " ".join(said.split())[:_SHOWN] if isinstance(said, str) else ""
