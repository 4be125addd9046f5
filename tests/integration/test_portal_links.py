"""The portal link's endpoint, from the caller's key to the real SDK and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient

from provisioning.app import create_app
from provisioning.emulator.faults import Door, Fault
from provisioning.scalekit.client import ScalekitClient
from provisioning.settings import Settings

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

KEYS = {"backend": "portal", "reader": "read+operate"}
LINKS = "/v1/organizations/org_1/portal-links"

Serve = Callable[..., TestClient]


def key(name: str) -> dict[str, str]:
    """The header of one of KEYS."""
    return {"Authorization": f"Bearer {name * 8}"}


@pytest.fixture
def serve(emulator: Emulator, tmp_path: Path) -> Iterator[Serve]:
    """Starts the service with the emulator behind it; keyword arguments change its settings."""
    given = {
        **emulator.settings(),
        "SCALEKIT_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "DATABASE_URL": f"sqlite:///{tmp_path}/provisioning.db",
        "PROVISIONING_API_KEYS": ",".join(f"{name}:{scopes}:{name * 8}" for name, scopes in KEYS.items()),
    }
    with ExitStack() as running:

        def start(**changed: str | None) -> TestClient:
            settings = {name: value for name, value in {**given, **changed}.items() if value is not None}
            return running.enter_context(TestClient(create_app(Settings.model_validate(settings)), raise_server_exceptions=False))

        yield start


@contextmanager
def limited(service: TestClient, *, deadline: float = 10, threads: int = 8) -> Iterator[None]:
    """Gives a running service a Scalekit client with these limits."""
    assert isinstance(service.app, FastAPI)
    state = service.app.state
    client = ScalekitClient(state.services.settings, deadline=deadline, threads=threads)
    state.services = dataclasses.replace(state.services, scalekit=client)
    with closing(client):
        yield


@pytest.fixture
def log() -> Iterator[list[structlog.typing.EventDict]]:
    """What the service logs during the test."""
    with structlog.testing.capture_logs() as entries:
        yield entries


def test_a_backend_gets_a_fresh_link_that_nobody_keeps(emulator: Emulator, serve: Serve) -> None:
    """contract.md's shape; two requests, two links."""
    service = serve()

    answers = [service.post(LINKS, headers=key("backend")) for _ in range(2)]

    for answer in answers:
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        assert set(answer.json()) == {"id", "location", "expires_at"}
        assert answer.json()["location"].startswith(emulator.portal_origin)
        assert answer.json()["expires_at"].endswith("Z")
        assert timedelta() < datetime.fromisoformat(answer.json()["expires_at"]) - datetime.now(UTC) <= timedelta(seconds=60)
    assert answers[0].json()["location"] != answers[1].json()["location"]


@pytest.mark.parametrize(
    ("body", "features"),
    [
        (b"", ()),
        (b"null", ()),
        (b"{}", ()),
        (b'{"features": []}', ()),
        (b'{"features": ["sso"]}', ("sso",)),
        (b'{"features": ["dir_sync", "sso"]}', ("dir_sync", "sso")),
    ],
)
def test_the_features_reach_scalekit(emulator: Emulator, serve: Serve, body: bytes, features: tuple[str, ...]) -> None:
    """None asked for: none sent."""
    answer = serve().post(LINKS, content=body, headers={**key("backend"), "Content-Type": "application/json"})

    made = emulator.links.open(answer.json()["id"])

    assert made is not None
    assert (made.organization_id, made.features) == ("org_1", features)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"features": ["scim"]}', 422),
        (b'{"features": "sso"}', 422),
        (b'{"features": null}', 422),
        (b'{"features": ["sso", "dir_sync", "sso"]}', 422),
        (b'{"features": ["sso"], "location": "https://canary.example"}', 422),
        (b'["sso"]', 422),
        (b'"sso"', 422),
        (b"{", 422),
        (b"\xff", 400),
    ],
)
def test_any_other_body_is_refused(emulator: Emulator, serve: Serve, body: bytes, status: int) -> None:
    """And does not reach Scalekit."""
    before = emulator.tokens.issued

    answer = serve().post(LINKS, content=body, headers={**key("backend"), "Content-Type": "application/json"})

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert "canary" not in answer.text
    assert emulator.tokens.issued == before


@pytest.mark.parametrize("organization", ["o" * 256, "org%201", "org%001", "org%0A1", "%C3%B6rg"])
def test_an_id_that_cannot_be_one_is_refused(serve: Serve, organization: str) -> None:
    """Bounded, and nothing in it that a log or a terminal would act upon."""
    assert serve().post(f"/v1/organizations/{organization}/portal-links", headers=key("backend")).status_code == 422


