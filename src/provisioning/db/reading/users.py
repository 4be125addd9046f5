"""Users as they are now, with everything they show: by id, or a page of those that match."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Row, RowMapping, Select, and_, bindparam, exists, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.elements import KeyedColumnElement

from provisioning.accounts import email_key
from provisioning.db.models import directory_users, groups, memberships, role_grants, users
from provisioning.db.reading.membership import effective, lets_in, organization_id, with_directory, with_membership
from provisioning.db.repository import as_keys, keys
from provisioning.errors import NotFound
from provisioning.events import Json


@dataclass(frozen=True, slots=True)
class GroupName:
    """A group that a user is in; its name is unknown until an event or a reconcile says it."""

    id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class DirectoryUserState:
    """A directory user behind a user, as its directory last said."""

    id: str
    external_id: str | None
    directory_id: str | None
    email: str | None
    active: bool
    deleted: bool


@dataclass(frozen=True, slots=True)
class User:
    """An account here. `groups` are sorted by id, `roles` by name, and both are empty while it is inactive."""

    id: str
    organization_id: str
    email: str | None
    name: str | None
    given_name: str | None
    family_name: str | None
    preferred_username: str | None
    active: bool
    groups: Sequence[GroupName]
    roles: Sequence[str]
    attributes: Mapping[str, Json]
    directory_users: Sequence[DirectoryUserState]
    created_at: datetime
    updated_at: datetime
    deactivated_at: datetime | None


@dataclass(frozen=True, slots=True)
class UserFilter:
    """What users to list; all that is given must hold. Only active users are in a group or have a role."""

    email: str | None = None
    active: bool | None = None
    group_id: str | None = None
    role: str | None = None
    directory_user_id: str | None = None


def page_of_users(session: Session, organization_id: str, wanted: UserFilter, *, after: str, limit: int) -> list[User]:
    """Return up to `limit` users that match, in the order of their ids, from the first one behind `after` ("": from the start)."""
    given: dict[str, object] = {
        "email_key": email_key(wanted.email),
        "active": wanted.active,
        "group_id": wanted.group_id,
        "role": wanted.role,
        "directory_user_id": wanted.directory_user_id,
    }
    if wanted.email is not None and given["email_key"] is None:
        return []
    given = {name: value for name, value in given.items() if value is not None}
    parameters = {"organization_id": organization_id, "after": after, "limit": limit, **given}
    return _completed(session, organization_id, session.execute(page_statement(frozenset(given)), parameters).mappings().all())


def one_user(session: Session, organization_id: str, user_id: str) -> User:
    """Return the user. Raises NotFound."""
    rows = session.execute(_ONE, {"organization_id": organization_id, "user_id": user_id}).mappings().all()
    found = _completed(session, organization_id, rows)
    if not found:
        raise NotFound("This organization has no such user.")
    return found[0]


@cache
def page_statement(given: frozenset[str]) -> Select[*tuple[object, ...]]:
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
        return _SHOWN.where(_shown.c.id > _after, *matching).limit(_limit)
    ids = ids.where(
        leading.organization_id == organization_id, leading.user_id > _after, *(_conditions[name](users.c) for name in sorted(others))
    )
    return _SHOWN.where(_shown.c.id.in_(ids.distinct().order_by(leading.user_id).limit(_limit)))


_Columns: TypeAlias = ReadOnlyColumnCollection[str, KeyedColumnElement[Any]]

_after, _limit = bindparam("after"), bindparam("limit")
_group_id, _role = bindparam("group_id"), bindparam("role")


def _is_in_group(user: _Columns) -> ColumnElement[bool]:
    same = and_(memberships.c.organization_id == user.organization_id, memberships.c.user_id == user.id)
    return exists().select_from(with_membership).where(effective, same, memberships.c.group_id == _group_id)


def _has_role(user: _Columns) -> ColumnElement[bool]:
    same = and_(role_grants.c.organization_id == user.organization_id, role_grants.c.user_id == user.id)
    return and_(user.active, exists().where(same, role_grants.c.role == _role))


def _is_behind(user: _Columns) -> ColumnElement[bool]:
    of = and_(directory_users.c.organization_id == organization_id, directory_users.c.id == bindparam("directory_user_id"))
    return user.id == select(directory_users.c.user_id).where(of).scalar_subquery()


_conditions: dict[str, Callable[[_Columns], ColumnElement[bool]]] = {
    "email_key": lambda user: user.email_key == bindparam("email_key"),
    "active": lambda user: user.active == bindparam("active"),
    "group_id": _is_in_group,
    "role": _has_role,
    "directory_user_id": _is_behind,
}

_shown = users.alias("shown")
_SHOWN = (
    select(*(column for column in _shown.c if column.name != "email_key"))
    .where(_shown.c.organization_id == organization_id)
    .order_by(_shown.c.id)
)
_ONE = _SHOWN.where(_shown.c.id == bindparam("user_id"))
# What belongs to a page: unsorted, since asked for an order SQLite reads the whole organization in it; by joins that keep their order.
_ids = select(keys("id").c.id)
_BEHIND = (
    select(
        directory_users.c.user_id,
        lets_in.label("lets_in"),
        *(directory_users.c[name] for name in ("id", "external_id", "directory_id", "email", "active", "deleted")),
    )
    .select_from(with_directory)
    .where(directory_users.c.organization_id == organization_id, directory_users.c.user_id.in_(_ids))
)
_GROUPS = (
    select(memberships.c.user_id, groups.c.id, groups.c.name)
    .outerjoin(groups, and_(groups.c.organization_id == memberships.c.organization_id, groups.c.id == memberships.c.group_id))
    .where(memberships.c.organization_id == organization_id, memberships.c.directory_user_id.in_(_ids), groups.c.deleted.is_(False))
)
_ROLES = select(role_grants.c.user_id, role_grants.c.role).where(
    role_grants.c.organization_id == organization_id, role_grants.c.user_id.in_(_ids)
)


def _completed(session: Session, organization_id: str, rows: Sequence[RowMapping]) -> list[User]:
    """The users of these rows, with what belongs to them: three statements, however many they are."""

    def belonging(statement: Select[*tuple[Any, ...]], ids: Iterable[str]) -> Iterable[Row[*tuple[Any, ...]]]:
        wanted = [(id_,) for id_ in ids]
        return session.execute(statement, {"organization_id": organization_id, **as_keys(wanted)}) if wanted else ()

    active = {row["id"] for row in rows if row["active"]}
    behind: dict[str, list[DirectoryUserState]] = defaultdict(list)
    let_in_by: list[str] = []
    for user_id, lets_in, *state in belonging(_BEHIND, (row["id"] for row in rows)):
        behind[user_id].append(DirectoryUserState(*state))
        if lets_in and user_id in active:
            let_in_by.append(behind[user_id][-1].id)
    in_groups: dict[str, dict[str, GroupName]] = defaultdict(dict)
    for user_id, group_id, name in belonging(_GROUPS, let_in_by):
        in_groups[user_id][group_id] = GroupName(group_id, name)
    with_roles: dict[str, set[str]] = defaultdict(set)
    for user_id, role in belonging(_ROLES, active):
        with_roles[user_id].add(role)
    return [
        User(
            **row,  # its columns are fields
            groups=[group for _, group in sorted(in_groups[row["id"]].items())],
            roles=sorted(with_roles[row["id"]]),
            directory_users=sorted(behind[row["id"]], key=lambda each: each.id),
        )
        for row in rows
    ]
