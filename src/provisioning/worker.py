"""Works on what waits in the database: one thread looks, a few work. The same in `serve` and in any number of `provisioning worker`."""

from collections.abc import Callable
from threading import BoundedSemaphore, Event, Thread
from time import monotonic
from typing import TypeAlias

from structlog import get_logger

from provisioning.errors import Unavailable
from provisioning.logs import describe

Work: TypeAlias = Callable[[], None]

AT_ONCE = 4  # pieces of work: organizations that are reconciled in parallel
LONG_PAUSE = 5.0  # seconds, while the database is away
PAUSE = 1.0  # seconds between two looks; a piece of work that ends is followed by the next at once

log = get_logger(__name__)


class Worker:
    """`claim` gives the next piece of work, if there is one; `stop` has those under way let go of; `tick` is called at every look."""

    def __init__(self, claim: Callable[[], Work | None], stop: Callable[[], None], tick: Callable[[], None] = lambda: None) -> None:
        self._claim = claim
        self._let_go = stop
        self._tick = tick
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
        self._let_go()
        self._look.set()
        end = monotonic() + within
        if self._thread.is_alive():
            self._thread.join(within)  # it may have begun something more meanwhile
        for thread in self._working:
            thread.join(max(end - monotonic(), 0))

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._look.clear()
            pause = PAUSE
            try:
                self._tick()
                while self._begin_next():
                    pass
            except Unavailable as error:
                pause = LONG_PAUSE
                log.warning("database_unavailable", error=describe(error))
            except Exception as error:  # looking must go on, whatever happens to one look
                log.error("look_failed", error=describe(error))
            self._look.wait(pause)

    def _begin_next(self) -> bool:
        """Whether there was something to do, and a place for it."""
        if self._stopping.is_set() or not self._places.acquire(blocking=False):
            return False
        work = None
        try:
            work = self._claim()
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
