"""What is kept only for a while: forgotten a little at a time, so that nobody waits for it."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic

from structlog import get_logger

from provisioning.db import changes, inbox
from provisioning.db.session import Contended, Database
from provisioning.settings import Settings

SECONDS_BETWEEN_LOOKS = 600.0
AT_ONCE = 2000  # rows; the next as many go at the next tick

log = get_logger(__name__)


class Retention:
    """Forgets changes, and deliveries' payloads, after so many days."""

    def __init__(self, database: Database, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._next_look = monotonic()

    def tick(self) -> None:
        """Forget some of what is old enough, now and then. To be called again and again. Raises Unavailable."""
        if monotonic() < self._next_look:
            return
        with suppress(Contended):  # the rest at the next tick
            if max(self._forget_changes(), self._forget_payloads()) < AT_ONCE:
                self._next_look = monotonic() + SECONDS_BETWEEN_LOOKS

    def _forget_changes(self) -> int:
        with self._database.writing() as session:
            forgotten = changes.forget(session, self._days_ago(self._settings.change_retention_days), at_most=AT_ONCE)
        if forgotten:
            log.info("changes_forgotten", changes=forgotten)
        return forgotten

    def _forget_payloads(self) -> int:
        with self._database.writing() as session:
            forgotten = inbox.forget_payloads(session, self._days_ago(self._settings.payload_retention_days), at_most=AT_ONCE)
        if forgotten:
            log.info("payloads_forgotten", deliveries=forgotten)
        return forgotten

    def _days_ago(self, days: int) -> datetime:
        return self._clock() - timedelta(days=days)
