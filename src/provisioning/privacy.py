"""What the law asks for of one person: everything that is stored of them, handed over; or all of it erased, for good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.bodies import Json, shown
from provisioning.changes import Cause, CauseKind, of_erased
from provisioning.db import changes, erased, organizations, personal, users
from provisioning.db.personal import Person
from provisioning.db.prepared import Stored
from provisioning.db.session import Database
from provisioning.events import rfc3339
from provisioning.merge import Key

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Erased:
    """Who was erased, and how many rows that were, by table. `flushed`: whether nothing of it is left beside the database's file."""

    person: Person
    removed: Mapping[str, int]
    flushed: bool


def export(session: Session, person: Person) -> dict[str, Json]:
    """Everything that is stored of somebody, by table, as JSON: times in RFC 3339, a payload as JSON or, where it is none, in base64."""
    told: dict[str, Json] = {"organization_id": person.organization_id, "exported_at": _utc(datetime.now(UTC))}
    told |= {name: [_as_json(row) for row in found] for name, found in personal.read(session, person).items()}
    return {**told, "findings": [dict(finding) for finding in personal.findings(session, person)]}


def erase(database: Database, person: Person, by: str) -> Erased:
    """Erase somebody everywhere, with whatever is behind the account by now.

    From now on nothing that is said of these directory users comes in. Raises Unavailable.
    """

    def work(session: Session) -> tuple[Person, dict[str, int]]:
        now = datetime.now(UTC)
        organizations.enter(session, {person.organization_id: True}, now)  # no event is being handled, and none comes in between
        known = personal.again(session, person)
        if known.user_id is not None:
            users.USERS.lock(session, [(known.organization_id, known.user_id)])
        erased.put(session, known.keys, known.user_id, by=by, now=now)
        removed = personal.remove(session, known)
        if known.user_id is not None:
            user = Key(known.organization_id, known.user_id)
            changes.record(session, list(of_erased(user, active=known.active, cause=Cause(CauseKind.OPERATOR, by))), now)
        return known, removed

    known, removed = database.write(work)
    log.info("erased", organization_id=known.organization_id, user_id=known.user_id, directory_user_ids=known.directory_user_ids, caller=by)
    return Erased(known, removed, personal.flush_traces(database))


def lift(database: Database, directory_users: Sequence[Key], by: str) -> None:
    """Let what is said of these come in again. Who they were does not come back by itself: a reconcile, or the next event, brings them."""

    def work(session: Session) -> None:
        organizations.enter(session, dict.fromkeys(sorted({key.organization_id for key in directory_users}), True), datetime.now(UTC))
        erased.lift(session, directory_users)

    database.write(work)
    log.info("erasure_lifted", directory_user_ids=[key.id for key in directory_users], caller=by)


def _as_json(row: Stored) -> Json:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: object) -> Json:
    if isinstance(value, datetime):
        return _utc(value)
    if isinstance(value, bytes):
        document, encoding = shown(value)
        return {encoding: document}
    if name == "occurred_at" and isinstance(value, int):
        return rfc3339(value)
    return value  # type: ignore[return-value]  # JSON, as the column's type says


def _utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
