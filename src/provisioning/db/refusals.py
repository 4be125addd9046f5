"""How many webhooks were refused, by the minute and the reason: what an operator of a service with a wrong secret sees."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert  # SQLite writes ON CONFLICT in the same words
from sqlalchemy.orm import Session

from provisioning.db.models import UtcTime, refusals

_NEW = insert(refusals)
_ADD = _NEW.on_conflict_do_update(
    index_elements=[refusals.c.minute, refusals.c.reason], set_={"count": refusals.c.count + _NEW.excluded.count}
)
_SINCE = (
    select(refusals.c.reason, func.sum(refusals.c.count))
    .where(refusals.c.minute >= bindparam("since", type_=UtcTime()))
    .group_by(refusals.c.reason)
)
_FORGET = delete(refusals).where(refusals.c.minute < bindparam("before", type_=UtcTime()))


def add(session: Session, counts: Mapping[str, int], now: datetime) -> None:
    """Count so many more refusals, by reason."""
    minute = now.replace(second=0, microsecond=0)
    session.execute(_ADD, [{"minute": minute, "reason": reason, "count": count} for reason, count in sorted(counts.items())])


def since(session: Session, moment: datetime) -> dict[str, int]:
    """How many there were since that minute, by reason."""
    minute = moment.replace(second=0, microsecond=0)
    return {reason: int(count) for reason, count in session.execute(_SINCE, {"since": minute})}


def forget(session: Session, before: datetime) -> None:
    """Forget those from before then."""
    session.execute(_FORGET, {"before": before})
