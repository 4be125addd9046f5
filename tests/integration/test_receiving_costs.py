"""What a batch costs does not grow with the organization it is for."""

from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from databases import Databases
from factories import delivery, event, named, roles
from provisioning.changes import Cause, CauseKind
from provisioning.db.session import Database
from provisioning.dispatcher import apply
from provisioning.events import Event, parse
from rows import analyze, big_organization

FEW, MANY = 500, 8_000
PLENTY = "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables WHERE relname NOT IN ('groups', 'organizations')"


class Enough(Exception):
    """Ends a transaction whose changes are not wanted."""


def batch() -> list[Event]:
    """Newcomers, people who change their name, groups and roles, and leavers."""
    everybody: dict[str, Any] = {"groups": named("grp_000", "grp_007"), "roles": roles("member", "admin")}
    bodies = [event("user_created", f"new_{n}", email=f"new{n}@x.com", dp_id=f"new{n}", **everybody) for n in range(100)]
    bodies += [event("user_updated", f"du_{n:05}", name="Other", email=f"other{n}@x.com", groups=[], roles=[]) for n in range(50)]
    bodies += [event("user_deleted", f"du_{n:05}") for n in range(50, 100)]
    events = [parse(delivery(body)).event for body in bodies]
    return [each for each in events if each is not None]


def filled(database: Database, people: int) -> None:
    """One organization, with the statistics that a server in use has."""
    big_organization(database, "org_1", people)
    analyze(database)


def test_on_postgresql_an_event_reads_no_table_from_end_to_end(postgres_url: str) -> None:
    """(For a large batch in a small organization the planner may rightly prefer to.)"""
    with closing(Database(postgres_url)) as database:
        filled(database, MANY)
        for events in (batch()[:3], batch()[110:113], batch()[170:173]):
            with database.writing() as session:
                before = session.scalar(text(PLENTY))
                apply(session, events, [Cause(CauseKind.DELIVERY, "msg_1")] * len(events), "live")
                assert session.scalar(text(PLENTY)) == before


def test_on_sqlite_a_batch_for_many_costs_what_it_costs_for_few(sqlite_databases: Databases) -> None:
    costs = []
    for people in (FEW, MANY):
        with sqlite_databases.fresh(migrated=True) as url, closing(Database(url)) as database, suppress(Enough):
            filled(database, people)
            with database.writing() as session:
                costs.append(steps(session, batch()))
                raise Enough
    assert costs[1] < 1.5 * costs[0]


def steps(session: Session, events: list[Event]) -> int:
    """Apply `events`; returns the steps that SQLite's machine took, in hundreds."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    connection = session.connection().connection.dbapi_connection
    assert connection is not None
    connection.set_progress_handler(count, 100)
    apply(session, events, [Cause(CauseKind.DELIVERY, "msg_1")] * len(events), "live")
    connection.set_progress_handler(None, 0)
    return taken


@pytest.fixture(autouse=True)
def _all_there() -> None:
    """The batch is what its docstring says."""
    assert len(batch()) == 200
