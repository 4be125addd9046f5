"""Whoever follows the feed has every change once, in an order that contradicts nobody's history, whatever is committed late."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from threading import Event
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from sqlalchemy import delete, select, text, update
from sqlalchemy import event as hook
from test_convergence import examples, tell, tellings

from factories import delivery, event, named, one_by_one, receive, roles
from following import EVERYTHING, Copy, everything, original
from provisioning.api.changes import change_id
from provisioning.changes import Cause, CauseKind
from provisioning.db import changes as log
from provisioning.db.models import change_log, changes
from provisioning.db.reading.changes import Place
from provisioning.db.session import Database
from provisioning.dispatcher import apply
from provisioning.errors import Forgotten, Unavailable
from provisioning.events import Event as DirectoryEvent
from provisioning.events import parse
from provisioning.feed import PAUSE, Feed, Wanted
from provisioning.inbox import Inbox
from provisioning.retention import Retention
from service import bearer, running, settings

WRITERS, BATCHES = 8, 12


# A copy equals the original.
@pytest.mark.parametrize("database_url", ["postgresql", pytest.param("sqlite", marks=pytest.mark.proof)], indirect=True)
@examples
@given(told=tellings(shared=True))
def test_the_feed_from_nothing_gives_the_services_own_tables(database: Database, told: list[list[list[object]]]) -> None:
    """Users, groups, memberships and roles, whatever happened, in whatever order and batches; and each change fits those before it."""
    for batches in told:
        organization_id = tell(database, batches)  # type: ignore[arg-type] # facts
        copy = Copy().follow(everything(database, wanted=Wanted(organization_id)))
        copy.directories.clear()  # the service says no more of them than they do
        assert copy == original(database, organization_id)


def test_what_changes_nothing_is_no_change(database: Database) -> None:
    """Neither what is said again, nor a group that is named again, nor a role that comes from somebody else behind the user now."""
    both: dict[str, Any] = {"email": "jane@x.com", "groups": named("g"), "roles": roles("admin")}
    receive(database, event("user_created", "one", **both))
    receive(database, event("user_created", "two", dp_id="2", **both))
    before = len(everything(database))
    one_by_one(
        database,
        [
            event("user_updated", "one", at=1, **both),
            event("group_updated", "g", at=1, display_name="Group g"),
            event("user_deleted", "one", at=2),
        ],
    )
    assert everything(database)[before:] == []


# Nothing is missed.
def slow_to_commit(database: Database, random: Random) -> None:
    """Have each transaction wait a while between its last statement and its commit, so that they end in another order than they wrote."""

    def wait(_: object) -> None:
        time.sleep(random.random() ** 3 / 30)

    hook.listen(database.engine, "commit", wait)


def write(url: str, seed: int) -> None:
    """What one of several processes receives: events of people and groups that the others are told of as well."""
    random = Random(seed)  # noqa: S311 (a test's)

    def fact(hour: int) -> bytes:
        at = 1000 * hour + random.randrange(2000)
        in_groups = named(*random.sample([f"g{number}" for number in range(6)], random.randrange(4)))
        kind = random.choice(["user_created", "user_updated", "user_updated", "user_deleted", "group_deleted", "group_updated"])
        if kind.startswith("group"):
            return event(kind, f"g{random.randrange(6)}", at=at)
        return event(kind, f"u{random.randrange(20)}", at=at, active=random.random() < 0.7, groups=in_groups)

    with closing(Database(url)) as database:
        slow_to_commit(database, random)
        for hour in range(BATCHES):
            own = event("user_updated", f"own{seed}", at=1000 * hour, name=f"{hour}")  # which nothing overtakes
            batch = [delivery(each) for each in (own, *(fact(hour) for _ in range(random.randrange(1, 5))))]
            while True:
                with suppress(Unavailable):  # SQLite has one writer at a time: it is sent again
                    Inbox(database).receive(batch)
                    break


def test_a_reader_beside_eight_writers_misses_nothing(database_url: str) -> None:
    """Each change once, and each fits what came before it: never a removal before its addition, nor the other way about."""
    with closing(Database(database_url)) as database, ThreadPoolExecutor(WRITERS) as writers:
        work = [writers.submit(write, database_url, seed) for seed in range(WRITERS)]
        copy, seen = Copy(), list[int]()
        over = False
        while not over:
            over = all(each.done() for each in work)  # asked before the last look
            found = everything(database, after=seen[-1] if seen else 0)
            copy.follow(found)
            seen += [change.position for change in found]
        for each in work:
            each.result()
        with database.reading() as session:
            assert seen == session.scalars(select(changes.c.position).order_by(changes.c.position)).all()
        assert len(seen) >= WRITERS * BATCHES
        copy.directories.clear()
        assert copy == original(database, "org_1")


def read_event(body: bytes) -> DirectoryEvent:
    """The event that this body is."""
    found = parse(delivery(body)).event
    assert found is not None
    return found


def test_nothing_is_shown_behind_what_is_still_under_way(postgres_url: str) -> None:
    """Another transaction has the later positions and ends first. (SQLite has one writer.)"""
    cause = [Cause(CauseKind.DELIVERY, "msg_1")]
    with closing(Database(postgres_url)) as database:
        receive(database, event("directory_enabled", "d"))
        before = everything(database)[-1].position
        with database.writing() as session:
            apply(session, [read_event(event("user_created", "first"))], cause, "live")
            receive(database, event("user_created", "second"))
            assert Feed(database).latest().position == before
            assert everything(database, after=before) == []
        first, second = everything(database, after=before)
    assert (first.cause_id, second.cause_id) == ("msg_1", second.cause_id)
    assert first.position < second.position


def test_what_is_announced_while_somebody_looks_is_ahead(postgres_url: str) -> None:
    """Between the reader's two questions others commit, and announce: nothing is read backwards, and nothing is missed."""
    cause = [Cause(CauseKind.DELIVERY, "msg_1")]
    with closing(Database(postgres_url)) as database, closing(Database(postgres_url)) as other, other.writing() as session:
        receive(database, event("user_created", "u0"))
        before = everything(database)[-1].position

        looks = count()

        def meanwhile(_: object, __: object, statement: str, *___: object) -> None:
            if "pg_locks" in statement and next(looks) == 0:
                receive(other, event("user_created", "u1"))
                apply(session, [read_event(event("user_created", "u2"))], cause, "live")

        hook.listen(database._readers, "before_cursor_execute", meanwhile)
        assert Feed(database).latest().position == before
        assert [change.position for change in everything(database, after=before)] == [before + 1]


