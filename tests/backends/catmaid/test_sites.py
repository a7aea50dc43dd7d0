"""Sites: who is asked, with which credentials, how often, and what is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from storefs.errors import Refused, ServerFault, TimedOut, TransportError, UrlError
from storefs.plans import At, Body, Call, Get, Head, Names, Race, Reply
from storefs.transport.options import TransportOptions
from storefs.transport.service import ServiceOptions, ServiceTransport
from storefs.transport.sites import Sites

TOKEN = {"X-Authorization": "Token abc"}


class Host(ThreadingHTTPServer):
    """Answers with the path; notes what was asked. `status` by path, `gate` holds answers back."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.status: dict[str, int] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.lock = threading.Lock()
        self.inside = self.most_inside = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One exchange."""

    protocol_version = "HTTP/1.1"
    server: Host

    def do_GET(self) -> None:
        host = self.server
        with host.lock:
            host.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            host.inside += 1
            host.most_inside = max(host.most_inside, host.inside)
        host.hold.wait(10)
        body = self.path.encode()
        with host.lock:
            host.inside -= 1
        self.send_response(host.status.get(self.path, 200))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  # the name that is called

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.hold.set()
        server.shutdown()
        thread.join()


def sites(host: Host | None = None, **settings: Any) -> Sites:
    """Sites around `host` as the service, impatient."""
    service = None
    if host is not None:
        options = ServiceOptions(headers=TOKEN, timeout=5.0, retries=0, retry_timeout=0.0)
        service = ServiceTransport(host.url, f"{host.url}/1/2", options)
    options = settings.pop("options", TransportOptions(timeout=5.0, retries=0, headers=TOKEN, query="key=abc"))
    return Sites(service, "catmaid", options, **settings)


@pytest.mark.parametrize("path", ["/a/b.png", "/a//b.png", "/a/b.png?q=80", "/a%20b/c%2Fd.png", "/x:80/1_-1_2"])
def test_addresses_are_asked_as_written(host: Host, path: str):
    """What stands in an address reaches the server as it is, from threads and event loops."""
    at = At(Get(f"{host.url}{path}"))
    assert bytes(sites().fetch(at).data) == path.encode()
    assert bytes(asyncio.run(sites().fetch_async(at)).data) == path.encode()


@pytest.mark.parametrize(("path", "asked"), [("/a b/1.png", "/a%20b/1.png"), ("/é/1_(2).png", "/%C3%A9/1_(2).png")])
def test_addresses_are_escaped_as_browsers_do(host: Host, path: str, asked: str):
    """Spaces and letters beyond ASCII, which no address may hold, reach the server escaped."""
    assert bytes(sites().fetch(At(Get(f"{host.url}{path}"))).data) == asked.encode()
    assert bytes(asyncio.run(sites().fetch_async(At(Get(f"{host.url}{path}")))).data) == asked.encode()


@pytest.mark.parametrize("path", ["/a.png", "/a.png?q=1"])
def test_sites_see_no_credentials_of_the_service(host: Host, path: str):
    """Neither the service's headers nor its query go to a site, even on the same host."""
    both = sites(host)
    both.fetch(At(Get(f"{host.url}{path}")))
    both.fetch(Race((At(Get(f"{host.url}{path}")),), 5.0))
    reply = both.fetch(Call(("1", "stack", "2", "info")))
    assert isinstance(reply, Reply)
    *images, service = host.seen
    assert all("x-authorization" not in headers and "key=" not in asked for _, asked, headers in images)
    assert service[2]["x-authorization"] == "Token abc"


def test_accounts(host: Host):
    """A request carries the headers of its account, others none."""
    both = sites(accounts={"a": {"Authorization": "Token boss"}})
    both.fetch(At(Get(f"{host.url}/1"), "a"))
    both.fetch(At(Get(f"{host.url}/2")))
    assert [headers.get("authorization") for _, _, headers in host.seen] == ["Token boss", None]


def test_a_password_in_the_address(host: Host):
    """User and password before the host become HTTP basic."""
    address = host.url.replace("http://", "http://me:p%40w@") + "/1"
    assert bytes(sites().fetch(At(Get(address))).data) == b"/1"
    assert host.seen[0][2]["authorization"] == "Basic bWU6cEB3"


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("path", ["/a.png", "/a.png?q=1"])
def test_absent(host: Host, status: int, path: str):
    """404 and 410 are no images, by GET and HEAD."""
    host.status[path] = status
    assert sites().fetch(At(Get(f"{host.url}{path}"))) is None
    assert sites().fetch(At(Head(f"{host.url}{path}"))) is None
    assert isinstance(sites().fetch(At(Head(f"{host.url}/other"))), Body)


