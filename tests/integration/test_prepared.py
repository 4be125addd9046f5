"""Statements that PostgreSQL keeps prepared: planned once, for tables of every size, and only where the connection is the server's own."""

from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from factories import delivery, event, named
from provisioning.changes import Cause, CauseKind
from provisioning.db.arrays import Array
from provisioning.db.models import metadata, users
from provisioning.db.prepared import ask, numbered
from provisioning.db.session import Database, make_engine
from provisioning.dispatcher import apply
from provisioning.errors import Unavailable
from provisioning.events import parse
from provisioning.inbox import Inbox
from rows import big_organization
from stalling_proxy import StallingProxy

KEY = b"K\x00\x00\x00\x0c"
PREPARED = text("SELECT count(*) FROM pg_prepared_statements")
READ_WHOLE = text("SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables WHERE relname NOT IN ('groups', 'organizations')")


class Pooler(StallingProxy):
    """As pgbouncer does it: whoever connects is told a process id that is not the server's (BackendKeyData, which libpq keeps)."""

    def _hand_on(self, source: Any, target: Any, flowing: Any, asks: bool) -> None:
        key = b"" if not asks else KEY
        while not key and (said := source.recv(65536)):
            before, key, id_and_more = said.partition(KEY)
            target.sendall(before + key + (b"\x00\x00\x00\x01" + id_and_more[4:] if key else b""))
        super()._hand_on(source, target, flowing, asks)


def prepared(session: Session) -> int:
    """How many statements its server connection keeps."""
    return int(session.execute(PREPARED).scalar_one())


def people(*numbers: int, at: float = 0, **more: Any) -> list[bytes]:
    """Events of these people, who are in two groups."""
    return [event("user_created", f"dp_{n:05}", at=at, email=f"p{n}@x.com", groups=named("g1", "g2"), **more) for n in numbers]


@pytest.mark.parametrize(("path", "keeps"), [(StallingProxy, True), (Pooler, False)])
def test_a_server_connection_that_may_be_anothers_next_keeps_no_statement(
    postgres_url: str, path: type[StallingProxy], *, keeps: bool
) -> None:
    with path(postgres_url) as way, closing(Database(way.url, writers=1)) as database:
        for n in range(5):
            Inbox(database).receive([delivery(body) for body in people(2 * n, 2 * n + 1)])
        with database.writing() as session:
            assert (prepared(session) > 5) is keeps


def test_a_plan_made_for_a_few_rows_reads_no_table_of_many_from_end_to_end(postgres_url: str) -> None:
    """Until autovacuum has looked, nothing tells the server to plan anew: a first sync is over by then."""
    with closing(Database(postgres_url, writers=1)) as database:
        for at in range(8):  # after the fifth time the server keeps one plan for all
            read_whole(database, people(*range(3), at=at, name=f"{at}"))
            read_whole(database, people(10 * at + 10, 10 * at + 11, at=at))
        big_organization(database, "org_1", 3_000)
        assert read_whole(database, people(1, 2, at=20, name="new")) == 0
        assert read_whole(database, people(100_001, 100_002)) == 0


def read_whole(database: Database, bodies: list[bytes]) -> int:
    """How many rows were read without an index as these events were applied."""
    events = [parsed for body in bodies if (parsed := parse(delivery(body)).event)]
    with database.writing() as session:
        before = int(session.execute(READ_WHOLE).scalar_one())
        apply(session, events, [Cause(CauseKind.DELIVERY, "msg_1")] * len(events), "live")
        return int(session.execute(READ_WHOLE).scalar_one()) - before


@pytest.mark.parametrize(("path", "keeps"), [(StallingProxy, True), (Pooler, False)])
def test_a_transaction_has_the_settings_of_its_kind(postgres_url: str, path: type[StallingProxy], *, keeps: bool) -> None:
    """Also where the connection keeps those of another; and one that comes after a failure has them, too."""
    with path(postgres_url) as way, closing(Database(way.url, writers=1, readers=1)) as database:
        own = make_engine(way.url)
        with own.connect() as connection:
            servers = settings(connection)
        own.dispose()
        for _ in range(3):
            with database.writing() as session:
                assert settings(session.connection()) == ("3500ms", "3s", "UTC", "off", "off")
            with pytest.raises(ZeroDivisionError), database.writing() as session:
                raise ZeroDivisionError
            with database.reading() as session:
                assert settings(session.connection()) == ("3500ms", "3s", "UTC", *servers[3:])
            with database.engine.connect() as connection:
                assert settings(connection) == servers
        with database.engine.connect() as connection:
            kept = connection.connection.info["keeps"]
        assert (kept == "write") is keeps


def settings(connection: Connection) -> tuple[str, ...]:
    names = ("statement_timeout", "lock_timeout", "timezone", "enable_seqscan", "jit")
    return tuple(connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names)


def test_what_cannot_be_said_is_waited_for_by_nobody(postgres_url: str) -> None:
    """And what cannot be asked any more is an error as everybody's."""
    with closing(Database(postgres_url)) as database:
        wrong = numbered("SELECT * FROM unnest(%(texts)s::text[])")
        with database.writing() as session:
            with pytest.raises(UnicodeEncodeError):
                ask(session.connection(), wrong, {"texts": Array("text", ["\ud800"])})
            assert database._watchdog._deadlines == {}
            assert session.execute(text("SELECT 1")).scalar_one() == 1

        def ask_what_is_closed() -> None:
            with database.reading() as session:
                connection = session.connection()
                connection.connection.dbapi_connection.close()  # type: ignore[union-attr]  # there is one
                ask(connection, wrong, {"texts": Array("text", ["x"])})

        with pytest.raises(Unavailable):
            ask_what_is_closed()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_text_is_itself_whatever_the_servers_clients_speak(postgres_url: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    with closing(Database(postgres_url)) as database:
        Inbox(database).receive([delivery(event("user_created", "u1", email="u1@x.com", name="José 東京"))])
        with database.reading() as session:
            assert session.execute(select(users.c.name, users.c.email)).all() == [("José 東京", "u1@x.com")]


def test_each_table_begins_with_its_key() -> None:
    """A row's key is read off its first columns."""
    for table in metadata.tables.values():
        assert list(table.columns)[: len(table.primary_key)] == list(table.primary_key)
