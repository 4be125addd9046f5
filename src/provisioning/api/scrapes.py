"""What a scrape shows: the counters as they are, and what lives in the database, looked up at most every 15 s, whoever asks."""

import asyncio
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from time import monotonic

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from provisioning.db.reading import figures
from provisioning.db.reading.figures import Figures
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.metrics import Metric, Metrics, gauge
from provisioning.reconcile.guard import ALWAYS

LOOK_SECONDS = 4.5  # Prometheus gives up after 10
FRESH_SECONDS = 15.0


class Scrapes:
    """All who ask share the look under way, and what it saw for a while: many scrapers cost the database no more than one."""

    def __init__(self, database: Database, metrics: Metrics, max_deactivation_share: float) -> None:
        self._database = database
        self._metrics = metrics
        self._share = max_deactivation_share
        self._look: asyncio.Task[Figures | None] | None = None
        self._since = 0.0
        # Of their own: requests that wait for the database fill the shared one, and this must be able to say so.
        self._looking, self._writing = CapacityLimiter(1), CapacityLimiter(1)

    async def text(self) -> bytes:
        """Everything, in Prometheus' text format; without the database's figures while it is away."""
        if self._look is None or (self._look.done() and monotonic() - self._since > FRESH_SECONDS):
            self._look = asyncio.create_task(run_sync(self._ask, limiter=self._looking))
        done, _ = await asyncio.wait({self._look}, timeout=LOOK_SECONDS)
        found = self._look.result() if done else None
        return await run_sync(self._metrics.text, list(_shown(found)), limiter=self._writing)

    def _ask(self) -> Figures | None:
        try:
            with self._database.reading() as session:
                return figures.read(session, datetime.now(UTC), share=self._share, floor=ALWAYS)
        except Unavailable:  # the figure says so, and whoever needs the database has it in the log
            return None
        finally:
            self._since = monotonic()


def _shown(found: Figures | None) -> Iterator[Metric]:
    yield gauge("database_up", "Whether the database answers; while it does not, what lives in it is not shown.", found is not None)
    for each in fields(found) if found else ():
        value = getattr(found, each.name)
        if value is not None:
            yield gauge(each.name, each.metadata["help"], value)
