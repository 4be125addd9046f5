"""A run is worked on by one process at a time, whichever that is, and ends right whatever becomes of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, update
from test_leavers import wait_until_blocked_or

from provisioning.db.models import reconcile_runs
from provisioning.db.runs import Run, State
from provisioning.reconcile import Reconciler
from provisioning.scalekit.directories import DirectoryReader
from reconciling import Reconciling, connected

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

pytestmark = pytest.mark.usefixtures("exact_clock")


class Paused:
    """Holds whoever reads a directory's users before its page, until let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = Event(), Event()
        users, first = DirectoryReader.users, iter([True])

        def held(reader: DirectoryReader, directory_id: str) -> Iterator[list[Any]]:
            if next(first, False):
                self.reached.set()
                assert self.go_on.wait(10)
            yield from users(reader, directory_id)

        monkeypatch.setattr(DirectoryReader, "users", held)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Paused:
    return Paused(monkeypatch)


def another(desk: Reconciling) -> Reconciler:
    """Another process's, as far as the database can tell."""
    return Reconciler(desk.database, desk.scalekit, desk.reconciler._settings)


def begun(desk: Reconciling, paused: Paused) -> tuple[Run, Thread]:
    """A run that has brought the groups, and stands still before the first page of users."""
    desk.group("Sales")
    desk.hire(5, "Sales")
    run, _ = desk.reconciler.request(desk.organization_id, dry_run=False, requested_by="test")
    work = desk.reconciler.claim()
    assert work
    thread = Thread(target=work)
    thread.start()
    assert paused.reached.wait(10)
    return run, thread


def lapse(desk: Reconciling, run: Run) -> None:
    """Nobody has heard of whoever works on it for too long."""
    with desk.database.writing() as session:
        long_ago = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(reconcile_runs).where(reconcile_runs.c.id == run.id).values(leased_until=long_ago))


@pytest.mark.parametrize("whose", [another, lambda desk: desk.reconciler], ids=["another process", "the same process"])
def test_a_run_whose_lease_has_lapsed_is_taken_over(
    reconciling: Reconciling, paused: Paused, whose: Callable[[Reconciling], Reconciler]
) -> None:
    """Whoever had it before can write nothing more, once it wakes up, though it be a thread of the same process."""
    run, first = begun(reconciling, paused)
    lapse(reconciling, run)

    work = whose(reconciling).claim()
    assert work
    work()

    done = reconciling.now(run)
    assert (done.state, done.listed_users, done.changes["users_created"]) == (State.DONE, 5, 5)
    reconciling.hire(3)
    before = reconciling.dump()
    paused.go_on.set()
    first.join()
    assert reconciling.dump() == before


def test_who_lost_the_run_in_its_middle_writes_nothing_more(reconciling: Reconciling, paused: Paused) -> None:
    """Also while the other one is still at it."""
    run, first = begun(reconciling, paused)
    lapse(reconciling, run)
    work = reconciling.reconciler.claim()
    assert work
    before = reconciling.dump()

    paused.go_on.set()
    first.join()

    assert reconciling.dump() == before
    work()
    assert reconciling.now(run).state is State.DONE
    assert len(reconciling.users()) == 5


def test_nobody_claims_what_somebody_works_on(reconciling: Reconciling, paused: Paused) -> None:
    """Nor a second run of the same organization."""
    run, first = begun(reconciling, paused)
    assert another(reconciling).claim() is None
    joined, new = another(reconciling).request(reconciling.organization_id, dry_run=False, requested_by="other")
    assert (joined.id, new) == (run.id, False)
    paused.go_on.set()
    first.join()
    assert reconciling.now(run).state is State.DONE


