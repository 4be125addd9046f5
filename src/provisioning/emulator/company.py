"""What there is: organizations, their directories, people and groups, and what was ever said about them.

Everything is changed inside `changing`, alone: kept first, then seen by readers, then announced, in the order in which it happened.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TypeVar

from provisioning.emulator.facts import Facts, Ticks
from provisioning.emulator.records import Directory, Event, Group, Organization, Record, User
from provisioning.emulator.store import Store
from provisioning.errors import Conflict, NotFound

R = TypeVar("R", bound=Record)

_silent = ContextVar("silent", default=False)


class Roster:
    """Whom Scalekit has of a directory's people, by age, and what is counted over all of them: once, as no change touches it."""

    def __init__(self, users: Iterable[User]) -> None:
        self.users = tuple(users)

    @cached_property
    def members(self) -> Counter[str]:
        """How many are in each group, by its id."""
        return Counter(group for user in self.users for group in user.groups)

    @cached_property
    def updated_at(self) -> int:
        """When one of them was changed last; 0 when there is nobody."""
        return max((user.updated_at for user in self.users), default=0)


class Change:
    """What one change puts, drops and says; nothing of it shows before it is over."""

    def __init__(self) -> None:
        self.puts: dict[str, Record] = {}
        self.drops: dict[str, Record] = {}
        self.events: list[Event] = []

    def put(self, record: R) -> R:
        """Return `record`, which is there from this change on, over its like."""
        self.puts[record.id] = record
        return record

    def drop(self, record: Record) -> None:
        """It is gone from this change on."""
        self.drops[record.id] = record

    def say(self, event: Event) -> None:
        """Scalekit sends this."""
        self.events.append(event)


