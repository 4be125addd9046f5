"""Brings an organization to what its directories say, through the Directory API: the second source of truth, timid and exact.

A run is a row that anybody may ask for, and that one process at a time works on, whichever has claimed it.
"""

import os
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_hex
from threading import Event
from time import monotonic

from sqlalchemy.orm import Session
from structlog import get_logger
from structlog.stdlib import BoundLogger

from provisioning.db import runs
from provisioning.db.runs import Run, State
from provisioning.db.session import Contended, Database
from provisioning.drift import Report
from provisioning.errors import ClockOff, ScalekitError, Unavailable
from provisioning.events import EventType
from provisioning.logs import describe
from provisioning.reconcile.applying import Applying
from provisioning.reconcile.lease import LEASE, Cancelled, Lease, Stopping
from provisioning.reconcile.run import Reconciliation
from provisioning.reconcile.schedule import due
from provisioning.reconcile.sweep import Sweep
from provisioning.scalekit.client import ScalekitClient
from provisioning.scalekit.directories import DirectoryReader
from provisioning.settings import Settings

SCHEDULED_AT_ONCE = 8
SECONDS_BETWEEN_LOOKS = 10.0
FIRST_IMPORT_AGAIN, LAST_IMPORT_AGAIN = timedelta(minutes=1), timedelta(hours=1)

log = get_logger(__name__)


