"""Two organizations, and every route there is: whoever asks without the right to, or through the other one, sees and changes nothing.

An API key is of the whole service, and so is a session at /admin: they may ask for either organization, but never get the one through the
other. A visitor's token is of one organization, and good for its portal link alone.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from httpx2 import Response

from databases import Databases
from described import Operation, operations_of
from factories import delivery, event, named, user_rows
from issuer import AUDIENCE, ISSUER, STRANGERS_KEY, Issuer, token
from live import listening
from operations import HERE, Visit, fill
from provisioning.db.models import directories, directory_users, groups, memberships, users
from provisioning.db.session import Database
from provisioning.inbox import Inbox
from rows import NOW, Row, all_rows, put_all
from service import bearer, running, signed

OURS, THEIRS = "org_ours", "canary-of-theirs"
KEYS = {scope: f"only-{scope}".ljust(32, "0") for scope in ("read", "portal", "operate")}
VISITOR = "visitor"

# Who may ask for what. Of `/admin`, whose pages need a session, everybody is shown the way to the login.
OPEN, SIGNED, SESSION = "everybody", "Scalekit", "a session"
ROUTES = {
    "POST /webhooks/scalekit": SIGNED,
    "GET /v1/organizations": "read",
    "GET /v1/organizations/{organization_id}/users": "read",
    "GET /v1/organizations/{organization_id}/users/{user_id}": "read",
    "GET /v1/organizations/{organization_id}/users/{user_id}/access": "read",
    "GET /v1/organizations/{organization_id}/users/{user_id}/history": "read",
    "GET /v1/organizations/{organization_id}/users/{user_id}/roles": "read",
    "PUT /v1/organizations/{organization_id}/users/{user_id}/roles": "operate",
    "PUT /v1/organizations/{organization_id}/users/{user_id}/application-id": "operate",
    "GET /v1/organizations/{organization_id}/groups": "read",
    "GET /v1/organizations/{organization_id}/groups/{group_id}": "read",
    "GET /v1/organizations/{organization_id}/groups/{group_id}/members": "read",
    "GET /v1/organizations/{organization_id}/groups/{group_id}/history": "read",
    "GET /v1/organizations/{organization_id}/groups/{group_id}/roles": "read",
    "PUT /v1/organizations/{organization_id}/groups/{group_id}/roles": "operate",
    "GET /v1/organizations/{organization_id}/directories": "read",
    "GET /v1/organizations/{organization_id}/reconciliations": "read",
    "POST /v1/organizations/{organization_id}/reconciliations": "operate",
    "GET /v1/organizations/{organization_id}/reconciliations/{run_id}": "read",
    "POST /v1/organizations/{organization_id}/reconciliations/{run_id}/approve": "operate",
    "POST /v1/organizations/{organization_id}/reconciliations/{run_id}/cancel": "operate",
    "POST /v1/organizations/{organization_id}/portal-links": "portal",
    "OPTIONS /v1/organizations/{organization_id}/portal-links": OPEN,
    "GET /v1/changes": "read",
    "GET /v1/deliveries": "read",
    "POST /v1/deliveries/replay": "operate",
    "GET /v1/deliveries/{webhook_id}": "read",
    "POST /v1/deliveries/{webhook_id}/replay": "operate",
    "POST /v1/deliveries/{webhook_id}/dismiss": "operate",
    "GET /metrics": "read",
    "GET /health/live": OPEN,
    "GET /health/ready": OPEN,
    "GET /openapi.json": OPEN,
    "GET /docs": OPEN,
    "GET /docs/{name}": OPEN,
    "GET /embed/{name}": OPEN,
    "GET /admin/admin.css": OPEN,
    "GET /admin/login": OPEN,
    "POST /admin/login": OPEN,
}
# Through which the other organization's things could be had: by what stands in the path beside the organization.
IDS = {"user_id": THEIRS, "group_id": THEIRS, "run_id": THEIRS, "webhook_id": THEIRS}


@dataclass
class House:
    """The service with the two in it; `visit` is somebody at its pages."""

    database: Database
    client: TestClient
    visit: Visit
    operations: list[Operation]

    def ask(self, route: str, organization_id: str, key: str | None, texts: dict[str, str] | None = None) -> Response:
        """Ask for this organization's, with the other's ids in the rest of the path, and `texts` as the query."""
        method, path = route.split(" ")
        body = next((each.body for each in self.operations if route == f"{each.method.upper()} {each.path}"), None)
        url = re.sub(r":\w+}", "}", path).format(organization_id=organization_id, name=THEIRS, path=THEIRS, **IDS)
        return self.client.request(method, url, params=texts, json=body, headers=bearer(key) if key else {})

    def theirs(self) -> dict[str, list[Row]]:
        """Every row that has anything of theirs in it."""
        return {table: [row for row in rows if THEIRS in repr(row)] for table, rows in all_rows(self.database).items()}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    """With one of everything that is theirs, or two where there is a list of it, and a user, a group and a delivery of ours."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    with ExitStack() as stack:
        url = stack.enter_context(databases.fresh(migrated=True))
        database = stack.enter_context(closing(Database(url)))
        fill(database, THEIRS)
        second: Row = {"organization_id": THEIRS, "id": f"{THEIRS}-2", "user_id": f"{THEIRS}-2"}
        in_group = {"organization_id": THEIRS, "directory_user_id": second["id"], "group_id": THEIRS, "user_id": second["id"], "since": NOW}
        lists = (directories, groups, users, directory_users)
        shown = {table: [{name: value for name, value in second.items() if name in table.c}] for table in lists}
        put_all(database, {**shown, memberships: [in_group]})
        ours = event("user_created", "du_ours", organization_id=OURS, email="ada@ours.example", groups=named("grp_ours"))
        Inbox(database).receive([delivery(ours, "msg_ours")])
        keys = " ".join(f"{scope}:{scope}:{key}" for scope, key in KEYS.items())
        tokens = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks_url": stack.enter_context(listening(Issuer()))}
        client = stack.enter_context(running(url, api_keys=keys, **tokens))
        visit = Visit(TestClient(client.app))
        client.follow_redirects = False
        visit.log_in(KEYS["operate"])
        yield House(database, client, visit, operations_of(client))


