"""Who has access, and why: what a user may do now, and everything that it comes from. At most three statements by keys, at every login."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import BindParameter, RowMapping, and_, bindparam, func, select
from sqlalchemy.orm import Session

from provisioning.accounts import LOCAL, DirectoryUser, counting, from_group
from provisioning.db.models import directories, directory_users, group_roles, groups, local_roles, memberships, role_grants, users
from provisioning.db.reading.selection import application_id_of
from provisioning.db.records import directory_user
from provisioning.db.repository import as_keys, keys
from provisioning.errors import NotFound
from provisioning.merge import Key, load


class Reason(StrEnum):
    """Why somebody is let in, or is not."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"
    DIRECTORY_DISABLED = "directory_disabled"
    NOBODY_BEHIND = "nobody_behind"


class GrantKind(StrEnum):
    """Where a role comes from: a directory's own mapping, a group that is mapped to it here, or a grant to the user here."""

    DIRECTORY = "directory"
    GROUP = "group"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class EnteredGroup:
    """A group that the user is in, and the directory users that are in it. `since`: the first of these."""

    id: str
    name: str | None
    since: datetime
    through: Sequence[str]


@dataclass(frozen=True, slots=True)
class Because:
    """One thing that a role comes from: what is None does not belong to its kind. `since` is None where it is from before this was kept."""

    kind: GrantKind
    since: datetime | None
    directory_user_id: str | None = None
    group_id: str | None = None
    group_name: str | None = None
    granted_by: str | None = None


@dataclass(frozen=True, slots=True)
class HeldRole:
    """A role that the user has, and all that it comes from. `since`: the first of these; None where one is from before this was kept."""

    role: str
    since: datetime | None
    because: Sequence[Because]


@dataclass(frozen=True, slots=True)
class KeptRole:
    """A role that was granted to the user here, and comes back with it."""

    role: str
    granted_by: str
    since: datetime


@dataclass(frozen=True, slots=True)
class PersonBehind:
    """A directory user behind the user, whether it counts, and why it lets the user in or does not. `said_at`: when that was last said
    there; `disabled_at`: when its directory was disabled, if it is; both in nanoseconds since 1970. `directory_enabled` is None while the
    directory is not known."""

    id: str
    directory_id: str | None
    directory_enabled: bool | None
    email: str | None = field(repr=False)
    active: bool
    deleted: bool
    counts: bool
    reason: Reason
    said_at: int | None
    disabled_at: int | None


@dataclass(frozen=True, slots=True)
class Access:
    """What a user may do now. `since`: when it became active or inactive, as far as is known. Groups and directory users are sorted by id,
    roles by name. Only while it is inactive are roles kept for it, and only while it is active has it groups and roles."""

    user_id: str
    organization_id: str
    application_id: str | None
    active: bool
    since: datetime
    reason: Reason
    groups: Sequence[EnteredGroup]
    roles: Sequence[HeldRole]
    kept_roles: Sequence[KeptRole]
    directory_users: Sequence[PersonBehind]


def access_of(session: Session, organization_id: str, user_id: str) -> Access:
    """Return what the user may do now, and why. Raises NotFound."""
    asked = {"organization_id": organization_id, "user_id": user_id}
    rows = session.execute(USER, asked).mappings().all()
    if not rows:
        raise NotFound("This organization has no such user.")
    application_id, active, since = (rows[0][name] for name in ("application_id", "user_active", "since"))
    behind = _behind(rows)
    entered: Sequence[EnteredGroup] = ()
    held: Sequence[HeldRole] = ()
    kept: Sequence[KeptRole] = ()
    if active:
        entered, mapped = _groups(session.execute(GROUPS, as_keys((organization_id, person.id) for person in behind)).mappings().all())
        held = _roles(session.execute(ROLES, asked).mappings().all(), entered, mapped)
    else:
        kept = [KeptRole(**row) for row in session.execute(KEPT, asked).mappings()]
    return Access(user_id, organization_id, application_id, active, since, _reason(behind, active=active), entered, held, kept, behind)


def _behind(rows: Sequence[RowMapping]) -> list[PersonBehind]:
    people = {row["id"]: (directory_user(row), row) for row in rows if row["id"] is not None}
    everybody = [person for person, _ in people.values()]
    disabled = {Key(row["organization_id"], row["directory_id"]) for _, row in people.values() if row["enabled"] is False}
    count = {person.key.id for person in counting(everybody, disabled)}
    return [_person(*people[id_], counts=id_ in count) for id_ in sorted(people)]


def _person(person: DirectoryUser, row: RowMapping, *, counts: bool) -> PersonBehind:
    said, enabled = load(row["directory_registers"] or ()).get("enabled"), row["enabled"]
    disabled_at = said.version.occurred_at if said and enabled is False else None
    if counts:
        reason = Reason.ACTIVE if person.active else Reason.DELETED if person.deleted else Reason.SUSPENDED
        said_at = person.said_at
    else:
        reason, said_at = Reason.DIRECTORY_DISABLED, disabled_at
    return PersonBehind(
        id=person.key.id,
        directory_id=person.directory_id,
        directory_enabled=enabled,
        email=person.email,
        active=person.active,
        deleted=person.deleted,
        counts=counts,
        reason=reason,
        said_at=said_at,
        disabled_at=disabled_at,
    )


