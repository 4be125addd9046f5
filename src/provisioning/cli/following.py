"""The runs of one command: asked for a few at a time, worked on in this process, and followed to their end whoever works on them."""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import TypeAlias

from provisioning.db import runs
from provisioning.db.runs import Run
from provisioning.db.session import Database
from provisioning.errors import Conflict, Unavailable
from provisioning.reconcile import Reconciler
from provisioning.worker import AT_ONCE, Worker

Ask: TypeAlias = Callable[[], tuple[Run, bool]]
"""Gives a run, and whether it is a new one."""

AHEAD = 2 * AT_ONCE  # asked for, and not ended: so nobody else finds a long queue, or a hundred dry runs in the way
PATIENCE = 30.0  # seconds for which the database may be away
STOP_WITHIN = 3.0  # seconds in which the runs under way are let go of


class Following:
    """`under_way`, by id; `ended`, in the order of their ends; `left`: what others go on with; `refused`: what could not be asked, why."""

    def __init__(self, database: Database, reconciler: Reconciler, asks: Mapping[str, Ask]) -> None:
        """`asks`: by whom or what each is about."""
        self.under_way: dict[str, Run] = {}
        self.ended: list[Run] = []
        self.left: list[Run] = []
        self.refused: list[str] = []
        self._database = database
        self._reconciler = reconciler
        self._asks = deque(asks.items())
        self._ours: set[str] = set()
        self._only: tuple[str, ...] = ()
        self._heard = monotonic()
        self._worker = Worker([lambda: reconciler.claim(only=self._only)], [reconciler.stop])

    def start(self) -> None:
        """Ask for the first ones, and begin to work on them. Raises Unavailable."""
        self.look()
        self._worker.start()

    @property
    def to_come(self) -> int:
        """How many have not been asked for yet."""
        return len(self._asks)

    def look(self) -> bool:
        """Ask for what can be asked for, read how far the others are; whether there is anything to wait for.

        Raises Unavailable once the database has been away for long.
        """
        try:
            self._ask()
            self._read()
        except Unavailable:
            if monotonic() - self._heard > PATIENCE:
                raise
            return True
        self._only = tuple(self.under_way)
        self._heard = monotonic()
        return bool(self.under_way or self._asks)

    def cancel(self, by: str) -> None:
        """Ask for nothing more, and cancel what was asked for here, in the name of `by`. Raises Unavailable."""
        self._asks.clear()
        self.left += self._those(ours=False)
        self.under_way = {run.id: run for run in self._those(ours=True)}
        for run in self.under_way.values():
            with suppress(Conflict):  # it has ended meanwhile
                self._reconciler.cancel(run, by)

    def stop(self) -> None:
        """Let go of what is under way: it is left to others."""
        self.left += self.under_way.values()
        self._worker.stop(STOP_WITHIN)

    def _ask(self) -> None:
        while self._asks and len(self.under_way) < AHEAD:
            name, ask = self._asks[0]
            try:
                run, new = ask()
            except Conflict as error:
                self.refused.append(f"{name}: {error}")
            else:
                self.under_way[run.id] = run
                self._ours |= {run.id} if new else set()
            self._asks.popleft()

    def _read(self) -> None:
        with self._database.reading() as session:
            read = [runs.one(session, run.organization_id, run.id, datetime.now(UTC)) for run in self.under_way.values()]
        self.ended += (run for run in read if run.state.ended)
        self.under_way = {run.id: run for run in read if not run.state.ended}

    def _those(self, *, ours: bool) -> list[Run]:
        return [run for run in self.under_way.values() if (run.id in self._ours) is ours]