def routes(house: House) -> list[str]:
    """Everything that the application serves."""
    app = house.client.app
    assert isinstance(app, FastAPI)
    return [f"{method} {context.path}" for context in iter_route_contexts(app.routes) for method in sorted(context.methods or ())]


def needs(route: str) -> str:
    """Who may ask for it. A new route has to say so first; a new page of the operators' is closed as all of them are."""
    return ROUTES.get(route) or (SESSION if route.split(" ")[1].startswith("/admin") else pytest.fail(f"who may ask for {route}?"))


IN_A_DAY = int(time.time()) + 86_400  # tests run for hours at times
CALLERS: dict[str | None, str] = {
    None: "nobody",
    "nobody's": "nobody",
    token(STRANGERS_KEY, oid=THEIRS, exp=IN_A_DAY): "nobody",
    token(oid=OURS, exp=IN_A_DAY): VISITOR,
    **{key: scope for scope, key in KEYS.items()},
}


def refusal(needed: str, caller: str) -> int | None:
    """What somebody is told who may not ask; None: may."""
    if needed in {OPEN, caller}:
        return None
    if needed in {SIGNED, SESSION}:
        return 400 if needed == SIGNED else 303
    return 401 if caller == "nobody" or (caller == VISITOR and needed != "portal") else 403


def test_every_route_says_who_may_ask_for_it(house: House) -> None:
    """And there is none in the table that is not served."""
    served = routes(house)
    assert [route for route in served if not needs(route)] == []
    assert ROUTES.keys() <= set(served)


def test_whoever_has_no_right_to_it_gets_nothing_of_anybodys(house: House) -> None:
    """A stranger, a forger, a visitor of another organization and a key without the scope: 401 or 403, and nothing is told or changed."""
    refused, before = 0, house.theirs()
    for route in routes(house):
        for key, caller in CALLERS.items():
            expected = refusal(needs(route), caller)
            if expected is not None or needs(route) == OPEN:
                answer = house.ask(route, THEIRS, key)
                assert answer.status_code == expected or needs(route) == OPEN, (route, caller, answer.text)
                assert THEIRS not in answer.text, (route, caller)
                refused += expected is not None
        assert house.theirs() == before, route
    assert refused > 4 * len(ROUTES)


