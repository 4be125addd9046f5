"""Whom an operator means: a user by our id, a directory user's id, an e-mail or the application's id; a group by its id or its name."""

from collections.abc import Iterable
from contextlib import suppress

from sqlalchemy.orm import Session

from provisioning.cli.terminal import plain
from provisioning.db import erased, organizations
from provisioning.db.reading.groups import Group, groups_named, one_group
from provisioning.db.reading.users import User, users_meant
from provisioning.errors import ConfigurationError, NotFound
from provisioning.events import is_id

LISTED = 20


def user(session: Session, organization_id: str, given: str) -> User:
    """The user who is meant. Raises NotFound, and ConfigurationError where several are."""
    if users := users_meant(session, organization_id, given, limit=LISTED):
        return _only_user(users)
    raise _not_found(
        session, organization_id, "no such user: give our id, a directory user's id, an e-mail, or the application's id.", given
    )


def user_or_group(session: Session, organization_id: str, given: str) -> User | Group:
    """The user who, or else the group that, is meant. Raises NotFound, and ConfigurationError where several are."""
    if users := users_meant(session, organization_id, given, limit=LISTED):
        return _only_user(users)
    if groups := _groups(session, organization_id, given):
        return _only_group(groups)
    raise _not_found(
        session,
        organization_id,
        "no such user or group: give an id, an e-mail, the application's id of a user, or a group's exact name.",
        given,
    )


def _only_user(found: list[User]) -> User:
    if len(found) > 1:
        ids = (each.id if each.active else f"{each.id} (inactive)" for each in found)
        raise ConfigurationError(f"Several users have this e-mail: give one's id, of {_listed(ids)}.")
    return found[0]


def _only_group(found: list[Group]) -> Group:
    if len(found) > 1:
        ids = (f"{each.id} (deleted)" if each.deleted else each.id for each in found)
        raise ConfigurationError(f"Several groups have this name: give one's id, of {_listed(ids)}.")
    return found[0]


def _listed(ids: Iterable[str]) -> str:
    return plain(", ".join(ids))


def _not_found(session: Session, organization_id: str, what: str, given: str) -> NotFound:
    if gone := erased.told(session, given, organization_id):
        return NotFound(f"This user {gone}")
    known = organizations.known(session, organization_id)
    return NotFound(f"This organization has {what}" if known else "Nothing is known of this organization.")


def _groups(session: Session, organization_id: str, given: str) -> list[Group]:
    if not is_id(given):
        return []
    with suppress(NotFound):
        return [one_group(session, organization_id, given)]
    return groups_named(session, organization_id, given, limit=LISTED)
