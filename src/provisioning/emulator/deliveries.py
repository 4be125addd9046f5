"""The delivery side: every event is signed and posted until it is answered with a 2xx or the schedule is over, and every attempt is logged.

Delivered at least once and in no order, as Scalekit's are. Switches make it worse, while it runs.
"""

import asyncio
import contextlib
import heapq
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import count

import httpx
from standardwebhooks import Webhook

from provisioning.emulator.company import Company
from provisioning.emulator.endpoint import Endpoint
from provisioning.emulator.records import Attempt, Delivery, Event, Progress
from provisioning.emulator.store import Store
from provisioning.emulator.switches import SCHEDULE, Switches
from provisioning.errors import Conflict, NotFound

ANSWER_WITHIN = 10.0  # seconds

_chance = random.Random()  # noqa: S311  # chance, not secrecy


class Deliveries:
    """Posts to `endpoint` from a thread of its own, between `start` and `stop`. What is still waiting then goes on at the next start."""

    def __init__(self, store: Store, company: Company, endpoint: Endpoint, switches: Switches | None = None) -> None:
        self.usual = self.switches = switches or Switches()
        self.version = 0
        self._store = store
        self._company = company
        self._endpoint = endpoint
        self._changed = threading.Condition()
        self._deliveries: dict[str, Delivery] = {}
        self._counts: Counter[Progress] = Counter()
        self._attempts = 0
        self._put(store.load(Delivery))
        self._due: list[tuple[float, int, str]] = []
        self._order = count()  # those due at one moment go as they came
        self._open = 0  # in the queue or under way
        self._ending = False
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="emulator-deliveries")
        self._schedule((delivery.id, 0) for delivery in self._deliveries.values() if delivery.progress is Progress.WAITING)
        self.take([event for event in company.events() if _webhook_id(event) not in self._deliveries])
        company.listen(self.take)

    def start(self) -> None:
        """Begin, with what is waiting."""
        self._thread.start()

    def stop(self) -> None:
        """End; requests under way are cut."""
        with self._changed:
            self._ending = True
            if self._loop and self._task:
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    self._loop.call_soon_threadsafe(self._task.cancel)
        if self._thread.ident:
            self._thread.join()

    def take(self, events: Sequence[Event]) -> None:
        """Deliver these."""
        fresh = [_first(event) for event in events]
        with self._changed:
            self._put(fresh)
        self._schedule((delivery.id, _chance.uniform(0, self.switches.reorder)) for delivery in fresh)

    def switch(self, changes: Mapping[str, object]) -> Switches:
        """The switches from now on: as they are, but for `changes`. Raises pydantic's ValidationError."""
        self.switches = Switches.model_validate({**self.switches.model_dump(), **changes})
        self._schedule(())  # to look at the queue again
        return self.switches

    def resend(self, webhook_ids: Iterable[str] | None = None) -> list[str]:
        """Begin again with these, or with all that were given up; returns which. Raises NotFound."""
        with self._changed:
            if webhook_ids is None:
                found = [each for each in self._deliveries.values() if each.progress is Progress.GIVEN_UP]
            else:
                found = [self.find(webhook_id) for webhook_id in dict.fromkeys(webhook_ids)]
            for delivery in found:
                if delivery.progress is Progress.WAITING:
                    raise Conflict(f"{delivery.id} is waiting for its next attempt already.")
            again = [each.model_copy(update={"progress": Progress.WAITING, "round": 0}) for each in found]
            self._keep(again)
        self._schedule((delivery.id, 0) for delivery in again)
        return [delivery.id for delivery in again]

    def find(self, webhook_id: str) -> Delivery:
        """The delivery. Raises NotFound."""
        with self._changed:
            if webhook_id not in self._deliveries:
                raise NotFound(f"There is no delivery {webhook_id}.")
            return self._deliveries[webhook_id]

    def latest(self, limit: int, progress: Progress | None = None, subject_id: str | None = None) -> list[Delivery]:
        """The last ones, newest first, of this progress and about this subject."""
        found: list[Delivery] = []
        with self._changed:
            for delivery in reversed(self._deliveries.values()):
                if progress in (None, delivery.progress) and subject_id in (None, delivery.subject_id):
                    found.append(delivery)
                    if len(found) == limit:
                        break
        return found

    @property
    def waiting(self) -> int:
        """How many are to be sent, now or later."""
        return self._counts[Progress.WAITING]

    def counts(self) -> dict[str, int]:
        """How many there are of each progress, and of attempts."""
        with self._changed:
            return {**{progress.value: self._counts[progress] for progress in Progress}, "attempts": self._attempts}

    def settled(self, within: float) -> bool:
        """Wait until nothing is to be sent any more, at most `within` seconds; whether that came about."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, within)

    def _schedule(self, due: Iterable[tuple[str, float]]) -> None:
        now = time.monotonic() + self.switches.delay
        with self._changed:
            for webhook_id, seconds in due:
                heapq.heappush(self._due, (now + seconds, next(self._order), webhook_id))
                self._open += 1
            self.version += 1
        if self._loop:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._work())

    async def _work(self) -> None:
        with self._changed:
            if self._ending:
                return
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as group:
            idle: list[httpx.AsyncClient] = []
            under_way: set[asyncio.Task[None]] = set()
            while True:
                self._wake.clear()
                while len(under_way) < self.switches.at_once and (webhook_id := self._next()):
                    # One each: a shared client asks all of its connections before every request.
                    if not idle:
                        client = httpx.AsyncClient(timeout=ANSWER_WITHIN, trust_env=False, verify=_authorities())
                        idle.append(await clients.enter_async_context(client))
                    task = group.create_task(self._attempt(webhook_id, idle.pop(), idle))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    task.add_done_callback(lambda _: self._wake.set())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause() if len(under_way) < self.switches.at_once else None):
                        await self._wake.wait()

    def _next(self) -> str | None:
        with self._changed:
            if self._due and self._due[0][0] <= time.monotonic() and not self.switches.paused:
                return heapq.heappop(self._due)[2]
        return None

    def _pause(self) -> float | None:
        with self._changed:
            return max(0.0, self._due[0][0] - time.monotonic()) if self._due and not self.switches.paused else None

    async def _attempt(self, webhook_id: str, client: httpx.AsyncClient, idle: list[httpx.AsyncClient]) -> None:
        lost = _chance.random() < self.switches.drop
        started, at = time.monotonic(), datetime.now(UTC)
        status, outcome, error = None, None, None
        if lost and _chance.random() < 0.5:
            error = "lost on its way"
        else:
            try:
                status, outcome = await self._post(client, webhook_id)
            except Exception as failure:  # broad: whatever it is, it would end every other delivery, unseen
                error = type(failure).__name__
            if lost and status is not None:
                status, outcome, error = None, None, "its answer was lost"
        idle.append(client)
        milliseconds = round((time.monotonic() - started) * 1000)
        self._conclude(webhook_id, Attempt(at=at, milliseconds=milliseconds, status=status, outcome=outcome, error=error))

    async def _post(self, client: httpx.AsyncClient, webhook_id: str) -> tuple[int, str | None]:
        body = self._company.event(self.find(webhook_id).event_id).body
        now = datetime.now(UTC)
        signatures = " ".join(Webhook(secret).sign(webhook_id, now, body) for secret in self._endpoint.signing)
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signatures,
        }
        answer = await client.post(self._endpoint.url, content=body.encode(), headers=headers)
        try:
            said = answer.json()
        except ValueError:
            said = None
        outcome = said.get("status") if isinstance(said, dict) else None
        return answer.status_code, outcome if isinstance(outcome, str) else None

    def _conclude(self, webhook_id: str, attempt: Attempt) -> None:
        """Log the attempt, and decide what comes next."""
        answered = attempt.status is not None and 200 <= attempt.status < 300
        with self._changed:
            before = self.find(webhook_id)
            delivery = before.model_copy(update={"attempts": (*before.attempts, attempt), "round": before.round + 1})
            if before.progress is Progress.DELIVERED:
                pass  # this was its duplicate
            elif answered:
                delivery = delivery.model_copy(update={"progress": Progress.DELIVERED})
                if _chance.random() < self.switches.duplicates:
                    self._schedule([(webhook_id, _chance.uniform(0, self.switches.reorder or 1))])
            elif delivery.round < len(SCHEDULE):
                wait = SCHEDULE[delivery.round] * self.switches.retry_scale
                self._schedule([(webhook_id, wait * _chance.uniform(0.9, 1.1))])
            else:
                delivery = delivery.model_copy(update={"progress": Progress.GIVEN_UP})
            self._keep([delivery])
            self._open -= 1
            self._changed.notify_all()

    def _keep(self, deliveries: Sequence[Delivery]) -> None:
        self._store.save(deliveries)
        self._put(deliveries)
        self.version += 1

    def _put(self, deliveries: Iterable[Delivery]) -> None:
        """In memory, over their like; and the counts with them."""
        for delivery in deliveries:
            if before := self._deliveries.get(delivery.id):
                self._counts[before.progress] -= 1
                self._attempts -= len(before.attempts)
            self._deliveries[delivery.id] = delivery
            self._counts[delivery.progress] += 1
            self._attempts += len(delivery.attempts)


@cache
def _authorities() -> ssl.SSLContext:
    """Loaded once: that takes 30 ms, and there are as many clients as deliveries under way."""
    return httpx.create_ssl_context(trust_env=False)


def _first(event: Event) -> Delivery:
    """Nothing of it is kept before its first attempt: whoever starts again finds an event without a delivery."""
    return Delivery(
        id=_webhook_id(event), event_id=event.id, type=event.type, organization_id=event.organization_id, subject_id=event.subject_id
    )


def _webhook_id(event: Event) -> str:
    return f"msg_{event.id.removeprefix('evt_')}"
