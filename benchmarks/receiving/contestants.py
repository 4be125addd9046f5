"""Who is measured: the service, the baseline and pgbench, each on a database of its own that holds what an earlier sync left."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from select import select
from socket import create_server
from typing import TypeAlias
from urllib.request import urlopen

import events
import sender
import stores

import postgres
from processes import processor_time

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Measured:
    """One run of one contestant. Times are in seconds; `database`, `program` and `sender` are processor time, of one event."""

    events: int
    rate: float
    answers: Mapping[str, int]
    mean: float
    p50: float
    p99: float
    database: float
    program: float
    sender: float
    rows: Mapping[str, int]  # how many it wrote for each hundred events
    batches: tuple[int, ...]  # how many events each transaction took; only PostgreSQL tells

    @property
    def processor(self) -> float:
        """Of the database and the program together. Of pgbench the database's alone: there pgbench is the sender."""
        return self.database + self.program

    @property
    def refused(self) -> int:
        """Answers other than 2xx."""
        return sum(count for status, count in self.answers.items() if not status.startswith("2"))


@dataclass(frozen=True)
class Server:
    """A running service or baseline."""

    port: int
    pid: int
    database: stores.Fresh

    def measure(self, kind: str, first: int, count: int, connections: int, *, pause: float = 0.0) -> Measured:
        """Send events of these people, and see."""
        job = sender.Job(self.port, kind, connections, first=first, count=count, pause=pause)
        with sending(job) as sent, self.database.metered() as meter:
            program = processor_time(self.pid)
            seen = sent.go().seen()
            program = processor_time(self.pid) - program
        times = (seen.mean, seen.p50, seen.p99)
        own = seen.processor / max(sum(seen.answers.values()), 1)
        cost = (meter.database / max(seen.accepted, 1), program / max(seen.accepted, 1), own)
        return Measured(seen.accepted, seen.rate, seen.answers, *times, *cost, meter.rows_of(seen.accepted), meter.batches)

    def warm(self, connections: int) -> None:
        """Have everything imported, connected and prepared."""
        for kind in events.KINDS:
            job = sender.Job(self.port, kind, connections, first=events.FIRST + stores.SEEDED, count=max(300, 4 * connections))
            with sending(job) as sent:
                sent.go().seen()


Start: TypeAlias = Callable[[stores.Fresh], AbstractContextManager[Server]]


class Sending:
    """A sender that is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        self._in, self._out = process.stdin, process.stdout

    def go(self) -> "Sending":
        """Start its clock."""
        self._in.write("go\n")
        self._in.flush()
        return self

    def is_busy(self) -> bool:
        """Whether it is still sending."""
        return not select([self._out], [], [], 0)[0]

    def seen(self) -> sender.Seen:
        """What it saw, once it has ended."""
        return sender.Seen(**json.loads(self._out.readline()))


@contextmanager
def sending(job: sender.Job) -> Iterator[Sending]:
    """A sender with its requests built; at the end it ends, done or not."""
    with subprocess.Popen([sys.executable, sender.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{json.dumps(asdict(job))}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        yield Sending(process)
        process.kill()


@contextmanager
def service(database: stores.Fresh, *, workers: int = 1, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The service, as it is started in production."""
    ours = {"SCALEKIT_WEBHOOK_SECRET": events.SECRET, "PROVISIONING_API_KEYS": events.KEY}
    with _program(["-m", "provisioning.cli", "serve", "--workers", str(workers)], database, {**(environment or {}), **ours}) as server:
        yield server


@contextmanager
def baseline(database: stores.Fresh) -> Iterator[Server]:
    """The guide-style receiver (baseline.py)."""
    with _program([str(HERE / "baseline.py")], database, {}) as server:
        yield server


def pgbench(database: stores.Fresh, kind: str, first: int, count: int, clients: int, *, batch: int = 0) -> Measured:
    """The equivalent transaction an event, or, where a `batch` is given, one for so many events, by so many clients."""
    transactions = max(count // (clients * max(batch, 1)), 1)
    done = transactions * clients * max(batch, 1)
    script = HERE / f"{'batch' if batch else 'transaction'}_{kind}.sql"
    given = {"first": first, "number": 0, "clients": clients, "batch": batch, "organization": events.ORGANIZATION, **database.sample(kind)}
    variables = [f"--define={name}={value}" for name, value in given.items()]
    how = ["--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--jobs={min(clients, 2)}", f"--transactions={transactions}"]
    command = [_pgbench(), *how, f"--file={script}", *variables, database.url]
    with database.metered() as meter:
        before = getrusage(RUSAGE_CHILDREN)
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        after = getrusage(RUSAGE_CHILDREN)
    figures = dict(re.findall(r"^(latency average|tps) = ([0-9.]+)", ended.stdout, re.MULTILINE))
    assert ended.returncode == 0, ended.stderr
    rate, mean = float(figures["tps"]) * max(batch, 1), float(figures["latency average"]) / 1000
    own = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / done
    cost = (meter.database / done, 0.0, own)
    return Measured(done, rate, {"2xx": done}, mean, 0.0, 0.0, *cost, meter.rows_of(done), meter.batches)


@contextmanager
def _program(command: list[str], database: stores.Fresh, more: Mapping[str, str]) -> Iterator[Server]:
    """A Python program that serves, once it does."""
    with create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    around = {**os.environ, **more, "DATABASE_URL": database.url, "PORT": str(port)}
    quiet = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, *command], cwd="/", env=around, stdout=quiet, stderr=quiet) as process:
        try:
            _wait_until_ready(process, port)
            yield Server(port, process.pid, database)
        finally:
            process.terminate()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        try:
            with urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
                return
        except OSError:
            assert process.poll() is None, "It has ended: its own output says why when it is started by hand."
            time.sleep(0.1)
    raise SystemExit("It did not become ready within a minute.")


def _pgbench() -> str:
    found = (folder / "pgbench" for folder in postgres.installations())
    return str(next(each for each in found if os.access(each, os.X_OK)))
