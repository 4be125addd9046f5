"""The parts of the benchmark: each measures on fresh databases, and gives tables of what came out beside what is asked for."""

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeAlias, TypeVar
from urllib.request import Request, urlopen

import contestants
import events
import sender
import stores
from contestants import Measured, Server, Start
from report import Line, Table

from processes import memory
from provisioning.db.session import Database
from provisioning.events import Delivery
from provisioning.inbox import Inbox
from provisioning.scalekit.signature import SignedHeaders, Verifier

NEW = events.FIRST + 100_000
TITLES = {"created": "first sync", "updated": "updates"}
# Asked for, of each kind of event: so many times the other's events a second, and so many times its processor time for each.
RATES = {"created": {"baseline": 9.0, "pgbench": 1.0}, "updated": {"baseline": 10.0, "pgbench": 1.2}}
COSTS = {"created": {"baseline": 1 / 9, "pgbench": 1.0}, "updated": {"baseline": 1 / 8, "pgbench": 1 / 1.1}}
BASELINE_SHARE = 8  # the baseline gets an eighth of the events: it takes that much longer

T = TypeVar("T")
Found: TypeAlias = dict[str, Measured]  # by kind of event
Round: TypeAlias = dict[str, Found]  # by contestant


def rounds(server: stores.Postgres, options: argparse.Namespace) -> Iterator[Table]:
    """The contestants in turn, and then pgbench with as many events a transaction as the service took: the median of its batches."""
    at_once, count = options.connections, options.events
    contest: dict[str, Callable[[], Found]] = {
        "baseline": lambda: _served(contestants.baseline, server.fresh(), count // BASELINE_SHARE, at_once),
        "pgbench": lambda: _transacted(server, count, at_once),
        "service": lambda: _served(contestants.service, server.fresh(), count, at_once),
    }
    names = [name for name in contest if name not in options.without]
    measured = []
    for number in range(options.rounds):
        one = {name: _told(name, contest[name]()) for name in _turned(names, number)}
        if "service" in one and "batched" not in options.without:
            sizes = {kind: round(median(found.batches)) for kind, found in one["service"].items()}
            one["batched"] = _told("batched", _transacted(server, count, 1, sizes))
        _compare_rows(one)
        measured.append(one)
    for kind in events.KINDS:
        lines = [*_absolute(measured, kind), *_against(measured, kind), *_itself(measured, kind)]
        yield Table(f"{TITLES[kind]}, {at_once} connections", lines)


def connections(server: stores.Postgres, options: argparse.Namespace) -> Iterator[Table]:
    """Fewer and more of them: a client alone must not pay for the crowd's batches, and a larger crowd must not fall behind."""
    shares = {1: 8, 4: 4, 32: 1, 128: 1}
    measured = []
    for number in range(options.rounds):
        one: dict[int, Round] = {}
        for at_once in _turned(list(shares), number):
            count = options.events // shares[at_once]
            one[at_once] = {"service": _told(f"service, {at_once}", _served(contestants.service, server.fresh(), count, at_once))}
            if at_once < 32:
                one[at_once]["pgbench"] = _told(f"pgbench, {at_once}", _transacted(server, count, at_once))
        measured.append(one)
    for kind in events.KINDS:
        lines = [Line(f"service: events/s at {each}", [one[each]["service"][kind].rate for one in measured], unit="") for each in shares]
        for few in (1, 4):
            values = [one[few]["service"][kind].rate / one[few]["pgbench"][kind].rate for one in measured]
            lines.append(Line(f"events/s at {few}: service / pgbench", values, floor=0.5))
        values = [one[128]["service"][kind].rate / one[32]["service"][kind].rate for one in measured]
        lines.append(Line("events/s: service at 128 / at 32", values, floor=1.0))
        yield Table(f"{TITLES[kind]}, by connections", lines)


def workers(server: stores.Postgres, options: argparse.Namespace) -> Iterator[Table]:
    """One process and two."""
    measured = []
    for number in range(options.rounds):
        one = {}
        for many in _turned([1, 2], number):
            start = partial(contestants.service, workers=many)
            one[many] = _told(f"{many} workers", _served(start, server.fresh(), options.events, options.connections))
        measured.append(one)
    ratios = {kind: [one[2][kind].rate / one[1][kind].rate for one in measured] for kind in events.KINDS}
    yield Table("two processes", [Line(f"{TITLES[kind]}, events/s: two / one", ratios[kind], floor=1.3) for kind in events.KINDS])


def sqlite(_: stores.Postgres, options: argparse.Namespace) -> Iterator[Table]:
    """The service and the baseline on a SQLite file, synchronous=FULL."""
    starts: dict[str, tuple[Start, int]] = {
        "baseline": (contestants.baseline, options.events // BASELINE_SHARE),
        "service": (contestants.service, options.events // 2),
    }
    measured = []
    for number in range(options.rounds):
        one = {}
        for name in _turned([*starts], number):
            start, count = starts[name]
            one[name] = _told(f"{name}, SQLite", _served(start, stores.sqlite(), count, options.connections))
        _compare_rows(one)
        measured.append(one)
    for kind in events.KINDS:
        ratios = [one["service"][kind].rate / one["baseline"][kind].rate for one in measured]
        yield Table(f"{TITLES[kind]}, SQLite", [*_absolute(measured, kind), Line("events/s: service / baseline", ratios, floor=7.0)])


def idle(server: stores.Postgres, options: argparse.Namespace) -> Iterator[Table]:
    """One delivery after another, with pauses: over HTTP, and verified and committed in this process without a queue."""
    there, here = [], []
    for number in range(options.rounds):
        first = NEW + 1000 * number
        with server.fresh() as database, contestants.service(database) as service:
            service.warm(1)
            there.append(service.measure("created", first, 200, 1, pause=0.02).p50)
        with server.fresh() as database:
            here.append(median(_alone(database, range(first, first + 200), 0.02)))
    ratios = [one / other for one, other in zip(there, here, strict=True)]
    yield Table(
        "one delivery on an idle service",
        [
            Line("over HTTP: p50", [each * 1e3 for each in there], unit="ms"),
            Line("verify and one transaction: p50", [each * 1e3 for each in here], unit="ms"),
            Line("over HTTP / verify and one transaction", ratios, ceiling=2.0),
        ],
    )


def reading(server: stores.Postgres, options: argparse.Namespace) -> Iterator[Table]:
    """Looking users up, on four connections: while nothing else happens, and while so many connections send."""
    quiet, loaded = [], []
    for _ in range(options.rounds):
        with server.fresh() as database, contestants.service(database) as service:
            service.warm(options.connections)
            lookups = sender.Job(service.port, "lookups", 4, pause=0.01, seconds=3.0, user_ids=database.user_ids())
            with contestants.sending(lookups) as warming:
                warming.go().seen()
            with contestants.sending(lookups) as reader:
                quiet.append(reader.go().seen())
            burst = sender.Job(service.port, "created", options.connections, first=NEW, count=20_000)
            with contestants.sending(burst) as posting, contestants.sending(lookups) as reader:
                posting.go()
                loaded.append(reader.go().seen())
                assert posting.is_busy(), "The burst was over before the look-ups: it needs more events."
    lines = []
    for name, ceiling in (("p50", None), ("p99", 5.0)):
        before, during = ([getattr(each, name) * 1e3 for each in seen] for seen in (quiet, loaded))
        ratios = [one / other for one, other in zip(during, before, strict=True)]
        lines += [Line(f"{name}, idle", before, unit="ms"), Line(f"{name}, during a burst", during, unit="ms")]
        lines.append(Line(f"{name}: during a burst / idle", ratios, ceiling=ceiling))
    refused = [sum(each.answers.values()) - each.accepted for each in quiet + loaded]
    yield Table("looking a user up", [*lines, Line("answers other than 2xx", refused, ceiling=0, unit="")])


def resident(server: stores.Postgres, options: argparse.Namespace) -> Iterator[Table]:
    """Memory of the one process, before and under load; and with Scalekit's SDK loaded, as it is once a portal link was asked for."""
    warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
    from provisioning.emulator.server import Emulator  # noqa: PLC0415  # here: the other parts need it not

    with TemporaryDirectory() as folder, Emulator(Path(folder) / "emulator", deliver_to="http://127.0.0.1:1/") as emulator:
        emulator.structure.add_organization(events.ORGANIZATION, events.ORGANIZATION)
        with_sdk = {**emulator.settings(), **emulator.trust()}
        for title, environment, ceiling in (("webhooks only", None, 120.0), ("with the SDK loaded", with_sdk, 170.0)):
            with server.fresh() as database, contestants.service(database, environment=environment) as service:
                if environment:
                    _ask_for_link(service)
                before, _ = memory(service.pid)
                found = _told("service", _both(service, options.events, options.connections))
                after, peak = memory(service.pid)
            taken = sum(each.events for each in found.values())
            values = (("before", before, None), (f"after {taken:,} events", after, None), ("at most", peak, ceiling))
            yield Table(f"resident memory, {title}", [Line(name, [each], ceiling=most, unit="MiB") for name, each, most in values])


def _served(start: Start, fresh: AbstractContextManager[stores.Fresh], count: int, at_once: int) -> Found:
    with fresh as database, start(database) as server:
        return _both(server, count, at_once)


def _both(server: Server, count: int, at_once: int) -> Found:
    server.warm(at_once)
    return {kind: server.measure(kind, NEW, count, at_once) for kind in events.KINDS}


def _transacted(server: stores.Postgres, count: int, clients: int, sizes: Mapping[str, int] | None = None) -> Found:
    """pgbench, with a transaction for each event, or of as many as `sizes` says."""
    with server.fresh() as database:
        batches = sizes or dict.fromkeys(events.KINDS, 0)
        counts = {"created": count + max(batches.values()), "updated": count}  # whoever is updated has to be there
        return {kind: contestants.pgbench(database, kind, NEW, counts[kind], clients, batch=batches[kind]) for kind in events.KINDS}


def _alone(database: stores.Fresh, numbers: range, pause: float) -> Iterator[float]:
    with closing(Database(database.url)) as own:
        inbox, verifier = Inbox(own), Verifier([events.SECRET])
        for number in numbers:
            content = events.body(number, "created")
            headers = events.headers(number, "created", content)
            time.sleep(pause)
            began = time.perf_counter()
            signed = SignedHeaders.parse(headers, time.time())
            verifier.verify(signed, content)
            inbox.receive([Delivery(signed.webhook_id, signed.timestamp, datetime.now(UTC), content)])
            yield time.perf_counter() - began


def _ask_for_link(service: Server) -> None:
    url = f"http://127.0.0.1:{service.port}/v1/organizations/{events.ORGANIZATION}/portal-links"
    with urlopen(Request(url, method="POST", headers={"Authorization": f"Bearer {events.KEY}"}), timeout=60):
        pass


def _turned(names: Sequence[T], number: int) -> list[T]:
    """Another one first in each round."""
    turn = number % len(names)
    return [*names[turn:], *names[:turn]]


def _told(name: str, found: Found) -> Found:
    """Tells at once what was found, a line for each kind of event, beside the tables that come at the end."""
    for kind, each in found.items():
        answers = ", ".join(f"{count} × {status}" for status, count in each.answers.items())
        processor = f"{each.processor * 1e6:.0f} µs an event ({each.database * 1e6:.0f} in the database; sender {each.sender * 1e6:.0f})"
        times = f"mean {each.mean * 1e3:.1f} ms" + (f", p50 {each.p50 * 1e3:.1f}, p99 {each.p99 * 1e3:.1f}" if each.p99 else "")
        parts = (f"{each.rate:5.0f} events/s", processor, times, answers, _sizes(each))
        print(f"{name:>12} {kind}: {'; '.join(filter(None, parts))}", file=sys.stderr, flush=True)
    return found


def _sizes(found: Measured) -> str:
    """How many transactions took how many events each, by powers of two."""
    counts = Counter(1 << (size - 1).bit_length() for size in found.batches)
    shown = ", ".join(f"{count} × ≤ {size}" for size, count in sorted(counts.items()))
    return f"batches of {median(found.batches):.0f} ({shown})" if counts else ""


def _compare_rows(one: Round) -> None:
    """All write the same rows."""
    for kind in events.KINDS:
        written = {name: found[kind].rows for name, found in one.items()}
        if any(each != next(iter(written.values())) for each in written.values()):
            raise SystemExit(f"Not all write the same rows for a hundred events: {written}")


def _absolute(measured: Sequence[Round], kind: str) -> Iterator[Line]:
    for name in measured[0]:
        yield Line(f"{name}: events/s", [one[name][kind].rate for one in measured], unit="")
        yield Line(f"{name}: processor time an event", [one[name][kind].processor * 1e6 for one in measured], unit="µs")


def _against(measured: Sequence[Round], kind: str) -> Iterator[Line]:
    if "service" not in measured[0]:
        return
    for other in (name for name in ("baseline", "pgbench", "batched") if name in measured[0]):
        pairs = [(one["service"][kind], one[other][kind]) for one in measured]
        rates, costs = ([ours.rate / theirs.rate for ours, theirs in pairs], [ours.processor / theirs.processor for ours, theirs in pairs])
        goal = " (the goal: 0.4)" if other == "batched" else ""
        yield Line(f"events/s: service / {other}{goal}", rates, floor=RATES[kind].get(other))
        yield Line(f"processor time an event: service / {other}", costs, ceiling=COSTS[kind].get(other))
        if other == "baseline":
            yield Line("p99: service / baseline", [ours.p99 / theirs.p99 for ours, theirs in pairs], ceiling=1 / 5)


def _itself(measured: Sequence[Round], kind: str) -> Iterator[Line]:
    ours = [one["service"][kind] for one in measured if "service" in one]
    if ours:
        yield Line("p99: service / its own mean", [each.p99 / each.mean for each in ours], ceiling=4.0)
        yield Line("service: answers other than 2xx", [each.refused for each in ours], ceiling=0, unit="")
        yield Line("service: median batch", [median(each.batches) for each in ours], unit="events")


PARTS = {each.__name__: each for each in (rounds, connections, workers, sqlite, idle, reading, resident)}
