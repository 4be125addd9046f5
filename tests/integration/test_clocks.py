"""Whatever this machine's clock says, or two replicas' on one database: access is never given back, and nothing is lost in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reconcile_and_webhooks import Between, differences, newest, user_of
from test_reconcile_leases import Paused, another, begun

from clocks import Clock
from databases import Databases
from factories import START, delivery, event
from faults import AT_STATEMENT, failing
from provisioning.db import runs
from provisioning.db.runs import Run, State
from provisioning.db.session import Database
from provisioning.drift import UNSETTLED
from provisioning.emulator.records import Event, Provider
from provisioning.errors import Conflict, NotFound
from provisioning.events import MAX_AHEAD_SECONDS, Delivery
from provisioning.inbox import Inbox, Outcome, Receipt
from provisioning.reconcile import Reconciler
from provisioning.reconcile.lease import LEASE
from provisioning.reconcile.sweep import CLOCK_TOLERANCE
from provisioning.scalekit.signature import TOLERANCE
from reconciling import Reconciling, connected
from service import OPERATE_KEY, bearer, signed

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

BUSY = 15  # seconds that a busy machine may lose between two looks at a clock
NEAR = st.integers(BUSY - TOLERANCE, TOLERANCE - BUSY)
OFF = st.integers(TOLERANCE + BUSY, 900).flatmap(lambda seconds: st.sampled_from([seconds, -seconds]))
EXAMPLES = max(1, settings().max_examples // 40)  # each is a history with several runs over the wire: one for a change, 25 among the proofs
MINUTELY = timedelta(minutes=1)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)])
def databases(request: pytest.FixtureRequest) -> Databases:
    request.node.user_properties.append(("database", request.param))
    found: Databases = request.getfixturevalue(f"{request.param}_databases")
    return found


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    return Between(monkeypatch)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Paused:
    return Paused(monkeypatch)


def written(desk: Reconciling) -> object:
    """Every row but those of the runs themselves, and of what was refused."""
    return {name: rows for name, rows in desk.dump().items() if name not in {"reconcile_runs", "refusals"}}


class Story:
    """What happens to a company, and on its way to two replicas whose clocks are off by so many `seconds`: by chance, to be told again."""

    def __init__(self, desk: Reconciling, clock: Clock, between: Between, random: Random, seconds: list[int], counts: Counter[str]) -> None:
        self._desk, self._clock, self._between, self._random = desk, clock, between, random
        self._seconds = seconds
        self._counts = counts
        self._undelivered: list[Event] = []
        self._told = 0
        self._taken: list[str] = []
        self._heard: set[str] = set()  # also what a run saw the outcome of
        self._shown: set[str] = set()  # what a run may have seen the outcome of
        self._place_of: dict[str, str] = {}
        self._places = [desk.directory.id, desk.emulator.structure.add_directory(desk.organization_id, random.choice([*Provider])).id]
        for place in self._places:
            for name in ("One", "Two"):
                desk.emulator.structure.add_group(name, place)
            desk.hire(4, "One", directory=place)

    def tell(self, steps: int) -> None:
        """Each replica hears something and reconciles, then whatever comes; after each step nobody has got back what was taken."""
        firsts: list[Callable[[], object]] = [lambda: self.deliver(0), lambda: self.run(0), lambda: self.deliver(1), lambda: self.run(1)]
        for first in self._random.sample(firsts, len(firsts)):
            self.change()
            first()
            self.check()
        for _ in range(steps):
            for _ in range(self._random.randint(1, 3)):
                self.change()
            replica = self._random.randrange(2)
            self._random.choice([self.deliver, self.deliver, self.run, self.run_while_it_happens, self.replay, self.set_clock])(replica)
            self.check()

    def change(self) -> None:
        """Something in a directory; what cannot be just now is not."""
        emulator, random, place = self._desk.emulator, self._random, self._random.choice(self._places)
        people, group = emulator.company.users(place), random.choice(emulator.company.groups(place)).id
        anybody = random.choice(people).id if people else ""
        makes: list[Callable[[], object]] = [
            lambda: self._desk.hire(1, directory=place),
            lambda: emulator.people.rename(anybody, given_name=f"Name{random.randrange(99)}"),
            lambda: emulator.people.suspend(anybody),
            lambda: emulator.people.restore(anybody),
            lambda: emulator.people.fire(anybody),
            lambda: emulator.people.purge(anybody),
            lambda: emulator.people.regroup(anybody, add=[group]),
            lambda: emulator.people.regroup(anybody, remove=[group]),
            lambda: emulator.structure.map_role(group, random.choice(["seller", "engineer", None])),
            lambda: emulator.structure.disable_directory(self._places[1]),
            lambda: emulator.structure.enable_directory(self._places[1]),
        ]
        with suppress(Conflict, NotFound):
            random.choice(makes)()
        self._place_of |= {user.id: place for user in emulator.company.users(place)}

    def deliver(self, replica: int) -> None:
        """Some of what is on its way: shuffled, some twice, some late. What is refused is sent again."""
        self._undelivered += self._news()
        self._random.shuffle(self._undelivered)
        some = self._undelivered[: self._random.randint(1, max(len(self._undelivered), 1))]
        self._undelivered = self._undelivered[len(some) :]
        self._undelivered += self._post(replica, some + self._random.sample(some, len(some) // 3))

    def replay(self, replica: int) -> None:
        """An operator has something handled again."""
        for webhook_id in self._random.sample(self._taken, min(len(self._taken), 3)):
            with self._clock.off_by(self._seconds[replica]):
                answer = self._desk.client.post(f"/v1/deliveries/{webhook_id}/replay", headers=bearer(OPERATE_KEY))
            assert answer.json()["outcome"] in {Outcome.PROCESSED, Outcome.STALE}, answer.text
            self._counts["replays"] += 1

    def set_clock(self, replica: int) -> None:
        """A clock is set, rightly or not."""
        self._seconds[replica] = self._random.choice([-900, -600, -290, 0, 290, 600, 900])
        self._counts["clocks set"] += 1

    def run_while_it_happens(self, replica: int) -> None:
        """A run in whose middle the directory changes, and the other replica hears of things."""
        happenings = [self.change, lambda: self.deliver(1 - replica), lambda: self.set_clock(1 - replica), lambda: None]
        self._between.hooks = [self._random.choice(happenings) for _ in range(8)]
        self.run(replica)
        self._between.hooks = []

    def run(self, replica: int) -> None:
        """A run, dry or real, asked for or the schedule's. By a clock that is off it fails, and nothing is written."""
        off, before, alone = self._seconds[replica], written(self._desk), not self._between.hooks
        said = self._desk.said()
        known = {there["id"] for user in self._desk.users() for there in user["directory_users"]}  # of nobody else a run takes anything
        listed = {each.id for each in self._desk.emulator.company.directories(self._desk.organization_id) if each.enabled}
        with self._clock.off_by(off):
            run = self._scheduled() if self._random.random() < 0.3 else self._asked()
            if run.state is State.NEEDS_APPROVAL:
                run = self._desk.approve(run)
        self._counts[f"runs {run.state}"] += 1
        if abs(off) > CLOCK_TOLERANCE:
            assert run.state is State.FAILED
            assert "set it right" in (run.error or "")
            assert not alone or written(self._desk) == before
        else:
            assert run.state is State.DONE, run.error
            if not run.dry_run:
                self._shown |= {each.id for each in self._desk.said()}
            if alone and not run.dry_run and not run.error:
                settled = known - {each["id"] for each in run.drift if each["what"] == UNSETTLED}  # of others something newer was said
                self._heard |= {each.id for each in said if self._place_of.get(each.subject_id) in listed and each.subject_id in settled}

    def check(self) -> None:
        """Nobody is active after what took their access away was heard, unless the directory gave it back later."""
        taken: dict[str, int] = {}
        given: dict[str, int] = {}
        for each in self._desk.said():
            if "user_" in each.type:
                takes = each.type.endswith("user_deleted") or json.loads(each.body)["data"].get("active") is False
                if takes and each.id in self._heard:
                    taken[each.subject_id] = each.occurred_at
                elif not takes and each.id in self._heard | self._shown:
                    given[each.subject_id] = each.occurred_at
        for user in self._desk.users():
            for there in user["directory_users"]:
                assert not there["active"] or given.get(there["id"], 0) > taken.get(there["id"], 0), there
            assert not user["active"] or any(there["active"] and not there["deleted"] for there in user["directory_users"])

    def end(self) -> None:
        """The clocks are set right, and all that is on its way arrives."""
        self._seconds = [0, 0]
        self._undelivered += self._news()
        self._random.shuffle(self._undelivered)
        assert self._post(0, self._undelivered) == []
        self.check()
        company = self._desk.emulator.company
        active = {user.id for place in self._places for user in company.users(place) if user.active}
        let_in = {there["id"] for user in self._desk.users() if user["active"] for there in user["directory_users"] if there["active"]}
        assert let_in <= active
        self.run(1)
        assert differences(self._desk) == []

    def _news(self) -> list[Event]:
        said = self._desk.said()
        news, self._told = said[self._told :], len(said)
        return news

    def _post(self, replica: int, events: list[Event]) -> list[Event]:
        """Send them, as Scalekit does; returns those that were refused."""
        refused = []
        for each in events:
            body, off = each.body.encode(), self._seconds[replica]
            headers = signed(body, each.id, at=self._clock.time())
            with self._clock.off_by(off):
                answer = self._desk.client.post("/webhooks/scalekit", content=body, headers=headers)
            assert answer.status_code == (400 if abs(off) > TOLERANCE else 201), (off, answer.text)
            if answer.status_code == 400:
                refused.append(each)
            else:
                assert answer.json()["status"] in {Outcome.PROCESSED, Outcome.STALE, Outcome.DUPLICATE}, answer.text
                self._heard.add(each.id)
                self._taken.append(each.id)
            self._counts[f"webhooks {answer.status_code}"] += 1
        return [each for each in {each.id: each for each in refused}.values() if each.id not in self._heard]

    def _asked(self) -> Run:
        return self._desk.run(dry_run=self._random.random() < 0.3)

    def _scheduled(self) -> Run:
        """The schedule's, when one is due by the clock that there is."""
        chosen = self._desk.reconciler._settings.model_copy(update={"reconcile_interval": MINUTELY})
        Reconciler(self._desk.database, self._desk.scalekit, chosen).keep_schedule()
        with self._desk.database.reading() as session:
            found = runs.page(session, self._desk.organization_id, before="~", limit=200, now=datetime.now(UTC))
        queued = [run for run in found if run.state is State.QUEUED]
        self._counts["scheduled"] += len(queued)
        return self._desk.work(queued[0]) if queued else self._asked()


