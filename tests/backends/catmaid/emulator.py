"""A CATMAID server for tests: projects, stacks, stack groups, tokens, tiles rendered by it, and its ways to say no.

Emulated: `projects/`, `{p}/stacks`, `{p}/stack/{s}/info|groups|tags/list|tile`, `{p}/stackgroup/{g}/info`, `version`
and `accounts/anonymous-api-token` as the development version of March 2024 answers, with the traceback shortened; and
of older servers the shapes of 2016 and 2017 and errors with status 200. Not emulated: the exporter, everything that
is POSTed. Shares no code with the product.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from tests.backends.catmaid.specimen import Array, Factor, jpeg, png
from tests.backends.catmaid.tile_hosts import PAGE, basic
from tests.backends.dvid.answers import Asked, Reply
from tests.backends.dvid.faults import Fault, Record, Seen
from tests.backends.dvid.loopback import Loopback

TOKEN = "0123456789abcdef0123456789abcdef01234567"  # of nothing but this emulator
ANONYMOUS_TOKEN = "feedfacefeedfacefeedfacefeedfacefeedface"
VERSION = "2021.12.21.dev0+unknown"
FRAMES = "Traceback (most recent call last):\n  ... frames removed ...\n"
NO_ROUTE = b"""
<!doctype html>
<html lang="en">
<head>
  <title>Not Found</title>
</head>
<body>
  <h1>Not Found</h1><p>The requested resource was not found on this server.</p>
</body>
</html>
"""
NO_CSRF = b"<html><head><title>403 Forbidden</title></head><body>... shortened ...</body></html>"
AXES = ("x", "y", "z")
Json = dict[str, Any]


@dataclass
class Mirror:
    """One place of a stack's tiles."""

    image_base: str
    tile_source_type: int = 1
    file_extension: str = "png"
    tile_width: int = 64
    tile_height: int = 64
    title: str = "main"
    position: int = 0
    id: int = 0


@dataclass
class Stack:
    """A stack; triples are x, y, z along its own axes. `factors` of None leaves the levels to the viewer."""

    id: int
    title: str
    dimension: tuple[int, int, int]
    mirrors: list[Mirror] = field(default_factory=list)
    resolution: tuple[float, float, float] = (4.0, 4.0, 40.0)
    factors: list[Factor] | None = field(default_factory=lambda: [(1, 1, 1)])
    broken_slices: Iterable[int] = ()
    canary: tuple[int, int, int] = (0, 0, 0)
    comment: str | None = None
    description: str = ""
    attribution: str | None = None
    metadata: Any = None
    placeholder: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


@dataclass
class Link:
    """A stack in a project."""

    stack: Stack
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: int = 0


@dataclass
class Group:
    """A stack group: stack ids with their relation, "view" or "channel", in order."""

    id: int
    title: str
    members: list[tuple[int, str]]
    comment: str | None = None


@dataclass
class Project:
    """A project; private ones are shown to those with the token."""

    id: int
    title: str
    links: list[Link] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    public: bool = True
    comment: str | None = None


