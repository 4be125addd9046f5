"""From events to records: one routing table, and one way in which a batch is applied."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from itertools import chain
from typing import TypeAlias

from sqlalchemy.orm import Session

from provisioning import handlers
from provisioning.changes import Cause, Change, ChangeType, newest_of, of_directory, of_group
from provisioning.db import changes as log
from provisioning.db import erased, organizations, records, users
from provisioning.db.organizations import Entered
from provisioning.db.prepared import Row, Stored
from provisioning.db.repository import Writes
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

_OF_USERS = frozenset({EventType.USER_CREATED, EventType.USER_UPDATED, EventType.USER_DELETED})


class Effect(Enum):
    """What an event came to."""

    NEWS = auto()  # it won something
    NOTHING = auto()  # stale: everything in it was known, or has been overtaken
    ERASED = auto()  # it is about somebody who was erased here: nothing of it was taken in


Told: TypeAlias = dict[Key, list[Numbered]]
ToRow: TypeAlias = Callable[[Key, Registers, datetime], Row]


def apply(
    session: Session,
    events: Sequence[Event],
    causes: Sequence[Cause],
    link_users_by_email: LinkUsersByEmail,
    *,
    heed_mark: bool = True,
) -> list[Effect]:
    """Apply `events` in the caller's transaction; returns what each came to.

    What changes goes into the change log, put down to the event's own of the `causes`. A reconcile, which makes the mark, does not heed
    it: what it lists is newer, whatever margins are set. Tables are worked through once for the whole batch, always in this order, each
    one's rows locked in the order of their keys.
    """
    now = datetime.now(UTC)
    entered = organizations.enter(session, held_by(events), now)
    gone = _erased(session, events, entered)
    writes: defaultdict[Kind, Told] = defaultdict(dict)
    for number, event in enumerate(events):
        if gone and _subject(event) in gone:
            continue
        mark = entered[event.organization_id].complete_as_of
        if not heed_mark or event.type in _OF_DIRECTORIES or mark is None or event.version.occurred_at >= mark:
            for write in HANDLERS[event.type](event):
                writes[write.kind].setdefault(write.key, []).append((number, write))
    directories = _settle(session, Kind.DIRECTORY, writes[Kind.DIRECTORY], records.directory_row, now)
    groups = _settle(session, Kind.GROUP, writes[Kind.GROUP], records.group_row, now)
    people = Batch(session, writes[Kind.DIRECTORY_USER], _disabled(entered, directories), link_users_by_email, now)
    happened = [change for each in directories for change in _of_directory(each, causes)]
    happened += [change for each in groups for change in _of_group(each, causes)]
    written = Writes()
    happened += people.write(_flipped(session, happened), causes, written)
    log.record(session, happened, now, written)
    won = people.won.union(*(each.won for each in chain(directories, groups)))
    effects = (Effect.NEWS if number in won else Effect.NOTHING for number in range(len(events)))
    return [Effect.ERASED if gone and _subject(event) in gone else effect for event, effect in zip(events, effects, strict=True)]


def _erased(session: Session, events: Iterable[Event], entered: Mapping[str, Entered]) -> set[Key]:
    """Whom the events are about that were erased. Who is being erased holds the organization alone, so this stays true."""
    about = {key for event in events if entered[event.organization_id].has_erased and (key := _subject(event))}
    return erased.among(session, about) if about else set()


def _disabled(entered: Mapping[str, Entered], settled: Iterable["_Settled"]) -> set[Key]:
    """The disabled directories, now that these have been settled. Who switches one holds its organization alone, so this stays true."""
    disabled = set[Key]().union(*(each.disabled for each in entered.values()))
    now = {each.key: each.after["enabled"] for each in settled}
    return (disabled - now.keys()) | {key for key, enabled in now.items() if not enabled}


def _subject(event: Event) -> Key | None:
    """The directory user whom it is about."""
    return Key(event.organization_id, event.subject_id) if event.type in _OF_USERS else None


def held_by(events: Iterable[Event]) -> dict[str, bool]:
    """The organizations that applying these events holds, and whether alone: a directory's event flips what counts for everybody."""
    alone: dict[str, bool] = {}
    for event in events:
        alone[event.organization_id] = alone.get(event.organization_id, False) or event.type in _OF_DIRECTORIES
    return alone


@dataclass(frozen=True, slots=True)
class _Settled:
    """A record that is new (`before` is None), or that the events with the numbers `won` changed. One may only have been named."""

    key: Key
    before: Stored | None
    after: Row
    won: set[int]
    told: Sequence[Numbered]

    def cause(self, causes: Sequence[Cause]) -> Cause:
        """The newest of what brought it there."""
        return newest_of(causes[number] for number in self.won or {number for number, _ in self.told})


def _settle(session: Session, kind: Kind, writes: Told, to_row: ToRow, now: datetime) -> list[_Settled]:
    """Merge `writes` into the records of one table; returns those that are new or won something.

    All of it is locked, also what only loses: whoever puts somebody into a group, which is to name it, sees what becomes of the group
    meanwhile, or is seen by who deletes it or maps it to roles. What is missing is made before anything is locked: who waits for another
    batch to make it has nothing that such a batch could wait for.
    """
    repository = records.REPOSITORIES[kind]
    known = repository.known(session, writes)
    made = {key: fold({}, numbered) for key, numbered in writes.items() if key not in known}
    rows = {key: to_row(key, merged, now) for key, (merged, _) in made.items()}
    inserted = repository.insert(session, rows.values())
    stored = repository.lock(session, writes.keys() - inserted)
    folded = {Key(*key): fold(records.registers(row), writes[Key(*key)]) for key, row in stored.items()}
    changed = [
        _Settled(key, stored[key], _aged(to_row(key, merged, now), stored[key]), won, writes[key])
        for key, (merged, won) in folded.items()
        if won
    ]
    repository.save(session, [each.after for each in changed])
    return [_Settled(key, None, row, made[key][1], writes[key]) for key, row in rows.items() if key in inserted] + changed


def _aged(row: Row, stored: Stored) -> Row:
    """`row`; when it shows nothing new (a hint said again), with the time at which it last did."""
    same = all(row[name] == stored[name] for name in row if name not in {"registers", "created_at", "updated_at"})
    return {**row, "updated_at": stored["updated_at"]} if same else row


def _of_directory(each: _Settled, causes: Sequence[Cause]) -> Iterator[Change]:
    before = each.before["enabled"] if each.before else None
    return of_directory(each.key, before, each.after["enabled"] is True, each.cause(causes))


def _of_group(each: _Settled, causes: Sequence[Cause]) -> Iterator[Change]:
    before = records.shown_group(each.before) if each.before else None
    return of_group(each.key, before, records.shown_group(each.after), each.cause(causes))


def _flipped(session: Session, happened: Iterable[Change]) -> dict[Key, Cause]:
    """The users whom directories and groups concern that came, went or were switched, with what did it."""
    directories: dict[Key, Cause] = {}
    groups: dict[Key, Cause] = {}
    for change in happened:
        if change.directory_id is not None:
            directories[Key(change.organization_id, change.directory_id)] = change.cause
        elif change.group_id is not None and change.type in _FLIPPING:
            groups[Key(change.organization_id, change.group_id)] = change.cause
    flipped = {user: directories[key] for user, key in users.of_directories(session, directories).items()}
    for user, key in users.of_groups(session, groups).items():
        flipped[user] = newest_of([groups[key], flipped.get(user, groups[key])])
    return flipped


_FLIPPING = frozenset({ChangeType.GROUP_CREATED, ChangeType.GROUP_DELETED})
