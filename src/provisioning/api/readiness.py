"""Whether the service can do its work: one look at the database at a time, whoever asks and however often."""

import asyncio
from time import monotonic

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from provisioning.db import migrations
from provisioning.db.session import Database
from provisioning.errors import Unavailable

READY_SECONDS = 4.5
FRESH_SECONDS = 1.0


class Readiness:
    """Anybody may ask, so that asking must cost next to nothing: all share the look under way, and its answer for a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._look: asyncio.Task[str | None] | None = None
        self._since = 0.0

    async def wrong(self) -> str | None:
        """Return what keeps the service from working, within 4.5 s whatever the database does; None when it can."""
        if self._look is None or (self._look.done() and monotonic() - self._since > FRESH_SECONDS):
            # A limiter of its own: requests that wait for the database fill the shared one, and this must be able to say so.
            self._look = asyncio.create_task(run_sync(self._ask, limiter=CapacityLimiter(1)))
        done, _ = await asyncio.wait({self._look}, timeout=READY_SECONDS)
        return self._look.result() if done else "The database did not answer in time."

    def _ask(self) -> str | None:
        try:
            with self._database.reading() as session:
                return migrations.state(session)
        except Unavailable as error:
            return str(error)
        finally:
            self._since = monotonic()
