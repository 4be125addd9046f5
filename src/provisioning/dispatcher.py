"""From events to records: one routing table, and one way in which a batch is applied."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from sqlalchemy import RowMapping
from sqlalchemy.orm import Session

from provisioning import handlers
from provisioning.db import organizations, records
from provisioning.db.repository import Row
from provisioning.events import Event, EventType
from provisioning.merge import Key, Kind, Registers, Write, fold
from provisioning.people import Batch, Numbered
from provisioning.settings import LinkUsersByEmail

HANDLERS: Mapping[EventType, Callable[[Event], list[Write]]] = {
    EventType.DIRECTORY_ENABLED: handlers.directory_enabled,
    EventType.DIRECTORY_DISABLED: handlers.directory_disabled,
    EventType.USER_CREATED: handlers.user_created,
    EventType.USER_UPDATED: handlers.user_updated,
    EventType.USER_DELETED: handlers.user_deleted,
    EventType.GROUP_CREATED: handlers.group_created,
    EventType.GROUP_UPDATED: handlers.group_updated,
    EventType.GROUP_DELETED: handlers.group_deleted,
}

# They flip what counts for everybody in the organization, and are held against no mark: a listing says nothing of a directory's past.
_OF_DIRECTORIES = frozenset({EventType.DIRECTORY_ENABLED, EventType.DIRECTORY_DISABLED})

Writes: TypeAlias = dict[Key, list[Numbered]]
ToRow: TypeAlias = Callable[[Key, Registers, datetime], Row]


def apply(session: Session, events: Sequence[Event], link_users_by_email: LinkUsersByEmail, *, heed_mark: bool = True) -> list[bool]:
    """Apply `events` in the caller's transaction; returns for each whether it won anything (if not, it is stale).

    A reconcile, which makes the mark, does not heed it: what it lists is newer, whatever margins are set.
    Tables are worked through once for the whole batch, always in this order, each one's rows locked in the order of their keys.
    """
    now = datetime.now(UTC)
    alone: dict[str, bool] = {}
    for event in events:
        alone[event.organization_id] = alone.get(event.organization_id, False) or event.type in _OF_DIRECTORIES
    marks = organizations.enter(session, alone, now)
    writes: defaultdict[Kind, Writes] = defaultdict(dict)
    for number, event in enumerate(events):
        mark = marks[event.organization_id]
        if not heed_mark or event.type in _OF_DIRECTORIES or mark is None or event.version.occurred_at >= mark:
            for write in HANDLERS[event.type](event):
                writes[write.kind].setdefault(write.key, []).append((number, write))
    won: set[int] = set()
    flipped = _settle(session, Kind.DIRECTORY, writes[Kind.DIRECTORY], records.directory_row, won, now)
    _settle(session, Kind.GROUP, writes[Kind.GROUP], records.group_row, won, now)
    people = Batch(session, writes[Kind.DIRECTORY_USER], link_users_by_email, now)
    people.write(flipped)
    won |= people.won
    return [number in won for number in range(len(events))]


def _settle(session: Session, kind: Kind, writes: Writes, to_row: ToRow, won: set[int], now: datetime) -> set[Key]:
    """Merge `writes` into the records of one table, and add to `won` the numbers of those that won something.

    Returns the keys of the records that changed. What is new is put there before anything is locked: whoever waits for a row to be made
    holds no lock on one that its maker may want.
    """
    repository = records.REPOSITORIES[kind]
    known = repository.read(session, writes)
    made = {key: fold({}, numbered) for key, numbered in writes.items() if key not in known}
    inserted = repository.insert(session, [to_row(key, merged, now) for key, (merged, _) in made.items()])
    stored = repository.lock(session, writes.keys() - inserted)
    folded = {Key(*key): fold(records.registers(row), writes[Key(*key)]) for key, row in stored.items()}
    repository.save(session, [_aged(to_row(key, merged, now), stored[key]) for key, (merged, winners) in folded.items() if winners])
    winners = {key: numbers for key, (_, numbers) in {**made, **folded}.items() if numbers}
    won.update(number for numbers in winners.values() for number in numbers)
    return set(winners)


def _aged(row: Row, stored: RowMapping) -> Row:
    """`row`; when it shows nothing new (a hint said again), with the time at which it last did."""
    same = all(row[name] == stored[name] for name in row if name not in {"registers", "created_at", "updated_at"})
    return {**row, "updated_at": stored["updated_at"]} if same else row
