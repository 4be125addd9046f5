"""How many calls a process makes to Scalekit's API in a second."""

import threading
from collections.abc import Callable
from time import monotonic

PUT_OFF = 10  # turns, at most, that whoever waits is put off by those who pass by


class Pace:
    """Spreads calls evenly, from however many threads. A call that comes late does not make up for it: there are no bursts."""

    def __init__(self, calls_per_second: float) -> None:
        self._interval = 1 / calls_per_second
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, rest: Callable[[float], None]) -> None:
        """Take the next turn, and `rest` until it comes."""
        if (seconds := self._turn()) > 0:
            rest(seconds)

    def pass_by(self) -> None:
        """Take a turn without waiting for it: those who can wait, wait the longer, but not for each of a crowd."""
        with self._lock:
            now = monotonic()
            self._next = max(self._next, min(max(now, self._next) + self._interval, now + PUT_OFF * self._interval))

    def _turn(self) -> float:
        """The seconds until the turn that was taken."""
        with self._lock:
            now = monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
            return turn - now
