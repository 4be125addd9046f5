"""Tries failed deliveries again, with growing pauses: besides Scalekit, which gives up after a while, and without anybody's command."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock

from provisioning.db import inbox as rows
from provisioning.db.session import Database
from provisioning.inbox import Inbox, Receipt

AT_ONCE = 32
CLAIMED_FOR = timedelta(minutes=5)  # then anybody tries them, as whoever had them must have ended


class Retrying:
    """One piece of work at a time of a process: however much fails, there is room for others."""

    def __init__(self, database: Database, inbox: Inbox, tell: Callable[[Sequence[Receipt]], None] = lambda _: None) -> None:
        """`tell` hears what became of what was tried again."""
        self._tell = tell
        self._database = database
        self._inbox = inbox
        self._one = Lock()

    def claim(self) -> Callable[[], None] | None:
        """The work on the deliveries that are due, if there are any. Raises Unavailable."""
        now = datetime.now(UTC)
        with self._database.reading() as session:
            if not rows.anything_due(session, now):
                return None
        if not self._one.acquire(blocking=False):
            return None
        webhook_ids: list[str] = []
        try:
            webhook_ids = self._database.write(partial(rows.claim_due, now=now, until=now + CLAIMED_FOR, at_most=AT_ONCE))
        finally:
            if not webhook_ids:
                self._one.release()
        return partial(self._retry, webhook_ids) if webhook_ids else None

    def _retry(self, webhook_ids: list[str]) -> None:
        try:
            self._tell(self._inbox.retry(webhook_ids))
        finally:
            self._one.release()
