"""The records *there*, each a row of registers with the columns that are projected from them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple, cast

from sqlalchemy.orm import Session

from provisioning.accounts import DirectoryUser
from provisioning.bodies import Json
from provisioning.db.models import directories, directory_users, groups
from provisioning.db.prepared import Prepared, Row, Stored
from provisioning.db.repository import Repository, among, as_keys
from provisioning.merge import DELETED, Key, Kind, Registers, dump, load

REPOSITORIES: Mapping[Kind, Repository] = {
    Kind.DIRECTORY: Repository(directories),
    Kind.GROUP: Repository(groups),
    Kind.DIRECTORY_USER: Repository(directory_users),
}


_columns = directory_users.c
_LINKS = Prepared(
    among(directory_users, "organization_id", "id").with_only_columns(
        _columns.organization_id, _columns.id, _columns.user_id, _columns.email, _columns.external_id
    )
)


def registers(row: Stored | None) -> Registers:
    """The registers of a stored record; none of one that is not there."""
    return load(row["registers"]) if row else {}


class Link(NamedTuple):
    """Whose a directory user is, and what it might be joined on, as far as any of it is known."""

    user_id: str | None = None
    email: str | None = None
    external_id: str | None = None


def links(session: Session, found: Iterable[Key]) -> dict[Key, Link]:
    """By directory user, of those that are there."""
    return {Key(row[0], row[1]): Link(*row[2:]) for row in _LINKS.rows(session, as_keys(found))}


def directory_user(row: Stored) -> DirectoryUser:
    """A stored directory user."""
    return DirectoryUser(Key(row["organization_id"], row["id"]), registers(row), row["user_id"])


def directory_user_row(person: DirectoryUser, now: datetime) -> Row:
    """`person` as its row; `created_at` is kept where it exists."""
    return {
        **_common(person.key, person.registers, now),
        "user_id": person.user_id,
        "directory_id": person.directory_id,
        "external_id": person.external_id,
        "email": person.email,
        "active": person.active,
        "deleted": person.deleted,
    }


def directory_row(key: Key, merged: Registers, now: datetime) -> Row:
    """A directory as its row. One of which nothing was said yet counts as enabled."""
    return {
        **_common(key, merged, now),
        "provider": _text(merged, "provider"),
        "type": _text(merged, "directory_type"),
        "enabled": _value(merged, "enabled") is not False,
    }


def group_row(key: Key, merged: Registers, now: datetime) -> Row:
    """A group as its row; a stub has no registers."""
    return {
        **_common(key, merged, now),
        "directory_id": _text(merged, "directory_id"),
        "external_id": _text(merged, "external_id"),
        "name": _text(merged, "name"),
        "deleted": _value(merged, DELETED) is True,
    }


def shown_group(row: Row | Stored) -> dict[str, Json] | None:
    """What a group shows, None of a deleted one."""
    return None if row["deleted"] else {name: cast(str | None, row[name]) for name in ("name", "external_id", "directory_id")}


def _common(key: Key, merged: Registers, now: datetime) -> dict[str, object]:
    return {**key._asdict(), "registers": dump(merged), "created_at": now, "updated_at": now}


def _value(merged: Registers, name: str) -> Json:
    return merged[name].value if name in merged else None


def _text(merged: Registers, name: str) -> str | None:
    value = _value(merged, name)
    return value if isinstance(value, str) else None
