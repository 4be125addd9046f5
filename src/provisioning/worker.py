"""Works on what waits in the database: one thread looks, a few work. The same in `serve` and in any number of `provisioning worker`."""

from collections.abc import Callable, Sequence
from functools import partial
from threading import BoundedSemaphore, Event, Thread
from time import monotonic
from typing import TypeAlias

from structlog import get_logger

from provisioning.errors import Unavailable
from provisioning.logs import describe

Work: TypeAlias = Callable[[], object]
Claim: TypeAlias = Callable[[], Work | None]

AT_ONCE = 4  # pieces of work: organizations that are reconciled in parallel
LONG_PAUSE = 5.0  # seconds, while the database is away
PAUSE = 1.0  # seconds between two looks; a piece of work that ends is followed by the next at once

log = get_logger(__name__)


class Worker:
    """Each of the `claims` gives its next piece of work, if there is one; the `ticks` are called before. What fails keeps no other back.

    The `stops` have what is under way let go of.
    """

    def __init__(self, claims: Sequence[Claim], stops: Sequence[Callable[[], None]], ticks: Sequence[Callable[[], None]] = ()) -> None:
        self._claims = claims
        self._stops = stops
        self._ticks = ticks
        self._stopping = Event()
        self._places = BoundedSemaphore(AT_ONCE)
        self._look = Event()
        self._working: tuple[Thread, ...] = ()  # changed by the watching thread alone
        self._thread = Thread(target=self._watch, name="worker", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self, within: float) -> None:
        """Let go of everything. What has not ended `within` so many seconds ends with the process, and others take it over."""
        self._stopping.set()
        for stop in self._stops:
            stop()
        self._look.set()
        end = monotonic() + within
        if self._thread.is_alive():
            self._thread.join(within)  # it may have begun something more meanwhile
        for thread in self._working:
            thread.join(max(end - monotonic(), 0))

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._look.clear()
            away: Unavailable | None = None
            parts: list[Callable[[], None]] = [*self._ticks, *(partial(self._begin_all, claim) for claim in self._claims)]
            for part in parts:
                try:
                    part()
                except Unavailable as error:
                    away = error
                except Exception as error:  # looking must go on, whatever happens to one look
                    log.error("look_failed", error=describe(error))
            if away:
                log.warning("database_unavailable", error=describe(away))
            self._look.wait(LONG_PAUSE if away else PAUSE)

    def _begin_all(self, claim: Claim) -> None:
        while self._begin_next(claim):
            pass

    def _begin_next(self, claim: Claim) -> bool:
        """Whether there was something to do, and a place for it."""
        if self._stopping.is_set() or not self._places.acquire(blocking=False):
            return False
        work = None
        try:
            work = claim()
        finally:
            if work is None:
                self._places.release()
        if work is None:
            return False
        thread = Thread(target=self._run, args=(work,), name="run", daemon=True)
        thread.start()
        self._working = (*(each for each in self._working if each.is_alive()), thread)
        return True

    def _run(self, work: Work) -> None:
        try:
            work()
        except Exception as error:  # a place must come free again
            log.error("work_failed", error=describe(error))
        finally:
            self._places.release()
            self._look.set()
