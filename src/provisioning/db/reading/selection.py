"""Which users: the statements that find one, or a page of those that match, in the order of their ids."""

from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, Select, and_, bindparam, literal, select

from provisioning.db.models import directory_users, memberships, role_grants, users
from provisioning.db.reading.membership import effective, there_is, with_membership

_Id: TypeAlias = ColumnElement[Any]

_organization_id: BindParameter[str] = bindparam("organization_id")
_after: BindParameter[str] = bindparam("after")
_limit: BindParameter[int] = bindparam("limit")
_group_id: BindParameter[str] = bindparam("group_id")
_role: BindParameter[str] = bindparam("role")

_shown = users.alias("shown")
SHOWN = (
    select(*(column for column in _shown.c if column.name != "email_key"))
    .where(_shown.c.organization_id == _organization_id)
    .order_by(_shown.c.id)
)
ONE = SHOWN.where(_shown.c.id == bindparam("user_id"))


@cache
def page(given: frozenset[str]) -> Select[*tuple[Any, ...]]:
    """Return the statement for a page under these filters, of which `group_id` and `role` find active users only.

    A filter that few users match leads: an address or a directory user, else the group, else the role. What does not lead is looked up for
    each user that the leading one gives, in the order of their ids, until the page is full.
    """
    if given & {"email_key", "directory_user_id"} or not given & {"group_id", "role"}:
        return SHOWN.where(_shown.c.id > _after, *map(_of_shown, sorted(given))).limit(_limit)
    if "group_id" in given:
        leading = memberships.c
        ids = select(leading.user_id).select_from(with_membership).where(effective, leading.group_id == _group_id)
        if "role" in given:
            ids = ids.where(_has_role(leading.user_id))
    else:
        leading = role_grants.c
        ids = select(leading.user_id).where(leading.role == _role)
    # Not joined: PostgreSQL would merge the two in their order, and so walk through all users before the page.
    active = there_is(select(literal(1)).where(users.c.organization_id == _organization_id, users.c.id == leading.user_id, users.c.active))
    ids = ids.where(leading.organization_id == _organization_id, leading.user_id > _after, active)
    return SHOWN.where(_shown.c.id.in_(ids.distinct().order_by(leading.user_id).limit(_limit)))


def _of_shown(name: str) -> ColumnElement[bool]:
    match name:
        case "email_key":
            return _shown.c.email_key == bindparam("email_key")
        case "directory_user_id":
            same = and_(directory_users.c.organization_id == _organization_id, directory_users.c.id == bindparam("directory_user_id"))
            return _shown.c.id == select(directory_users.c.user_id).where(same).scalar_subquery()
        case "group_id":
            same = and_(memberships.c.organization_id == _organization_id, memberships.c.user_id == _shown.c.id)
            return there_is(select(literal(1)).select_from(with_membership).where(effective, same, memberships.c.group_id == _group_id))
        case "role":
            return _has_role(_shown.c.id)
        case _:
            return _shown.c.active == bindparam("active")


def _has_role(user_id: _Id) -> ColumnElement[bool]:
    same = and_(role_grants.c.organization_id == _organization_id, role_grants.c.user_id == user_id)
    return there_is(select(literal(1)).where(same, role_grants.c.role == _role))
