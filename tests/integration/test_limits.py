"""What anybody may ask of one process: for its hosts, a body in time, and so much at once."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from databases import Databases
from factories import delivery_rows, event
from faults import opened
from live import listening
from provisioning.api import limits
from provisioning.api.edge import Edge
from provisioning.api.limits import Limits
from provisioning.api.problems import MEDIA_TYPE
from provisioning.app import create_app
from service import OPERATE_KEY, READ_KEY, bearer, running, settings, signed

HOSTS = "provisioning.example.com,*.internal.example,[::1]"


@pytest.fixture(scope="module")
def named(sqlite_databases: Databases) -> Iterator[TestClient]:
    """The service under its own names alone; no request here gets as far as the database."""
    with sqlite_databases.fresh(migrated=True) as url, running(url, allowed_hosts=HOSTS) as client:
        yield client


def status(client: TestClient, *hosts: str, path: str = "/docs") -> int:
    """What a request with these `Host` headers is answered."""
    request = client.build_request("GET", path)
    del request.headers["host"]
    request.headers = type(request.headers)([*request.headers.raw, *((b"host", host.encode()) for host in hosts)])
    return client.send(request).status_code


@pytest.mark.parametrize(
    "host",
    [
        "provisioning.example.com",
        "PROVISIONING.Example.COM",
        "provisioning.example.com:8443",
        "provisioning.example.com:",
        "a.internal.example",
        "a.b.internal.example:80",
        "[::1]",
        "[::1]:8000",
    ],
)
def test_its_own_names_are_answered(named: TestClient, host: str) -> None:
    """Whatever the case and the port."""
    assert status(named, host) == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["example.com"],
        ["internal.example"],
        [".internal.example"],
        ["evilinternal.example"],
        ["provisioning.example.com.evil.example"],
        ["provisioning.example.com:80@evil.example"],
        ["evil.example/.internal.example"],
        ["evil.example#.internal.example"],
        ["user@a.internal.example"],
        ["[::2]"],
        ["::1"],
        ["[::1"],
        ["provisioning.example.com", "evil.example"],
        ["provisioning.example.com", "provisioning.example.com"],
    ],
)
def test_any_other_name_is_refused(named: TestClient, hosts: list[str]) -> None:
    """None, another, one that only ends or begins alike, and two; but a health check may ask by whatever address it has."""
    assert status(named, *hosts) == 400
    assert status(named, *hosts, path="/health/live") == 200


def test_over_a_real_connection_the_same_is_true(sqlite_databases: Databases) -> None:
    """An absolute-form target is judged by the `Host` beside it: nothing is made of either. Whether it is TLS, a proxy here says."""
    with sqlite_databases.fresh(migrated=True) as database, listening(create_app(settings(database, allowed_hosts=HOSTS))) as url:
        address = urlsplit(url).hostname, urlsplit(url).port

        def answer(target: str, host: str, more: str = "") -> bytes:
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(f"GET {target} HTTP/1.1\r\n{host}{more}Connection: close\r\n\r\n".encode())
                with connection.makefile("rb") as answered:
                    return answered.read()

        ours, evil = "Host: provisioning.example.com:443\r\n", "Host: evil.example\r\n"
        expected = {("/docs", ours): 200, ("/docs", ""): 400, ("/docs", evil): 400, ("http://evil.example", ours): 400}
        expected |= {("http://evil.example/docs", ours): 200, ("http://provisioning.example.com/docs", evil): 400}
        assert {asked: int(answer(*asked).split()[1]) for asked in expected} == expected
        assert b"strict-transport-security: max-age=31536000" in answer("/docs", ours, "X-Forwarded-Proto: https\r\n")


class Requests:
    """Requests to what stands behind the limits: it reads the body, if asked for one, and answers once it is let go."""

    def __init__(self, most: int) -> None:
        self.let_go = asyncio.Event()
        self._app = Edge(Limits(self._answer, max_body_bytes=1000, max_requests=most, allowed_hosts=()))

    async def get(self, path: str = "/v1/organizations") -> tuple[int, dict[str, str]]:
        """The answer's status and headers."""
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
        await self._app(scope, receive, send)
        return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith("/health/"):
            await self.let_go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_what_is_too_much_at_once_is_told_when_to_come_again() -> None:
    """503 as a problem, with Retry-After and every other header; health checks are answered all the while; and then there is room again."""

    async def crowd() -> None:
        requests = Requests(most=3)
        under_way = [asyncio.create_task(requests.get()) for _ in range(3)]
        await asyncio.sleep(0)
        status, headers = await requests.get()
        assert (status, headers["retry-after"], headers["content-type"], headers["connection"]) == (503, "1", MEDIA_TYPE, "close")
        assert headers["x-content-type-options"] == "nosniff"
        assert [(await requests.get(f"/health/{name}"))[0] for name in ("live", "ready")] == [200, 200]
        requests.let_go.set()
        assert [status for status, _ in await asyncio.gather(*under_way)] == [200] * 3
        assert (await requests.get())[0] == 200

    asyncio.run(crowd())


