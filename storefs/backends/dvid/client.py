"""The typed client of a DVID server: one object, its subjects as attributes.

Coordinates that are parameters or results end in `_xyz` where they are in DVID's order; boxes and arrays are zyx
unless `axes="xyz"` says otherwise. https://github.com/janelia-flyem/dvid describes the API.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from storefs.backends.dvid.block_streams import Blocks
from storefs.backends.dvid.instances import Instances
from storefs.backends.dvid.keyvalue import KeyValues
from storefs.backends.dvid.labels import Labels
from storefs.backends.dvid.part import Connection
from storefs.backends.dvid.planes import Planes
from storefs.backends.dvid.repos import Repos, Versions
from storefs.backends.dvid.roi import Rois
from storefs.backends.dvid.server import Server
from storefs.backends.dvid.sparse import SparseVolumes
from storefs.backends.dvid.tiles import Tiles
from storefs.backends.dvid.url import credentials, parse_address
from storefs.backends.dvid.volumes import Volumes
from storefs.errors import UrlError
from storefs.transport.service import ServiceOptions, ServiceTransport


class Client:
    """A DVID server at `server`: "http://host:8000", "host:8000" or "dvid://https://host".

    Subjects: `server`, `repos`, `versions`, `instances`, `voxels`, `planes`, `blocks`, `labels`, `sparse`, `rois`,
    `keyvalues`, `tiles`. Thread-safe.

    Options
    -------
    user, app
        Recorded by the server with what is asked.
    token, admin_token
        Default to the environment's DVID_TOKEN and DVID_ADMIN_TOKEN. They never show, and do not travel in pickles.
    timeout, retries, retry_timeout, warning_interval
        As for `storefs.transport.service.ServiceOptions`.
    throttle
        Ask big reads and writes as throttled ones, which a busy server may put off.

    Raises UrlError for an address that names no server, or more than a server. Every question may raise NoSuchVolume
    (unknown version or instance), Unsupported (not of this type), Refused, TimedOut, ServerFault, and otherwise
    TransportError with the server's words.

    """

    def __init__(
        self,
        server: str,
        *,
        user: str | None = None,
        app: str | None = None,
        token: str | None = None,
        admin_token: str | None = None,
        timeout: float = 120.0,
        retries: int = 3,
        retry_timeout: float = 60.0,
        warning_interval: float = 30.0,
        throttle: bool = False,
    ) -> None:
        place = parse_address(server)
        if place.version:
            raise UrlError(f"a client is of a whole server: Client({place.server!r})", url=place.url)
        headers, query = credentials({"user": user, "app": app, "token": token, "admin_token": admin_token})
        self.url = place.server
        self._kept: dict[str, Any] = {
            "user": user,
            "app": app,
            "timeout": timeout,
            "retries": retries,
            "retry_timeout": retry_timeout,
            "warning_interval": warning_interval,
            "throttle": throttle,
        }
        options = ServiceOptions(headers, query, timeout, retries, retry_timeout, warning_interval)
        transport = ServiceTransport(place.server, place.url, options)
        self.connection = Connection(transport, self.url, "admintoken" in query, throttle)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client) and (self.url, self._kept) == (other.url, other._kept)

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.url, self._kept)

    @cached_property
    def server(self) -> Server:
        """The server itself: info, types, note, load, heartbeat."""
        return Server(self.connection)

    @cached_property
    def repos(self) -> Repos:
        """Repositories: create, info, log, branches."""
        return Repos(self.connection)

    @cached_property
    def versions(self) -> Versions:
        """Versions: locked or not, commit, new versions, branches, tags, notes, logs."""
        return Versions(self.connection)

    @cached_property
    def instances(self) -> Instances:
        """Data instances: create, info, metadata, extents, resolution."""
        return Instances(self.connection)

    @cached_property
    def voxels(self) -> Volumes:
        """Boxes of voxels, read and written."""
        return Volumes(self.connection)

    @cached_property
    def planes(self) -> Planes:
        """Two-dimensional slices."""
        return Planes(self.connection)

    @cached_property
    def blocks(self) -> Blocks:
        """Voxels block by block."""
        return Blocks(self.connection)

    @cached_property
    def labels(self) -> Labels:
        """Questions about labels; merge and cleave."""
        return Labels(self.connection)

    @cached_property
    def sparse(self) -> SparseVolumes:
        """The shapes of single labels."""
        return SparseVolumes(self.connection)

    @cached_property
    def rois(self) -> Rois:
        """Regions of interest."""
        return Rois(self.connection)

    @cached_property
    def keyvalues(self) -> KeyValues:
        """Bytes by key."""
        return KeyValues(self.connection)

    @cached_property
    def tiles(self) -> Tiles:
        """Pyramids of image tiles."""
        return Tiles(self.connection)


def _restore(url: str, kept: dict[str, Any]) -> Client:
    return Client(url, **kept)
