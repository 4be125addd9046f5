"""What the application calls its users: one id each, and within an organization no two the same."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from provisioning.db import locks
from provisioning.db.models import application_ids
from provisioning.db.repository import Repository, among, as_keys
from provisioning.merge import Key

_IDS = Repository(application_ids)
_HAVING = among(application_ids, "organization_id", "application_id")


def lock_names(wanted: Iterable[Key]) -> set[tuple[str, ...]]:
    """The locks on these ids, for `locks.hold`: who gives one to somebody holds it, and then looks who has it."""
    return {("application_id", *key) for key in wanted}


def hold(session: Session, wanted: Iterable[Key]) -> None:
    """Hold these ids until the transaction ends. To be called before any row is locked."""
    locks.hold(session, lock_names(wanted))


def having(session: Session, wanted: Iterable[Key]) -> dict[Key, str]:
    """The users who have these ids, by id."""
    rows = session.execute(_HAVING, as_keys(wanted)).mappings()
    return {Key(row["organization_id"], row["application_id"]): row["user_id"] for row in rows}


def of_users(session: Session, users: Iterable[Key]) -> dict[Key, str]:
    """The ids that these users have."""
    return {Key(*key): row["application_id"] for key, row in _IDS.read(session, users).items()}


def put(session: Session, wanted: Mapping[Key, str], by: str, now: datetime) -> None:
    """Have each of these users, who are locked, called so, by an id that is held and nobody else's."""
    rows = ({"organization_id": org, "user_id": id_, "application_id": each} for (org, id_), each in wanted.items())
    _IDS.save(session, [{**row, "set_by": by, "set_at": now} for row in rows])


def remove(session: Session, user: Key) -> None:
    """Have the user, who is locked, called nothing."""
    _IDS.delete(session, [user])
