"""Long work: one job at a time, in a thread of its own, that says how far it is and can be cancelled."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from provisioning.errors import Conflict, ProvisioningError

END_WITHIN = 3.0  # seconds


class Stage(StrEnum):
    """What has become of a job."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cancelled(Exception):
    """Raised inside a job that is to end."""


@dataclass
class Job:
    """One piece of work: `done` of `total`, and in words what it does now or, at the end, what came of it."""

    name: str
    state: Stage = Stage.RUNNING
    step: str = ""
    done: int = 0
    total: int = 0
    error: str | None = None

    def __post_init__(self) -> None:
        self.cancelled = threading.Event()

    def begin(self, step: str, total: int = 0) -> None:
        """The next step. Raises Cancelled."""
        self.step, self.done, self.total = step, 0, total
        self.pause(0)

    def advance(self, count: int = 1) -> None:
        """So many more are done. Raises Cancelled."""
        self.done += count
        self.pause(0)

    def pause(self, seconds: float) -> None:
        """Wait. Raises Cancelled, also in the middle of it."""
        if self.cancelled.wait(seconds):
            raise Cancelled


class Jobs:
    """The job that runs, or the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.latest: Job | None = None

    def start(self, name: str, work: Callable[[Job], None]) -> Job:
        """Begin `work`, and return at once. Raises Conflict while another job runs."""
        with self._lock:
            if self._thread and self._thread.is_alive():
                raise Conflict(f"{self.latest.name if self.latest else 'A job'} is running: wait for it, or cancel it.")
            job = self.latest = Job(name)
            self._thread = threading.Thread(target=_run, args=(job, work), name="emulator-job", daemon=True)
            self._thread.start()
            return job

    def cancel(self) -> None:
        """End the job that runs, if there is one, and wait for its end, but not for long: it may be asking a service that is silent."""
        with self._lock:
            thread = self._thread
            if self.latest:
                self.latest.cancelled.set()
        if thread:
            thread.join(END_WITHIN)


def _run(job: Job, work: Callable[[Job], None]) -> None:
    try:
        work(job)
    except Cancelled:
        job.state = Stage.CANCELLED
    except ProvisioningError as error:
        job.state, job.error = Stage.FAILED, str(error)
    except Exception as error:  # broad: it would end the thread unseen, and the job would seem to run for ever
        job.state, job.error = Stage.FAILED, f"{type(error).__name__}: {error}"
    else:
        job.state = Stage.DONE
