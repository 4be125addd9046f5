"""How often a login may fail: five times a minute an address, of each process."""

from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from math import ceil
from threading import Lock
from time import monotonic

FAILURES = 5
SECONDS = 60.0
ADDRESSES = 10_000  # those who tried last; more would be somebody's way to fill the memory


class Attempts:
    """Failures of the last minute, by address. An attempt counts as failed until it is forgiven, so that many at once are not more."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, address: str) -> int:
        """Count an attempt; returns in how many seconds to come again, 0 for one that may go on."""
        who, now = _network(address), self._clock()
        with self._lock:
            failures = self._failures.setdefault(who, deque())
            self._failures.move_to_end(who)
            while failures and failures[0] <= now - SECONDS:
                failures.popleft()
            if len(failures) >= FAILURES:
                return ceil(failures[0] + SECONDS - now)
            failures.append(now)
            if len(self._failures) > ADDRESSES:
                self._failures.popitem(last=False)
        return 0

    def forgive(self, address: str) -> None:
        """The address' last attempt did not fail."""
        with self._lock:
            if failures := self._failures.get(_network(address)):
                failures.pop()


def _network(address: str) -> str:
    """The address; of IPv6 its first half, which is what one customer of a provider has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return parsed.exploded[:19]
    return address
