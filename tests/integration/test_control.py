"""The control API does what it is told by whoever has the token, says what is wrong, and lets nobody else in."""

from __future__ import annotations

import json
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from live import listening
from operators import until
from provisioning.emulator.faults import Door, Fault

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

ACTIONS_OF_NOBODY = {"hire": {"given_name": "Eve", "family_name": "Mallory"}, "switches": {"drop": 1}, "cancel": {}}


@pytest.fixture
def control(emulator: Emulator) -> Iterator[httpx.Client]:
    """Somebody with the token."""
    headers = {"Authorization": f"Bearer {emulator.control_token}"}
    with httpx.Client(base_url=f"{emulator.portal_origin}/control", headers=headers, trust_env=False) as client:
        yield client


def done(answer: httpx.Response) -> Any:
    """What an answer says that is a 200."""
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def directory(control: httpx.Client, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A directory of the test's own organization."""
    organization = done(control.post("/add-organization", json={"name": request.node.name[:150]}))
    made: dict[str, Any] = done(control.post("/add-directory", json={"organization": organization["id"], "provider": "OKTA"}))
    return made


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer \xff"}, 401),
        ({"Authorization": "Basic x"}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example"}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
    ],
)
@pytest.mark.parametrize("action", ACTIONS_OF_NOBODY)
def test_nobody_else_gets_in(
    control: httpx.Client, emulator: Emulator, directory: dict[str, Any], action: str, headers: dict[str, str], status: int
) -> None:
    """A page of another origin, a rebound name, another user of the machine: each is refused, and nothing has changed."""
    before = emulator.company.version, emulator.deliveries.switches
    content = json.dumps(ACTIONS_OF_NOBODY[action]).encode()
    encoded = {name.encode(): value.encode("latin-1") for name, value in {"Content-Type": "application/json", **headers}.items()}
    assert control.post(f"/{action}", content=content, headers=encoded).status_code == status
    assert (emulator.company.version, emulator.deliveries.switches) == before


@pytest.mark.parametrize("headers", [{"Authorization": ""}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}])
def test_nobody_else_looks_either(control: httpx.Client, headers: dict[str, str]) -> None:
    """Nor learns more than that."""
    for view in ("state", "users", "deliveries", "nothing"):
        answer = control.get(f"/{view}", headers=headers)
        assert answer.status_code in (400, 401, 403)
        assert "access-control-allow-origin" not in answer.headers


def test_its_own_page_gets_in(control: httpx.Client, emulator: Emulator, directory: dict[str, Any]) -> None:
    """By either of its origins."""
    for origin in (emulator.portal_origin, emulator.url):
        done(control.get("/state", headers={"Origin": origin}))
        done(control.post("/cancel", json={}, headers={"Origin": origin}))


