"""One run: list, compare, bring what is stated, and remove what two listings did not show, unless the guard holds it back."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, islice

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.db import inbox, known, organizations, runs
from provisioning.db.known import KnownDirectory, Present, Strength
from provisioning.drift import (
    GONE_THERE,
    NEWER,
    UNSETTLED,
    Drift,
    Fewer,
    Finding,
    disabled_for_long,
    gone_directory,
    gone_group,
    gone_person,
    gone_user,
    is_overtaken,
    is_touched,
    unsettled,
    without,
)
from provisioning.errors import ScalekitError, UnknownOrganization
from provisioning.reconcile.applying import Applying
from provisioning.reconcile.guard import Missing, Situation, named, proposed_ids
from provisioning.reconcile.lease import Lease
from provisioning.reconcile.sweep import AT_ONCE, Seen, Sweep
from provisioning.scalekit.directories import DirectoryReader
from provisioning.settings import Settings

ROUNDS = 3  # so often, at most, is a run made again because an old event was handled meanwhile
A_DAY = timedelta(days=1)
CLOCKS_DIFFER = timedelta(minutes=30)  # two replicas', at most: a run asks for its own to be right, and of nobody who handles events
LAST_RETRY = 28 * 3600 * 10**9  # nanoseconds after an event: Scalekit's longest schedule, rounded up

_NOTHING: frozenset[str] = frozenset()

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Before:
    """What was here before a listing."""

    strength: Strength
    directories: dict[str, KnownDirectory]
    gone: dict[str, int]
    history: runs.History


@dataclass(frozen=True, slots=True)
class _End:
    """What a round came to. `mark`: the organization's new one, if everything was read and is settled."""

    seen: Seen
    held: Missing
    why: list[str]
    unremoved: int
    mark: int | None


