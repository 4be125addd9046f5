"""The door: what is let in, what is refused and when, and that each delivery is told in one line."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message
from structlog.testing import capture_logs

from databases import Databases
from factories import event
from provisioning.api import limits
from provisioning.api.dependencies import Services
from provisioning.api.problems import MEDIA_TYPE
from provisioning.api.webhooks import Straight
from provisioning.errors import Unavailable
from provisioning.events import Delivery
from provisioning.inbox import Outcome, Receipt
from provisioning.intake import Intake
from provisioning.scalekit.signature import TOLERANCE
from service import WEBHOOK_SECRET, bearer, running, signed

PATH = "/webhooks/scalekit"
BODY = event("user_created", "diruser_1", email="ada@example.com")
LIMIT = 5_000


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """The service on each database."""
    with running(database_url, max_body_bytes=LIMIT) as client:
        yield client


@pytest.fixture(scope="module")
def door(sqlite_databases: Databases) -> Iterator[TestClient]:
    """The service, for requests that do not get as far as the database."""
    with sqlite_databases.fresh(migrated=True) as url, running(url, max_body_bytes=LIMIT) as client:
        yield client


def kept(client: TestClient) -> list[dict[str, Any]]:
    """What is in the inbox."""
    found: list[dict[str, Any]] = client.get("/v1/deliveries", headers=bearer()).json()["data"]
    return found


def test_a_signed_event_is_answered_when_it_is_stored(client: TestClient) -> None:
    """201 with the outcome and the event's id; the user can be read; the same delivery again is a duplicate."""
    answer = client.post(PATH, content=BODY, headers=signed(BODY))
    stored = kept(client)[0]
    assert (answer.status_code, answer.json()) == (201, {"status": "processed", "event_id": stored["event_id"]})
    users = client.get("/v1/organizations/org_1/users", headers=bearer()).json()["data"]
    assert [user["email"] for user in users] == ["ada@example.com"]
    again = client.post(PATH, content=BODY, headers=signed(BODY))
    assert (again.status_code, again.json()["status"]) == (201, "duplicate")


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'{"type": 1}', b'{"a": "\\ud800"}', b"[" * 4000])
def test_a_signed_body_that_is_no_event_is_kept(client: TestClient, body: bytes) -> None:
    """201 dead_lettered, without an event id: sending it again would not make it better."""
    answer = client.post(PATH, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (201, {"status": "dead_lettered", "event_id": None})
    assert [delivery["outcome"] for delivery in kept(client)] == ["dead_lettered"]


def refused(headers: dict[str, str | None]) -> dict[str, str]:
    """Good headers but for these; None leaves one out."""
    return {name: value for name, value in {**signed(BODY), **headers}.items() if value is not None}


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-id": None},
        {"webhook-timestamp": None},
        {"webhook-signature": None},
        {"webhook-id": ""},
        {"webhook-id": "msg_2"},
        {"webhook-id": "x" * 300},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": str(int(time.time()) - TOLERANCE - 60)},
        {"webhook-timestamp": str(int(time.time()) + TOLERANCE + 60)},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v2,AAAA"},
        {"webhook-signature": f"v1,{'A' * 43}="},
        {"webhook-signature": ","},
        {"webhook-signature": "v1,%%%"},
    ],
)
def test_whatever_is_not_provably_scalekits_is_refused(door: TestClient, headers: dict[str, str | None]) -> None:
    """400, a problem, and nothing stored."""
    answer = door.post(PATH, content=BODY, headers=refused(headers))
    assert (answer.status_code, answer.headers["content-type"]) == (400, MEDIA_TYPE)
    assert kept(door) == []


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_there_twice_is_refused(door: TestClient, name: str) -> None:
    """Though both are good: which one was signed is not ours to guess."""
    headers = signed(BODY)
    assert door.post(PATH, content=BODY, headers=[*headers.items(), (name, headers[name])]).status_code == 400


def test_a_body_that_is_not_utf_8_is_refused(door: TestClient) -> None:
    """Its signature cannot be that of any text."""
    assert door.post(PATH, content=b"\xff\xfe", headers=signed(BODY)).status_code == 400


@given(
    headers=st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "content-length", "content-type", "content-encoding"]),
        st.binary(max_size=30) | st.sampled_from([b"-1", b"0", b"1e9", b"9" * 30, b"\xb2", b"+5", b"gzip"]),
    ),
    body=st.binary(max_size=30),
)
def test_no_unsigned_request_is_let_in(door: TestClient, headers: dict[str, bytes], body: bytes) -> None:
    """Whatever its headers and its body are: 400, or 413 where they claim too much."""
    answer = door.post(PATH, content=body, headers=[(name.encode(), value) for name, value in headers.items()])
    assert answer.status_code in {400, 413}
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_another_method_is_told_the_right_one(door: TestClient) -> None:
    """405 with Allow, as a problem."""
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"):
        answer = door.request(method, PATH)
        assert (answer.status_code, answer.headers["allow"], answer.headers["content-type"]) == (405, "POST", MEDIA_TYPE)