def test_a_place_in_the_feed_is_a_changes_own(postgres_url: str) -> None:
    """Positions behind the last change that was committed may come again after a crash: no reader is told to go on from one."""
    with closing(Database(postgres_url)) as database:
        receive(database, event("user_created", "u"))
        with database.writing() as session:
            apply(session, [read_event(event("user_created", "v"))], [Cause(CauseKind.DELIVERY, "msg_1")], "live")
            session.rollback()
        [change] = everything(database)
        assert Feed(database).latest().position == Feed(database).read(Place(), EVERYTHING, 10).place.position == change.position


def test_what_never_comes_keeps_nothing_back(postgres_url: str) -> None:
    """Positions of a transaction that was rolled back are passed over."""
    with closing(Database(postgres_url)) as database:
        with database.writing() as session:
            apply(session, [read_event(event("user_created", "first"))], [Cause(CauseKind.DELIVERY, "msg_1")], "live")
            session.rollback()
        receive(database, event("user_created", "second"))
        assert [change.type for change in everything(database)] == ["user.created"]


def test_what_is_none_of_the_logs_keeps_nothing_back(postgres_url: str) -> None:
    """A long transaction of somebody else in the same database, with an old transaction id, and locks of two numbers as ours are."""
    with closing(Database(postgres_url)) as database, psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_current_xact_id(), pg_advisory_xact_lock(0, 1), pg_advisory_xact_lock(1)")
        receive(database, event("user_created", "u"))
        assert len(everything(database)) == 1


@pytest.mark.parametrize("position", [2**31 - 3, 2**31 - 2, 2**40])
def test_positions_of_any_size_are_held_back(postgres_url: str, position: int) -> None:
    """A lock's name holds half of one."""
    cause = [Cause(CauseKind.DELIVERY, "msg_1")]
    with closing(Database(postgres_url)) as database:
        with database.writing() as session:
            session.execute(text(f"SELECT setval('changes_position', {position})"))
        with database.writing() as session:
            receive(database, event("user_created", "before"))
            apply(session, [read_event(event("user_created", "first"))], cause, "live")
            receive(database, *(event("user_created", f"u{number}") for number in range(5)))
            assert [change.position for change in everything(database)] == [position + 1]
        assert len(everything(database)) == 7


