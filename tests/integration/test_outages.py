"""The database away, stalled or over-loaded: Unavailable within about 5 s, nothing half-written, and at work again as soon as it can be."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import psycopg
import pytest
from factories import delivery, delivery_rows, event, named, receive, state
from sqlalchemy import event as listening
from sqlalchemy import text
from stalling_proxy import StallingProxy

from provisioning.db import session as database_session
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.events import Delivery
from provisioning.inbox import Inbox


@contextmanager
def opened(url: str, *, pool_size: int = 10) -> Iterator[Database]:
    """The database at `url`, closed at the end."""
    database = Database(url, pool_size=pool_size)
    try:
        yield database
    finally:
        database.close()


def person(id_: str = "u", **data: str) -> Delivery:
    """The event that makes a person, under a webhook id named after them."""
    return delivery(event("user_created", id_, email=f"{id_}@example.com", groups=named("g"), **data), f"msg_{id_}")


def seconds_until_unavailable(work: Callable[[], object]) -> float:
    """How long it takes until `work` raises Unavailable."""
    started = monotonic()
    with pytest.raises(Unavailable):
        work()
    return monotonic() - started


def execute(url: str, *statements: str) -> None:
    """Execute these as one who comes by another path."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def assert_received_once(database: Database, letter: Delivery) -> None:
    """Received again, the delivery is done: by this attempt or by the last, but once."""
    (receipt,) = Inbox(database).receive([letter])
    assert receipt.outcome in {"processed", "duplicate"}
    row = delivery_rows(database)[letter.webhook_id]
    assert (row["outcome"], row["attempts"]) == ("processed", 1)
    assert len(state(database)["users"]) == len(state(database)["directory_users"]) == len(delivery_rows(database))


STALLS = {
    "idle": (b"", False),
    "before a statement": (b"INSERT INTO directory_users", False),
    "after a statement": (b"INSERT INTO directory_users", True),
    "before the commit": (b"COMMIT", False),
    "after the commit": (b"COMMIT", True),
}


@pytest.mark.parametrize("moment", STALLS)
def test_a_stalled_path_is_given_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Neither libpq nor the server notices it: the watchdog does, and the pool takes new connections at once."""
    monkeypatch.setattr(database_session, "STALLED_SECONDS", 1)
    words, received = STALLS[moment]
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        assert receive(database, event("user_created", "before"))
        path.stall_at(words, received=received) if words else path.stall()
        assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 3
        path.resume()
        assert_received_once(database, person())


@pytest.mark.parametrize("words", [b"version()", b"hstore", b"SELECT set_config"])
def test_a_path_that_stalls_with_the_first_connection_is_given_up(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    """Then SQLAlchemy asks the server what it is, before anybody else has the connection."""
    monkeypatch.setattr(database_session, "STALLED_SECONDS", 1)
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        path.stall_at(words)
        assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 3
        assert path.stalled.is_set()
        path.resume()
        assert_received_once(database, person())


def test_a_stalled_path_costs_no_more_than_five_seconds(postgres_url: str) -> None:
    """With the times that the service has: over an open connection, to read and to write, and over none yet."""
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        receive(database, event("user_created", "before"))
        path.stall()
        assert seconds_until_unavailable(lambda: state(database)) < 5.5
        assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 5.5


def test_every_connection_is_doubted_when_one_has_stalled(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each pooled connection would cost another delivery its 5 s."""
    monkeypatch.setattr(database_session, "STALLED_SECONDS", 1)
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        with database.reading() as one, database.reading() as other, database.reading() as third:
            for session in (one, other, third):
                session.execute(text("SELECT 1"))
        path.stall()
        seconds_until_unavailable(lambda: state(database))
        path.resume()
        started = monotonic()
        with database.reading() as one, database.reading() as other, database.reading() as third:
            for session in (one, other, third):
                session.execute(text("SELECT 1"))
        assert monotonic() - started < 1


def test_a_server_that_is_away_is_said_to_be_at_once(postgres_url: str) -> None:
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        receive(database, event("user_created", "before"))
        path.cut()
        for _ in range(2):
            assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 1
            assert seconds_until_unavailable(lambda: state(database)) < 1
        path.restore()
        assert_received_once(database, person())


def test_a_server_that_goes_in_the_middle_of_a_batch(postgres_url: str) -> None:
    """The batch is tried again, and finds nobody there."""
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        receive(database, event("user_created", "before"))
        path.stall_at(b"INSERT INTO directory_users")
        from threading import Thread
        ended: list[Exception] = []
        def work():
            try: Inbox(database).receive([person()])
            except Exception as e: ended.append(e)
        thread = Thread(target=work); thread.start()
        assert path.stalled.wait(5)
        path.cut()
        thread.join(5)
        assert isinstance(ended[0], Unavailable)
        path.restore()
        assert_received_once(database, person())


def test_idle_connections_that_the_server_closed_are_no_error(postgres_url: str) -> None:
    """As a restart does, or an idle timeout."""
    with opened(postgres_url) as database:
        receive(database, event("user_created", "before"))
        with database.reading() as one, database.reading() as other:
            ours = [session.execute(text("SELECT pg_backend_pid()")).scalar_one() for session in (one, other)]
        with psycopg.connect(postgres_url, autocommit=True) as operator:
            for pid in ours:
                assert operator.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)
        assert state(database)["users"]
        assert_received_once(database, person())


KILL = """CREATE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('kills') <= {times} THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$"""