@pytest.mark.parametrize(
    ("headers", "changed", "status"),
    [
        ({}, {}, 401),
        ({"Authorization": "Bearer backend"}, {}, 401),
        (key("reader"), {}, 403),
        (key("backend"), {"PROVISIONING_API_KEYS": None}, 503),
        ({}, {"PROVISIONING_API_KEYS": None}, 503),
    ],
)
def test_nobody_else_gets_a_link(
    emulator: Emulator, serve: Serve, headers: dict[str, str], changed: dict[str, str | None], status: int
) -> None:
    """No key, a wrong one, one without the scope, none configured at all: refused before Scalekit is asked."""
    before = emulator.tokens.issued

    answer = serve(**changed).post(LINKS, headers=headers)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert emulator.tokens.issued == before


@pytest.mark.parametrize(
    ("door", "fault", "status"),
    [
        (Door.OAUTH, Fault.RATE_LIMIT, 503),
        (Door.OAUTH, Fault.AWAY, 504),
        (Door.OAUTH, Fault.REFUSE, 502),
        (Door.OAUTH, Fault.MISSING, 502),
        (Door.OAUTH, Fault.UNREADABLE, 502),
        (Door.OAUTH, Fault.EXPIRED, 502),
        (Door.API, Fault.RATE_LIMIT, 503),
        (Door.API, Fault.AWAY, 504),
        (Door.API, Fault.REFUSE, 502),
        (Door.API, Fault.LINK_EMPTY, 502),
        (Door.API, Fault.LINK_WITHOUT_EXPIRY, 502),
        (Door.API, Fault.LINK_ELSEWHERE, 502),
    ],
)
def test_a_failure_of_scalekits_is_answered_as_the_table_says(
    emulator: Emulator, serve: Serve, log: list[structlog.typing.EventDict], door: Door, fault: Fault, status: int
) -> None:
    """design.md, Failures. What Scalekit said is logged, and is nowhere in the answer."""
    with emulator.faults.during(door, fault):
        answer = serve().post(LINKS, headers=key("backend"))

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert ("retry-after" in answer.headers) == (status == 503)
    (line,) = [entry for entry in log if entry["event"] == "scalekit_failed"]
    assert line["vendor_message"]
    for words in (line["vendor_message"], "emulator", "elsewhere", "magicLink"):
        assert words not in answer.text


def test_an_unknown_organization_is_a_404(serve: Serve, log: list[structlog.typing.EventDict]) -> None:
    """Unknown there, not here: Scalekit is asked."""
    answer = serve().post("/v1/organizations/org_2/portal-links", headers=key("backend"))

    assert (answer.status_code, answer.json()["type"]) == (404, "urn:provisioning:problem:unknown-organization")
    assert "emulator" not in answer.text
    assert any("The emulator knows no such organization." in str(entry) for entry in log)


@pytest.mark.parametrize("door", [Door.OAUTH, Door.API])
def test_a_silent_scalekit_is_a_504_at_the_deadline(emulator: Emulator, serve: Serve, door: Door) -> None:
    """The client's deadline, here a short one."""
    service = serve()

    with limited(service, deadline=0.3), emulator.faults.during(door, Fault.HANG):
        assert service.post(LINKS, headers=key("backend")).status_code == 504


def test_an_api_that_nobody_listens_at_is_a_504(serve: Serve) -> None:
    """Away: the connection is refused."""
    service = serve(SCALEKIT_ENVIRONMENT_URL="https://localhost:1")

    assert service.post(LINKS, headers=key("backend")).status_code == 504


def test_a_full_pool_is_a_503_with_retry_after(serve: Serve) -> None:
    """Too many waiting here is our doing: come back."""
    service = serve()

    with limited(service, threads=0):  # no place at all
        answer = service.post(LINKS, headers=key("backend"))

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_missing_credentials_are_a_503_that_names_them(serve: Serve) -> None:
    """Webhooks work without; this does not."""
    service = serve(SCALEKIT_CLIENT_ID=None, SCALEKIT_CLIENT_SECRET=None)

    answer = service.post(LINKS, headers=key("backend"))

    assert answer.status_code == 503
    assert "SCALEKIT_CLIENT_ID, SCALEKIT_CLIENT_SECRET" in answer.json()["detail"]


def test_one_line_of_audit_says_who_has_a_link_and_no_line_has_the_link(serve: Serve, log: list[structlog.typing.EventDict]) -> None:
    """Who, which organization, which features."""
    link = serve().post(LINKS, json={"features": ["sso"]}, headers=key("backend")).json()

    (line,) = [entry for entry in log if entry["event"] == "portal_link_made"]
    assert (line["caller"], line["organization_id"], line["features"]) == ("backend", "org_1", ["sso"])
    assert link["id"] not in str(log)


def test_every_answer_is_declared(serve: Serve) -> None:
    """What a client generator learns from the OpenAPI document."""
    declared = serve().get("/openapi.json").json()["paths"]["/v1/organizations/{organization_id}/portal-links"]["post"]["responses"]

    assert set(declared) >= {"201", "400", "401", "403", "404", "413", "422", "502", "503", "504"}
    assert all("application/problem+json" in answer["content"] for status, answer in declared.items() if status != "201")
