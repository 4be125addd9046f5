"""Engines and transactions. `writing()` and `reading()` are the only doors to the database; what goes wrong in them leaves as
`Unavailable` (the database is away, stalled or over-loaded) or `Contended` (another transaction won: try again), or as it is.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import POLLIN, poll
from time import monotonic, sleep
from typing import TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from provisioning.db.arrays import Array, ArrayDumper
from provisioning.db.prepared import ask, numbered
from provisioning.db.watchdog import Watchdog
from provisioning.errors import ConfigurationError, Unavailable
from provisioning.jsons import dumps, loads

T = TypeVar("T")

TRIES = 4  # a deadlock or a race is settled by doing the work again, up to three times

# Together these stay under the 5 s within which every caller is answered: for a connection, for a lock, for a statement, for a stalled one.
POOL_SECONDS = 1
LOCK_SECONDS = 3
STATEMENT_SECONDS = 3.5
STALLED_SECONDS = 3.7
SQLITE_NEEDED = (3, 38)
IDLE_SECONDS = 15  # of a transaction: where we were cut off and the server did not notice, its locks are in the way of the next attempt

# SQLSTATE classes and codes that say "not now": connection, resources, operator intervention, a standby that only reads.
_AWAY = ("08", "53", "57", "58", "25006", "55P03", "3D000", "28")
_GRANT = (
    "The role of DATABASE_URL lacks rights on the tables: GRANT it SELECT, INSERT, UPDATE and DELETE on all of them, and USAGE and"
    " SELECT on the sequences. Only `provisioning migrate` needs the role that owns them."
)
_UNMIGRATED = {"42P01", "42703"}  # no such table, no such column
_NO_SUCH = re.compile(r"no such (table|column)|table \w+ has no column")  # SQLite has no code of its own for it
_CONTENDED = ("40001", "40P01", "0A000")  # the last: a plan that the server kept is none any more, since somebody altered its table
_SQLITE_AWAY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")
_BROKEN = {
    "SQLITE_NOTADB": "The file that DATABASE_URL names is not a SQLite database.",
    "SQLITE_CORRUPT": "The SQLite database is damaged: restore it from a backup.",
}


class Contended(Exception):
    """Another transaction won a deadlock or a race, or the connection was lost: the same work, done again, can succeed."""


class Database:
    """One database, for threads to share. Writers and readers have connections of their own: no crowd of readers keeps a webhook waiting.

    A statement that hears nothing for 3.7 s loses its connection, since neither libpq nor the server notices a stalled path.
    """

    def __init__(self, url: str, *, writers: int = 4, readers: int = 8) -> None:
        """Connect lazily to `url` (`sqlite:///…` or `postgresql://…`); nothing is opened until it is used."""
        self.engine = make_engine(url, pool_size=writers, begin="write")
        self._readers = make_engine(url, pool_size=readers, begin="read")
        self.dialect = self.engine.dialect.name
        self._watchdog = Watchdog(STALLED_SECONDS)
        if self.dialect == "postgresql":
            self._watchdog.guard(self.engine)
            self._watchdog.guard(self._readers)
        self._writing = sessionmaker(self.engine.execution_options(begin="write"), expire_on_commit=False)
        self._reading = sessionmaker(self._readers.execution_options(begin="read"), expire_on_commit=False)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is committed at the end of the block, or not at all. Raises Unavailable, Contended."""
        with named_failures(), self._writing.begin() as session:
            yield session

    def write(self, work: Callable[[Session], T]) -> T:
        """What `work` returns, committed: it is done again while another transaction wins. Raises Unavailable."""
        for _ in range(TRIES):
            with suppress(Contended), self.writing() as session:
                return work(session)
        raise Unavailable("The database is over-loaded.")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction to read in. Raises Unavailable."""
        try:
            with named_failures(), self._reading.begin() as session:
                yield session
        except Contended as error:
            raise Unavailable from error

    def close(self) -> None:
        """Close every pooled connection and stop the watchdog."""
        self.engine.dispose()
        self._readers.dispose()
        self._watchdog.stop()


def make_engine(url: str, *, pool_size: int = 1, begin: str = "migrate") -> Engine:
    """An engine with the settings that this service's correctness rests on, and no values in its errors. Most of its transactions are to
    `begin` this way; another is an execution option.

    Raises ConfigurationError where SQLite's library is older than what the statements need (RETURNING, `->>`).
    """
    sqlite = make_url(url).get_backend_name() == "sqlite"
    if sqlite and sqlite3.sqlite_version_info < SQLITE_NEEDED:
        needed = ".".join(map(str, SQLITE_NEEDED))
        raise ConfigurationError(f"This Python's SQLite is {sqlite3.sqlite_version}; {needed} or newer is needed, or PostgreSQL.")
    # By themselves both drivers would begin a transaction in their own way: _begin_sqlite and _begin_postgresql do.
    connect_args = {"timeout": LOCK_SECONDS} if sqlite else {"connect_timeout": LOCK_SECONDS, "autocommit": True, "client_encoding": "utf8"}
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        hide_parameters=True,
        json_serializer=dumps,
        json_deserializer=loads,
        connect_args=connect_args,
    )
    if sqlite:
        path = Path(make_url(url).database or "")
        event.listen(engine, "do_connect", lambda *_: _create_private(path))
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "connect", lambda _, entry: entry.info.update(file=_identity(path)))
        event.listen(engine, "checkout", lambda _, entry, __: _refuse_replaced(path, entry))
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", lambda connection, entry: _prepare_postgresql(connection, entry, begin))
        event.listen(engine, "checkout", _refuse_closed)
        event.listen(engine, "begin", _begin_postgresql)
    return engine


def _create_private(path: Path) -> None:
    """Where there is no file yet, make one that is its owner's alone, as SQLite's own files beside it then are: everybody is in it."""
    with suppress(OSError):  # it is there, or SQLite will say why it cannot be
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _refuse_replaced(path: Path, entry: ConnectionPoolEntry) -> None:
    """A connection to a file that was deleted or replaced still works, and what is written to it is lost with it."""
    if entry.info.get("file") != _identity(path):
        raise exc.DisconnectionError


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would be a deferred one: two writers that read first lose updates
    cursor = connection.cursor()
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_wal(cursor: DBAPICursor) -> None:
    """Who first uses a new file switches it for good. Meanwhile SQLite refuses the others at once, whatever `timeout` they gave."""
    patience = monotonic() + LOCK_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or monotonic() > patience:
                raise
            sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("begin") in {"write", "migrate"}
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


_LIMITS = {
    "lock_timeout": f"'{LOCK_SECONDS}s'",
    "statement_timeout": f"'{STATEMENT_SECONDS}s'",
    "idle_in_transaction_session_timeout": f"'{IDLE_SECONDS}s'",
    "timezone": "'UTC'",
}
# What is written is found by its key, and a plan that is kept must not read from end to end what was small when it was made. (To JIT a
# forbidden way looks worth compiling where it is the only one, as to a sequence.)
_BY_KEY = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
_SETTINGS = {"read": _LIMITS, "write": _LIMITS | _BY_KEY, "migrate": {}, "none": {}}
_BEGIN = {
    # A page is read by several statements, which should see one state; SQLite's transactions do so by themselves.
    "read": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "write": "BEGIN",
    "migrate": "BEGIN",
    "none": "",  # each statement by itself, as VACUUM wants it, on an engine that keeps no settings
}


def _prepare_postgresql(connection: DBAPIConnection, entry: ConnectionPoolEntry, begin: str) -> None:
    """Keep settings and prepared statements on the server, which spares it saying them and planning; not behind a pooler such as
    pgbouncer, where the next transaction may run on another server connection: it says another process id than the server itself.
    """
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    direct = cursor.fetchone() == (connection.info.backend_pid,)
    if direct and _SETTINGS[begin]:
        cursor.execute("; ".join(f"SET {name} = {value}" for name, value in _SETTINGS[begin].items()))
    cursor.close()
    entry.info["keeps"] = begin if direct else "migrate"
    connection.prepare_threshold = 1 if direct else None
    connection.adapters.register_dumper(Array, ArrayDumper)


def _begin_postgresql(connection: Connection) -> None:
    """Begin, with this transaction's settings where the connection keeps others, in one round trip."""
    how = connection.get_execution_options().get("begin", "migrate")
    kept = connection.connection.info["keeps"]
    settings = {} if kept == how else dict.fromkeys(_SETTINGS[kept], "DEFAULT") | _SETTINGS[how]
    if begin := _BEGIN[how]:
        ask(connection, numbered("; ".join([begin, *(f"SET LOCAL {name} = {value}" for name, value in settings.items())])))


