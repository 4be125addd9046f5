"""What an event costs once the tables are large: beside what it costs in small ones, in the same PostgreSQL, in turns.

    python benchmarks/growth.py [--users 1000000] [--deliveries 5000000] [--rounds 5] [--statements]

Of two databases one holds 10,000 users, and the other as many as it is told. The deliveries are one event that made each user and others
that renamed them: as many a user in both. Each round receives, in batches of 32 and in both databases, newcomers and new names of people
who are spread over all; what is measured is the time, and the processor time of this process and of all of PostgreSQL's. With fsync.

The service itself received the first 450 people. Everybody else's rows, in every table, are copies of theirs with other ids and addresses
in them, which are scattered: who comes next is nowhere near in any index, as it is at worst. Two things are not as the service would have
written them: of a payload the first hundred bytes are kept, for the disk's sake, and a copy's times are those of what it was copied from.

--statements also says which statements became slower, as pg_stat_statements counts. In full it takes half an hour and 25 GB of disk.
"""

import argparse
import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for the throw-away PostgreSQL
sys.path.insert(0, str(Path(__file__).parent / "receiving"))  # for the events

import events
import psycopg
from psycopg.sql import SQL, Composable, Identifier
from report import Line, Table, circumstances
from stores import OPTIONS

import postgres
from processes import processor_time
from provisioning.db.migrations import upgrade
from provisioning.db.models import metadata
from provisioning.db.session import Database
from provisioning.events import Delivery
from provisioning.inbox import Inbox

FEW = 10_000
BATCH, BATCHES = 32, 20  # of each kind, in a round
WARMING = 5  # batches before the first round
ASKED_FOR = 1.5
TITLES = {"created": "newcomers", "updated": "new names"}
ORIGINALS = 450  # everybody else is in the groups and the department of one of them
PLACES, STRIDE = 2_000_000, 1_234_567  # for the copies of each; coprime, so that every place is taken once


def main() -> None:
    """Fill, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000, help="(%(default)s)")
    parser.add_argument("--deliveries", type=int, default=5_000_000, help="as many for each user, 14 at most (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--statements", action="store_true", help="needs PostgreSQL's contrib")
    options = parser.parse_args()
    each = options.deliveries // options.users
    # A vacuum would come when it likes, and cost whoever is measured then.
    settings = (*OPTIONS, "autovacuum=off", *(["shared_preload_libraries=pg_stat_statements"] if options.statements else []))
    busy = os.getloadavg()[0]
    with (
        postgres.throw_away(settings) as server,
        _store(server.url, "few", FEW, each) as few,
        _store(server.url, "many", options.users, each) as many,
    ):
        print(circumstances(server.description.partition(" (")[0], busy))
        if options.statements:
            few.connection.execute("CREATE EXTENSION pg_stat_statements")
            few.connection.execute("SELECT pg_stat_statements_reset()")
        tables = [_compared(kind, few, many, options.rounds) for kind in events.KINDS]
        print("", *(table.text() for table in tables), few.sizes(), many.sizes(), sep="\n\n")
        if options.statements:
            print(f"\n{_slower(few)}")
    raise SystemExit(any(line.met is False for table in tables for line in table.lines))


@dataclass(frozen=True)
class Store:
    """A database with so many users, and the numbers of who is yet to come and to be renamed."""

    database: Database
    connection: psycopg.Connection
    server: int
    users: int
    people: dict[str, Iterator[int]]

    def measured(self, kind: str) -> tuple[float, float]:
        """The milliseconds that each event of a round takes, and those that a processor is at work for it."""
        began, spent = time.perf_counter(), self._processor_time()
        self.receive(kind, BATCHES)
        took, spent = time.perf_counter() - began, self._processor_time() - spent
        return 1000 * took / (BATCHES * BATCH), 1000 * spent / (BATCHES * BATCH)

    def receive(self, kind: str, batches: int) -> None:
        """Receive so many batches of the events of whose turn it is."""
        inbox = Inbox(self.database)
        for _ in range(batches):
            numbers = [_number(next(self.people[kind])) for _ in range(BATCH)]
            inbox.receive([_delivery(f"msg_{kind}_{number}", events.body(number, kind)) for number in numbers])

    def sizes(self) -> str:
        """What the tables take."""
        lines = (
            f"{name:>16} {rows:>10,} rows {table >> 20:>7,} MiB, indexes {indexes >> 20:>7,} MiB"
            for name, rows, table, indexes in self.connection.execute(_SIZES).fetchall()
        )
        return "\n".join([f"{self.users:,} users", *lines])

    def _processor_time(self) -> float:
        ours = resource.getrusage(resource.RUSAGE_SELF)
        return ours.ru_utime + ours.ru_stime + processor_time(self.server)


@contextmanager
def _store(server: str, name: str, users: int, deliveries: int) -> Iterator[Store]:
    """A new one, for each of whose users so many deliveries have come."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        (pid,) = admin.execute("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int").fetchone() or (0,)
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    upgrade(url)
    there = [*range(ORIGINALS, users)]
    random.Random(users).shuffle(there)  # noqa: S311 (no secret)
    with closing(Database(url)) as database, psycopg.connect(url, autocommit=True) as connection:
        store = Store(database, connection, pid, users, {"created": iter(range(users, 2 * users)), "updated": iter(there)})
        _receive_originals(Inbox(database), deliveries)
        _copy(connection, users)
        for kind in events.KINDS:
            store.receive(kind, WARMING)
        connection.execute("CHECKPOINT")
        yield store


