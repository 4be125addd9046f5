"""Who gets a portal link: an API key that may, or a visitor of the organization with the role, and nobody else."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import structlog
from fastapi.testclient import TestClient
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import Response
from structlog.contextvars import merge_contextvars

from databases import Databases
from factories import event
from issuer import (
    AUDIENCE,
    EC_KEY,
    ISSUER,
    RSA_KEY,
    STRANGERS_KEY,
    Issuer,
    drip,
    hang,
    new_key,
    published,
    signed_with_the_public_key,
    token,
    unsigned,
)
from live import listening
from provisioning.app import create_app
from provisioning.db.models import organizations as organizations_table
from provisioning.db.organizations import set_external_id
from provisioning.db.session import Database
from provisioning.emulator.faults import Door, Fault
from provisioning.emulator.oauth import VISITORS_AUDIENCE
from provisioning.organizations import Organizations
from service import PORTAL_KEY, READ_KEY, bearer, settings, signed

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

LINKS = "/v1/organizations/org_1/portal-links"
Serve = Callable[..., TestClient]


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[Issuer, str]]:
    """An issuer, and where its keys are."""
    issuer = Issuer()
    with listening(issuer) as url:
        yield issuer, f"{url}/keys"


@pytest.fixture
def issuer(address: tuple[Issuer, str]) -> Iterator[Issuer]:
    """An issuer that behaves."""
    address[0].__init__()  # type: ignore[misc]  # as new
    yield address[0]
    address[0].misbehaves = None


@pytest.fixture
def serve(emulator: Emulator, issuer: Issuer, address: tuple[Issuer, str], sqlite_databases: Databases) -> Iterator[Serve]:
    """Starts the service, with the emulator and the issuer behind it; keyword arguments change its settings, by attribute."""
    scalekit = {
        "scalekit_environment_url": emulator.url,
        "scalekit_client_id": emulator.tokens.client_id,
        "scalekit_client_secret": emulator.tokens.client_secret,
        "portal_origins": emulator.portal_origin,
    }
    tokens = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks_url": address[1]}
    with ExitStack() as running, sqlite_databases.fresh(migrated=True) as url:

        def start(**changed: object) -> TestClient:
            app = create_app(settings(url, **{**scalekit, **tokens, **changed}))
            return running.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def log() -> Iterator[list[structlog.typing.EventDict]]:
    """What the service logs during the test."""
    with structlog.testing.capture_logs(processors=[merge_contextvars]) as entries:
        yield entries


GOOD: dict[str, Callable[[], str]] = {
    "RS256": token,
    "ES256": lambda: token(EC_KEY, "ec-1", "ES256"),
    "one role of several": lambda: token(roles=["member", "admin"]),
    "roles as text": lambda: token(roles="member,admin"),
    "roles between spaces": lambda: token(roles="member admin"),
    "one audience of several": lambda: token(aud=["other", AUDIENCE]),
    "a nameless one": lambda: token(sub=None),
    "an API key": lambda: PORTAL_KEY,
}


@pytest.mark.parametrize("who", GOOD)
def test_these_get_a_link(emulator: Emulator, serve: Serve, who: str) -> None:
    """For the organization, and for nothing else."""
    answer = serve().post(LINKS, headers=bearer(GOOD[who]()))
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = emulator.links.open(answer.json()["id"])
    assert made
    assert made.organization_id == "org_1"


UNKNOWN: dict[str, Callable[[], str | None]] = {
    "nobody": lambda: None,
    "a wrong key": lambda: "Bearer wrong",
    "a key with more": lambda: f"Bearer {PORTAL_KEY}x",
    "nothing behind the scheme": lambda: "Bearer",
    "a space behind the scheme": lambda: "Bearer ",
    "another scheme": lambda: f"Basic {token()}",
    "no scheme": token,
    "the scheme twice": lambda: f"Bearer Bearer {token()}",
    "a token and more": lambda: f"Bearer {token()} x",
    "two tokens": lambda: f"Bearer {token()}, Bearer {token()}",
    "a huge token": lambda: f"Bearer {token(padding='x' * 40_000)}",
    "expired": lambda: f"Bearer {token(exp=1_700_000_000)}",
    "not yet valid": lambda: f"Bearer {token(nbf=4_000_000_000)}",
    "wrong issuer": lambda: f"Bearer {token(iss='https://evil.example')}",
    "wrong audience": lambda: f"Bearer {token(aud='other')}",
    "without iss": lambda: f"Bearer {token(iss=None)}",
    "without aud": lambda: f"Bearer {token(aud=None)}",
    "without exp": lambda: f"Bearer {token(exp=None)}",
    "alg none": lambda: f"Bearer {unsigned()}",
    "HS256 with the public key": lambda: f"Bearer {signed_with_the_public_key()}",
    "another's key": lambda: f"Bearer {token(STRANGERS_KEY)}",
    "unknown kid": lambda: f"Bearer {token(STRANGERS_KEY, 'unknown')}",
    "no kid": lambda: f"Bearer {token(key_id=None)}",
}
WITHOUT_THE_RIGHT: dict[str, Callable[[], str | None]] = {
    "another organization's": lambda: f"Bearer {token(oid='org_2')}",
    "another's whose id begins alike": lambda: f"Bearer {token(oid='org_11')}",
    "other letters": lambda: f"Bearer {token(oid='ORG_1')}",
    "without an organization": lambda: f"Bearer {token(oid=None)}",
    "several organizations": lambda: f"Bearer {token(oid=['org_1'])}",
    "an organization in an object": lambda: f"Bearer {token(oid={'id': 'org_1'})}",
    "an organization that is a number": lambda: f"Bearer {token(oid=1)}",
    "wrong role": lambda: f"Bearer {token(roles=['member'])}",
    "a role in other letters": lambda: f"Bearer {token(roles=['Admin'])}",
    "a longer role": lambda: f"Bearer {token(roles='admins')}",
    "without roles": lambda: f"Bearer {token(roles=None)}",
    "no role": lambda: f"Bearer {token(roles=[])}",
    "roles in an object": lambda: f"Bearer {token(roles={'admin': True})}",
    "a role among what is none": lambda: f"Bearer {token(roles=['admin', 7])}",
    "a role that is true": lambda: f"Bearer {token(roles=True)}",
    "a key without the scope": lambda: f"Bearer {READ_KEY}",
}
CASES = [(who, 401, make) for who, make in UNKNOWN.items()] + [(who, 403, make) for who, make in WITHOUT_THE_RIGHT.items()]


@pytest.mark.parametrize(("status", "make"), [pytest.param(status, make, id=who) for who, status, make in CASES])
def test_nobody_else_does(
    emulator: Emulator, serve: Serve, log: list[structlog.typing.EventDict], status: int, make: Callable[[], str | None]
) -> None:
    """401 for whoever is unknown, 403 for whoever is known; Scalekit hears nothing of it, and no answer or log has the credentials."""
    authorization = make()
    before = emulator.tokens.issued
    answer = serve().post(LINKS, headers={"Authorization": authorization} if authorization is not None else {})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert emulator.tokens.issued == before
    assert not [line for line in log if line["event"] == "portal_link_made"]
    credentials = (authorization or "").partition(" ")[2]
    assert len(credentials) < 8 or credentials not in answer.text + str(log)


CONFIGURED = [
    ("both", {}, {PORTAL_KEY: 201, "token": 201, "": 401}),
    ("tokens", {"api_keys": ""}, {PORTAL_KEY: 401, "token": 201, "": 401}),
    ("keys", {"jwt_issuer": None, "jwt_audience": None}, {PORTAL_KEY: 201, "token": 401, "": 401}),
    ("neither", {"api_keys": "", "jwt_issuer": None, "jwt_audience": None}, {PORTAL_KEY: 503, "token": 503, "": 503}),
]


@pytest.mark.parametrize(("changed", "expected"), [pytest.param(changed, expected, id=name) for name, changed, expected in CONFIGURED])
def test_each_kind_of_caller_is_configured_by_itself(
    emulator: Emulator, serve: Serve, changed: dict[str, object], expected: dict[str, int]
) -> None:
    """Neither: 503 for everybody, never open."""
    service, before = serve(**changed), emulator.tokens.issued
    answers = {who: service.post(LINKS, headers=bearer(token() if who == "token" else who) if who else {}).status_code for who in expected}
    assert answers == expected
    assert (emulator.tokens.issued > before) == (201 in expected.values())


def test_an_issuer_without_an_address_of_its_keys_is_a_503(emulator: Emulator, serve: Serve) -> None:
    """That is a setting which is missing; the log says which."""
    before = emulator.tokens.issued
    answer = serve(jwt_jwks_url=None).post(LINKS, headers=bearer(token()))
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:provisioning:problem:keys-unavailable")
    assert emulator.tokens.issued == before


def test_the_roles_and_claims_are_those_that_are_configured(serve: Serve) -> None:
    """The defaults count for nothing then."""
    service = serve(portal_roles="owner it-admin", jwt_organization_claim="tenant", jwt_roles_claim="groups")
    assert service.post(LINKS, headers=bearer(token(tenant="org_1", groups="it-admin"))).status_code == 201
    assert service.post(LINKS, headers=bearer(token(tenant="org_1", groups="admin"))).status_code == 403
    assert service.post(LINKS, headers=bearer(token(tenant="org_2", groups="owner"))).status_code == 403
    assert service.post(LINKS, headers=bearer(token())).status_code == 403


@pytest.mark.parametrize(
    "path", ["/v1/organizations", "/v1/organizations/org_1/users", "/v1/organizations/org_1/directories", "/v1/deliveries"]
)
def test_a_token_is_good_for_portal_links_alone(serve: Serve, issuer: Issuer, path: str) -> None:
    """Everything else stays with the keys, and its keys are not even fetched."""
    service = serve()
    for method, where in (("GET", path), ("POST", "/v1/deliveries/msg_1/replay")):
        answer = service.request(method, where, headers=bearer(token()))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert serve(api_keys="").get(path, headers=bearer(token())).status_code == 503
    assert issuer.fetches == 0


@pytest.mark.parametrize("content", [b"{", b'{"features": ["wrong"]}', b"\xff", b"x" * 2_000_000])
@pytest.mark.parametrize("who", ["expired", "wrong role"])
def test_who_calls_comes_before_what_they_send(serve: Serve, who: str, content: bytes) -> None:
    """Nobody without a good token learns what the body should be; a long one is not even read for them."""
    authorization = {**UNKNOWN, **WITHOUT_THE_RIGHT}[who]() or ""
    answer = serve().post(LINKS, content=content, headers={"Authorization": authorization, "Content-Type": "application/json"})
    assert answer.status_code == (401 if who == "expired" else 403)


def test_a_parameter_is_refused(serve: Serve) -> None:
    """There is none."""
    assert serve().post(f"{LINKS}?role=admin", headers=bearer(token(roles="member"))).status_code == 403
    assert serve().post(f"{LINKS}?role=admin", headers=bearer(token())).status_code == 422


@pytest.mark.parametrize(
    ("credentials", "caller"),
    [
        (lambda: PORTAL_KEY, "frontend"),
        (token, "jwt:usr_12345678"),
        (lambda: token(sub="jane@example.com"), "jwt:sha256:8c87b489ce35cf2e"),
    ],
)
def test_the_audit_says_who_has_which_link(
    serve: Serve, log: list[structlog.typing.EventDict], credentials: Callable[[], str], caller: str
) -> None:
    """One line: the key's name or the subject, organization, features; no address, no token, no link."""
    given = credentials()
    answer = serve().post(LINKS, json={"features": ["sso"]}, headers=bearer(given))
    assert answer.status_code == 201
    (line,) = [entry for entry in log if entry["event"] == "portal_link_made"]
    assert (line["caller"], line["organization_id"], line["features"]) == (caller, "org_1", ["sso"])
    (request,) = [entry for entry in log if entry["event"] == "request"]
    assert request["caller"] == caller
    for secret in (given, answer.json()["id"], "jane", "magicLink"):
        assert secret not in str(log)


