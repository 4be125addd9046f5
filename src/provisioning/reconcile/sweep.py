"""One full listing of an organization's enabled directories: held against the records here as it comes, and what it states brought here.

In memory are a few pages, and the ids that were seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from sqlalchemy.orm import Session

from provisioning.db import erased, known, organizations
from provisioning.directory import Directory, ListedGroup, ListedUser
from provisioning.drift import (
    UNREADABLE,
    UNSAID,
    Drift,
    Fewer,
    Finding,
    Place,
    Report,
    compare_directory,
    compare_group,
    compare_user,
    erased_user,
    unsettled,
)
from provisioning.errors import ClockOff, UnknownOrganization
from provisioning.events import is_id
from provisioning.merge import Key
from provisioning.reconcile.ahead import ahead
from provisioning.reconcile.applying import Applying
from provisioning.reconcile.lease import Lease
from provisioning.scalekit.directories import DirectoryReader

Listed = TypeVar("Listed", ListedUser, ListedGroup)

AT_ONCE = 300  # records compared, and at most written, in one transaction
PAGES_AHEAD = 20
CLOCK_TOLERANCE = 300  # seconds


@dataclass
class Seen:
    """What a listing showed. `as_of`: Scalekit's time before its first page; `occurred_at`: the version of what it states (nanoseconds)."""

    as_of: int
    occurred_at: int
    directories: dict[str, Directory] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    fewer: dict[str, Fewer] = field(default_factory=dict)  # by person
    standing: Report = field(default_factory=Report)  # what stays as it is, and why
    incomplete: bool = False  # of somebody the listing does not say enough
    short: list[str] = field(default_factory=list)  # why it cannot be the whole
    unknown: bool = False  # Scalekit does not know the organization

    @property
    def enabled(self) -> list[Directory]:
        """The directories that were listed."""
        return [directory for directory in self.directories.values() if directory.enabled]

    def would_show(self, directory_id: str | None) -> bool:
        """Whether who is of this directory would have been listed: of a disabled one nobody, and of none known only if none is disabled."""
        if directory_id is None:
            return all(directory.enabled for directory in self.directories.values())
        directory = self.directories.get(directory_id)
        return directory is None or directory.enabled


