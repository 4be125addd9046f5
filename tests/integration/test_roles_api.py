"""Roles over HTTP: who may give which to whom, what is answered, and that webhooks do not wait meanwhile."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from statistics import median
from time import monotonic
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from structlog.testing import capture_logs

from factories import event, named, receive
from provisioning.api.problems import MEDIA_TYPE
from provisioning.db.models import role_grants
from provisioning.db.session import Database
from service import OPERATE_KEY, PORTAL_KEY, READ_KEY, bearer, running, signed

USERS = "/v1/organizations/org_1/users"
GROUP = "/v1/organizations/org_1/groups/g/roles"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def api(database_url: str) -> Iterator[TestClient]:
    """An operator of a service that knows two people, `in` and `out` of the group `g`."""
    with closing(Database(database_url)) as database:
        receive(database, event("user_created", "in", groups=named("g")), event("user_created", "out"))
    with running(database_url) as client:
        client.headers.update(bearer(OPERATE_KEY))
        yield client


def user(api: TestClient, directory_user_id: str) -> dict[str, Any]:
    """The user behind whom this directory user stands."""
    (found,) = api.get(USERS, params={"directory_user_id": directory_user_id}).raise_for_status().json()["data"]
    assert isinstance(found, dict)
    return found


def own(api: TestClient, directory_user_id: str) -> str:
    """Where the user's own roles are."""
    return f"{USERS}/{user(api, directory_user_id)['id']}/roles"


def test_what_is_put_is_there_sorted_and_once(api: TestClient) -> None:
    """The whole list is replaced; the answer is what is read from then on, and what the user shows."""
    for path in (GROUP, own(api, "in")):
        assert api.get(path).json() == {"roles": []}
        for wanted in (["owner", "admin", "owner"], ["Ö wie Öl", "admin"], [], ["r" * 255], ["é" * 127]):
            answer = api.put(path, json={"roles": wanted})
            assert (answer.status_code, answer.json()) == (200, {"roles": sorted(set(wanted))})
            assert api.get(path).json() == answer.json()
            assert user(api, "in")["roles"] == answer.json()["roles"]
        api.put(path, json={"roles": []}).raise_for_status()
    api.put(GROUP, json={"roles": ["admin"]}).raise_for_status()
    api.put(own(api, "out"), json={"roles": ["owner"]}).raise_for_status()
    assert (user(api, "in")["roles"], user(api, "out")["roles"]) == (["admin"], ["owner"])
    assert (api.get(GROUP).json(), api.get(own(api, "out")).json()) == ({"roles": ["admin"]}, {"roles": ["owner"]})


def test_what_is_no_list_of_roles_is_refused_unquoted(api: TestClient) -> None:
    """With a word that says why; nothing is changed."""
    bad = ['""', '" "', '" secret"', '"secret\\n"', '"sec\\u0000ret"', '"sec\\u0007ret"', '"sec\\u2028ret"', '"sec\\ud800ret"', "1", "null"]
    bad += [f'"{"secret" * 43}"', f'"{"é" * 128}"', '["secret"]', ",".join(f'"secret{number}"' for number in range(101))]
    bodies = [f'{{"roles": [{each}]}}' for each in bad]
    bodies += ['{"roles": "secret"}', '{"roles": null}', "{}", '["secret"]', '{"roles": [], "secret": 1}', "{secret", "", "null"]
    for path in (GROUP, own(api, "in")):
        api.put(path, json={"roles": ["admin"]}).raise_for_status()
        for body in bodies:
            answer = api.put(path, content=body, headers=JSON)
            assert (answer.status_code, answer.headers["content-type"]) == (422, MEDIA_TYPE), body
            assert "secret" not in answer.text
            assert answer.json()["errors"]
        assert api.get(path).json() == {"roles": ["admin"]}
    assert api.put(GROUP, content=b"[" * (2**20 + 1), headers=JSON).status_code == 413


