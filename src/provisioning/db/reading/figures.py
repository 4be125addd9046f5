"""How the service stands, by what lives in the database: a few statements, none of which grows with what was received or who is here."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Text, bindparam, cast, exists, func, select, text
from sqlalchemy.orm import Session

from provisioning.db.models import UtcTime, changes, directories, organizations, reconcile_runs, users
from provisioning.db.runs import APPROVE_WITHIN, State
from provisioning.db.standing import last_accepted, stuck_runs, waiting_deliveries

LOSSES_WITHIN = timedelta(minutes=10)


def _figure(help_: str) -> Any:
    return field(metadata={"help": help_})


@dataclass(frozen=True, slots=True)
class Figures:
    """Each under its metric's name, less `provisioning_`. A time is in seconds since 1970, and None where there is none."""

    last_accepted_timestamp_seconds: float | None = _figure("When the last delivery came that was stored.")
    failed_deliveries: int = _figure("Deliveries that failed and are neither mended nor dismissed.")
    dead_lettered_deliveries: int = _figure("Deliveries that cannot be read and are neither mended nor dismissed.")
    oldest_unmended_timestamp_seconds: float | None = _figure("When the oldest of the failed and dead-lettered ones came.")
    enabled_directories: int = _figure("Directories that are enabled.")
    running_runs: int = _figure("Reconcile runs under way.")
    stuck_runs: int = _figure("Reconcile runs under way or due that no process works on.")
    proposals: int = _figure("Reconcile runs that wait for an approval.")
    drifted_organizations: int = _figure("Organizations whose last complete run changed something.")
    twice_drifted_organizations: int = _figure("Organizations whose last two complete runs changed something.")
    drifted_records: int = _figure("The differences that the last complete runs found.")
    oldest_complete_as_of_timestamp_seconds: float | None = _figure(
        "Of the organizations with an enabled directory, as of when they were last read whole, where that is longest ago."
    )
    shrinking_organizations: int = _figure(
        "Organizations that lost more than PROVISIONING_MAX_DEACTIVATION_SHARE of their active users by webhooks within 10 minutes."
    )


def read(session: Session, now: datetime, *, share: float, floor: int) -> Figures:
    """The figures now. An organization shrinks when it lost more than this `share`, and more than `floor` people."""
    waiting = waiting_deliveries(session)
    failed, dead = (waiting[each].number if each in waiting else 0 for each in ("failed", "dead_lettered"))
    standing = session.execute(_STANDING, {"lapsed": now - APPROVE_WITHIN}).mappings().one()
    drift = session.execute(_DRIFT).mappings().one()
    asked = {"since": now - LOSSES_WITHIN, "share": share, "floor": floor}
    return Figures(
        last_accepted_timestamp_seconds=_seconds(last_accepted(session)),
        failed_deliveries=failed,
        dead_lettered_deliveries=dead,
        oldest_unmended_timestamp_seconds=_seconds(min((each.oldest for each in waiting.values()), default=None)),
        **standing,
        stuck_runs=stuck_runs(session, now),
        drifted_organizations=drift["drifted"],
        twice_drifted_organizations=drift["twice"],
        drifted_records=int(drift["records"] or 0),
        oldest_complete_as_of_timestamp_seconds=None if drift["oldest"] is None else drift["oldest"] / 1e9,
        shrinking_organizations=session.execute(_SHRINKING, asked).scalar_one(),
    )


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def _number(counted: Any, name: str) -> ColumnElement[int]:
    return counted.scalar_subquery().label(name)  # type: ignore[no-any-return]  # of a Select of one integer


_runs = reconcile_runs.c
# A partial index is used only where its condition stands as it was written: no parameter in it.
_of_state = select(func.count()).select_from(reconcile_runs)
_STANDING = select(
    _number(select(func.count()).where(directories.c.enabled), "enabled_directories"),
    _number(_of_state.where(text("state = 'running'")), "running_runs"),
    _number(
        _of_state.where(text("state = 'needs_approval'"), _runs.finished_at >= bindparam("lapsed", type_=UtcTime())),
        "proposals",
    ),
)
_last, _before = reconcile_runs.alias("last_run"), reconcile_runs.alias("run_before")
_run = reconcile_runs.alias("run")


def _newest(*where: ColumnElement[bool]) -> ScalarSelect[Any]:
    """The id of the organization's newest complete run: down its own runs by the key, newest first."""
    complete = (_run.c.organization_id == organizations.c.id, _run.c.state == State.DONE, ~_run.c.dry_run)
    return select(_run.c.id).where(*complete, *where).order_by(_run.c.id.desc()).limit(1).correlate(organizations, _last).scalar_subquery()


_has_directory = exists().where(directories.c.organization_id == organizations.c.id, directories.c.enabled)
# What a run counts is what it changed; it also finds what it leaves as it is.
_last_changed, _before_changed = (cast(run.c.changes, Text) != "{}" for run in (_last, _before))
_DRIFT = (
    select(
        func.count().filter(_last_changed).label("drifted"),
        func.count().filter(_last_changed, _before_changed).label("twice"),
        func.sum(_last.c.drifted).label("records"),
        func.min(organizations.c.complete_as_of).filter(_has_directory).label("oldest"),
    )
    .select_from(organizations)  # outer joins, so that SQLite begins with these, and not with every run that there ever was
    .outerjoin(_last, (_last.c.organization_id == organizations.c.id) & (_last.c.id == _newest()))
    .outerjoin(_before, (_before.c.organization_id == organizations.c.id) & (_before.c.id == _newest(_run.c.id < _last.c.id)))
)
_whose = changes.c.organization_id.concat("")  # not the column itself: SQLite would go through the whole log, in its order
_lost = (
    select(_whose.label("organization_id"), func.count(changes.c.user_id.distinct()).label("people"))
    .where(
        text("type = 'user.deactivated'"),
        changes.c.recorded_at >= bindparam("since", type_=UtcTime()),
        changes.c.cause == "delivery",
    )
    .group_by(_whose)
    .having(func.count(changes.c.user_id.distinct()) > bindparam("floor"))
    .subquery("lost")
)
_left = select(func.count()).where(users.c.organization_id == _lost.c.organization_id, users.c.active).scalar_subquery()
_SHRINKING = select(func.count()).select_from(_lost).where(_lost.c.people > bindparam("share") * (_lost.c.people + _left))