@pytest.mark.parametrize("moment", ["", "DEFERRABLE INITIALLY DEFERRED"], ids=["at a statement", "at the commit"])
def test_a_connection_lost_in_a_batch_is_made_good_by_doing_it_again(postgres_url: str, moment: str) -> None:
    """Lost once: nobody notices. Lost every time: Unavailable, and nothing is half-written."""
    trigger = f"CREATE CONSTRAINT TRIGGER kills AFTER INSERT ON memberships {moment} FOR EACH ROW EXECUTE FUNCTION kill()"
    with opened(postgres_url) as database:
        execute(postgres_url, "CREATE SEQUENCE kills", KILL.format(times=1), trigger)
        (receipt,) = Inbox(database).receive([person("u")])
        assert receipt.outcome == "processed"
        assert delivery_rows(database)["msg_u"]["attempts"] == 1
        before = state(database), delivery_rows(database)
        execute(postgres_url, "DROP FUNCTION kill CASCADE", KILL.format(times=1000), trigger)
        seconds_until_unavailable(lambda: Inbox(database).receive([person("v"), person("w")]))
        assert (state(database), delivery_rows(database)) == before
        execute(postgres_url, "DROP FUNCTION kill CASCADE")
        assert_received_once(database, person("v"))


@pytest.mark.parametrize("code", ["08006", "25006", "40001", "40P01", "53100", "53200", "55P03", "57014", "58030"])
def test_what_a_server_cannot_do_now_is_unavailable(postgres_url: str, code: str) -> None:
    """Conflicts too, when they do not end: everything else would be kept as `failed`."""
    with opened(postgres_url) as database:
        function = f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE USING ERRCODE = '{code}'; END $$"
        execute(postgres_url, function, "CREATE TRIGGER refuses AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION refuse()")
        seconds_until_unavailable(lambda: Inbox(database).receive([person()]))
        assert delivery_rows(database) == {}
        execute(postgres_url, "DROP FUNCTION refuse CASCADE")
        assert_received_once(database, person())


def test_a_lock_that_somebody_holds_for_long_is_unavailable(postgres_url: str) -> None:
    with opened(postgres_url) as database, psycopg.connect(postgres_url) as somebody:
        somebody.execute("LOCK TABLE users")
        assert 2.5 < seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 4.5
        somebody.rollback()
        assert_received_once(database, person())


def test_too_many_connections_are_unavailable(postgres_url: str) -> None:
    """The server's (SQLSTATE 53300) or our own pool's."""
    role = f"crowded_{os.getpid()}"
    execute(postgres_url, f"CREATE ROLE {role} LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0")
    try:
        with opened(postgres_url.replace("//postgres@", f"//{role}:crowded@")) as database:
            seconds_until_unavailable(lambda: Inbox(database).receive([person()]))
            seconds_until_unavailable(lambda: state(database))
    finally:
        execute(postgres_url, f"DROP ROLE {role}")
    with opened(postgres_url, pool_size=1) as database, database.reading() as busy:
        busy.execute(text("SELECT 1"))
        assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 4.5


def test_a_thousand_open_files_do_not_matter(postgres_url: str) -> None:
    """A busy service has as many callers' connections; `select` would take no descriptor beyond 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    first = os.open(os.devnull, os.O_RDONLY)
    files = [first, *(os.dup(first) for _ in range(1100))]
    try:
        with opened(postgres_url) as database:
            assert_received_once(database, person())
    finally:
        for file in files:
            os.close(file)


WRITER = """import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sqlite_url(sqlite_databases, request) -> Iterator[str]:
    request.node.user_properties.append(("database", "sqlite"))
    with sqlite_databases.fresh(migrated=True) as url:
        yield url


def test_sqlite_locked_for_long_by_another_process_is_unavailable(sqlite_url: str) -> None:
    """Reading goes on meanwhile."""
    command = [sys.executable, "-c", WRITER, sqlite_url.removeprefix("sqlite:///")]
    with opened(sqlite_url) as database, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin and writer.stdout
        writer.stdout.readline()
        assert 2.5 < seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 4.5
        assert state(database)["users"] == []
        writer.stdin.close()
        writer.wait()
        assert_received_once(database, person())


def test_sqlite_that_cannot_be_written_or_opened_is_unavailable(sqlite_url: str) -> None:
    file = sqlite_url.removeprefix("sqlite:///")
    with opened(sqlite_url) as database:
        receive(database, event("user_created", "before"))
        with opened(f"sqlite:///file:{file}?mode=ro&uri=true") as read_only:
            seconds_until_unavailable(lambda: Inbox(read_only).receive([person()]))
            assert state(read_only) == state(database)
    with opened(f"sqlite:///{file}/no/such/folder.db") as nowhere:
        seconds_until_unavailable(lambda: Inbox(nowhere).receive([person()]))
        seconds_until_unavailable(lambda: state(nowhere))


def limit_pages(database: Database, spare: int) -> None:
    """Let the database's file grow by so many pages only."""
    def limit(connection, _) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + spare}")
    listening.listen(database.engine, "connect", limit)


@pytest.mark.parametrize("spare", [0, 10, 150])
def test_a_full_disk_is_unavailable_wherever_it_fills(sqlite_url: str, spare: int) -> None:
    """Also under an event that is applied apart, because another one of its batch fails: SQLite ends the whole transaction then."""
    with opened(sqlite_url) as database:
        receive(database, event("user_created", "before"))
        with database.writing() as session:
            session.execute(text("CREATE TRIGGER fails BEFORE INSERT ON groups WHEN NEW.id = 'bad' BEGIN SELECT RAISE(ABORT, ''); END"))
        before = state(database), delivery_rows(database)
        batch = [delivery(event("group_created", "bad"), "msg_bad"), person("u", notes="x" * 400_000), person("v")]
        with opened(sqlite_url) as full:
            limit_pages(full, spare)
            seconds_until_unavailable(lambda: Inbox(full).receive(batch))
        assert (state(database), delivery_rows(database)) == before
        assert [receipt.outcome for receipt in Inbox(database).receive(batch)] == ["failed", "processed", "processed"]
