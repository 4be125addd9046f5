"""What the change log costs: in time, while events are received, and in room, for a year of an organization's life.

    python benchmarks/change_log.py [--people 5000] [--rounds 3] [--database-url postgresql://…]

Time: each round receives a first sync, then new names, then new groups of the same people, in batches of 128, into an organization of its
own; once with the log, and once with nothing written into it. The ratios are of medians of events a second: with the log to without.
Room: everybody is created in three groups and with a role, and within the year changes two values of the profile and one group; a sixth
leaves, and as many come. What the log takes by then, indexes included, is scaled to 50,000 people.

The database is emptied: give one that holds nothing else (without, a SQLite file is made).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from unittest.mock import patch

from sqlalchemy import func, select, text

from provisioning.db import migrations
from provisioning.db.models import changes, metadata
from provisioning.db.session import Database
from provisioning.events import Delivery, rfc3339
from provisioning.inbox import Inbox

BATCH = 128
PEOPLE_ASKED_FOR = 50_000
KINDS = ("first sync", "new names", "new groups")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database-url")
    options = parser.parse_args()
    with _database(options.database_url) as database:
        _compare_times(database, options.people, options.rounds)
        _measure_room(database, options.people)


def _compare_times(database: Database, people: int, rounds: int) -> None:
    rates: dict[str, dict[str, list[float]]] = {kind: {"with": [], "without": []} for kind in KINDS}
    for number in range(rounds):
        for how in ("with", "without") if number % 2 else ("without", "with"):
            organization_id = f"org_{how}_{number}"
            for kind, bodies in zip(KINDS, _life(organization_id, people), strict=True):
                if how == "with":
                    rates[kind][how].append(_rate(database, bodies))
                else:
                    with patch("provisioning.dispatcher.log.record", lambda *_: None):
                        rates[kind][how].append(_rate(database, bodies))
    for kind, each in rates.items():
        with_log, without = median(each["with"]), median(each["without"])
        print(f"{kind:>11}: {with_log:6.0f} events/s with the log, {without:6.0f} without: {with_log / without:.2f} times as many")


def _rate(database: Database, bodies: list[bytes]) -> float:
    inbox, deliveries = Inbox(database), list(_deliveries(bodies))
    began = time.perf_counter()
    for start in range(0, len(deliveries), BATCH):
        inbox.receive(deliveries[start : start + BATCH])
    return len(deliveries) / (time.perf_counter() - began)


def _measure_room(database: Database, people: int) -> None:
    _empty(database)
    organization_id = "org_118460706403795901"  # as long as ids are
    for bodies in (*_life(organization_id, people), *_turnover(organization_id, people)):
        _rate(database, bodies)
    with database.reading() as session:
        rows = session.scalar(select(func.count()).select_from(changes)) or 0
    taken = _room(database)
    print(f"{rows / people:.1f} changes a person and year, {taken / rows:.0f} bytes each with their indexes")
    print(f"a year of {PEOPLE_ASKED_FOR} people: {taken / people * PEOPLE_ASKED_FOR / 1e6:.0f} MB on {database.dialect}")


def _room(database: Database) -> int:
    if database.dialect == "postgresql":
        with database.engine.execution_options(begin="none").connect() as connection:
            connection.execute(text("VACUUM ANALYZE changes"))
            return int(connection.execute(text("SELECT pg_total_relation_size('changes')")).scalar_one())
    sizes = []
    for empty in (False, True):
        with database.engine.execution_options(begin="none").connect() as connection:
            if empty:
                connection.execute(text("DELETE FROM changes"))
                connection.commit()
            connection.rollback()
            connection.connection.driver_connection.execute("VACUUM")  # type: ignore[union-attr] # it is open
            pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
            sizes.append(pages * size)
    return int(sizes[0] - sizes[1])


def _life(organization_id: str, people: int) -> list[list[bytes]]:
    """A first sync, then everybody with a new name and title, then with another group in one's place."""
    return [
        [_event(organization_id, "user_created", number, at=1) for number in range(people)],
        [_event(organization_id, "user_updated", number, at=2, name=f"Other Name {number}", title="Doctor") for number in range(people)],
        [_event(organization_id, "user_updated", number, at=3, moved=1) for number in range(people)],
    ]


def _turnover(organization_id: str, people: int) -> list[list[bytes]]:
    sixth = people // 6
    return [
        [_event(organization_id, "user_deleted", number, at=4) for number in range(sixth)],
        [_event(organization_id, "user_created", number, at=5) for number in range(people, people + sixth)],
    ]


def _event(organization_id: str, kind: str, number: int, *, at: int, moved: int = 0, **more: str) -> bytes:
    in_groups = [(number * 7) % 40, (number * 13 + 1) % 40, (number * 17 + moved) % 40]
    data = {
        "id": f"diruser_{70687244567000000 + number}",
        "organization_id": organization_id,
        "dp_id": f"00u{number:017}",
        "email": f"{organization_id}.{number}@example.com",
        "name": f"First{number} Last{number}",
        "given_name": f"First{number}",
        "family_name": f"Last{number}",
        "preferred_username": f"{number}@example.com",
        "department": f"Department {number % 9}",
        "active": True,
        "groups": [{"id": f"dirgroup_{91263908563290000 + each}", "name": f"Group {each}"} for each in sorted(set(in_groups))],
        "roles": [{"role_name": "member"}],
        **more,
    }
    if kind == "user_deleted":
        data = {name: data[name] for name in ("id", "organization_id", "dp_id", "email")}
    event = {
        "spec_version": "1",
        "id": f"evt_{at * 10**9 + number}",
        "type": f"organization.directory.{kind}",
        "occurred_at": rfc3339((1_750_000_000 + at) * 10**9),
        "environment_id": "env_1",
        "organization_id": organization_id,
        "object": "DirectoryUser",
        "data": data,
    }
    return json.dumps(event).encode()


def _deliveries(bodies: Iterable[bytes]) -> Iterator[Delivery]:
    for body in bodies:
        now = datetime.now(UTC)
        yield Delivery(f"msg_{time.monotonic_ns()}", int(now.timestamp()), now, body)


@contextmanager
def _database(url: str | None) -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        url = url or f"sqlite:///{Path(folder) / 'benchmark.db'}"
        migrations.upgrade(url)
        with closing(Database(url)) as database:
            _empty(database)
            yield database


def _empty(database: Database) -> None:
    names = [f'"{table.name}"' for table in reversed(metadata.sorted_tables) if table.name != "change_log"]
    with database.writing() as session:
        if database.dialect == "postgresql":
            session.execute(text(f"TRUNCATE {', '.join(names)}"))
            return
        for name in names:
            session.execute(text(f"DELETE FROM {name}"))  # noqa: S608 (our own)


if __name__ == "__main__":
    main()
