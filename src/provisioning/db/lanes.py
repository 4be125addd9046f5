"""Lanes: what each hook has yet to be told about whom, as places in the change log.

A lane is one hook's way to one user, group or directory: its messages go one after another. Whoever works on a lane has claimed it
until a time; when that is over anybody may. Rows are locked in one order: hooks, then lanes, each by their keys.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from secrets import token_hex
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, and_, bindparam, case, delete, exists, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import Insert, insert  # SQLite writes ON CONFLICT in the same words
from sqlalchemy.orm import Session

from provisioning.changes import ChangeType
from provisioning.db.hooks import Hook, pause, reach, set_state
from provisioning.db.models import BLANK, Name, UtcTime, changes, hook_dead_letters, hook_lanes, hooks
from provisioning.db.reading.changes import StoredChange
from provisioning.db.repository import Id, Repository, as_keys, keys

AT_ONCE = 10  # messages of a lane
SPREAD_AT_ONCE = 5_000  # positions of the log that are put into lanes in one transaction
GIVEN_UP_AFTER = timedelta(hours=24)
PROBED_FOR = timedelta(seconds=15)  # a failing hook is tried by one process at a time
URGENT = 0  # the priority of somebody who lost access
_URGENT = sorted({ChangeType.USER_DEACTIVATED, ChangeType.USER_ERASED})

_LANES = Repository(hook_lanes)
_DEAD_LETTERS = Repository(hook_dead_letters)


@dataclass(frozen=True, slots=True)
class Lane:
    """What is to be told to a hook about one user, group or directory: `pending` are the first changes behind `position`, up to `last`."""

    hook_id: str
    organization_id: str
    kind: str
    subject_id: str
    position: int
    last: int
    urgent: bool
    failing_since: datetime | None
    attempts: int
    claim: str
    pending: Sequence[StoredChange] = field(default=(), repr=False)

    @property
    def key(self) -> Id:
        """By which its row is found, and sorted."""
        return self.organization_id, self.hook_id, self.kind, self.subject_id


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a claimed lane has come: nothing is to be told up to `position`, and whether anything was `told`. `failed`: the change
    that was not, and `error` why.

    `away`: since nobody is there, or asked to be left alone for `retry_after`.
    """

    lane: Lane
    position: int
    told: bool = False
    failed: StoredChange | None = field(default=None, repr=False)
    error: str | None = None
    away: bool = False
    retry_after: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A change that could not be told to a hook for a day."""

    hook_id: str
    organization_id: str
    position: int
    mark: int
    type: str
    kind: str
    subject_id: str
    attempts: int
    error: str
    died_at: datetime


def spread(session: Session, hook: Hook, to: int, now: datetime) -> int:
    """Put what follows in the log into the lanes of a locked hook, up to this position, or some way towards it; returns how far.

    To be called with the position of a change up to which the log has settled.
    """
    to = min(to, hook.position + SPREAD_AT_ONCE)
    if to <= hook.position:  # somebody else has been further
        return hook.position
    narrowed = {"organization_id": hook.organization_id, "types": hook.types}
    given = {name: value for name, value in narrowed.items() if value}
    session.execute(_spreading(frozenset(given)), {"hook_id": hook.id, "after": hook.position, "to": to, "now": now, **given})
    reach(session, hook, to)
    return to


def due(session: Session, now: datetime) -> set[str]:
    """The hooks that have a lane to work on."""
    return set(session.scalars(_HOOKS_DUE, {"now": now}))


def claim(session: Session, hook: Hook, *, fresh: int, retried: int, now: datetime, until: datetime) -> list[Lane]:
    """Lanes of the hook that are due, ours `until` then, each with the first changes to tell: so many that did not fail, and so many
    that did.

    Those come first of somebody who lost access. Of a hook that fails, which has to be locked, fewer: see `Hook`.
    """
    if hook.failing_since:
        retried = min(retried, 1) if hook.retry_at and hook.retry_at <= now else 0
    if hook.fresh_at:
        fresh = min(fresh, 1) if hook.fresh_at <= now else 0
    found = _claim(session, hook, _FRESH, fresh, now, until)
    tried = [] if hook.fresh_at and found else _claim(session, hook, _RETRIED, retried, now, until)
    probed = now + PROBED_FOR
    if hook.fresh_at and (found or tried):
        set_state(session, replace(hook, retry_at=probed, fresh_at=probed))
    elif hook.failing_since and tried:
        set_state(session, replace(hook, retry_at=probed))
    return found + tried


def _claim(session: Session, hook: Hook, which: Select[Any], at_most: int, now: datetime, until: datetime) -> list[Lane]:
    """Those with something to tell. Of what was erased or forgotten since, nothing is."""
    while at_most > 0 and (found := session.execute(which, {"hook_id": hook.id, "now": now, "at_most": at_most}).mappings().all()):
        pending = _pending(session, hook, found)
        full = [row for row in found if (row["organization_id"], row["kind"], row["subject_id"]) in pending]
        _LANES.delete(session, [tuple(row[name] for name in _KEY) for row in found if row not in full])
        if full:
            ours = token_hex(8)
            _LANES.save(session, [{**row, "claim": ours, "due_at": until} for row in full])
            return [_lane(row, ours, pending) for row in full]
    return []


def recover(session: Session, hook: Hook, since: datetime, now: datetime) -> None:
    """A hook that is locked is there again: what has failed only while it was away is due at once."""
    session.execute(_RECOVER, {"of_hook": hook.id, "since": since, "now": now})


def settle(session: Session, progress: Iterable[Progress], now: datetime) -> list[DeadLetter]:
    """Write how far lanes have come; returns what has been given up. What is no longer ours is left to whoever has it."""
    ordered = sorted(progress, key=lambda each: each.lane.key)
    stored = _LANES.lock(session, [each.lane.key for each in ordered])
    done: list[Id] = []
    moved: list[dict[str, object]] = []
    dead: list[DeadLetter] = []
    for each in ordered:
        row = stored.get(each.lane.key)
        if row is None or row["claim"] != each.lane.claim:
            continue
        if row["position"] < each.lane.position:  # it is to be told again from there on
            moved.append({**row, "due_at": now, "claim": None})
            continue
        position, since, attempts, due_at = each.position, row["failing_since"], row["attempts"], now
        if each.told:
            since, attempts = None, 0
        if each.failed:
            since, attempts = since or now, attempts + 1
            due_at = now + pause(now - since)
            if now - max(since, each.failed.recorded_at) >= GIVEN_UP_AFTER:
                dead.append(_dead_letter(each.lane, each.failed, attempts, each.error, now))
                position, attempts, due_at = each.failed.position, 0, now
        if position >= row["last"]:
            done.append(each.lane.key)
        else:
            told = {"position": position, "due_at": due_at, "claim": None}
            moved.append({**row, **told, "failing_since": since, "attempts": attempts, "error": each.error})
    _LANES.delete(session, done)
    _LANES.save(session, moved)
    _DEAD_LETTERS.insert(session, [asdict(each) for each in dead])
    return dead


def waiting(session: Session) -> dict[str, int]:
    """By hook: the lanes in which there is something to tell."""
    return {hook_id: int(number) for hook_id, number in session.execute(_WAITING)}


def given_up(session: Session) -> dict[str, int]:
    """By hook: its dead letters."""
    return {hook_id: int(number) for hook_id, number in session.execute(_GIVEN_UP)}


def dead_letters(session: Session, hook_id: str | None, *, limit: int) -> list[DeadLetter]:
    """The first that were given up, of one hook or of all."""
    wanted = _DEAD if hook_id is None else _DEAD.where(hook_dead_letters.c.hook_id == hook_id)
    return [DeadLetter(**row) for row in session.execute(wanted.limit(limit)).mappings()]


def retry(session: Session, hook: Hook, positions: Collection[int] | None, now: datetime) -> int:
    """Have a locked hook told again what was given up, all of it or at these positions, and what followed in the same lanes.

    So that nobody's changes are told out of their order. Whoever is at work on one of the lanes ends first. Returns how many dead
    letters that ends.
    """
    dead = hook_dead_letters.c
    asked = (dead.hook_id == hook.id, *(() if positions is None else (dead.position.in_(positions),)))
    lane = (dead.organization_id, dead.kind, dead.subject_id)
    first, priority = func.min(dead.position).label("first"), func.min(_priority(dead.type)).label("priority")
    found = session.execute(select(*lane, first, priority).where(*asked).group_by(*lane).order_by(*lane)).mappings().all()
    stored = _LANES.lock(session, [(row["organization_id"], hook.id, row["kind"], row["subject_id"]) for row in found])
    anew = {"hook_id": hook.id, "last": hook.position, "failing_since": None, "attempts": 0, "error": None}
    free = {"position": hook.position, "due_at": now, "claim": None, "priority": URGENT + 1}
    rows: list[dict[str, object]] = []
    ended = 0
    for row in found:
        key = {name: row[name] for name in ("organization_id", "kind", "subject_id")}
        before = stored.get((key["organization_id"], hook.id, key["kind"], key["subject_id"]), free)
        held = {"claim": before["claim"], "due_at": before["due_at"] if before["claim"] else now}
        reach = {"position": min(before["position"], row["first"] - 1), "priority": min(before["priority"], row["priority"])}
        rows.append({**key, **anew, **held, **reach})
        same = tuple_(*lane) == tuple_(*key.values())
        gone = delete(hook_dead_letters).where(dead.hook_id == hook.id, same, dead.position >= row["first"])
        ended += session.execute(gone).rowcount  # type: ignore[attr-defined]  # what such a statement returns has it
    _LANES.save(session, rows)
    return ended


def _priority(type_: ColumnElement[str]) -> ColumnElement[int]:
    return case((type_.in_(_URGENT), URGENT), else_=URGENT + 1)


def _lane(row: RowMapping, claim: str, pending: Mapping[tuple[str, str, str], Sequence[StoredChange]]) -> Lane:
    fields = ("hook_id", "organization_id", "kind", "subject_id", "position", "last", "failing_since", "attempts")
    urgent = row["priority"] == URGENT
    here = pending.get((row["organization_id"], row["kind"], row["subject_id"]), ())
    return Lane(**{name: row[name] for name in fields}, urgent=urgent, claim=claim, pending=here)


def _dead_letter(lane: Lane, change: StoredChange, attempts: int, error: str | None, now: datetime) -> DeadLetter:
    ids = {name: getattr(lane, name) for name in ("hook_id", "organization_id", "kind", "subject_id")}
    place, type_ = change.place, change.type
    return DeadLetter(position=place.position, mark=place.mark, type=type_, attempts=attempts, error=error or "", died_at=now, **ids)


def _pending(session: Session, hook: Hook, found: Sequence[RowMapping]) -> Mapping[tuple[str, str, str], list[StoredChange]]:
    """By organization, kind and subject: the first changes that are to be told."""
    pending: defaultdict[tuple[str, str, str], list[StoredChange]] = defaultdict(list)
    for kind in sorted({row["kind"] for row in found}):
        lanes = as_keys((row["organization_id"], row["subject_id"]) for row in found if row["kind"] == kind)
        types = {"types": hook.types} if hook.types else {}
        for row in session.execute(_first_changes(kind, bool(types)), {"hook_id": hook.id, **lanes, **types}).mappings():
            change = StoredChange(**{name: row[name] for name in _OF_CHANGE})
            pending[change.organization_id, kind, row[_SUBJECT[kind].name]].append(change)
    return pending


_KEY = tuple(each.name for each in hook_lanes.primary_key.columns)
_OF_CHANGE = tuple(each.name for each in changes.columns)
_SUBJECT = {"user": changes.c.user_id, "group": changes.c.group_id, "directory": changes.c.directory_id}
_ABOUT: Mapping[str, tuple[ColumnElement[bool], ...]] = {
    "user": (changes.c.user_id.is_not(None),),
    "group": (changes.c.user_id.is_(None), changes.c.group_id.is_not(None)),
    "directory": (changes.c.user_id.is_(None), changes.c.group_id.is_(None)),
}
_now, _hook_id = bindparam("now", type_=UtcTime()), bindparam("hook_id", type_=Name)
_HOOKS_DUE = select(hooks.c.id).where(exists().where(hook_lanes.c.hook_id == hooks.c.id, hook_lanes.c.due_at <= _now))
_DUE = (
    select(hook_lanes)
    .where(hook_lanes.c.hook_id == _hook_id, hook_lanes.c.due_at <= _now)
    .order_by(hook_lanes.c.priority, hook_lanes.c.due_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)
_WAITING = select(hook_lanes.c.hook_id, func.count()).group_by(hook_lanes.c.hook_id)
_GIVEN_UP = select(hook_dead_letters.c.hook_id, func.count()).group_by(hook_dead_letters.c.hook_id)
_FRESH = _DUE.where(hook_lanes.c.failing_since.is_(None))
_RETRIED = _DUE.where(hook_lanes.c.failing_since.is_not(None))
_RECOVER = (
    update(hook_lanes)
    .where(
        hook_lanes.c.hook_id == bindparam("of_hook", type_=Name),
        hook_lanes.c.failing_since >= bindparam("since", type_=UtcTime()),
        hook_lanes.c.claim.is_(None),
    )
    .values(due_at=_now)
)
_DEAD = select(hook_dead_letters).order_by(hook_dead_letters.c.hook_id, hook_dead_letters.c.position)


@cache
def _spreading(given: frozenset[str]) -> Insert:
    """Each lane that the changes between two places concern: made, or reaching further, and sooner where somebody lost access."""
    narrowed: dict[str, ColumnElement[bool]] = {
        "organization_id": changes.c.organization_id == bindparam("organization_id"),
        "types": changes.c.type.in_(bindparam("types", expanding=True)),
    }
    told = (
        select(
            changes.c.organization_id,
            case(*((and_(*conditions), kind) for kind, conditions in _ABOUT.items())).label("kind"),
            func.coalesce(changes.c.user_id, changes.c.group_id, changes.c.directory_id).label("subject_id"),
            changes.c.position,
            _priority(changes.c.type).label("priority"),
        )
        .where(changes.c.position > bindparam("after"), changes.c.position <= bindparam("to"), changes.c.type != BLANK)
        .where(*(narrowed[name] for name in sorted(given)))
        .subquery("told")
    )
    lane = (told.c.organization_id, told.c.kind, told.c.subject_id)
    values = {
        "organization_id": told.c.organization_id,
        "hook_id": _hook_id,
        "kind": told.c.kind,
        "subject_id": told.c.subject_id,
        "position": func.min(told.c.position) - 1,
        "last": func.max(told.c.position),
        "priority": func.min(told.c.priority),
        "due_at": _now,
        "attempts": bindparam("attempts", 0),
    }
    rows = insert(hook_lanes).from_select(list(values), select(*values.values()).group_by(*lane).order_by(*lane))
    new, here = rows.excluded, hook_lanes.c
    sooner = new.priority < here.priority
    return rows.on_conflict_do_update(
        index_elements=list(hook_lanes.primary_key.columns),
        set_={
            "last": case((here.last > new.last, here.last), else_=new.last),
            "priority": case((sooner, new.priority), else_=here.priority),
            "due_at": case((and_(sooner, here.claim.is_(None)), new.due_at), else_=here.due_at),
        },
    )


@cache
def _first_changes(kind: str, by_type: bool) -> Select[Any]:
    """The first changes of each lane, in their order."""
    wanted = keys("organization_id", "subject_id")
    lane = hook_lanes.c
    behind = (changes.c.position > lane.position, changes.c.position <= lane.last)
    of_type = (changes.c.type.in_(bindparam("types", expanding=True)),) if by_type else ()
    number = func.row_number().over(partition_by=(changes.c.organization_id, _SUBJECT[kind]), order_by=changes.c.position)
    numbered = (
        select(changes, number.label("number"))
        .select_from(wanted)
        .join(
            hook_lanes,
            and_(
                lane.organization_id == wanted.c.organization_id,
                lane.hook_id == _hook_id,
                lane.kind == kind,
                lane.subject_id == wanted.c.subject_id,
            ),
        )
        .join(changes, and_(changes.c.organization_id == lane.organization_id, _SUBJECT[kind] == lane.subject_id, *_ABOUT[kind], *behind))
        .where(changes.c.type != BLANK, *of_type)
        .subquery("numbered")
    )
    first = select(*(numbered.c[name] for name in _OF_CHANGE)).where(numbered.c.number <= AT_ONCE)
    return first.order_by(numbered.c.position)