# Over HTTP.
@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """A caller that may read."""
    with running(database_url) as client:
        client.headers.update(bearer())
        yield client


def test_a_change_says_what_when_and_by_what(client: TestClient, database: Database) -> None:
    """With the user as it is now, which may be later than the change."""
    first, second = (
        delivery(event("user_created", "u", email="a@x.com", name="Ann", groups=named("g"), title="Dr"), "msg_a"),
        delivery(event("user_updated", "u", at=1.25, name="Bea", active=False, title=None), "msg_b"),
    )
    Inbox(database).receive([first])
    Inbox(database).receive([second])
    page = client.get("/v1/changes").raise_for_status().json()
    found = page["data"]
    assert [each["type"] for each in found] == [
        "group.created",
        "user.created",
        "membership.added",
        "user.updated",
        "membership.removed",
        "user.deactivated",
    ]
    group, created, added, updated, removed, deactivated = found
    assert (group["group_id"], group["after"]) == ("g", {"name": "Group g", "external_id": None, "directory_id": None})
    nothing = dict.fromkeys(("given_name", "family_name", "preferred_username", "application_id"))
    assert created["after"] == {"active": True, "email": "a@x.com", "name": "Ann", "attributes": {"title": "Dr"}, **nothing}
    assert (added["before"], added["after"], added["group_id"]) == (None, {"group_id": "g"}, "g")
    assert updated["before"] == {"name": "Ann", "attributes": {"title": "Dr"}}
    assert updated["after"] == {"name": "Bea", "attributes": {"title": None}}
    assert (removed["before"], removed["after"]) == ({"group_id": "g"}, None)
    assert (deactivated["before"], deactivated["after"]) == ({"active": True}, {"active": False})
    assert created["user"] == {**deactivated["user"], "id": created["user_id"], "name": "Bea", "active": False, "groups": [], "roles": []}
    assert [each["cause"]["id"] for each in found] == ["msg_a"] * 3 + ["msg_b"] * 3
    assert {each["cause"]["kind"] for each in found} == {"delivery"}
    assert deactivated["occurred_at"] == "2025-06-15T15:06:41.25Z"
    assert page["next_cursor"] == deactivated["id"]
    assert client.get("/v1/changes", params={"after": page["next_cursor"]}).json() == {"data": [], "next_cursor": page["next_cursor"]}


def test_the_feed_narrows_to_an_organization_and_to_types(client: TestClient, database: Database) -> None:
    """And its cursor passes what was not asked for."""
    receive(database, *(event("user_created", "u", organization_id=each, roles=roles("r")) for each in ("org_1", "org_2")))
    assert {each["organization_id"] for each in client.get("/v1/changes", params={"organization_id": "org_2"}).json()["data"]} == {"org_2"}
    wanted = {"type": "role.granted, user.deactivated", "organization_id": "org_1"}
    page = client.get("/v1/changes", params=wanted).json()
    assert [(each["type"], each["role"]) for each in page["data"]] == [("role.granted", "r")]
    everything = client.get("/v1/changes").json()
    assert page["next_cursor"] == everything["next_cursor"]
    assert client.get("/v1/changes", params={"organization_id": "org_3"}).json() == {"data": [], "next_cursor": everything["next_cursor"]}


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@pytest.mark.parametrize(
    "query",
    [
        "after=4711",
        "after=chg_1",
        "after=chg_0000000000000002",
        "after=chg_٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠-٠٠٠٠٠٠",
        "type=user.born",
        "type=",
        "limit=0",
        "wait=31",
        "wait=-1",
        "since=1",
    ],
)
def test_what_the_feed_does_not_understand_it_refuses(client: TestClient, query: str) -> None:
    assert client.get(f"/v1/changes?{query}").status_code == 422


def test_the_feed_is_for_readers(client: TestClient) -> None:
    assert client.get("/v1/changes", headers={"Authorization": "Bearer nobody"}).status_code == 401
    assert client.get("/v1/changes", headers=bearer("portal".ljust(32, "0"))).status_code == 403