# How the body is read --------------------------------------------------------------------------------------------------------------------


@dataclass
class Exchange:
    """One request as a server hands it to the application, part by part."""

    headers: dict[str, str]
    parts: Sequence[Message]
    asked: int = 0
    sent: list[Message] = field(default_factory=list)

    async def receive(self) -> Message:
        """The next part; after the last one nothing ever comes."""
        self.asked += 1
        if self.asked > len(self.parts):
            await asyncio.Event().wait()
        return self.parts[self.asked - 1]

    async def send(self, message: Message) -> None:
        """Take the answer."""
        self.sent.append(message)

    def run(self, app: FastAPI) -> int:
        """Return the status of the answer."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": PATH,
            "raw_path": PATH.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in self.headers.items()],
        }
        asyncio.run(app(scope, self.receive, self.send))
        return int(self.sent[0]["status"])

    @property
    def problem(self) -> bool:
        """Whether the answer is a problem."""
        return (b"content-type", MEDIA_TYPE.encode()) in self.sent[0]["headers"]


def part(body: bytes, *, more: bool) -> Message:
    """A part of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


def application(client: TestClient) -> FastAPI:
    """What the client talks to."""
    assert isinstance(client.app, FastAPI)
    return client.app


def test_bad_headers_are_refused_before_the_body_is_read(door: TestClient) -> None:
    """Also when the body would be far too large."""
    for headers in (refused({"webhook-timestamp": "1"}), {"content-length": "9" * 12}, refused({"webhook-id": None})):
        exchange = Exchange(headers, [part(BODY, more=False)])
        assert (exchange.run(application(door)), exchange.asked) == (400, 0)


def test_a_body_that_claims_to_be_too_large_is_refused_unread(door: TestClient) -> None:
    """413 as a problem."""
    exchange = Exchange({**signed(BODY), "content-length": str(LIMIT + 1)}, [part(b"x" * (LIMIT + 1), more=False)])
    assert (exchange.run(application(door)), exchange.asked, exchange.problem) == (413, 0, True)


def test_a_body_that_grows_too_large_is_read_no_further(door: TestClient) -> None:
    """However it is sent: without a length, or with one that lies."""
    for claimed in ({}, {"content-length": "10"}, {"content-length": "many"}, {"transfer-encoding": "chunked"}):
        exchange = Exchange({**signed(BODY), **claimed}, [part(b"x" * LIMIT, more=True), part(b"x", more=True), part(b"x", more=False)])
        assert (exchange.run(application(door)), exchange.asked, exchange.problem) == (413, 2, True)


def test_a_body_as_large_as_the_limit_is_accepted(client: TestClient) -> None:
    """To the byte, in one piece or in many."""
    for number, pieces in enumerate((1, 100)):
        body = event("user_created", "diruser_1", title="x" * LIMIT)
        body = body.replace(b"x" * (len(body) - LIMIT), b"", 1)
        assert len(body) == LIMIT
        size = LIMIT // pieces
        parts = [part(body[start : start + size], more=start + size < LIMIT) for start in range(0, LIMIT, size)]
        assert Exchange(signed(body, f"msg_{number}"), parts).run(application(client)) == 201


def test_a_client_that_hangs_up_is_no_failure_of_ours(door: TestClient) -> None:
    """No error in the log, no delivery."""
    with capture_logs() as logs:
        exchange = Exchange(signed(BODY), [part(BODY[:20], more=True), {"type": "http.disconnect"}])
        assert exchange.run(application(door)) == 400
    assert [line for line in logs if line["log_level"] == "error"] == []
    assert kept(door) == []


def test_a_body_that_does_not_come_is_waited_for_a_while(door: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """408, and the connection is closed: what is left of the body could come as the next request."""
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)
    exchange = Exchange(signed(BODY), [part(BODY[:20], more=True)])
    assert (exchange.run(application(door)), exchange.problem) == (408, True)
    assert (b"connection", b"close") in exchange.sent[0]["headers"]


# What becomes of it ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def receiving(client: TestClient, receive: Callable[[Sequence[Delivery]], list[Receipt]]) -> Iterator[None]:
    """While this lasts, deliveries are committed by `receive`."""
    state = application(client).state
    services: Services = state.services
    intake = Intake(receive, max_waiting=10)
    intake.start()
    state.services = replace(services, intake=intake)
    try:
        yield
    finally:
        state.services = services
        intake.stop()


def failed(deliveries: Sequence[Delivery]) -> list[Receipt]:
    """Handling every one of them fails."""
    return [Receipt(each.webhook_id, Outcome.FAILED, "evt_1", error="ValueError at handlers.py:1") for each in deliveries]


def away(_: Sequence[Delivery]) -> list[Receipt]:
    """The database is away."""
    raise Unavailable(retry_after=7)


def broken(_: Sequence[Delivery]) -> list[Receipt]:
    """Something that nobody thought of, which quotes what it should not."""
    raise ValueError("ada@example.com")


