"""The rows of reconcile runs: asked for, claimed by lease, renewed, ended. Whoever lost the lease can write nothing more.

Of an organization one run is under way, at most: a unique index says so, to every replica.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from secrets import token_hex
from typing import Any, cast

from sqlalchemy import JSON, BigInteger, Integer, RowMapping, Select, and_, bindparam, exists, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert  # SQLite writes ON CONFLICT in the same words
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from provisioning.bodies import Json
from provisioning.db import erased, locks, personal
from provisioning.db.models import Name, UtcTime, organizations, reconcile_runs
from provisioning.db.session import Contended
from provisioning.errors import Conflict, NotFound
from provisioning.merge import Key

APPROVE_WITHIN = timedelta(hours=24)
FINDINGS_LIVE = timedelta(days=30)
SCHEDULE = "the schedule"  # no API key has a name with a space in it

_runs = reconcile_runs.c


class State(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    NEEDS_APPROVAL = "needs_approval"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it by itself."""
        return self not in {State.QUEUED, State.RUNNING}


class LeaseLost(Exception):
    """The run is somebody else's by now: nothing of this transaction may be kept."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run's row. `changes` by the contract's names; `drift`: the first of the `drifted` findings; `held_back`: why, in words."""

    organization_id: str
    id: str
    state: State
    dry_run: bool
    requested_by: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_wanted_by: str | None
    approved_by: str | None
    listed_users: int
    listed_groups: int
    expected_users: int | None
    changes: Mapping[str, int]
    removed: Mapping[str, int]
    drift: list[dict[str, Json]]
    drifted: int
    held_back: list[str]
    proposal: dict[str, Json] | None
    error: str | None


@dataclass(frozen=True, slots=True)
class History:
    """When Scalekit's time was last taken (nanoseconds since 1970), and whether `active` and total numbers were ever as assumed."""

    as_of: int
    saw_active: bool
    saw_totals: bool


_COLUMNS = [_runs[field.name] for field in fields(Run)]
_ONE = select(*_COLUMNS).where(_runs.organization_id == bindparam("organization_id"), _runs.id == bindparam("id"))
_LOCK = _ONE.with_for_update()
_UNFINISHED = (
    select(*_COLUMNS)
    .where(_runs.organization_id == bindparam("organization_id"), _runs.state.in_([State.QUEUED, State.RUNNING]))
    .order_by(_runs.state.desc(), _runs.id)  # the running one first
)
PAGE = (
    select(*(column for column in _COLUMNS if column.name != "drift"))
    .where(_runs.organization_id == bindparam("organization_id"), _runs.id < bindparam("before", type_=Name))
    .order_by(_runs.id.desc())
    .limit(bindparam("limit"))
)
_INSERT = insert(reconcile_runs).on_conflict_do_nothing().returning(_runs.id)
_NOTHING_YET = {
    "state": State.QUEUED,
    "listed_users": 0,
    "listed_groups": 0,
    "changes": {},
    "removed": {},
    "drift": [],
    "drifted": 0,
    "held_back": [],
    "saw_active": False,
    "saw_totals": False,
}


def one(session: Session, organization_id: str, run_id: str, now: datetime) -> Run:
    """The run. Raises NotFound."""
    row = session.execute(_ONE, {"organization_id": organization_id, "id": run_id}).mappings().one_or_none()
    if row is None:
        raise NotFound("This organization has no such run.")
    return _run(row, now)


