"""How the emulator misbehaves, switched while it runs: what a client must survive, met on the real wire."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Door(StrEnum):
    """Where a client comes in."""

    OAUTH = "oauth"
    API = "api"


class Fault(StrEnum):
    """The first four are known at both doors, the next three where tokens are handed out, the last three where links are."""

    HANG = "hang"  # silent until the fault is changed
    RATE_LIMIT = "rate_limit"
    AWAY = "away"
    REFUSE = "refuse"
    MISSING = "missing"  # no such endpoint here
    UNREADABLE = "unreadable"  # 200, and a page instead of JSON
    EXPIRED = "expired"  # a token that is of no use any more
    LINK_EMPTY = "link_empty"  # an answer without a location
    LINK_WITHOUT_EXPIRY = "link_without_expiry"
    LINK_ELSEWHERE = "link_elsewhere"  # a location on an origin that is not the portal's


_EVERYWHERE = (Fault.HANG, Fault.RATE_LIMIT, Fault.AWAY, Fault.REFUSE)
KNOWN = {
    Door.OAUTH: (*_EVERYWHERE, Fault.MISSING, Fault.UNREADABLE, Fault.EXPIRED),
    Door.API: (*_EVERYWHERE, Fault.LINK_EMPTY, Fault.LINK_WITHOUT_EXPIRY, Fault.LINK_ELSEWHERE),
}


class Faults:
    """The fault at each door, none at first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._faults: dict[Door, Fault] = {}

    def set(self, door: Door, fault: Fault | None) -> None:
        """From now on; whoever hangs at a door whose fault is not HANG any more goes on."""
        with self._changed:
            if fault is None:
                self._faults.pop(door, None)
            else:
                self._faults[door] = fault
            self._changed.notify_all()

    def clear(self) -> None:
        """Behave, at every door."""
        for door in Door:
            self.set(door, None)

    def current(self) -> dict[Door, Fault | None]:
        """The fault at each door."""
        with self._changed:
            return {door: self._faults.get(door) for door in Door}

    @contextmanager
    def during(self, door: Door, fault: Fault) -> Iterator[None]:
        """Misbehave inside the `with`."""
        self.set(door, fault)
        try:
            yield
        finally:
            self.set(door, None)

    def at(self, door: Door) -> Fault | None:
        """The fault at this door; a HANG is sat out here, in the caller's thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._faults.get(door) is not Fault.HANG)
            return self._faults.get(door)
