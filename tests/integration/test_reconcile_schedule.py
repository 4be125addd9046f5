"""Runs that nobody asks for: the schedule of PROVISIONING_RECONCILE_INTERVAL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from provisioning.db import organizations, runs
from provisioning.db.runs import State
from provisioning.reconcile import Reconciler
from reconciling import Reconciling
from service import settings


def test_the_schedule_asks_for_every_known_organization(reconciling: Reconciling) -> None:
    """One that never had a run is due at once; while its run waits, it is not asked for again."""
    with reconciling.database.writing() as session:
        organizations.know(session, reconciling.organization_id, datetime.now(UTC))
    yearly = settings("sqlite:///never-opened.db", reconcile_interval=timedelta(days=365))
    reconciler = Reconciler(reconciling.database, reconciling.scalekit, yearly)
    for _ in range(2):
        reconciler.keep_schedule()
    with reconciling.database.reading() as session:
        [run] = runs.page(session, reconciling.organization_id, before="~", limit=5, now=datetime.now(UTC))
    assert (run.state, run.requested_by) == (State.QUEUED, runs.SCHEDULE)
