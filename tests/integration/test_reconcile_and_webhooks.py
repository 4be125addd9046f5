"""Webhooks and reconciles at once: the end is the directory, nothing newer is undone, and nothing old comes back behind a mark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.db import organizations
from provisioning.db.runs import Run, State
from provisioning.emulator.comparison import Difference
from provisioning.emulator.records import Event, Provider, User
from provisioning.errors import Conflict, NotFound
from provisioning.inbox import Outcome
from provisioning.reconcile.run import Reconciliation
from provisioning.reconcile.sweep import Seen, Sweep
from provisioning.scalekit.directories import DirectoryReader
from reconciling import Reconciling, connected
from viewing import assert_views_are_true

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

pytestmark = pytest.mark.usefixtures("exact_clock")

Hook = Callable[[], object]


@pytest.fixture
def at_once(emulator: Emulator, database_url: str, request: pytest.FixtureRequest) -> Iterator[Reconciling]:
    """An organization whose mark is the very start of a run."""
    with connected(emulator, database_url, request.node.name, late_event_margin=timedelta(0)) as desk:
        yield desk


class Between:
    """Has something happen before each page of users that a run reads, the first included, and after the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hooks: list[Hook] = []
        users = DirectoryReader.users

        def read(reader: DirectoryReader, directory_id: str) -> Iterator[list[Any]]:
            for page in users(reader, directory_id):
                self._happen()
                yield page
            self._happen()

        monkeypatch.setattr("provisioning.scalekit.directories.PAGE_SIZE", 3)
        monkeypatch.setattr("provisioning.reconcile.sweep.AT_ONCE", 2)
        monkeypatch.setattr("provisioning.reconcile.sweep.PAGES_AHEAD", 1)
        monkeypatch.setattr(DirectoryReader, "users", read)

    def _happen(self) -> None:
        if self.hooks:
            self.hooks.pop(0)()


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    return Between(monkeypatch)


def differences(desk: Reconciling) -> list[Difference]:
    """Those there are, less the default role, which no list of a directory shows."""
    default = {desk.directory.default_role}

    def told(each: Difference) -> bool:
        one, other = each.directory, each.service
        return each.field == "user's roles" and isinstance(one, list) and isinstance(other, list) and {*one} - default == {*other} - default

    return [each for each in desk.differences() if not told(each)]


def newest(desk: Reconciling) -> Event:
    return desk.said()[-1]


def user_of(desk: Reconciling, person: User) -> dict[str, Any]:
    (user,) = desk.users(directory_user_id=person.id)
    return user


def test_an_old_event_handled_while_a_run_is_on_makes_it_repeat_and_gives_no_access_back(at_once: Reconciling, between: Between) -> None:
    """It wins, being newer than what was stored; the directory says otherwise, and the run sees it, since the mark would hide it."""
    people = at_once.hire(12)
    at_once.hear()
    person = people[0]
    at_once.emulator.people.suspend(person.id)
    at_once.emulator.people.restore(person.id)
    late = newest(at_once)
    with at_once.emulator.company.silent():
        at_once.emulator.people.suspend(person.id)
    at_once.hear(at_once.said()[-2])
    assert not user_of(at_once, person)["active"]
    outcomes: list[str] = []

    between.hooks = [*[lambda: None] * 3, lambda: outcomes.extend(each.outcome for each in at_once.hear(late))]
    run = at_once.run()

    assert outcomes == [Outcome.PROCESSED]
    assert run.state is State.DONE
    assert not user_of(at_once, person)["active"]
    assert differences(at_once) == []
    assert (at_once.mark() or 0) > late.occurred_at


def test_no_mark_hides_who_left_a_directory_that_is_disabled_while_it_is_read(at_once: Reconciling, between: Between) -> None:
    """Nobody of it is listed any more, so what was said of them before may be news yet."""
    person, *_ = at_once.hire(4)
    at_once.hear()
    at_once.emulator.people.purge(person.id)
    late = newest(at_once)
    between.hooks = [lambda: at_once.emulator.structure.disable_directory(at_once.directory.id)]
    assert at_once.run().state is State.DONE
    at_once.hear(late)
    assert not user_of(at_once, person)["active"]


