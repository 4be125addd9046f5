"""SIGTERM in the middle of a burst: whoever was read is answered truthfully, nobody new is let in, and soon it is over."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from databases import Databases
from factories import delivery_rows, event
from operators import SETTINGS, Operator, Running
from provisioning.db.session import Database
from sending import answer, request

CONNECTIONS = 48
BEFORE, HELD = 2.0, 1.0  # seconds of the burst; of the last of them the database takes nothing, nor for a moment after the signal
STILL_HELD = 0.3
READ_WITHIN = 0.5  # seconds in which what was written has been read, on a machine that is full of other tests
ENDS_WITHIN = 10.0


@dataclass
class Request:
    """A delivery, and its answer, if one came."""

    webhook_id: str
    written: float
    status: int | None = None
    answered: float = 0.0


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
        while True:
            writer = None
            try:
                reader, writer = await asyncio.open_connection(place.hostname, place.port)
                while True:
                    turn += 1
                    await self._ask(reader, writer, f"msg_{number:02}_{turn:04}", event("user_created", f"du_{number:02}_{turn:04}"))
            except ConnectionRefusedError:
                return
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # closed: a new one is tried
            finally:
                if writer:
                    writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, webhook_id: str, body: bytes) -> None:
        writer.write(request(webhook_id, body))
        asked = Request(webhook_id, time.monotonic())
        self.requests.append(asked)
        asked.status, _ = await answer(reader)
        asked.answered = time.monotonic()


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
            burst, told, ended = asyncio.run(end_in_a_burst(running, url))
        with closing(Database(url)) as database:
            stored = delivery_rows(database)
    read = [each for each in burst.requests if each.written < told - READ_WITHIN]
    assert len(read) > 2 * CONNECTIONS
    assert {each.status for each in read} <= {201, 503}  # each has an answer
    under_way = [each for each in read if each.answered > told]
    assert under_way
    assert {each.status for each in under_way} == {201}  # the database was back soon enough
    assert {each.status for each in burst.requests} <= {201, 503, None}
    assert {each.webhook_id for each in burst.requests if each.status == 201} <= stored.keys()
    assert ended - told < ENDS_WITHIN
    answers = [each.status for each in burst.requests]
    said = f"{answers.count(201)} × 201, {len(under_way)} of them under way at the end, {answers.count(503)} × 503"
    say(f"{said}; over after {ended - told:.1f} s")


async def end_in_a_burst(running: Running, database_url: str) -> tuple[Burst, float, float]:
    """The burst; when the service was told to end, and when it had."""
    burst = Burst(running.url)
    sending = asyncio.create_task(burst.send())
    await asyncio.sleep(BEFORE - HELD)
    with closing(Database(database_url, writers=1)) as database, ExitStack() as holding:
        session = holding.enter_context(database.writing())
        # SQLite's one writer is whoever has begun to write.
        session.execute(text("LOCK TABLE deliveries IN EXCLUSIVE MODE" if database.dialect == "postgresql" else "SELECT 1"))
        await asyncio.sleep(HELD)
        told = time.monotonic()
        ending = asyncio.create_task(asyncio.to_thread(running.end))
        await asyncio.sleep(STILL_HELD)
    assert await ending == 0
    ended = time.monotonic()
    await asyncio.wait_for(sending, 30)
    place = urlsplit(running.url)
    with pytest.raises(ConnectionRefusedError), socket.create_connection((place.hostname, place.port)):
        pass
    return burst, told, ended
