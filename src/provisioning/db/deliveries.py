"""The inbox to look into: deliveries newest first, or one with its payload."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, select, tuple_
from sqlalchemy.orm import Session

from provisioning.db.models import UtcTime, deliveries
from provisioning.errors import NotFound


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """What is kept of a delivery. `occurred_at` is in nanoseconds since 1970; `payload` is the body, less what was named like a secret."""

    webhook_id: str
    event_id: str | None
    type: str | None
    organization_id: str | None
    occurred_at: int | None
    received_at: datetime
    processed_at: datetime | None
    outcome: str
    attempts: int
    error: str | None
    payload: bytes | None = None


def page_of_deliveries(session: Session, *, before: tuple[datetime, str], limit: int) -> list[StoredDelivery]:
    """Return up to `limit` deliveries without payloads, newest first, from the first one older than `before`: its time and webhook id."""
    received_at, webhook_id = before
    rows = session.execute(PAGE, {"received_at": received_at, "webhook_id": webhook_id, "limit": limit}).mappings()
    return [StoredDelivery(**row) for row in rows]


def one_delivery(session: Session, webhook_id: str) -> StoredDelivery:
    """Return the delivery with its payload. Raises NotFound."""
    row = session.execute(_ONE, {"webhook_id": webhook_id}).mappings().one_or_none()
    if row is None:
        raise NotFound("There is no such delivery.")
    return StoredDelivery(**row)


def last_event_ids(session: Session, organization_id: str, limit: int) -> list[str]:
    """The ids of the organization's directory events that were received last, newest first."""
    return list(session.scalars(_LAST_EVENTS, {"organization_id": organization_id, "limit": limit}))


_LISTED: Select[*tuple[Any, ...]] = select(*(column for column in deliveries.c if column.name not in {"subject_id", "payload"}))
PAGE = (
    _LISTED.where(
        tuple_(deliveries.c.received_at, deliveries.c.webhook_id)
        < tuple_(bindparam("received_at", type_=UtcTime()), bindparam("webhook_id", type_=deliveries.c.webhook_id.type))
    )
    .order_by(deliveries.c.received_at.desc(), deliveries.c.webhook_id.desc())
    .limit(bindparam("limit"))
)
_ONE = _LISTED.add_columns(deliveries.c.payload).where(deliveries.c.webhook_id == bindparam("webhook_id"))
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
