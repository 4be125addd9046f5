"""Databases to measure on, each a copy of one that the service itself has received an earlier sync into, on PostgreSQL or SQLite."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import LiteralString
from urllib.parse import urlsplit
from uuid import uuid4

import events
import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

import postgres
from processes import processor_time
from provisioning.db.migrations import upgrade
from provisioning.db.session import Database
from provisioning.events import Delivery
from provisioning.inbox import Inbox

SEEDED = 2_000  # people who are there already, and every group: enough for the planner to know the tables
# As in production; and room enough that checkpoints, which cost whoever is measured then, decide nothing.
OPTIONS = ("fsync=on", "full_page_writes=on", "shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=30min", "max_connections=300")
COUNTED = ("deliveries", "directory_users", "users", "memberships", "role_grants", "changes", "groups", "organizations")


@dataclass
class Meter:
    """What happened in a database meanwhile: its processor time in seconds, the rows written, and the events of each transaction."""

    database: float = 0.0
    written: Mapping[str, int] = field(default_factory=dict)
    batches: tuple[int, ...] = ()

    def rows_of(self, how_many: int) -> dict[str, int]:
        """The rows written for a hundred events, of so many."""
        return {name: round(100 * count / max(how_many, 1)) for name, count in self.written.items()}


@dataclass(frozen=True)
class Fresh:
    """A database of its own; `server` is null of a SQLite file."""

    url: str
    server: "Postgres | None" = None

    @contextmanager
    def metered(self) -> Iterator[Meter]:
        """What happens in it in the block. First what is behind is written out, so that nobody pays for another."""
        if self.server:
            self.server.settle(self.url)
        before, started, spent = self._count(), self._next_transaction(), self._processor_time()
        yield (meter := Meter())
        meter.database = self._processor_time() - spent
        meter.written = {name: count - before[name] for name, count in self._count().items()}
        meter.batches = self._batches(started)

    def sample(self, kind: str) -> dict[str, str]:
        """What the service wrote for an event of this kind, to be written again and again."""
        number = {"created": events.FIRST + 1, "updated": events.FIRST}[kind]
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            found = connection.execute(_SAMPLE, (f"user.{kind}", events.directory_user_id(number))).fetchone()
        return {**(found or {}), "payload": events.body(number, kind).decode()}

    def user_ids(self) -> tuple[str, ...]:
        """Some users."""
        with psycopg.connect(self.url) as connection:
            return tuple(id_ for (id_,) in connection.execute("SELECT id FROM users LIMIT 500"))

    def _count(self) -> dict[str, int]:
        with closing(Database(self.url)) as database, database.engine.connect() as connection:
            return {name: int(connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one()) for name in COUNTED}  # noqa: S608

    def _processor_time(self) -> float:
        return processor_time(self.server.pid) if self.server else 0.0

    def _next_transaction(self) -> int:
        if not self.server:
            return 0
        with psycopg.connect(self.url) as connection:
            return _one(connection, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")

    def _batches(self, since: int) -> tuple[int, ...]:
        """A row tells which transaction wrote it."""
        if not self.server:
            return ()
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT count(*) FROM deliveries WHERE xmin::text::bigint >= %s GROUP BY xmin::text", (since,))
            return tuple(sorted(count for (count,) in found))


class Postgres:
    """A throw-away server."""

    def __init__(self, server: postgres.Server) -> None:
        self.version = server.description.partition(" (")[0]
        self._url = server.url
        self._admin = psycopg.connect(server.url, autocommit=True)
        self.pid = _one(self._admin, "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int")
        self._admin.execute("CREATE DATABASE seeded")
        _seed(self._url_of("seeded"))

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["Postgres"]:
        """A new one."""
        with postgres.throw_away(OPTIONS) as server:
            yield cls(server)

    @contextmanager
    def fresh(self) -> Iterator[Fresh]:
        """A copy of the seeded database."""
        name = f"measured_{uuid4().hex}"
        self._admin.execute(SQL("CREATE DATABASE {} TEMPLATE seeded").format(Identifier(name)))
        try:
            yield Fresh(self._url_of(name), self)
        finally:
            self._admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def settle(self, url: str) -> None:
        """Have the planner know the tables, and write out everything."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE")
        self._admin.execute("CHECKPOINT")

    def _url_of(self, name: str) -> str:
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()


@contextmanager
def sqlite() -> Iterator[Fresh]:
    """A seeded SQLite file; the service opens it with synchronous=FULL, and so does the baseline."""
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'receiving.db'}"
        _seed(url)
        yield Fresh(url)


def _seed(url: str) -> None:
    upgrade(url)
    with closing(Database(url)) as database:
        inbox, now = Inbox(database), datetime.now(UTC)
        deliver = partial(Delivery, sent_at=int(now.timestamp()), received_at=now)
        inbox.receive([deliver(f"msg_group_{each}", body=events.group(each)) for each in range(events.GROUPS)])
        for start in range(events.FIRST, events.FIRST + SEEDED, 100):
            inbox.receive([deliver(f"msg_{each}", body=events.body(each, "created")) for each in range(start, start + 100)])
        inbox.receive([deliver("msg_updated", body=events.body(events.FIRST, "updated"))])


def _one(connection: psycopg.Connection, query: LiteralString) -> int:
    row = connection.execute(query).fetchone()
    assert row
    return int(row[0])


_SAMPLE = """
    SELECT d.registers::text AS registers, u.attributes::text AS attributes, coalesce(c.before::text, 'null') AS before,
        c.after::text AS shown, c.occurred_at::text AS occurred_at
    FROM directory_users d JOIN users u ON u.organization_id = d.organization_id AND u.id = d.user_id
        JOIN changes c ON c.organization_id = u.organization_id AND c.user_id = u.id AND c.type = %s
    WHERE d.id = %s
"""
