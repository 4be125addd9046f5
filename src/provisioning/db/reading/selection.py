"""Which users: the statements that find one, or a page of those that match, in the order of their ids."""

from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, FromClause, Select, and_, bindparam, literal, select

from provisioning.db.models import application_ids, directory_users, memberships, role_grants, users

_Id: TypeAlias = ColumnElement[Any]

_organization_id: BindParameter[str] = bindparam("organization_id")
_after: BindParameter[str] = bindparam("after")
_limit: BindParameter[int] = bindparam("limit")
_group_id: BindParameter[str] = bindparam("group_id")
_role: BindParameter[str] = bindparam("role")


def application_id_of(of: FromClause) -> ColumnElement[str | None]:
    """Return the application's id of the user in each row of `of`, by a look-up; a join may read the organization for one page."""
    same = and_(application_ids.c.organization_id == of.c.organization_id, application_ids.c.user_id == of.c.id)
    return select(application_ids.c.application_id).where(same).scalar_subquery().label("application_id")


_shown = users.alias("shown")
SHOWN = (
    select(*(column for column in _shown.c if column.name not in {"email_key", "activated_at"}), application_id_of(_shown))
    .where(_shown.c.organization_id == _organization_id)
    .order_by(_shown.c.id)
)
ONE = SHOWN.where(_shown.c.id == bindparam("user_id"))


@cache
def page(given: frozenset[str]) -> Select[*tuple[Any, ...]]:
    """Return the statement for a page under these filters, of which `group_id` and `role` find active users only.

    A filter that few users match leads: an address, a directory user or an application id, else the group, else the role. What does not
    lead is looked up for each user that the leading one gives, in the order of their ids, until the page is full.
    """
    if given & {"email_key", "directory_user_id", "application_id"} or not given & {"group_id", "role"}:
        return SHOWN.where(_shown.c.id > _after, *map(_of_shown, sorted(given))).limit(_limit)
    if "group_id" in given:
        leading = memberships.c
        ids = select(leading.user_id).where(leading.since.is_not(None), leading.group_id == _group_id)
        if "role" in given:
            ids = ids.where(_has_role(leading.user_id))
    else:
        leading = role_grants.c
        ids = select(leading.user_id).where(leading.role == _role)
    ids = ids.where(leading.organization_id == _organization_id, leading.user_id > _after)
    return SHOWN.where(_shown.c.id.in_(ids.distinct().order_by(leading.user_id).limit(_limit)))


def there_is(rows: Select[*tuple[Any, ...]]) -> ColumnElement[bool]:
    """Return EXISTS as a look-up for each row. EXISTS itself PostgreSQL may turn into a join that reads the organization for one page."""
    return rows.limit(1).scalar_subquery().is_not(None)


def _of_shown(name: str) -> ColumnElement[bool]:
    match name:
        case "email_key":
            return _shown.c.email_key == bindparam("email_key")
        case "directory_user_id":
            same = and_(directory_users.c.organization_id == _organization_id, directory_users.c.id == bindparam("directory_user_id"))
            return _shown.c.id == select(directory_users.c.user_id).where(same).scalar_subquery()
        case "application_id":
            same = and_(
                application_ids.c.organization_id == _organization_id, application_ids.c.application_id == bindparam("application_id")
            )
            return _shown.c.id == select(application_ids.c.user_id).where(same).scalar_subquery()
        case "group_id":
            same = and_(memberships.c.organization_id == _organization_id, memberships.c.user_id == _shown.c.id)
            counts = and_(memberships.c.group_id == _group_id, memberships.c.since.is_not(None))
            return there_is(select(literal(1)).where(same, counts))
        case "role":
            return _has_role(_shown.c.id)
        case _:
            return _shown.c.active == bindparam("active")


def _has_role(user_id: _Id) -> ColumnElement[bool]:
    same = and_(role_grants.c.organization_id == _organization_id, role_grants.c.user_id == user_id)
    return there_is(select(literal(1)).where(same, role_grants.c.role == _role))
