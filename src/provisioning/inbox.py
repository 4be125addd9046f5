"""Every verified delivery passes here, once: its inbox row, the records and the users change in one transaction, or not at all.

A handler that fails unexpectedly costs nobody else anything: its delivery is kept as `failed`, with what a mender needs to know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from time import time

from sqlalchemy import RowMapping
from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.changes import Cause, CauseKind
from provisioning.db import inbox as rows
from provisioning.db import runs
from provisioning.db.repository import Row
from provisioning.db.session import Database
from provisioning.dispatcher import apply
from provisioning.errors import NotFound, NotReplayable, Unavailable
from provisioning.events import Delivery, Event, EventType, Parsed, parse
from provisioning.logs import describe
from provisioning.settings import LinkUsersByEmail

IMPORT_AFTER = timedelta(seconds=10)  # Scalekit has begun to tell of the directory's people then

log = get_logger(__name__)


class Outcome(StrEnum):
    """What became of a delivery."""

    PROCESSED = "processed"  # something in it was news
    DUPLICATE = "duplicate"  # this webhook id was done already; never stored
    STALE = "stale"  # everything in it was known, or has been overtaken
    IGNORED = "ignored"  # of a type that changes nothing here; only its envelope is kept
    DEAD_LETTERED = "dead_lettered"  # signed, but not an event we can read; kept for a mend
    FAILED = "failed"  # our handling failed; kept, and tried again when it is sent again or replayed


DONE = frozenset({Outcome.PROCESSED, Outcome.STALE, Outcome.IGNORED})


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one delivery, and what it was about. `error` says why it is dead_lettered or failed, without personal data."""

    webhook_id: str
    outcome: Outcome
    event_id: str | None = None
    type: str | None = None
    organization_id: str | None = None
    subject_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A delivery, opened."""

    delivery: Delivery
    parsed: Parsed

    @property
    def webhook_id(self) -> str:
        """The delivery's id, the same at every attempt to send it."""
        return self.delivery.webhook_id

    def receipt(self, outcome: Outcome, error: str | None = None) -> Receipt:
        """A receipt that says so."""
        told = self.parsed.envelope
        return Receipt(self.webhook_id, outcome, told.event_id, told.type, told.organization_id, told.subject_id, error)