class Company:
    """All that the directories hold. References are an id, or a person's address, or a name: what a human would type."""

    def __init__(self, store: Store) -> None:
        """Raises ConfigurationError when the store cannot be read."""
        self._store = store
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._organizations = {record.id: record for record in store.load(Organization)}
        self._directories = {record.id: record for record in store.load(Directory)}
        self._groups = {record.id: record for record in store.load(Group)}
        self._users = {record.id: record for record in store.load(User)}
        self._events = {record.id: record for record in store.load(Event)}
        self._rosters: dict[str, Roster] = {}  # those asked for since their directory's people changed
        self.ticks = Ticks(
            after=max((event.occurred_at for event in self._events.values()), default=0),
            above=max((_number(record_id) for table in self._tables() for record_id in table), default=0),
        )
        self.facts = Facts(self.ticks, self._groups.__getitem__, self.roles_of)
        self.version = 0

    def listen(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call `listener` with the events of every change, after it is kept."""
        self._listeners.append(listener)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For several changes with nobody's between them."""
        with self._lock:
            yield

    @contextmanager
    def silent(self) -> Iterator[None]:
        """For changes that no event tells of: what was there before anybody listened, or what nobody was told. On this thread alone."""
        before = _silent.set(True)
        try:
            yield
        finally:
            _silent.reset(before)

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """One change at a time; an exception inside undoes it."""
        with self._lock:
            change = Change()
            yield change
            events = [] if _silent.get() else change.events
            self._store.save([*change.puts.values(), *events], change.drops.values())
            for record in change.puts.values():
                self._of(type(record))[record.id] = record
            for record in change.drops.values():
                self._of(type(record)).pop(record.id, None)
            for record in (*change.puts.values(), *change.drops.values()):
                if isinstance(record, User):
                    self._rosters.pop(record.directory_id, None)
            self._events.update({event.id: event for event in events})
            self.version += 1
            for listener in self._listeners:
                listener(events)

    def organizations(self) -> list[Organization]:
        """By age."""
        with self._lock:
            return list(self._organizations.values())

    def organization(self, reference: str | None) -> Organization:
        """By id or name; the first one without a reference. Raises NotFound, Conflict (the name is that of several)."""
        with self._lock:
            found = [each for each in self._organizations.values() if reference in (None, each.id, each.name)]
        return _only(found[:1] if reference is None else found, "organization", reference)

    def directories(self, organization_id: str) -> list[Directory]:
        """Of an organization, by age."""
        with self._lock:
            return [each for each in self._directories.values() if each.organization_id == organization_id]

    def directory(self, reference: str | None) -> Directory:
        """By id; the first enabled one without a reference. Raises NotFound."""
        with self._lock:
            everything = list(self._directories.values())
        found = [each for each in everything if (each.enabled if reference is None else each.id == reference)]
        return _only(found[:1], "directory", reference)

    def open_directory(self, reference: str | None) -> Directory:
        """The same, if its changes reach Scalekit. Raises NotFound, Conflict."""
        found = self.directory(reference)
        if not found.enabled:
            raise Conflict(f"The directory {found.id} is disabled, so Scalekit hears nothing of it: enable it first.")
        return found

    def groups(self, directory_id: str) -> list[Group]:
        """Of a directory, by age."""
        with self._lock:
            return [each for each in self._groups.values() if each.directory_id == directory_id]

    def group(self, reference: str, directory_id: str | None = None) -> Group:
        """By id or name, of one directory when given. Raises NotFound, Conflict."""
        with self._lock:
            found = [each for each in self._groups.values() if reference in (each.id, each.name)]
        return _only([each for each in found if directory_id in (None, each.directory_id)], "group", reference)

    def users(self, directory_id: str) -> list[User]:
        """Of a directory, by age, those included that have gone."""
        with self._lock:
            return [each for each in self._users.values() if each.directory_id == directory_id]

    def roster(self, directory_id: str) -> Roster:
        """Of a directory, those whom Scalekit has. To ask again costs the same however many they are."""
        with self._lock:
            found = self._rosters.get(directory_id)
            if found is None:
                found = self._rosters[directory_id] = Roster(user for user in self.users(directory_id) if user.listed)
            return found

    def user(self, reference: str, directory_id: str | None = None) -> User:
        """By id or address. Raises NotFound, Conflict (one who has moved between directories is in both)."""
        with self._lock:
            if reference in self._users:
                return self._users[reference]
            named = [each for each in self._users.values() if reference.lower() in (each.email.lower(), each.address.lower())]
        found = [each for each in named if directory_id in (None, each.directory_id)]
        # An address is used again: those whom Scalekit has come before those it had.
        return _only([each for each in found if each.listed] or found, "user", reference)

    def organization_of(self, user_id: str) -> str | None:
        """Whose directory user this is, or was: the events remember."""
        with self._lock:
            if user_id in self._users:
                return self._users[user_id].organization_id
            return next((event.organization_id for event in reversed(self._events.values()) if event.subject_id == user_id), None)

    def members(self, group_id: str) -> list[User]:
        """Everybody in a group whom Scalekit has."""
        with self._lock:
            return [each for each in self._users.values() if group_id in each.groups and each.listed]

    def roles_of(self, user: User) -> list[str]:
        """What the person's groups are mapped to, sorted; the directory's default when that is nothing."""
        directory = self._directories[user.directory_id]
        return sorted({directory.roles[group] for group in user.groups if group in directory.roles}) or [directory.default_role]

    def events(self) -> list[Event]:
        """All of them, oldest first."""
        with self._lock:
            return list(self._events.values())

    def event(self, event_id: str) -> Event:
        """The event of this id. Raises NotFound."""
        with self._lock:
            found = self._events.get(event_id)
        return _only([found] if found else [], "event", event_id)

    def _tables(self) -> tuple[Mapping[str, Record], ...]:
        return self._organizations, self._directories, self._groups, self._users, self._events

    def _of(self, kind: type[Record]) -> dict[str, Record]:
        tables: dict[type[Record], object] = {
            Organization: self._organizations,
            Directory: self._directories,
            Group: self._groups,
            User: self._users,
        }
        return tables[kind]  # type: ignore[return-value]  # each table takes its own kind


def _number(record_id: str) -> int:
    digits = record_id.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0


def _only(found: list[R], kind: str, reference: str | None) -> R:
    if not found:
        hint = ": say an id, or the whole address" if kind == "user" else ""
        raise NotFound(f"There is no {kind} {reference}{hint}." if reference else f"There is no {kind} yet: add one.")
    if len(found) > 1:
        raise Conflict(f"{reference} is the name of several: say which by its id, {' or '.join(each.id for each in found)}.")
    return found[0]