def _reason(behind: Collection[PersonBehind], *, active: bool) -> Reason:
    """The user's is that of whoever counts. A disabled directory is nobody's: by itself it takes no access."""
    if active:
        return Reason.ACTIVE
    if not behind:
        return Reason.NOBODY_BEHIND
    return Reason.DELETED if all(person.deleted for person in behind if person.counts) else Reason.SUSPENDED


def _groups(rows: Sequence[RowMapping]) -> tuple[list[EnteredGroup], Mapping[tuple[str, str], str]]:
    """The groups, and by group and role who mapped the one to the other."""
    through: defaultdict[str, dict[str, datetime]] = defaultdict(dict)
    names: dict[str, str | None] = {}
    mapped: dict[tuple[str, str], str] = {}
    for row in rows:
        id_ = row["group_id"]
        names[id_] = row["name"]
        through[id_][row["directory_user_id"]] = row["since"]
        if row["role"] is not None:
            mapped[id_, row["role"]] = row["mapped_by"]
    return [EnteredGroup(id_, names[id_], min(people.values()), sorted(people)) for id_, people in sorted(through.items())], mapped


def _roles(rows: Sequence[RowMapping], entered: Sequence[EnteredGroup], mapped: Mapping[tuple[str, str], str]) -> list[HeldRole]:
    by_source = {from_group(group.id): group for group in entered}
    because: defaultdict[str, list[Because]] = defaultdict(list)
    for row in rows:
        role, source, since = row["role"], row["source"], row["since"]
        if source == LOCAL:
            found = Because(GrantKind.LOCAL, since, granted_by=row["granted_by"])
        elif group := by_source.get(source):
            found = Because(GrantKind.GROUP, since, group_id=group.id, group_name=group.name, granted_by=mapped.get((group.id, role)))
        else:
            found = Because(GrantKind.DIRECTORY, since, directory_user_id=source)
        because[role].append(found)
    return [HeldRole(role, _first(found), found) for role, found in because.items()]


def _first(found: Sequence[Because]) -> datetime | None:
    times = [each.since for each in found if each.since]
    return min(times) if len(times) == len(found) else None


_organization_id: BindParameter[str] = bindparam("organization_id")
_user_id: BindParameter[str] = bindparam("user_id")
# The user, once for each directory user behind it, or once.
USER = (
    select(
        application_id_of(users),
        users.c.active.label("user_active"),
        func.coalesce(users.c.deactivated_at, users.c.activated_at, users.c.created_at).label("since"),
        *(directory_users.c[name] for name in ("organization_id", "id", "user_id", "directory_id", "registers")),
        directories.c.enabled,
        directories.c.registers.label("directory_registers"),
    )
    .select_from(users)
    .outerjoin(directory_users, and_(directory_users.c.organization_id == users.c.organization_id, directory_users.c.user_id == users.c.id))
    .outerjoin(
        directories,
        and_(directories.c.organization_id == directory_users.c.organization_id, directories.c.id == directory_users.c.directory_id),
    )
    .where(users.c.organization_id == _organization_id, users.c.id == _user_id)
)
_wanted = keys("organization_id", "directory_user_id")
# By the directory users, as memberships are keyed. Each once for every role that the group is mapped to, or once.
GROUPS = (
    select(
        *(memberships.c[name] for name in ("group_id", "directory_user_id", "since")),
        groups.c.name,
        group_roles.c.role,
        group_roles.c.mapped_by,
    )
    .select_from(_wanted)
    .join(memberships, and_(*(memberships.c[name] == _wanted.c[name] for name in ("organization_id", "directory_user_id"))))
    .join(groups, and_(groups.c.organization_id == memberships.c.organization_id, groups.c.id == memberships.c.group_id))
    .outerjoin(group_roles, and_(group_roles.c.organization_id == groups.c.organization_id, group_roles.c.group_id == groups.c.id))
    .where(memberships.c.since.is_not(None))
)
ROLES = (
    select(*(role_grants.c[name] for name in ("role", "source", "since")), local_roles.c.granted_by)
    .outerjoin(local_roles, and_(*(local_roles.c[name] == role_grants.c[name] for name in ("organization_id", "user_id", "role"))))
    .where(role_grants.c.organization_id == _organization_id, role_grants.c.user_id == _user_id)
    .order_by(role_grants.c.role, role_grants.c.source)
)
KEPT = (
    select(local_roles.c.role, local_roles.c.granted_by, local_roles.c.granted_at.label("since"))
    .where(local_roles.c.organization_id == _organization_id, local_roles.c.user_id == _user_id)
    .order_by(local_roles.c.role)
)
