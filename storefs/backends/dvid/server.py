"""The server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storefs.backends.dvid.part import Part, asked
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.plans import Plan


class Server(Part):
    """What a server says of itself."""

    @asked
    def info(self) -> Plan[dict[str, str]]:
        """Versions, cores, storage and so on, every value text; which keys there are differs by server."""
        return (yield from self._ask_json(Call(("api", "server", "info"))))  # type: ignore[no-any-return]  # JSON

    @asked
    def types(self) -> Plan[dict[str, str]]:
        """The data types in use, with the address of their source; empty for a fresh server."""
        return (yield from self._ask_json(Call(("api", "server", "types"))))  # type: ignore[no-any-return]  # JSON

    @asked
    def compiled_types(self) -> Plan[dict[str, str]]:
        """All data types that the server knows, with the address of their source."""
        return (yield from self._ask_json(Call(("api", "server", "compiled-types"))))  # type: ignore[no-any-return]  # JSON

    @asked
    def note(self) -> Plan[str]:
        """The note that the server's owner set."""
        return (yield from self._text("api", "server", "note"))

    @asked
    def load(self) -> Plan[dict[str, int]]:
        """Counts of the last second: requests, bytes, handlers."""
        return (yield from self._ask_json(Call(("api", "load"))))  # type: ignore[no-any-return]  # JSON

    @asked
    def heartbeat(self) -> Plan[bool]:
        """Whether the server is there and well."""
        return (yield from self._text("api", "heartbeat")) == "OK"

    @asked
    def help(self, typename: str | None = None) -> Plan[str]:
        """The server's own description of its API, or of one data type's."""
        return (yield from self._text("api", "help", *([typename] if typename else [])))

    @asked
    def set_settings(self, /, **settings: str) -> Plan[None]:
        """Change settings such as `throttle="2"`; needs the admin token."""
        yield from self._post_json(("api", "server", "settings"), settings)

    def _text(self, *path: str) -> Plan[str]:
        reply = yield from self._ask(Call(path))
        return reply.data.decode("utf-8", "replace").strip()
