"""The service is killed again and again, and its database with it, while a company's events come in. What was answered 2xx is there, and
was taken in once; the end is as the directory says; and the change log tells all of it, in its order.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import select

from delivering import Delivering, delivering
from factories import delivery_rows
from following import Copy, everything, original
from living import living
from postgres import throw_away
from provisioning.db.migrations import upgrade
from provisioning.db.models import reconcile_runs
from provisioning.db.session import Database

EVENTS, PEOPLE = 20_000, 2_500
KILLS, CRASHES = 10, (3, 7)  # of the service; of PostgreSQL, during which of the service's lives


@pytest.mark.proof
@pytest.mark.parametrize(("kind", "workers"), [("sqlite", 1), ("postgresql", 1), ("postgresql", 2)])
def test_whoever_is_killed_what_was_answered_is_there_once(tmp_path: Path, say: Callable[[str], None], kind: str, workers: int) -> None:
    chance = Random(8)  # noqa: S311  # chance, not secrecy
    with ExitStack() as stack:
        server = stack.enter_context(throw_away(("max_connections=100",))) if kind == "postgresql" else None
        url = server.url if server else f"sqlite:///{tmp_path}/crashes.db"
        upgrade(url)
        there = stack.enter_context(delivering(tmp_path, url, retry_scale=0.002))
        there.emulator.deliveries.switch({"at_once": 64, "duplicates": 0.05})
        parts = there.emulator.parts
        organization = there.emulator.structure.add_organization("Acme")
        began = time.monotonic()
        life_long = Random(9)  # noqa: S311  # as above
        with living(parts, organization.id, life_long, PEOPLE, lambda: len(parts.company.events()) >= EVENTS) as life:
            for number in range(KILLS):
                with there.serving(workers) as running:  # which is killed where the block ends
                    time.sleep(chance.uniform(1, 5))
                    if server and number in CRASHES:
                        server.crash()
                        time.sleep(chance.uniform(1, 3))
                    assert running.process.poll() is None  # it outlived its database
                    assert parts.deliveries.waiting  # so that the kill meets something
            there.emulator.deliveries.resend()  # what was given up, as an operator would
            with there.serving(workers):
                life.join()
                while not parts.deliveries.settled(1):
                    pass
                seconds = time.monotonic() - began
                assert there.differences(organization.id) == []
        database = stack.enter_context(closing(Database(url)))
        assert_all_is_there_once(there, database)
        assert_the_log_tells_it(database, organization.id)
        with database.reading() as session:
            assert session.scalars(select(reconcile_runs.c.state)).all() == ["done"]  # of the directory, as it was enabled
        say(f"{parts.deliveries.counts()['delivered']} deliveries and {KILLS} kills in {seconds:.0f} s")


def assert_all_is_there_once(there: Delivering, database: Database) -> None:
    """Whatever had an answer of 2xx is done; nothing was handled again that had been."""
    sent = there.emulator.deliveries.latest(10 * EVENTS)
    answered = {each.id for each in sent if any(attempt.status and attempt.status < 300 for attempt in each.attempts)}
    stored = delivery_rows(database)
    assert len(sent) >= EVENTS
    assert answered == {each.id for each in sent} == stored.keys()
    assert {row["outcome"] for row in stored.values()} <= {"processed", "stale"}
    assert {row["attempts"] for row in stored.values()} == {1}
    # It was as bad as it was meant to be: some were cut off, and some of these had been committed.
    assert any(attempt.error and attempt.error != "ConnectError" for each in sent for attempt in each.attempts)
    assert any(each.attempts[0].error and each.attempts[-1].outcome == "duplicate" for each in sent)


def assert_the_log_tells_it(database: Database, organization_id: str) -> None:
    """Whoever follows it from the beginning has what the service shows."""
    told, shown = Copy().follow(everything(database, limit=1000)), original(database, organization_id)
    assert (told.users, told.groups, told.memberships, told.roles) == (shown.users, shown.groups, shown.memberships, shown.roles)
