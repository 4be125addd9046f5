"""Pages of the origins that are named may ask for portal links and read every answer; no other page may, nor for anything else."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from databases import Databases
from issuer import AUDIENCE, ISSUER, token
from provisioning.app import create_app
from service import PORTAL_KEY, READ_KEY, bearer, settings

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

LINKS = "/v1/organizations/org_1/portal-links"
APPLICATION, SECOND = "https://app.example.com", "http://localhost:3000"
STRANGERS = [
    "https://evil.example",
    "https://app.example.com.evil.example",
    "https://evil.example/?https://app.example.com",
    "https://app.example.com:8443",
    "http://app.example.com",
    "https://app.example.com/",
    "https://APP.example.com",
    "https://sub.app.example.com",
    "http://localhost",
    "null",
    "*",
    "",
    f"{APPLICATION}, https://evil.example",
    f"{APPLICATION} {SECOND}",
]
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}

Serve = Callable[..., TestClient]


@pytest.fixture
def serve(emulator: Emulator, sqlite_databases: Databases) -> Iterator[Serve]:
    """Starts the service; keyword arguments change its settings, by attribute."""
    given = {
        "scalekit_environment_url": emulator.url,
        "scalekit_client_id": emulator.tokens.client_id,
        "scalekit_client_secret": emulator.tokens.client_secret,
        "portal_origins": emulator.portal_origin,
        "allowed_origins": f"{APPLICATION} {SECOND}/",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_jwks_url": "http://127.0.0.1:1/keys",
    }
    with ExitStack() as running, sqlite_databases.fresh(migrated=True) as url:

        def start(**changed: Any) -> TestClient:
            app = create_app(settings(url, **{**given, **changed}))
            return running.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


def allowed(answer: httpx2.Response) -> dict[str, str]:
    """What the answer says to a browser about other origins."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [APPLICATION, SECOND])
def test_a_page_that_is_named_may_ask(serve: Serve, origin: str) -> None:
    """The preflight says what it may send and for how long to remember that, without anybody's credentials."""
    answer = serve().options(LINKS, headers={"Origin": origin, **ASKS})
    assert answer.status_code == 204
    assert answer.content == b""
    assert allowed(answer) == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "Authorization, Content-Type",
        "access-control-max-age": "600",
    }
    assert answer.headers["vary"] == "Origin"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("origin", STRANGERS)
def test_no_other_page_may(emulator: Emulator, serve: Serve, origin: str) -> None:
    """Look-alikes included: nothing is said to it, and caches are told that this depends on who asks."""
    service = serve()
    for answer in (
        service.options(LINKS, headers={"Origin": origin, **ASKS}),
        service.post(LINKS, headers={"Origin": origin}),
        service.post(LINKS, headers={"Origin": origin, **bearer(PORTAL_KEY)}),
    ):
        assert allowed(answer) == {}
        assert answer.headers["vary"] == "Origin"


def test_two_origins_are_none(serve: Serve) -> None:
    """No browser sends them."""
    answer = serve().post(LINKS, headers=[("Origin", APPLICATION), ("Origin", SECOND)])
    assert allowed(answer) == {}


def test_the_link_can_be_read(serve: Serve) -> None:
    """By the page that asked; nothing is said about credentials, for nobody is known by a cookie."""
    answer = serve().post(LINKS, headers={"Origin": APPLICATION, **bearer(PORTAL_KEY)})
    assert answer.status_code == 201
    assert allowed(answer) == {"access-control-allow-origin": APPLICATION, "access-control-expose-headers": "Retry-After, X-Request-ID"}
    assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Origin", "no-store")


REFUSALS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "nobody": (401, {}, {}),
    "a wrong key": (401, {}, {"headers": bearer("wrong")}),
    "no keys to check a token with": (503, {}, {"headers": bearer(token())}),
    "no right": (403, {}, {"headers": bearer(READ_KEY)}),
    "an organization that can be none": (422, {"path": "/v1/organizations/%20/portal-links"}, {"headers": bearer(PORTAL_KEY)}),
    "an organization that Scalekit does not know": (404, {"path": LINKS.replace("org_1", "org_0")}, {"headers": bearer(PORTAL_KEY)}),
    "a wrong body": (422, {}, {"headers": bearer(PORTAL_KEY), "json": {"features": ["wrong"]}}),
    "a long body": (413, {}, {"headers": bearer(PORTAL_KEY), "content": b"x" * 2_000_000}),
    "a method that is none": (405, {"method": "DELETE"}, {"headers": bearer(PORTAL_KEY)}),
    "no caller configured": (503, {"api_keys": "", "jwt_issuer": None, "jwt_audience": None}, {}),
    "no credentials configured": (503, {"scalekit_client_id": None}, {"headers": bearer(PORTAL_KEY)}),
    "Scalekit is away": (504, {"scalekit_environment_url": "https://localhost:1"}, {"headers": bearer(PORTAL_KEY)}),
    "another host": (400, {"allowed_hosts": "api.example.com"}, {"headers": bearer(PORTAL_KEY)}),
    "something unexpected": (500, {"break": True}, {"headers": bearer(PORTAL_KEY)}),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_a_refusal_of_any_layer_can_be_read(serve: Serve, why: str) -> None:
    """Without the headers the page would learn nothing but that something failed. A page that is not named learns just that."""
    status, changed, request = REFUSALS[why]
    given = dict(changed)
    path, method, broken = given.pop("path", LINKS), given.pop("method", "POST"), given.pop("break", False)
    service = serve(**given)
    if broken:
        assert isinstance(service.app, FastAPI)
        state = service.app.state
        state.services = dataclasses.replace(state.services, scalekit=None)
    for origin, told in ((APPLICATION, APPLICATION), ("https://evil.example", None), (None, None)):
        headers = {**request.get("headers", {}), **({"Origin": origin} if origin else {})}
        answer = service.request(method, path, **{**request, "headers": headers})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert allowed(answer).get("access-control-allow-origin") == told
        assert answer.headers["vary"] == "Origin"


def test_nothing_else_is_open_to_pages_of_other_origins(serve: Serve) -> None:
    """Whoever reads people has a key, and no key belongs into a browser."""
    service = serve()
    paths = [path for path in service.get("/openapi.json").json()["paths"] if not path.endswith("/portal-links")]
    assert len(paths) > 10
    for path in [*paths, "/docs", "/openapi.json", "/nothing", f"{LINKS}/", f"{LINKS}/x", f"/x{LINKS}"]:
        for method in ("OPTIONS", "GET", "POST"):
            answer = service.request(method, re.sub(r"{.*?}", "x", path), headers={"Origin": APPLICATION, **ASKS, **bearer(READ_KEY)})
            assert allowed(answer) == {}, path


def test_unless_origins_are_named_none_is_open(serve: Serve) -> None:
    """The default."""
    service = serve(allowed_origins="")
    for method in ("OPTIONS", "POST"):
        answer = service.request(method, LINKS, headers={"Origin": APPLICATION, **ASKS, **bearer(PORTAL_KEY)})
        assert allowed(answer) == {}
        assert "vary" not in answer.headers


def test_a_preflight_makes_no_link_and_asks_for_no_key(emulator: Emulator, serve: Serve) -> None:
    """Browsers send it without credentials."""
    before = emulator.tokens.issued
    assert serve().options(LINKS, headers={"Origin": APPLICATION, **ASKS, **bearer(PORTAL_KEY)}).status_code == 204
    assert emulator.tokens.issued == before
