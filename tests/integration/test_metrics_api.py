"""What Prometheus is told: by the counters of the process and by the database, to whom, and at what cost."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update
from sqlalchemy.orm import Session

from databases import Databases
from factories import ORGANIZATION, START, event
from operators import until
from provisioning.api import scrapes
from provisioning.api.scrapes import Scrapes
from provisioning.db.models import (
    changes,
    deliveries,
    directories,
    hook_dead_letters,
    hook_lanes,
    hooks,
    organizations,
    reconcile_runs,
    users,
)
from provisioning.db.reading import figures
from provisioning.db.reading.figures import Figures
from provisioning.db.session import Database
from provisioning.metrics import Metrics
from rows import put
from service import READ_KEY, bearer, running, signed

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def scraped(client: TestClient, key: str = READ_KEY) -> dict[str, float]:
    """What /metrics says, by series."""
    answer = client.get("/metrics", headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return series(answer.text)


def series(text: str) -> dict[str, float]:
    """Every series of Prometheus' text format, with its labels in order."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {"".join([each.name, *(f" {name}={value}" for name, value in sorted(each.labels.items()))]): each.value for each in samples}


def post(client: TestClient, body: bytes, webhook_id: str) -> int:
    return client.post("/webhooks/scalekit", content=body, headers=signed(body, webhook_id)).status_code


def test_what_came_is_counted_by_what_became_of_it(database_url: str) -> None:
    """Deliveries by type and outcome, refusals by reason; a type that somebody made up is `other`, and no label says whose it is."""
    hired = event("user_created", "du_1", email="jane@example.com")
    with running(database_url) as client:
        before = scraped(client)
        for webhook_id, body in (("msg_1", hired), ("msg_1", hired), ("msg_2", event("canary", "du_1")), ("msg_3", b"canary")):
            assert post(client, body, webhook_id) == 201
        assert client.post("/webhooks/scalekit", content=hired).status_code == 400
        answer = client.get("/metrics", headers=bearer())
    changed = {name: value - before[name] for name, value in series(answer.text).items() if name in before and value != before[name]}
    created = "organization.directory.user_created"
    assert {name: value for name, value in changed.items() if "_total" in name} == {
        f"provisioning_deliveries_total outcome=processed type={created}": 1,
        f"provisioning_deliveries_total outcome=duplicate type={created}": 1,
        "provisioning_deliveries_total outcome=ignored type=other": 1,
        "provisioning_deliveries_total outcome=dead_lettered type=other": 1,
        "provisioning_refusals_total reason=missing": 1,
    }
    assert (changed["provisioning_webhook_duration_seconds_count"], changed["provisioning_batch_deliveries_sum"]) == (4, 4)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for personal in ("canary", "jane", "du_1", ORGANIZATION):
        assert personal not in answer.text


def test_the_lag_is_from_the_event_to_its_commit(database_url: str) -> None:
    """Of what was processed, and nothing of what is repeated."""
    old = event("user_created", "du_1", at=datetime.now(UTC).timestamp() - START - 2 * 3600)
    with running(database_url) as client:
        assert [post(client, old, "msg_1") for _ in range(3)] == [201] * 3
        found = scraped(client)
    assert found["provisioning_lag_seconds_count"] == 1
    assert found["provisioning_lag_seconds_sum"] == pytest.approx(2 * 3600, abs=60)
    assert (found["provisioning_lag_seconds_bucket le=3600.0"], found["provisioning_lag_seconds_bucket le=21600.0"]) == (0, 1)


def test_what_the_service_mends_itself_adds_its_lag(database_url: str, database: Database) -> None:
    """As old as it is by then; it came once, and is counted as that."""
    waiting = {"webhook_id": "msg_1", "outcome": "failed", "attempts": 1, "received_at": datetime.now(UTC) - HOUR}
    put(database, deliveries, {**waiting, "payload": event("user_created", "du_1"), "retry_at": datetime.now(UTC) - MINUTE})
    with running(database_url) as client:
        until(lambda: scraped(client)["provisioning_lag_seconds_count"] == 1)
        found = scraped(client)
    assert found["provisioning_lag_seconds_sum"] > HOUR.total_seconds()
    assert sum(value for name, value in found.items() if name.startswith("provisioning_deliveries_total")) == 0


