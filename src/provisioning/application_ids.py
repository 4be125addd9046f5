"""What the application calls a user: given, changed and taken away by an operator."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.changes import Cause, CauseKind, of_application_id
from provisioning.db import application_ids, changes, users
from provisioning.db.session import Database
from provisioning.errors import Conflict, NotFound
from provisioning.merge import Key

log = get_logger(__name__)


def call(database: Database, user: Key, application_id: str | None, by: str) -> None:
    """Have the user called so from now on, or nothing. Raises NotFound, Conflict where another user is called so, Unavailable."""

    def change(session: Session) -> bool:
        now = datetime.now(UTC)
        if application_id is not None:
            application_ids.hold(session, [Key(user.organization_id, application_id)])
        stored = users.USERS.lock(session, [user]).get(user)
        if stored is None:
            raise NotFound("This organization has no such user.")
        before = application_ids.of_users(session, [user]).get(user)
        if application_id == before:
            return False
        if application_id is None:
            application_ids.remove(session, user)
        else:
            _require_free(session, Key(user.organization_id, application_id))
            application_ids.put(session, {user: application_id}, by, now)
        users.USERS.save(session, [{**stored, "updated_at": now}])
        changes.record(session, [of_application_id(user, before, application_id, Cause(CauseKind.OPERATOR, by))], now)
        return True

    if database.write(change):  # an application may call people by their e-mails: what it is stays out of the log
        log.info("application_id_set", organization_id=user.organization_id, user_id=user.id, caller=by)


def _require_free(session: Session, wanted: Key) -> None:
    if holder := application_ids.having(session, [wanted]).get(wanted):
        raise Conflict(f"The user {holder} of this organization has this application id: take it away there first.")
