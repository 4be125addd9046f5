"""The change log as it is read: forwards by whoever follows it, backwards by whoever asks what happened to somebody."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select
from sqlalchemy.orm import Session

from provisioning.bodies import Json
from provisioning.db.models import BLANK, changes


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the log: a change's position, and a `mark` made of when it was recorded, by which this log is told from a restored one."""

    position: int = 0
    mark: int = 0


@dataclass(frozen=True, slots=True)
class StoredChange:
    """One change. `cause` is `delivery`, `run` or `operator`, and `cause_id` its webhook id, its id or a name; `occurred_at` in
    nanoseconds since 1970, where it happened."""

    position: int
    type: str
    organization_id: str
    user_id: str | None
    group_id: str | None
    directory_id: str | None
    role: str | None
    before: dict[str, Json] | None = field(repr=False)
    after: dict[str, Json] | None = field(repr=False)
    cause: str
    cause_id: str
    occurred_at: int | None
    recorded_at: datetime

    @property
    def place(self) -> Place:
        """Its place in the log."""
        return _place(self.position, self.recorded_at)


def last_place(session: Session, up_to: int) -> Place:
    """The place of the last change up to this position. (Behind it, positions that were given out may come again after a crash.)"""
    row = session.execute(_LAST, {"position": up_to}).one_or_none()
    return _place(row.position, row.recorded_at) if row else Place()


def kinds(session: Session, after: int, to: int) -> list[tuple[str, str, int]]:
    """What came behind `after`, up to `to`: each organization with each type, and the position of the last."""
    return [(organization_id, type_, last) for organization_id, type_, last in session.execute(_KINDS, {"after": after, "to": to})]


def page_of_changes(
    session: Session, *, after: int, to: int, limit: int, organization_id: str | None = None, types: Sequence[str] = ()
) -> list[StoredChange]:
    """Up to `limit` changes behind the position `after`, up to `to`, in their order: of one organization, or of these types, if given."""
    wanted = {"organization_id": organization_id, "types": list(types)}
    given = {name: value for name, value in wanted.items() if value}
    rows = session.execute(_following(frozenset(given)), {"after": after, "to": to, "limit": limit, **given})
    return [StoredChange(**row) for row in rows.mappings()]


def history_of_user(session: Session, organization_id: str, user_id: str, *, before: int, limit: int) -> list[StoredChange]:
    """Up to `limit` changes of a user, newest first, from the first one in front of the position `before`."""
    return _history(session, _OF_USER, organization_id, user_id, before, limit)


def history_of_group(session: Session, organization_id: str, group_id: str, *, before: int, limit: int) -> list[StoredChange]:
    """The same of a group: what became of it, and who came and went."""
    return _history(session, _OF_GROUP, organization_id, group_id, before, limit)


def _history(session: Session, statement: Select[Any], organization_id: str, id_: str, before: int, limit: int) -> list[StoredChange]:
    asked = {"organization_id": organization_id, "id": id_, "before": before, "limit": limit}
    return [StoredChange(**row) for row in session.execute(statement, asked).mappings()]


def _place(position: int, recorded_at: datetime) -> Place:
    return Place(position, (recorded_at - _EPOCH) // _TICK % 16**6)


_EPOCH, _TICK = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_position = changes.c.position
_LAST = select(_position, changes.c.recorded_at).where(_position <= bindparam("position")).order_by(_position.desc()).limit(1)
_KINDS = (
    select(changes.c.organization_id, changes.c.type, func.max(_position))
    .where(_position > bindparam("after"), _position <= bindparam("to"))
    .group_by(changes.c.organization_id, changes.c.type)
)
_READ = select(changes).where(changes.c.type != BLANK).limit(bindparam("limit"))
_BACK = _READ.where(changes.c.organization_id == bindparam("organization_id"), _position < bindparam("before")).order_by(_position.desc())
_OF_USER = _BACK.where(changes.c.user_id == bindparam("id"))
_OF_GROUP = _BACK.where(changes.c.group_id == bindparam("id"))


@cache
def _following(given: frozenset[str]) -> Select[Any]:
    narrowed: dict[str, ColumnElement[bool]] = {
        "organization_id": changes.c.organization_id == bindparam("organization_id"),
        "types": changes.c.type.in_(bindparam("types", expanding=True)),
    }
    here = _READ.where(_position > bindparam("after"), _position <= bindparam("to"), *(narrowed[name] for name in sorted(given)))
    return here.order_by(_position)
