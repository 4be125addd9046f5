"""The organizations known here."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from provisioning.db.models import deliveries, organizations, users


@dataclass(frozen=True, slots=True)
class Organization:
    """A customer's organization; `complete_as_of` (nanoseconds since 1970) is its mark, the start of its last complete reconcile."""

    id: str
    external_id: str | None
    active_users: int
    complete_as_of: int | None
    last_event_at: datetime | None


def page_of_organizations(session: Session, *, after: str, limit: int) -> list[Organization]:
    """Return up to `limit` organizations in the order of their ids, from the first one behind `after` ("": from the start)."""
    return [Organization(**row) for row in session.execute(PAGE, {"after": after, "limit": limit}).mappings()]


_ACTIVE_USERS = select(func.count()).where(users.c.organization_id == organizations.c.id, users.c.active).scalar_subquery()
_LAST_EVENT = (
    select(deliveries.c.received_at)
    .where(deliveries.c.organization_id == organizations.c.id)
    .order_by(deliveries.c.received_at.desc())
    .limit(1)
    .scalar_subquery()
)
PAGE = (
    select(
        organizations.c.id,
        organizations.c.external_id,
        _ACTIVE_USERS.label("active_users"),
        organizations.c.complete_as_of,
        _LAST_EVENT.label("last_event_at"),
    )
    .where(organizations.c.id > bindparam("after"))
    .order_by(organizations.c.id)
    .limit(bindparam("limit"))
)
