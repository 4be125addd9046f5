"""The directories of an organization."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Table, and_, bindparam, func, select
from sqlalchemy.orm import Session

from provisioning.db.models import deliveries, directories, directory_users, groups


@dataclass(frozen=True, slots=True)
class Directory:
    """A customer's directory, as far as events and reconciles told of it."""

    id: str
    organization_id: str
    provider: str | None
    type: str | None
    enabled: bool
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Heard:
    """A directory's newest event: when it happened there, in nanoseconds since 1970, and when it came here."""

    occurred_at: int | None
    received_at: datetime

    @property
    def lag(self) -> float | None:
        """The seconds between."""
        return None if self.occurred_at is None else max(self.received_at.timestamp() - self.occurred_at / 1e9, 0.0)


def page_of_directories(session: Session, organization_id: str, *, after: str, limit: int) -> list[Directory]:
    """Return up to `limit` directories in the order of their ids, from the first one behind `after` ("": from the start)."""
    rows = session.execute(PAGE, {"organization_id": organization_id, "after": after, "limit": limit}).mappings()
    return [Directory(**row) for row in rows]


def last_heard(session: Session, organization_id: str) -> dict[str, Heard]:
    """By directory: its newest event among the organization's last 1,000. An event names no directory; whom it is about may."""
    heard: dict[str, Heard] = {}
    for directory_id, occurred_at, received_at in session.execute(_HEARD, {"organization_id": organization_id}):
        heard.setdefault(directory_id, Heard(occurred_at, received_at))
    return heard


PAGE = (
    select(*(directories.c[name] for name in ("id", "organization_id", "provider", "type", "enabled", "updated_at")))
    .where(directories.c.organization_id == bindparam("organization_id"), directories.c.id > bindparam("after"))
    .order_by(directories.c.id)
    .limit(bindparam("limit"))
)
_recent = (
    select(*(deliveries.c[name] for name in ("webhook_id", "subject_id", "occurred_at", "received_at")))
    .where(deliveries.c.organization_id == bindparam("organization_id"))
    .order_by(deliveries.c.received_at.desc(), deliveries.c.webhook_id.desc())
    .limit(1000)
    .subquery()
)


def _subject(table: Table) -> ColumnElement[bool]:
    return and_(table.c.organization_id == bindparam("organization_id"), table.c.id == _recent.c.subject_id)


_directory_id = func.coalesce(directory_users.c.directory_id, groups.c.directory_id, directories.c.id)
_HEARD = (
    select(_directory_id, _recent.c.occurred_at, _recent.c.received_at)
    .select_from(_recent)
    .outerjoin(directory_users, _subject(directory_users))
    .outerjoin(groups, _subject(groups))
    .outerjoin(directories, _subject(directories))
    .where(_directory_id.is_not(None))
    .order_by(_recent.c.received_at.desc(), _recent.c.webhook_id.desc())
)