class Sweep:
    """Makes listings for one run; each begins later than the one before, also by the clock that counts."""

    def __init__(self, reader: DirectoryReader, applying: Applying, lease: Lease, clock_margin: int) -> None:
        """`clock_margin`, in nanoseconds: by how much a webhook's time may be wrong, and still win over a listing."""
        self._reader = reader
        self._applying = applying
        self._lease = lease
        self._margin = clock_margin
        self._organization_id = lease.run.organization_id

    def start(self, after: int) -> Seen:
        """A new listing, which begins after that of `after` (nanoseconds by Scalekit's clock). Raises ClockOff, a ScalekitError."""
        theirs, seconds_ahead = self._reader.clock()
        if abs(seconds_ahead) > CLOCK_TOLERANCE:
            word = "ahead of" if seconds_ahead > 0 else "behind"
            raise ClockOff(f"This machine's clock is {abs(seconds_ahead):.0f} s {word} Scalekit's: set it right, then try again.")
        if self._lease.run.dry_run:
            self._applying.forget()  # a second listing finds the same again
        as_of = self._lease.progress.as_of = max(theirs, after + 1)
        return Seen(as_of, as_of - self._margin)

    def read(self, seen: Seen) -> None:
        """Fill it, and bring here what it states. Raises a ScalekitError, Unavailable, Interrupted, LeaseLost."""
        self._lease.progress.listed_users = self._lease.progress.listed_groups = 0
        try:
            seen.directories = {each.id: each for each in self._reader.directories()}
        except UnknownOrganization:
            seen.unknown = True
            return
        self._lease.progress.expected_users = sum(directory.total_users for directory in seen.enabled)
        managed = self._begin(seen)
        for directory in seen.enabled:
            place = Place(self._organization_id, directory, seen.occurred_at, frozenset(managed.get(directory.id, ())))
            self._each(seen, self._reader.groups(directory.id), partial(self._groups, seen, place))
            before = len(seen.users)
            self._each(seen, self._reader.users(directory.id), partial(self._users, seen, place))
            self._end(seen, directory, len(seen.users) - before)

    def _begin(self, seen: Seen) -> dict[str, list[str]]:
        """Bring the directories themselves; returns the roles that are the mapping's to take, by directory, and remembers new ones."""
        stored, mark = self._applying.read(
            lambda session: (known.directories_by_id(session, self._organization_id), organizations.mark(session, self._organization_id))
        )
        drifts = []
        for said in seen.directories.values():
            record = stored.get(said.id)
            drifts.append(compare_directory(self._organization_id, said, record.registers if record else None, seen.occurred_at))
        self._bring(seen, drifts)
        before = dict(mark.mapped_roles or {})
        now = {each.id: each.role_names for each in seen.directories.values() if each.roles}
        names = {each: sorted({*before.get(each, ()), *now.get(each, ())}) for each in {*before, *now}}
        if names != before and not self._lease.run.dry_run:
            self._applying.write(partial(self._remember, names))
        return names

    def _remember(self, names: dict[str, list[str]], session: Session) -> None:
        """Before anybody gets such a role: so it can be taken again, whatever becomes of this run."""
        organizations.know(session, self._organization_id, datetime.now(UTC))
        organizations.set_mapped_roles(session, self._organization_id, names)
        self._lease.write(session)

    def _each(self, seen: Seen, pages: Iterator[list[Listed]], take: Callable[[Sequence[Listed]], None]) -> None:
        with ahead(pages, PAGES_AHEAD) as coming:
            records: Iterator[Listed] = chain.from_iterable(coming)
            while some := list(islice(records, AT_ONCE)):
                # Whoever is on two pages, because others left meanwhile, counts as on the later one.
                listed = {record.id: record for record in some if is_id(record.id)}
                take(list(listed.values()))
                if unfit := sum(not is_id(record.id) for record in some):
                    seen.incomplete = True
                    seen.standing.add([Finding(UNREADABLE, "record", "", reason="Its id cannot be stored.")] * unfit)

    def _groups(self, seen: Seen, place: Place, said: Sequence[ListedGroup]) -> None:
        stored = self._applying.read(lambda session: known.groups_by_id(session, self._organization_id, [each.id for each in said]))
        self._bring(seen, [compare_group(place, each, stored.get(each.id)) for each in said])
        seen.groups.update(each.id for each in said)
        self._lease.progress.listed_groups = len(seen.groups)

    def _users(self, seen: Seen, place: Place, said: Sequence[ListedUser]) -> None:
        ids = [each.id for each in said]
        stored, gone = self._applying.read(
            lambda session: (
                known.people(session, self._organization_id, ids),
                erased.among(session, [Key(self._organization_id, each) for each in ids]),
            )
        )
        drifts = [
            (each.id, erased_user(each.id) if (place.organization_id, each.id) in gone else compare_user(place, each, stored.get(each.id)))
            for each in said
        ]
        self._bring(seen, [drift for _, drift in drifts])
        for id_, drift in drifts:
            seen.fewer.pop(id_, None)  # who is on two pages counts as on the later one
            if drift and drift.fewer:
                seen.fewer[id_] = drift.fewer
        seen.users.update(each.id for each in said)
        seen.groups.update(*(each.groups for each in said))  # whoever is in one shows that it is there
        self._lease.progress.saw_active |= any("active" in each.data for each in said)
        self._lease.progress.listed_users = len(seen.users)

    def _bring(self, seen: Seen, found: Sequence[Drift | None]) -> None:
        drifts = [each for drift in found if drift for each in (drift, *drift.beside)]
        beaten = self._applying.bring(drifts)
        standing = [finding for drift in drifts for finding in drift.standing]
        seen.incomplete |= any(finding.what in {UNSAID, UNREADABLE} for finding in standing)
        seen.standing.add([*standing, *unsettled(beaten)])

    def _end(self, seen: Seen, directory: Directory, listed: int) -> None:
        """Ask how many there should have been, after the last page: while it was read, people came and left."""
        after = self._reader.directory(directory.id)
        seen.directories[directory.id] = replace(after, roles=directory.roles)  # those by which it was compared
        seen.incomplete |= not after.enabled  # meanwhile, and so its people are not listed any more
        if listed < after.total_users:
            seen.short.append(f"The directory {directory.id} lists {listed} people, and says that it has {after.total_users}.")
        self._lease.progress.saw_totals |= listed == after.total_users > 0
