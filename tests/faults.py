"""Makes databases fail at a chosen moment, and says what a sender may expect: to be told in time, and to be received once afterwards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep
from typing import Self

import psycopg
import pytest
from sqlalchemy import text

from factories import delivery, delivery_rows, event, named, state
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.events import Delivery
from provisioning.inbox import Inbox

CANARY = "jane.canary@example.com"

# What fails while a test wants it, of everything that has to do with the directory user `bad`: each statement that writes it, the commit
# after that, or the commit after its delivery is written. The message quotes the row, as drivers' do; SQLite's RAISE takes only a literal.
FAIL = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation USING MESSAGE = NEW; END $$"
OWE = "CREATE TABLE debts (creditor TEXT REFERENCES organizations DEFERRABLE INITIALLY DEFERRED)"


def _at_commit(table: str, condition: str) -> Mapping[str, Sequence[str]]:
    deferred = "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    return {
        "postgresql": (
            FAIL,
            f"CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON {table} {deferred} WHEN (NEW.{condition}) EXECUTE FUNCTION fail()",
        ),
        "sqlite": (
            OWE,
            f"CREATE TRIGGER fails AFTER INSERT ON {table} WHEN NEW.{condition} BEGIN INSERT INTO debts VALUES ('nobody'); END",  # noqa: S608
        ),
    }


AT_STATEMENT = {
    "postgresql": (
        FAIL,
        "CREATE TRIGGER fails BEFORE INSERT ON directory_users FOR EACH ROW WHEN (NEW.id = 'bad') EXECUTE FUNCTION fail()",
    ),
    "sqlite": (f"CREATE TRIGGER fails BEFORE INSERT ON directory_users WHEN NEW.id = 'bad' BEGIN SELECT RAISE(ABORT, '{CANARY}'); END",),
}
AT_COMMIT = _at_commit("directory_users", "id = 'bad'")
AT_EVERY_COMMIT = _at_commit("deliveries", "webhook_id = 'msg_bad'")
MENDED = {"postgresql": ("DROP FUNCTION fail CASCADE",), "sqlite": ("DROP TRIGGER fails", "DROP TABLE IF EXISTS debts")}


@contextmanager
def failing(database: Database, cause: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """While this lasts, what has to do with the directory user `bad` fails."""
    for statements in (cause, MENDED):
        with database.writing() as session:
            for statement in statements[database.dialect]:
                session.execute(text(statement))
        if statements is cause:
            yield


class Gate:
    """Holds transactions of one PostgreSQL database at their commit."""

    def __init__(self, keeper: psycopg.Connection) -> None:
        self._keeper = keeper

    @classmethod
    @contextmanager
    def before_commits(cls, url: str, table: str) -> Iterator[Self]:
        """Until it is opened, no transaction that wrote to `table` gets through its commit."""
        wait = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$"
        trigger = f"CREATE CONSTRAINT TRIGGER waits AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED"
        with psycopg.connect(url, autocommit=True) as keeper:
            for statement in (wait, f"{trigger} FOR EACH ROW EXECUTE FUNCTION wait()", "SELECT pg_advisory_lock(1)"):
                keeper.execute(statement.encode())
            yield cls(keeper)

    def waiting(self) -> int:
        """How many transactions wait for a lock, at the gate or behind one that is there."""
        row = self._keeper.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()
        assert row
        return int(row[0])

    def open(self) -> None:
        """Let everybody through."""
        self._keeper.execute("SELECT pg_advisory_unlock_all()")


def until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds: for what tells nobody when it comes to be."""
    patience = monotonic() + 10
    while not condition():
        assert monotonic() < patience
        sleep(0.01)


@contextmanager
def opened(url: str, *, pool_size: int = 8) -> Iterator[Database]:
    """The database at `url`, closed at the end."""
    database = Database(url, writers=pool_size, readers=pool_size)
    try:
        yield database
    finally:
        database.close()


def person(id_: str = "u", *, notes: str = "") -> Delivery:
    """The event that makes a person, under a webhook id named after them."""
    return delivery(event("user_created", id_, email=f"{id_}@example.com", groups=named("g"), notes=notes), f"msg_{id_}")


def seconds_until_unavailable(work: Callable[[], object]) -> float:
    """How long it takes until `work` raises Unavailable."""
    started = monotonic()
    with pytest.raises(Unavailable):
        work()
    return monotonic() - started


def assert_received_once(database: Database, letter: Delivery) -> None:
    """Sent again, the delivery is received: by this attempt or by one that was given up, but once."""
    (receipt,) = Inbox(database).receive([letter])
    assert receipt.outcome in {"processed", "duplicate"}
    rows = delivery_rows(database)
    assert (rows[letter.webhook_id]["outcome"], rows[letter.webhook_id]["attempts"]) == ("processed", 1)
    found = state(database)
    assert len(found["users"]) == len(found["directory_users"]) == len(rows)


def use_at_once(database: Database, connections: int) -> None:
    """Ask something over as many connections, held together."""
    with ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(database.reading()).execute(text("SELECT 1"))
