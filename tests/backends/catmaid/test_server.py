"""What a CATMAID server is asked, what it answers, and who gets to see which credentials."""

from __future__ import annotations

import io
import json
import logging
import pickle
import traceback

import pytest
import zarr

import storefs
from tests.backends.catmaid.emulator import TOKEN, CatmaidEmulator, Group, Link, Project
from tests.backends.catmaid.scene import SHAPE, Scene, scene
from tests.backends.catmaid.specimen import tissue
from tests.backends.catmaid.tile_hosts import PAGE, TileHost, basic
from tests.backends.dvid.faults import Fault

SECRET = "s3cr3t"


def headers(server: CatmaidEmulator | TileHost, name: str) -> set[str | None]:
    """All values of a header that a server was sent."""
    return {seen.headers.get(name) for seen in server.seen}


# groups


def test_opening_a_stack_asks_for_its_info(em: Scene) -> None:
    """One question to CATMAID opens a stack."""
    shown = em.stack(tissue(SHAPE))
    storefs.open(shown.url)
    assert em.server.asked == [f"/1/stack/{shown.stack.id}/info"]


def test_a_server_below_a_folder() -> None:
    """CATMAID may live below a folder of its host."""
    with scene("/catmaid/l1") as em:
        shown = em.stack(tissue(SHAPE))
        assert storefs.open_array(shown.url)[1, 2, 3] == shown.finest[1, 2, 3]
        assert storefs.open(f"{em.url}/1")[str(shown.stack.id)]["0"].shape == SHAPE


def test_a_project_is_a_group_of_its_stacks(em: Scene) -> None:
    """The stacks of a project are groups by their ids, with their titles."""
    one, two = em.stack(tissue(SHAPE)), em.stack(tissue((2, 50, 60)))
    project = storefs.open(f"{em.url}/1")
    assert sorted(project.group_keys(), key=int) == sorted((str(s.stack.id) for s in (one, two)), key=int)
    assert project[str(two.stack.id)]["0"].shape == (2, 50, 60)
    assert project[f"{one.stack.id}/1"][2, 3, 4] == one.levels[1][2, 3, 4]


def test_a_server_is_a_directory_of_projects(em: Scene) -> None:
    """The server's root has a group a project, and in it one a stack."""
    shown = em.stack(tissue(SHAPE))
    em.server.projects.append(Project(2, "Another", [Link(shown.stack)]))
    em.server.projects.append(Project(3, "Private", [Link(shown.stack)], public=False))
    server = storefs.open(em.url)
    assert sorted(server.group_keys()) == ["1", "2"]
    assert sorted(storefs.open(em.url, token=TOKEN).group_keys()) == ["1", "2", "3"]


def test_opening_a_server_asks_no_tile_host(em: Scene) -> None:
    """Listing projects and stacks takes no request to mirrors."""
    em.stack(tissue(SHAPE))
    storefs.open(em.url)
    assert em.host.seen == []


def test_a_project_without_stacks(em: Scene) -> None:
    """An empty project is an empty group."""
    assert list(storefs.open(f"{em.url}/1").group_keys()) == []


def test_one_bad_stack_does_not_hide_the_others(em: Scene) -> None:
    """A stack that is linked twice, which the server refuses to tell of, does not keep its project closed."""
    good, bad = em.stack(tissue(SHAPE)), em.stack(tissue(SHAPE))
    em.project.links.append(Link(bad.stack))
    project = storefs.open(f"{em.url}/1")
    assert project[str(good.stack.id)]["0"].shape == SHAPE


def test_stack_groups_are_groups(em: Scene) -> None:
    """A stack group of a project is a group of its stacks."""
    one, two = em.stack(tissue(SHAPE)), em.stack(tissue(SHAPE, seed=2))
    em.project.groups.append(Group(4, "both", [(two.stack.id, "view"), (one.stack.id, "channel")]))
    group = storefs.open(f"{em.url}/1/stackgroup/4")
    assert sorted(group.group_keys()) == sorted(str(s.stack.id) for s in (one, two))
    assert group[f"{two.stack.id}/0"][1, 2, 3] == two.finest[1, 2, 3]


# older servers


@pytest.mark.parametrize("age", [2016, 2017])
def test_older_servers(em: Scene, age: int) -> None:
    """Stacks of servers from before mirrors, and from before factors, open all the same."""
    shown = em.stack(tissue(SHAPE))
    em.server.age = age
    assert storefs.open_array(shown.url)[2, 3, 4] == shown.finest[2, 3, 4]


