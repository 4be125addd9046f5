"""Load: ten minutes of nearly as much as there can be leave no trace in memory, descriptors or answers; and more at once than can wait is
refused, and lost never.
"""

import asyncio
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import count, islice
from pathlib import Path
from random import Random
from statistics import median, quantiles

import pytest

from databases import Databases
from factories import delivery_rows, event, named
from operators import SETTINGS, Operator, Running
from processes import descriptors, memory, watched
from provisioning.bodies import Json
from provisioning.cli.connections import RESERVED
from provisioning.db.session import Database
from sending import Paced, Sent, Wanted, at_once, send

MINUTES, SHARE = 10, 0.8
PEOPLE = 5_000
CONNECTIONS, MOST_CONNECTIONS = 32, 256
MEASURED, TIMES = 6_000, 3  # deliveries, of which it takes so many a second at the slowest

FLOOD, SENDERS = 20_000, 2


def changes(chance: Random) -> Iterator[Wanted]:
    """Without end: everybody comes, and then one in ten is another newcomer, and the others have their names changed."""
    known = 0
    for number in count():
        if comes := known < PEOPLE or chance.random() < 0.1:
            known += 1
        person = known if comes else chance.randrange(known)
        groups = named(*(f"grp_{each}" for each in Random(person).sample(range(50), 3)))  # noqa: S311  # chance, not secrecy
        data: dict[str, Json] = {"email": f"{person}@acme.example", "given_name": f"Name {number}", "groups": groups}
        body = event("user_created" if comes else "user_updated", f"du_{person}", at=number, number=number, **data)  # type: ignore[arg-type] # its data
        yield f"msg_{number}", body


@contextmanager
def serving(request: pytest.FixtureRequest, folder: Path, kind: str) -> Iterator[tuple[Running, Database]]:
    """A service of one process on a fresh database, and that database."""
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    request.node.user_properties.append(("database", kind))
    with ExitStack() as stack:
        url = stack.enter_context(databases.fresh(migrated=True))
        database = stack.enter_context(closing(Database(url)))
        yield stack.enter_context(Operator(folder, {**SETTINGS, "DATABASE_URL": url}).started("serve")), database


@pytest.mark.proof
@pytest.mark.alone
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_ten_minutes_of_load_leave_no_trace(request: pytest.FixtureRequest, tmp_path: Path, say: Callable[[str], None], kind: str) -> None:
    events = changes(Random(1))  # noqa: S311  # chance, not secrecy
    with serving(request, tmp_path, kind) as (running, database):
        asyncio.run(send([running.url], at_once(islice(events, PEOPLE)), CONNECTIONS))
        rate = SHARE * min(measured(running, islice(events, MEASURED)) for _ in range(TIMES))
        first = PEOPLE + TIMES * MEASURED
        pid = running.process.pid
        with watched(lambda: (memory(pid)[0], descriptors(pid)[pid]), 1) as seen:
            sent = asyncio.run(send([running.url], Paced(events, rate, MINUTES * 60), MOST_CONNECTIONS))
        stored = delivery_rows(database)
    assert sent.lost == 0
    assert sent.answers.keys() <= {201, 503}
    assert len(sent.accepted) >= MINUTES * 60 * rate - 1
    assert sent.accepted.keys() <= stored.keys()
    times: list[list[float]] = [[] for _ in range(MINUTES)]
    for webhook_id, seconds in sent.accepted.items():
        number = int(webhook_id.removeprefix("msg_")) - first
        times[min(int(number / rate / 60), MINUTES - 1)].append(seconds)
    latencies = [quantiles(each, n=100)[98] for each in times]
    # The first fifth fills caches and pools.
    early, late = (seen[len(seen) * start // 5 : len(seen) * (start + 1) // 5] for start in (1, 4))
    before, grown = median(mib for mib, _ in early), median(mib for mib, _ in late) - median(mib for mib, _ in early)
    opened, opened_later = (max(number for _, number in each) for each in (early, late))
    say(
        f"{len(sent.accepted):,} deliveries, {rate:.0f} a second; answers {dict(sent.answers)}; p99 by minute"
        f" {' '.join(f'{each * 1e3:.0f}' for each in latencies)} ms; memory {before:.0f} MiB, {grown:+.1f};"
        f" descriptors {opened}, later {opened_later}"
    )
    assert grown < 8
    assert opened_later < opened + 16
    half = MINUTES // 2
    assert median(latencies[half:]) < 3 * median(latencies[1:half])


def measured(running: Running, events: Iterator[Wanted]) -> float:
    """How many of these it takes a second."""
    began = time.monotonic()
    sent = asyncio.run(send([running.url], at_once(events), CONNECTIONS))
    return len(sent.accepted) / (time.monotonic() - began)


@pytest.mark.proof
@pytest.mark.alone
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_more_at_once_than_can_wait_is_refused_and_not_lost(
    request: pytest.FixtureRequest, tmp_path: Path, say: Callable[[str], None], kind: str
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # There is room for who comes again before the service has noticed that they went.
    connections = (FLOOD if most == resource.RLIM_INFINITY else min(FLOOD, (most - RESERVED) * 3 // 4)) // SENDERS
    with ExitStack() as stack:
        running, database = stack.enter_context(serving(request, tmp_path, kind))
        before, _ = memory(running.process.pid)
        senders = stack.enter_context(ProcessPoolExecutor(SENDERS, multiprocessing.get_context("spawn")))
        began = time.monotonic()
        each = [senders.submit(flood, running.url, number * FLOOD // SENDERS, connections) for number in range(SENDERS)]
        found = [one.result() for one in each]
        seconds = time.monotonic() - began
        _, peak = memory(running.process.pid)
        assert running.get("/health/ready").status_code == 200
        stored = delivery_rows(database)
    answers = sum((one.answers for one in found), Counter[int]())
    say(
        f"{FLOOD:,} deliveries over {SENDERS * connections:,} connections: {dict(answers)}, all taken after {seconds:.0f} s;"
        f" memory {before:.0f} MiB before, at most {peak:.0f}; longest answer {max(one.longest for one in found):.1f} s;"
        f" {sum(one.lost for one in found)} attempts without one, as where the system's queue of connections is full"
    )
    assert answers[201] == FLOOD
    assert answers.keys() == {201, 503}  # the bound was met
    assert sum(one.without_retry_after for one in found) == 0
    assert sum(one.lost for one in found) <= FLOOD // 100
    assert {webhook_id for one in found for webhook_id in one.accepted} == stored.keys()
    assert {(row["outcome"], row["attempts"]) for row in stored.values()} == {("processed", 1)}


def flood(url: str, first: int, connections: int) -> Sent:
    """A sender's share, from a process of its own, since one has not descriptors enough."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    people = range(first, first + FLOOD // SENDERS)
    wanted = ((f"msg_{number}", event("user_created", f"du_{number}", number=number, email=f"{number}@acme.example")) for number in people)
    # Each attempt has a connection of its own: a sender that is this busy hears late that one was closed.
    return asyncio.run(send([url], at_once(wanted), connections, idle=0))