class Refusal(Exception):
    """A request answered with an error object."""

    def __init__(self, status: int, kind: str, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text
        self.name, self.kind = kind, kind.rpartition(".")[2]


class CatmaidEmulator:
    """A CATMAID server on the loopback interface, at `prefix` (such as "/catmaid/l1"); a context manager.

    `age` is the year of an old server's shapes, 2016 or 2017. `errors_with_200` answers errors as servers before 2020
    did. `login` (user, password) is asked for by the web server in front. `page` answers all with a login page and
    200. `answers` are texts sent with 200 for a path. `hdf5` (by basename: volumes zyx by HDF5 group) and
    `cloudvolume` (by basename: levels) are what the `tile` endpoint renders; None: disabled. `known` are the tokens.
    """

    def __init__(self, *projects: Project, prefix: str = "") -> None:
        self.projects = list(projects)
        self.prefix = prefix
        self.known = {TOKEN}
        self.age: int | None = None
        self.errors_with_200 = False
        self.login: tuple[str, str] | None = None
        self.page = False
        self.latency = 0.0
        self.answers: dict[str, str] = {}
        self.unlinked: list[Stack] = []
        self.hdf5: dict[str, dict[int, Array]] | None = None
        self.cloudvolume: dict[str, list[Array]] | None = None
        self.faults: list[Fault] = []
        self.record = Record()
        self._lock = threading.Lock()
        self._server = Loopback(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the home page is, without a slash at its end."""
        return self._server.url + self.prefix

    @property
    def seen(self) -> list[Seen]:
        """Requests so far."""
        return self.record.requests

    @property
    def asked(self) -> list[str]:
        """Paths of the requests so far, without the prefix."""
        return [seen.path.removeprefix(self.prefix) for seen in self.seen]

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    # answering

    def _answer(self, asked: Asked) -> Reply:
        self.record.enter()
        reply = Reply(None)
        try:
            reply = self._reply(asked)
        finally:
            self.record.leave(asked, reply)
        return reply

    def _reply(self, asked: Asked) -> Reply:
        time.sleep(self.latency)
        with self._lock:
            fault = next((fault for fault in self.faults if fault.times != 0 and fault.where(asked)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
        if fault is not None:
            time.sleep(fault.delay)
            instead = fault.instead()
            if instead is not None:
                return instead
        reply = self._served(asked)
        if fault is not None:
            fault.spoil(reply)
        return reply

    def _served(self, asked: Asked) -> Reply:
        return self._in_front(asked) or self._of_catmaid(asked)

    def _in_front(self, asked: Asked) -> Reply | None:
        """The answer of the web server in front, where it does not let through."""
        if self.login is not None and asked.headers.get("authorization") != basic(*self.login):
            challenge = {"WWW-Authenticate": 'Basic realm="catmaid"', "Content-Type": "text/html"}
            return Reply(401, b"<html>401 Authorization Required</html>", challenge)
        if self.page:
            return Reply(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        return None

    def _of_catmaid(self, asked: Asked) -> Reply:
        path = asked.path.removeprefix(self.prefix) if asked.path.startswith(self.prefix + "/") else None
        if path is not None and path in self.answers:
            return Reply(200, self.answers[path].encode(), {"Content-Type": "application/json"})
        user = "reader" if self.known & set(_tokens(asked)[:1]) else None
        headers = {} if user else {"Vary": "Cookie"}
        if asked.method == "POST":
            return Reply(403, NO_CSRF, {"Content-Type": "text/html", **headers})
        try:
            if path is not None:
                for pattern, answer in self._routes().items():
                    if found := re.fullmatch(pattern, path):
                        return answer(asked, user, *map(int, found.groups()))
        except Refusal as refusal:
            return self._refused(refusal, headers)
        return Reply(404, NO_ROUTE, {"Content-Type": "text/html", **headers})

    def _routes(self) -> dict[str, Callable[..., Reply]]:
        return {
            r"/projects/": self._all_projects,
            r"/projects": self._slash_missing,
            r"/version": lambda *_: _json({"SERVER_VERSION": VERSION}, indent=None),
            r"/accounts/anonymous-api-token": lambda *_: _json({"token": ANONYMOUS_TOKEN}, indent=None),
            r"/(\d+)/stacks": self._stacks,
            r"/(\d+)/stack/(\d+)/info": self._info,
            r"/(\d+)/stack/(\d+)/groups": self._groups,
            r"/(\d+)/stack/(\d+)/tags/list": lambda _, user, *__: _json({"tags": []}, user),
            r"/(\d+)/stack/(\d+)/tile": self._tile,
            r"/(\d+)/stackgroup/(\d+)/info": self._group,
        }

    def _refused(self, refusal: Refusal, headers: dict[str, str]) -> Reply:
        told: dict[str, Any] = {"error": refusal.text}
        if self.age != 2016:
            detail = f"{FRAMES}{refusal.name}: {refusal.text}"
            told |= {"detail": detail, "type": refusal.kind, "meta": None}
        reply = _json(told)
        reply.status = 200 if self.errors_with_200 or self.age is not None else refusal.status
        reply.headers = {"Content-Type": "application/json", **headers}
        return reply

    def _slash_missing(self, asked: Asked, *_: object) -> Reply:
        return Reply(301, b"", {"Content-Type": "text/html; charset=utf-8", "Location": f"{self.prefix}/projects/"})

    def _all_projects(self, asked: Asked, user: str | None) -> Reply:
        rest = {"Vary": "Accept" if user else "Accept, Cookie", "Allow": "GET, OPTIONS"}
        tokens = _tokens(asked)
        if tokens and tokens[0] not in self.known:
            refused = {"Content-Type": "application/json", "WWW-Authenticate": "Token", **rest}
            return Reply(401, b'{"detail":"Invalid token."}', refused)
        mirrors = asked.options.get("with_mirrors") == "true"
        shown = [project for project in self.projects if project.public or user]
        reply = _json([_listed(project, with_mirrors=mirrors) for project in sorted(shown, key=lambda p: p.title)])
        reply.headers |= rest
        return reply

    def _project(self, project: int, user: str | None) -> Project:
        found = next((p for p in self.projects if p.id == project), None)
        if found is None:
            raise Refusal(500, "catmaid.models.Project.DoesNotExist", "Project matching query does not exist.")
        if not found.public and not user:
            text = f"User 'AnonymousUser' with ID 1 does not have the required permissions in project {project}"
            raise Refusal(403, "catmaid.control.authentication.PermissionError", text)
        return found

    def _link(self, project: int, stack: int, user: str | None) -> tuple[Project, Link]:
        owner = self._project(project, user)
        every = [*self.unlinked, *(link.stack for p in self.projects for link in p.links)]
        if all(other.id != stack for other in every):
            raise Refusal(404, "django.http.response.Http404", "No Stack matches the given query.")
        links = [link for link in owner.links if link.stack.id == stack]
        if not links:
            text = f"There is no stack with ID {stack} linked to the project with ID {project}."
            if self.age == 2016:
                text = "The stack doesn't belong to the project."
            raise Refusal(400, "ValueError", text)
        if len(links) > 1:
            text = f"The stack with ID {stack} is linked multiple times project with ID {project}, "
            raise Refusal(400, "ValueError", text + "but there should only be one link.")
        return owner, links[0]

    def _stacks(self, asked: Asked, user: str | None, project: int) -> Reply:
        links = self._project(project, user).links
        stacks = [
            {"id": s.id, "pid": project, "title": s.title, "comment": s.comment} for s in (k.stack for k in links)
        ]
        return _json(stacks, user)

    def _info(self, asked: Asked, user: str | None, project: int, stack: int) -> Reply:
        told = info(*self._link(project, stack, user))
        if self.age is not None:
            told = _aged(told, self.age)
        return _json(told, user)

    def _groups(self, asked: Asked, user: str | None, project: int, stack: int) -> Reply:
        groups = [group for p in self.projects for group in p.groups]
        ids = [group.id for group in groups if stack in dict(group.members)]
        return _json({"stack_group_ids": ids}, user, indent=None)

    def _group(self, asked: Asked, user: str | None, project: int, group: int) -> Reply:
        self._project(project, user)
        found = next((g for p in self.projects for g in p.groups if g.id == group), None)
        if found is None:
            raise Refusal(500, "catmaid.models.StackGroup.DoesNotExist", "StackGroup matching query does not exist.")
        members = [
            {"id": stack, "relation": relation, "position": n} for n, (stack, relation) in enumerate(found.members)
        ]
        told = {"id": group, "project_id": str(project), "title": found.title, "stacks": members}
        return _json(told, user, indent=None)

    def _tile(self, asked: Asked, user: str | None, project: int, stack: int) -> Reply:
        self._link(project, stack, user)
        options = asked.options
        x, y, z, width, height = (int(options[name]) for name in ("x", "y", "z", "width", "height"))
        scale = float(options["scale"])
        if options["format"] == "hdf5":
            if self.hdf5 is None:
                text = "HDF5 tile loading is currently disabled"
                raise Refusal(500, "catmaid.control.common.ConfigurationError", text)
            volume = self.hdf5.get(options["basename"], {}).get(int(scale))
            extension = "png"
        else:
            levels = (self.cloudvolume or {}).get(options["basename"])
            if levels is None:
                raise Refusal(500, "catmaid.control.common.ConfigurationError", "CloudVolume is not available")
            volume = levels[round(-np.log2(scale))]
            extension = options["file_extension"]
        encode = {"png": png, "jpeg": jpeg}.get(extension)
        if encode is None:
            raise Refusal(500, "KeyError", repr(extension.upper()))
        pixels = np.zeros((height, width), np.uint8)
        if volume is not None and z < len(volume):
            part = volume[z, y : y + height, x : x + width]
            pixels[: part.shape[0], : part.shape[1]] = part
        return Reply(200, encode(pixels), {"Content-Type": f"image/{extension}"})


def info(project: Project, link: Link) -> Json:
    """What `info` says of a stack in a project."""
    stack = link.stack
    factors = [_xyz(factor) for factor in stack.factors] if stack.factors else None
    return {
        "sid": stack.id,
        "pid": project.id,
        "ptitle": project.title,
        "stitle": stack.title,
        "dimension": _xyz(stack.dimension),
        "resolution": _xyz(tuple(round(float(r), 6) for r in stack.resolution)),
        "translation": _xyz(tuple(round(float(t), 6) for t in link.translation)),
        "orientation": link.orientation,
        "num_zoom_levels": len(factors) - 1 if factors else -1,
        "downsample_factors": factors,
        "broken_slices": {int(z): 1 for z in stack.broken_slices},
        "mirrors": [asdict(mirror) for mirror in sorted(stack.mirrors, key=lambda m: m.position)],
        "canary_location": _xyz(stack.canary),
        "placeholder_color": dict(zip("rgba", stack.placeholder, strict=True)),
        "metadata": stack.metadata,
        "comment": stack.comment,
        "attribution": stack.attribution,
        "description": stack.description,
    }


def _aged(told: Json, year: int) -> Json:
    """The shape that servers of 2016 or 2017 gave."""
    told = {key: value for key, value in told.items() if key not in ("downsample_factors", "comment")}
    if year == 2017:
        return told
    first = told.pop("mirrors")[0]
    for key in ("canary_location", "placeholder_color", "attribution", "description"):
        del told[key]
    of_mirror = ("image_base", "file_extension", "tile_width", "tile_height", "tile_source_type")
    return told | {key: first[key] for key in of_mirror} | {"trakem2_project": False, "overlay": []}


def _listed(project: Project, *, with_mirrors: bool) -> Json:
    stacks = []
    for stack in sorted({link.stack.id: link.stack for link in project.links}.values(), key=lambda s: s.id):
        told = {
            "id": stack.id, "title": stack.title, "comment": stack.comment, "dimensions": list(stack.dimension),
        }  # fmt: skip
        if with_mirrors:
            mirrors = sorted(stack.mirrors, key=lambda m: m.position)
            told["mirrors"] = [{**asdict(mirror), "stack_id": stack.id} for mirror in mirrors]
        stacks.append(told)
    groups = [{"id": group.id, "title": group.title, "comment": group.comment} for group in project.groups]
    return {
        "id": project.id, "title": project.title, "comment": project.comment, "stacks": stacks, "stackgroups": groups,
    }  # fmt: skip


def _tokens(asked: Asked) -> list[str]:
    """The API tokens of a request, the one that counts first."""
    told = [asked.headers.get("x-authorization"), asked.headers.get("authorization")]
    return [text.removeprefix("Token ") for text in told if text is not None and text.startswith("Token ")]


def _xyz(values: tuple[Any, ...]) -> Json:
    return dict(zip(AXES, values, strict=True))


def _json(value: Any, user: str | None = None, indent: int | None = 4) -> Reply:
    text = json.dumps(value, indent=indent, sort_keys=indent is not None)
    headers = {"Content-Type": "application/json"} | ({} if user else {"Vary": "Cookie"})
    return Reply(200, text.encode(), headers)
