"""Which users: the statements that find one, or a page of those that match, in the order of their ids."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.elements import KeyedColumnElement

from provisioning.db.models import directory_users, memberships, role_grants, users
from provisioning.db.reading.membership import effective, with_membership

_Columns: TypeAlias = ReadOnlyColumnCollection[str, KeyedColumnElement[Any]]

_organization_id, _after, _limit = bindparam("organization_id"), bindparam("after"), bindparam("limit")
_group_id, _role = bindparam("group_id"), bindparam("role")


def _is_in_group(user: _Columns) -> ColumnElement[bool]:
    same = and_(memberships.c.organization_id == user.organization_id, memberships.c.user_id == user.id)
    return exists().select_from(with_membership).where(effective, same, memberships.c.group_id == _group_id)


def _has_role(user: _Columns) -> ColumnElement[bool]:
    same = and_(role_grants.c.organization_id == user.organization_id, role_grants.c.user_id == user.id)
    return and_(user.active, exists().where(same, role_grants.c.role == _role))


def _is_behind(user: _Columns) -> ColumnElement[bool]:
    of = and_(directory_users.c.organization_id == _organization_id, directory_users.c.id == bindparam("directory_user_id"))
    return user.id == select(directory_users.c.user_id).where(of).scalar_subquery()


_conditions: dict[str, Callable[[_Columns], ColumnElement[bool]]] = {
    "email_key": lambda user: user.email_key == bindparam("email_key"),
    "active": lambda user: user.active == bindparam("active"),
    "group_id": _is_in_group,
    "role": _has_role,
    "directory_user_id": _is_behind,
}

_shown = users.alias("shown")
SHOWN = (
    select(*(column for column in _shown.c if column.name != "email_key"))
    .where(_shown.c.organization_id == _organization_id)
    .order_by(_shown.c.id)
)
ONE = SHOWN.where(_shown.c.id == bindparam("user_id"))


@cache
def page(given: frozenset[str]) -> Select[*tuple[object, ...]]:
    """Return the statement for a page under these filters.

    A filter that few users match leads: an address or a directory user, else the group, else the role. Each of the others is looked up for
    the users that the leading one gives, in the order of their ids, until the page is full.
    """
    lookup = bool(given & {"email_key", "directory_user_id"})
    if "group_id" in given and not lookup:
        leading = memberships.c
        ids = select(leading.user_id).select_from(with_membership).where(effective, leading.group_id == _group_id)
        others = given - {"group_id"}
    elif "role" in given and not lookup:
        leading = role_grants.c
        joined = role_grants.join(users, and_(users.c.organization_id == leading.organization_id, users.c.id == leading.user_id))
        ids = select(leading.user_id).select_from(joined).where(users.c.active, leading.role == _role)
        others = given - {"role"}
    else:
        matching = (_conditions[name](_shown.c) for name in sorted(given))
        return SHOWN.where(_shown.c.id > _after, *matching).limit(_limit)
    ids = ids.where(
        leading.organization_id == _organization_id,
        leading.user_id > _after,
        users.c.id > _after,  # says the same, for a plan that merges both indexes
        *(_conditions[name](users.c) for name in sorted(others)),
    )
    return SHOWN.where(_shown.c.id.in_(ids.distinct().order_by(leading.user_id).limit(_limit)))
