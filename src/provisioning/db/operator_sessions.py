"""Who is logged in to the operations page. A session is found by the SHA-256 of what the browser keeps, and by nothing else."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.orm import Session

from provisioning.db.models import UtcTime, operator_sessions

_sessions = operator_sessions.c
_BEGIN = insert(operator_sessions)
_FIND = select(_sessions.key_name, _sessions.key_fingerprint).where(
    _sessions.id == bindparam("id"), _sessions.expires_at > bindparam("now", type_=UtcTime())
)
_END = delete(operator_sessions).where(_sessions.id == bindparam("its_id"))
_FORGET = delete(operator_sessions).where(_sessions.expires_at <= bindparam("now", type_=UtcTime()))


@dataclass(frozen=True, slots=True)
class OperatorSession:
    """A login: the name of the API key, and what only this key gives together with what the browser keeps."""

    key_name: str
    key_fingerprint: str


def begin(session: Session, id_: str, key_name: str, key_fingerprint: str, *, now: datetime, expires_at: datetime) -> None:
    """Keep a session until then; those that have expired are forgotten."""
    session.execute(_FORGET, {"now": now})
    session.execute(_BEGIN, {"id": id_, "key_name": key_name, "key_fingerprint": key_fingerprint, "expires_at": expires_at})


def find(session: Session, id_: str, now: datetime) -> OperatorSession | None:
    """The session with this id, unless it has expired."""
    row = session.execute(_FIND, {"id": id_, "now": now}).mappings().one_or_none()
    return OperatorSession(**row) if row else None


def end(session: Session, id_: str) -> None:
    """End the session, if there is one."""
    session.execute(_END, {"its_id": id_})
