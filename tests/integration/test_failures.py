"""What fails costs nobody else anything: a failed commit leaves nothing behind, a failing event leaves only itself, kept for a mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from factories import delivery, delivery_rows, event, named, payload, receive, roles, state
from sqlalchemy import text

from provisioning import dispatcher
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.events import Delivery, Event, EventType
from provisioning.inbox import Inbox
from provisioning.merge import Write

CANARY = "jane.canary@example.com"

# What goes wrong: at a statement that writes the directory user `bad`, or at the commit of a transaction that did. The driver's text
# quotes the row, as drivers do; SQLite's RAISE takes only a literal.
AT_STATEMENT = {
    "postgresql": (
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE integrity_constraint_violation USING MESSAGE = NEW.registers; END $$",
        "CREATE TRIGGER fails BEFORE INSERT OR UPDATE ON directory_users FOR EACH ROW WHEN (NEW.id = 'bad') EXECUTE FUNCTION fail()",
    ),
    "sqlite": tuple(
        f"CREATE TRIGGER fails_{when} BEFORE {when} ON directory_users WHEN NEW.id = 'bad' BEGIN SELECT RAISE(ABORT, '{CANARY}'); END"
        for when in ("INSERT", "UPDATE")
    ),
}
AT_COMMIT = {
    "postgresql": (
        AT_STATEMENT["postgresql"][0],
        "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON directory_users DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.id = 'bad') EXECUTE FUNCTION fail()",
    ),
    "sqlite": (
        "CREATE TABLE debts (creditor TEXT REFERENCES organizations DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER fails_INSERT AFTER INSERT ON directory_users WHEN NEW.id = 'bad' BEGIN INSERT INTO debts VALUES ('nobody'); END",
    ),
}
MENDED = {
    "postgresql": ("DROP FUNCTION fail CASCADE",),
    "sqlite": ("DROP TRIGGER IF EXISTS fails_INSERT", "DROP TRIGGER IF EXISTS fails_UPDATE", "DROP TABLE IF EXISTS debts"),
}


def execute(database: Database, statements: dict[str, tuple[str, ...]]) -> None:
    """Execute the statements for this kind of database."""
    with database.writing() as session:
        for statement in statements[database.dialect]:
            session.execute(text(statement))


@contextmanager
def failing(database: Database, cause: dict[str, tuple[str, ...]]) -> Iterator[None]:
    """While this lasts, writing the directory user `bad` fails."""
    execute(database, cause)
    yield
    execute(database, MENDED)


def person(id_: str, at: float = 0) -> Delivery:
    """A user's event, with a canary in it, under a webhook id made of the user's."""
    body = event("user_created", id_, at=at, email=CANARY if id_ == "bad" else f"{id_}@example.com", groups=named("g"), roles=roles("r"))
    return delivery(body, f"msg_{id_}")


def everything(database: Database) -> tuple[object, ...]:
    """All that is stored, with the inbox's times."""
    return state(database), delivery_rows(database)


def test_a_commit_that_fails_leaves_nothing_half_written(database: Database) -> None:
    """It raises, which the edge answers 5xx; the same delivery is applied when the cause is gone."""
    receive(database, event("user_created", "before"))
    before = everything(database)
    batch = [person("good"), person("bad")]
    with failing(database, AT_COMMIT):
        for _ in range(2):
            with pytest.raises(Exception, match="fk_|23000|FOREIGN KEY|IntegrityError"):
                Inbox(database).receive(batch)
            assert everything(database) == before
    assert [receipt.outcome for receipt in Inbox(database).receive(batch)] == ["processed", "processed"]


def test_a_connection_lost_at_the_commit_is_made_good_by_doing_the_batch_again(postgres_url: str) -> None:
    """Killed once: nobody notices. Killed each time: Unavailable, and nothing is half-written."""
    database = Database(postgres_url)
    statements = (
        "CREATE SEQUENCE kills",
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('kills') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$",
        AT_COMMIT["postgresql"][1],
    )
    with failing(database, {"postgresql": statements}):
        (receipt,) = Inbox(database).receive([person("bad")])
        assert receipt.outcome == "processed"
        assert delivery_rows(database)["msg_bad"]["attempts"] == 1
        before = everything(database)
        execute(database, {"postgresql": ("ALTER SEQUENCE kills RESTART MINVALUE 1 MAXVALUE 1 CYCLE", )})
    database.close()