def by_id(session: Session, run_id: str, now: datetime) -> Run:
    """The run with this id, of whichever organization. Raises NotFound."""
    row = session.execute(_BY_ID, {"id": run_id}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no run {run_id}.")
    return _run(row, now)


def page(session: Session, organization_id: str, *, before: str, limit: int, now: datetime) -> list[Run]:
    """Up to `limit` runs of the organization, newest first, from the first one older than `before`; without what they found."""
    rows = session.execute(PAGE, {"organization_id": organization_id, "before": before, "limit": limit}).mappings()
    return [_run({**row, "drift": []}, now) for row in rows]


def request(session: Session, organization_id: str, *, dry_run: bool, requested_by: str, now: datetime) -> tuple[Run, bool]:
    """A run that begins now, and whether it is a new one: where one of the same kind waits or runs already, it is that.

    Raises Conflict where one of the other kind does.
    """
    # The index alone lets one by who looks before another's run is there, and inserts after it was claimed.
    locks.hold(session, [("runs", organization_id)])
    new = _new(organization_id, dry_run=dry_run, requested_by=requested_by, now=now, due_at=now)
    unfinished = _unfinished(session, organization_id, now)
    if not unfinished:
        if session.execute(_INSERT, new).first():
            return one(session, organization_id, str(new["id"]), now), True
        unfinished = _unfinished(session, organization_id, now)
    if not unfinished:
        raise Contended  # it has come and gone meanwhile
    for run in unfinished:
        if run.dry_run == dry_run:
            session.execute(_HURRY, {"its_organization": organization_id, "its_id": run.id, "now": now, "by": requested_by})
            return run, False
    other = unfinished[0]
    kind = "dry run" if other.dry_run else "run"
    raise Conflict(f"A {kind} of this organization is {other.state}: {other.id}. Wait for its end, or cancel it.")


def announce(session: Session, organization_ids: Iterable[str], *, requested_by: str, now: datetime, due_at: datetime) -> None:
    """Have a run of each of these organizations begin at `due_at`, unless one waits already; one that is under way has begun too early."""
    rows = [_new(each, dry_run=False, requested_by=requested_by, now=now, due_at=due_at) for each in sorted(set(organization_ids))]
    for row in rows:
        session.execute(_INSERT, row)


def claim(session: Session, *, owner: str, now: datetime, lease: timedelta, only: Collection[str] | None = None) -> Run | None:
    """The run that should go on first, leased to `owner`: one that is due, or whose lease has lapsed. None: nothing to do.

    The proposals that it supersedes are cancelled, and what old ones found is forgotten: it holds people's data.
    """
    asked = {"now": now, "only": list(only or ()), "any": only is None}
    row = session.execute(_CLAIMABLE, asked).mappings().first()
    if row is None:
        return None
    values = {"its_organization": row["organization_id"], "its_id": row["id"]}
    try:
        with session.begin_nested():
            session.execute(_CLAIM, {**values, "owner": owner, "now": now, "until": now + lease})
    except IntegrityError:  # another replica began one of this organization a moment ago
        return None
    if not row["dry_run"]:
        session.execute(_SUPERSEDE, {**values, "now": now, "why": f"Superseded by the run {row['id']}."})
    session.execute(_FORGET, {**values, "before": now - FINDINGS_LIVE})
    return one(session, row["organization_id"], row["id"], now)


def anything_to_claim(session: Session, now: datetime, only: Collection[str] | None = None) -> bool:
    """Whether `claim` might find something: read, so that an idle service writes nothing."""
    return session.execute(_CLAIMABLE_READ, {"now": now, "only": list(only or ()), "any": only is None}).first() is not None


def renew(session: Session, run: Run, *, owner: str, until: datetime, progress: Mapping[str, object]) -> str | None:
    """Keep the run for longer, and say how far it is; returns who wants it cancelled, if anybody. Raises LeaseLost.

    `progress`: what was listed; or all, which only the transaction may say that came so far: counts never go back.
    """
    values = {"its_organization": run.organization_id, "its_id": run.id, "its_owner": owner, "until": until, **progress}
    row = session.execute(_RENEW_WITH_COUNTS if "changes" in progress else _RENEW, values).first()
    if row is None:
        raise LeaseLost
    return cast("str | None", row[0])


def end(session: Session, run: Run, *, owner: str, state: State, now: datetime, **values: object) -> None:
    """Say what became of the run, and nothing of whoever was erased while it went on. Raises LeaseLost."""
    session.execute(select(_runs.id).where(*_its(run)).with_for_update())  # who is being erased now is waited for
    drift, proposal = cast("list[dict[str, Json]]", values.get("drift") or []), cast("dict[str, Json]", values.get("proposal") or {})
    named = {str(finding["id"]) for finding in drift if finding["type"] == "user"}
    named.update(*(cast("Iterable[str]", proposal.get(name, ())) for name in ("people", "memberships", "roles")))
    if gone := {key.id for key in erased.among(session, (Key(run.organization_id, each) for each in named))}:
        values |= {"drift": personal.without(drift, gone)} | ({"proposal": personal.unproposed(proposal, gone)} if proposal else {})
    ended = {**values, "state": state, "finished_at": now, "claimed_by": None, "leased_until": None, "cancel_wanted_by": None}
    statement = update(reconcile_runs).where(*_its(run), _runs.claimed_by == owner, _runs.state == State.RUNNING).values(ended)
    if session.execute(statement).rowcount == 0:  # type: ignore[attr-defined] # what an UPDATE returns has it
        raise LeaseLost


def let_go(session: Session, run: Run, *, owner: str, now: datetime) -> None:
    """End the lease, not the run: whoever looks next takes it over."""
    session.execute(_LET_GO, {"its_organization": run.organization_id, "its_id": run.id, "its_owner": owner, "now": now})


def approve(session: Session, run: Run, *, by: str, now: datetime) -> Run:
    """The run, waiting to remove what it proposed. Raises Conflict unless it needs approval, and while another one waits."""
    run = _locked(session, run, now)
    if run.state is not State.NEEDS_APPROVAL:
        raise Conflict(f"This run is {run.state}, and only one that needs approval can be approved.{f' {run.error}' if run.error else ''}")
    queued = {"state": State.QUEUED, "approved_by": by, "due_at": now, "finished_at": None, "error": None}
    try:
        with session.begin_nested():
            session.execute(update(reconcile_runs).where(*_its(run)).values(queued))
    except IntegrityError:
        raise Conflict("Another run of this organization has been asked for, and supersedes this one.") from None
    return one(session, run.organization_id, run.id, now)


def cancel(session: Session, run: Run, *, by: str, now: datetime) -> Run:
    """The run, ended, or about to end when it is under way. What it applied stays. Raises Conflict when it has ended already."""
    run = _locked(session, run, now)
    if run.state.ended and run.state is not State.NEEDS_APPROVAL:
        raise Conflict(f"This run is {run.state} already.")
    ended = {"state": State.CANCELLED, "finished_at": now, "error": cancelled_by(by)}
    values = {"cancel_wanted_by": by} if run.state is State.RUNNING else ended
    session.execute(update(reconcile_runs).where(*_its(run)).values(values))
    return one(session, run.organization_id, run.id, now)


def cancelled_by(name: str) -> str:
    """What the row of a cancelled run says."""
    return f"Cancelled by {name}."


def removed_since(session: Session, organization_id: str, since: datetime) -> dict[str, int]:
    """How much the organization's runs have removed since then, without anybody's approval, by kind."""
    total: dict[str, int] = {}
    for (removed,) in session.execute(_REMOVED, {"organization_id": organization_id, "since": since}):
        for kind, number in removed.items():
            total[kind] = total.get(kind, 0) + number
    return total


def failures_since(session: Session, organization_id: str, requested_by: str, since: datetime) -> int:
    """How many runs failed since then that were asked for by this."""
    asked = {"organization_id": organization_id, "requested_by": requested_by, "since": since}
    return session.execute(_FAILED, asked).scalar_one()


def history(session: Session, organization_id: str) -> History:
    """What earlier runs of this organization saw."""
    as_of, active, totals = session.execute(_HISTORY, {"organization_id": organization_id}).one()
    return History(as_of or 0, bool(active), bool(totals))


def last_requests(session: Session) -> dict[str, datetime | None]:
    """By known organization: when a run of it that changes something was last asked for."""
    return {row[0]: row[1] for row in session.execute(_LAST)}


def busy(session: Session) -> set[str]:
    """The organizations of which a run waits or runs."""
    return {organization_id for (organization_id,) in session.execute(_BUSY)}


def unfinished_of_schedule(session: Session) -> int:
    """How many runs of the schedule wait or run."""
    return session.execute(_SCHEDULED).scalar_one()


def _unfinished(session: Session, organization_id: str, now: datetime) -> list[Run]:
    rows = session.execute(_UNFINISHED, {"organization_id": organization_id}).mappings()
    return [_run(row, now) for row in rows]


def _new(organization_id: str, *, dry_run: bool, requested_by: str, now: datetime, due_at: datetime) -> dict[str, object]:
    run_id = f"run_{int(now.timestamp() * 1000):012x}{token_hex(6)}"  # rising with time: newest last
    asked = {"dry_run": dry_run, "requested_by": requested_by, "requested_at": now, "due_at": due_at}
    return {"organization_id": organization_id, "id": run_id, **_NOTHING_YET, **asked}


def _locked(session: Session, run: Run, now: datetime) -> Run:
    """The run as it is now, and stays until the transaction ends: whoever decides read it a while ago."""
    session.execute(_LOCK, {"organization_id": run.organization_id, "id": run.id})
    return one(session, run.organization_id, run.id, now)


def _run(row: RowMapping | Mapping[str, Any], now: datetime) -> Run:
    run = Run(**{**row, "state": State(row["state"])})
    if run.state is State.NEEDS_APPROVAL and run.finished_at and now - run.finished_at > APPROVE_WITHIN:
        return Run(**{**row, "state": State.CANCELLED, "error": "Lapsed: nobody approved it within 24 hours."})
    return run


def _its(run: Run) -> tuple[Any, Any]:
    return _runs.organization_id == run.organization_id, _runs.id == run.id


_BY_ID = select(*_COLUMNS).where(_runs.id == bindparam("id"))
_of_it = (_runs.organization_id == bindparam("its_organization"), _runs.id == bindparam("its_id"))
_mine = (*_of_it, _runs.claimed_by == bindparam("its_owner"), _runs.state == State.RUNNING)
_now = bindparam("now", type_=UtcTime())
_other = reconcile_runs.alias("other")
_claimable: Select[Any] = (
    select(_runs.organization_id, _runs.id, _runs.dry_run)
    .where(
        or_(
            and_(
                _runs.state == State.QUEUED,
                _runs.due_at <= _now,
                ~exists().where(_other.c.organization_id == _runs.organization_id, _other.c.state == State.RUNNING),
            ),
            and_(_runs.state == State.RUNNING, _runs.leased_until < _now),
        ),
        or_(bindparam("any"), _runs.id.in_(bindparam("only", expanding=True))),
    )
    .order_by(_runs.requested_by == SCHEDULE, _runs.due_at)  # what somebody waits for comes first
    .limit(1)
)
_CLAIMABLE_READ = _claimable
_CLAIMABLE = _claimable.with_for_update(skip_locked=True, of=reconcile_runs)
_CLAIM = (
    update(reconcile_runs)
    .where(*_of_it)
    .values(
        state=State.RUNNING,
        claimed_by=bindparam("owner"),
        leased_until=bindparam("until", type_=UtcTime()),
        started_at=func.coalesce(_runs.started_at, _now),
        drift=[],
        drifted=0,
        held_back=[],
    )
)
_SUPERSEDE = (
    update(reconcile_runs)
    .where(_of_it[0], _runs.id != bindparam("its_id"), _runs.state == State.NEEDS_APPROVAL)
    .values(state=State.CANCELLED, error=bindparam("why"), finished_at=_now)
)
_HURRY = update(reconcile_runs).where(*_of_it, _runs.state == State.QUEUED).values(due_at=_now, requested_by=bindparam("by"))
_LET_GO = update(reconcile_runs).where(*_mine).values(leased_until=_now)
_renewed = {
    "leased_until": bindparam("until", type_=UtcTime()),
    "listed_users": bindparam("listed_users"),
    "listed_groups": bindparam("listed_groups"),
    "expected_users": bindparam("expected_users"),
}
_counts = {
    "changes": bindparam("changes", type_=JSON),
    "removed": bindparam("removed", type_=JSON),
    # A process that took the run over has not seen what the one before it saw.
    "as_of": func.coalesce(bindparam("as_of", type_=BigInteger), _runs.as_of),
    "saw_active": or_(_runs.saw_active, bindparam("saw_active")),
    "saw_totals": or_(_runs.saw_totals, bindparam("saw_totals")),
}
_RENEW = update(reconcile_runs).where(*_mine).values(_renewed).returning(_runs.cancel_wanted_by)
_RENEW_WITH_COUNTS = update(reconcile_runs).where(*_mine).values(_renewed | _counts).returning(_runs.cancel_wanted_by)
_REMOVED = select(_runs.removed).where(
    _runs.organization_id == bindparam("organization_id"),
    or_(_runs.finished_at.is_(None), _runs.finished_at >= bindparam("since", type_=UtcTime())),
)
_FAILED = select(func.count()).where(
    _runs.organization_id == bindparam("organization_id"),
    _runs.requested_by == bindparam("requested_by"),
    _runs.state == State.FAILED,
    _runs.finished_at >= bindparam("since", type_=UtcTime()),
)
_FORGET = (
    update(reconcile_runs)
    .where(_of_it[0], _runs.finished_at < bindparam("before", type_=UtcTime()), _runs.drifted > 0)
    .values(drift=[], drifted=0, proposal=null())
)
_HISTORY = select(func.max(_runs.as_of), func.max(_runs.saw_active.cast(Integer)), func.max(_runs.saw_totals.cast(Integer))).where(
    _runs.organization_id == bindparam("organization_id")
)
_LAST = (
    select(organizations.c.id, func.max(_runs.requested_at))
    .outerjoin(reconcile_runs, and_(_runs.organization_id == organizations.c.id, ~_runs.dry_run))
    .group_by(organizations.c.id)
    .order_by(organizations.c.id)
)
_SCHEDULED = select(func.count()).where(_runs.requested_by == SCHEDULE, _runs.state.in_([State.QUEUED, State.RUNNING]))
_BUSY = select(_runs.organization_id).where(_runs.state.in_([State.QUEUED, State.RUNNING])).distinct()