def _refuse_closed(connection: DBAPIConnection, _: ConnectionPoolEntry, __: object) -> None:
    """An idle connection that has something to read was closed by the server; found without a round trip."""
    readable = poll()  # `select` takes no descriptor beyond 1023
    readable.register(connection.fileno(), POLLIN)
    if readable.poll(0):
        raise exc.DisconnectionError


@contextmanager
def named_failures() -> Iterator[None]:
    """Raise what goes wrong between us and the database as Unavailable or Contended, and everything else as it is."""
    try:
        yield
    except exc.TimeoutError as error:
        raise Unavailable("The database has no free connection.") from error
    except exc.DBAPIError as error:
        if error.connection_invalidated or _code(error).startswith(_CONTENDED):
            raise Contended from error
        if _code(error) in _BROKEN:
            raise Unavailable(_BROKEN[_code(error)]) from error
        if _code(error) in _UNMIGRATED or _NO_SUCH.match(str(error.orig)):
            raise Unavailable("The database is not migrated: run `provisioning migrate`.") from error
        if _code(error) == "42501":
            raise Unavailable(_GRANT) from error
        if _code(error).startswith(_AWAY + _SQLITE_AWAY) or _never_connected(error):
            raise Unavailable from error
        raise


def _code(error: exc.DBAPIError) -> str:
    """The SQLSTATE, or SQLite's name of the error, or nothing."""
    return cast(str, getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or "")


def _never_connected(error: exc.DBAPIError) -> bool:
    return isinstance(error, exc.OperationalError | exc.InterfaceError) and not _code(error)
