"""Users as they are now, with everything they show: by id, or a page of those that match."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Row, RowMapping, Select, and_, bindparam, select
from sqlalchemy.orm import Session

from provisioning.accounts import email_key
from provisioning.bodies import Json
from provisioning.db.models import directory_users, groups, memberships, role_grants, users
from provisioning.db.reading import selection
from provisioning.db.repository import as_keys, keys
from provisioning.errors import NotFound
from provisioning.events import is_id
from provisioning.merge import Key


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
    application_id: str | None
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
class Summary:
    """What matters most of a user, as it is now."""

    id: str
    email: str | None
    name: str | None
    active: bool
    application_id: str | None
    groups: Sequence[GroupName]
    roles: Sequence[str]


@dataclass(frozen=True, slots=True)
class UserFilter:
    """What users to list; all that is given must hold. Only active users are in a group or have a role."""

    email: str | None = None
    active: bool | None = None
    group_id: str | None = None
    role: str | None = None
    directory_user_id: str | None = None
    application_id: str | None = None

    @property
    def contradictory(self) -> bool:
        """Whether nobody can match: an inactive user in a group, or an address that is none."""
        for_active = self.group_id is not None or self.role is not None
        return (for_active and self.active is False) or (self.email is not None and email_key(self.email) is None)

    @property
    def given(self) -> dict[str, str | bool]:
        """What is given, by the names of `selection.page`; a group or a role asks for active users."""
        active = True if self.group_id is not None or self.role is not None else self.active
        asked = {
            "email_key": email_key(self.email),
            "active": active,
            "group_id": self.group_id,
            "role": self.role,
            "directory_user_id": self.directory_user_id,
            "application_id": self.application_id,
        }
        return {name: value for name, value in asked.items() if value is not None}


def page_of_users(session: Session, organization_id: str, wanted: UserFilter, *, after: str, limit: int) -> list[User]:
    """Return up to `limit` users that match, in the order of their ids, from the first one behind `after` ("": from the start)."""
    if wanted.contradictory:
        return []
    given = wanted.given
    parameters = {"organization_id": organization_id, "after": after, "limit": limit, **given}
    return _completed(session, organization_id, session.execute(selection.page(frozenset(given)), parameters).mappings().all())


def users_meant(session: Session, organization_id: str, given: str, *, limit: int) -> list[User]:
    """Return who is meant by our id, or else by a directory user's id, or else by an e-mail, which several may have, or else by the
    application's id."""
    if not is_id(given):
        return []
    with suppress(NotFound):
        return [one_user(session, organization_id, given)]
    for wanted in (UserFilter(directory_user_id=given), UserFilter(email=given), UserFilter(application_id=given)):
        if found := page_of_users(session, organization_id, wanted, after="", limit=limit):
            return found
    return []


def one_user(session: Session, organization_id: str, user_id: str) -> User:
    """Return the user. Raises NotFound."""
    return _completed(session, organization_id, [require_user(session, organization_id, user_id)])[0]


def require_user(session: Session, organization_id: str, user_id: str) -> RowMapping:
    """Return the user's row, without what belongs to it. Raises NotFound."""
    row = session.execute(selection.ONE, {"organization_id": organization_id, "user_id": user_id}).mappings().one_or_none()
    if row is None:
        raise NotFound("This organization has no such user.")
    return row


def summaries(session: Session, wanted: Collection[Key]) -> dict[Key, Summary]:
    """The summaries of those of these users that are there, of any organizations."""
    if not wanted:
        return {}
    parameters = as_keys(wanted)
    in_groups: dict[Key, dict[str, GroupName]] = defaultdict(dict)
    behind = [(organization_id, id_) for organization_id, id_ in session.execute(_BEHIND_USERS, parameters)]
    for organization_id, user_id, group_id, name in session.execute(_GROUPS_OF_PEOPLE, as_keys(behind)):
        in_groups[Key(organization_id, user_id)][group_id] = GroupName(group_id, name)
    with_roles: dict[Key, set[str]] = defaultdict(set)
    for organization_id, user_id, role in session.execute(_ROLES_OF_USERS, parameters):
        with_roles[Key(organization_id, user_id)].add(role)
    result = {}
    for organization_id, id_, email, name, active, application_id in session.execute(_USERS, parameters):
        key = Key(organization_id, id_)
        entered = [each for _, each in sorted(in_groups[key].items())]
        result[key] = Summary(id_, email, name, active, application_id, entered, sorted(with_roles[key]))
    return result


