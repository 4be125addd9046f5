"""Users, their memberships and their role grants: the accounts *here*, and how they are found from the records there."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, select, union
from sqlalchemy.orm import Session

from provisioning.accounts import PROFILE, Candidate, DirectoryUser, Shown, email_key
from provisioning.changes import Was
from provisioning.db.models import Name, directories, directory_users, local_roles, memberships, role_grants, users
from provisioning.db.prepared import Prepared, Row, Stored
from provisioning.db.records import REPOSITORIES, directory_user
from provisioning.db.repository import Repository, among, as_keys, keys
from provisioning.merge import Key, Kind

DIRECTORY_USERS = REPOSITORIES[Kind.DIRECTORY_USER]
USERS = Repository(users)
MEMBERSHIPS = Repository(memberships)
GRANTS = Repository(role_grants)
LOCAL_ROLES = Repository(local_roles)

_user = keys("organization_id", "user_id")
_BEHIND = Prepared(
    select(directory_users.c.organization_id, directory_users.c.user_id, directory_users.c.id).join(
        _user, (directory_users.c.organization_id == _user.c.organization_id) & (directory_users.c.user_id == _user.c.user_id)
    )
)
_grant, _local_role, _membership = role_grants.c, local_roles.c, memberships.c
_GRANTS = Prepared(
    among(role_grants, "organization_id", "user_id").with_only_columns(_grant.organization_id, _grant.user_id, _grant.role, _grant.source)
)
_LOCAL_ROLES = Prepared(
    among(local_roles, "organization_id", "user_id").with_only_columns(_local_role.organization_id, _local_role.user_id, _local_role.role)
)
_MEMBERSHIPS = Prepared(
    among(memberships, "organization_id", "directory_user_id").with_only_columns(
        _membership.organization_id, _membership.user_id, _membership.directory_user_id, _membership.group_id, _membership.since
    )
)

_sought = keys("field", "organization_id", "text")
_FOUND = Prepared(
    union(
        select(users.c.organization_id, users.c.id).join(
            _sought,
            (users.c.organization_id == _sought.c.organization_id) & (users.c.email_key == _sought.c.text) & (_sought.c.field == "email"),
        ),
        select(directory_users.c.organization_id, directory_users.c.user_id).join(
            _sought,
            (directory_users.c.organization_id == _sought.c.organization_id)
            & (directory_users.c.external_id == _sought.c.text)
            & (_sought.c.field == "external_id"),
        ),
    )
)

_email = keys("organization_id", "email_key")
_WITH_EMAILS = select(users.c.organization_id, users.c.email_key, users.c.id).join(
    _email, (users.c.organization_id == _email.c.organization_id) & (users.c.email_key == _email.c.email_key)
)

_NOBODY: Mapping[Key, DirectoryUser] = {}
_KEYS = (
    select(users.c.id)
    .where(users.c.organization_id == bindparam("of_organization"), users.c.id > bindparam("after", type_=Name))
    .order_by(users.c.id)
    .limit(bindparam("limit"))
)
_organization = keys("organization_id")
_DISABLED = Prepared(
    select(directories.c.organization_id, directories.c.id)
    .join(_organization, directories.c.organization_id == _organization.c.organization_id)
    .where(~directories.c.enabled)
)

_directory = keys("organization_id", "directory_id")
_OF_DIRECTORIES = (
    select(directory_users.c.organization_id, directory_users.c.user_id, directory_users.c.directory_id)
    .join(
        _directory,
        (directory_users.c.organization_id == _directory.c.organization_id) & (directory_users.c.directory_id == _directory.c.directory_id),
    )
    .distinct()
)
_group = keys("organization_id", "group_id")
_OF_GROUPS = (
    select(memberships.c.organization_id, memberships.c.user_id, memberships.c.group_id)
    .join(_group, (memberships.c.organization_id == _group.c.organization_id) & (memberships.c.group_id == _group.c.group_id))
    .distinct()
)


def page_of_keys(session: Session, organization_id: str, *, after: str, limit: int) -> list[Key]:
    """Up to `limit` users of the organization, in the order of their ids, from the first one behind `after`."""
    found = session.scalars(_KEYS, {"of_organization": organization_id, "after": after, "limit": limit})
    return [Key(organization_id, id_) for id_ in found]


def candidates(
    session: Session, sought: Iterable[tuple[str, str, str]], also: Iterable[Key], known: Mapping[Key, DirectoryUser]
) -> dict[Key, Candidate]:
    """The users whom newcomers might join: by (`email` or `external_id`, organization, e-mail key or upstream id), and `also` these.

    Of those behind them who are `known` it is believed what is said there.
    """
    found = {*_linked(_FOUND.rows(session, as_keys(sought))), *also}
    stored = USERS.read(session, found)
    everybody = behind(session, found, known)
    return {key: Candidate(key.id, stored[key]["email_key"], everybody[key]) for key in found}


def with_emails(session: Session, emails: Iterable[Key]) -> Mapping[Key, list[str]]:
    """The ids of the users with these e-mails, by e-mail key, in their order."""
    result: defaultdict[Key, list[str]] = defaultdict(list)
    for organization_id, key, id_ in session.execute(_WITH_EMAILS, as_keys(emails)):
        result[Key(organization_id, key)].append(id_)
    return {key: sorted(ids) for key, ids in result.items()}


def behind(session: Session, found: Collection[Key], known: Mapping[Key, DirectoryUser] = _NOBODY) -> Mapping[Key, list[DirectoryUser]]:
    """By user: the directory users behind it; those who are `known` are not read again."""
    result: defaultdict[Key, list[DirectoryUser]] = defaultdict(list)
    rows = _BEHIND.rows(session, as_keys(found)) if found else ()
    others = DIRECTORY_USERS.read(session, {(organization_id, id_) for organization_id, _, id_ in rows} - known.keys())
    for organization_id, user_id, id_ in rows:
        person = known.get(Key(organization_id, id_)) or directory_user(others[organization_id, id_])
        result[Key(organization_id, user_id)].append(person)
    return result


def of_directories(session: Session, changed: Collection[Key]) -> dict[Key, Key]:
    """The users that somebody of these directories is behind, each with one of the directories."""
    return _of(session, _OF_DIRECTORIES, changed)


def of_groups(session: Session, changed: Collection[Key]) -> dict[Key, Key]:
    """The users behind whom somebody is in these groups, as the directory says, each with one of the groups."""
    return _of(session, _OF_GROUPS, changed)


def _of(session: Session, statement: Select[Any], changed: Collection[Key]) -> dict[Key, Key]:
    rows = session.execute(statement, as_keys(changed)) if changed else ()
    return {Key(organization_id, user_id): Key(organization_id, id_) for organization_id, user_id, id_ in rows if user_id is not None}


def _linked(rows: Iterable[Sequence[str | None]]) -> set[Key]:
    """Sorted out here: asked for `user_id IS NOT NULL`, SQLite takes the index on that, and reads the whole organization."""
    return {Key(str(organization_id), user_id) for organization_id, user_id in rows if user_id is not None}


def disabled_directories(session: Session, people: Iterable[DirectoryUser]) -> set[Key]:
    """The disabled directories of the organizations of those `people` whose directory is known."""
    organizations = {(person.key.organization_id,) for person in people if person.directory_id}
    return {Key(*row) for row in _DISABLED.rows(session, as_keys(organizations))} if organizations else set()


def grants(session: Session, found: Iterable[Key]) -> Mapping[Key, set[tuple[str, str]]]:
    """By user: its roles, each with where it comes from."""
    result: defaultdict[Key, set[tuple[str, str]]] = defaultdict(set)
    for organization_id, user_id, role, source in _GRANTS.rows(session, as_keys(found)):
        result[Key(organization_id, user_id)].add((role, source))
    return result


def in_groups(session: Session, people: Iterable[DirectoryUser]) -> Mapping[Key, dict[tuple[str, str], datetime | None]]:
    """By user: which of these people behind it is in which group as the directory says, and since when that counts, if it does."""
    result: defaultdict[Key, dict[tuple[str, str], datetime | None]] = defaultdict(dict)
    for organization_id, user_id, directory_user_id, group_id, since in _MEMBERSHIPS.rows(session, as_keys(each.key for each in people)):
        result[Key(organization_id, user_id)][directory_user_id, group_id] = since
    return result


def granted_here(session: Session, found: Iterable[Key]) -> Mapping[Key, set[str]]:
    """By user: the roles that were granted to it here, active or not."""
    result: defaultdict[Key, set[str]] = defaultdict(set)
    for organization_id, user_id, role in _LOCAL_ROLES.rows(session, as_keys(found)):
        result[Key(organization_id, user_id)].add(role)
    return result


def membership_row(key: Key, place: tuple[str, str], since: datetime | None) -> Row:
    """A membership of a user: of the directory user in the group that `place` names."""
    directory_user_id, group_id = place
    ids = {"organization_id": key.organization_id, "directory_user_id": directory_user_id, "group_id": group_id}
    return {**ids, "user_id": key.id, "since": since}


def row(key: Key, shown: Shown, stored: Stored | None, now: datetime) -> Row:
    """A user as its row."""
    since = stored if stored and stored["active"] == shown.active else {"activated_at": now, "deactivated_at": now}
    return {
        **key._asdict(),
        **shown.profile,
        "email_key": email_key(shown.profile["email"]),
        "attributes": shown.attributes,
        "active": shown.active,
        "created_at": now,
        "updated_at": now,
        "deactivated_at": None if shown.active else since["deactivated_at"],
        "activated_at": since["activated_at"] if shown.active else None,
    }


def was(stored: Stored, groups: Iterable[str], roles: Iterable[str]) -> Was:
    """What a stored user showed, with these groups and roles."""
    profile = {name: stored[name] for name in PROFILE}
    return Was(stored["active"], profile, stored["attributes"], frozenset(groups), frozenset(roles))


def grant_row(key: Key, grant: tuple[str, str], since: datetime) -> Row:
    """A role grant of a user: the role, and where it comes from."""
    role, source = grant
    return {"organization_id": key.organization_id, "user_id": key.id, "role": role, "source": source, "since": since}
