"""SIGTERM in the middle of a burst: whoever was read is answered truthfully, nobody new is let in, and soon it is over."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from databases import Databases
from factories import delivery_rows, event
from operators import SECRET, SETTINGS, Operator, Running
from provisioning.db.session import Database
from provisioning.scalekit.signature import sign

CONNECTIONS = 48
BEFORE = 2.0  # seconds of the burst
READ_WITHIN = 0.5  # seconds in which what was written has been read, on a machine that is full of other tests
ENDS_WITHIN = 10.0


@dataclass
class Request:
    """A delivery, and its answer, if one came."""

    webhook_id: str
    written: float
    status: int | None = None


@dataclass
class Burst:
    """Senders, each with a connection of its own and one request at a time, until they are let in no more."""

    url: str
    requests: list[Request] = field(default_factory=list)

    async def send(self) -> None:
        """All of them, to their end."""
        await asyncio.gather(*(self._sender(number) for number in range(CONNECTIONS)))

    async def _sender(self, number: int) -> None:
        place = urlsplit(self.url)
        turn = 0
        try:
            while True:
                reader, writer = await asyncio.open_connection(place.hostname, place.port)
                try:
                    while True:
                        turn += 1
                        await self._ask(reader, writer, f"msg_{number:02}_{turn:04}", event("user_created", f"du_{number:02}_{turn:04}"))
                except (asyncio.IncompleteReadError, ConnectionError):
                    pass  # closed: a new one is tried
                finally:
                    writer.close()
        except ConnectionRefusedError:
            return

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, webhook_id: str, body: bytes) -> None:
        at = int(time.time())
        head = (
            f"POST /webhooks/scalekit HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nwebhook-id: {webhook_id}\r\n"
            f"webhook-timestamp: {at}\r\nwebhook-signature: {sign(SECRET, webhook_id, at, body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        request = Request(webhook_id, time.monotonic())
        self.requests.append(request)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(answer.partition("content-length:")[2].partition("\r\n")[0]))
        request.status = int(answer.split(" ", 2)[1])


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("workers", [1, 4])
def test_whoever_was_read_is_answered_truthfully(
    request: pytest.FixtureRequest, tmp_path: Path, say: Callable[[str], None], kind: str, workers: int
) -> None:
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    with databases.fresh(migrated=True) as url:
        operator = Operator(tmp_path, {**SETTINGS, "DATABASE_URL": url})
        with operator.started("serve", "--workers", str(workers)) as running:
            assert running.get("/health/live").status_code == 200  # worker processes come up after the socket
            burst, told, ended = asyncio.run(end_in_a_burst(running))
        with closing(Database(url)) as database:
            stored = delivery_rows(database)
    read = [each for each in burst.requests if each.written < told - READ_WITHIN]
    assert len(read) > 10 * CONNECTIONS
    assert {each.status for each in read} <= {201, 503}  # each has an answer
    assert {each.status for each in burst.requests} <= {201, 503, None}
    assert {each.webhook_id for each in burst.requests if each.status == 201} <= stored.keys()
    assert ended - told < ENDS_WITHIN
    answers = [each.status for each in burst.requests]
    late = sum(each.status == 201 for each in burst.requests if each.written > told - READ_WITHIN)
    say(f"{answers.count(201)} × 201, {late} of them about the end or later, {answers.count(503)} × 503, over after {ended - told:.1f} s")


async def end_in_a_burst(running: Running) -> tuple[Burst, float, float]:
    """The burst; when the service was told to end, and when it had."""
    burst = Burst(running.url)
    sending = asyncio.create_task(burst.send())
    await asyncio.sleep(BEFORE)
    told = time.monotonic()
    assert await asyncio.to_thread(running.end) == 0
    ended = time.monotonic()
    await asyncio.wait_for(sending, 30)
    place = urlsplit(running.url)
    with pytest.raises(ConnectionRefusedError), socket.create_connection((place.hostname, place.port)):
        pass
    return burst, told, ended
