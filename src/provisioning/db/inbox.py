"""The inbox's rows: each delivery once, by its webhook id."""

from collections.abc import Iterable, Sequence

from sqlalchemy import RowMapping
from sqlalchemy.orm import Session

from provisioning.db.models import deliveries
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
