"""Hooks: whom the application wants told of changes, and whether they can be reached."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import RowMapping, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from provisioning.db.models import hook_dead_letters, hook_lanes, hooks

FIRST_PAUSE, LAST_PAUSE = timedelta(seconds=0.25), timedelta(minutes=5)
_TOLD_EVERY = timedelta(seconds=10)  # no row is written for each message


@dataclass(frozen=True, slots=True)
class Secret:
    """What a hook's messages are signed with, until then if anything is said."""

    text: str = field(repr=False)
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """A subscription: changes of these types (none: all), of one organization if given, are told to `url`.

    The log is in its lanes up to `position`. While it takes nothing, what was tried before is tried again one message at a time, from
    `retry_at` on. While nobody is there at all, so is what never was, from `fresh_at` on.
    """

    id: str
    url: str
    organization_id: str | None
    types: tuple[str, ...]
    secrets: tuple[Secret, ...]
    position: int
    created_by: str
    created_at: datetime
    failing_since: datetime | None = None
    retry_at: datetime | None = None
    fresh_at: datetime | None = None
    error: str | None = None
    told_at: datetime | None = None

    def signs_with(self, now: datetime) -> list[str]:
        """The secrets that sign now, the newest first."""
        return [each.text for each in self.secrets if each.until is None or each.until > now]


def all_hooks(session: Session) -> list[Hook]:
    """Every hook, the oldest first."""
    return [_hook(row) for row in session.execute(_ALL).mappings()]


def add(session: Session, hook: Hook) -> None:
    """Have it told what comes behind its position."""
    row = {name: getattr(hook, name) for name in ("id", "url", "organization_id", "position", "created_by", "created_at")}
    session.execute(insert(hooks), {**row, "types": list(hook.types), "secrets": _stored(hook.secrets)})


def set_secrets(session: Session, hook_id: str, secrets: Iterable[Secret]) -> None:
    """Have its messages signed with these."""
    session.execute(update(hooks).where(hooks.c.id == hook_id).values(secrets=_stored(secrets)))


def remove(session: Session, hook_id: str) -> bool:
    """Forget a hook, and what it has not been told; returns whether there was one."""
    if not lock(session, [hook_id]):
        return False
    for table in (hook_lanes, hook_dead_letters):
        session.execute(delete(table).where(table.c.hook_id == hook_id))
    session.execute(delete(hooks).where(hooks.c.id == hook_id))
    return True


def lock(session: Session, hook_ids: Collection[str], *, skip_locked: bool = False) -> dict[str, Hook]:
    """These hooks, locked until the transaction ends; `skip_locked`: but for those that somebody else holds."""
    if not hook_ids:
        return {}
    found = session.execute(_LOCK.with_for_update(skip_locked=skip_locked), {"ids": sorted(hook_ids)}).mappings()
    return {row["id"]: _hook(row) for row in found}


def reach(session: Session, hook: Hook, position: int) -> None:
    """The log is in the lanes of this hook, which is locked, up to there."""
    session.execute(update(hooks).where(hooks.c.id == hook.id).values(position=position))


def after(hook: Hook, *, told: bool, error: str | None, away: bool, retry_after: timedelta, now: datetime) -> Hook:
    """The hook, as what was just sent leaves it: whoever was `told` anything is there, whatever one message came to.

    `away`: nobody is there, or asks to be left alone, for `retry_after`. Else it was refused, which says nothing of other messages.
    """
    if told:
        recently = hook.told_at is not None and now - hook.told_at < _TOLD_EVERY
        return replace(hook, failing_since=None, retry_at=None, fresh_at=None, error=None, told_at=hook.told_at if recently else now)
    if error is None:  # let go of
        return replace(hook, retry_at=hook.retry_at and now, fresh_at=hook.fresh_at and now)
    since, alone = hook.failing_since or now, min(retry_after, LAST_PAUSE)
    retry_at = now + max(pause(now - since), alone)
    fresh_at = now + max(FIRST_PAUSE, alone) if away else None
    return replace(hook, failing_since=since, retry_at=retry_at, fresh_at=fresh_at, error=error)


def set_state(session: Session, hook: Hook) -> None:
    """Write whether a locked hook fails, and until when it is left alone."""
    state = {name: getattr(hook, name) for name in ("failing_since", "retry_at", "fresh_at", "error", "told_at")}
    session.execute(update(hooks).where(hooks.c.id == hook.id).values(state))


def pause(failing_for: timedelta) -> timedelta:
    """Until the next try: a hundredth of the time for which it has failed, within bounds."""
    return min(max(failing_for / 100, FIRST_PAUSE), LAST_PAUSE)


def _hook(row: RowMapping) -> Hook:
    secrets = (Secret(each["secret"], each["until"] and datetime.fromisoformat(each["until"])) for each in row["secrets"])
    return Hook(**{**row, "types": tuple(row["types"]), "secrets": tuple(secrets)})


def _stored(secrets: Iterable[Secret]) -> list[dict[str, str | None]]:
    return [{"secret": each.text, "until": each.until.isoformat() if each.until else None} for each in secrets]


_ALL = select(hooks).order_by(hooks.c.created_at, hooks.c.id)
_LOCK = select(hooks).where(hooks.c.id.in_(bindparam("ids", expanding=True))).order_by(hooks.c.id)
