"""Users, their memberships and their role grants: the accounts *here*, and how they are found from the records there."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import RowMapping, select, union
from sqlalchemy.orm import Session

from provisioning.accounts import Candidate, DirectoryUser, Shown, email_key
from provisioning.bodies import canonical
from provisioning.db.models import directories, directory_users, memberships, role_grants, users
from provisioning.db.records import directory_user
from provisioning.db.repository import Repository, Row, among, as_keys, keys
from provisioning.merge import Key

USERS = Repository(users)
MEMBERSHIPS = Repository(memberships)
GRANTS = Repository(role_grants)

_BEHIND = among(directory_users, "organization_id", "user_id")
_GRANTS = among(role_grants, "organization_id", "user_id")

_sought = keys("field", "organization_id", "text")
_FOUND = union(
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

_organization = keys("organization_id")
_DISABLED = (
    select(directories.c.organization_id, directories.c.id)
    .join(_organization, directories.c.organization_id == _organization.c.organization_id)
    .where(~directories.c.enabled)
)

_directory = keys("organization_id", "directory_id")
_OF_DIRECTORIES = (
    select(directory_users.c.organization_id, directory_users.c.user_id)
    .join(
        _directory,
        (directory_users.c.organization_id == _directory.c.organization_id) & (directory_users.c.directory_id == _directory.c.directory_id),
    )
    .distinct()
)


def candidates(session: Session, sought: Iterable[tuple[str, str, str]], also: Iterable[Key]) -> dict[Key, Candidate]:
    """The users whom newcomers might join: by (`email` or `external_id`, organization, e-mail key or upstream id), and `also` these."""
    found = {*_linked(session.execute(_FOUND, as_keys(sought))), *also}
    stored = USERS.read(session, found)
    everybody = behind(session, found)
    return {key: Candidate(key.id, stored[key]["email_key"], everybody[key]) for key in found}


def behind(session: Session, found: Iterable[Key]) -> Mapping[Key, list[DirectoryUser]]:
    """By user: the directory users behind it."""
    result: defaultdict[Key, list[DirectoryUser]] = defaultdict(list)
    for row in session.execute(_BEHIND, as_keys(found)).mappings():
        result[Key(row["organization_id"], row["user_id"])].append(directory_user(row))
    return result


def of_directories(session: Session, changed: Collection[Key]) -> set[Key]:
    """The users that somebody of these directories is behind."""
    return _linked(session.execute(_OF_DIRECTORIES, as_keys(changed))) if changed else set()


def _linked(rows: Iterable[Sequence[str | None]]) -> set[Key]:
    """Sorted out here: asked for `user_id IS NOT NULL`, SQLite takes the index on that, and reads the whole organization."""
    return {Key(str(organization_id), user_id) for organization_id, user_id in rows if user_id is not None}


def disabled_directories(session: Session, people: Iterable[DirectoryUser]) -> set[Key]:
    """The disabled directories of the organizations of those `people` whose directory is known."""
    organizations = {(person.key.organization_id,) for person in people if person.directory_id}
    return {Key(*row) for row in session.execute(_DISABLED, as_keys(organizations))} if organizations else set()


def grants(session: Session, found: Iterable[Key]) -> Mapping[Key, set[tuple[str, str]]]:
    """By user: its roles, each with the directory user that it comes from."""
    result: defaultdict[Key, set[tuple[str, str]]] = defaultdict(set)
    for row in session.execute(_GRANTS, as_keys(found)).mappings():
        result[Key(row["organization_id"], row["user_id"])].add((row["role"], row["source"]))
    return result


def row(key: Key, shown: Shown, stored: RowMapping | None, now: datetime) -> Row:
    """A user as its row."""
    since = stored["deactivated_at"] if stored else None
    return {
        **key._asdict(),
        **shown.profile,
        "email_key": email_key(shown.profile["email"]),
        "attributes": shown.attributes,
        "active": shown.active,
        "created_at": now,
        "updated_at": now,
        "deactivated_at": None if shown.active else since or now,
    }


def differs(shown: Shown, stored: RowMapping) -> bool:
    """Whether the stored user shows something else than this."""
    return (
        shown.active != stored["active"]
        or any(value != stored[name] for name, value in shown.profile.items())
        or canonical(shown.attributes) != canonical(stored["attributes"])
    )


def grant_rows(key: Key, granted: Iterable[tuple[str, str]]) -> Sequence[Row]:
    """Grants of one user as rows."""
    return [{"organization_id": key.organization_id, "user_id": key.id, "role": role, "source": source} for role, source in granted]
