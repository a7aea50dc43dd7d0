"""The options that bear on what is read, and how long to wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from storefs.backends.catmaid.broken import Policy
from storefs.backends.catmaid.info import Mirror
from storefs.backends.catmaid.url import ANY_MIRROR
from storefs.errors import UrlError

Channels = Literal["luma", "rgb", "first"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a stack is read.

    `accounts` names mirrors (id, title, host, "*") for which there are credentials; `with_token` says that the CATMAID
    server gets a token, `local` that mirrors may lie on this machine, `timeout` how many seconds a mirror has to
    answer, and `forbidden_is_missing` that a 403 is no refusal.
    """

    mirror: int | str | None = None
    channels: Channels = "luma"
    broken: Policy = "fill"
    fill_value: int = 0
    dtype: str | None = None
    fallback: bool = False
    flix_query: str = ""
    accounts: frozenset[str] = frozenset()
    with_token: bool = False
    local: bool = False
    timeout: float = 60.0
    forbidden_is_missing: bool = False
    stack_info: Mapping[str, Any] | None = None

    def account(self, mirror: Mirror) -> str:
        """The account for requests to `mirror`: by id before title before host; "" for none."""
        root = mirror.image_base.partition("://")[2].partition("/")[0].rpartition("@")[2]
        for name in (str(mirror.id), mirror.title, root, root.partition(":")[0], ANY_MIRROR):
            if name in self.accounts:
                return name
        return ""

    def wanted(self, mirrors: tuple[Mirror, ...], url: str) -> tuple[Mirror, ...]:
        """The mirrors to choose from: all, or the one that was named, by id before position before title.

        Raises UrlError where there is no such mirror.
        """
        if self.mirror is None or self.mirror == "fastest":
            return mirrors
        text = str(self.mirror)
        for named in (
            [mirror for mirror in mirrors if str(mirror.id) == text],
            [mirror for mirror in mirrors if str(mirror.position) == text],
            [mirror for mirror in mirrors if mirror.title == text],
        ):
            if named:
                return (named[0],)
        offered = "; ".join(f"id {m.id}, position {m.position}, title {m.title!r}" for m in mirrors) or "none"
        raise UrlError(f"option mirror: no mirror {self.mirror!r}; there are: {offered}", url=url)
