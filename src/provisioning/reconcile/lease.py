"""A claimed run, kept by heartbeat. Whoever works on it asks `check` between two steps, and writes nothing once it is somebody else's."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from time import monotonic

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.db import runs
from provisioning.db.session import Contended, Database
from provisioning.errors import Unavailable
from provisioning.logs import describe

LEASE = timedelta(seconds=20)
HEARTBEAT = 3.0  # seconds

log = get_logger(__name__)


class Interrupted(Exception):
    """The work on a run ends here, for now or for good."""


class Cancelled(Interrupted):
    """Somebody, `by` name, wants the run to end."""

    def __init__(self, by: str) -> None:
        super().__init__(by)
        self.by = by


class Stopping(Interrupted):
    """This process ends: another one goes on with the run."""


@dataclass
class Progress:
    """How far a run is: what its row shows while it is under way. `removed`: without approval, by kind."""

    listed_users: int = 0
    listed_groups: int = 0
    expected_users: int | None = None
    as_of: int | None = None
    saw_active: bool = False
    saw_totals: bool = False
    changes: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)

    def listed(self) -> Mapping[str, object]:
        """How far it is: what the heartbeat writes."""
        return {"listed_users": self.listed_users, "listed_groups": self.listed_groups, "expected_users": self.expected_users}

    def values(self) -> Mapping[str, object]:
        """All of it."""
        return {**vars(self), "changes": {**self.changes}, "removed": {**self.removed}}


class Lease:
    """Of one run, for one process."""

    def __init__(self, database: Database, run: runs.Run, owner: str, stopping: Event) -> None:
        self.run = run
        self.progress = Progress(changes=Counter(run.changes), removed=Counter(run.removed))
        self._database = database
        self._owner = owner
        self._stopping = stopping
        self._wake = Event()
        self._ended = Event()
        self._why: BaseException | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the lease inside the `with`."""
        beating = Thread(target=self._beat, name="heartbeat", daemon=True)
        beating.start()
        try:
            yield
        finally:
            self._ended.set()
            self._wake.set()
            beating.join()

    def check(self) -> None:
        """Raises Cancelled, Stopping, or LeaseLost when another process has taken the run over."""
        if self._stopping.is_set():
            raise Stopping
        if self._why is not None:
            raise self._why

    def rest(self, seconds: float) -> None:
        """Wait. Raises as `check` does, as soon as there is a reason."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            self.check()
            self._wake.wait(min(left, 0.2))
        self.check()

    def write(self, session: Session, **more: object) -> None:
        """Say in this transaction how far the run is, with `more` than the progress shows: so it is committed only while the run is ours,
        and nobody has been told that it will end. Raises LeaseLost, Cancelled.
        """
        self._renew(session, {**self.progress.values(), **more})

    def end(self, session: Session, state: runs.State, **values: object) -> None:
        """Say in this transaction what became of the run. Raises LeaseLost."""
        now = datetime.now(UTC)
        runs.end(session, self.run, owner=self._owner, state=state, now=now, **{**self.progress.values(), **values})

    def let_go(self) -> None:
        """Leave the run to whoever looks next."""
        with suppress(Unavailable, Contended), self._database.writing() as session:
            runs.let_go(session, self.run, owner=self._owner, now=datetime.now(UTC))

    def _renew(self, session: Session, progress: Mapping[str, object]) -> None:
        if by := runs.renew(session, self.run, owner=self._owner, until=datetime.now(UTC) + LEASE, progress=progress):
            raise Cancelled(by)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            try:
                with self._database.writing() as session:
                    self._renew(session, self.progress.listed())
            except (Unavailable, Contended):
                continue  # the lease outlasts several; once it lapses, whoever takes the run over is told apart by its name
            except (runs.LeaseLost, Cancelled) as why:
                self._why = why
            except Exception as error:  # the lease has to be kept, whatever happens to one beat
                log.error("heartbeat_failed", error=describe(error))
            if self._why is not None:
                self._wake.set()
                return