# errors


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [
        ("1/999", storefs.NoSuchVolume, "No Stack matches"),
        ("77/1", storefs.NoSuchVolume, "Project matching query does not exist"),
        ("77", storefs.NoSuchVolume, "Project matching query does not exist"),
        ("2/999", storefs.NoSuchVolume, "No Stack matches|no stack"),
        ("3/{stack}", storefs.Refused, "required permissions in project 3"),
        ("3", storefs.Refused, "required permissions in project 3"),
        ("2/{stack}", storefs.NoSuchVolume, "no stack with ID"),
        ("1/stackgroup/9", storefs.NoSuchVolume, "StackGroup matching query"),
    ],
)
def test_wrong_ids(em: Scene, *, old: bool, place: str, kind: type[Exception], said: str) -> None:
    """The server's words are in the error, of new servers and of those that send errors with 200; no traceback."""
    shown = em.stack(tissue(SHAPE))
    em.server.projects += [Project(2, "empty"), Project(3, "private", [Link(shown.stack)], public=False)]
    em.server.errors_with_200 = old
    with pytest.raises(kind, match=said) as caught:
        storefs.open(f"{em.url}/{place.format(stack=shown.stack.id)}", retries=0)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("place", ["1/x", "a/b", "1/2/3/4", "-1/2", "1/-2", "1/2.5"])
def test_addresses_of_no_server(em: Scene, place: str) -> None:
    """What is no number is a folder below which there should be a server, or makes no sense: an error that says so."""
    with pytest.raises((storefs.NoSuchVolume, storefs.UrlError), match=r"404|what does"):
        storefs.open(f"{em.url}/{place}")


@pytest.mark.parametrize("address", ["ftp://host/1/2", "https://", "", "https://me:s3cr3t@host/1/2", "/folder"])
def test_addresses_that_make_no_sense(address: str) -> None:
    """An address names a web server, and holds no password."""
    with pytest.raises(storefs.UrlError) as caught:
        storefs.open(f"catmaid://{address}")
    assert "s3cr3t" not in str(caught.value)


def test_a_wrong_token(em: Scene) -> None:
    """A wrong token is refused at the root; of a private project the error says that it may be ignored."""
    shown = em.stack(tissue(SHAPE))
    em.server.projects[0].public = False
    with pytest.raises(storefs.Refused, match="Invalid token") as at_root:
        storefs.open(em.url, token="f" * 40)
    with pytest.raises(storefs.Refused, match="token") as at_stack:
        storefs.open(shown.url, token="f" * 40)
    with pytest.raises(storefs.Refused, match="CATMAID_API_TOKEN"):
        storefs.open(shown.url)
    assert "f" * 40 not in f"{at_root.value} {at_stack.value}"
    assert storefs.open_array(shown.url, token=TOKEN).shape == SHAPE


@pytest.mark.parametrize("place", ["", "/1", "/1/{stack}"])
def test_a_web_page_where_json_was_due(em: Scene, place: str) -> None:
    """A login page with 200 is an error that says so."""
    shown = em.stack(tissue(SHAPE))
    em.server.page = True
    with pytest.raises(storefs.StorefsError, match="web page"):
        storefs.open(em.url + place.format(stack=shown.stack.id))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}", '{"sid": 1}', "[1, 2]", '[{"id": "x"}]'])
@pytest.mark.parametrize("place", ["/projects/", "/1/stacks", "/1/stack/{stack}/info"])
def test_answers_that_make_no_sense(em: Scene, place: str, text: str) -> None:
    """JSON that is cut, or of another shape, is a MetadataError; an empty list is an empty directory."""
    shown = em.stack(tissue(SHAPE))
    em.server.answers = dict.fromkeys((place.format(stack=shown.stack.id), "/projects/"), text)
    address = {"/projects/": em.url, "/1/stacks": f"{em.url}/1"}.get(place, shown.url)
    if text == "[]" and address != shown.url:
        assert list(storefs.open(address).group_keys()) == []
        return
    with pytest.raises(storefs.MetadataError):
        storefs.open(address)


def test_a_busy_or_broken_server(em: Scene) -> None:
    """A server error is asked again, and then is an error that names the server."""
    shown = em.stack(tissue(SHAPE))
    em.server.faults = [Fault(times=1, status=502, text="bad gateway")]
    assert storefs.open_array(shown.url).shape == SHAPE
    em.server.faults = [Fault(status=502, text="bad gateway")]
    with pytest.raises(storefs.ServerFault, match="502"):
        storefs.open(shown.url, retries=0)


