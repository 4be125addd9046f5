"""Who may call: a key of the right scope, and nobody at all where no key is configured."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from databases import Databases
from service import OPERATE_KEY, PORTAL_KEY, READ_KEY, bearer, running

GIVE = ("/v1/organizations/{organization_id}/groups/{group_id}/roles", "/v1/organizations/{organization_id}/users/{user_id}/roles")
SET = "/v1/organizations/{organization_id}/users/{user_id}/application-id"
READ = (
    "/v1/organizations",
    "/v1/organizations/{organization_id}/users",
    "/v1/organizations/{organization_id}/users/{user_id}",
    "/v1/organizations/{organization_id}/users/{user_id}/access",
    "/v1/organizations/{organization_id}/users/{user_id}/history",
    "/v1/organizations/{organization_id}/groups",
    "/v1/organizations/{organization_id}/groups/{group_id}",
    "/v1/organizations/{organization_id}/groups/{group_id}/members",
    "/v1/organizations/{organization_id}/groups/{group_id}/history",
    *GIVE,
    "/v1/organizations/{organization_id}/directories",
    "/v1/organizations/{organization_id}/reconciliations",
    "/v1/organizations/{organization_id}/reconciliations/{run_id}",
    "/v1/changes",
    "/v1/deliveries",
    "/v1/deliveries/{webhook_id}",
    "/metrics",
)
START = "/v1/organizations/{organization_id}/reconciliations"
DECIDE = (f"{START}/{{run_id}}/approve", f"{START}/{{run_id}}/cancel", "/v1/deliveries/{webhook_id}/replay")
SAY = ("/v1/deliveries/replay", "/v1/deliveries/{webhook_id}/dismiss")  # which ones, and why
OPERATE = (START, *DECIDE, *SAY)
PORTAL = ("/v1/organizations/{organization_id}/portal-links",)
ALL = [("GET", path) for path in READ] + [("POST", path) for path in OPERATE + PORTAL] + [("PUT", path) for path in (*GIVE, SET)]
IDS = {"organization_id": "org_1", "user_id": "usr_1", "group_id": "grp_1", "webhook_id": "msg_1", "run_id": "run_1"}


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """The service, without a key."""
    with request.getfixturevalue("sqlite_databases").fresh(migrated=True) as url, running(url) as client:
        yield client


def test_every_protected_route_is_listed_here(client: TestClient) -> None:
    """So that the laws below hold for each; a new route is added here."""
    described = client.get("/openapi.json").json()["paths"]
    protected = {(method.upper(), path) for path, item in described.items() for method, route in item.items() if "security" in route}
    assert protected == set(ALL)


@pytest.mark.parametrize(("method", "path"), ALL)
@pytest.mark.parametrize("credentials", ["", "wrong", READ_KEY[:-1], f"{READ_KEY}x", f"x {READ_KEY}"])
@pytest.mark.parametrize("scheme", ["", "Bearer", "Bearer ", "Basic "])
def test_without_a_known_key_nothing_is_answered(client: TestClient, method: str, path: str, scheme: str, credentials: str) -> None:
    """401, with what it takes; the key that was tried is not in the answer."""
    answer = client.request(method, path.format(**IDS), headers={"Authorization": scheme + credentials})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert READ_KEY[:-1] not in answer.text


@given(credentials=st.binary(max_size=60))
def test_no_credentials_are_too_odd_to_be_refused(client: TestClient, credentials: bytes) -> None:
    """Whatever bytes stand there."""
    answer = client.get("/v1/deliveries", headers=[(b"authorization", b"Bearer " + credentials)])
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        *(("GET", path, PORTAL_KEY, 403) for path in READ),
        *(("POST", path, key, 403) for path in OPERATE for key in (READ_KEY, PORTAL_KEY)),
        *(("PUT", path, key, 403) for path in (*GIVE, SET) for key in (READ_KEY, PORTAL_KEY)),
        *(("PUT", path, OPERATE_KEY, 422) for path in (*GIVE, SET)),
        *(("POST", path, key, 403) for path in PORTAL for key in (READ_KEY, OPERATE_KEY)),
        ("GET", "/v1/deliveries", READ_KEY, 200),
        ("GET", "/v1/deliveries", OPERATE_KEY, 200),
        *(("POST", path, OPERATE_KEY, 404) for path in DECIDE),
        *(("POST", path, OPERATE_KEY, 422) for path in SAY),
        ("POST", START, OPERATE_KEY, 503),
        *(("POST", path, PORTAL_KEY, 503) for path in PORTAL),
    ],
)
def test_a_key_does_what_its_scopes_say(client: TestClient, method: str, path: str, key: str, status: int) -> None:
    """And no more: a known key without the scope is a 403."""
    assert client.request(method, path.format(**IDS), headers=bearer(key)).status_code == status


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_is_written_in_any_case(client: TestClient, scheme: str) -> None:
    """RFC 9110, section 11.1."""
    assert client.get("/v1/deliveries", headers={"Authorization": f"{scheme} {READ_KEY}"}).status_code == 200


def test_two_authorization_headers_are_not_a_way_in(client: TestClient) -> None:
    """The first counts."""
    headers = [("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {READ_KEY}")]
    assert client.get("/v1/deliveries", headers=headers).status_code == 401


def test_where_no_caller_is_configured_everything_is_closed(sqlite_databases: Databases) -> None:
    """503 that says what is missing, never open; webhooks and health go on."""
    with sqlite_databases.fresh(migrated=True) as url, running(url, api_keys="") as client:
        for method, path in ALL:
            for headers in ({}, bearer(), {"Authorization": "Bearer "}):
                answer = client.request(method, path.format(**IDS), headers=headers)
                assert answer.status_code == 503, path
                assert "PROVISIONING_API_KEYS" in answer.json()["detail"]
        assert client.get("/health/ready").status_code == 200
        assert client.post("/webhooks/scalekit").status_code == 400


def test_the_log_names_the_key_and_never_shows_it(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name says who called."""
    with capture_logs(processors=[merge_contextvars]) as logs:
        client.get("/v1/deliveries", headers=bearer())
        client.get("/v1/deliveries", headers=bearer(PORTAL_KEY))
    assert [line.get("caller") for line in logs if line["event"] == "request"] == ["reader", "frontend"]
    assert READ_KEY not in repr(logs) + capsys.readouterr().err


@pytest.mark.parametrize("body", ["", "{", "[]", '{"features": ["wrong"]}', "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")])
def test_who_calls_is_asked_before_what_they_send(database_url: str, body: str) -> None:
    """Nobody learns from a 422 what a route takes without a key, and no body is parsed for them."""
    with running(database_url) as service:
        paths = ("/v1/organizations/org_1/portal-links", START.format(**IDS), "/v1/deliveries/msg_1/replay")
        for method, path in (*(("POST", each) for each in paths), *(("PUT", each.format(**IDS)) for each in (*GIVE, SET))):
            answer = service.request(method, path, content=body.encode(), headers={"Content-Type": "application/json"})
            assert answer.status_code == 401