def test_nothing_of_theirs_is_had_through_ours(house: House) -> None:
    """Their user, group or run in our organization's path is unknown, to read and to change; our lists are without them, whatever is
    asked for and from wherever on they are read. Asked for as theirs, all of it is there.
    """
    crossed, before = 0, house.theirs()
    for each in house.operations:
        route = f"{each.method.upper()} {each.path}"
        if "{organization_id}" not in route and "organization_id" not in each.texts:
            continue
        key = KEYS[needs(route)]
        for answer in asked_through_ours(house, each, route, key):
            crossed += 1
            assert THEIRS not in answer.text, route
            unknown = {404} if re.search(r"organization_id}/\w+/{", route) else {200, 202, 409, 410, 422, 503}
            assert answer.status_code in unknown, (route, answer.text)
        assert house.theirs() == before, route
        if each.method == "get":
            assert THEIRS in house.ask(route, THEIRS, key, {"organization_id": THEIRS} if "organization_id" in each.texts else {}).text, (
                route
            )
    assert crossed > 40


def asked_through_ours(house: House, operation: Operation, route: str, key: str) -> Iterator[Response]:
    """Their ids in our path; then our list, asked by their texts, one at a time, and from the middle of theirs on."""
    ours = {"organization_id": OURS} if "organization_id" in operation.texts else {}
    theirs = {"organization_id": THEIRS} if ours else {}
    yield house.ask(route, OURS, key, ours)
    for name in operation.texts:
        if name in {"cursor", "after"}:
            page = house.ask(route, THEIRS, key, {**theirs, "limit": "1"}).json()
            assert page["next_cursor"], route
            yield house.ask(route, OURS, key, {**ours, name: page["next_cursor"]})
        elif name != "organization_id":
            yield house.ask(route, OURS, key, {**ours, name: THEIRS})


def test_an_operators_pages_show_none_of_theirs_as_ours(house: House) -> None:
    """Whatever a page or a form of ours names of theirs is unknown there."""
    crossing = [route for route in routes(house) if needs(route) == SESSION and re.search(r"organization_id}/\w+/{", route)]
    assert len(crossing) > 4
    before = house.theirs()
    for route in crossing:
        method, path = route.split(" ")
        form = {"token": house.visit.token()} if method == "POST" else None
        here, there = (path.format(organization_id=each, **IDS) for each in (OURS, THEIRS))
        answer = house.visit.client.request(method, here, data=form, headers={"Origin": HERE})
        assert (answer.status_code, THEIRS in answer.text) == (404, False), route
        if method == "GET":
            assert THEIRS in house.visit.get(there).text
    assert house.theirs() == before


def test_what_we_say_of_ours_changes_nothing_of_theirs(house: House) -> None:
    """An event that names their person, their address, their group and their organization inside: the envelope says whose all of it is.
    And roles and an application's id that they have as well.
    """
    third = "org_third"  # so that ours have nothing of theirs
    before = {table: [row for row in rows if row.get("organization_id") != third] for table, rows in house.theirs().items()}
    named_theirs: dict[str, Any] = {"email": THEIRS, "dp_id": THEIRS, "directory_id": THEIRS, "groups": named(THEIRS), "told": THEIRS}
    for number, kind in enumerate(("user_created", "directory_disabled", "group_updated", "user_deleted", "group_deleted")):
        body = event(kind, THEIRS, at=number, organization_id=third, **named_theirs)
        answer = house.client.post("/webhooks/scalekit", content=body, headers=signed(body, f"msg_third_{number}"))
        assert answer.json()["status"] == "processed"
        if kind == "user_created":
            [ours] = user_rows(house.database, third)
            said = {f"users/{ours['id']}/roles": {"roles": [THEIRS]}, f"groups/{THEIRS}/roles": {"roles": [THEIRS]}}
            for path, what in {**said, f"users/{ours['id']}/application-id": {"application_id": THEIRS}}.items():
                done = house.client.put(f"/v1/organizations/{third}/{path}", json=what, headers=bearer(KEYS["operate"]))
                assert done.status_code == 200, done.text
    assert {table: [row for row in rows if row.get("organization_id") != third] for table, rows in house.theirs().items()} == before