@pytest.mark.parametrize(
    "margin",
    [timedelta(0), pytest.param(timedelta(minutes=15), marks=pytest.mark.proof)],
    ids=["mark at once", "mark as usual"],
)
def test_access_is_never_given_back(
    emulator: Emulator,
    databases: Databases,
    clock: Clock,
    exact_difference: None,
    between: Between,
    margin: timedelta,
    say: Callable[[str], None],
) -> None:
    """One replica's clock is off by up to 15 minutes either way, the other's by less than is accepted, and both are set now and then.

    Who was suspended or has gone stays out, whatever older than that arrives, is replayed or is listed; a run by a clock that is off fails
    and writes nothing; webhooks that such a clock refuses are taken once it is right, and the end is the directory.
    """
    counts: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES)
    @given(seed=st.integers(0, 2**32), steps=st.integers(1, 10), off=OFF, near=NEAR)
    def tell(seed: int, steps: int, off: int, near: int) -> None:
        with databases.fresh(migrated=True) as url, connected(emulator, url, "clocks", late_event_margin=margin) as desk:
            story = Story(desk, clock, between, Random(seed), [off, near], counts)  # noqa: S311  # no secret
            story.tell(steps)
            story.end()
        counts["histories"] += 1

    tell()
    assert all(counts[each] for each in ("webhooks 400", "webhooks 201", "runs failed", "runs done"))
    say(", ".join(f"{number} {what}" for what, number in sorted(counts.items())))