class Reconciliation:
    """A run under way."""

    def __init__(self, lease: Lease, applying: Applying, reader: DirectoryReader, sweep: Sweep, settings: Settings) -> None:
        self._lease = lease
        self._run = lease.run
        self._applying = applying
        self._reader = reader
        self._sweep = sweep
        self._settings = settings
        self._organization_id = lease.run.organization_id

    def perform(self) -> None:
        """Go through with it and say in its row what came of it.

        Raises a ScalekitError, ClockOff, Unavailable, Interrupted, LeaseLost: what was applied by then stays.
        """
        for number in range(ROUNDS):
            if self._round(number):
                return

    def _follow_external_id(self) -> None:
        """Keep what the application calls the organization now, if Scalekit says; the run goes on without."""
        at = datetime.now(UTC)
        try:
            said = self._reader.organization()
        except ScalekitError as failure:
            log.info("external_id_not_followed", organization_id=self._organization_id, vendor_message=failure.vendor_message)
            return
        if said.external_id != self._applying.read(partial(organizations.external_id, organization_id=self._organization_id)):
            self._applying.write(lambda session: organizations.set_external_id(session, said.id, said.external_id, at))

    def _round(self, number: int) -> bool:
        """Whether that was all: an old event may have been handled while the directories were read."""
        since = datetime.now(UTC) - CLOCKS_DIFFER
        before = self._before()
        first = self._sweep.start(before.history.as_of)
        if not self._run.dry_run and not number:
            self._follow_external_id()
        # Never later than what the listing states: an event that could still win over that must not be refused as old.
        mark = min(first.as_of - _nanoseconds(self._settings.late_event_margin), first.occurred_at)
        handled = partial(inbox.handled_since, organization_id=self._organization_id, since=since, occurred_before=mark)
        handled_before = self._applying.read(handled)
        self._sweep.read(first)
        seen, missing = first, self._missing(first)
        if first.unknown:
            self._require_history(missing)
        if missing:
            first.fewer.clear()  # what it missed is known by now
            seen = self._sweep.start(first.as_of)
            self._sweep.read(seen)
            missing = missing.both(self._missing(seen))
        touched = self._touched(missing, first.occurred_at)
        seen.standing.add(Finding(UNSETTLED, "user" if id_ in missing.people else "group", id_, reason=NEWER) for id_ in sorted(touched))
        missing = missing.without(touched)
        self._end_disabled(before, seen)
        going, held, why = self._judge(missing, before, seen)
        unremoved = self._remove(going, missing, first, seen)
        if self._run.proposal is not None:
            unremoved += len(touched & proposed_ids(self._run.proposal))
        self._forget_directories(before, seen)
        seen.standing.add(_findings(held))
        end = _End(seen, held, why, unremoved, mark if self._is_complete(seen, held, mark) else None)
        self._lease.check()

        def finish(session: Session) -> bool:
            return self._end(session, end, lambda: handled(session) != handled_before, last=number == ROUNDS - 1)

        return self._applying.write(finish)

    def _before(self) -> _Before:
        """Before the listing: its newcomers would make those who left a smaller part; and a dry run makes none."""

        def look(session: Session) -> _Before:
            return _Before(
                known.strength(session, self._organization_id),
                known.directories_by_id(session, self._organization_id),
                runs.removed_since(session, self._organization_id, datetime.now(UTC) - A_DAY),
                runs.history(session, self._organization_id),
            )

        return self._applying.read(look)

    def _require_history(self, missing: Missing) -> None:
        """Of an organization that never was complete here nothing is proposed: it may be another environment's.

        Raises UnknownOrganization, also where nothing is left to propose.
        """
        if not missing:
            raise UnknownOrganization("unknown: Scalekit does not know this organization, and nobody of it is here any more.")
        mark = self._applying.read(partial(organizations.mark, organization_id=self._organization_id))
        if mark.complete_as_of is None:
            raise UnknownOrganization("unknown: Scalekit does not know this organization, and no run of it was ever complete.")

    def _missing(self, seen: Seen) -> Missing:
        """What is here and was not listed, of what a listing would show."""

        def of(page: Callable[..., list[Present]], listed: set[str]) -> dict[str, Present]:
            return {each.id: each for each in self._all(page) if each.id not in listed and seen.would_show(each.directory_id)}

        return Missing(
            of(known.present_people, seen.users),
            of(known.present_groups, seen.groups),
            {id_: each.groups for id_, each in seen.fewer.items() if each.groups},
            {id_: each.roles for id_, each in seen.fewer.items() if each.roles},
        )

    def _touched(self, missing: Missing, occurred_at: int) -> frozenset[str]:
        """The people and groups of it of whom something newer was said: there is nothing to decide about them yet."""
        touched: set[str] = set()
        people, groups = iter(missing.people), iter(missing.groups)
        while some := list(islice(people, AT_ONCE)):
            found = self._applying.read(partial(known.people, organization_id=self._organization_id, ids=some))
            touched |= {id_ for id_, person in found.items() if is_touched(person.registers, occurred_at)}
        while some := list(islice(groups, AT_ONCE)):
            stored = self._applying.read(partial(known.groups_by_id, organization_id=self._organization_id, ids=some))
            touched |= {id_ for id_, registers in stored.items() if is_touched(registers, occurred_at)}
        return frozenset(touched)

    def _all(self, page: Callable[..., list[Present]]) -> Iterator[Present]:
        after = ""
        while rows := self._applying.read(partial(page, organization_id=self._organization_id, after=after)):
            yield from rows
            after = rows[-1].id

    def _judge(self, missing: Missing, before: _Before, seen: Seen) -> tuple[Missing, Missing, list[str]]:
        """What goes, what is held back, and why it is."""
        if self._run.proposal is not None:
            going = missing.proposed(self._run.proposal)
            return going, missing.less(going), []
        here = {id_ for id_, directory in before.directories.items() if directory.disabled_at is None}
        situation = Situation(
            strength=before.strength,
            listable=frozenset(each for each in {None, *before.strength.people, *before.strength.groups} if seen.would_show(each)),
            gone=before.gone,
            active=frozenset(id_ for id_, each in seen.fewer.items() if each.active),
            doubts=self._doubts(missing, before, seen),
            gone_directories=frozenset((here | named(missing)) - seen.directories.keys()),
        )
        return situation.judge(missing, self._settings.max_deactivation_share)

    def _doubts(self, missing: Missing, before: _Before, seen: Seen) -> list[str]:
        """Why the listing is not to be believed in what it does not show."""
        if seen.unknown:
            return ["Scalekit does not know this organization any more."]
        doubts = list(seen.short)
        there = sum(number for directory_id, number in before.strength.people.items() if seen.would_show(directory_id))
        if seen.enabled and missing.people and len(missing.people) >= there:
            doubts.append("Nobody was listed who is here.")
        progress = self._lease.progress
        if not (progress.saw_active or before.history.saw_active):
            doubts.append("Scalekit has never said of anybody whether they are active.")
        if not (progress.saw_totals or before.history.saw_totals):
            doubts.append("Scalekit has never said of a directory as many people as it lists.")
        return doubts

    def _end_disabled(self, before: _Before, seen: Seen) -> None:
        """Deactivate the people of directories that were disabled long ago, if the operator wants that."""
        patience = self._settings.disabled_directory
        if patience is None:
            return
        since = {id_: each.disabled_at for id_, each in before.directories.items() if each.disabled_at is not None}
        over = {id_ for id_ in since.keys() - {each.id for each in seen.enabled} if since[id_] <= seen.as_of - _nanoseconds(patience)}
        if over:
            people = (each for each in self._all(known.present_people) if each.active and each.directory_id in over)
            self._bring(disabled_for_long(self._organization_id, each.id, seen.occurred_at) for each in people)

    def _remove(self, going: Missing, missing: Missing, first: Seen, seen: Seen) -> int:
        """Remove what of the `missing` is going; returns how many something newer forbade.

        People and groups go as of the first listing: what was said since counts.
        """
        guarded = self._run.approved_by is None
        at, organization_id = first.occurred_at, self._organization_id
        beaten: list[Drift] = []
        mark = self._applying.read(partial(organizations.mark, organization_id=organization_id))
        managed = frozenset(chain.from_iterable((mark.mapped_roles or {}).values()))
        people = iter(sorted(going.people))
        while ids := list(islice(people, AT_ONCE)):
            stored = self._applying.read(partial(known.people, organization_id=organization_id, ids=ids))
            beaten += self._bring(gone_user(stored[id_], at, managed_roles=managed, guarded=guarded) for id_ in ids if id_ in stored)
        beaten += self._bring(gone_group(organization_id, each, at, guarded=guarded) for each in going.groups)
        less, overtaken = iter(sorted(going.memberships.keys() | going.roles.keys())), list[str]()
        while ids := list(islice(less, AT_ONCE)):
            stored = self._applying.read(partial(known.people, organization_id=organization_id, ids=ids))
            ids = [id_ for id_ in ids if id_ in stored]  # who is not was erased meanwhile
            over = {id_ for id_ in ids if is_overtaken(stored[id_], _of(missing, seen.fewer[id_], id_))}
            overtaken += sorted(over)
            drifts = [
                without(stored[id_], seen.occurred_at, _of(going, seen.fewer[id_], id_), guarded=guarded, gone=frozenset(going.groups))
                for id_ in ids
                if id_ not in over
            ]
            beaten += self._bring(drift for drift in drifts if drift)
        seen.standing.add([*unsettled(beaten), *(Finding(UNSETTLED, "user", id_, reason=NEWER) for id_ in overtaken)])
        return len(beaten) + len(overtaken)

    def _forget_directories(self, before: _Before, seen: Seen) -> None:
        """A directory that is gone, and of which nobody is here, counts as disabled: it casts no doubt on anybody any more."""
        gone = [id_ for id_, each in before.directories.items() if each.disabled_at is None and id_ not in seen.directories]
        if gone:
            left = self._applying.read(partial(known.strength, organization_id=self._organization_id))
            if not left.people.get(None):
                empty = (id_ for id_ in gone if not left.people.get(id_) and not left.groups.get(id_))
                self._bring(gone_directory(self._organization_id, id_, seen.occurred_at) for id_ in empty)

    def _bring(self, drifts: Iterable[Drift]) -> list[Drift]:
        coming, beaten = iter(drifts), list[Drift]()
        while some := list(islice(coming, AT_ONCE)):
            beaten += self._applying.bring(some)
        return beaten

    def _is_complete(self, seen: Seen, held: Missing, mark: int) -> bool:
        """Whether events older than the mark can say nothing any more: all was read and is settled, and none of a directory that was
        disabled lately, whose people were not listed, is still on its way."""
        if held or seen.incomplete or seen.short or seen.unknown or self._applying.failed or self._run.dry_run:
            return False
        stored = self._applying.read(partial(known.directories_by_id, organization_id=self._organization_id))
        disabled = (stored[id_].disabled_at for id_ in stored.keys() & seen.directories.keys())
        return all(at is None or at < mark - LAST_RETRY for at in disabled)

    def _end(self, session: Session, end: _End, is_late: Callable[[], bool], *, last: bool) -> bool:
        error = None
        if end.mark is not None:
            organizations.enter(session, {self._organization_id: True}, datetime.now(UTC))  # nobody is handling an event of it now
            late = is_late()
            if late and not last:
                return False
            if late:
                error = f"Events from before it were handled while it ran, {ROUNDS} times over: it is not complete."
            else:
                self._set_mark(session, end.seen, end.mark)
        self._lease.write(session)  # a cancel that was answered by now still counts
        state = runs.State.DONE
        if self._run.approved_by and end.unremoved:
            error = f"{end.unremoved} of those approved were not removed: {NEWER}. The next run looks again."
        if self._applying.failed:
            state, error = runs.State.FAILED, f"{self._applying.failed} records could not be applied: something here fails on them."
        elif end.held and not self._run.dry_run and self._run.approved_by is None:
            state = runs.State.NEEDS_APPROVAL
        report = self._applying.report.joined(end.seen.standing)
        self._lease.end(
            session,
            state,
            drift=report.as_json(),
            drifted=report.number,
            held_back=end.why,
            proposal=end.held.as_proposal() if end.held and self._run.approved_by is None else None,
            error=error,
        )
        return True

    def _set_mark(self, session: Session, seen: Seen, mark: int) -> None:
        """And forget the roles that a mapping does not give any more, unless somebody may still have one of them."""
        stored = organizations.mark(session, self._organization_id)
        if mark > (stored.complete_as_of or 0):
            organizations.set_mark(session, self._organization_id, mark)
        names = {**(stored.mapped_roles or {}), **{directory.id: directory.role_names for directory in seen.enabled}}
        names = {id_: roles for id_, roles in names.items() if roles}
        if names != (stored.mapped_roles or {}) and not seen.standing.number:
            organizations.set_mapped_roles(session, self._organization_id, names)


def _of(missing: Missing, less: Fewer, id_: str) -> Fewer:
    """Of what the listing did not show of this person, what is also missing there."""
    return replace(less, groups=missing.memberships.get(id_, _NOTHING), roles=missing.roles.get(id_, _NOTHING))


def _findings(held: Missing) -> Iterator[Finding]:
    reason = "held back"
    yield from (gone_person(each.id, each.email, reason) for each in held.people.values())
    yield from (Finding(GONE_THERE, "group", id_, reason=reason) for id_ in held.groups)
    yield from (Finding(GONE_THERE, "user", id_, {"groups": ([*sorted(groups)], None)}, reason) for id_, groups in held.memberships.items())
    yield from (Finding(GONE_THERE, "user", id_, {"roles": ([*sorted(roles)], None)}, reason) for id_, roles in held.roles.items())


def _nanoseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