class Inbox:
    """Receives deliveries into one database, from any number of threads and processes at once."""

    def __init__(
        self,
        database: Database,
        *,
        link_users_by_email: LinkUsersByEmail = "live",
        environment_id: str | None = None,
        import_directories: bool = False,
    ) -> None:
        """`environment_id`, when given, is the only environment whose events are applied; others are dead-lettered.

        `import_directories`: a directory that is enabled is read whole, soon.
        """
        self._database = database
        self._import = import_directories
        self._link = link_users_by_email
        self._environment_id = environment_id

    def receive(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """Handle verified deliveries in one transaction; returns their receipts, in order, after its commit.

        Raises Unavailable when the database cannot take them now. Nothing is stored then, and they have to be sent again.
        """
        return self._handle([Letter(each, parse(each, self._environment_id)) for each in deliveries], again=False)

    def replay(self, webhook_ids: Sequence[str]) -> list[Receipt]:
        """Handle stored deliveries once more, whatever became of them: what was applied before is found stale, and stays as it was.

        Raises NotFound for an unknown id, NotReplayable for one whose payload was not kept, Unavailable.
        """
        with self._database.reading() as session:
            stored = rows.read(session, webhook_ids)
        for webhook_id in webhook_ids:
            if webhook_id not in stored:
                raise NotFound(f"There is no delivery {webhook_id}; nothing was replayed.")
            if stored[webhook_id]["payload"] is None:
                raise NotReplayable("The payload of this delivery was not kept, so that it cannot be replayed.")
        again = [Delivery(each, int(time()), stored[each]["received_at"], stored[each]["payload"]) for each in webhook_ids]
        return self._handle([Letter(each, parse(each, self._environment_id)) for each in again], again=True)

    def _handle(self, letters: Sequence[Letter], *, again: bool) -> list[Receipt]:
        try:
            return self._commit(letters, again=again)
        except Unavailable:
            raise
        except Exception as error:  # whatever it is, only the event that causes it may suffer
            failure = describe(error)
        if len(letters) == 1:
            return self._commit(letters, again=again, failure=failure)
        # By halves, each in a transaction of its own: one bad event among 256 costs some 16 of them, and none waits with another's locks.
        log.warning("batch_taken_apart", error=failure, size=len(letters))
        half = len(letters) // 2
        return self._handle(letters[:half], again=again) + self._handle(letters[half:], again=again)

    def _commit(self, letters: Sequence[Letter], *, again: bool, failure: str | None = None) -> list[Receipt]:
        """Handle `letters` in one transaction; given a `failure`, only record it."""

        def take(session: Session) -> list[Receipt]:
            receipts: dict[int, Receipt] = {}
            for turn in _turns(letters):
                taken = self._take([letters[number] for number in turn], session, again=again, failure=failure)
                receipts |= zip(turn, taken, strict=True)
            return [receipts[number] for number in range(len(letters))]

        return self._database.write(take)

    def _take(self, letters: Sequence[Letter], session: Session, *, again: bool, failure: str | None) -> list[Receipt]:
        """Handle letters of different webhook ids in this transaction."""
        now = datetime.now(UTC)
        hoped = {letter.webhook_id: _row(letter, now) for letter in letters}
        new = rows.claim(session, list(hoped.values()))
        stored = _to_try_again(session, hoped.keys() - new, again=again)
        mine = [letter for letter in letters if letter.webhook_id in new or letter.webhook_id in stored]
        outcomes = self._apply(mine, session, failure)
        changed: list[Row] = []
        receipts = {letter.webhook_id: letter.receipt(Outcome.DUPLICATE) for letter in letters}
        for letter, (outcome, error) in zip(mine, outcomes, strict=True):
            row = _told(hoped[letter.webhook_id], stored.get(letter.webhook_id), outcome, error)
            receipts[letter.webhook_id] = letter.receipt(Outcome(str(row["outcome"])), error)
            if row != hoped[letter.webhook_id]:
                changed.append(row)
        rows.save(session, changed)
        return [receipts[letter.webhook_id] for letter in letters]

    def _apply(self, letters: Sequence[Letter], session: Session, failure: str | None) -> list[tuple[Outcome, str | None]]:
        read = [(letter.webhook_id, letter.parsed.event) for letter in letters if letter.parsed.event]
        events = [event for _, event in read]
        if failure is None:
            causes = [Cause(CauseKind.DELIVERY, webhook_id, event.version.occurred_at) for webhook_id, event in read]
            won = apply(session, events, causes, self._link) if events else []
            if self._import:
                self._ask_for_imports(session, [event for event, each in zip(events, won, strict=True) if each])
            outcomes = iter([Outcome.PROCESSED if each else Outcome.STALE for each in won])
        else:
            outcomes = iter([Outcome.FAILED] * len(events))
        return [(next(outcomes), failure) if letter.parsed.event else _unapplied(letter.parsed) for letter in letters]

    @staticmethod
    def _ask_for_imports(session: Session, news: Sequence[Event]) -> None:
        """In the same transaction, so that no import is lost; a little later, so that one is enough for what comes at once."""
        enabled = [event.organization_id for event in news if event.type is EventType.DIRECTORY_ENABLED]
        if enabled:
            now = datetime.now(UTC)
            runs.announce(session, enabled, requested_by=EventType.DIRECTORY_ENABLED.value, now=now, due_at=now + IMPORT_AFTER)


def _turns(letters: Sequence[Letter]) -> list[list[int]]:
    """The numbers of the letters, so that no turn has a webhook id twice: the first of each, then the second, …"""
    turns: list[list[int]] = []
    seen: dict[str, int] = {}
    for number, letter in enumerate(letters):
        turn = seen[letter.webhook_id] = seen.get(letter.webhook_id, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(number)
    return turns


def _unapplied(parsed: Parsed) -> tuple[Outcome, str | None]:
    return (Outcome.DEAD_LETTERED, parsed.error) if parsed.error else (Outcome.IGNORED, None)


def _row(letter: Letter, now: datetime) -> dict[str, object]:
    """The delivery's row as it will stand when all goes well, so that the usual one is written once."""
    told = letter.parsed.envelope
    outcome, error = (Outcome.PROCESSED, None) if letter.parsed.event else _unapplied(letter.parsed)
    return {
        "webhook_id": letter.webhook_id,
        "event_id": told.event_id,
        "type": told.type,
        "organization_id": told.organization_id,
        "subject_id": told.subject_id,
        "occurred_at": told.occurred_at,
        "received_at": letter.delivery.received_at,
        "processed_at": now if outcome in DONE else None,
        "outcome": outcome.value,
        "attempts": 1,
        "error": error,
        "payload": None if outcome is Outcome.IGNORED else letter.parsed.payload,
    }


def _to_try_again(session: Session, webhook_ids: set[str], *, again: bool) -> Mapping[str, RowMapping]:
    """Of the deliveries known already, those that are to be handled now: the unfinished ones, or all when asked to do it `again`."""
    known = rows.read(session, webhook_ids)
    wanted = [webhook_id for webhook_id, row in known.items() if again or row["outcome"] not in DONE]
    return {webhook_id: row for webhook_id, row in rows.lock(session, wanted).items() if again or row["outcome"] not in DONE}


def _told(hoped: dict[str, object], stored: RowMapping | None, outcome: Outcome, error: str | None) -> dict[str, object]:
    """The row with what became of it; what had been done before and is stale now stays done as it was."""
    row = {**hoped, "outcome": outcome.value, "error": error, "processed_at": hoped["processed_at"] if outcome in DONE else None}
    if stored is not None:
        row |= {"attempts": stored["attempts"] + 1, "received_at": stored["received_at"]}
        if outcome is Outcome.STALE and stored["outcome"] in DONE:
            row |= {"outcome": stored["outcome"], "processed_at": stored["processed_at"]}
    return row