# Of who runs, and of who handles: a webhook, or a stored delivery again, which no door refuses. In seconds.
NEARLY = TOLERANCE - BUSY
REPLICAS = [(NEARLY, -NEARLY), *(pytest.param(*pair, marks=pytest.mark.proof) for pair in [(NEARLY, -900), (-NEARLY, 900)])]


@pytest.mark.parametrize(("runs_by", "handles_by"), REPLICAS)
def test_what_another_replica_handles_meanwhile_is_seen_by_any_clock(
    emulator: Emulator, database_url: str, clock: Clock, exact_difference: None, between: Between, runs_by: int, handles_by: int
) -> None:
    """An old event that let somebody in while a run was on makes it repeat: behind the mark, what took that away would be stale."""
    with connected(emulator, database_url, "meanwhile", late_event_margin=timedelta(0)) as desk:
        person, *_ = desk.hire(6)
        desk.hear()
        desk.emulator.people.suspend(person.id)
        desk.hear(newest(desk))
        desk.emulator.people.restore(person.id)
        given = newest(desk)
        desk.emulator.people.suspend(person.id)
        taken = newest(desk)
        heard: list[str] = []

        def handle() -> None:
            with clock.off_by(handles_by):
                letter = Delivery(given.id, int(clock.time()), datetime.now(UTC), given.body.encode())
                heard.extend(outcomes(Inbox(desk.database).receive([letter])))

        between.hooks = [*[lambda: None] * 2, handle]
        with clock.off_by(runs_by):
            assert desk.run().state is State.DONE
        assert heard == [Outcome.PROCESSED]
        desk.hear(taken)
        assert not user_of(desk, person)["active"]