@pytest.mark.parametrize(
    ("action", "body", "status", "words"),
    [
        ("hire", b"", 422, "given_name"),
        ("hire", b"{", 422, "JSON"),
        ("hire", b"[]", 422, "object"),
        ("hire", b"\xff", 422, "JSON"),
        ("hire", b'{"given_name": "A", "family_name": "B", "salary": 1}', 422, "salary"),
        ("hire", b'{"given_name": " ", "family_name": "B"}', 422, "given_name"),
        ("hire", b'{"given_name": "A\\u0000", "family_name": "B"}', 422, "given_name"),
        ("hire", b'{"given_name": "A", "family_name": "B", "title": "a\\nb"}', 422, "title"),
        ("hire", b'{"given_name": "\\ud800", "family_name": "B"}', 422, "JSON"),
        ("hire", b'{"given_name": "A", "family_name": "B", "email": "nonsense"}', 422, "jane@example.com"),
        ("hire", b'{"given_name": "A", "family_name": "B", "directory": "dir_0"}', 404, "dir_0"),
        ("suspend", b'{"user": "nobody@acme.example"}', 404, "nobody@acme.example"),
        ("suspend", b'{"user": null}', 422, "user"),
        ("add-directory", b'{"provider": "LOTUS"}', 422, "OKTA"),
        ("map-role", b'{"group": "None", "role": "x"}', 404, "None"),
        ("sync", b'{"users": 0}', 422, "users"),
        ("sync", b'{"users": 100001}', 422, "users"),
        ("sync", b'{"users": 1, "rate": 0}', 422, "rate"),
        ("scenario", b'{"name": "none"}', 404, "onboarding"),
        ("switches", b'{"drop": 1.5}', 422, "drop"),
        ("fault", b'{"door": "api", "fault": "flood"}', 422, "hang"),
        ("rotate-secret", b'{"step": "undo"}', 422, "begin"),
        ("rotate-secret", b'{"step": "finish"}', 409, "start one"),
        ("resend", b'{"deliveries": ["msg_0"]}', 404, "msg_0"),
        ("portal", b'{"embedding_origins": ["example.com"]}', 422, "embedding_origins"),
        ("portal", b'{"embedding_origins": ["*"]}', 422, "embedding_origins"),
        ("nothing", b"{}", 404, "hire"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    control: httpx.Client, directory: dict[str, Any], action: str, body: bytes, status: int, words: str
) -> None:
    """That says which part is wrong, or what there is; never a 500."""
    answer = control.post(f"/{action}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]


def test_a_body_without_end_is_refused(control: httpx.Client) -> None:
    """Once it is longer than any good one."""
    answer = control.post("/hire", content=b" " * 1_000_001, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/users?limit=0", 422),
        ("/users?limit=x", 422),
        ("/users?limit=501", 422),
        ("/users?colour=red", 422),
        ("/users?directory=dir_0", 404),
        ("/users/nobody", 404),
        ("/groups/one", 404),
        ("/deliveries/msg_0", 404),
        ("/deliveries?progress=lost", 422),
        ("/state?x=1", 422),
        ("/nothing", 404),
        ("/user", 404),
    ],
)
def test_bad_questions_are_refused_in_a_sentence(control: httpx.Client, directory: dict[str, Any], path: str, status: int) -> None:
    """Never a 500."""
    answer = control.get(path)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


def test_a_day_at_the_company(control: httpx.Client, directory: dict[str, Any]) -> None:
    """Each action answers what it came to, and the views say the same."""
    place = directory["id"]
    group = done(control.post("/add-group", json={"directory": place, "name": "Sales"}))
    ada = done(
        control.post(
            "/hire", json={"directory": place, "given_name": "Ada", "family_name": "Lovelace", "groups": [group["id"]], "title": "CTO"}
        )
    )
    assert (ada["state"], ada["title"], ada["groups"], ada["roles"]) == (
        "active",
        "CTO",
        [{"id": group["id"], "name": "Sales"}],
        ["member"],
    )
    assert done(control.post("/map-role", json={"group": group["id"], "role": "admin"}))["role"] == "admin"
    assert done(control.post("/rename-group", json={"group": group["id"], "name": "Selling"}))["members"] == 1
    assert done(control.post("/suspend", json={"user": ada["id"]}))["state"] == "suspended"
    assert done(control.post("/restore", json={"user": ada["id"]}))["roles"] == ["admin"]
    assert done(control.post("/rename", json={"user": ada["id"], "email": "ada@new.example"}))["email"] == "ada@new.example"
    assert done(control.post("/move", json={"user": ada["id"], "department": "Finance"}))["department"] == "Finance"
    assert done(control.post("/regroup", json={"user": ada["id"], "remove": [group["id"]]}))["groups"] == []
    assert done(control.get(f"/users/{ada['id']}"))["email"] == "ada@new.example"
    page = done(control.get("/users", params={"directory": place, "q": "love new.example"}))
    assert (page["total"], [user["id"] for user in page["data"]]) == (1, [ada["id"]])
    deliveries = done(control.get("/deliveries", params={"subject_id": ada["id"]}))["data"]
    assert (deliveries[0]["subject"], deliveries[-1]["subject"]) == ("ada@new.example", ada["email"])  # each as its event says
    event = done(control.get(f"/deliveries/{deliveries[0]['id']}"))["body"]
    assert (event["id"], event["data"]["email"]) == (deliveries[0]["event_id"], "ada@new.example")
    assert done(control.post("/fire", json={"user": ada["id"]}))["state"] == "gone"
    assert done(control.post("/purge", json={"user": ada["id"]}))["listed"] is False
    assert control.get(f"/users/{ada['id']}").status_code == 404
    done(control.post("/delete-group", json={"group": group["id"]}))
    assert done(control.get("/groups", params={"directory": place}))["data"] == []
    assert done(control.post("/disable-directory", json={"directory": place}))["enabled"] is False
    assert control.post("/hire", json={"directory": place, "given_name": "A", "family_name": "B"}).status_code == 409
    done(control.post("/delete-directory", json={"directory": place}))
    state = done(control.get("/state"))
    assert place not in json.dumps(state["organizations"])


def test_the_version_rises_with_everything_that_lists_show(control: httpx.Client, directory: dict[str, Any]) -> None:
    """So a page that asks for it alone misses nothing."""
    versions = [done(control.get("/state"))["version"]]
    for action, body in {
        "hire": {"directory": directory["id"], "given_name": "A", "family_name": "B", "email": "a@b.example"},
        "suspend": {"user": "a@b.example"},
        "switches": {"delay": 0},
    }.items():
        done(control.post(f"/{action}", json=body))
        versions.append(done(control.get("/state"))["version"])
    assert versions == sorted(set(versions))


def test_a_visitor_gets_a_token_for_an_hour(control: httpx.Client, emulator: Emulator, directory: dict[str, Any]) -> None:
    """Of the organization and with the role that were asked for; the client's own doors do not open to it."""
    answer = done(control.post("/visitor-token", json={"organization": directory["organization_id"], "role": "owner"}))
    claims = jwt.decode(answer["token"], options={"verify_signature": False})
    assert answer["expires_in"] == claims["exp"] - claims["iat"] == 3600
    assert (claims["iss"], claims["aud"], claims["oid"], claims["roles"]) == (
        emulator.url,
        "portal-demo",
        directory["organization_id"],
        ["owner"],
    )
    assert not emulator.tokens.accepts(answer["token"])


def test_no_view_shows_a_secret(control: httpx.Client, emulator: Emulator, directory: dict[str, Any]) -> None:
    """Neither the signing secrets, nor the client's, nor the token itself."""
    shown = "".join(control.get(f"/{view}").text for view in ("state", "users", "groups", "deliveries", "service"))
    for secret in (*emulator.endpoint.secrets, emulator.tokens.client_secret, emulator.control_token):
        assert secret not in shown


def test_one_job_at_a_time(control: httpx.Client, directory: dict[str, Any]) -> None:
    """The second is refused; the first can be cancelled."""
    started = done(control.post("/sync", json={"directory": directory["id"], "users": 1000, "rate": 1}))
    assert started["state"] == "running"
    answer = control.post("/scenario", json={"name": "leaver"})
    assert (answer.status_code, "cancel it" in answer.json()["detail"]) == (409, True)
    assert done(control.post("/cancel", json={}))["job"]["state"] == "cancelled"
    assert done(control.get("/state"))["job"]["done"] < 1000


def test_a_silent_sync_sends_nothing(control: httpx.Client, emulator: Emulator, directory: dict[str, Any]) -> None:
    """It ends without waiting for anything to be sent; everybody is there, in their groups."""
    before = done(control.get("/state"))["deliveries"], len(emulator.company.events())
    done(control.post("/sync", json={"directory": directory["id"], "users": 300, "silent": True}))
    until(lambda: done(control.get("/state"))["job"]["state"] == "done")
    assert (done(control.get("/state"))["deliveries"], len(emulator.company.events())) == before
    groups = done(control.get("/groups", params={"directory": directory["id"]}))["data"]
    assert sum(group["members"] for group in groups) == done(control.get("/users", params={"directory": directory["id"]}))["total"] == 300


def test_a_hanging_api_does_not_lock_the_emulator(control: httpx.Client, emulator: Emulator) -> None:
    """However many wait at its door, the fault can be cleared; then they are answered."""
    done(control.post("/fault", json={"door": "oauth", "fault": "hang"}))
    hanging = [threading.Thread(target=_ask_for_a_token, args=(emulator,)) for _ in range(60)]
    for thread in hanging:
        thread.start()
    try:
        until(lambda: len(emulator._web.server_state.tasks) >= 60)  # uvicorn's requests under way
        done(control.get("/state"))
    finally:
        done(control.post("/reset", json={}))
    for thread in hanging:
        thread.join(30)
        assert not thread.is_alive()


def _ask_for_a_token(emulator: Emulator) -> None:
    httpx.post(f"{emulator.portal_origin}/oauth/token", data={"grant_type": "password"}, timeout=60, trust_env=False)


@pytest.mark.parametrize(
    ("door", "fault", "known"),
    [
        ("api", "expired", "rate_limit"),
        ("oauth", "link_empty", "rate_limit"),
        ("groups", "detail_missing", "cut_short"),
        ("clock", "hang", "behind"),
    ],
)
def test_a_fault_that_a_door_does_not_know_is_refused(control: httpx.Client, emulator: Emulator, door: str, fault: str, known: str) -> None:
    """Instead of being accepted and doing nothing, over the control API and in the process; what it knows is said."""
    answer = control.post("/fault", json={"door": door, "fault": fault})
    assert answer.status_code == 422
    assert known in answer.json()["detail"]
    with pytest.raises(ValueError, match=known):
        emulator.faults.set(Door(door), Fault(fault))
    assert set(emulator.faults.current().values()) == {None}


def test_reset_makes_everything_as_at_the_start(control: httpx.Client, emulator: Emulator) -> None:
    """Switches and faults."""
    done(control.post("/switches", json={"drop": 1, "retry_scale": 1, "at_once": 1}))
    done(control.post("/fault", json={"door": "api", "fault": "away"}))
    done(control.post("/reset", json={}))
    state = done(control.get("/state"))
    assert state["switches"] == state["usual"]
    assert set(state["faults"].values()) == {None}


@pytest.mark.parametrize("body", [b"[]", b'{"data": [1], "next_cursor": null}', b'{"data": [{"id": 1}], "next_cursor": null}', b"<html>"])
def test_a_service_that_answers_something_else_is_no_fault_of_the_emulators(tmp_path: Path, body: bytes) -> None:
    """502 and a sentence, not a 500."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
        from provisioning.emulator.server import Emulator  # noqa: PLC0415

    strange = Starlette(routes=[Route("/{path:path}", lambda _: Response(body, media_type="application/json"))])
    with listening(strange) as url, Emulator(tmp_path / "emulator", deliver_to=f"{url}/webhooks") as emulator:
        emulator.deliveries.switch({"paused": True})
        emulator.add_sample()
        headers = {"Authorization": f"Bearer {emulator.control_token}"}
        answer = httpx.get(f"{emulator.portal_origin}/control/comparison", headers=headers, trust_env=False)
        assert (answer.status_code, "something else" in answer.json()["detail"]) == (502, True)


def test_it_ends_soon_whatever_the_service_does(tmp_path: Path) -> None:
    """Also while a job asks one that is silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from provisioning.emulator.server import Emulator  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        emulator = Emulator(tmp_path / "emulator", deliver_to=f"{url}/webhooks")
        emulator.__enter__()
        organization = emulator.structure.add_organization("Acme")
        emulator.jobs.start("asks", lambda _: emulator.parts.compared(organization.id) and None)
        connection, _ = silent.accept()  # it asks
        ending = threading.Thread(target=emulator.__exit__, args=(None, None, None))
        ending.start()
        ending.join(30)
        connection.close()
        assert not ending.is_alive()
