"""The inbox's rows: each delivery once, by its webhook id."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from provisioning.db.models import UtcTime, deliveries
from provisioning.db.prepared import Row, Stored
from provisioning.db.repository import Repository, as_keys, keys

_DELIVERIES = Repository(deliveries)


def claim(session: Session, rows: Sequence[Row]) -> set[str]:
    """Insert `rows` as they will stand when all goes well; returns the webhook ids that are new.

    Whoever inserts a webhook id first holds it until its transaction ends; everybody else waits here, and then finds it done.
    """
    return {webhook_id for (webhook_id,) in _DELIVERIES.insert(session, rows)}


def read(session: Session, webhook_ids: Iterable[str]) -> dict[str, Stored]:
    """The stored deliveries with these webhook ids."""
    return {webhook_id: row for (webhook_id,), row in _DELIVERIES.read(session, ((each,) for each in webhook_ids)).items()}


def lock(session: Session, webhook_ids: Iterable[str]) -> dict[str, Stored]:
    """The same, locked: for those that are to be handled again."""
    return {webhook_id: row for (webhook_id,), row in _DELIVERIES.lock(session, ((each,) for each in webhook_ids)).items()}


def save(session: Session, rows: Iterable[Row]) -> None:
    """Write what became of deliveries that are ours, by `claim` or `lock`."""
    _DELIVERIES.save(session, rows)


def dismiss(session: Session, webhook_id: str, *, by: str, reason: str, now: datetime) -> bool:
    """Whether a delivery that failed or is dead-lettered is dismissed by this; one that was before stays as it was."""
    told = {"its_id": webhook_id, "by": by, "reason": reason, "now": now}
    return session.execute(_DISMISS, told).one_or_none() is not None


def claim_due(session: Session, now: datetime, *, until: datetime, at_most: int) -> list[str]:
    """The webhook ids of failed deliveries that are to be tried again now; nobody else has them `until` then."""
    return list(session.scalars(_CLAIM_DUE, {"now": now, "until": until, "at_most": at_most}))


def anything_due(session: Session, now: datetime) -> bool:
    """Whether there are any."""
    return session.execute(_DUE.with_only_columns(deliveries.c.webhook_id), {"now": now, "at_most": 1}).one_or_none() is not None


def forget_payloads(session: Session, before: datetime, *, at_most: int) -> int:
    """Forget up to so many payloads of what was received before then, the oldest first; returns how many.

    What is kept without its payload cannot be tried again.
    """
    found = session.scalars(_OLD_PAYLOADS, {"before": before, "at_most": at_most}).all()
    lock(session, found)
    if found:
        session.execute(_FORGET_PAYLOADS, as_keys((webhook_id,) for webhook_id in found))
    return len(found)


def handled_since(session: Session, organization_id: str, since: datetime, *, occurred_before: int) -> tuple[object, ...]:
    """What is another whenever an event older than `occurred_before` (nanoseconds since 1970) was handled since then: how many were, in
    how many attempts, and when the last one was.
    """
    asked = {"organization_id": organization_id, "since": since, "before": occurred_before}
    return tuple(session.execute(_HANDLED, asked).one())


_HANDLED = select(func.count(), func.sum(deliveries.c.attempts), func.max(deliveries.c.processed_at)).where(
    deliveries.c.organization_id == bindparam("organization_id"),
    deliveries.c.processed_at >= bindparam("since", type_=UtcTime()),
    deliveries.c.occurred_at < bindparam("before"),
    deliveries.c.outcome == "processed",
    deliveries.c.type.like("organization.directory.%"),  # not of the directories themselves: they heed no mark
)

_DISMISS = (
    update(deliveries)
    .where(
        deliveries.c.webhook_id == bindparam("its_id"),
        deliveries.c.outcome.in_(("failed", "dead_lettered")),
        deliveries.c.dismissed_at.is_(None),
    )
    .values(
        dismissed_at=bindparam("now", type_=UtcTime()), dismissed_by=bindparam("by"), dismissed_reason=bindparam("reason"), retry_at=None
    )
    .returning(deliveries.c.webhook_id)
)
_DUE = (
    select(deliveries.c.webhook_id)
    .where(deliveries.c.retry_at <= bindparam("now", type_=UtcTime()), deliveries.c.retry_at.is_not(None))
    .order_by(deliveries.c.retry_at)
    .limit(bindparam("at_most"))
)
_CLAIM_DUE = (
    update(deliveries)
    .where(deliveries.c.webhook_id.in_(_DUE.with_for_update(skip_locked=True)))
    .values(retry_at=bindparam("until", type_=UtcTime()))
    .returning(deliveries.c.webhook_id)
)
_OLD_PAYLOADS = (
    select(deliveries.c.webhook_id)
    .where(deliveries.c.received_at < bindparam("before", type_=UtcTime()), deliveries.c.payload.is_not(None))
    .order_by(deliveries.c.received_at, deliveries.c.webhook_id)
    .limit(bindparam("at_most"))
)
_FORGET_PAYLOADS = update(deliveries).where(deliveries.c.webhook_id.in_(select(keys("webhook_id")))).values(payload=None, retry_at=None)
