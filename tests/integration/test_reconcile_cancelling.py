"""Cancelling a run, while others may be about to begin it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event

from provisioning.db import runs
from provisioning.db.runs import State
from provisioning.db.session import Database


@contextmanager
def claimed_between_its_updates(cancelling: Database, claiming: Database) -> Iterator[None]:
    """Another replica looks for something to claim after each UPDATE of the one that cancels."""

    def claim(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("UPDATE"):
            with claiming.writing() as session:
                runs.claim(session, owner="other", now=datetime.now(UTC), lease=timedelta(seconds=20))

    event.listen(cancelling.engine, "after_cursor_execute", claim)
    yield
    event.remove(cancelling.engine, "after_cursor_execute", claim)


def test_a_run_that_begins_meanwhile_is_cancelled_all_the_same(postgres_url: str) -> None:
    """A waiting run either never begins, or whoever began it hears that it has to end. (SQLite has one writer.)"""
    now = datetime.now(UTC)
    with closing(Database(postgres_url)) as here, closing(Database(postgres_url)) as there:
        with here.writing() as session:
            run, _ = runs.request(session, "org_1", dry_run=False, requested_by="anna", now=now)
        with claimed_between_its_updates(here, there), here.writing() as session:
            runs.cancel(session, run, by="anna", now=now)
        with here.reading() as session:
            left = runs.one(session, "org_1", run.id, now)
    assert left.state is State.CANCELLED or left.cancel_wanted_by == "anna"
