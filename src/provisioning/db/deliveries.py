"""The inbox to look into: deliveries newest first, narrowed down, or one with its payload and what it changed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, literal_column, select, tuple_
from sqlalchemy.orm import Session

from provisioning.db.models import UtcTime, changes, deliveries
from provisioning.db.reading.changes import StoredChange
from provisioning.db.repository import as_keys, keys
from provisioning.errors import NotFound


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """What is kept of a delivery. `occurred_at` is in nanoseconds since 1970; `payload` is the body, less what was named like a secret.

    `subject_id`: whom or what it is about. `retry_at`: when the service tries it again by itself.
    """

    webhook_id: str
    event_id: str | None
    type: str | None
    organization_id: str | None
    subject_id: str | None
    occurred_at: int | None
    received_at: datetime
    processed_at: datetime | None
    outcome: str
    attempts: int
    error: str | None
    retry_at: datetime | None
    dismissed_at: datetime | None
    dismissed_by: str | None
    dismissed_reason: str | None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which deliveries: all that is given has to be so. Times are when they were received, from the first until before the second."""

    outcome: str | None = None
    organization_id: str | None = None
    type: str | None = None
    subject_id: str | None = None
    received_after: datetime | None = None
    received_before: datetime | None = None
    dismissed: bool | None = None

    def given(self) -> dict[str, object]:
        """What of it is given, by name."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        found |= {"dismissed": self.dismissed or None, "not_dismissed": self.dismissed is False or None}
        return {name: value for name, value in found.items() if value is not None}


EVERY = Wanted()
NEWEST = (datetime.max.replace(tzinfo=UTC), "")  # where the newest page begins


def page_of_deliveries(session: Session, wanted: Wanted, *, before: tuple[datetime, str], limit: int) -> list[StoredDelivery]:
    """Return up to `limit` deliveries without payloads, newest first, from the first one older than `before`: its time and webhook id."""
    given = wanted.given()
    statement = page_statement(frozenset(given), usual=wanted.outcome in {None, "processed"})
    before_at, before_id = before
    rows = session.execute(statement, {**given, "before_at": before_at, "before_id": before_id, "limit": limit}).mappings()
    return [StoredDelivery(**row) for row in rows]


def one_delivery(session: Session, webhook_id: str) -> StoredDelivery:
    """Return the delivery with its payload. Raises NotFound."""
    row = session.execute(_ONE, {"webhook_id": webhook_id}).mappings().one_or_none()
    if row is None:
        raise NotFound("There is no such delivery.")
    return StoredDelivery(**row)


def deliveries_of(session: Session, webhook_ids: Iterable[str]) -> dict[str, StoredDelivery]:
    """Return those of these deliveries that are there, without payloads, by webhook id."""
    rows = session.execute(_THESE, as_keys((each,) for each in webhook_ids)).mappings()
    return {row["webhook_id"]: StoredDelivery(**row) for row in rows}


def changed_by(session: Session, delivery: StoredDelivery, *, limit: int) -> list[StoredChange]:
    """Return up to `limit` changes that are put down to the delivery, in their order, as far back as changes are kept."""
    asked = {"organization_id": delivery.organization_id, "webhook_id": delivery.webhook_id, "limit": limit}
    return [StoredChange(**row) for row in session.execute(_CHANGED, asked).mappings()]


def last_event_ids(session: Session, organization_id: str, limit: int) -> list[str]:
    """The ids of the organization's directory events that were received last, newest first."""
    return list(session.scalars(_LAST_EVENTS, {"organization_id": organization_id, "limit": limit}))


_row = deliveries.c
_NARROWED: Mapping[str, Callable[[], ColumnElement[bool]]] = {
    "outcome": lambda: _row.outcome == bindparam("outcome"),
    "organization_id": lambda: _row.organization_id == bindparam("organization_id"),
    "type": lambda: _row.type == bindparam("type"),
    "subject_id": lambda: _row.subject_id == bindparam("subject_id"),
    "received_after": lambda: _row.received_at >= bindparam("received_after", type_=UtcTime()),
    "received_before": lambda: _row.received_at < bindparam("received_before", type_=UtcTime()),
    "dismissed": lambda: _row.dismissed_at.is_not(None),
    "not_dismissed": lambda: _row.dismissed_at.is_(None),
}
# In the words of the index over these rows alone: SQLite takes an index like that for nothing less. (A Boolean would add ` = 1`.)
UNUSUAL: ColumnElement[bool] = literal_column("outcome <> 'processed'")


@cache
def page_statement(given: frozenset[str], *, usual: bool) -> Select[Any]:
    """The statement of a page, narrowed down by the filters of these names; `usual`: processed ones may be among them."""
    narrowed = [_NARROWED[name]() for name in sorted(given)]
    place = tuple_(_row.received_at, _row.webhook_id) < tuple_(
        bindparam("before_at", type_=UtcTime()), bindparam("before_id", type_=_row.webhook_id.type)
    )
    here = and_(place, *narrowed) if usual else and_(place, UNUSUAL, *narrowed)
    return _LISTED.where(here).order_by(_row.received_at.desc(), _row.webhook_id.desc()).limit(bindparam("limit"))


_LISTED: Select[*tuple[Any, ...]] = select(*(column for column in deliveries.c if column.name != "payload"))
_wanted = keys("webhook_id")
_THESE = _LISTED.join(_wanted, deliveries.c.webhook_id == _wanted.c.webhook_id)
_ONE = _LISTED.add_columns(deliveries.c.payload).where(deliveries.c.webhook_id == bindparam("webhook_id"))
# No index has the causes, which would cost every delivery; an organization's changes are looked through for the one that is looked at.
_CHANGED = (
    select(changes)
    .where(
        changes.c.organization_id == bindparam("organization_id"),
        changes.c.cause == "delivery",
        changes.c.cause_id == bindparam("webhook_id"),
    )
    .order_by(changes.c.position)
    .limit(bindparam("limit"))
)
_LAST_EVENTS = (
    select(deliveries.c.event_id)
    .where(
        deliveries.c.organization_id == bindparam("organization_id"),
        deliveries.c.event_id.is_not(None),
        deliveries.c.type.like("organization.directory%"),
    )
    .order_by(deliveries.c.received_at.desc(), deliveries.c.webhook_id.desc())
    .limit(bindparam("limit"))
)