def _receive_originals(inbox: Inbox, deliveries: int) -> None:
    inbox.receive([_delivery(f"msg_group_{each}", events.group(each)) for each in range(events.GROUPS)])
    originals = range(events.FIRST, events.FIRST + ORIGINALS)
    inbox.receive([_delivery(f"msg_0_{number}", events.body(number, "created")) for number in originals])
    for hour in range(1, deliveries):  # other names, before those that are measured
        bodies = (events.body(number, "updated").replace(b"Joan", b"Jo%dan" % hour) for number in originals)
        earlier = (body.replace(b"12T14:", b"12T%02d:" % hour) for body in bodies)
        inbox.receive([_delivery(f"msg_{hour}_{number}", body) for number, body in zip(originals, earlier, strict=True)])


def _copy(connection: psycopg.Connection, users: int) -> None:
    """Everybody but the originals, and what came of them."""
    began = time.perf_counter()
    connection.execute("SET session_replication_role = replica")  # a copy refers to what is copied, too: nobody has to look
    connection.execute("UPDATE deliveries SET payload = substr(payload, 1, 100)")
    connection.execute(_ORIGINALS)
    numbers = {"first": events.FIRST, "originals": ORIGINALS, "stride": STRIDE, "places": PLACES, "users": users}
    for name, (column, whose) in _OF_SOMEBODY.items():
        columns = [column.name for column in metadata.tables[name].columns]
        copied: dict[str, Composable] = {each: SQL("made.{}").format(Identifier(each)) for each in columns}
        if name == "changes":
            copied["position"] = SQL("nextval('changes_position')")
        statement = SQL(_COPY).format(
            table=Identifier(name),
            columns=SQL(", ").join(map(Identifier, columns)),
            copied=SQL(", ").join(copied.values()),
            column=Identifier(column),
            whose=Identifier(whose),
        )
        connection.execute(statement, numbers)
    connection.execute("VACUUM (ANALYZE)")
    print(f"{users:,} users in {time.perf_counter() - began:.0f} s", file=sys.stderr)


def _compared(kind: str, few: Store, many: Store, rounds: int) -> Table:
    costs: dict[int, list[tuple[float, float]]] = {few.users: [], many.users: []}
    for number in range(rounds):
        for store in (few, many) if number % 2 else (many, few):
            costs[store.users].append(store.measured(kind))
    lines = []
    for which, what in enumerate(("time", "processor time")):
        here, there = ([each[which] for each in costs[store.users]] for store in (few, many))
        lines += [Line(f"{what}, {few.users:,} users", here, unit="ms"), Line(f"{what}, {many.users:,} users", there, unit="ms")]
        lines.append(Line("so many times as much", [b / a for a, b in zip(here, there, strict=True)], ceiling=ASKED_FOR))
    return Table(f"{TITLES[kind]}, an event, in batches of {BATCH}", lines)


def _slower(few: Store) -> str:
    lines = [
        f"{times:5.1f} × {before:7.3f} ms {after:7.3f} ms {calls:>6} calls  {query}"
        for times, before, after, calls, query in few.connection.execute(_SLOWER).fetchall()
    ]
    return "\n".join(["Statements that became slower", *lines])


def _number(place: int) -> int:
    """The number of the person at this place."""
    again, original = divmod(place, ORIGINALS)
    return events.FIRST + ORIGINALS * (again * STRIDE % PLACES) + original


def _delivery(webhook_id: str, body: bytes) -> Delivery:
    now = datetime.now(UTC)
    return Delivery(webhook_id, int(now.timestamp()), now, body)


_OF_SOMEBODY = {  # by which column of the table, and which of the original's ids
    "users": ("id", "user_id"),
    "directory_users": ("id", "id"),
    "memberships": ("directory_user_id", "id"),
    "role_grants": ("user_id", "user_id"),
    "changes": ("user_id", "user_id"),
    "deliveries": ("subject_id", "id"),
}
_ORIGINALS = "CREATE TEMP TABLE originals AS SELECT id, right(id, 9) AS number, user_id FROM directory_users"
_COPY = """
    INSERT INTO {table} ({columns})
    SELECT {copied}
    FROM (
        SELECT originals.number, originals.user_id, row_to_json(stored)::text AS told
        FROM originals JOIN {table} AS stored ON stored.{column} = originals.{whose}
    ) AS original
    JOIN generate_series(%(originals)s, %(users)s - 1) AS place ON place %% %(originals)s = number::bigint - %(first)s
    CROSS JOIN LATERAL replace(
        told, number, (number::bigint + %(originals)s * (place / %(originals)s::bigint * %(stride)s %% %(places)s))::text
    ) AS renumbered
    CROSS JOIN LATERAL json_populate_record(
        NULL::{table}, replace(renumbered, user_id, left(user_id, 16) || lpad(to_hex(place), 20, '0'))::json
    ) AS made
"""
_SIZES = """
    SELECT relname, n_live_tup, pg_table_size(relid), pg_indexes_size(relid)
    FROM pg_stat_user_tables WHERE n_live_tup > 1000 ORDER BY pg_total_relation_size(relid) DESC
"""
_SLOWER = """
    SELECT many.mean_exec_time / few.mean_exec_time, few.mean_exec_time, many.mean_exec_time, many.calls,
        left(regexp_replace(query, '\\s+', ' ', 'g'), 150)
    FROM pg_stat_statements AS few JOIN pg_stat_statements AS many USING (query)
    WHERE few.dbid = (SELECT oid FROM pg_database WHERE datname = 'few') AND few.calls > 9
        AND many.dbid = (SELECT oid FROM pg_database WHERE datname = 'many') AND many.calls > 9
        AND many.mean_exec_time > 1.2 * few.mean_exec_time
    ORDER BY (many.mean_exec_time - few.mean_exec_time) * many.calls DESC LIMIT 15
"""

if __name__ == "__main__":
    main()
