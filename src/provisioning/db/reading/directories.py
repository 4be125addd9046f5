"""The directories of an organization."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from provisioning.db.models import directories


@dataclass(frozen=True, slots=True)
class Directory:
    """A customer's directory, as far as events and reconciles told of it."""

    id: str
    organization_id: str
    provider: str | None
    type: str | None
    enabled: bool
    updated_at: datetime


def page_of_directories(session: Session, organization_id: str, *, after: str, limit: int) -> list[Directory]:
    """Return up to `limit` directories in the order of their ids, from the first one behind `after` ("": from the start)."""
    rows = session.execute(PAGE, {"organization_id": organization_id, "after": after, "limit": limit}).mappings()
    return [Directory(**row) for row in rows]


PAGE = (
    select(*(directories.c[name] for name in ("id", "organization_id", "provider", "type", "enabled", "updated_at")))
    .where(directories.c.organization_id == bindparam("organization_id"), directories.c.id > bindparam("after"))
    .order_by(directories.c.id)
    .limit(bindparam("limit"))
)
