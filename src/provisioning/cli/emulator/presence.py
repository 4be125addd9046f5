"""Whether an emulator runs: as long as it does, it holds the lock of its folder."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep

ENDS_WITHIN = 3.0  # seconds


def runs_in(folder: Path) -> bool:
    """Whether one runs in `folder`."""
    with absence(folder) as absent:
        return not absent


@contextmanager
def absence(folder: Path, within: float = 0) -> Iterator[bool]:
    """Whether none runs in `folder`, or that one ends `within` so many seconds; then none can start there inside the `with` either."""
    give_up_at = monotonic() + within
    with ExitStack() as opened:
        try:
            lock = opened.enter_context(open(folder / "lock", "rb"))
        except OSError:  # there is no lock, or no folder
            yield True
            return
        while not (absent := _locked(lock.fileno())) and monotonic() < give_up_at:
            sleep(0.02)
        yield absent


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