def test_an_event_whose_handling_failed_is_asked_for_again(door: TestClient) -> None:
    """500, so that it is sent again; the stored error is not in the answer."""
    with receiving(door, failed), capture_logs() as logs:
        answer = door.post(PATH, content=BODY, headers=signed(BODY))
    assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA_TYPE)
    assert "handlers.py" not in answer.text
    assert [line["outcome"] for line in logs if line["event"] == "delivery"] == ["failed"]


def test_a_database_that_is_away_is_said_so(door: TestClient) -> None:
    """503 with Retry-After, and a line that names the delivery."""
    with receiving(door, away), capture_logs() as logs:
        answer = door.post(PATH, content=BODY, headers=signed(BODY))
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["content-type"]) == (503, "7", MEDIA_TYPE)
    assert [(line["webhook_id"], line["outcome"]) for line in logs if line["event"] == "delivery"] == [("msg_1", "unavailable")]


def test_what_nobody_expected_tells_nothing(door: TestClient) -> None:
    """500 with a request id that the log knows; what the exception says is in neither."""
    with receiving(door, broken), capture_logs() as logs:
        answer = door.post(PATH, content=BODY, headers=signed(BODY))
    assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA_TYPE)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "ada@example.com" not in answer.text + repr(logs)
    assert "request_failed" in [line["event"] for line in logs]


def test_each_delivery_is_told_in_one_line(client: TestClient) -> None:
    """Ids, outcome, size and duration; nothing of what is in it, and no access line beside it."""
    with capture_logs() as logs:
        event_id = client.post(PATH, content=BODY, headers=signed(BODY)).json()["event_id"]
    line = logs[-1]
    assert [each["event"] for each in logs] == ["delivery"]
    assert line.pop("duration_ms") > 0
    assert line == {
        "event": "delivery",
        "log_level": "info",
        "webhook_id": "msg_1",
        "event_id": event_id,
        "type": "organization.directory.user_created",
        "organization_id": "org_1",
        "outcome": "processed",
        "size": len(BODY),
    }


def test_a_flood_of_forgeries_fills_no_log(door: TestClient) -> None:
    """All are counted by reason, few are written."""
    refusals = application(door).state.services.refusals
    before = refusals.counts()
    began = time.monotonic()
    with capture_logs() as logs:
        for _ in range(100):
            door.post(PATH, content=BODY, headers=refused({"webhook-id": "msg_2"}))
        door.post(PATH, content=b"x" * (LIMIT + 1), headers=signed(BODY))
    counted = {reason: count - before.get(reason, 0) for reason, count in refusals.counts().items()}
    assert (counted["signature"], counted["too_large"]) == (100, 1)
    assert len(logs) < 6 * (time.monotonic() - began + 2)


def test_a_secret_is_rotated_without_a_gap(sqlite_databases: Databases) -> None:
    """While there are two, either may sign."""
    other = WEBHOOK_SECRET[:-4] + "AAA="
    with sqlite_databases.fresh(migrated=True) as url, running(url, scalekit_webhook_secrets=f"{other},{WEBHOOK_SECRET}") as client:
        for number, secret in enumerate((other, WEBHOOK_SECRET)):
            assert client.post(PATH, content=BODY, headers=signed(BODY, f"msg_{number}", secret=secret)).status_code == 201


def test_webhooks_are_answered_the_same_on_the_long_way(sqlite_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which they go where traces are asked for: past nothing of FastAPI."""

    def answers(url: str) -> Iterator[tuple[int, list[tuple[str, str]], dict[str, Any]]]:
        with running(url, max_body_bytes=LIMIT) as client:
            asked = [
                client.post(PATH, content=BODY, headers=signed(BODY)),
                client.post(PATH, content=BODY, headers=signed(BODY)),
                client.post(PATH, content=BODY),
                client.post(PATH, content=BODY + b" ", headers=signed(BODY)),
                client.post(PATH, content=b"{", headers=signed(b"{", "msg_2")),
                client.post(PATH, content=b"x" * (LIMIT + 1), headers=signed(b"x", "msg_3")),
                client.post(PATH, content=iter([b"x" * LIMIT] * 2), headers=signed(b"x", "msg_4")),
                *(client.request(method, PATH) for method in ("GET", "HEAD", "OPTIONS", "PUT")),
                client.post(f"{PATH}/", content=BODY, headers=signed(BODY)),
            ]
        for each in asked:
            shown = each.json() if each.content else {}
            yield (
                each.status_code,
                sorted((*pair,) for pair in each.headers.items() if pair[0] != "x-request-id"),
                {name: value for name, value in shown.items() if name != "request_id"},
            )

    with sqlite_databases.fresh(migrated=True) as one, sqlite_databases.fresh(migrated=True) as other:
        straight = list(answers(one))
        monkeypatch.setattr(Straight, "path", "")
        assert straight == list(answers(other))
    assert [status for status, _, _ in straight] == [201, 201, 400, 400, 201, 413, 413, 405, 405, 405, 405, 404]
