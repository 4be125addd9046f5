"""Signed hooks out: what became different is told to the application within moments, and again and again while it cannot be.

The change log is what is to be told; a lane (db/lanes.py) is one hook's way to one person. Lanes are worked on side by side, each one's
messages one after another, so nothing is told out of order of anybody and a slow target slows no other. Any number of processes share
the lanes. What waits for the network is asynchronous, what waits for the database (turn.py) is not.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from threading import Thread
from time import monotonic
from typing import TypeAlias

from structlog import get_logger

from provisioning.db import lanes
from provisioning.db.hooks import Hook
from provisioning.db.lanes import Progress
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.hooks import turn
from provisioning.hooks.message import headers
from provisioning.hooks.target import SECONDS, Answer, Network, Target
from provisioning.hooks.turn import AT_ONCE, RETRIED_AT_ONCE, Busy, Describe, Errand, Message, Turn
from provisioning.logs import describe

Tell: TypeAlias = Callable[[str, float], None]

LANE_SECONDS = 1.0  # then another lane has its turn, perhaps of somebody who lost access
PAUSE, NO_HOOK_PAUSE, AWAY_PAUSE = 0.25, 1.0, 2.0  # seconds between two looks; where there is no hook; while the database is away
SHORTEST_TURN = 0.02  # seconds: what many commits have to tell is told together

_log = get_logger(__name__)


class Hooks:
    """Tells hooks what became different, in a thread of its own."""

    def __init__(self, database: Database, describe: Describe, networks: Collection[Network] = (), tell: Tell = lambda *_: None) -> None:
        """`describe` makes a change's JSON, with the users as they are now; `tell` hears `told`, `failed` or `given_up`, and how old
        that change was, in seconds."""
        self._database = database
        self._describe = describe
        self._networks = networks
        self._tell = tell
        self._thread = Thread(target=lambda: asyncio.run(self._work()), name="hooks", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._stopping = False
        self._known: Collection[str] = ()  # hooks
        self._busy: Counter[tuple[str, bool]] = Counter()
        self._progress: list[Progress] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._targets: dict[str, Target] = {}
        self._tls: ssl.SSLContext | None = None  # 30 ms, of no use where there is no hook

    def start(self) -> None:
        """Start telling."""
        self._thread.start()

    def wake(self) -> None:
        """Something may have become different. From any thread."""
        if self._known:
            self._call(self._news.set)

    def stop(self, within: float) -> None:
        """Tell nobody more. What is not answered `within` so many seconds is told again, by whoever is next."""
        self._stopping = True
        self._call(self._news.set)
        self._thread.join(within / 2)
        self._call(self._cancel)
        self._thread.join(within / 2)

    def _call(self, callback: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(callback)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            while not self._stopping or self._tasks or self._progress:
                await self._look()
        finally:
            for target in self._targets.values():
                await target.close()

    async def _look(self) -> None:
        self._news.clear()
        began = monotonic()
        progress, self._progress = self._progress, []
        try:
            taken = await asyncio.to_thread(self._turn, progress, self._busy - Counter(map(_place, progress)))
        except Exception as error:  # telling must go on, whatever happens to one turn
            away = isinstance(error, Unavailable)
            (_log.warning if away else _log.error)("database_unavailable" if away else "hooks_failed", error=describe(error))
            if self._tasks or not self._stopping:  # else others tell it again, once it is not ours any more
                self._progress[:0] = progress
            await asyncio.sleep(PAUSE if self._stopping else AWAY_PAUSE)
            return
        self._busy.subtract(map(_place, progress))
        self._begin(taken)
        await asyncio.sleep(max(SHORTEST_TURN - (monotonic() - began), 0))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), 0 if taken.more else PAUSE if taken.hooks else NO_HOOK_PAUSE)

    def _begin(self, taken: Turn) -> None:
        self._known = taken.hooks
        for letter in taken.dead:
            self._tell("given_up", 0)
            told = {"hook_id": letter.hook_id, "organization_id": letter.organization_id, "position": letter.position}
            _log.error("message_given_up", **told, type=letter.type, attempts=letter.attempts, error=letter.error)
        for gone in self._targets.keys() - taken.hooks:
            if not any(self._busy[gone, failed] for failed in (False, True)):
                self._do(self._targets.pop(gone).close())
        for errand in taken.errands:
            self._busy[_place(errand)] += 1
            self._do(self._run(errand))

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _turn(self, progress: Sequence[Progress], busy: Busy) -> Turn:
        return turn.take(self._database, self._describe, progress, busy, claims=not self._stopping)

    async def _run(self, errand: Errand) -> None:
        """Tell what is pending in a lane, one message after another, and note how far it came."""
        lane, began = errand.lane, monotonic()
        came_to = Progress(lane, lane.position)
        try:
            for message in errand.messages:
                now = monotonic()
                # Whoever else lost access is told of first: each message says already that the person is not to be let in.
                if came_to.told and (lane.urgent or now - began > LANE_SECONDS or self._stopping):
                    break
                if now > errand.until - SECONDS:
                    break
                answer = await self._post(errand.hook, message)
                self._report(errand, message, answer)
                if answer.error:
                    why = answer.error
                    came_to = replace(came_to, failed=message.change, error=why, away=answer.away, retry_after=answer.retry_after)
                    break
                came_to = Progress(lane, message.change.position, told=True)
            else:
                if len(errand.messages) < lanes.AT_ONCE:
                    came_to = replace(came_to, position=lane.last)
        finally:  # also when it is cancelled: what was told is told
            self._progress.append(came_to)
            self._news.set()

    async def _post(self, hook: Hook, message: Message) -> Answer:
        target = self._targets.get(hook.id)
        if target is None:
            self._tls = self._tls or ssl.create_default_context()
            target = self._targets[hook.id] = Target(hook.url, self._networks, self._tls, AT_ONCE + RETRIED_AT_ONCE)
        now = datetime.now(UTC)
        if message.text is None:
            return Answer("it could not be made")
        try:
            return await target.post(message.text.encode(), headers(message.id, message.text, hook.signs_with(now), now))
        except Exception as error:  # one message that cannot be sent must not end the telling
            _log.error("message_failed", hook_id=hook.id, error=describe(error))
            return Answer("it could not be sent")

    def _report(self, errand: Errand, message: Message, answer: Answer) -> None:
        change = message.change
        age = (datetime.now(UTC) - change.recorded_at).total_seconds()
        self._tell("failed" if answer.error else "told", age)
        about = {"hook_id": errand.hook.id, "organization_id": change.organization_id, "change_id": message.id, "type": change.type}
        if answer.error:
            _log.warning("message_not_told", **about, error=answer.error)
        else:
            _log.info("message_told", **about, age=round(age, 3))


def _place(work: Errand | Progress) -> tuple[str, bool]:
    """Under which work on a lane is counted."""
    return work.lane.hook_id, work.lane.failing_since is not None
