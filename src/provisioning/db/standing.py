"""How the service stands: what waits for somebody, and when something last went well."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, bindparam, exists, func, literal_column, or_, select, text
from sqlalchemy.orm import Session

from provisioning.db.deliveries import UNUSUAL
from provisioning.db.models import UtcTime, deliveries, directories, organizations, reconcile_runs
from provisioning.db.runs import APPROVE_WITHIN, State

STUCK_AFTER = timedelta(minutes=2)  # a run that is anybody's is taken within half a minute


@dataclass(frozen=True, slots=True)
class Waiting:
    """Deliveries of one outcome that nobody dismissed: how many, since when the oldest, and when the service next tries one again."""

    number: int
    oldest: datetime
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class Troubled:
    """A run that somebody should look at; `since` when it stands so."""

    organization_id: str
    id: str
    state: State
    since: datetime
    error: str | None


def waiting_deliveries(session: Session) -> dict[str, Waiting]:
    """Those that failed or were dead-lettered, by outcome."""
    return {outcome: Waiting(*rest) for outcome, *rest in session.execute(_WAITING)}


def last_accepted(session: Session) -> datetime | None:
    """When the last delivery was received whose signature was good."""
    return session.scalar(_LAST_ACCEPTED)


def complete_as_of(session: Session) -> Mapping[str, datetime | None]:
    """By organization with an enabled directory, as of when it was last read whole, the longest ago first; None: it never was."""
    return {row.organization_id: _moment(row.complete_as_of) for row in session.execute(_COMPLETE)}


def _moment(nanoseconds: int | None) -> datetime | None:
    return None if nanoseconds is None else datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def troubled_runs(session: Session, now: datetime) -> list[Troubled]:
    """Those that wait for an approval, those that failed last of their organization, and those that nobody works on; oldest first."""
    asked = {"approvable": now - APPROVE_WITHIN, "stuck": now - STUCK_AFTER, "now": now}
    found = session.execute(_TROUBLED, asked)
    return [Troubled(organization_id, id_, State(state), since, error) for organization_id, id_, state, since, error in found]


def stuck_runs(session: Session, now: datetime) -> int:
    """How many are under way or due that nobody works on."""
    return session.execute(_STUCK, {"stuck": now - STUCK_AFTER, "now": now}).scalar_one()


_row = deliveries.c
_WAITING = (
    select(_row.outcome, func.count(), func.min(_row.received_at, type_=UtcTime()), func.min(_row.retry_at, type_=UtcTime()))
    .where(UNUSUAL, _row.outcome.in_(["failed", "dead_lettered"]), _row.dismissed_at.is_(None))
    .group_by(_row.outcome)
)
_LAST_ACCEPTED = select(_row.received_at).order_by(_row.received_at.desc(), _row.webhook_id.desc()).limit(1)

_runs = reconcile_runs.c
_enabled = select(directories.c.organization_id).where(directories.c.enabled).distinct().subquery()
_COMPLETE = (
    select(_enabled.c.organization_id, organizations.c.complete_as_of)
    .outerjoin(organizations, organizations.c.id == _enabled.c.organization_id)
    .order_by(organizations.c.complete_as_of.is_not(None), organizations.c.complete_as_of, _enabled.c.organization_id)
)

_now, _stuck = bindparam("now", type_=UtcTime()), bindparam("stuck", type_=UtcTime())
_later, _worked_on = reconcile_runs.alias("later"), reconcile_runs.alias("worked_on")
_overtaken = exists().where(
    _later.c.organization_id == _runs.organization_id, _later.c.id > _runs.id, ~_later.c.dry_run, _later.c.state != State.CANCELLED
)
# A partial index is used only where its condition stands as it was written: no parameter in it.
_somebody_works = exists().where(_worked_on.c.state == literal_column("'running'"), _worked_on.c.leased_until >= _now)
_is_stuck = or_(
    and_(_runs.state == State.RUNNING, _runs.leased_until < _stuck),
    # Where somebody works on others, its turn may yet come.
    and_(_runs.state == State.QUEUED, _runs.due_at < _stuck, ~_somebody_works),
)
_STUCK = select(func.count()).select_from(reconcile_runs).where(text("state IN ('queued', 'running')"), _is_stuck)
_since = func.coalesce(_runs.finished_at, _runs.leased_until, _runs.due_at, type_=UtcTime())
_TROUBLED = (
    select(_runs.organization_id, _runs.id, _runs.state, _since, _runs.error)
    .where(
        or_(
            and_(_runs.state == State.NEEDS_APPROVAL, _runs.finished_at >= bindparam("approvable", type_=UtcTime())),
            and_(_runs.state == State.FAILED, ~_runs.dry_run, ~_overtaken),
            _is_stuck,
        )
    )
    .order_by(_since, _runs.id)
)
