"""Whom an operator means: a user by our id, a directory user's id or an e-mail; a group by its id or its name."""

from collections.abc import Iterable
from contextlib import suppress

from sqlalchemy.orm import Session

from provisioning.cli.terminal import plain
from provisioning.db import organizations
from provisioning.db.reading.groups import Group, groups_named, one_group
from provisioning.db.reading.users import User, UserFilter, one_user, page_of_users
from provisioning.errors import ConfigurationError, NotFound
from provisioning.events import is_id

LISTED = 20


def user(session: Session, organization_id: str, given: str) -> User:
    """The user who is meant. Raises NotFound, and ConfigurationError where several are."""
    if users := _users(session, organization_id, given):
        return _only_user(users)
    raise _not_found(session, organization_id, "no such user: give our id, a directory user's id, or an e-mail.")


def user_or_group(session: Session, organization_id: str, given: str) -> User | Group:
    """The user who, or else the group that, is meant. Raises NotFound, and ConfigurationError where several are."""
    if users := _users(session, organization_id, given):
        return _only_user(users)
    if groups := _groups(session, organization_id, given):
        return _only_group(groups)
    raise _not_found(session, organization_id, "no such user or group: give an id, an e-mail, or a group's exact name.")


def described(name: str | None, email: str | None, id_: str) -> str:
    """A user or a group in words: who, for a person, and exactly which."""
    known = [text for text in (name, email and f"<{email}>") if text]
    return " ".join([*known, f"({id_})"]) if known else id_


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


def _not_found(session: Session, organization_id: str, what: str) -> NotFound:
    known = organizations.known(session, organization_id)
    return NotFound(f"This organization has {what}" if known else "Nothing is known of this organization.")


def _users(session: Session, organization_id: str, given: str) -> list[User]:
    if not is_id(given):
        return []
    with suppress(NotFound):
        return [one_user(session, organization_id, given)]
    for wanted in (UserFilter(directory_user_id=given), UserFilter(email=given)):
        if found := page_of_users(session, organization_id, wanted, after="", limit=LISTED):
            return found
    return []


def _groups(session: Session, organization_id: str, given: str) -> list[Group]:
    if not is_id(given):
        return []
    with suppress(NotFound):
        return [one_group(session, organization_id, given)]
    return groups_named(session, organization_id, given, limit=LISTED)