class Reconciler:
    """Asks for runs, and works on those that it claims."""

    def __init__(self, database: Database, scalekit: ScalekitClient, settings: Settings) -> None:
        self._database = database
        self._scalekit = scalekit
        self._settings = settings
        self._stopping = Event()
        self._next_look = monotonic()
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def request(self, organization_id: str, *, dry_run: bool, requested_by: str) -> tuple[Run, bool]:
        """A run of the organization that begins now, and whether it is a new one: one of the same kind that waits or runs is joined.

        Raises ScalekitNotConfigured, Conflict where one of the other kind is under way, Unavailable.
        """
        self._scalekit.require_credentials()
        asked = partial(runs.request, organization_id=organization_id, dry_run=dry_run, requested_by=requested_by)
        return self._database.write(lambda session: asked(session, now=datetime.now(UTC)))

    def approve(self, run: Run, by: str) -> Run:
        """The run, about to remove what it proposed, as far as it is still gone. Raises Conflict, ScalekitNotConfigured, Unavailable."""
        self._scalekit.require_credentials()
        return self._database.write(lambda session: runs.approve(session, run, by=by, now=datetime.now(UTC)))

    def cancel(self, run: Run, by: str) -> Run:
        """The run, ended or about to end; what it applied stays. Raises Conflict, Unavailable."""
        return self._database.write(lambda session: runs.cancel(session, run, by=by, now=datetime.now(UTC)))

    def claim(self, only: Collection[str] | None = None) -> Callable[[], None] | None:
        """The work on the next run that is due, ours from now on, or None, as always without credentials. `only`: out of these, by id.

        Raises Unavailable.
        """
        if not self._scalekit.configured:
            return None
        now = datetime.now(UTC)
        with self._database.reading() as session:
            if not runs.anything_to_claim(session, now, only):
                return None
        owner = f"{self._name}:{token_hex(4)}"  # this process may take over a run of its own, when its database was away for too long
        run = self._database.write(lambda session: runs.claim(session, owner=owner, now=now, lease=LEASE, only=only))
        return partial(self._work, run, owner) if run else None

    def keep_schedule(self) -> None:
        """Ask for the runs that are due by PROVISIONING_RECONCILE_INTERVAL, if there are credentials. To be called again and again.

        Never for more than are soon worked on: so nobody who asks for a run finds a long queue, or somebody else's dry run in the way.
        Raises Unavailable.
        """
        interval = self._settings.reconcile_interval
        if interval is None or not self._scalekit.configured or monotonic() < self._next_look:
            return
        self._next_look = monotonic() + min(interval.total_seconds() / 10, SECONDS_BETWEEN_LOOKS)
        now = datetime.now(UTC)
        with self._database.reading() as session:
            room = SCHEDULED_AT_ONCE - runs.unfinished_of_schedule(session)
            busy = runs.busy(session)
            wanted = [each for each in due(runs.last_requests(session), interval, now) if each not in busy][: max(room, 0)]
        if wanted:
            self._database.write(lambda session: runs.announce(session, wanted, requested_by=runs.SCHEDULE, now=now, due_at=now))

    def stop(self) -> None:
        """Have the runs under way let go of, for others to take over."""
        self._stopping.set()

    def _work(self, run: Run, owner: str) -> None:
        """Go through with a run. Never raises: its row, or whoever takes it over, says what came of it."""
        began = monotonic()
        words = log.bind(run_id=run.id, organization_id=run.organization_id, dry_run=run.dry_run)
        lease = Lease(self._database, run, owner, self._stopping)
        applying = Applying(self._database, lease, self._settings.link_users_by_email)
        try:
            with lease.kept():
                ended = self._perform(lease, applying, words)
        except Stopping:
            lease.let_go()
            words.info("reconcile_let_go")
            return
        except (runs.LeaseLost, Unavailable, Contended) as error:
            words.warning("reconcile_left", error=describe(error))  # another process has it, or will
            return
        progress = lease.progress
        words.info(
            "reconciled",
            state=ended.state,
            error=ended.error,
            held_back=ended.held_back or None,
            listed_users=progress.listed_users,
            drifted=ended.drifted,
            changes={name: number for name, number in progress.changes.items() if number},
            seconds=round(monotonic() - began, 1),
        )

    def _perform(self, lease: Lease, applying: Applying, words: BoundLogger) -> Run:
        """The run, ended. Raises Stopping, LeaseLost, Unavailable, Contended: then it goes on elsewhere."""
        reader = DirectoryReader(self._scalekit, lease.run.organization_id, lease.rest)
        margin = self._settings.clock_margin // timedelta(microseconds=1) * 1000
        sweep = Sweep(reader, applying, lease, margin)
        ending: _Ending | None = None
        try:
            Reconciliation(lease, applying, reader, sweep, self._settings).perform()
        except (Stopping, runs.LeaseLost, Unavailable, Contended):
            raise
        except Cancelled as cancelled:
            ending = _Ending(State.CANCELLED, runs.cancelled_by(cancelled.by))
        except ScalekitError as failure:
            ending = _Ending(State.FAILED, str(failure), passing=failure.passing)
            if failure.vendor_message:
                words.warning("scalekit_failed", vendor_message=failure.vendor_message)
        except ClockOff as failure:
            ending = _Ending(State.FAILED, str(failure), passing=True)
        except Exception as failure:  # the only broad one: whatever it is, the run's row has to say so
            ending = _Ending(State.FAILED, describe(failure))
        if ending:
            self._database.write(partial(_end, lease, applying.report, ending))
        with self._database.reading() as session:
            return runs.one(session, lease.run.organization_id, lease.run.id, datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a run ended early; `passing`: another one may succeed in a while."""

    state: State
    error: str
    passing: bool = False


def _end(lease: Lease, report: Report, ending: _Ending, session: Session) -> None:
    """Say so in the run's row. A first import that may yet succeed is asked for again, later each time: nobody else would."""
    lease.end(session, ending.state, error=ending.error, drift=report.as_json(), drifted=report.number)
    run, now = lease.run, datetime.now(UTC)
    if ending.passing and run.requested_by == EventType.DIRECTORY_ENABLED:
        failures = runs.failures_since(session, run.organization_id, run.requested_by, now - timedelta(days=1))
        due_at = now + min(FIRST_IMPORT_AGAIN * 2 ** min(failures - 1, 10), LAST_IMPORT_AGAIN)
        runs.announce(session, [run.organization_id], requested_by=run.requested_by, now=now, due_at=due_at)
