"""Groups as they are now, with how many active users are in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, bindparam, distinct, func, not_, select
from sqlalchemy.orm import Session

from provisioning.db.models import groups, memberships
from provisioning.errors import NotFound


@dataclass(frozen=True, slots=True)
class Group:
    """A directory's group. A deleted one has no members; one that only users' events named yet has no directory."""

    id: str
    organization_id: str
    name: str | None
    external_id: str | None
    directory_id: str | None
    deleted: bool
    member_count: int
    created_at: datetime
    updated_at: datetime


def page_of_groups(session: Session, organization_id: str, *, include_deleted: bool, after: str, limit: int) -> list[Group]:
    """Return up to `limit` groups in the order of their ids, from the first one behind `after` ("": from the start)."""
    statement = PAGE_WITH_DELETED if include_deleted else PAGE
    parameters = {"organization_id": organization_id, "after": after, "limit": limit}
    return _counted(session, organization_id, session.execute(statement, parameters).mappings().all())


def one_group(session: Session, organization_id: str, group_id: str) -> Group:
    """Return the group, deleted or not. Raises NotFound."""
    return _counted(session, organization_id, [require_group(session, organization_id, group_id)])[0]


def groups_named(session: Session, organization_id: str, name: str, *, limit: int) -> list[Group]:
    """Return up to `limit` groups of exactly this name, deleted or not, in the order of their ids."""
    asked = {"organization_id": organization_id, "name": name, "limit": limit}
    return _counted(session, organization_id, session.execute(_NAMED, asked).mappings().all())


def require_group(session: Session, organization_id: str, group_id: str) -> RowMapping:
    """Return the group's row, uncounted. Raises NotFound."""
    row = session.execute(_ONE, {"organization_id": organization_id, "group_id": group_id}).mappings().one_or_none()
    if row is None:
        raise NotFound("This organization has no such group.")
    return row


_GROUPS = select(*(column for column in groups.c if column.name != "registers")).where(
    groups.c.organization_id == bindparam("organization_id")
)
_ONE = _GROUPS.where(groups.c.id == bindparam("group_id"))
_NAMED = _GROUPS.where(groups.c.name == bindparam("name")).order_by(groups.c.id).limit(bindparam("limit"))
PAGE_WITH_DELETED = _GROUPS.where(groups.c.id > bindparam("after")).order_by(groups.c.id).limit(bindparam("limit"))
PAGE = PAGE_WITH_DELETED.where(not_(groups.c.deleted))
COUNTS = (
    select(memberships.c.group_id, func.count(distinct(memberships.c.user_id)))
    .where(
        memberships.c.organization_id == bindparam("organization_id"),
        memberships.c.group_id.in_(bindparam("ids", expanding=True)),
        memberships.c.since.is_not(None),
    )
    .group_by(memberships.c.group_id)
)


def _counted(session: Session, organization_id: str, rows: Sequence[RowMapping]) -> list[Group]:
    counts: dict[str, int] = {}
    if ids := [row["id"] for row in rows if not row["deleted"]]:
        counts = {row[0]: row[1] for row in session.execute(COUNTS, {"organization_id": organization_id, "ids": ids})}
    return [Group(**row, member_count=counts.get(row["id"], 0)) for row in rows]
