"""Senders of signed deliveries, over connections that stay open. What is not answered 2xx they send again, when they are told to."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from operators import SECRET
from provisioning.scalekit.signature import sign

Wanted: TypeAlias = tuple[str, bytes]  # a webhook id and a body
IDLE = 2.5  # seconds, half of what the service keeps one open
PATIENCE = 180.0  # seconds in which a delivery is taken, however often it is refused meanwhile
GIVE_UP = 30.0  # seconds, on a machine that is full of other tests

_chance = Random(1)  # noqa: S311  # chance, not secrecy


def request(webhook_id: str, body: bytes) -> bytes:
    """A delivery as it goes over the wire, signed now."""
    at = int(time.time())
    head = (
        f"POST /webhooks/scalekit HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nwebhook-id: {webhook_id}\r\n"
        f"webhook-timestamp: {at}\r\nwebhook-signature: {sign(SECRET, webhook_id, at, body)}\r\n\r\n"
    )
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers of the next answer. Raises IncompleteReadError or ConnectionError where none comes."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    await reader.readexactly(int(headers["content-length"]))
    return int(first.split(" ", 2)[1]), headers


@dataclass
class Sent:
    """What came of deliveries: each answer's status, and the seconds until the one that was 2xx, from when it was due or first sent."""

    answers: Counter[int] = field(default_factory=Counter)
    accepted: dict[str, float] = field(default_factory=dict)
    lost: int = 0  # connections that ended before their answer
    longest: float = 0.0  # seconds from a request to its answer
    without_retry_after: int = 0  # refusals that say not when to come again


async def send(urls: Sequence[str], due: AsyncIterator[tuple[float, Wanted]], connections: int, idle: float = IDLE) -> Sent:
    """Send all that is `due` (from when its time counts, and what) over so many connections, spread over the services at `urls`.

    Who is refused comes again after what Retry-After says, or up to twice as much: they do not all come at the same moment. A connection
    that was `idle` for so many seconds is not used again.
    """
    sent = Sent()
    senders = [_Sender(urlsplit(urls[number % len(urls)]), idle, sent) for number in range(connections)]
    for each in senders:
        await each.open()
    await asyncio.gather(*(each.send(due) for each in senders))
    return sent


@dataclass
class _Sender:
    place: SplitResult
    idle: float
    sent: Sent

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.place.hostname, self.place.port)
        self.free: float | None = None  # since when; nobody closes one that had no request yet

    async def send(self, due: AsyncIterator[tuple[float, Wanted]]) -> None:
        async for since, (webhook_id, body) in due:
            while not await self._attempt(webhook_id, body):
                assert time.monotonic() - since < PATIENCE, webhook_id
            self.sent.accepted[webhook_id] = time.monotonic() - since
        self.writer.close()

    async def _attempt(self, webhook_id: str, body: bytes) -> bool:
        """Whether it was accepted; if not, it is time for the next."""
        try:
            if self.free is not None and time.monotonic() - self.free > self.idle:
                self.writer.close()
                await self.open()
            began = time.monotonic()
            self.writer.write(request(webhook_id, body))
            async with asyncio.timeout(GIVE_UP):
                status, headers = await answer(self.reader)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            self.sent.lost += 1
            self.free, status, headers = 0.0, 0, {"retry-after": "1"}
        else:
            self.free = time.monotonic()
            self.sent.answers[status] += 1
            self.sent.longest = max(self.sent.longest, self.free - began)
        if 200 <= status < 300:
            return True
        assert status in {503, 0}, status
        self.sent.without_retry_after += "retry-after" not in headers
        await asyncio.sleep(float(headers.get("retry-after", 1)) * _chance.uniform(1, 2))
        return False


@dataclass
class Paced:
    """So many a second, whatever becomes of those before, until so many seconds are over: each counts from when it was due."""

    wanted: Iterator[Wanted]
    rate: float
    seconds: float
    began: float = field(default_factory=time.monotonic)
    _turn: int = 0

    def __aiter__(self) -> "Paced":
        return self

    async def __anext__(self) -> tuple[float, Wanted]:
        after = self._turn / self.rate
        self._turn += 1
        if after > self.seconds:
            raise StopAsyncIteration
        await asyncio.sleep(max(0.0, self.began + after - time.monotonic()))
        return self.began + after, next(self.wanted)


async def at_once(wanted: Iterator[Wanted]) -> AsyncIterator[tuple[float, Wanted]]:
    """Each as soon as a connection is free for it."""
    for each in wanted:
        yield time.monotonic(), each