def test_as_many_deliveries_may_wait_as_are_meant_to(sqlite_databases: Databases) -> None:
    """The limit of all requests leaves room for them, and for others beside."""
    with sqlite_databases.fresh(migrated=True) as url, running(url, max_waiting_deliveries=7) as client:
        client.get("/health/live")
        layer = client.app.middleware_stack  # type: ignore[attr-defined]
        while not isinstance(layer, Limits):
            layer = layer._app if hasattr(layer, "_app") else layer.app
        assert layer._max_requests == 7 + limits.OTHER_REQUESTS


@contextmanager
def held(url: str) -> Iterator[None]:
    """While this lasts, no delivery gets into the database."""
    with opened(url) as database, database.writing() as session:
        session.execute(text("LOCK TABLE deliveries IN EXCLUSIVE MODE" if database.dialect == "postgresql" else "SELECT 1"))
        yield


def test_when_too_much_comes_nothing_is_lost_and_readers_are_answered(database_url: str) -> None:
    """503 with Retry-After at once to those for whom there is no room: sent again, every one is received, and once."""
    people = {f"msg_{number}": event("user_created", f"u{number}") for number in range(30)}
    most = 5

    async def crowd(client: httpx.AsyncClient) -> None:
        async def send(webhook_id: str) -> httpx.Response:
            body = people[webhook_id]
            return await client.post("/webhooks/scalekit", content=body, headers=signed(body, webhook_id))

        async def send_until_received(webhook_id: str) -> None:
            while (await send(webhook_id)).status_code != 201:
                pass

        with held(database_url):
            sent = [asyncio.create_task(send(webhook_id)) for webhook_id in people]
            turned_away = [await next_one for next_one in islice(asyncio.as_completed(sent), len(people) - 2 * most)]
            assert {(answer.status_code, answer.headers["retry-after"]) for answer in turned_away} == {(503, "1")}
            assert (await client.get("/v1/organizations/org_1/users", headers=bearer(READ_KEY))).status_code == 200
        await asyncio.gather(*sent)
        await asyncio.gather(*map(send_until_received, people))

    async def main(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=None), timeout=30) as client:
            await crowd(client)

    with listening(create_app(settings(database_url, max_waiting_deliveries=most))) as url:
        asyncio.run(main(url))
    with opened(database_url) as database:
        assert {id_: (row["outcome"], row["attempts"]) for id_, row in delivery_rows(database).items()} == dict.fromkeys(
            people, ("processed", 1)
        )


class Slow:
    """A body of two parts, of which the second comes when it is let go."""

    def __init__(self, body: bytes) -> None:
        self.arrived, self.let_go = asyncio.Event(), asyncio.Event()  # the first part is counted; the second may come
        self._parts = [body]

    async def receive(self) -> Message:
        if self._parts:
            return {"type": "http.request", "body": self._parts.pop(), "more_body": True}
        self.arrived.set()
        await self.let_go.wait()
        return {"type": "http.request", "body": b"", "more_body": False}


def test_bodies_that_take_too_much_memory_together_are_turned_away(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, on every route; what has no body is answered; and once one has gone there is room again."""
    monkeypatch.setattr(limits, "ALL_BODIES_BYTES", 1000)
    body = event("user_created", "u1", notes="x" * 400)

    async def crowd(app: ASGIApp) -> list[tuple[int, bytes | None]]:
        async def ask(method: str, path: str, headers: dict[str, str], slow: Slow) -> tuple[int, bytes | None]:
            sent: list[Message] = []

            async def send(message: Message) -> None:
                sent.append(message)

            scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await app({**scope, "root_path": "", "headers": raw}, slow.receive, send)
            return sent[0]["status"], dict(sent[0]["headers"]).get(b"retry-after")

        first, second, third = Slow(body), Slow(body), Slow(body)
        second.let_go.set()
        third.let_go.set()
        held = asyncio.create_task(ask("POST", "/webhooks/scalekit", signed(body), first))
        await first.arrived.wait()
        answers = [await ask("POST", "/webhooks/scalekit", signed(body), second)]
        answers.append(await ask("PUT", "/v1/organizations/org_1/users/usr_1/roles", bearer(OPERATE_KEY), Slow(body)))
        answers.append(await ask("GET", "/v1/organizations/org_1/users", bearer(READ_KEY), Slow(b"")))
        first.let_go.set()
        return [*answers, await held, await ask("POST", "/webhooks/scalekit", signed(body), third)]

    with running(database_url) as client:
        assert client.portal is not None
        assert client.portal.call(crowd, client.app) == [*[(503, b"1")] * 2, (200, None), (201, None), (201, None)]


SLOW = [("PUT", "/v1/organizations/org_1/users/usr_1/roles"), ("POST", "/v1/organizations/org_1/reconciliations")]


@pytest.mark.parametrize(("method", "path"), SLOW)
def test_a_body_that_trickles_is_given_up(database_url: str, monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    """On every route: 408 once its time is over, however many bytes came meanwhile."""
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)
    sent: list[Message] = []

    async def trickle() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", bearer(OPERATE_KEY)["Authorization"].encode()), (b"content-type", b"application/json")],
    }
    with running(database_url) as client:
        assert client.portal is not None
        client.portal.call(client.app, scope, trickle, send)
    assert sent[0]["status"] == 408
    assert {(b"content-type", MEDIA_TYPE.encode()), (b"connection", b"close")} <= set(sent[0]["headers"])