@pytest.mark.parametrize("seconds", [900, -900])
def test_a_delivery_is_handled_again_by_any_clock(database: Database, clock: Clock, seconds: int) -> None:
    """What was no event of the future when it came is none when it is tried again or replayed: it is not dead-lettered."""
    at = clock.time() - START
    fired = delivery(event("user_deleted", "bad", at=at), "msg_bad")
    with failing(database, AT_STATEMENT):
        assert outcomes(Inbox(database).receive([fired])) == [Outcome.FAILED]
    with clock.off_by(seconds):
        assert outcomes(Inbox(database).retry(["msg_bad"])) == [Outcome.PROCESSED]
        assert outcomes(Inbox(database).replay(["msg_bad"])) == [Outcome.PROCESSED]  # as it was


def test_a_delivery_of_the_future_stays_one_until_then(database: Database, clock: Clock) -> None:
    """By the clock of this machine, which is all there is when it is replayed."""
    ahead = delivery(event("user_created", "early", at=clock.time() - START + 2 * MAX_AHEAD_SECONDS), "msg_early")
    assert outcomes(Inbox(database).receive([ahead])) == [Outcome.DEAD_LETTERED]
    assert outcomes(Inbox(database).replay(["msg_early"])) == [Outcome.DEAD_LETTERED]
    with clock.off_by(MAX_AHEAD_SECONDS + BUSY):
        assert outcomes(Inbox(database).replay(["msg_early"])) == [Outcome.PROCESSED]


def outcomes(receipts: list[Receipt]) -> list[str]:
    return [receipt.outcome for receipt in receipts]


@pytest.mark.parametrize("seconds", [900, pytest.param(60, marks=pytest.mark.proof)])
def test_a_run_that_a_clock_ahead_takes_from_another_replica_ends_once(
    reconciling: Reconciling, clock: Clock, exact_difference: None, paused: Paused, seconds: int
) -> None:
    """To that clock its lease has lapsed. Whoever had it writes nothing more; the other fails it or ends it, and the next one is right."""
    run, first = begun(reconciling, paused)
    with clock.off_by(seconds):
        work = another(reconciling).claim()
        assert work
        before = written(reconciling)
        paused.go_on.set()
        first.join()
        assert written(reconciling) == before
        work()
    assert reconciling.now(run).state is (State.FAILED if seconds > CLOCK_TOLERANCE else State.DONE)
    assert (written(reconciling) == before) is (seconds > CLOCK_TOLERANCE)
    assert reconciling.run().state is State.DONE
    assert len(reconciling.users()) == 5


@pytest.mark.proof
def test_a_run_that_a_clock_behind_claimed_goes_on_by_another(
    reconciling: Reconciling, clock: Clock, exact_difference: None, paused: Paused
) -> None:
    """Its lease has lapsed before it begins; a clock ahead keeps one for as much longer as it is ahead, and no longer."""
    with clock.off_by(-60):
        run, first = begun(reconciling, paused)
    work = another(reconciling).claim()
    assert work
    work()
    paused.go_on.set()
    first.join()
    assert reconciling.now(run).state is State.DONE
    assert len(reconciling.users()) == 5
    with clock.off_by(900):
        run, _ = reconciling.reconciler.request(reconciling.organization_id, dry_run=False, requested_by="test")
        assert reconciling.reconciler.claim([run.id])
    assert another(reconciling).claim() is None
    with clock.off_by(900 + 2 * LEASE.total_seconds()):
        assert another(reconciling).claim()
