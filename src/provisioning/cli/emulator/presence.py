"""Whether an emulator runs: as long as it does, it holds the lock of its folder."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


def runs_in(folder: Path) -> bool:
    """Whether one runs in `folder`."""
    with absence(folder) as absent:
        return not absent


@contextmanager
def absence(folder: Path) -> Iterator[bool]:
    """Whether none runs in `folder`; then none can start there inside the `with` either."""
    with ExitStack() as opened:
        try:
            fcntl.flock(opened.enter_context(open(folder / "lock", "rb")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            absent = False
        except OSError:  # there is no lock, or no folder
            absent = True
        else:
            absent = True
        yield absent