# A place that is not kept.
def test_whoever_cannot_go_on_without_a_gap_is_told_so(client: TestClient, database: Database) -> None:
    """What followed was forgotten, or the log is a restored one that has not come that far; `latest` is where to begin anew."""
    one_by_one(
        database, [event("user_created", "u"), event("user_updated", "u", at=1, name="A"), event("user_updated", "u", at=2, name="B")]
    )
    first, second, third = (each["id"] for each in client.get("/v1/changes").json()["data"])
    with database.writing() as session:
        session.execute(
            update(changes)
            .where(changes.c.position <= everything(database)[1].position)
            .values(recorded_at=datetime(2020, 1, 1, tzinfo=UTC))
        )
        assert log.forget(session, datetime(2021, 1, 1, tzinfo=UTC), at_most=10) == 2
    for params in ({}, {"after": first}):
        answer = client.get("/v1/changes", params=params)
        assert (answer.status_code, answer.json()["type"]) == (410, "urn:provisioning:problem:forgotten")
        assert "after=latest" in answer.json()["detail"]
    assert [each["id"] for each in client.get("/v1/changes", params={"after": second}).json()["data"]] == [third]
    assert client.get("/v1/changes", params={"after": "latest"}).json() == {"data": [], "next_cursor": third}
    assert client.get("/v1/changes", params={"after": f"{third[:19]}9{third[20:]}"}).status_code == 410


def test_a_reader_of_what_was_restored_away_is_told_so(client: TestClient, database: Database) -> None:
    """Also once the log has come as far again: its positions are others' now, and what the reader knows of them never happened."""
    one_by_one(database, [event("user_created", "u"), event("user_updated", "u", at=1, name="A")])
    kept, lost = (each["id"] for each in client.get("/v1/changes").json()["data"])
    backup = everything(database)[0].position
    with database.writing() as session:  # as a backup of before the second one would be
        session.execute(delete(changes).where(changes.c.position > backup))
        session.execute(update(change_log).values(last=backup))
        if database.dialect == "postgresql":
            session.execute(text(f"SELECT setval('changes_position', {backup})"))
    assert client.get("/v1/changes", params={"after": lost}).status_code == 410
    one_by_one(database, [event("user_updated", "u", at=at, name=str(at)) for at in (2, 3)])
    assert client.get("/v1/changes", params={"after": lost}).status_code == 410
    again = client.get("/v1/changes", params={"after": kept}).json()
    assert [each["after"] for each in again["data"]] == [{"name": "2"}, {"name": "3"}]
    assert again["data"][0]["id"][:20] == lost[:20]


