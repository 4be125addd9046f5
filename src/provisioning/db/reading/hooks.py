"""How hooks stand: of whom they have yet to be told, what they refuse, what was given up, and whether anybody tells them at all."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from provisioning.db.hooks import Hook, all_hooks
from provisioning.db.lanes import given_up
from provisioning.db.models import UtcTime, changes, hook_lanes, hooks

PASSING = timedelta(minutes=1)  # a failure that lasts no longer is a deploy of the application's
UNTOLD_AFTER = timedelta(minutes=2)  # whoever tells begins within a second; a claim is over after one minute


@dataclass(frozen=True, slots=True)
class Standing:
    """A hook, and of how many people, groups and directories it has yet to be told.

    `refused`: of how many of these it was told and did not take it, the first of them `refused_since`. `untold_since`: there is something
    to tell, and from then on nobody has tried.
    """

    hook: Hook
    waiting: int
    refused: int
    refused_since: datetime | None
    untold_since: datetime | None
    dead_letters: int

    def fails(self, now: datetime) -> bool:
        """Whether it takes nothing at all."""
        return _lasts(self.hook.failing_since, now)

    def refuses(self, now: datetime) -> bool:
        """Whether it takes messages, but not those about somebody."""
        return not self.fails(now) and _lasts(self.refused_since, now)

    def troubled(self, now: datetime) -> bool:
        """Whether somebody should look at it."""
        return self.fails(now) or self.refuses(now) or self.untold_since is not None or self.dead_letters > 0


def standings(session: Session, now: datetime) -> list[Standing]:
    """Every hook, the oldest first. It counts all that waits."""
    waiting = {row.hook_id: row for row in session.execute(_LANES)}
    behind = {row.id: row.since for row in session.execute(_BEHIND)}
    dead = given_up(session)
    found: list[Standing] = []
    for hook in all_hooks(session):
        row = waiting.get(hook.id)
        number, due, refused, refused_since = (row.number, row.due, row.refused, row.refused_since) if row else (0, None, 0, None)
        untold_since = _untold_since(hook, min(filter(None, (due, behind.get(hook.id))), default=None), now)
        found.append(Standing(hook, number, refused, refused_since, untold_since, dead.get(hook.id, 0)))
    return found


def _lasts(since: datetime | None, now: datetime) -> bool:
    return since is not None and now - since > PASSING


def _untold_since(hook: Hook, since: datetime | None, now: datetime) -> datetime | None:
    """Since when nobody has tried, where something is to be told `since` then.

    What waits may be old, of a slow hook or a failing one: that somebody is at work on it, the hook says.
    """
    if since is None:
        return None
    last = max(filter(None, (since, hook.told_at, hook.retry_at)))
    return last if now - last > UNTOLD_AFTER else None


_lane = hook_lanes.c
_LANES = select(
    _lane.hook_id,
    func.count().label("number"),
    func.min(_lane.due_at, type_=UtcTime()).label("due"),
    func.count(_lane.failing_since).label("refused"),
    func.min(_lane.failing_since, type_=UtcTime()).label("refused_since"),
).group_by(_lane.hook_id)
# When the first change was recorded that is in no lane of the hook yet.
_BEHIND = select(
    hooks.c.id,
    select(changes.c.recorded_at)
    .where(changes.c.position > hooks.c.position)
    .order_by(changes.c.position)
    .limit(1)
    .correlate(hooks)
    .scalar_subquery()
    .label("since"),
)