def test_events_older_than_the_mark_are_stale_and_newer_ones_are_not(at_once: Reconciling) -> None:
    """The directory was read whole after them."""
    at_once.hire(3)
    old = at_once.said()
    at_once.run()
    (new,) = at_once.hire(1)
    told = at_once.hear()
    assert {each.outcome for each in told if each.subject_id != new.id and "user" in str(each.type)} == {Outcome.STALE}
    assert [each.outcome for each in told if each.subject_id == new.id] == [Outcome.PROCESSED]
    assert len(old) < len(told)


def test_the_mark_never_moves_back(at_once: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though Scalekit's clock do: what a run after it states is newer all the same."""
    (person,) = at_once.hire(1)
    at_once.run()
    mark, now = at_once.mark() or 0, at_once.emulator.company.ticks.time()
    at_once.emulator.people.rename(person.id, given_name="Renata")
    monkeypatch.setattr(DirectoryReader, "clock", lambda _: (now - 60 * 10**9, 60.0))

    at_once.run()

    assert user_of(at_once, person)["given_name"] == "Renata"
    assert (at_once.mark() or 0) >= mark


def test_a_mark_from_later_stays(at_once: Reconciling) -> None:
    """A run that ends does not put its own over it."""
    at_once.hire(1)
    at_once.run()
    later = (at_once.mark() or 0) + 10**12
    with at_once.database.writing() as session:
        organizations.set_mark(session, at_once.organization_id, later)
    assert at_once.run().state is State.DONE
    assert at_once.mark() == later


def test_whoever_comes_while_a_run_is_on_stays(at_once: Reconciling, between: Between) -> None:
    """Not listed, since the page was read before; but said to be there, later than the listing."""
    at_once.hire(9)
    at_once.run()
    come: list[User] = []

    def hire() -> None:
        come.extend(at_once.hire(1))
        at_once.hear()
        at_once.emulator.company.roster(at_once.directory.id)

    between.hooks = [*[lambda: None] * 3, hire]
    run = at_once.run()

    assert run.state is State.DONE
    assert user_of(at_once, come[0])["active"]
    assert differences(at_once) == []


def test_whoever_was_spoken_of_since_is_not_taken_for_gone(at_once: Reconciling, between: Between) -> None:
    """Listed by neither listing, but said to be there later than the first began: left to the next run, and reported."""
    *_, person = at_once.hire(12)
    at_once.run()

    def leave() -> None:
        at_once.emulator.people.rename(person.id, given_name="Renata")
        at_once.hear(newest(at_once))
        with at_once.emulator.company.silent():
            at_once.purge(person)

    between.hooks = [leave]
    run = at_once.run()

    assert (run.state, run.changes) == (State.DONE, {})
    assert [(each["what"], each["id"]) for each in run.drift] == [("unsettled", person.id)]
    assert user_of(at_once, person)["active"]
    assert at_once.run().changes["users_deactivated"] == 1
    assert not user_of(at_once, person)["active"]


@pytest.mark.parametrize("meanwhile", ["what the listing shows", "what it does not"])
def test_what_is_taken_takes_nothing_else_with_it(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch, meanwhile: str) -> None:
    """Between the listings and the removal a webhook from before them says what the person was in by then: less than the listing shows,
    or something that the person has left since. The webhook that says so is older than the listing.
    """
    for name in ("Sales", "Engineering", "People", "Support"):
        reconciling.group(name)
    person, *_ = reconciling.hire(20, "Sales")
    reconciling.hear()
    heard = len(reconciling.said())
    passing = ["Engineering"] if meanwhile == "what the listing shows" else ["Support"]
    reconciling.emulator.people.regroup(person.id, add=passing)
    reconciling.emulator.people.regroup(person.id, add=["Engineering", "People"], remove=["Sales", "Support"])
    early, late = reconciling.said()[heard:]
    remove = Reconciliation._remove

    def hear_and_remove(*arguments: Any) -> int:
        reconciling.hear(early)
        return remove(*arguments)

    monkeypatch.setattr(Reconciliation, "_remove", hear_and_remove)
    run = reconciling.run()
    settled = meanwhile == "what the listing shows"
    assert (run.state, [each["id"] for each in run.drift if each["what"] == "unsettled"]) == (State.DONE, [] if settled else [person.id])
    names = {group["name"] for group in user_of(reconciling, person)["groups"]}
    assert names == ({"Engineering", "People"} if settled else {"Sales", "Support"})
    reconciling.hear(late)
    assert differences(reconciling) == []


def test_what_another_directory_maps_holds_nothing_up(reconciling: Reconciling) -> None:
    """Everybody here has a role that is no mapping's of this directory, and is one of the other's."""
    reconciling.group("Sales")
    reconciling.group("People")
    person, *_ = reconciling.hire(20, "Sales")
    other = reconciling.emulator.structure.add_directory(reconciling.organization_id, Provider.OKTA)
    reconciling.emulator.structure.map_role(reconciling.emulator.structure.add_group("All", other.id).id, "member")
    reconciling.hear()
    with reconciling.emulator.company.silent():
        reconciling.emulator.people.regroup(person.id, remove=["Sales"], add=["People"])
    run = reconciling.run()
    assert [each for each in run.drift if each["what"] == "unsettled"] == []
    assert [group["name"] for group in user_of(reconciling, person)["groups"]] == ["People"]


def test_what_only_the_second_listing_misses_is_not_said_to_be_there(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """The webhook that says so is on its way, and older than that listing."""
    reconciling.group("Sales")
    reconciling.group("Engineering")
    person, *_ = reconciling.hire(20, "Sales", "Engineering")
    reconciling.hear()
    with reconciling.emulator.company.silent():
        reconciling.emulator.people.regroup(person.id, remove=["Sales"])
    start, listings = Sweep.start, count()

    def leave_and_start(sweep: Sweep, after: int) -> Seen:
        if next(listings) == 1:
            reconciling.emulator.people.regroup(person.id, remove=["Engineering"])
        return start(sweep, after)

    monkeypatch.setattr(Sweep, "start", leave_and_start)
    run = reconciling.run()
    assert [each["id"] for each in run.drift if each["what"] == "unsettled"] == [person.id]
    reconciling.hear(newest(reconciling))
    assert user_of(reconciling, person)["groups"] == []


def test_a_role_that_is_given_and_taken_meanwhile_does_not_stay(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """By webhooks from before the listing, of which the second comes late. It is no mapping's, so no listing shows it."""
    sales, engineering = reconciling.group("Sales"), reconciling.group("Engineering")
    reconciling.emulator.structure.map_role(sales.id, "seller")
    reconciling.emulator.structure.map_role(engineering.id, "engineer")
    person, *_ = reconciling.hire(20, "Sales")
    reconciling.hear()
    heard = len(reconciling.said())
    reconciling.emulator.people.regroup(person.id, add=["Engineering"])
    reconciling.emulator.people.regroup(person.id, remove=["Sales"])
    early, late = reconciling.said()[heard:]
    body = json.loads(early.body)
    body["data"]["roles"].append({"role_name": "owner"})
    early = early.model_copy(update={"body": json.dumps(body)})
    remove = Reconciliation._remove

    def hear_and_remove(*arguments: Any) -> int:
        reconciling.hear(early)
        return remove(*arguments)

    monkeypatch.setattr(Reconciliation, "_remove", hear_and_remove)
    reconciling.run()
    assert "owner" in user_of(reconciling, person)["roles"]
    reconciling.hear(late)
    assert user_of(reconciling, person)["roles"] == ["engineer"]


class Story:
    """What happens to a directory and on the way to the service, by chance: its own, so that an example can be told again."""

    def __init__(self, desk: Reconciling, between: Between, random: Random) -> None:
        self._desk, self._between, self._random = desk, between, random
        self._undelivered: list[Event] = []
        self._told = 0
        self.lost = False

    def step(self) -> None:
        """One change or more, then nothing, some webhooks, a run, or a run in whose middle the rest happens."""
        for _ in range(self._random.randint(1, 3)):
            self.change()
        match self._random.randrange(5):
            case 0 | 1:
                self.deliver()
            case 2:
                self.run()
            case 3:
                happenings = [self.change, self.deliver, lambda: None]
                self._between.hooks = [self._random.choice(happenings) for _ in range(8)]
                self.run()
                self._between.hooks = []

    def change(self) -> None:
        """Something in the directory; what cannot be just now is not."""
        emulator, random, directory = self._desk.emulator, self._random, self._desk.directory.id
        people, groups = emulator.company.users(directory), emulator.company.groups(directory)
        anybody = random.choice(people).id if people else ""
        group = random.choice(groups)
        makes: list[Hook] = [
            lambda: self._desk.hire(1, *random.choice([(), (group.name,)])),
            lambda: emulator.people.rename(anybody, given_name=f"Name{random.randrange(99)}"),
            lambda: emulator.people.suspend(anybody),
            lambda: emulator.people.restore(anybody),
            lambda: emulator.people.fire(anybody),
            lambda: emulator.people.purge(anybody),
            lambda: emulator.people.regroup(anybody, add=[group.id]),
            lambda: emulator.people.regroup(anybody, remove=[group.id]),
            lambda: emulator.structure.rename_group(group.id, f"Group {random.randrange(999)}"),
        ]
        try:
            random.choice(makes)()
        except (Conflict, NotFound):
            return

    def deliver(self) -> None:
        """Some of what is on its way: shuffled, some twice, some late, a few never."""
        said = self._desk.said()
        self._undelivered += said[self._told :]
        self._told = len(said)
        self._random.shuffle(self._undelivered)
        some = self._undelivered[: self._random.randint(0, len(self._undelivered))]
        self._undelivered = self._undelivered[len(some) :]
        if self._random.random() < 0.2 and self._undelivered:
            self._undelivered.pop()
            self.lost = True
        if some:
            self._desk.hear(*some, *self._random.sample(some, len(some) // 3))

    def run(self) -> Run:
        """A run, with its proposal approved: what was seen to be gone has gone."""
        run = self._desk.run()
        return self._desk.approve(run) if run.state is State.NEEDS_APPROVAL else run

    def end(self) -> None:
        """All that was ever on its way has arrived by now, or a last run is made."""
        if self.lost or self._random.random() < 0.5:
            assert self.run().state is State.DONE
        else:
            self._undelivered += self._desk.said()[self._told :]
            self._random.shuffle(self._undelivered)
            if self._undelivered:
                self._desk.hear(*self._undelivered)


EXAMPLES = max(2, settings().max_examples // 25)  # each is a history with several runs over the wire: 2 for a change, 40 among the proofs


@pytest.mark.parametrize("margin", [timedelta(0), timedelta(minutes=15)], ids=["mark at once", "mark as usual"])
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 8))
def test_however_webhooks_and_runs_fall_the_end_is_the_directory(
    emulator: Emulator, database_url: str, between: Between, margin: timedelta, seed: int, steps: int
) -> None:
    """Changes, webhooks out of order, twice, late or never, runs, and runs in whose middle all of it goes on."""
    with connected(emulator, database_url, "story", late_event_margin=margin) as desk:
        for name in ("One", "Two"):
            desk.group(name)
        desk.hire(6, "One")
        story = Story(desk, between, Random(seed))  # noqa: S311  # no secret
        if seed % 2:
            story.deliver()
        for _ in range(steps):
            story.step()
        story.end()
        assert differences(desk) == []
        assert_views_are_true(desk.database, desk.organization_id)
