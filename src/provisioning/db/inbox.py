"""The inbox's rows: each delivery once, by its webhook id."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import RowMapping, bindparam, select
from sqlalchemy.orm import Session

from provisioning.db.models import UtcTime, deliveries
from provisioning.db.repository import Repository, Row

_DELIVERIES = Repository(deliveries)


def claim(session: Session, rows: Sequence[Row]) -> set[str]:
    """Insert `rows` as they will stand when all goes well; returns the webhook ids that are new.

    Whoever inserts a webhook id first holds it until its transaction ends; everybody else waits here, and then finds it done.
    """
    return {webhook_id for (webhook_id,) in _DELIVERIES.insert(session, rows)}


def read(session: Session, webhook_ids: Iterable[str]) -> dict[str, RowMapping]:
    """The stored deliveries with these webhook ids."""
    return {webhook_id: row for (webhook_id,), row in _DELIVERIES.read(session, ((each,) for each in webhook_ids)).items()}


def lock(session: Session, webhook_ids: Iterable[str]) -> dict[str, RowMapping]:
    """The same, locked: for those that are to be handled again."""
    return {webhook_id: row for (webhook_id,), row in _DELIVERIES.lock(session, ((each,) for each in webhook_ids)).items()}


def save(session: Session, rows: Iterable[Row]) -> None:
    """Write what became of deliveries that are ours, by `claim` or `lock`."""
    _DELIVERIES.save(session, rows)


def handled_since(session: Session, organization_id: str, since: datetime, *, occurred_before: int) -> set[tuple[str, int]]:
    """The handlings since then of events older than `occurred_before` (nanoseconds since 1970): webhook id and number of the attempt."""
    asked = {"organization_id": organization_id, "since": since, "before": occurred_before}
    return {(webhook_id, attempts) for webhook_id, attempts in session.execute(_HANDLED, asked)}


_HANDLED = select(deliveries.c.webhook_id, deliveries.c.attempts).where(
    deliveries.c.organization_id == bindparam("organization_id"),
    deliveries.c.processed_at >= bindparam("since", type_=UtcTime()),
    deliveries.c.occurred_at < bindparam("before"),
    deliveries.c.outcome == "processed",
    deliveries.c.type.like("organization.directory.%"),  # not of the directories themselves: they heed no mark
)