_wanted = keys("organization_id", "user_id")
_USERS: Select[Any] = select(
    *(users.c[name] for name in ("organization_id", "id", "email", "name", "active")), selection.application_id_of(users)
).join(_wanted, and_(users.c.organization_id == _wanted.c.organization_id, users.c.id == _wanted.c.user_id))
_ROLES_OF_USERS = select(role_grants.c.organization_id, role_grants.c.user_id, role_grants.c.role).join(
    _wanted, and_(role_grants.c.organization_id == _wanted.c.organization_id, role_grants.c.user_id == _wanted.c.user_id)
)
_BEHIND_USERS = select(directory_users.c.organization_id, directory_users.c.id).join(
    _wanted, and_(directory_users.c.organization_id == _wanted.c.organization_id, directory_users.c.user_id == _wanted.c.user_id)
)
# By the directory users, as memberships are keyed: asked for the users at once, SQLite reads whole organizations.
_person = keys("organization_id", "directory_user_id")
_GROUPS_OF_PEOPLE = (
    select(memberships.c.organization_id, memberships.c.user_id, memberships.c.group_id, groups.c.name)
    .join(
        _person,
        and_(memberships.c.organization_id == _person.c.organization_id, memberships.c.directory_user_id == _person.c.directory_user_id),
    )
    .outerjoin(groups, and_(groups.c.organization_id == memberships.c.organization_id, groups.c.id == memberships.c.group_id))
    .where(memberships.c.since.is_not(None))
)


# What belongs to a page: unsorted, since asked for an order SQLite reads the whole organization in it; by joins that keep their order.
_MAX_PARAMETERS = 10_000
_organization_id: BindParameter[str] = bindparam("organization_id")
_ids: BindParameter[str] = bindparam("ids", expanding=True)
_BEHIND = select(
    directory_users.c.user_id,
    *(directory_users.c[name] for name in ("id", "external_id", "directory_id", "email", "active", "deleted")),
).where(directory_users.c.organization_id == _organization_id, directory_users.c.user_id.in_(_ids))
# By the directory users, as they are keyed.
_GROUPS = (
    select(memberships.c.user_id, groups.c.id, groups.c.name)
    .outerjoin(groups, and_(groups.c.organization_id == memberships.c.organization_id, groups.c.id == memberships.c.group_id))
    .where(
        memberships.c.organization_id == _organization_id,
        memberships.c.directory_user_id.in_(_ids),
        memberships.c.since.is_not(None),
    )
)
_ROLES = select(role_grants.c.user_id, role_grants.c.role).where(
    role_grants.c.organization_id == _organization_id, role_grants.c.user_id.in_(_ids)
)


def _completed(session: Session, organization_id: str, rows: Sequence[RowMapping]) -> list[User]:
    """The users of these rows, with what belongs to them: three statements, however many they are."""

    def belonging(statement: Select[*tuple[Any, ...]], ids: Iterable[str]) -> Iterator[Row[*tuple[Any, ...]]]:
        for wanted in _slices(list(ids)):
            yield from session.execute(statement, {"organization_id": organization_id, "ids": wanted})

    behind: dict[str, list[DirectoryUserState]] = defaultdict(list)
    for user_id, *state in belonging(_BEHIND, (row["id"] for row in rows)):
        behind[user_id].append(DirectoryUserState(*state))
    active = {row["id"] for row in rows if row["active"]}
    in_groups: dict[str, dict[str, GroupName]] = defaultdict(dict)
    for user_id, group_id, name in belonging(_GROUPS, (each.id for row in rows if row["active"] for each in behind[row["id"]])):
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


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """`ids`, at most so many at once as every database takes parameters; only behind one page of very odd users are there more."""
    return (ids[start : start + _MAX_PARAMETERS] for start in range(0, len(ids), _MAX_PARAMETERS))