@pytest.mark.parametrize(("status", "kind"), [(401, Refused), (403, Refused), (400, ServerFault), (500, ServerFault)])
@pytest.mark.parametrize("path", ["/a.png", "/a.png?q=1"])
def test_failures(host: Host, status: int, kind: type[TransportError], path: str):
    """Other statuses raise; refusals say which option has the password."""
    host.status[path] = status
    with pytest.raises(kind) as caught:
        sites().fetch(At(Get(f"{host.url}{path}")))
    assert ("mirror_auth" in str(caught.value)) == (kind is Refused)


@pytest.mark.parametrize("path", ["/a.png", "/a.png?q=1"])
def test_forbidden_as_missing(host: Host, path: str):
    """Once a site has let us in, a 403 may stand for "not there"."""
    lenient = sites(options=TransportOptions(timeout=5.0, retries=0, forbidden="missing"))
    host.status[path] = 403
    with pytest.raises(Refused):
        lenient.fetch(At(Get(f"{host.url}{path}")))
    lenient.fetch(Race((At(Get(f"{host.url}/fine")),), 5.0))
    assert lenient.fetch(At(Get(f"{host.url}{path}"))) is None


def test_images_are_kept(host: Host):
    """An image is asked for once, its absence too; failures and parts are not kept."""
    both = sites()
    host.status |= {"/gone": 404, "/bad": 500}
    for _ in range(2):
        both.fetch(At(Get(f"{host.url}/a")))
        assert asyncio.run(both.fetch_async(At(Get(f"{host.url}/a")))) is not None
        assert both.fetch(At(Get(f"{host.url}/gone"))) is None
        with pytest.raises(ServerFault):
            both.fetch(At(Get(f"{host.url}/bad")))
    assert sorted(path for _, path, _ in host.seen) == ["/a", "/bad", "/bad", "/gone"]


def test_nothing_is_kept(host: Host):
    """Without a cache each question is asked."""
    both = sites(cache_bytes=0)
    for _ in range(2):
        both.fetch(At(Get(f"{host.url}/a")))
    assert len(host.seen) == 2


def test_what_is_kept_depends_on_the_account(host: Host):
    """An image that was seen with credentials is not shown without."""
    both = sites(accounts={"a": {"Authorization": "Token boss"}})
    both.fetch(At(Get(f"{host.url}/1"), "a"))
    host.status["/1"] = 401
    with pytest.raises(Refused):
        both.fetch(At(Get(f"{host.url}/1")))


def test_so_many_at_a_time(host: Host):
    """No more are in flight than `concurrency`, in threads and on an event loop."""
    both = sites(concurrency=3, cache_bytes=0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: both.fetch(At(Get(f"{host.url}/{n}"))), range(40)))

    async def many() -> None:
        await asyncio.gather(*(both.fetch_async(At(Get(f"{host.url}/{n}"))) for n in range(40)))

    assert host.most_inside <= 3
    asyncio.run(many())
    assert host.most_inside <= 3
    assert len(host.seen) == 80


def test_a_race(host: Host):
    """All are asked at once, none twice; each has its own outcome."""
    host.status |= {"/gone": 404, "/bad": 503}
    paths = ("/a", "/gone", "/bad")
    patient = sites(host, options=TransportOptions(timeout=5.0, retries=3))
    asked = (*(At(Get(f"{host.url}{path}")) for path in paths), Call(("version",)), At(Get("ftp://h/a")))
    found = [answer for answer, _ in patient.fetch(Race(asked, 5.0))]
    assert [type(answer) for answer in found] == [Body, type(None), ServerFault, Reply, UrlError]
    assert sorted(path for _, path, _ in host.seen) == ["/a", "/bad", "/gone", "/version"]


def test_a_race_has_its_own_patience(host: Host):
    """What takes longer than the race may take has timed out."""
    host.hold.clear()
    ((answer, seconds),) = sites().fetch(Race((At(Get(f"{host.url}/a")),), 0.05))
    assert isinstance(answer, TimedOut)
    assert seconds >= 0.05


def test_files(tmp_path: Path):
    """Files of this machine are read where that is allowed, and only there."""
    (tmp_path / "a b.png").write_bytes(b"tile")
    address = f"file://{tmp_path}/a b.png"
    local = sites(files=True, local=True)
    assert local.blocking
    assert local.fetch(At(Get(address))).data == b"tile"
    assert asyncio.run(local.fetch_async(At(Get(address)))).data == b"tile"
    assert local.fetch(At(Get(f"{address}x"))) is None
    with pytest.raises(UrlError, match="may not name files"):
        sites().fetch(At(Get(address)))


@pytest.mark.parametrize("address", ["ftp://h/a", "data:,a", "memory://a", "no address"])
def test_other_schemes(address: str):
    """What is neither web, bucket nor file is no site."""
    with pytest.raises(UrlError):
        sites(files=True).fetch(At(Get(address)))


def test_without_a_service():
    """Without a service there is nobody to call, and nothing can be listed."""
    with pytest.raises(TransportError, match="no server"):
        sites().fetch(Call(("version",)))
    assert sites().fetch(Names("a")) is None
    with pytest.raises(UrlError):
        sites().connect("https://elsewhere")
