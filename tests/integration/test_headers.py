"""What no answer of the service goes without, whoever asks for what."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from databases import Databases
from provisioning.api import edge
from provisioning.api.admin import pages
from service import OPERATE_KEY, bearer, running, signed

EVERYWHERE = {
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
    "cache-control",
    "x-request-id",
}
ASKED = [
    ("GET", "/v1/organizations", 200),
    ("GET", "/v1/organizations?x=1", 422),
    ("GET", "/v1/deliveries/none", 404),
    ("POST", "/v1/organizations/org_1/reconciliations", 403),
    ("GET", "/nothing", 404),
    ("PUT", "/v1/organizations", 405),
    ("GET", "/health/live", 200),
    ("GET", "/health/ready", 200),
    ("GET", "/docs", 200),
    ("GET", "/docs/swagger-ui.css", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/admin/login", 200),
    ("GET", "/admin/admin.css", 200),
    ("GET", "/embed/admin-portal.js", 200),
    ("POST", "/webhooks/scalekit", 400),
    ("HEAD", "/docs", 200),
    ("OPTIONS", "/v1/organizations/org_1/portal-links", 204),
]


@pytest.fixture(scope="module")
def client(sqlite_databases: Databases) -> Iterator[TestClient]:
    """A caller of one service: no header depends on its database, or on what was asked before."""
    with sqlite_databases.fresh(migrated=True) as url, running(url) as client:
        yield client


@pytest.mark.parametrize(("method", "path", "status"), ASKED)
def test_every_answer_says_how_little_a_browser_may_do_with_it(client: TestClient, method: str, path: str, status: int) -> None:
    """Not sniffed, not framed, not leaked by a referrer; and not kept, unless it is a file for everybody."""
    answer = client.request(method, path, headers=bearer())
    assert answer.status_code == status
    assert answer.headers.keys() >= EVERYWHERE
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert path.startswith("/embed/") or "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store" or path.startswith(("/docs/", "/embed/"))


def test_every_route_says_it_to_a_stranger_too(client: TestClient) -> None:
    """Whatever the application serves, described or not, and whatever it answers to who has no key."""
    app = client.app
    assert isinstance(app, FastAPI)
    asked = [(method, context.path) for context in iter_route_contexts(app.routes) for method in sorted(context.methods or ())]
    assert {("GET", "/embed/{name}"), ("POST", "/webhooks/scalekit"), ("GET", "/docs/{name}")} <= set(asked)
    for method, path in asked:
        answer = client.request(method, re.sub(r"{.*?}", "x", path or ""))
        assert answer.headers.keys() >= EVERYWHERE, (method, path)
        assert "strict-transport-security" not in answer.headers


def test_every_answer_over_tls_asks_for_it_from_now_on(sqlite_databases: Databases) -> None:
    """A year, of refusals too: without a key, for another host, of too large a body, and of what is not there."""
    with sqlite_databases.fresh(migrated=True) as url, running(url, allowed_hosts="testserver", max_body_bytes=1000) as client:
        client.base_url = "https://testserver"
        operator = bearer(OPERATE_KEY)
        answers = {
            200: client.get("/embed/admin-portal.js"),
            404: client.get("/nothing"),
            405: client.put("/v1/organizations"),
            401: client.get("/v1/organizations"),
            400: client.get("/v1/organizations", headers={"Host": "elsewhere.example"}),
            413: client.put("/v1/organizations/org_1/users/usr_1/roles", content=b" " * 2000, headers=operator),
        }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers.keys() >= EVERYWHERE


def test_a_page_says_only_what_is_its_own() -> None:
    """What goes for every answer is said in one place."""
    assert not pages.HEADERS.items() & edge.HEADERS.items()


def test_what_other_pages_import_stays_importable(client: TestClient) -> None:
    """The module for frontends is for every origin."""
    headers = client.get("/embed/admin-portal.js").headers
    assert (headers["access-control-allow-origin"], headers["cross-origin-resource-policy"]) == ("*", "cross-origin")


def test_each_header_is_there_once(client: TestClient) -> None:
    """A page's own takes the place of the usual one: of two policies a browser would heed both."""
    for path in ("/docs", "/embed/admin-portal.js", "/v1/organizations"):
        names = [name for name, _ in client.get(path, headers=bearer()).headers.multi_items()]
        assert sorted(names) == sorted(set(names))


def test_an_answers_own_id_gives_way_to_the_requests() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Request-ID", b"inner"), (b"x-more", b"1")]})
        await send({"type": "http.response.body", "body": b""})

    headers = TestClient(edge.Edge(app)).get("/", headers={"X-Request-ID": "outer"}).headers
    assert (headers.get_list("x-request-id"), headers["x-more"]) == (["outer"], "1")


def test_a_webhooks_answer_has_them_too(client: TestClient) -> None:
    """The one that matters most, since it is asked by a stranger."""
    answer = client.post("/webhooks/scalekit", content=b"{}", headers=signed(b"{}"))
    assert answer.status_code == 201
    assert answer.headers.keys() >= EVERYWHERE
