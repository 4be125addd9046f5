"""The sender, a process of its own: so many connections, each with one request under way at a time, until all are answered.

It reads a job as one line of JSON, builds and signs every request, says `ready`, and starts at the next line that it reads. At the end it
prints what it saw. Nothing but writing a request, finding the end of its answer and noting the time is done while the clock runs.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, takewhile
from statistics import mean, quantiles
from typing import cast

import events
import uvloop


@dataclass(frozen=True)
class Job:
    """What to send: events of `kind` of the people from `first` on, or `lookups` of `user_ids`, again and again for so many `seconds`."""

    port: int
    kind: str
    connections: int
    first: int = 0
    count: int = 0
    pause: float = 0.0  # of a connection, between an answer and its next request
    seconds: float = 0.0
    user_ids: tuple[str, ...] = ()

    def requests(self) -> list[bytes]:
        """All of them, built."""
        if self.kind == "lookups":
            return list(events.lookups(self.user_ids))
        return list(events.requests(range(self.first, self.first + self.count), self.kind))


@dataclass(frozen=True)
class Seen:
    """What came of it: answers by status, the times of accepted ones in seconds; `processor` is the sender's own time."""

    answers: dict[str, int]
    seconds: float
    mean: float
    p50: float
    p99: float
    processor: float

    @property
    def accepted(self) -> int:
        """How many were answered 2xx: nothing else counts."""
        return sum(count for status, count in self.answers.items() if status.startswith("2"))

    @property
    def rate(self) -> float:
        """Accepted ones a second."""
        return self.accepted / self.seconds


class _Load:
    """All connections together."""

    def __init__(self, requests: Iterator[bytes], pause: float) -> None:
        self.requests, self.pause = requests, pause
        self.times: list[float] = []
        self.statuses: list[bytes] = []


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load, self._loop = load, asyncio.get_running_loop()
        self._received, self._began = b"", 0.0
        self.done = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        """The next request, if there is one."""
        request = next(self._load.requests, None)
        if request is None:
            self.done.set_result(None)
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        if (end := received.find(b"\r\n\r\n")) < 0:
            return
        length = received.index(b"content-length: ") + 16
        if len(received) < end + 4 + int(received[length : received.index(b"\r", length)]):
            return
        status = received[9:12]
        if status.startswith(b"2"):
            self._load.times.append(time.perf_counter() - self._began)
        self._load.statuses.append(status)
        self._received = b""
        if self._load.pause:
            self._loop.call_later(self._load.pause, self.send)
        else:
            self.send()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self._load.statuses.append(b"lost")
            self.done.set_result(None)


async def _run(job: Job, requests: list[bytes]) -> Seen:
    load = _Load(iter(requests) if not job.seconds else _for(job.seconds, requests), job.pause)
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: _Connection(load), "127.0.0.1", job.port) for _ in range(job.connections)]
    began, processor = time.perf_counter(), time.process_time()
    for _, connection in made:
        connection.send()
    await asyncio.gather(*(connection.done for _, connection in made))
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    answers = {status.decode(): count for status, count in sorted(Counter(load.statuses).items())}
    times = load.times if len(load.times) > 1 else [0.0, 0.0]
    percentiles = quantiles(times, n=100)
    return Seen(answers, seconds, mean(times), percentiles[49], percentiles[98], processor)


def _for(seconds: float, requests: list[bytes]) -> Iterator[bytes]:
    ends = time.perf_counter() + seconds
    return takewhile(lambda _: time.perf_counter() < ends, cycle(requests))


def _main() -> None:
    job = Job(**json.loads(sys.stdin.readline()))
    requests = job.requests()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asdict(uvloop.run(_run(job, requests)))))


if __name__ == "__main__":
    _main()
