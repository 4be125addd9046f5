"""The service starts whatever its database does, and says whether it can work."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from databases import Databases
from provisioning.api import readiness
from provisioning.api.problems import MEDIA_TYPE
from provisioning.db.session import Database
from service import running, signed


@pytest.fixture
def silence() -> Iterator[str]:
    """The URL of a PostgreSQL that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://nobody@127.0.0.1:{listener.getsockname()[1]}/nothing"


@pytest.fixture
def nothing() -> str:
    """The URL of a PostgreSQL that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"postgresql://nobody@127.0.0.1:{listener.getsockname()[1]}/nothing"


def not_ready(client: TestClient) -> str:
    """Why not, said within 5 s."""
    began = time.monotonic()
    answer = client.get("/health/ready")
    assert time.monotonic() - began < 5
    assert (answer.status_code, answer.headers["content-type"]) == (503, MEDIA_TYPE)
    return str(answer.json()["detail"])


def test_a_migrated_database_is_ready(database_url: str) -> None:
    """Alive and ready; no line in the log, since it is asked every few seconds."""
    with running(database_url) as client, capture_logs() as logs:
        for path in ("/health/live", "/health/ready"):
            for method in ("GET", "HEAD"):
                assert client.request(method, path).status_code == 200
        assert client.get("/health/ready").json() == {"status": "ok"}
    assert logs == []


def test_a_database_without_tables_is_not_ready(empty_database_url: str) -> None:
    """It says what to do; alive it is all the same."""
    with running(empty_database_url) as client:
        assert "provisioning migrate" in not_ready(client)
        assert client.get("/health/live").status_code == 200


def test_a_database_that_is_away_is_not_ready(nothing: str) -> None:
    """Everything that needs it answers 503, whatever does not goes on."""
    with running(nothing) as client:
        assert not_ready(client) == "The database is not available."
        assert client.get("/health/live").status_code == 200
        assert client.post("/webhooks/scalekit", content=b"{}", headers=signed(b"{}")).status_code == 503
        assert client.post("/webhooks/scalekit").status_code == 400
        assert client.get("/docs").status_code == 200


def test_a_database_that_is_silent_is_not_ready(silence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for longer than said, however often it is asked, nor however much longer the driver would wait."""
    with running(silence) as client:
        not_ready(client)
        monkeypatch.setattr(readiness, "READY_SECONDS", 0.2)
        monkeypatch.setattr(readiness, "FRESH_SECONDS", 0)
        began = time.monotonic()
        assert {not_ready(client) for _ in range(3)} == {"The database did not answer in time."}
        assert time.monotonic() - began < 2


def test_only_hosts_that_are_allowed_are_answered(sqlite_databases: Databases) -> None:
    """Others hear 400; a load balancer asks for health by address."""
    with sqlite_databases.fresh(migrated=True) as url, running(url, allowed_hosts="api.example.com,*.example.org") as client:
        for host in ("api.example.com", "API.example.com:8000", "a.b.example.org"):
            assert client.get("/docs", headers={"host": host}).status_code == 200, host
        for host in ("example.com", "example.org", "evil.com", "api.example.com.evil.com", "evilexample.org", "", "[::1]:80", "\xff"):
            refused = client.get("/docs", headers=[(b"host", host.encode("latin-1"))])
            assert (refused.status_code, refused.headers["content-type"]) == (400, MEDIA_TYPE), host
            assert client.get("/health/live", headers=[(b"host", host.encode("latin-1"))]).status_code == 200


def test_a_crowd_that_asks_costs_one_look(database_url: str) -> None:
    """Anybody may ask: however many do at once, one thread and one connection look at the database, and for a second nobody does."""
    looks = 0

    class Counted(Database):
        @contextmanager
        def reading(self) -> Iterator[Session]:
            nonlocal looks
            looks += 1
            with super().reading() as session:
                yield session

    async def crowd(ready: readiness.Readiness) -> list[str | None]:
        return [*await asyncio.gather(*(ready.wrong() for _ in range(100))), await ready.wrong()]

    with closing(Counted(database_url)) as database:
        assert asyncio.run(crowd(readiness.Readiness(database))) == [None] * 101
    assert looks == 1
