"""How the service stands, by what lives in the database: a few statements, none of which grows with what was received or who is here."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Table, Text, bindparam, cast, exists, func, literal_column, select, text, union_all
from sqlalchemy.orm import Session

from provisioning.db.models import UtcTime, changes, directories, hook_dead_letters, hook_lanes, hooks, organizations, reconcile_runs, users
from provisioning.db.runs import APPROVE_WITHIN, State
from provisioning.db.standing import last_accepted, stuck_runs, waiting_deliveries

LOSSES_WITHIN = timedelta(minutes=10)
COUNTED = 1_000  # of what waits for hooks: it may be everybody


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
    failing_hooks: int = _figure("Hooks that could not be told anything since their last failure.")
    waiting_hook_lanes: int = _figure(f"Of how many people, groups and directories hooks have yet to be told, up to {COUNTED:,}.")
    oldest_hook_lane_timestamp_seconds: float | None = _figure("Since when the one of them waits that has waited longest.")
    hook_dead_letters: int = _figure(f"Messages to hooks that were given up, up to {COUNTED:,}.")


def read(session: Session, now: datetime, *, share: float, floor: int) -> Figures:
    """The figures now. An organization shrinks when it lost more than this `share`, and more than `floor` people."""
    waiting = waiting_deliveries(session)
    failed, dead = (waiting[each].number if each in waiting else 0 for each in ("failed", "dead_lettered"))
    standing = session.execute(_STANDING, {"lapsed": now - APPROVE_WITHIN}).mappings().one()
    drift = session.execute(_DRIFT).mappings().one()
    of_hooks = session.execute(_HOOKS).mappings().one()
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
        failing_hooks=of_hooks["failing"],
        waiting_hook_lanes=of_hooks["waiting"],
        # What somebody has claimed is due when that is over.
        oldest_hook_lane_timestamp_seconds=_seconds(of_hooks["oldest"] if of_hooks["oldest"] and of_hooks["oldest"] < now else None),
        hook_dead_letters=of_hooks["dead"],
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


def _up_to(table: Table) -> Any:
    return select(func.count()).select_from(select(literal_column("1")).select_from(table).limit(COUNTED).subquery())


def _of_each_hook(statement: Any) -> Any:
    return select(statement.limit(1).correlate(hooks).scalar_subquery().label("since")).select_from(hooks)


_lane = hook_lanes.c
_lanes_of_hook = [
    select(_lane.due_at).where(_lane.hook_id == hooks.c.id, _lane.priority == priority).order_by(_lane.due_at) for priority in (0, 1)
]
_not_in_lanes_yet = select(changes.c.recorded_at).where(changes.c.position > hooks.c.position).order_by(changes.c.position)
_since = union_all(
    *(_of_each_hook(each) for each in (*_lanes_of_hook, _not_in_lanes_yet)),
    # One that failed is due later and later.
    select(func.min(_lane.failing_since)).where(text("failing_since IS NOT NULL")),
).subquery("since")
_HOOKS = select(
    _number(select(func.count()).select_from(hooks).where(hooks.c.failing_since.is_not(None)), "failing"),
    _number(_up_to(hook_lanes), "waiting"),
    select(func.min(_since.c.since, type_=UtcTime())).scalar_subquery().label("oldest"),
    _number(_up_to(hook_dead_letters), "dead"),
)
