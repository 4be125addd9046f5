"""How the emulator misbehaves, switched while it runs: what a client must survive, met on the real wire."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Door(StrEnum):
    """Where a client comes in."""

    OAUTH = "oauth"
    API = "api"
    DIRECTORIES = "directories"  # what a directory says of itself, alone and in the list
    USERS = "users"  # the list of a directory's users
    GROUPS = "groups"
    CLOCK = "clock"  # the Date of every HTTP answer


class Fault(StrEnum):
    """What goes wrong; KNOWN says where."""

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
    TOTAL_ONE_MORE = "total_one_more"  # total_users counts one more than are listed
    TOTAL_ZERO = "total_zero"  # total_users is 0: protobuf does not tell this from absent
    CUT_SHORT = "cut_short"  # the list ends after 40 % of its entries, and says nothing of it
    EMPTY = "empty"  # the first page has nothing on it, and is the last
    LATER_PAGES_FAIL = "later_pages_fail"  # every page but the first is unavailable
    LATER_PAGES_FAIL_TWICE = "later_pages_fail_twice"  # only to the first two calls for any of them
    SAME_PAGE = "same_page"  # each page leads to itself again
    DETAIL_MISSING = "detail_missing"  # no user_detail, though asked for
    ACTIVE_MISSING = "active_missing"  # user_detail does not say `active`
    BEHIND = "behind"  # by ten minutes
    AHEAD = "ahead"  # likewise


_EVERY_CALL = (Fault.HANG, Fault.RATE_LIMIT, Fault.AWAY, Fault.REFUSE)
_EVERY_LIST = (Fault.CUT_SHORT, Fault.EMPTY, Fault.LATER_PAGES_FAIL, Fault.LATER_PAGES_FAIL_TWICE, Fault.SAME_PAGE)
KNOWN = {
    Door.OAUTH: (*_EVERY_CALL, Fault.MISSING, Fault.UNREADABLE, Fault.EXPIRED),
    Door.API: (*_EVERY_CALL, Fault.LINK_EMPTY, Fault.LINK_WITHOUT_EXPIRY, Fault.LINK_ELSEWHERE),
    Door.DIRECTORIES: (Fault.TOTAL_ONE_MORE, Fault.TOTAL_ZERO),
    Door.USERS: (*_EVERY_LIST, Fault.DETAIL_MISSING, Fault.ACTIVE_MISSING),
    Door.GROUPS: _EVERY_LIST,
    Door.CLOCK: (Fault.BEHIND, Fault.AHEAD),
}


def check(door: Door, fault: Fault | None) -> None:
    """Raises ValueError when this fault is not known at this door: it would be set and do nothing."""
    if fault and fault not in KNOWN[door]:
        raise ValueError(f"at the door {door} there are {', '.join(KNOWN[door])}")


class Faults:
    """The fault at each door, none at first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._faults: dict[Door, Fault] = {}
        self._met: Counter[Door] = Counter()

    def set(self, door: Door, fault: Fault | None) -> None:
        """From now on; whoever hangs at a door whose fault is not HANG any more goes on. Raises ValueError, as `check` does."""
        check(door, fault)
        with self._changed:
            self._met[door] = 0
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

    def among_first(self, calls: int, door: Door) -> bool:
        """Whether this is one of the first so many that meet the fault set at this door: each asks once."""
        with self._changed:
            self._met[door] += 1
            return self._met[door] <= calls