def test_a_cancelled_run_ends_and_what_it_applied_stays(reconciling: Reconciling, paused: Paused) -> None:
    """The next one goes on from there."""
    run, first = begun(reconciling, paused)
    reconciling.reconciler.cancel(run, "anna")
    paused.go_on.set()
    first.join()

    ended = reconciling.now(run)
    assert (ended.state, ended.error) == (State.CANCELLED, "Cancelled by anna.")
    assert len(reconciling.groups()) == 1
    assert reconciling.mark() is None
    assert reconciling.run().state is State.DONE
    assert len(reconciling.users()) == 5


def test_a_process_that_stops_lets_go_and_another_goes_on_at_once(reconciling: Reconciling, paused: Paused) -> None:
    """Without waiting for the lease to lapse."""
    run, first = begun(reconciling, paused)
    reconciling.reconciler.stop()
    paused.go_on.set()
    first.join()
    assert reconciling.now(run).state is State.RUNNING

    work = another(reconciling).claim()

    assert work
    work()
    assert reconciling.now(run).state is State.DONE
    assert len(reconciling.users()) == 5


def test_two_replicas_asked_at_once_by_many_make_one_run(reconciling: Reconciling) -> None:
    """Whoever asks while it waits or runs joins it, however the claims fall."""
    reconciling.hire(3)
    replicas = [reconciling.reconciler, another(reconciling)]
    threads, rounds = 8, 5
    line = Barrier(threads)

    def ask(number: int) -> set[str]:
        """The ids of the runs that this one was given, one a round; every other one works as well."""
        line.wait(10)
        replica = replicas[number % 2]
        asked, _ = replica.request(reconciling.organization_id, dry_run=False, requested_by=f"{number}")
        if number >= 4 and (work := replica.claim()):
            works.append(work)
        return {asked.id}

    for _ in range(rounds):
        works: list[Callable[[], None]] = []
        with ThreadPoolExecutor(threads) as executor:
            given = set().union(*executor.map(ask, range(threads)))
        assert len(given) == 1
        assert len(works) <= 1
        if not works and (work := replicas[0].claim()):
            works.append(work)
        for each in works:
            each()
        assert {row["state"] for row in reconciling.dump()["reconcile_runs"]} == {"done"}
    assert len(reconciling.dump()["reconcile_runs"]) == rounds


def test_a_run_waits_for_what_is_due_and_for_a_kind_of_its_own(reconciling: Reconciling) -> None:
    """A dry run is refused while a run waits, and the other way round."""
    run, _ = reconciling.reconciler.request(reconciling.organization_id, dry_run=False, requested_by="test")
    with pytest.raises(Exception, match="Wait for its end, or cancel it"):
        reconciling.reconciler.request(reconciling.organization_id, dry_run=True, requested_by="test")
    assert reconciling.reconciler.cancel(run, "anna").state is State.CANCELLED
    assert reconciling.reconciler.claim([run.id]) is None
    assert reconciling.run(dry_run=True).state is State.DONE


def test_who_asks_just_before_another_s_run_is_there_joins_it(emulator: Emulator, postgres_url: str) -> None:
    """Though it be claimed by the time that this one's row is written."""
    with connected(emulator, postgres_url, "asked") as desk, ThreadPoolExecutor(1) as other:
        given: list[str] = []

        def ask() -> None:
            replica = another(desk)
            given.append(replica.request(desk.organization_id, dry_run=False, requested_by="other")[0].id)
            assert replica.claim(given)

        def overtake(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            """Just before this one's row is written the other one asks, and claims, unless it has to wait."""
            if statement.startswith("INSERT INTO reconcile_runs") and next(first, False):
                asking.append(other.submit(ask))
                wait_until_blocked_or(asking[0], desk.database)

        asking: list[Future[None]] = []
        first = iter([True])
        event.listen(desk.database.engine, "before_cursor_execute", overtake)
        run, _ = desk.reconciler.request(desk.organization_id, dry_run=False, requested_by="test")
        asking[0].result(10)
        assert given == [run.id]
        assert len(desk.dump()["reconcile_runs"]) == 1
