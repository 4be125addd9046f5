"""A database that cannot take the work now: Unavailable, nothing half-written, and at work again as soon as it can be."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event as listening
from sqlalchemy import text
from sqlalchemy.engine import make_url

from databases import Databases
from factories import delivery_rows, event, receive, state
from faults import assert_received_once, opened, person, seconds_until_unavailable, use_at_once
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.inbox import Inbox


@pytest.fixture
def sqlite_url(sqlite_databases: Databases, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh, migrated SQLite database, for laws that are SQLite's alone."""
    request.node.user_properties.append(("database", "sqlite"))
    with sqlite_databases.fresh(migrated=True) as url:
        yield url


def execute(url: str, *statements: str) -> None:
    """Execute these on PostgreSQL, as an operator does."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_idle_connections_that_the_server_closed_are_no_error(postgres_url: str) -> None:
    """As it does when it is started anew, or after an idle timeout."""
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
def test_a_batch_whose_connection_is_lost_is_done_again(postgres_url: str, capsys: pytest.CaptureFixture[str], moment: str) -> None:
    """Lost once: nobody notices. Lost every time: Unavailable, and nothing is half-written."""
    trigger = f"CREATE CONSTRAINT TRIGGER kills AFTER INSERT ON memberships {moment} FOR EACH ROW EXECUTE FUNCTION kill()"
    with opened(postgres_url) as database:
        execute(postgres_url, "CREATE SEQUENCE kills", KILL.format(times=1), trigger)
        (receipt,) = Inbox(database).receive([person("u")])
        assert (receipt.outcome, delivery_rows(database)["msg_u"]["attempts"]) == ("processed", 1)
        before = state(database), delivery_rows(database)
        execute(postgres_url, "DROP FUNCTION kill CASCADE", KILL.format(times=1000), trigger)
        seconds_until_unavailable(lambda: Inbox(database).receive([person("v"), person("w")]))
        assert (state(database), delivery_rows(database)) == before
        execute(postgres_url, "DROP FUNCTION kill CASCADE")
        assert_received_once(database, person("v"))
    assert "batch_failed" not in "".join(capsys.readouterr())  # it was never taken for a failure of the events


def test_what_the_server_cannot_do_now_is_unavailable(postgres_url: str) -> None:
    """Conflicts too, when they do not end; by anything else, events would be kept as `failed`."""
    with opened(postgres_url) as database:
        for code in ("08006", "25006", "40001", "40P01", "53100", "53200", "55P03", "57014", "58030"):
            function = f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE USING ERRCODE = '{code}'; END $$"
            execute(postgres_url, function, "CREATE TRIGGER refuses AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION refuse()")
            seconds_until_unavailable(lambda: Inbox(database).receive([person()]))
            execute(postgres_url, "DROP FUNCTION refuse CASCADE")
        assert delivery_rows(database) == {}
        assert_received_once(database, person())


def test_a_lock_that_somebody_holds_for_long_is_unavailable(postgres_url: str) -> None:
    with opened(postgres_url) as database, psycopg.connect(postgres_url) as somebody:
        somebody.execute("LOCK TABLE users")
        assert 2.5 < seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 4.5
        somebody.rollback()
        assert_received_once(database, person())


def test_too_many_connections_are_unavailable(postgres_url: str) -> None:
    """Too many for the server (SQLSTATE 53300), or for our own pool."""
    role = f"crowded_{os.getpid()}"
    execute(postgres_url, f"CREATE ROLE {role} LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0")
    try:
        place = postgres_url.rpartition("@")[2]
        with opened(f"postgresql://{role}:crowded@{place}") as database:
            assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 2
            assert seconds_until_unavailable(lambda: state(database)) < 2
    finally:
        execute(postgres_url, f"DROP ROLE {role}")
    with opened(postgres_url, pool_size=1) as database, database.writing() as busy:
        busy.execute(text("SELECT 1"))
        assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 4.5
        assert state(database)["users"] == []


def test_a_thousand_open_files_do_not_matter(postgres_url: str) -> None:
    """A busy service has as many callers' connections: a descriptor beyond 1023 is as good as any."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
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


def test_sqlite_that_another_process_writes_to_for_long_is_unavailable(sqlite_url: str) -> None:
    """Reading goes on meanwhile."""
    command = [sys.executable, "-c", WRITER, sqlite_url.removeprefix("sqlite:///")]
    with opened(sqlite_url) as database, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin
        assert writer.stdout
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


def test_a_new_sqlite_file_is_shared_from_its_first_use(sqlite_databases: Databases) -> None:
    """It is not in WAL mode yet, and SQLite refuses to switch it at once, without waiting, while another one writes to it."""
    with sqlite_databases.fresh(migrated=False) as url, ThreadPoolExecutor() as threads, opened(url) as database:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            opening = threads.submit(use_at_once, database, 1)
            with pytest.raises(TimeoutError):
                opening.result(0.3)
        opening.result(30)


def limit_growth(database: Database, pages: int) -> None:
    """Let the database grow by so many pages of 4 KiB only, as a disk that is nearly full does."""

    def limit(connection: Any, _: object) -> None:
        (now,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {now + pages}")

    listening.listen(database.engine, "connect", limit)


@pytest.mark.parametrize("pages", [0, 10, 120, 250])
def test_a_disk_that_fills_up_is_unavailable_wherever_it_does(sqlite_url: str, pages: int) -> None:
    """In the inbox, with the users or with the records: the rest of the batch is not stored either."""
    with opened(sqlite_url) as database:
        receive(database, event("user_created", "before"))
        before = state(database), delivery_rows(database)
        batch = [person("v"), person("u", notes="x" * 400_000)]
        with opened(sqlite_url) as full:
            limit_growth(full, pages)
            seconds_until_unavailable(lambda: Inbox(full).receive(batch))
        assert (state(database), delivery_rows(database)) == before
        assert [receipt.outcome for receipt in Inbox(database).receive(batch)] == ["processed", "processed"]


def test_a_sqlite_file_that_is_deleted_or_replaced_is_noticed(sqlite_databases: Databases) -> None:
    """A connection that was opened before would go on answering, from a file that nobody will ever see again."""
    with sqlite_databases.fresh(migrated=True) as url, sqlite_databases.fresh(migrated=True) as backup, opened(url) as database:
        assert [receipt.outcome for receipt in Inbox(database).receive([person("a")])] == ["processed"]
        path = Path(str(make_url(url).database))
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()
        with pytest.raises(Unavailable, match="not migrated"):
            Inbox(database).receive([person("b")])
        shutil.copy(str(make_url(backup).database), path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
        assert [receipt.outcome for receipt in Inbox(database).receive([person("a")])] == ["processed"]
