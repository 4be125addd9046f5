"""The change log, followed: every change once, in an order that never contradicts anybody's own history, however late one is committed.

Whoever waits costs next to nothing: while anybody does, one look a moment serves all of them, and wakes those for whom something came.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from sqlalchemy.orm import Session

from provisioning.db import changes as log
from provisioning.db.reading import changes as reading
from provisioning.db.reading.changes import Place, StoredChange
from provisioning.db.reading.users import Summary, summaries
from provisioning.db.session import Database
from provisioning.errors import Forgotten
from provisioning.merge import Key

PAUSE = 0.25  # seconds between two looks, while somebody waits
AT_ONCE = 20_000  # positions that are looked through for changes of some types
PATIENCE = 1.0  # seconds in which the next such look is begun
END = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes: of one organization, if given; of these types, or of every one when there are none."""

    organization_id: str | None = None
    types: Sequence[str] = ()

    def includes(self, organization_id: str, type_: str) -> bool:
        """Whether a change of this type, of this organization, is one."""
        return self.organization_id in {None, organization_id} and (not self.types or type_ in self.types)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the feed, the users whom it is about as they are now, and the place to go on from; `last`: it is all that there is."""

    changes: Sequence[StoredChange]
    users: Mapping[Key, Summary]
    place: Place
    last: bool = True


@dataclass(slots=True)
class _Waiter:
    wanted: Wanted
    place: Place  # up to there is nothing for it
    news: "asyncio.Future[None]"


class Feed:
    """Reads the change log."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: list[_Waiter] = []
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters)

    def latest(self) -> Place:
        """The place to go on from for whatever comes now. Raises Unavailable."""
        settled = self._settled()
        with self._database.reading() as session:
            place, forgotten = reading.last_place(session, settled), log.forgotten(session)
            return place if place.position > forgotten else Place(forgotten)

    def read(self, after: Place, wanted: Wanted, limit: int) -> Part:
        """Up to `limit` changes behind that place; none of them may mean that there are more behind the new one.

        Raises Forgotten where what follows is not kept any more, or where that is no place in this log; Unavailable.
        """
        give_up_at = monotonic() + PATIENCE
        settled = self._settled()
        with self._database.reading() as session:  # another one: its snapshot has to be the later
            _require_known(session, after)
            end = reading.last_place(session, settled)
            while True:
                to = reading.last_place(session, min(end.position, after.position + AT_ONCE)) if wanted.types else end
                if to.position <= after.position:
                    to = end
                found = reading.page_of_changes(
                    session,
                    after=after.position,
                    to=to.position,
                    limit=limit,
                    organization_id=wanted.organization_id,
                    types=wanted.types,
                )
                last = len(found) < limit and to.position >= end.position
                after = found[-1].place if len(found) == limit else max(after, to, key=lambda place: place.position)
                if found or last or monotonic() > give_up_at:
                    return Part(found, summaries(session, _users(found)), after, last)

    async def follow(self, after: Place, wanted: Wanted, limit: int, wait: float) -> Part:
        """The same; where there is nothing yet, what comes within `wait` seconds, soon after it does."""
        give_up_at = monotonic() + wait
        while True:
            part = await asyncio.to_thread(self.read, after, wanted, limit)
            left = give_up_at - monotonic()
            if part.changes or left <= 0 or self._stopping:
                return part
            after = part.place
            if part.last:
                waiter = await self._wait(after, wanted, left)
                if waiter.news.cancelled():
                    return Part((), {}, waiter.place)

    def stop(self) -> None:
        """Have everybody who waits answered at once. May be called from a signal's handler."""
        self._stopping = True

    async def close(self) -> None:
        """Have everybody answered, and look no more: once this returns, the database is not used any more."""
        self.stop()
        if self._watching is not None:
            await self._watching

    async def _wait(self, after: Place, wanted: Wanted, within: float) -> _Waiter:
        """Return when something that is wanted has settled behind that place, or, its news cancelled, when the time is over.

        Raises Unavailable.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(wanted, after, loop.create_future())
        self._waiters.append(waiter)
        if self._watching is None or self._watching.done():
            self._watching = loop.create_task(self._watch())
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(waiter.news, within)
        finally:
            self._waiters.remove(waiter)
        return waiter

    async def _watch(self) -> None:
        """Look, and wake those for whom something has come, as long as anybody waits."""
        while await self._is_waited_for():
            first = min(each.place.position for each in self._waiters)
            try:
                settled, came = await asyncio.to_thread(self._came, first)
            except Exception as error:  # whoever waits answers for it, each to its own caller
                self._wake(self._waiters, error)
            else:
                # Only those: a busy customer's changes wake nobody who follows another.
                for waiter in self._waiters:
                    if any(last > waiter.place.position and waiter.wanted.includes(*kind) for *kind, last in came):
                        self._wake([waiter])
                    elif first <= waiter.place.position < settled.position:  # who came meanwhile, from further behind, is for the next look
                        waiter.place = settled
        self._wake(self._waiters)

    async def _is_waited_for(self) -> bool:
        """Whether, after a pause, there is somebody to look for."""
        await asyncio.sleep(PAUSE)
        return bool(self._waiters) and not self._stopping

    def _came(self, after: int) -> tuple[Place, list[tuple[str, str, int]]]:
        """The place of the last change that has settled, and what came behind `after` up to there."""
        settled = self._settled()
        with self._database.reading() as session:
            to = reading.last_place(session, settled)
            return to, reading.kinds(session, after, to.position) if to.position > after else []

    def _settled(self) -> int:
        with self._database.reading() as session:
            return log.settled(session)

    @staticmethod
    def _wake(waiters: Iterable[_Waiter], error: Exception | None = None) -> None:
        for waiter in waiters:
            if not waiter.news.done():
                if error is None:
                    waiter.news.set_result(None)
                else:
                    waiter.news.set_exception(error)


def _require_known(session: Session, after: Place) -> None:
    begin_anew = "Begin with ?after=latest, read users and groups, and go on from there."
    forgotten = log.forgotten(session)
    if after.position < forgotten:
        raise Forgotten(f"Changes that follow are not kept any more. {begin_anew}")
    if after.position > forgotten and reading.last_place(session, after.position) != after:
        raise Forgotten(f"That is no place in this log: was the database restored from a backup? {begin_anew}")


def _users(found: Sequence[StoredChange]) -> set[Key]:
    return {Key(change.organization_id, change.user_id) for change in found if change.user_id is not None}
