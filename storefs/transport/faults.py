"""What answers and failures mean: the one table for obstore's and aiohttp's.

Each `judge_…` gives None for "there is no such object", and otherwise what to raise: a TransportError, or a Signal
that says what may still be tried and carries the TransportError to raise if nothing helps. obstore tells most things
in words only, so its words are read here and nowhere else.
"""

from __future__ import annotations

import os
import re

import aiohttp
from obstore.exceptions import (
    BaseError,
    GenericError,
    InvalidPathError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from storefs.errors import Refused, ServerFault, TimedOut, TransportError

ABSENT_STATUS = frozenset({204, 404, 410})
REFUSED_STATUS = frozenset({401, 403, 407})
SLOW_DOWN_STATUS = frozenset({429, 503})
RANGE_STATUS = 416
_RETRIED_STATUS = frozenset({408, 425, 429})
_SERVER_STATUS = 500
_FINAL_STATUS = frozenset({501, 505})
BAD_REQUEST_STATUS = 400

_STATUS = re.compile(r"status code: (\d{3})([^\n]*)")
_CODE = re.compile(r"<Code>([^<]{1,80})</Code>")
_REASON = re.compile(r'message: "([^"\n]{1,200})"')
_REGION = re.compile(r"[Rr]egion")
_LONGEST_DETAIL = 120


class Signal(Exception):
    """Something may still be tried; `fault` is what to raise if not."""

    def __init__(self, fault: TransportError) -> None:
        super().__init__(fault)
        self.fault = fault


class Again(Signal):
    """Worth another try, after at least `wait` seconds; `slow_down` where the server is asking for less."""

    def __init__(self, fault: TransportError, wait: float = 0.0, *, slow_down: bool = False) -> None:
        super().__init__(fault)
        self.wait = wait
        self.slow_down = slow_down


class NeedsHttp(Signal):
    """obstore cannot ask for this or cannot read the answer; a plain HTTP client can."""


class Denied(Signal):
    """401, 403 or 407: other credentials may help. `note` says what is wrong with those at hand."""

    def __init__(self, status: int, url: str, note: str = "") -> None:
        super().__init__(Refused(f"the server refused this ({status}) {note}".rstrip(), url=url))
        self.status = status
        self.note = short(note)


class WrongRegion(Signal):
    """The bucket lives in another region: `region`, where the server says which."""

    def __init__(self, fault: TransportError, region: str | None = None) -> None:
        super().__init__(fault)
        self.region = region


def elsewhere(url: str) -> TransportError:
    """The failure to raise where a bucket's region cannot be found."""
    return TransportError("the bucket lives in another region: pass region=…, such as region='eu-west-1'", url=url)


def judge_status(status: int, detail: str, url: str, *, wait: float = 0.0) -> TransportError | Signal | None:
    """What an answer other than success means; `detail` is its reason or the start of its body."""
    if status in ABSENT_STATUS:
        return None
    if status in REFUSED_STATUS:
        return Denied(status, url)
    fault = ServerFault(f"the server answered {status} {detail}".rstrip(), url=url)
    if status in _RETRIED_STATUS or (status >= _SERVER_STATUS and status not in _FINAL_STATUS):
        return Again(fault, wait, slow_down=status in SLOW_DOWN_STATUS)
    return fault


def judge_aiohttp(error: Exception, url: str, timeout: float) -> TransportError | Signal:  # noqa: PLR0911  # one line a kind
    """What a failure of aiohttp means."""
    if isinstance(error, TimeoutError):
        return Again(timed_out(url, timeout))
    if isinstance(error, aiohttp.ClientSSLError):
        return TransportError(f"no safe connection: {short(str(error))}", url=url)
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror or type(error.os_error).__name__
        return Again(ServerFault(f"no connection: {short(why)}", url=url))
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return TransportError("this address cannot be asked for", url=url)
    if isinstance(error, aiohttp.TooManyRedirects):
        return ServerFault("the server redirects without end", url=url)
    if isinstance(error, aiohttp.ClientResponseError):
        return Again(ServerFault(f"the answer is broken: {short(error.message)}", url=url))
    if isinstance(error, aiohttp.ClientPayloadError):
        return Again(ServerFault("the body is cut short or broken", url=url))
    return Again(ServerFault(f"the connection broke: {type(error).__name__}", url=url))


def judge_obstore(  # noqa: PLR0911  # one line a kind
    error: Exception, url: str, timeout: float
) -> TransportError | Signal | None:
    """What a failure of obstore means."""
    text = str(error)
    line, _, debug = text.partition("\n\nDebug source")
    status = _STATUS.search(line)
    if status:
        code = int(status.group(1))
        verdict = judge_status(code, _detail(status.group(2)), url)
        # a signature for the wrong region is a bad request
        wrong_region = code == BAD_REQUEST_STATUS and _REGION.search(status.group(2))
        return WrongRegion(verdict) if wrong_region and isinstance(verdict, TransportError) else verdict
    if isinstance(error, NotFoundError | FileNotFoundError):
        return None
    if isinstance(error, PermissionDeniedError):
        return Denied(403, url)
    if isinstance(error, UnauthenticatedError):
        return Denied(401, url, line.rpartition("credential provider: ")[2])
    if isinstance(error, NotSupportedError | InvalidPathError | ValueError) or "Header missing" in line:
        return NeedsHttp(ServerFault(f"this cannot be read: {short(line)}", url=url))
    if "without LOCATION" in line:
        return WrongRegion(elsewhere(url))
    if "kind: Timeout" in debug or "TimedOut" in debug:
        return Again(timed_out(url, timeout))
    if "following redirect" in line:
        return ServerFault("the server redirects without end, or to no web address", url=url)
    if "certificate" in debug.lower():
        return TransportError(f"no safe connection: {_reason(line, debug)}", url=url)
    fault = ServerFault(f"the connection failed: {_reason(line, debug)}", url=url)
    return Again(fault) if isinstance(error, GenericError) or not isinstance(error, BaseError) else fault


def status_of(error: Exception) -> int | None:
    """The HTTP status that obstore's `error` tells of."""
    found = _STATUS.search(str(error).partition("\n\nDebug source")[0])
    return int(found.group(1)) if found else None


def timed_out(url: str, timeout: float) -> TimedOut:
    """The failure to raise where nothing came for `timeout` seconds."""
    return TimedOut(f"no answer within {timeout:g} s (a longer wait: timeout=…)", url=url)


def _detail(text: str) -> str:
    """Reason and start of a body; of an XML body only the code, as the rest may name access keys."""
    reason, _, body = text.strip().partition(": ")
    code = _CODE.search(body)
    if code:
        return f"{reason} ({code.group(1)})"
    return reason if body.lstrip()[:1] in ("<", "") else short(f"{reason}: {body}")


def _reason(line: str, debug: str) -> str:
    """The telling part of an obstore message: no address, no debug dump."""
    found = _REASON.findall(debug)
    return short(found[-1] if found else line.rpartition(" - ")[2])


def short(text: str) -> str:
    """`text` on one line, cut where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_DETAIL else f"{text[: _LONGEST_DETAIL - 1]}…"