def test_a_rotation_needs_no_restart(serve: Serve, issuer: Issuer) -> None:
    """The next request with a token of the new key finds it; so does the last with one of the old key."""
    service, key = serve(), new_key()
    assert service.post(LINKS, headers=bearer(token())).status_code == 201
    issuer.keys = [published("rsa-2", key), published("rsa-1", RSA_KEY)]
    assert service.post(LINKS, headers=bearer(token(key, "rsa-2"))).status_code == 201
    assert service.post(LINKS, headers=bearer(token())).status_code == 201


def test_a_flood_of_unknown_keys_is_none_to_the_issuer(emulator: Emulator, serve: Serve, issuer: Issuer) -> None:
    """500 made-up ids, two fetches."""
    service, before = serve(), emulator.tokens.issued
    flood = [token(EC_KEY, f"made-up-{number}", "ES256") for number in range(500)]
    assert {service.post(LINKS, headers=bearer(each)).status_code for each in flood} == {401}
    assert issuer.fetches <= 2
    assert emulator.tokens.issued == before


async def _garbage(_: Request) -> Response:
    return Response("<html>not here</html>")


@pytest.mark.parametrize("trouble", ["garbage", "hangs", "drips"])
def test_while_tokens_cannot_be_checked_the_answer_is_try_again(
    emulator: Emulator, serve: Serve, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """503 with Retry-After for tokens; API keys are as good as ever."""
    monkeypatch.setattr("provisioning.tokens.FETCH_WITHIN", 0.5)
    issuer.misbehaves = {"garbage": _garbage, "hangs": hang, "drips": drip}[trouble]
    service, before = serve(), emulator.tokens.issued
    answer = service.post(LINKS, headers=bearer(token()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["type"] == "urn:provisioning:problem:keys-unavailable"
    assert "html" not in answer.text
    assert emulator.tokens.issued == before
    assert service.post(LINKS, headers=bearer(PORTAL_KEY)).status_code == 201


def test_keys_in_use_stay_good_while_the_issuer_is_away(serve: Serve, issuer: Issuer) -> None:
    """Whatever else is asked for meanwhile."""
    service = serve()
    assert service.post(LINKS, headers=bearer(token())).status_code == 201
    issuer.misbehaves = _garbage
    assert service.post(LINKS, headers=bearer(token(STRANGERS_KEY, "unknown"))).status_code == 503
    assert service.post(LINKS, headers=bearer(token())).status_code == 201


def test_an_issuer_that_hangs_holds_up_nobody_else(serve: Serve, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While fifty tokens wait for their key, webhooks are received, people are read, keys get links and the service is ready."""
    monkeypatch.setattr("provisioning.tokens.FETCH_WITHIN", 60)
    asked, released = threading.Event(), threading.Event()

    async def silent(_: Request) -> Response:
        asked.set()
        await asyncio.to_thread(released.wait)
        return Response("too late")

    issuer.misbehaves = silent
    service = serve()
    with ThreadPoolExecutor(50) as visitors:
        waiting = [visitors.submit(service.post, LINKS, headers=bearer(token())) for _ in range(50)]
        try:
            asked.wait()
            body = event("user_created", "u1")
            assert service.post("/webhooks/scalekit", content=body, headers=signed(body)).status_code == 201
            assert len(service.get("/v1/organizations/org_1/users", headers=bearer(READ_KEY)).json()["data"]) == 1
            assert service.post(LINKS, headers=bearer(PORTAL_KEY)).status_code == 201
            assert service.get("/health/ready").status_code == 200
            assert not any(each.done() for each in waiting)
        finally:
            released.set()
        assert {each.result().status_code for each in waiting} == {503}
    assert issuer.fetches == 1


def test_the_emulator_plays_the_login(emulator: Emulator, serve: Serve) -> None:
    """Its visitors' tokens are good where it is the issuer, with its keys at Scalekit's address; its client's are not."""
    service = serve(jwt_issuer=emulator.url, jwt_audience=VISITORS_AUDIENCE, jwt_jwks_url=f"{emulator.url}/keys")
    for organization_id, role, status in (("org_1", "admin", 201), ("org_1", "member", 403), ("org_2", "admin", 403)):
        visitor = emulator.tokens.for_visitor(organization_id, role)
        assert not emulator.tokens.accepts(visitor)
        assert service.post(LINKS, headers=bearer(visitor)).status_code == status
    assert service.post(LINKS, headers=bearer(emulator.tokens.issue())).status_code == 401


@pytest.fixture
def called(emulator: Emulator) -> Iterator[tuple[str, str]]:
    """What the application calls `org_1`, and another organization, at Scalekit; nothing of it is known to the service yet."""
    other = next((each for each in emulator.company.organizations() if each.name == "Another"), None)
    emulator.structure.set_external_id((other or emulator.structure.add_organization("Another")).id, "another")
    emulator.structure.set_external_id("org_1", "ours")
    yield "ext:ours", "ext:another"
    emulator.structure.set_external_id("org_1", None)


def links(organization: str) -> str:
    """Where a link of the organization is made."""
    return f"/v1/organizations/{quote(organization, safe='')}/portal-links"


def asked(service: TestClient) -> dict[str, int]:
    """How often Scalekit was asked for an organization, by what came of it."""
    figures = service.get("/metrics", headers=bearer()).text
    found = re.findall(r'seconds_count\{call="GetOrganization",result="(\w+)"\} (\d+)', figures)
    return {result: int(number) for result, number in found}


def test_a_visitor_names_the_own_organization_as_the_application_does(
    emulator: Emulator, serve: Serve, called: tuple[str, str], log: list[structlog.typing.EventDict]
) -> None:
    """From the first time on; the link and the audit are of Scalekit's id, which is the one that the token names."""
    service = serve()
    for _ in range(2):
        answer = service.post(links(called[0]), headers=bearer(token()))
        assert answer.status_code == 201
        made = emulator.links.open(answer.json()["id"])
        assert made
        assert made.organization_id == "org_1"
    assert {line["organization_id"] for line in log if line["event"] == "portal_link_made"} == {"org_1"}
    for less in (token(roles=["member"]), token(oid=called[0]), token(oid="ours"), token(oid=None)):
        assert service.post(links(called[0]), headers=bearer(less)).status_code == 403


def test_a_visitor_learns_nothing_of_another_organization(
    emulator: Emulator, serve: Serve, called: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is another's, known here or not, what is nobody's and what can be nobody's is refused alike; only of the own one is asked."""
    service = serve()
    names = ["org_2", called[1], "ext:nobody", "ext:", "ext:org_1", "ext:ext:ours", "ext:OURS", f"ext:{'x' * 1000}"]

    def refusals() -> list[tuple[int, dict[str, object]]]:
        answers = [service.post(links(name), headers=bearer(token())) for name in names]
        return [(answer.status_code, {**answer.json(), "request_id": ""}) for answer in answers]

    before = refusals()
    assert before == before[:1] * len(names)
    assert before[0][0] == 403
    assert asked(service) == {"ok": 1}
    assert service.post(links(called[1]), headers=bearer(PORTAL_KEY)).status_code == 201  # from now on, it is known here
    assert refusals() == before
    with monkeypatch.context() as forgetful:
        forgetful.setattr("provisioning.organizations.REMEMBERED", 0)
        number = asked(service)["ok"]
        for name in (called[1], "ext:nobody"):  # nor does it take another time
            service.post(links(name), headers=bearer(token()))
            number += 1
            assert asked(service)["ok"] == number
    for changed, fault in (({}, Fault.REFUSE), ({"scalekit_client_id": None}, None)):
        emulator.faults.set(Door.API, fault)
        assert service.post(links("ext:ours"), headers=bearer(token(oid="org_2"))).status_code == 403
        service = serve(**changed)
        assert refusals() == before


def stored(service: TestClient) -> list[tuple[str, str | None, datetime | None]]:
    """What is kept of organizations."""
    database: Database = service.app.state.services.database  # type: ignore[attr-defined]  # it is a FastAPI
    with database.reading() as session:
        kept = organizations_table.c
        return [(*row,) for row in session.execute(select(kept.id, kept.external_id, kept.external_id_at).order_by(kept.id))]


def test_whoever_may_open_no_portal_causes_no_look_up(serve: Serve, called: tuple[str, str]) -> None:
    """Nothing is asked of Scalekit, and nothing written, for a token without a portal's role or an organization."""
    service = serve()
    before = stored(service)
    for less in (token(roles=["member"]), token(roles=[]), token(oid=None), token(oid="org_2", roles=["member"])):
        for name in (*called, "ext:nobody", "org_2"):
            assert service.post(links(name), headers=bearer(less)).status_code == 403
    assert (asked(service), stored(service)) == ({}, before)


def test_what_scalekit_did_not_say_is_not_asked_at_every_visit(emulator: Emulator, serve: Serve, called: tuple[str, str]) -> None:
    """A failure is remembered for as long as an answer is."""
    service = serve()
    emulator.faults.set(Door.API, Fault.REFUSE)
    for _ in range(3):
        assert service.post(links(called[0]), headers=bearer(token())).status_code == 403
    assert sum(asked(service).values()) == 1


def test_what_is_stored_already_is_not_written_again(serve: Serve, called: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a visitor names what is not the own organization."""
    monkeypatch.setattr("provisioning.organizations.REMEMBERED", 0)
    service = serve()
    assert service.post(links(called[0]), headers=bearer(token())).status_code == 201
    before = stored(service)
    assert [each[:2] for each in before] == [("org_1", "ours")]
    for _ in range(2):
        assert service.post(links(called[1]), headers=bearer(token())).status_code == 403
    assert asked(service) == {"ok": 3}
    assert stored(service) == before


def test_a_link_is_the_organizations_that_was_checked(
    emulator: Emulator, serve: Serve, called: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the external id becomes another organization's in between."""
    service = serve()
    organizations: Organizations = service.app.state.services.organizations  # type: ignore[attr-defined]  # it is a FastAPI
    meant = organizations.is_meant

    async def moved(organization_id: str, given: str) -> bool:
        answer = await meant(organization_id, given)
        database: Database = service.app.state.services.database  # type: ignore[attr-defined]
        database.write(lambda session: set_external_id(session, "org_2", "ours", datetime.now(UTC)))
        return answer

    monkeypatch.setattr(organizations, "is_meant", moved)
    answer = service.post(links(called[0]), headers=bearer(token()))
    made = emulator.links.open(answer.json()["id"])
    assert made
    assert made.organization_id == "org_1"
    assert service.post(links(called[0]), headers=bearer(token())).status_code == 403
