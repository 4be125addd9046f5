"""Makes databases fail at a chosen moment, and says what a sender may expect: to be told in time, and to be received once afterwards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic

import pytest
from sqlalchemy import text

from factories import delivery, delivery_rows, event, named, state
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.events import Delivery
from provisioning.inbox import Inbox

CANARY = "jane.canary@example.com"

# What fails while a test wants it: each statement that writes the directory user `bad`, or the commit after it. The message quotes the row,
# as drivers' do; SQLite's RAISE takes only a literal.
FAIL = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation USING MESSAGE = NEW; END $$"
AT_STATEMENT = {
    "postgresql": (
        FAIL,
        "CREATE TRIGGER fails BEFORE INSERT OR UPDATE ON directory_users FOR EACH ROW WHEN (NEW.id = 'bad') EXECUTE FUNCTION fail()",
    ),
    "sqlite": (f"CREATE TRIGGER fails BEFORE INSERT ON directory_users WHEN NEW.id = 'bad' BEGIN SELECT RAISE(ABORT, '{CANARY}'); END",),
}
AT_COMMIT = {
    "postgresql": (
        FAIL,
        "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON directory_users DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.id = 'bad') EXECUTE FUNCTION fail()",
    ),
    "sqlite": (
        "CREATE TABLE debts (creditor TEXT REFERENCES organizations DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER fails AFTER INSERT ON directory_users WHEN NEW.id = 'bad' BEGIN INSERT INTO debts VALUES ('nobody'); END",
    ),
}
MENDED = {"postgresql": ("DROP FUNCTION fail CASCADE",), "sqlite": ("DROP TRIGGER fails", "DROP TABLE IF EXISTS debts")}


@contextmanager
def failing(database: Database, cause: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """While this lasts, writing the directory user `bad` fails."""
    for statements in (cause, MENDED):
        with database.writing() as session:
            for statement in statements[database.dialect]:
                session.execute(text(statement))
        if statements is cause:
            yield


@contextmanager
def opened(url: str, *, pool_size: int = 10) -> Iterator[Database]:
    """The database at `url`, closed at the end."""
    database = Database(url, pool_size=pool_size)
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
