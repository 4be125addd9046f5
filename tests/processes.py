"""What processes cost, as Linux counts it."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

_TICKS = os.sysconf("SC_CLK_TCK")

T = TypeVar("T")


def processor_time(pid: int) -> float:
    """Seconds of user and system time of the process and all below it, also of those that have ended and been waited for.

    One that ends while it is looked at counts in neither place: so it is looked again until nobody has ended.
    """
    before, (family, spent) = None, _family(pid)
    while family != before:
        before, (family, spent) = family, _family(pid)
    return spent


def memory(pid: int) -> tuple[float, float]:
    """MiB resident now, and at most so far, of this process alone."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE))
    return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024


def _family(pid: int) -> tuple[list[int], float]:
    """The process and all below it, and their times."""
    stats = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            # Behind the name, which may hold anything: state, parent, …
            stats[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
    family = [pid]
    for each in family:  # it grows meanwhile
        family += sorted(child for child, fields in stats.items() if int(fields[1]) == each)
    return family, sum(int(ticks) for each in family for ticks in stats[each][11:15]) / _TICKS


def descriptors(pid: int) -> dict[int, int]:
    """How many the process has open, and each of those below it, by id."""
    return {each: len(os.listdir(f"/proc/{each}/fd")) for each in _family(pid)[0]}


@contextmanager
def watched(look: Callable[[], T], every: float) -> Iterator[list[T]]:
    """What is seen by looking, once in so many seconds, from a thread, until the block ends."""
    seen: list[T] = []
    over = Event()

    def watch() -> None:
        while not over.wait(every):
            seen.append(look())

    thread = Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
