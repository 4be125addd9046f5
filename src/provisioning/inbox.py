"""Every verified delivery passes here, once: its inbox row, the records and the users change in one transaction, or not at all.

A handler that fails unexpectedly costs nobody else anything: its delivery is kept as `failed`, with what a mender needs to know.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from time import time
from typing import Self, cast

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.changes import Cause, CauseKind
from provisioning.db import erased, organizations, runs
from provisioning.db import inbox as rows
from provisioning.db.prepared import Row, Stored
from provisioning.db.session import Database
from provisioning.dispatcher import Effect, apply, held_by
from provisioning.errors import Conflict, NotFound, NotReplayable, Unavailable
from provisioning.events import Delivery, Event, EventType, Parsed, parse
from provisioning.logs import describe
from provisioning.merge import Key
from provisioning.settings import LinkUsersByEmail, Settings

IMPORT_AFTER = timedelta(seconds=10)  # Scalekit has begun to tell of the directory's people then
MAX_BATCH_BYTES = 8 * 2**20  # of bodies, in one transaction: it has to be committed while senders wait
FIRST_RETRY, LAST_RETRY = timedelta(seconds=30), timedelta(hours=6)  # between tries of our own: each time it is twice as old

log = get_logger(__name__)


class Outcome(StrEnum):
    """What became of a delivery."""

    PROCESSED = "processed"  # something in it was news
    DUPLICATE = "duplicate"  # this webhook id was done already; never stored
    STALE = "stale"  # everything in it was known, or has been overtaken
    IGNORED = "ignored"  # of a type that changes nothing here, or about somebody who was erased; only its envelope is kept
    DEAD_LETTERED = "dead_lettered"  # signed, but not an event we can read; kept for a mend
    FAILED = "failed"  # our handling failed; kept, and tried again when it is sent again or replayed


_OUTCOMES: Mapping[Effect, tuple[Outcome, str | None]] = {
    Effect.NEWS: (Outcome.PROCESSED, None),
    Effect.NOTHING: (Outcome.STALE, None),
    Effect.ERASED: (Outcome.IGNORED, "It is about somebody who was erased here."),
}
DONE = frozenset({Outcome.PROCESSED, Outcome.STALE, Outcome.IGNORED})
DISMISSED = ("dismissed_at", "dismissed_by", "dismissed_reason")
MENDABLE = frozenset({Outcome.FAILED, Outcome.DEAD_LETTERED})


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one delivery, and what it was about. `error` says why it is dead_lettered or failed, without personal data;
    `occurred_at` is in nanoseconds since 1970.
    """

    webhook_id: str
    outcome: Outcome
    event_id: str | None = None
    type: str | None = None
    organization_id: str | None = None
    subject_id: str | None = None
    error: str | None = None
    occurred_at: int | None = None


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
        return Receipt(self.webhook_id, outcome, told.event_id, told.type, told.organization_id, told.subject_id, error, told.occurred_at)


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

    @classmethod
    def of(cls, settings: Settings, database: Database) -> Self:
        """As the settings say; with API credentials a directory that is enabled is read whole."""
        return cls(
            database,
            link_users_by_email=settings.link_users_by_email,
            environment_id=settings.environment_id,
            import_directories=settings.has_credentials,
        )

    def receive(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """Handle verified deliveries in one transaction; returns their receipts, in order, after its commit.

        Raises Unavailable when the database cannot take them now: they have to be sent again, and what is stored by then is a duplicate.
        """
        return self._handle([Letter(each, parse(each, self._environment_id)) for each in deliveries], _RECEIVED)

    def replay(self, webhook_ids: Sequence[str]) -> list[Receipt]:
        """Handle stored deliveries once more, whatever became of them: what was applied before is found stale, and stays as it was.

        One that was dismissed is not any more. Raises NotFound for an unknown id, NotReplayable where a payload was not kept, Unavailable.
        """
        stored = self._stored(webhook_ids)
        for webhook_id in webhook_ids:
            if webhook_id not in stored:
                raise NotFound(f"There is no delivery {webhook_id}; nothing was replayed.")
            if stored[webhook_id]["payload"] is None:
                raise NotReplayable("The payload of this delivery was not kept, so that it cannot be replayed.")
        return self._reopen([stored[each] for each in webhook_ids], _REPLAYED)

    def replay_kept(self, webhook_ids: Sequence[str]) -> list[Receipt]:
        """The same of those whose payloads are kept; what was dismissed stays so. Raises Unavailable."""
        stored = self._stored(webhook_ids)
        return self._reopen([stored[each] for each in webhook_ids if each in stored], _SWEPT)

    def retry(self, webhook_ids: Sequence[str]) -> list[Receipt]:
        """Handle those of the stored deliveries that are not done; one that cannot be any more is passed over. Raises Unavailable."""
        return self._reopen([*self._stored(webhook_ids).values()], _RETRIED)

    def dismiss(self, webhook_id: str, *, by: str, reason: str) -> bool:
        """Have a delivery that failed or is dead-lettered concern nobody any more; False: it was dismissed before, and stays as it was.

        It is kept, and applied all the same if Scalekit sends it again; a replay takes the dismissal back. Raises NotFound, Conflict for
        one that was neither, Unavailable.
        """
        dismissed = self._database.write(partial(rows.dismiss, webhook_id=webhook_id, by=by, reason=reason, now=datetime.now(UTC)))
        if dismissed:
            log.info("delivery_dismissed", webhook_id=webhook_id, by=by)
            return True
        stored = self._stored([webhook_id])
        if webhook_id not in stored:
            raise NotFound(f"There is no delivery {webhook_id}.")
        if stored[webhook_id]["outcome"] not in MENDABLE:
            raise Conflict(f"This delivery is {stored[webhook_id]['outcome']}: only what failed or is dead-lettered can be dismissed.")
        return False

    def _stored(self, webhook_ids: Sequence[str]) -> dict[str, Stored]:
        with self._database.reading() as session:
            return rows.read(session, webhook_ids)

    def _reopen(self, stored: Sequence[Stored], manner: "_Manner") -> list[Receipt]:
        """Handle stored deliveries, as far as their payloads are kept, as if they had just arrived: as many at once as a batch may hold."""
        receipts: list[Receipt] = []
        batch: list[Letter] = []
        size = 0
        for row in stored:
            if (payload := row["payload"]) is not None:
                if size + len(payload) > MAX_BATCH_BYTES:
                    receipts += self._handle(batch, manner)
                    batch, size = [], 0
                delivery = Delivery(row["webhook_id"], _sent_at(row), row["received_at"], payload)
                batch.append(Letter(delivery, parse(delivery, self._environment_id)))
                size += len(payload)
        return receipts + self._handle(batch, manner)

    def _handle(self, letters: Sequence[Letter], manner: "_Manner") -> list[Receipt]:
        try:
            return self._commit(letters, manner)
        except Unavailable:
            raise
        except Exception as error:  # whatever it is, only the event that causes it may suffer
            failure = describe(error)
        if len(letters) == 1:
            return self._commit(letters, manner, failure=failure)
        # Each once more in a transaction of its own: none waits with another's locks, and what fails only at its commit fails alone, too.
        log.warning("batch_taken_apart", error=failure, size=len(letters))
        return [receipt for letter in letters for receipt in self._handle([letter], manner)]

    def _commit(self, letters: Sequence[Letter], manner: "_Manner", *, failure: str | None = None) -> list[Receipt]:
        """Handle `letters` in one transaction; given a `failure`, only record it."""

        def take(session: Session) -> list[Receipt]:
            receipts: dict[int, Receipt] = {}
            for turn in _turns(letters):
                taken = self._take([letters[number] for number in turn], session, manner, failure=failure)
                receipts |= zip(turn, taken, strict=True)
            return [receipts[number] for number in range(len(letters))]

        return self._database.write(take)

    def _take(self, letters: Sequence[Letter], session: Session, manner: "_Manner", *, failure: str | None) -> list[Receipt]:
        """Handle letters of different webhook ids in this transaction."""
        now = datetime.now(UTC)
        hoped = {letter.webhook_id: _row(letter, now) for letter in letters}
        new = set() if manner.reopened else rows.claim(session, list(hoped.values()))
        if failure or len(new) < len(letters) or any(letter.parsed.error for letter in letters):
            # Before stored deliveries are locked, as whoever erases somebody does it; and before it is asked who was erased.
            organizations.hold(session, _entered(letters))
        stored = _to_try_again(session, hoped.keys() - new, manner)
        mine = [letter for letter in letters if letter.webhook_id in new or letter.webhook_id in stored]
        outcomes = self._apply(mine, session, failure)
        gone = _erased(session, [letter for letter, (outcome, _) in zip(mine, outcomes, strict=True) if outcome in MENDABLE])
        changed: list[Row] = []
        receipts = {letter.webhook_id: letter.receipt(Outcome.DUPLICATE) for letter in letters}
        for letter, (outcome, error) in zip(mine, outcomes, strict=True):
            before = stored.get(letter.webhook_id)
            row = _told(hoped[letter.webhook_id], before, outcome, error)
            if outcome is Outcome.IGNORED or _subject(letter) in gone:
                row["payload"] = None
            receipts[letter.webhook_id] = letter.receipt(Outcome(str(row["outcome"])), error)
            if row != hoped[letter.webhook_id]:
                changed.append({**row, **_mending(row, None if manner.takes_back else before, now)})
        rows.save(session, changed)
        return [receipts[letter.webhook_id] for letter in letters]

    def _apply(self, letters: Sequence[Letter], session: Session, failure: str | None) -> list[tuple[Outcome, str | None]]:
        read = [(letter.webhook_id, letter.parsed.event) for letter in letters if letter.parsed.event]
        events = [event for _, event in read]
        if failure is None:
            causes = [Cause(CauseKind.DELIVERY, webhook_id, event.version.occurred_at) for webhook_id, event in read]
            effects = apply(session, events, causes, self._link) if events else []
            if self._import:
                self._ask_for_imports(session, [event for event, each in zip(events, effects, strict=True) if each is Effect.NEWS])
            outcomes = iter([_OUTCOMES[each] for each in effects])
        else:
            outcomes = iter([(Outcome.FAILED, failure)] * len(events))
        return [next(outcomes) if letter.parsed.event else _unapplied(letter.parsed) for letter in letters]

    @staticmethod
    def _ask_for_imports(session: Session, news: Sequence[Event]) -> None:
        """In the same transaction, so that no import is lost; a little later, so that one is enough for what comes at once."""
        enabled = [event.organization_id for event in news if event.type is EventType.DIRECTORY_ENABLED]
        now = datetime.now(UTC)
        runs.announce(session, enabled, requested_by=EventType.DIRECTORY_ENABLED.value, now=now, due_at=now + IMPORT_AFTER)


@dataclass(frozen=True, slots=True)
class _Manner:
    """How deliveries are handled. `reopened`: they lie in the inbox; `again`: also those that are done; `takes_back`: dismissals, too."""

    reopened: bool = False
    again: bool = False
    takes_back: bool = False


_RECEIVED, _RETRIED = _Manner(), _Manner(reopened=True)
_SWEPT, _REPLAYED = _Manner(reopened=True, again=True), _Manner(reopened=True, again=True, takes_back=True)


def _sent_at(row: Stored) -> int:
    """The time (unix seconds) of which an event that is handled again must not be the future: now, but what was an event when it came
    stays one, though this machine's clock be behind.
    """
    now = int(time())
    return now if row["outcome"] == Outcome.DEAD_LETTERED else max(now, (row["occurred_at"] or 0) // 10**9)


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


def _erased(session: Session, letters: Iterable[Letter]) -> set[Key]:
    """Whom these are about that were erased: of them not even what could not be read is kept."""
    return erased.among(session, {key for letter in letters if (key := _subject(letter))})


def _subject(letter: Letter) -> Key | None:
    told = letter.parsed.envelope
    return Key(told.organization_id, told.subject_id) if told.organization_id and told.subject_id else None


def _entered(letters: Iterable[Letter]) -> dict[str, bool]:
    """The organizations that they are about, and whether each is to be held alone."""
    told = {id_: False for each in letters if (id_ := each.parsed.envelope.organization_id)}
    return told | held_by(each.parsed.event for each in letters if each.parsed.event)


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


def _to_try_again(session: Session, webhook_ids: set[str], manner: _Manner) -> Mapping[str, Stored]:
    """Of the deliveries known already, those that are to be handled now: the unfinished ones, or all; locked.

    Of those that were `reopened`, whose payloads are kept still: what was forgotten since does not come back.
    """

    def is_wanted(row: Stored) -> bool:
        return (manner.again or row["outcome"] not in DONE) and (not manner.reopened or row["payload"] is not None)

    wanted = [webhook_id for webhook_id, row in rows.read(session, webhook_ids).items() if is_wanted(row)]
    return {webhook_id: row for webhook_id, row in rows.lock(session, wanted).items() if is_wanted(row)}


def _told(hoped: dict[str, object], stored: Stored | None, outcome: Outcome, error: str | None) -> dict[str, object]:
    """The row with what became of it; what had been done before and is stale now stays done as it was."""
    row = {**hoped, "outcome": outcome.value, "error": error, "processed_at": hoped["processed_at"] if outcome in DONE else None}
    if stored is not None:
        row |= {"attempts": stored["attempts"] + 1, "received_at": stored["received_at"]}
        if outcome is Outcome.STALE and stored["outcome"] in DONE:
            row |= {"outcome": stored["outcome"], "processed_at": stored["processed_at"]}
    return row


def _mending(row: Mapping[str, object], stored: Stored | None, now: datetime) -> dict[str, object]:
    """What is being done about a delivery that failed, or did: it stays dismissed if it was `stored` so, or else is tried again."""
    mending: dict[str, object] = {name: stored[name] if stored else None for name in DISMISSED}
    tried_again = row["outcome"] == Outcome.FAILED and row["payload"] is not None and not mending["dismissed_at"]
    pause = min(max(now - cast(datetime, row["received_at"]), FIRST_RETRY), LAST_RETRY)  # whoever else tried it meanwhile
    return {**mending, "retry_at": now + pause if tried_again else None}
