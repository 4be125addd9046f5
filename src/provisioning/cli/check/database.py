"""What `check` says of the database: whether it answers, is migrated, and keeps what it has committed. Nothing is made or changed."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from provisioning.cli import local
from provisioning.cli.check.finding import Finding, note, ok, warn, wrong
from provisioning.db import migrations
from provisioning.db.durability import Durability, durability

DATABASE_HINT = " Is DATABASE_URL right (host, port, user, password, database), and the server running?"

_LOST = "a crash of its machine can lose what Scalekit was told is kept"


def of_sqlite(url: str) -> Iterator[Finding]:
    """Of the file, before anything opens it: what opens it makes it. Nothing where the database is another one."""
    file = Path(make_url(url).database or "")
    if make_url(url).get_backend_name() != "sqlite":
        return
    if not os.access(file.parent, os.W_OK | os.X_OK):
        yield wrong("database", "The folder of the SQLite file that DATABASE_URL names is not there, or not this user's to write to.")
    elif not file.exists():
        yield wrong("database", f"The SQLite file that DATABASE_URL names is not there yet: {local.program()} migrate makes it.")
    elif not os.access(file, os.R_OK | os.W_OK):
        yield wrong("database", "The SQLite file that DATABASE_URL names is not this user's to read and write.")
    elif (mode := _journal_mode(file)) not in {"wal", None}:
        words = f"SQLite's journal mode is {mode}, not wal, so readers and webhooks wait for each other."
        yield warn("database", f"{words} The service changes that when it starts; where it does not stay, the file is on a network's disk.")


def of_database(session: Session) -> Iterator[Finding]:
    """Of one that answers."""
    dialect = session.connection().dialect
    version = ".".join(map(str, dialect.server_version_info or ()))
    yield ok("database", f"{'SQLite' if dialect.name == 'sqlite' else 'PostgreSQL'} {version}")
    if dialect.name == "postgresql":
        yield from of_durability(durability(session))
    to_do = migrations.state(session)
    yield wrong("migrations", to_do) if to_do else ok("migrations", "at this release's tables")


def of_durability(found: Durability) -> Iterator[Finding]:
    """What of a PostgreSQL's settings makes a commit less than it should be."""
    if found.read_only:
        yield wrong("database", "It is a standby, which only reads: point DATABASE_URL at the primary.")
    for name, value, mend in (
        ("fsync", found.fsync, "set it on in postgresql.conf"),
        ("full_page_writes", found.full_page_writes, "set it on in postgresql.conf"),
        ("synchronous_commit", found.synchronous_commit, "set it on for the server, and for this role and database"),
    ):
        if value == "off":
            yield warn("database", f"{name} is off: {_LOST}. Unless the data may go, {mend}.")
    if found.synchronous_standbys and found.synchronous_commit in {"local", "remote_write"}:
        words = f"synchronous_commit is {found.synchronous_commit}: a standby that takes over may lack the last commits"
        yield note("database", f"{words}. After a failover run {local.program()} reconcile --all, or set it on.")


def _journal_mode(file: Path) -> str | None:
    """As the file says it, which reading does not change; None where it is no database, or nobody can tell now."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True)) as connection:
            return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    except sqlite3.Error:
        return None