# credentials


@pytest.mark.parametrize("how", ["option", "environment", "query"])
def test_the_token_goes_to_catmaid_alone(em: Scene, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The token is sent to CATMAID in X-Authorization, and no tile host sees it."""
    shown = em.stack(tissue(SHAPE))
    em.project.public = False
    options, query = {}, ""
    if how == "option":
        options["token"] = TOKEN
    elif how == "environment":
        monkeypatch.setenv("CATMAID_API_TOKEN", TOKEN)
    else:
        query = f"?token={TOKEN}"
    storefs.open_array(shown.url + query, **options)[...]
    assert headers(em.server, "x-authorization") == {f"Token {TOKEN}"}
    assert em.host.seen
    assert not any(TOKEN in str(seen) for seen in em.host.seen)
    assert headers(em.host, "x-authorization") == headers(em.host, "authorization") == {None}


def test_basic_credentials_of_the_server(em: Scene) -> None:
    """User and password go to the web server in front of CATMAID, beside the token, and to no tile host."""
    shown = em.stack(tissue(SHAPE))
    em.project.public = False
    em.server.login = ("someone", SECRET)
    with pytest.raises(storefs.Refused, match="401"):
        storefs.open(shown.url, token=TOKEN)
    array = storefs.open_array(shown.url, token=TOKEN, user="someone", password=SECRET)
    assert array[1, 2, 3] == shown.finest[1, 2, 3]
    assert basic("someone", SECRET) in headers(em.server, "authorization")
    assert headers(em.host, "authorization") == {None}


def test_headers_given_go_to_catmaid_alone(em: Scene) -> None:
    """Headers that the caller adds are for the server, as they may hold its secrets."""
    shown = em.stack(tissue(SHAPE))
    storefs.open_array(shown.url, headers={"X-Extra": SECRET})[...]
    assert headers(em.server, "x-extra") == {SECRET}
    assert headers(em.host, "x-extra") == {None}


def test_secrets_show_nowhere(em: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Tokens and passwords are in no repr, pickle, document, log or error, with their causes."""
    caplog.set_level(logging.DEBUG)
    shown = em.stack(tissue(SHAPE))
    em.server.known.add(SECRET)
    options = {"token": SECRET, "user": "someone", "password": SECRET}
    store = storefs.open_store(f"{shown.url}?token={SECRET}", **options)
    group = zarr.open_group(store, mode="r")
    em.host.faults = [Fault(status=500, text="out of order")]
    em.server.faults = [Fault(status=500, text="out of order")]
    texts = [repr(store), str(store), repr(group), json.dumps(dict(group.attrs.asdict())), str(pickle.dumps(store))]
    for action in (lambda: group["0"][...], lambda: storefs.open(f"{shown.url}?token={SECRET}", **options)):
        with pytest.raises(storefs.StorefsError) as caught:
            action()
        text = io.StringIO()
        traceback.print_exception(caught.value, file=text)
        texts.append(text.getvalue())
    # what is raised shows lines of this test, which name the constant and not its value
    assert not any(SECRET in text for text in [*texts, caplog.text])


@pytest.mark.parametrize("way", ["server", "host"])
def test_a_redirect_takes_no_credentials_along(em: Scene, way: str) -> None:
    """Whoever is redirected to does not see what was meant for the one who redirects."""
    shown = em.stack(tissue(SHAPE))
    em.project.public = False
    with TileHost(dict(em.host.files)) as other:
        if way == "host":
            em.host.redirect_to = other.url
            shown_array = storefs.open_array(shown.url, token=TOKEN, user="someone", password=SECRET)
            try:
                found = shown_array[1, 2, 3]
            except storefs.StorefsError:
                found = shown.finest[1, 2, 3]
            assert found == shown.finest[1, 2, 3]
        else:
            moved = Fault(status=302, text="", headers={"Location": other.url + "/1/stacks"})
            em.server.faults = [moved]
            with pytest.raises(storefs.StorefsError):
                storefs.open(shown.url, token=TOKEN, user="someone", password=SECRET)
        for seen in other.seen:
            assert "authorization" not in seen.headers
            assert "x-authorization" not in seen.headers


def test_the_page_is_the_login(em: Scene) -> None:
    """What the emulated login answers is a page."""
    assert b"<form>" in PAGE