def test_who_is_not_here_is_not_found(api: TestClient) -> None:
    """A user, a group, and what is another organization's."""
    elsewhere = [path.replace("org_1", "org_2") for path in (GROUP, own(api, "in"))]
    for path in (*elsewhere, f"{USERS}/nobody/roles", GROUP.replace("/g/", "/nothing/")):
        for answer in (api.get(path), api.put(path, json={"roles": ["admin"]})):
            assert (answer.status_code, answer.headers["content-type"]) == (404, MEDIA_TYPE)
    assert user(api, "in")["roles"] == []


def test_reading_takes_read_and_giving_operate(api: TestClient) -> None:
    """Who may not is told so before the body is read."""
    for path in (GROUP, own(api, "in")):
        statuses = {
            key: (api.get(path, headers=bearer(key)).status_code, api.put(path, content=b"{", headers=bearer(key) | JSON).status_code)
            for key in (READ_KEY, PORTAL_KEY, OPERATE_KEY, "unknown")
        }
        assert statuses == {READ_KEY: (200, 403), PORTAL_KEY: (403, 403), OPERATE_KEY: (200, 422), "unknown": (401, 401)}
        assert api.put(f"{path}?dry_run=true", json={"roles": []}).status_code == 422


def test_a_database_that_is_away_is_said(empty_database_url: str) -> None:
    """503, and when to come back."""
    with running(empty_database_url) as client:
        for path in (GROUP, f"{USERS}/usr_1/roles"):
            for answer in (
                client.get(path, headers=bearer(OPERATE_KEY)),
                client.put(path, json={"roles": []}, headers=bearer(OPERATE_KEY)),
            ):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_each_change_is_one_line_in_the_log(api: TestClient) -> None:
    """With ids, the roles and who it was; who asks for what is there already changes nothing."""
    path, user_id = own(api, "in"), user(api, "in")["id"]
    with capture_logs() as entries:
        for where in (GROUP, path) * 2:
            api.put(where, json={"roles": ["admin", "owner"]}).raise_for_status()
    said = [entry for entry in entries if entry["event"] != "request"]
    common = {"log_level": "info", "organization_id": "org_1", "roles": ["admin", "owner"], "caller": "operator"}
    assert said == [
        {**common, "event": "group_mapped_to_roles", "group_id": "g"},
        {**common, "event": "user_granted_roles", "user_id": user_id},
    ]


@pytest.mark.proof
def test_five_thousand_members_keep_no_webhook_waiting(database_url: str) -> None:
    """While one call maps their group, every webhook of the organization is received: in a fraction of the time that the call takes."""
    with closing(Database(database_url)) as database:
        for start in range(0, 5000, 250):
            receive(database, *(event("user_created", f"u{number}", groups=named("g")) for number in range(start, start + 250)))
    with running(database_url) as client, ThreadPoolExecutor(1) as thread:
        idle = [post(client, number) for number in range(20)]
        began = monotonic()
        call: Future[tuple[int, float]] = thread.submit(mapped, client, began)
        busy: list[float] = []
        while not call.done():
            busy.append(post(client, 20 + len(busy)))
        status, seconds = call.result()
        assert status == 200
        assert len(busy) > 10
        assert max(busy) < seconds / 3, (
            f"idle {median(idle):.3f} s; busy {median(busy):.3f} s, at most {max(busy):.3f} s, of {seconds:.1f} s"
        )
    with closing(Database(database_url)) as database, database.reading() as session:
        having = session.execute(select(func.count()).where(role_grants.c.role == "admin")).scalar_one()
        assert having == 5000 - (20 + len(busy)) // 2


def mapped(client: TestClient, began: float) -> tuple[int, float]:
    """Map the group; returns the answer's status, and after how many seconds it came."""
    answer = client.put(GROUP, json={"roles": ["admin"]}, headers=bearer(OPERATE_KEY))
    return answer.status_code, monotonic() - began


def post(client: TestClient, number: int) -> float:
    """Tell of one more person: the odd ones leave the group, the even ones have another name. Returns the seconds until the 201."""
    body = event("user_updated", f"u{number}", at=1, name="New", groups=[] if number % 2 else named("g"))
    began = monotonic()
    assert client.post("/webhooks/scalekit", content=body, headers=signed(body, f"msg_{number}")).status_code == 201
    return monotonic() - began
