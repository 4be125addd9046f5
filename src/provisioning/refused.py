"""What is refused: what to do about each reason, and how often, written to the database now and then: a flood costs a row a reason."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from time import monotonic
from typing import cast

from sqlalchemy.orm import Session

from provisioning.db import refusals
from provisioning.db.session import Database
from provisioning.db.standing import last_accepted
from provisioning.errors import RefusalReason

SECONDS_BETWEEN_WRITES = 10.0
SECONDS_BETWEEN_CLEARINGS = 3600.0
KEPT = timedelta(days=7)

_EVER = datetime(2000, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a reason says, and what to do about it. `anybodys`: anybody on the internet causes it."""

    what: str
    to_do: str
    anybodys: bool = False


_NOISE = "From Scalekit nothing comes like that: somebody else knocks, and a proxy that changes headers looks the same."
REMEDIES: Mapping[RefusalReason, Remedy] = {
    "signature": Remedy("bad signature", "Compare SCALEKIT_WEBHOOK_SECRET with the endpoint's secret in Scalekit's dashboard."),
    "expired": Remedy("too old or of the future", "Set this machine's clock right, and look for what keeps webhooks on their way."),
    "too_large": Remedy("too large", "Raise PROVISIONING_MAX_BODY_BYTES."),
    "too_slow": Remedy("body too slow", "Look at the proxy before this service, and at the way to it."),
    "encoding": Remedy("body not UTF-8", "Let no proxy rewrite or compress bodies on their way."),
    "missing": Remedy("without a webhook's headers", _NOISE, anybodys=True),
    "malformed": Remedy("headers malformed", _NOISE, anybodys=True),
}


def remedy_of(reason: str) -> Remedy:
    """What to do about what was refused for this reason."""
    return REMEDIES.get(cast(RefusalReason, reason), Remedy(reason, "The service's log says more, as webhook_refused."))


def since_accepted(session: Session) -> tuple[datetime | None, dict[str, int]]:
    """When the last delivery was accepted, if ever, and how many were refused since, by reason, the most frequent first."""
    last = last_accepted(session)
    # They are counted by the minute: those of the minute in which it was accepted may have come before it.
    counts = refusals.since(session, last + _MINUTE if last else _EVER)
    return last, dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class Refusals:
    """Adds to the database what `counts` has counted since it last did; what could not be written is written with the next."""

    def __init__(self, database: Database, counts: Callable[[], Mapping[str, int]]) -> None:
        self._database = database
        self._counts = counts
        self._written: Mapping[str, int] = {}
        self._lock = Lock()
        self._next_write = self._next_clearing = monotonic()

    def tick(self) -> None:
        """Write, now and then, and forget what is old. To be called again and again. Raises Unavailable."""
        now = monotonic()
        if now >= self._next_write:
            self._next_write = now + SECONDS_BETWEEN_WRITES
            self.flush()
        if now >= self._next_clearing:
            before = datetime.now(UTC) - KEPT
            self._database.write(lambda session: refusals.forget(session, before))
            self._next_clearing = now + SECONDS_BETWEEN_CLEARINGS

    def flush(self) -> None:
        """Write what there is. Raises Unavailable."""
        with self._lock:
            counted = dict(self._counts())
            new = Counter(counted) - Counter(self._written)
            if new:
                self._database.write(lambda session: refusals.add(session, new, datetime.now(UTC)))
                self._written = counted
