"""What is kept only for a while: forgotten a little at a time, so that nobody waits for it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic

from structlog import get_logger

from provisioning.db import changes
from provisioning.db.session import Contended, Database

SECONDS_BETWEEN_LOOKS = 600.0
AT_ONCE = 2000  # rows; the next as many go at the next tick

log = get_logger(__name__)


class Retention:
    """Forgets changes after so many days."""

    def __init__(self, database: Database, change_retention_days: int, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._days = change_retention_days
        self._clock = clock
        self._next_look = monotonic()

    def tick(self) -> None:
        """Forget some of what is old enough, now and then. To be called again and again. Raises Unavailable."""
        if monotonic() < self._next_look:
            return
        try:
            with self._database.writing() as session:
                forgotten = changes.forget(session, self._clock() - timedelta(days=self._days), at_most=AT_ONCE)
        except Contended:
            return  # at the next tick
        if forgotten:
            log.info("changes_forgotten", changes=forgotten)
        if forgotten < AT_ONCE:
            self._next_look = monotonic() + SECONDS_BETWEEN_LOOKS
