"""The inbox over HTTP: what arrived, newest first; a payload only to operators; a replay handles it once more."""

import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from factories import event
from provisioning.db.models import deliveries, users
from provisioning.db.session import Database
from rows import NOW, put
from service import OPERATE_KEY, bearer, running, signed

KEPT = {"received_at": NOW, "outcome": "processed", "attempts": 1}


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """An operator."""
    with running(database_url) as client:
        client.headers.update(bearer(OPERATE_KEY))
        yield client


def test_a_delivery_shows_what_the_contract_says(client: TestClient, database: Database) -> None:
    """Times as they were said, to the nanosecond; the payload only in the one that is asked for by its id."""
    row = {
        "webhook_id": "msg_1",
        "event_id": "evt_1",
        "type": "organization.directory.user_created",
        "organization_id": "org_1",
        "outcome": "failed",
        "attempts": 2,
        "error": "ValueError at handlers.py:1",
    }
    put(database, deliveries, {**row, "occurred_at": 1_750_000_000_123_456_780, "received_at": NOW, "payload": b'{"a": [1, "\xc3\xa9"]}'})
    shown = {**row, "occurred_at": "2025-06-15T15:06:40.12345678Z", "received_at": "2026-11-22T09:30:00Z"}
    shown |= dict.fromkeys(("processed_at", "retry_at", "dismissed"))
    assert client.get("/v1/deliveries").json() == {"data": [shown], "next_cursor": None}
    assert client.get("/v1/deliveries/msg_1").json() == {**shown, "changes": [], "payload": {"a": [1, "é"]}, "payload_encoding": "json"}
    assert client.get("/v1/deliveries/msg_1", headers=bearer()).json() == {**shown, "changes": []}


@pytest.mark.parametrize("nanoseconds", [0, 1, -1, 10**9, 1_750_000_000_500_000_000, 2**63 - 1, -(2**63) + 1])
def test_every_instant_that_can_be_stored_can_be_shown(client: TestClient, database: Database, nanoseconds: int) -> None:
    """RFC 3339 with as many digits as it needs."""
    put(database, deliveries, {**KEPT, "webhook_id": "msg_1", "occurred_at": nanoseconds})
    shown = client.get("/v1/deliveries/msg_1").json()["occurred_at"]
    assert shown.endswith("Z")
    assert not shown.endswith(("0Z", ".Z")) or "." not in shown


@given(
    body=st.binary(max_size=40)
    | st.sampled_from([b'{"a": NaN}', b"1e999", b'"\\ud800"', b"[" * 99999, b"[" * 300 + b"]" * 300, b"9" * 5000])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_payload_is_shown_whatever_it_is(client: TestClient, database: Database, body: bytes) -> None:
    """As JSON when it is, else to the byte."""
    with database.writing() as session:
        session.execute(delete(deliveries))
    put(database, deliveries, {**KEPT, "webhook_id": "msg_1", "payload": body})
    shown = client.get("/v1/deliveries/msg_1").raise_for_status().json()
    if shown["payload_encoding"] == "json":
        assert shown["payload"] == json.loads(body)
    else:
        assert shown["payload"] == b64encode(body).decode()


def test_a_payload_that_is_no_longer_kept_is_null(client: TestClient, database: Database) -> None:
    """And so is its encoding."""
    put(database, deliveries, {**KEPT, "webhook_id": "msg_1"})
    shown = client.get("/v1/deliveries/msg_1").json()
    assert (shown["payload"], shown["payload_encoding"]) == (None, None)


@given(ages=st.lists(st.integers(0, 3), max_size=9), limit=st.integers(1, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_pages_go_from_the_newest_to_the_oldest(client: TestClient, database: Database, ages: list[int], limit: int) -> None:
    """Each once, also where many came at one instant, and though newer ones arrive meanwhile."""
    with database.writing() as session:
        session.execute(delete(deliveries))
    rows = [{**KEPT, "webhook_id": f"msg_{n}", "received_at": NOW - timedelta(microseconds=age)} for n, age in enumerate(ages)]
    put(database, deliveries, *rows)
    found: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = client.get("/v1/deliveries", params={"limit": limit, **after}).raise_for_status().json()
        found += [delivery["webhook_id"] for delivery in page["data"]]
        if page["next_cursor"] is None:
            break
        put(database, deliveries, {**KEPT, "webhook_id": f"newer_{len(found)}", "received_at": NOW + timedelta(seconds=len(found))})
        after = {"cursor": page["next_cursor"]}
    newest_first = sorted(rows, key=lambda row: (row["received_at"], row["webhook_id"]), reverse=True)
    assert found == [row["webhook_id"] for row in newest_first]


def test_a_replay_handles_the_delivery_once_more(client: TestClient, database: Database) -> None:
    """A dead letter that can be read now is applied; the answer is the delivery after it, without the payload."""
    body = event("user_created", "diruser_1", email="ada@example.com")
    client.post("/webhooks/scalekit", content=body, headers=signed(body))
    with database.writing() as session:
        session.execute(update(deliveries).values(outcome="dead_lettered", payload=b"{", error="The body is not JSON."))
        session.execute(update(users).values(name="as it was"))
    still = client.post("/v1/deliveries/msg_1/replay").json()
    assert (still["outcome"], still["attempts"], "payload" in still) == ("dead_lettered", 2, False)
    with database.writing() as session:
        session.execute(update(deliveries).values(payload=body))
    answer = client.post("/v1/deliveries/msg_1/replay")
    assert answer.status_code == 200
    assert (answer.json()["attempts"], answer.json()["error"]) == (3, None)
    assert answer.json() == client.get("/v1/deliveries", headers=bearer()).json()["data"][0]


def test_what_was_not_kept_cannot_be_replayed(client: TestClient, database: Database) -> None:
    """409 for an event that was ignored, 404 for one that never came."""
    put(database, deliveries, {**KEPT, "webhook_id": "msg_1", "outcome": "ignored"})
    assert client.post("/v1/deliveries/msg_1/replay").status_code == 409
    assert client.post("/v1/deliveries/msg_2/replay").status_code == 404
