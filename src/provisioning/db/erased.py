"""Who was erased, by the ids of what was behind them: nothing that is said of these comes in any more."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import bindparam, exists, or_, select, update
from sqlalchemy.orm import Session

from provisioning.db.models import erased, organizations
from provisioning.db.repository import Repository
from provisioning.merge import Key

_ERASED = Repository(erased)
_FOUND = select(erased).where(or_(erased.c.user_id == bindparam("id"), erased.c.directory_user_id == bindparam("id")))
_MARK = (
    update(organizations)
    .where(organizations.c.id == bindparam("its_id"))
    .values(has_erased=exists().where(erased.c.organization_id == bindparam("its_id")))
)


def among(session: Session, keys: Iterable[Key]) -> set[Key]:
    """Those of these directory users that were erased."""
    return {Key(*key) for key in _ERASED.read(session, keys)}


def put(session: Session, directory_users: Sequence[Key], user_id: str | None, *, by: str, now: datetime) -> None:
    """Erased from now on. To be called while their organization is held alone."""
    rows = (
        {"organization_id": org, "directory_user_id": id_, "user_id": user_id, "erased_by": by, "erased_at": now}
        for org, id_ in directory_users
    )
    _ERASED.save(session, rows)
    _mark(session, directory_users)


def lift(session: Session, directory_users: Sequence[Key]) -> None:
    """Not any more. To be called likewise."""
    _ERASED.delete(session, directory_users)
    _mark(session, directory_users)


def told(session: Session, given: str, organization_id: str | None = None) -> str | None:
    """In words, when and by whom somebody was erased who had this id, ours or a directory user's; None: nobody was."""
    rows = [row for row in session.execute(_FOUND, {"id": given}) if organization_id in {None, row.organization_id}]
    if not rows:
        return None
    return f"was erased on {rows[0].erased_at:%Y-%m-%d} by {rows[0].erased_by}; `erase --lift` lets what is said of them come in again."


def found(session: Session, given: str) -> list[Key]:
    """The directory users that were erased under this id: their own, or their user's."""
    return sorted(Key(row.organization_id, row.directory_user_id) for row in session.execute(_FOUND, {"id": given}))


def _mark(session: Session, directory_users: Sequence[Key]) -> None:
    """Whether batches have to look, by organization."""
    for organization_id in sorted({key.organization_id for key in directory_users}):
        session.execute(_MARK, {"its_id": organization_id})
