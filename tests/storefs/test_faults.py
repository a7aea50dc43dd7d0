"""The table of what obstore's and aiohttp's failures mean: every class of both has a place in it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from email.utils import formatdate
from itertools import islice
from types import SimpleNamespace

import aiohttp
import obstore.exceptions
import pytest

import storefs
from storefs.transport import faults
from storefs.transport.faults import Again, Denied, NeedsHttp, Signal, WrongRegion
from storefs.transport.retry import LONGEST_DELAY, LONGEST_RETRY_AFTER, Patience, delays, retry_after

URL = "https://host/layer/info"


def all_below(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from all_below(below)


OBSTORE = sorted(set(all_below(obstore.exceptions.BaseError)), key=lambda kind: kind.__name__)
AIOHTTP = sorted(set(all_below(aiohttp.ClientError)), key=lambda kind: kind.__name__)


KEY = SimpleNamespace(host="host", port=443, ssl=True, is_ssl=True)
REQUEST = SimpleNamespace(real_url=f"{URL}?sig=s3cret", headers={}, method="GET")
REFUSED = OSError(111, "Connection refused")
ARGUMENTS = {
    aiohttp.ClientConnectorCertificateError: (KEY, ValueError("hostname mismatch")),
    aiohttp.client_exceptions.UnixClientConnectorError: ("/socket", KEY, REFUSED),
    aiohttp.ClientConnectorError: (KEY, REFUSED),
    aiohttp.ClientResponseError: (REQUEST, ()),
    aiohttp.ServerFingerprintMismatch: (b"a", b"b", "host", 443),
    aiohttp.InvalidURL: (f"{URL}?sig=s3cret",),
    OSError: (104, "Connection reset by peer"),
}


def aiohttp_error(kind: type[Exception]) -> Exception:
    """One failure of `kind`, built as aiohttp builds it."""
    arguments = (given for above, given in ARGUMENTS.items() if issubclass(kind, above))
    return kind(*next(arguments, ("some words",)))


def fault_in(verdict: Exception) -> Exception:
    return verdict.fault if isinstance(verdict, Signal) else verdict


@pytest.mark.parametrize("kind", OBSTORE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("words", ["", "Generic HTTP error: something new\n\nDebug source:\nGeneric { kind: Unknown }"])
def test_every_failure_of_obstore_has_a_meaning(kind, words):
    """NotFound means absent; every other class leads to a TransportError that is no FileNotFoundError."""
    verdict = faults.judge_obstore(kind(words), URL, 1.0)
    if kind is obstore.exceptions.NotFoundError:
        assert verdict is None
        return
    fault = fault_in(verdict)
    assert isinstance(fault, storefs.TransportError)
    assert not isinstance(fault, FileNotFoundError)
    assert fault.url == URL


@pytest.mark.parametrize("kind", AIOHTTP, ids=lambda kind: kind.__name__)
def test_every_failure_of_aiohttp_has_a_meaning(kind):
    """Every class leads to a TransportError that is no FileNotFoundError and tells no query."""
    fault = fault_in(faults.judge_aiohttp(aiohttp_error(kind), URL, 1.0))
    assert isinstance(fault, storefs.TransportError)
    assert not isinstance(fault, FileNotFoundError)
    assert "s3cret" not in str(fault)
    assert isinstance(fault, TimeoutError) == issubclass(kind, TimeoutError)


@pytest.mark.parametrize("status", [*range(100, 600)])
def test_every_status_has_a_meaning(status):
    """Absent, refused, worth another try, or a fault: never two of them, the same for both clients."""
    verdict = faults.judge_status(status, "words", URL)
    text = (
        f"Generic HTTP error: Error performing GET {URL} in 1ms - Server returned non-2xx status code: {status} Words: "
    )
    for kind in (obstore.exceptions.GenericError, FileNotFoundError):
        assert type(faults.judge_obstore(kind(text), URL, 1.0)) is type(verdict)
    if status in (204, 404, 410):
        assert verdict is None
    elif status in (401, 403, 407):
        assert isinstance(verdict, Denied)
        assert isinstance(verdict.fault, storefs.Refused)
    elif status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
        assert isinstance(verdict, Again)
        assert str(status) in str(verdict.fault)
    else:
        assert isinstance(verdict, storefs.ServerFault)


def obstore_error(line: str, debug: str = "") -> Exception:
    return obstore.exceptions.GenericError(f"Generic S3 error: {line}\n\nDebug source:\n{debug}")


def test_obstores_words_are_understood():
    """What obstore says in words only: no length, another region, time-outs, certificates, refused connections."""
    judge = faults.judge_obstore
    assert isinstance(judge(obstore_error("Content-Length Header missing from response"), URL, 1), NeedsHttp)
    assert isinstance(judge(ValueError('Could not parse path: Path "a//b"'), URL, 1), NeedsHttp)
    assert isinstance(judge(obstore_error("Received redirect without LOCATION, this …"), URL, 1), WrongRegion)
    malformed = (
        "… status code: 400 Bad Request: <Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region>"
    )
    assert isinstance(judge(obstore_error(malformed), URL, 1), WrongRegion)
    slow = judge(obstore_error("HTTP error: request or response body error", "kind: Timeout, kind: Body"), URL, 7)
    assert isinstance(slow.fault, storefs.TimedOut)
    assert "7 s" in str(slow.fault)
    unsafe = judge(obstore_error("HTTP error: error sending request", 'InvalidCertificate message: "expired"'), URL, 1)
    assert isinstance(unsafe, storefs.TransportError)
    gone = judge(obstore_error("HTTP error: error sending request", 'message: "Connection refused"'), URL, 1)
    assert "Connection refused" in str(gone.fault)


def test_messages_are_short_and_keep_secrets():
    """Of an XML answer only the code is told: its text names access keys; of other answers, only the start."""
    body = "<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId>"
    text = str(faults.judge_obstore(obstore_error(f"… status code: 400 Bad Request: {body}"), URL, 1))
    assert "400 Bad Request (SignatureDoesNotMatch)" in text
    assert "AKIA" not in text
    page = faults.judge_obstore(obstore_error(f"… status code: 418 Teapot: <html>{'x' * 999}"), URL, 1)
    assert len(str(page)) < 200
    long = faults.judge_obstore(obstore_error(f"… status code: 418 Teapot: {'x' * 999}"), URL, 1)
    assert len(str(long)) < 250


def test_faults_survive_pickling():
    """Errors travel between processes with their address and chunk."""
    fault = storefs.ServerFault("the server answered 500", url=URL).at_chunk("0-64")
    again = pickle.loads(pickle.dumps(fault))
    assert (type(again), again.url, again.chunk, str(again)) == (type(fault), URL, "0-64", str(fault))


# waiting


def test_delays_double_with_jitter_up_to_a_bound():
    """Each delay is half to all of 0.1 s doubled per try, never above the longest, however many there are."""
    found = list(islice(delays(5000), 5000))
    assert all(0.5 * 0.1 * 2**i <= delay <= 0.1 * 2**i for i, delay in enumerate(found[:7]))
    assert max(found) <= LONGEST_DELAY
    assert len(set(found[:20])) == 20
    assert list(delays(0)) == []


def test_patience_ends():
    """As many waits as retries, then the fault; two time-outs at most, then the time-out."""
    fault = Again(storefs.ServerFault("x"), wait=3.0)
    patience = Patience(2)
    assert patience.wait(fault) == 3.0
    assert patience.wait(fault, at_least=4.0) == 4.0
    with pytest.raises(storefs.ServerFault):
        patience.wait(fault)
    patience, slow = Patience(9), Again(storefs.TimedOut("x"))
    patience.wait(slow)
    patience.wait(slow)
    with pytest.raises(storefs.TimedOut):
        patience.wait(slow)


def test_retry_after_is_read():
    """Seconds or a date, never negative, never longer than is sensible; nonsense is no wait."""
    assert retry_after("3") == 3
    assert retry_after("1.5") == 1.5
    assert 8 < retry_after(formatdate(usegmt=True, timeval=__import__("time").time() + 10)) <= 10
    assert retry_after("Mon, 01 Jan 2001 00:00:00 GMT") == 0
    assert retry_after("-3") == 0
    assert retry_after("999999999") == LONGEST_RETRY_AFTER
    assert retry_after("nan") >= 0
    assert retry_after("inf") == LONGEST_RETRY_AFTER
    for nonsense in (None, "", "soon", "Mon, 99 Foo 2001"):
        assert retry_after(nonsense) == 0
