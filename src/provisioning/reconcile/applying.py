"""Brings drift into the database: in batches, through the dispatcher, and only while the run is ours. A dry run only counts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import TypeVar

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.changes import Cause, CauseKind
from provisioning.db import runs
from provisioning.db.session import Contended, Database
from provisioning.dispatcher import Effect, apply
from provisioning.drift import FAILED, Drift, Report
from provisioning.errors import Unavailable
from provisioning.logs import describe
from provisioning.reconcile.lease import Interrupted, Lease
from provisioning.settings import LinkUsersByEmail

T = TypeVar("T")

PAUSES = (0, 0, 0, 0.5, 1, 2, 4, 8)  # seconds between attempts: another transaction won, or the database is away

log = get_logger(__name__)


class Applying:
    """What one run writes, and what came of it: the `report`. `failed`: records on which something here fails."""

    def __init__(self, database: Database, lease: Lease, link_users_by_email: LinkUsersByEmail) -> None:
        self._database = database
        self._lease = lease
        self._link = link_users_by_email
        self.report = Report()
        self.failed = 0
        self._not_before = 0.0

    def bring(self, drifts: Iterable[Drift]) -> list[Drift]:
        """Apply what these drifts bring, count it and report it; returns those that something newer forbade.

        Raises Unavailable, Interrupted, LeaseLost.
        """
        wanted = [drift for drift in drifts if drift.event]
        self._lease.rest(max(self._not_before - monotonic(), 0))
        dry = self._lease.run.dry_run
        won: list[bool | None] = [True] * len(wanted) if dry else self._applied(wanted)
        done = [drift for drift, settled in zip(wanted, won, strict=True) if settled]
        if dry:
            self._lease.progress.changes += _sum(drift.changes for drift in done)
        self.report.add(drift.finding for drift in done)
        return [drift for drift, settled in zip(wanted, won, strict=True) if settled is False]

    def forget(self) -> None:
        """Begin anew with what was found and counted."""
        self.report = Report()
        self._lease.progress.changes.clear()

    def write(self, change: Callable[[Session], T]) -> T:
        """What `change` returns, committed: tried again while another transaction wins, or the database is away for a while."""
        for pause in PAUSES:
            try:
                with self._database.writing() as session:
                    return change(session)
            except (Contended, Unavailable) as error:
                self._lease.rest(pause or (0.5 if isinstance(error, Unavailable) else 0))
        with self._database.writing() as session:
            return change(session)

    def read(self, look: Callable[[Session], T]) -> T:
        """What `look` returns, tried again likewise."""
        for pause in PAUSES:
            try:
                with self._database.reading() as session:
                    return look(session)
            except Unavailable:
                self._lease.rest(pause or 0.5)
        with self._database.reading() as session:
            return look(session)

    def _applied(self, drifts: Sequence[Drift]) -> list[bool | None]:
        """Whether each of these did something; None: it failed, or is about somebody who was erased meanwhile.

        What fails is found by halves, so that it is nobody else's fault.
        """
        if not drifts:
            return []
        began = monotonic()
        try:
            won, changes, removed = self.write(lambda session: self._apply(session, drifts))
        except (Unavailable, Contended, Interrupted, runs.LeaseLost):
            raise
        except Exception as error:  # whatever it is, only the record that causes it may suffer
            if len(drifts) > 1:
                half = len(drifts) // 2
                return self._applied(drifts[:half]) + self._applied(drifts[half:])
            (drift,) = drifts
            subject_id = drift.event.subject_id if drift.event else None
            log.error("drift_not_applied", error=describe(error), organization_id=self._lease.run.organization_id, subject_id=subject_id)
            self.failed += 1
            self.report.add([replace(drift.finding, what=FAILED) if drift.finding else None])
            return [None]
        self._lease.progress.changes, self._lease.progress.removed = changes, removed
        if self._database.dialect == "sqlite":
            self._not_before = 2 * monotonic() - began  # its lock is not fair: the webhooks' turn is as long as ours
        return [*won]

    def _apply(self, session: Session, drifts: Sequence[Drift]) -> tuple[list[bool | None], Counter[str], Counter[str]]:
        progress = self._lease.progress
        events = [drift.event for drift in drifts if drift.event]
        causes = [Cause(CauseKind.RUN, self._lease.run.id, event.version.occurred_at) for event in events]
        won = [_DID[effect] for effect in apply(session, events, causes, self._link, heed_mark=False)]
        done = [drift for drift, settled in zip(drifts, won, strict=True) if settled]
        changes = progress.changes + _sum(drift.changes for drift in done)
        removed = progress.removed + _sum(drift.removed for drift in done)
        self._lease.write(session, changes=changes, removed=removed)
        return won, changes, removed


_DID: Mapping[Effect, bool | None] = {Effect.NEWS: True, Effect.NOTHING: False, Effect.ERASED: None}


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total
