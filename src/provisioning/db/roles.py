"""Roles that are given here: to users, and to whoever is in a group; and which groups' are still to be brought to their members."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from secrets import token_hex

from sqlalchemy import bindparam, exists, or_, select, update
from sqlalchemy.orm import Session

from provisioning.accounts import Groups
from provisioning.db import users
from provisioning.db.models import Name, UtcTime, group_roles, groups, memberships, unapplied_roles
from provisioning.db.prepared import Prepared
from provisioning.db.records import REPOSITORIES
from provisioning.db.repository import Repository, as_keys, keys
from provisioning.errors import NotFound
from provisioning.merge import Key, Kind

_GROUPS = REPOSITORIES[Kind.GROUP]
_GROUP_ROLES = Repository(group_roles)
_UNAPPLIED = Repository(unapplied_roles)

_wanted = keys("organization_id", "id")
# Of most groups there is nothing to say.
_REMARKABLE = Prepared(
    select(groups.c.organization_id, groups.c.id, groups.c.deleted, group_roles.c.role)
    .select_from(_wanted)
    .join(groups, (groups.c.organization_id == _wanted.c.organization_id) & (groups.c.id == _wanted.c.id))
    .outerjoin(group_roles, (group_roles.c.organization_id == groups.c.organization_id) & (group_roles.c.group_id == groups.c.id))
    .where(or_(groups.c.deleted, group_roles.c.role.is_not(None)))
)


def of_groups(session: Session, wanted: Iterable[Key]) -> Groups:
    """Which of these groups are deleted, and the roles that they are mapped to."""
    if not (wanted := set(wanted)):
        return Groups()
    deleted: set[Key] = set()
    roles: defaultdict[Key, set[str]] = defaultdict(set)
    for organization_id, id_, is_deleted, role in _REMARKABLE.rows(session, as_keys(wanted)):
        key = Key(organization_id, id_)
        if is_deleted:
            deleted.add(key)
        elif role is not None:
            roles[key].add(role)
    return Groups(deleted, dict(roles))


@dataclass(frozen=True, slots=True)
class Unapplied:
    """A group whose roles are to be brought to its members, by whoever wrote the `change` that its row has."""

    group: Key
    changed_by: str
    change: str


def of_group(session: Session, group: Key) -> set[str]:
    """The roles that the group is mapped to here. Raises NotFound."""
    if group not in _GROUPS.read(session, [group]):
        raise NotFound(_NO_GROUP)
    return _mapped(session, group)


def of_user(session: Session, user: Key) -> set[str]:
    """The roles that were granted to the user here. Raises NotFound."""
    if user not in users.USERS.read(session, [user]):
        raise NotFound(_NO_USER)
    return users.granted_here(session, [user])[user]


def map_group(session: Session, group: Key, roles: Collection[str], by: str, now: datetime) -> bool:
    """Have the group mapped to these roles; returns whether it was not. Raises NotFound.

    Holds the group's lock: whoever puts somebody into it meanwhile commits before, and is found, or sees what is written here.
    """
    if group not in _GROUPS.lock(session, [group]):
        raise NotFound(_NO_GROUP)
    had = _mapped(session, group)
    _GROUP_ROLES.delete(session, [(*group, role) for role in had.difference(roles)])
    given = {"organization_id": group.organization_id, "group_id": group.id, "mapped_by": by, "mapped_at": now}
    _GROUP_ROLES.insert(session, [{**given, "role": role} for role in set(roles) - had])
    return had != set(roles)


def grant(session: Session, user: Key, roles: Collection[str], by: str, now: datetime) -> bool:
    """Have the user, whose lock it holds from now on, granted these roles; returns whether it was not. Raises NotFound."""
    if user not in users.USERS.lock(session, [user]):
        raise NotFound(_NO_USER)
    had = users.granted_here(session, [user])[user]
    users.LOCAL_ROLES.delete(session, [(*user, role) for role in had.difference(roles)])
    given = {"organization_id": user.organization_id, "user_id": user.id, "granted_by": by, "granted_at": now}
    users.LOCAL_ROLES.insert(session, [{**given, "role": role} for role in set(roles) - had])
    return had != set(roles)


def is_unapplied(session: Session, group: Key) -> bool:
    """Whether the group's roles have not been brought to every member yet."""
    return bool(_UNAPPLIED.read(session, [group]))


def anything_overdue(session: Session, now: datetime) -> bool:
    """Whether there is something to take over."""
    return session.execute(select(exists(_OVERDUE)), {"now": now}).scalar_one()


def take(session: Session, group: Key, by: str, until: datetime) -> Unapplied:
    """Have the group's roles brought to its members by the caller, `until` then; whoever did so before has to leave it."""
    taken = Unapplied(group, by, token_hex(8))
    ids = {"organization_id": group.organization_id, "group_id": group.id}
    _UNAPPLIED.save(session, [{**ids, "changed_by": by, "change": taken.change, "due_at": until}])
    return taken


def take_over(session: Session, now: datetime, until: datetime) -> Unapplied | None:
    """The same of a group that is overdue, put down to whoever changed its roles; None where there is none."""
    row = session.execute(_TAKE_OVER, {"now": now}).one_or_none()
    return take(session, Key(row.organization_id, row.group_id), row.changed_by, until) if row else None


def keep(session: Session, taken: Unapplied, until: datetime) -> bool:
    """Whether it is still the caller's, who holds its lock from now on; it is due later then."""
    ours = {"of_organization": taken.group.organization_id, "of_group": taken.group.id, "is_change": taken.change, "until": until}
    return session.execute(_KEEP, ours).scalar_one_or_none() is not None


def settle(session: Session, taken: Unapplied) -> None:
    """Every member has what there is to have. To be called by who holds its lock."""
    _UNAPPLIED.delete(session, [taken.group])


def members(session: Session, group: Key, after: str, limit: int) -> list[Key]:
    """Up to `limit` users behind whom somebody is in the group as its directory says, counting or not, by their ids from `after` on."""
    found = session.execute(_MEMBERS, {"of_organization": group.organization_id, "of_group": group.id, "after": after, "limit": limit})
    return [Key(group.organization_id, user_id) for user_id in found.scalars()]


def _mapped(session: Session, group: Key) -> set[str]:
    return set(session.execute(_MAPPED, {"of_organization": group.organization_id, "of_group": group.id}).scalars())


_NO_GROUP, _NO_USER = "This organization has no such group.", "This organization has no such user."

_of_organization, _of_group = bindparam("of_organization", type_=Name), bindparam("of_group", type_=Name)
_MAPPED = select(group_roles.c.role).where(group_roles.c.organization_id == _of_organization, group_roles.c.group_id == _of_group)
_MEMBERS = (
    select(memberships.c.user_id)
    .where(
        memberships.c.organization_id == _of_organization,
        memberships.c.group_id == _of_group,
        memberships.c.user_id > bindparam("after", type_=Name),
    )
    .distinct()
    .order_by(memberships.c.user_id)
    .limit(bindparam("limit"))
)
_unapplied = unapplied_roles.c
_OVERDUE = select(_unapplied.organization_id, _unapplied.group_id, _unapplied.changed_by).where(
    _unapplied.due_at <= bindparam("now", type_=UtcTime)
)
_TAKE_OVER = _OVERDUE.order_by(_unapplied.due_at).limit(1).with_for_update(skip_locked=True)
_KEEP = (
    update(unapplied_roles)
    .where(_unapplied.organization_id == _of_organization, _unapplied.group_id == _of_group, _unapplied.change == bindparam("is_change"))
    .values(due_at=bindparam("until", type_=UtcTime))
    .returning(_unapplied.change)
)
