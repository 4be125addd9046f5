"""Any number of processes on one PostgreSQL, also by way of PgBouncer, are as one: the same events end in the same state."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from random import Random
from statistics import mean

import psycopg
import pytest

from databases import Databases
from factories import delivery, delivery_rows, event, named, roles, state
from operators import SETTINGS, Operator
from pooler import pooled
from postgres import throw_away
from processes import processor_time, watched
from provisioning.bodies import Json
from provisioning.db.migrations import upgrade
from provisioning.db.session import Database
from provisioning.inbox import Inbox
from sending import Wanted, at_once, send

EVENTS, TWICE = 8_000, 400
PEOPLE, TWINS, GROUPS = 500, 40, 30
CONNECTIONS = 48


def life(chance: Random) -> list[Wanted]:
    """A company's events in the order in which they happened: few people and groups, so that replicas meet at every one of them.

    The first of them are twins: one person in two directories, by whose e-mail address they are one user. They are never deleted, since
    whom somebody joins may depend on what came first. Everybody's address is told whenever they are.
    """
    return [(f"msg_{number}", _something(number, chance)) for number in range(EVENTS)]


def _something(number: int, chance: Random) -> bytes:
    [kind] = chance.choices(["user_updated", "user_created", "user_deleted", "group", "directory"], [60, 15, 10, 10, 5])
    if kind == "directory":
        return event(f"directory_{chance.choice(['enabled', 'disabled'])}", f"dir_{chance.randrange(3)}", at=number, number=number)
    if kind == "group":
        [kind] = chance.choices(["group_updated", "group_created", "group_deleted"], [4, 2, 1])
        return event(kind, f"grp_{chance.randrange(GROUPS)}", at=number, number=number, display_name=f"Group {number}")
    person = chance.randrange(TWINS if kind != "user_deleted" else 0, PEOPLE) if chance.random() < 0.9 else chance.randrange(TWINS)
    if kind == "user_deleted":
        return event(kind, f"du_{max(person, TWINS)}", at=number, number=number)
    data: dict[str, Json] = {"given_name": f"Name {number}", "email": f"{person // 2 if person < TWINS else person}@acme.example"}
    if chance.random() < 0.5:
        data["groups"] = named(*(f"grp_{each}" for each in chance.sample(range(GROUPS), chance.randrange(4))))
    if chance.random() < 0.2:
        data["roles"] = roles(*chance.sample(["admin", "member", "auditor"], chance.randrange(3)))
    if chance.random() < 0.2:
        data["active"] = chance.random() < 0.7
    return event(kind, f"du_{person}", at=number, number=number, directory_id=f"dir_{person % 3}", **data)  # type: ignore[arg-type] # its data


@pytest.fixture(scope="module")
def by_one(sqlite_databases: Databases) -> dict[str, list[tuple[object, ...]]]:
    """Where the events end that are received in their order, by one."""
    events = life(Random(7))  # noqa: S311  # chance, not secrecy
    with sqlite_databases.fresh(migrated=True) as url, closing(Database(url)) as database:
        inbox = Inbox(database)
        for first in range(0, EVENTS, 100):
            inbox.receive([delivery(body, webhook_id) for webhook_id, body in events[first : first + 100]])
        return state(database)


@pytest.mark.proof
@pytest.mark.alone
@pytest.mark.parametrize(
    ("replicas", "by_pooler"),
    [(1, False), (2, False), (4, False), (1, True), (4, True)],
    ids=["1", "2", "4", "1 by PgBouncer", "4 by PgBouncer"],
)
def test_replicas_are_as_one(
    tmp_path: Path, by_one: dict[str, list[tuple[object, ...]]], say: Callable[[str], None], replicas: int, by_pooler: bool
) -> None:
    chance = Random(replicas)  # noqa: S311  # chance, not secrecy
    events = life(Random(7))  # noqa: S311  # as above
    told = events + chance.sample(events, TWICE)
    chance.shuffle(told)
    with ExitStack() as stack:
        server = stack.enter_context(throw_away(("max_connections=100",)))
        upgrade(server.url)
        url = stack.enter_context(pooled(server.url, 2)) if by_pooler else server.url
        operator = Operator(tmp_path, {**SETTINGS, "DATABASE_URL": url})
        running = [stack.enter_context(operator.started("serve")) for _ in range(replicas)]
        database = stack.enter_context(closing(Database(server.url)))
        asking = stack.enter_context(psycopg.connect(server.url, autocommit=True))
        pid = asked(asking, "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int")
        services = [each.process.pid for each in running]
        before = [sum(map(processor_time, services)), processor_time(pid)]
        began = time.monotonic()
        with watched(partial(asked, asking, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"), 0.02) as waiting:
            sent = asyncio.run(send([each.url for each in running], at_once(iter(told)), CONNECTIONS))
        seconds = time.monotonic() - began
        after = [sum(map(processor_time, services)), processor_time(pid)]
        assert state(database) == by_one
        stored = delivery_rows(database)
        deadlocks = asked(asking, "SELECT sum(deadlocks) FROM pg_stat_database")
    assert sent.answers == {201: len(told)}
    assert sent.accepted.keys() == stored.keys()
    assert {(row["outcome"], row["attempts"]) for row in stored.values()} == {("processed", 1), ("stale", 1)}
    assert deadlocks == 0
    assert mean(waiting) > 0 or replicas == 1  # they did meet
    service, postgres = ((late - early) / len(told) * 1e6 for early, late in zip(before, after, strict=True))
    say(
        f"{len(told) / seconds:.0f} events/s; {service:.0f} µs an event in the service, {postgres:.0f} in PostgreSQL;"
        f" {mean(waiting):.2f} transactions wait for a lock; {deadlocks} deadlocks"
    )


def asked(connection: psycopg.Connection, question: str) -> int:
    """The one number that PostgreSQL answers."""
    row = connection.execute(question.encode()).fetchone()
    assert row
    return int(row[0])