def test_without_a_database_the_counters_are_told() -> None:
    """With 200 and `provisioning_database_up` 0; of what lives in the database nothing is said, and what could not be taken is counted."""
    with running("postgresql://nobody@127.0.0.1:1/nothing") as client:
        assert post(client, event("user_created", "du_1"), "msg_1") == 503
        found = scraped(client)
    assert found["provisioning_database_up"] == 0
    assert found["provisioning_deliveries_total outcome=unavailable type=other"] == 1
    assert "provisioning_failed_deliveries" not in found


def test_a_database_without_tables_is_not_up(empty_database_url: str) -> None:
    """Whoever looks finds out by the same figure."""
    with running(empty_database_url) as client:
        assert scraped(client)["provisioning_database_up"] == 0


def test_who_may_look(sqlite_databases: Databases) -> None:
    """A key that may read, or with PROVISIONING_METRICS_PUBLIC everybody: where there is no key, too."""
    with sqlite_databases.fresh(migrated=True) as url:
        with running(url) as client:
            assert client.get("/metrics").status_code == 401
        with running(url, metrics_public="true", api_keys="") as client:
            assert client.get("/metrics").status_code == 200


def test_a_crowd_of_scrapers_costs_one_look(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at once, and for 15 s after; then the next one looks again."""
    looks = 0

    class Counted(Database):
        @contextmanager
        def reading(self) -> Iterator[Session]:
            nonlocal looks
            looks += 1
            with super().reading() as session:
                yield session

    async def crowd(scrape: Scrapes) -> None:
        assert len(set(await asyncio.gather(*(scrape.text() for _ in range(50))))) == 1
        await scrape.text()
        assert looks == 1
        monkeypatch.setattr(scrapes, "FRESH_SECONDS", -1)
        await scrape.text()

    with closing(Counted(database_url)) as database:
        asyncio.run(crowd(Scrapes(database, Metrics([], [], []), 0.2)))
    assert looks == 2


def read(database: Database, share: float = 0.2) -> dict[str, Any]:
    """The figures at NOW."""
    with database.reading() as session:
        found = figures.read(session, NOW, share=share, floor=5)
    return {name: getattr(found, name) for name in found.__slots__}


def test_of_an_empty_database_there_is_nothing_to_tell(database: Database) -> None:
    """No number is missing, and no time is made up."""
    assert {value for name, value in read(database).items() if "timestamp" in name} == {None}
    assert {value for name, value in read(database).items() if "timestamp" not in name} == {0}


def test_what_waits_for_a_mend_is_counted_until_somebody_mends_or_dismisses_it(database: Database) -> None:
    """With the time of the oldest; whatever else came last is the last that was accepted."""
    rows = [
        ("msg_1", "failed", 3),
        ("msg_2", "dead_lettered", 5),
        ("msg_3", "failed", 2),
        ("msg_4", "processed", 9),
        ("msg_5", "ignored", 1),
    ]
    put(
        database,
        deliveries,
        *({"webhook_id": id_, "outcome": outcome, "received_at": NOW - ago * HOUR, "attempts": 1} for id_, outcome, ago in rows),
    )
    found = read(database)
    assert (found["failed_deliveries"], found["dead_lettered_deliveries"]) == (2, 1)
    assert found["oldest_unmended_timestamp_seconds"] == (NOW - 5 * HOUR).timestamp()
    assert found["last_accepted_timestamp_seconds"] == (NOW - HOUR).timestamp()
    with database.writing() as session:
        session.execute(update(deliveries).where(deliveries.c.outcome == "dead_lettered").values(dismissed_at=NOW))
    found = read(database)
    assert (found["dead_lettered_deliveries"], found["oldest_unmended_timestamp_seconds"]) == (0, (NOW - 3 * HOUR).timestamp())


def run(organization_id: str, number: int, state: str = "done", **more: Any) -> dict[str, Any]:
    """A run's row; later `number`s are newer runs."""
    return {
        "organization_id": organization_id,
        "id": f"run_{number:012x}",
        "state": state,
        "dry_run": False,
        "requested_by": "tests",
        "requested_at": NOW - DAY,
        "due_at": NOW - DAY,
        "listed_users": 0,
        "listed_groups": 0,
        "changes": {},
        "removed": {},
        "drift": [],
        "drifted": 0,
        "held_back": [],
        "saw_active": False,
        "saw_totals": False,
        **more,
    }


def known(database: Database, *ids: str) -> None:
    put(database, organizations, *({"id": id_, "created_at": NOW} for id_ in ids))


def test_drift_is_of_the_last_complete_run(database: Database) -> None:
    """And twice of the last two: a dry run and one that failed say nothing, nor does what is older.

    One that found what it left as it was has not drifted. Without an enabled directory nobody is late.
    """
    known(database, "org_4")
    for organization_id, days in (("org_1", 9), ("org_2", 3), ("org_3", 5)):
        mark = int((NOW - days * DAY).timestamp()) * 10**9
        put(database, organizations, {"id": organization_id, "created_at": NOW, "complete_as_of": mark})
    put(database, directories, {"organization_id": "org_2", "id": "dir_1"}, {"organization_id": "org_3", "id": "dir_2", "enabled": False})
    put(
        database,
        reconcile_runs,
        run("org_1", 1, drifted=4, changes={"users_created": 1}, finished_at=NOW - 9 * DAY),
        run("org_1", 2, "failed", drifted=0, finished_at=NOW - 2 * DAY),
        run("org_1", 3, drifted=3, changes={"users_updated": 2}, finished_at=NOW - 5 * DAY),
        run("org_1", 4, dry_run=True, drifted=0, finished_at=NOW),
        run("org_2", 5, drifted=4, finished_at=NOW - 4 * DAY),
        run("org_2", 6, drifted=2, changes={"users_updated": 1}, finished_at=NOW - 3 * DAY),
        run("org_3", 7, drifted=8, changes={"users_updated": 8}, finished_at=NOW - 2 * DAY),
        run("org_3", 8, drifted=0, finished_at=NOW - DAY),
        run("org_4", 9, drifted=1, finished_at=NOW - 2 * DAY),
        run("org_4", 10, drifted=1, finished_at=NOW - DAY),
    )
    found = read(database)
    assert (found["drifted_organizations"], found["twice_drifted_organizations"], found["drifted_records"]) == (2, 1, 6)
    assert found["oldest_complete_as_of_timestamp_seconds"] == (NOW - 3 * DAY).timestamp()
    assert found["enabled_directories"] == 1


def test_runs_that_wait_for_somebody_are_counted(database: Database) -> None:
    """A proposal until it lapses after a day, and a run whose lease lapsed so long ago that nobody takes it over."""
    known(database, "org_1", "org_2", "org_3", "org_4")
    put(
        database,
        reconcile_runs,
        run("org_1", 1, "needs_approval", finished_at=NOW - 25 * HOUR),
        run("org_2", 2, "needs_approval", finished_at=NOW - HOUR),
        run("org_1", 3, "running", leased_until=NOW + MINUTE),
        run("org_2", 4, "running", leased_until=NOW - MINUTE),
        run("org_3", 5, "running", leased_until=NOW - 3 * MINUTE),
        run("org_4", 6, "queued"),
    )
    found = read(database)
    assert (found["proposals"], found["running_runs"], found["stuck_runs"]) == (1, 3, 1)


@pytest.mark.parametrize(("due", "leased", "stuck"), [(3, None, 1), (1, None, 0), (3, -1, 1), (3, 1, 0)])
def test_a_run_that_nobody_takes_is_stuck(database: Database, due: int, leased: int | None, stuck: int) -> None:
    """Due for so many minutes; where somebody works on another, its turn may yet come."""
    known(database, "org_1", "org_2")
    put(database, reconcile_runs, run("org_1", 1, "queued", due_at=NOW - due * MINUTE))
    if leased is not None:
        put(database, reconcile_runs, run("org_2", 2, "running", leased_until=NOW + leased * MINUTE))
    assert read(database)["stuck_runs"] == stuck


@pytest.mark.parametrize(
    ("lost", "left", "cause", "ago", "shrinks"),
    [(6, 20, "delivery", 9, 1), (6, 24, "delivery", 9, 0), (5, 0, "delivery", 9, 0), (6, 20, "run", 9, 0), (6, 20, "delivery", 11, 0)],
)
def test_an_organization_that_loses_many_by_webhooks_is_counted(
    database: Database, lost: int, left: int, cause: str, ago: int, shrinks: int
) -> None:
    """More than the share of those who were active ten minutes ago, and more than five; somebody who went twice went once."""
    known(database, ORGANIZATION)
    put(database, users, *({"id": f"usr_{n:02}", "active": n >= lost} for n in range(lost + left)))
    gone = [*range(lost), 0]
    rows = [{"position": n + 2, "type": "user.deactivated", "user_id": f"usr_{person:02}"} for n, person in enumerate(gone)]
    put(database, changes, *({**row, "cause": cause, "cause_id": "it", "recorded_at": NOW - ago * MINUTE} for row in rows))
    assert read(database)["shrinking_organizations"] == shrinks


def lane(hook_id: str, subject: str, due: timedelta, **more: Any) -> dict[str, Any]:
    """What a hook has yet to be told of somebody; due so long ago."""
    return {"hook_id": hook_id, "subject_id": subject, "due_at": NOW - due, **more}


def test_what_hooks_have_yet_to_be_told_is_counted_with_the_oldest(database: Database) -> None:
    """Whether it waits in a lane, failed and is due later, or is in no lane yet; what somebody has claimed does not wait."""

    def oldest() -> timedelta | None:
        since = read(database)["oldest_hook_lane_timestamp_seconds"]
        return None if since is None else NOW - datetime.fromtimestamp(since, UTC)

    put(database, hooks, {"id": "hook_1", "position": 9}, {"id": "hook_2", "position": 9, "failing_since": NOW - HOUR})
    put(database, hook_lanes, lane("hook_1", "usr_1", -MINUTE))
    assert oldest() is None
    put(database, hook_lanes, lane("hook_1", "usr_2", 2 * MINUTE), lane("hook_2", "usr_1", MINUTE))
    assert oldest() == 2 * MINUTE
    put(database, hook_lanes, lane("hook_2", "usr_2", 3 * MINUTE, priority=0))
    assert oldest() == 3 * MINUTE
    put(database, hook_lanes, lane("hook_2", "usr_3", -MINUTE, failing_since=NOW - HOUR))
    assert oldest() == HOUR
    new = {"type": "user.created", "cause": "delivery", "cause_id": "msg_1"}
    put(database, changes, *({**new, "position": 8 + day, "recorded_at": NOW - (4 - day) * DAY} for day in (1, 2, 3)))
    assert oldest() == 2 * DAY
    put(database, hook_dead_letters, {"hook_id": "hook_2", "position": 3})
    found = read(database)
    assert (found["failing_hooks"], found["waiting_hook_lanes"], found["hook_dead_letters"]) == (1, 5, 1)


def test_every_figure_of_the_database_is_told(database_url: str) -> None:
    """A time that there is not is left out; nothing else is."""
    with running(database_url) as client:
        empty = scraped(client)
    with running(database_url) as client:
        assert post(client, event("user_created", "du_1"), "msg_1") == 201
        found = scraped(client)
    names = {f"provisioning_{each.name}" for each in fields(Figures)}
    times = {name for name in names if name.endswith("_timestamp_seconds")}
    assert names & empty.keys() == names - times
    assert names & found.keys() == names - times | {"provisioning_last_accepted_timestamp_seconds"}
    assert (empty["provisioning_database_up"], found["provisioning_database_up"]) == (1, 1)
