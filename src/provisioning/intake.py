"""Joins the async edge to the synchronous core: waiting deliveries are gathered, and one thread commits them a batch at a time.

While a batch commits the next one gathers: an idle service answers at once, a busy one commits in large batches. Every caller is
answered after the commit of its own delivery, or told to come again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic, sleep
from typing import TypeAlias

from structlog import get_logger

from provisioning.errors import Unavailable
from provisioning.events import Delivery
from provisioning.inbox import MAX_BATCH_BYTES, Receipt
from provisioning.logs import describe

MAX_WAITING_BYTES = 4 * MAX_BATCH_BYTES  # of bodies; more batches than that are not committed while anybody waits for them
MAX_BATCH = 128  # each newcomer in it holds up to two of PostgreSQL's shared lock slots until the commit
GATHER_SECONDS = 0.005
LOOK_SECONDS = 0.0005
DEADLINE_SECONDS = 4.8  # to have answered within 5; a database that is away or stalled is given up before that, and says so itself

Receive: TypeAlias = Callable[[Sequence[Delivery]], list[Receipt]]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    delivery: Delivery
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Receipt]" = field(repr=False)

    def resolve(self, result: Receipt | Exception) -> None:
        """Answer the caller, unless it has gone. Runs in the caller's loop."""
        if not self.answer.done():
            if isinstance(result, Exception):
                self.answer.set_exception(result)
            else:
                self.answer.set_result(result)


_Answer: TypeAlias = tuple[_Waiting, Receipt | Exception]


class Intake:
    """A bounded queue before `receive`, emptied by one thread."""

    def __init__(
        self,
        receive: Receive,
        *,
        max_waiting: int,
        deadline: float = DEADLINE_SECONDS,
        count_waiting: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`receive` commits a batch; at most `max_waiting` deliveries wait, each for `deadline` seconds; `count_waiting` hears how many.

        No more join them once their bodies fill MAX_WAITING_BYTES.
        """
        self._receive = receive
        self._max_waiting = max_waiting
        self._deadline = deadline
        self._count_waiting = count_waiting
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0  # of the bodies in it
        self._changed = Condition()
        self._stopping = False
        self._thread = Thread(target=self._work, name="committer", daemon=True)

    def start(self) -> None:
        """Start committing."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what is waiting, then end; after the deadline nobody waits for it any more. Called when no more deliveries can come."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(self._deadline)

    async def submit(self, delivery: Delivery) -> Receipt:
        """The receipt of `delivery`, once it is committed.

        Raises Unavailable when too many wait, when the database is away, or when it took too long: the delivery may still be
        committed then, and the sender's next attempt finds it a duplicate.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(delivery, loop, loop.create_future())
        with self._changed:
            if self._stopping:
                raise Unavailable("The service is stopping.", retry_after=1)
            if len(self._queue) >= self._max_waiting or self._bytes >= MAX_WAITING_BYTES:
                raise Unavailable("Too many deliveries are waiting.", retry_after=1)
            self._queue.append(waiting)
            self._bytes += len(delivery.body)
            self._count_waiting(len(self._queue))
            self._changed.notify()
        try:
            return await asyncio.wait_for(waiting.answer, self._deadline)
        except TimeoutError:
            raise Unavailable("The delivery could not be committed in time.") from None

    def _work(self) -> None:
        expected = 0
        while batch := self._next(expected):
            answers: list[_Answer]
            try:
                answers = list(zip(batch, self._receive([each.delivery for each in batch]), strict=True))
            except Unavailable as error:
                log.warning("database_unavailable", error=describe(error), size=len(batch))
                answers = [(each, error) for each in batch]
            except Exception as error:  # the thread must outlive whatever happens to one batch
                log.error("batch_lost", error=describe(error), size=len(batch))
                answers = [(each, error) for each in batch]
            # Looked at before the answers: who has had one may send the next at once, and crowds nobody.
            expected = len(self._queue) + len(batch) if self._queue else 0
            _answer(answers)

    def _next(self, expected: int) -> list[_Waiting]:
        """The next batch, as soon as there is one; empty when all is done. Those who gave up waiting are left out.

        Where some are `expected`, since others queued behind those who have just been answered, they get a moment to send their next: a
        larger batch costs less a piece.
        """
        patience = monotonic() + GATHER_SECONDS
        while len(self._queue) < min(expected, MAX_BATCH) and monotonic() < patience:
            sleep(LOOK_SECONDS)
        with self._changed:
            while True:
                batch: list[_Waiting] = []
                size = 0
                while self._queue and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
                    waiting = self._queue.popleft()
                    self._bytes -= len(waiting.delivery.body)
                    if not waiting.answer.done():
                        batch.append(waiting)
                        size += len(waiting.delivery.body)
                self._count_waiting(len(self._queue))
                if batch or self._stopping:
                    return batch
                self._changed.wait()


def _answer(answers: Sequence[_Answer]) -> None:
    """Answer all callers of a loop with one wake-up of it."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for waiting, result in answers:
        by_loop.setdefault(waiting.loop, []).append((waiting, result))
    for loop, its_own in by_loop.items():
        with suppress(RuntimeError):  # the loop has closed: its callers are gone
            loop.call_soon_threadsafe(_resolve, its_own)


def _resolve(answers: Sequence[_Answer]) -> None:
    for waiting, result in answers:
        waiting.resolve(result)
