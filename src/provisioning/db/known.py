"""What is known here of an organization, to be held against a listing of its directories."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, not_, select
from sqlalchemy.orm import Session

from provisioning.accounts import DirectoryUser
from provisioning.db.models import Name, directories, directory_users, groups, memberships, role_grants
from provisioning.db.records import REPOSITORIES, directory_user, registers
from provisioning.merge import Kind, Registers

AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Present:
    """A person or a group that is not deleted here. Of a person: `active` as the directory said last, the account, and the address."""

    id: str
    directory_id: str | None
    active: bool = True
    user_id: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Strength:
    """How many there are, by directory: people, the active ones, groups, and memberships and role grants of active people."""

    people: Mapping[str | None, int]
    active: Mapping[str | None, int]
    groups: Mapping[str | None, int]
    memberships: Mapping[str | None, int]
    grants: Mapping[str | None, int]


@dataclass(frozen=True, slots=True)
class KnownDirectory:
    """A directory as it is known here. `disabled_at`: when it was disabled, in nanoseconds since 1970; None while it is enabled."""

    registers: Registers
    disabled_at: int | None


def people(session: Session, organization_id: str, ids: Iterable[str]) -> dict[str, DirectoryUser]:
    """Those of these directory users that are known, deleted ones included."""
    rows = REPOSITORIES[Kind.DIRECTORY_USER].read(session, ((organization_id, each) for each in ids))
    return {id_: directory_user(row) for (_, id_), row in rows.items()}


def groups_by_id(session: Session, organization_id: str, ids: Iterable[str]) -> dict[str, Registers]:
    """The registers of those of these groups that are known, deleted ones included."""
    rows = REPOSITORIES[Kind.GROUP].read(session, ((organization_id, each) for each in ids))
    return {id_: registers(row) for (_, id_), row in rows.items()}


def directories_by_id(session: Session, organization_id: str) -> dict[str, KnownDirectory]:
    """The organization's directories."""
    found: dict[str, KnownDirectory] = {}
    for row in session.execute(_DIRECTORIES, {"organization_id": organization_id}).mappings():
        said = registers(row)
        found[row["id"]] = KnownDirectory(said, None if row["enabled"] else said["enabled"].version.occurred_at)
    return found


def present_people(session: Session, organization_id: str, *, after: str) -> list[Present]:
    """Up to AT_ONCE directory users that are not deleted here, in the order of their ids, from the first one behind `after`."""
    rows = session.execute(_PEOPLE, {"organization_id": organization_id, "after": after})
    return [Present(*row) for row in rows]


def present_groups(session: Session, organization_id: str, *, after: str) -> list[Present]:
    """The same of groups."""
    rows = session.execute(_GROUPS, {"organization_id": organization_id, "after": after})
    return [Present(id_, directory_id) for id_, directory_id in rows]


def strength(session: Session, organization_id: str) -> Strength:
    """How many there are of an organization's, deleted ones left out."""

    def count(statement: Select[Any]) -> dict[str | None, int]:
        return {row[0]: row[1] for row in session.execute(statement, {"organization_id": organization_id})}

    return Strength(**{name: count(statement) for name, statement in _STRENGTH.items()})


_organization_id = bindparam("organization_id", type_=Name)
_after = bindparam("after", type_=Name)
_person, _group = directory_users.c, groups.c
_DIRECTORIES = select(directories).where(directories.c.organization_id == _organization_id)
_PEOPLE = (
    select(_person.id, _person.directory_id, _person.active, _person.user_id, _person.email)
    .where(_person.organization_id == _organization_id, _person.id > _after, not_(_person.deleted))
    .order_by(_person.id)
    .limit(AT_ONCE)
)
_GROUPS = (
    select(_group.id, _group.directory_id)
    .where(_group.organization_id == _organization_id, _group.id > _after, not_(_group.deleted))
    .order_by(_group.id)
    .limit(AT_ONCE)
)
_counted_people = (
    select(_person.directory_id, func.count())
    .where(_person.organization_id == _organization_id, not_(_person.deleted))
    .group_by(_person.directory_id)
)
_counted_active = _counted_people.where(_person.active)
_counted_groups = (
    select(_group.directory_id, func.count())
    .where(_group.organization_id == _organization_id, not_(_group.deleted))
    .group_by(_group.directory_id)
)
_STRENGTH: Mapping[str, Select[Any]] = {
    "people": _counted_people,
    "active": _counted_active,
    "groups": _counted_groups,
    "memberships": _counted_active.join(
        memberships, and_(memberships.c.organization_id == _person.organization_id, memberships.c.directory_user_id == _person.id)
    ),
    "grants": _counted_active.join(
        role_grants, and_(role_grants.c.organization_id == _person.organization_id, role_grants.c.source == _person.id)
    ),
}