def test_changes_are_forgotten_from_the_oldest_a_few_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next tick go the next ones; positions are never given out again, and what is left is read on."""
    monkeypatch.setattr("provisioning.retention.AT_ONCE", 2)
    one_by_one(database, [event("user_created", "u"), *(event("user_updated", "u", at=at, name=str(at)) for at in range(1, 5))])
    positions = [change.position for change in everything(database)]
    now = datetime.now(UTC)
    kept = settings("sqlite:///unused.db", change_retention_days=30)
    young = Retention(database, kept, lambda: now + timedelta(days=29))
    young.tick()
    assert len(everything(database)) == 5
    old = Retention(database, kept, lambda: now + timedelta(days=31))
    old.tick()
    assert [change.position for change in everything(database, after=positions[1])] == positions[2:]
    with pytest.raises(Forgotten):
        everything(database)
    old.tick()
    old.tick()
    old.tick()
    assert everything(database, after=positions[-1]) == []
    assert Feed(database).latest().position == positions[-1]
    receive(database, event("user_updated", "u", at=9, name="9"))
    [latest] = everything(database, after=positions[-1])
    assert latest.position > positions[-1]


# Waiting.
def test_whoever_waits_is_told_as_soon_as_something_comes(client: TestClient, database: Database) -> None:
    """And not of what was not asked for; who asks for what has come already does not wait."""
    receive(database, event("user_created", "u"))
    cursor = client.get("/v1/changes", params={"wait": 30}).json()["next_cursor"]
    with ThreadPoolExecutor(3) as readers:
        waiting = [
            readers.submit(client.get, "/v1/changes", params={"after": cursor, "wait": 30, **more})
            for more in ({}, {"type": "user.deactivated"}, {"organization_id": "org_2"})
        ]
        receive(database, event("user_updated", "u", at=1, name="A"))
        assert [each["type"] for each in waiting[0].result().json()["data"]] == ["user.updated"]
        receive(database, event("user_updated", "u", at=2, active=False))
        assert [each["type"] for each in waiting[1].result().json()["data"]] == ["user.deactivated"]
        assert not waiting[2].done()
        receive(database, event("group_created", "g", organization_id="org_2"))
        assert [each["type"] for each in waiting[2].result().json()["data"]] == ["group.created"]


def test_whoever_waits_in_vain_gets_an_empty_page(client: TestClient) -> None:
    began = time.monotonic()
    assert client.get("/v1/changes", params={"wait": 1}).json() == {"data": [], "next_cursor": change_id(Place())}
    assert time.monotonic() - began >= 1


def test_many_who_wait_cost_one_look(database: Database) -> None:
    """The database is asked a few times a second, however many wait, also while much happens that none of them wants; then not at all."""
    feed = Feed(database)
    looks = 0

    def note(*_: object) -> None:
        nonlocal looks
        looks += 1

    async def wait_at_once() -> int:
        nonlocal looks
        others = [Wanted("org_2"), Wanted(types=["group.deleted"]), Wanted("org_1", ["user.deactivated"])]
        waiting = [asyncio.create_task(feed.follow(Place(), others[number % 3], 10, 3.0)) for number in range(60)]
        while feed.waiting < 60:  # noqa: ASYNC110 (it has no event for that)
            await asyncio.sleep(0.01)
        looks = 0
        for number in range(8):
            await asyncio.to_thread(receive, database, event("user_updated", f"u{number}"))
        done, _ = await asyncio.wait(waiting)
        assert {each.result().place for each in done} == {await asyncio.to_thread(feed.latest)}
        await asyncio.sleep(2 * PAUSE)
        while_they_waited = looks
        await asyncio.sleep(2 * PAUSE)
        return while_they_waited

    hook.listen(database._readers, "begin", note)  # before anybody looks: it cannot be added during one
    try:
        assert 1 <= asyncio.run(wait_at_once()) == looks <= 2 * 3 / PAUSE + 2
    finally:
        hook.remove(database._readers, "begin", note)


def test_who_begins_to_wait_during_a_look_misses_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It last read before the look's first change: what lies between is found by the next look."""
    feed = Feed(database)
    looking, waits = Event(), Event()
    look = feed._came

    def slowly(after: int) -> tuple[Place, list[tuple[str, str, int]]]:
        found = look(after)
        looking.set()
        waits.wait(10)
        return found

    async def wait() -> bool:
        before = feed.latest()
        await asyncio.to_thread(receive, database, event("user_created", "u"))
        other = asyncio.create_task(feed.follow(feed.latest(), Wanted("org_2"), 10, 5))
        await asyncio.to_thread(looking.wait, 10)
        waiting = asyncio.create_task(feed._wait(before, Wanted("org_1"), 3))
        await asyncio.to_thread(receive, database, event("group_created", "g", organization_id="org_3"))
        waits.set()
        woken = not (await waiting).news.cancelled()
        other.cancel()
        return woken

    monkeypatch.setattr(feed, "_came", slowly)
    assert asyncio.run(wait())


@pytest.mark.parametrize("already_waiting", [True, False])
def test_the_end_of_the_service_waits_for_nobody_who_waits(database: Database, already_waiting: bool) -> None:
    """Nor for who is just about to."""
    feed = Feed(database)

    async def end() -> float:
        if not already_waiting:
            feed.stop()
        waiting = asyncio.create_task(feed.follow(Place(), EVERYTHING, 10, 30))
        while already_waiting and not feed.waiting:  # noqa: ASYNC110 (it has no event for that)
            await asyncio.sleep(0.01)
        began = time.monotonic()
        feed.stop()
        assert not (await waiting).changes
        return time.monotonic() - began

    assert asyncio.run(end()) < 5


def test_positions_begin_behind_what_was_here_before_there_was_a_log(database: Database) -> None:
    with database.reading() as session:
        assert session.execute(select(change_log)).one() == (1, 1, 0)
    receive(database, event("user_created", "u"))
    assert [change.position for change in everything(database)] == [2]
