"""A turn: one transaction that writes what the last messages to hooks came to, spreads what is new, and claims what is to be told next."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TypeAlias

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.bodies import Json
from provisioning.db import changes as log
from provisioning.db import hooks as rows
from provisioning.db import lanes
from provisioning.db.hooks import Hook
from provisioning.db.lanes import DeadLetter, Lane, Progress
from provisioning.db.reading.changes import StoredChange, last_place
from provisioning.db.reading.users import Summary, summaries
from provisioning.db.session import Database
from provisioning.hooks.message import body
from provisioning.logs import describe as in_words
from provisioning.merge import Key

Busy: TypeAlias = Mapping[tuple[str, bool], int]  # by hook, and whether the lanes failed before
Describe: TypeAlias = Callable[[StoredChange, Mapping[Key, Summary]], Mapping[str, Json]]

AT_ONCE = 8  # lanes of one hook that a process works on
RETRIED_AT_ONCE = 2  # and so many more that failed before: whoever is refused keeps nobody else waiting, nor is forgotten
CLAIMED_FOR = timedelta(seconds=20)  # twice what a message takes

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    change: StoredChange
    id: str
    text: str | None = field(repr=False)  # None: it could not be made


@dataclass(frozen=True, slots=True)
class Errand:
    """A claimed lane, and what is to be told."""

    hook: Hook
    lane: Lane
    messages: Sequence[Message]
    until: float  # by the monotonic clock: then it is anybody's


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn came to: the hooks that there are, what is to be told now, what was given up. `more`: there is more than it did."""

    hooks: Set[str]
    errands: Sequence[Errand] = ()
    dead: Sequence[DeadLetter] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class _ToDo:
    """What there is to do: the hooks, up to where the log has settled, which hooks are `behind` that, and how many more lanes of each
    may be worked on: that did not fail before, and that did."""

    hooks: Mapping[str, Hook]
    end: int = 0
    behind: Set[str] = frozenset()
    free: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def take(database: Database, describe: Describe, progress: Sequence[Progress], busy: Busy, *, claims: bool) -> Turn:
    """Write how far lanes have come and, if it `claims`, have more of them to work on; `busy`: on how many work goes on besides.

    `describe` makes a change's JSON, with the users as they are now. Raises Unavailable.
    """
    now = datetime.now(UTC)
    to_do = _look(database, busy, now, claims=claims)
    if not (progress or to_do.behind or to_do.free):
        return Turn(to_do.hooks.keys())
    return database.write(lambda session: _write(session, describe, progress, to_do, now))


def _look(database: Database, busy: Busy, now: datetime, *, claims: bool) -> _ToDo:
    with database.reading() as session:
        hooks = {hook.id: hook for hook in rows.all_hooks(session)}
        settled = log.settled(session) if hooks else 0
    if not hooks or not claims:
        return _ToDo(hooks)
    with database.reading() as session:  # another one: its snapshot has to be the later
        end = last_place(session, settled).position
        due = lanes.due(session, now) & hooks.keys()
    behind = {id_ for id_, hook in hooks.items() if hook.position < end}
    free = {
        id_: (AT_ONCE - busy.get((id_, False), 0), RETRIED_AT_ONCE - busy.get((id_, True), 0))
        for id_ in behind | due
        if _may_go(hooks[id_], now)
    }
    return _ToDo(hooks, end, behind, {id_: numbers for id_, numbers in free.items() if max(numbers) > 0})


def _write(session: Session, describe: Describe, progress: Sequence[Progress], to_do: _ToDo, now: datetime) -> Turn:
    """One hook after another, so that nobody who holds lanes of a later one waits for those of an earlier one."""
    came_to: dict[str, list[Progress]] = {}
    for each in progress:
        came_to.setdefault(each.lane.hook_id, []).append(each)
    held, back = _hold(session, to_do, came_to, now)
    dead: list[DeadLetter] = []
    claimed: list[tuple[Hook, Lane]] = []
    more = False
    for id_, hook in sorted({**to_do.hooks, **held}.items()):
        dead += lanes.settle(session, came_to.get(id_, ()), now)
        if id_ in back:
            lanes.recover(session, hook, back[id_], now)
        if id_ in held and id_ in to_do.behind:
            more |= lanes.spread(session, hook, to_do.end, now) < to_do.end
        if id_ in to_do.free and (id_ in held or not hook.failing_since):
            fresh, retried = to_do.free[id_]
            found = lanes.claim(session, hook, fresh=fresh, retried=retried, now=now, until=now + CLAIMED_FOR)
            claimed += [(hook, lane) for lane in found]
    people = {Key(each.organization_id, each.user_id) for _, lane in claimed for each in lane.pending if each.user_id is not None}
    users = summaries(session, people)
    until = monotonic() + CLAIMED_FOR.total_seconds()
    errands = [Errand(hook, lane, [_message(describe, each, users) for each in lane.pending], until) for hook, lane in claimed]
    return Turn(to_do.hooks.keys(), errands, dead, more)


def _hold(
    session: Session, to_do: _ToDo, came_to: Mapping[str, Sequence[Progress]], now: datetime
) -> tuple[dict[str, Hook], dict[str, datetime]]:
    """The hooks that are ours until the end: those whose state is another after what was sent, and of those that are behind or fail the
    ones that nobody else holds, as whoever does is doing the same. And those that are there again, with since when they were away."""
    known = to_do.hooks
    changed = [id_ for id_, each in came_to.items() if id_ in known and _after(known[id_], each, now) != known[id_]]
    before = rows.lock(session, changed)
    held = {id_: _after(hook, came_to[id_], now) for id_, hook in before.items()}
    for hook in held.values():
        rows.set_state(session, hook)
    back = {id_: hook.failing_since for id_, hook in before.items() if hook.failing_since and hook.fresh_at and not held[id_].fresh_at}
    wanted = to_do.behind | {id_ for id_ in to_do.free if known[id_].failing_since}
    return held | rows.lock(session, wanted - held.keys(), skip_locked=True), back


def _after(hook: Hook, progress: Sequence[Progress], now: datetime) -> Hook:
    """The hook, as what its lanes came to leaves it."""
    error = next((each.error for each in progress if each.error), None)
    alone = max(each.retry_after for each in progress)
    away = any(each.away for each in progress) and not any(each.failed and not each.away for each in progress)
    return rows.after(hook, told=any(each.told for each in progress), error=error, away=away, retry_after=alone, now=now)


def _may_go(hook: Hook, now: datetime) -> bool:
    """Whether anything may be sent: to one that is away, now and then."""
    return hook.fresh_at is None or hook.fresh_at <= now or (hook.retry_at is not None and hook.retry_at <= now)


def _message(describe: Describe, change: StoredChange, users: Mapping[Key, Summary]) -> Message:
    try:
        told = describe(change, users)
        return Message(change, str(told["id"]), body(change.type, str(told["recorded_at"]), told))
    except Exception as error:  # one that cannot be made keeps back its own lane, and not what was told of others
        _log.error("message_failed", position=change.position, error=in_words(error))
        return Message(change, "", None)
