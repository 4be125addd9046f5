"""What a listing does not show is not believed in large numbers: then somebody is asked, and nobody loses access meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from provisioning.db.models import reconcile_runs
from provisioning.db.runs import Run, State
from provisioning.emulator.faults import Door, Fault
from provisioning.emulator.records import Provider
from provisioning.errors import Conflict
from reconciling import Reconciling

pytestmark = pytest.mark.usefixtures("exact_clock")
# What a listing is believed to say is decided before any database has a part in it.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)

PEOPLE = 50


@pytest.fixture
def desk(reconciling: Reconciling) -> Reconciling:
    """An organization that was reconciled, of fifty people in one of two groups, and of which one person has since come without a word."""
    for name in ("Sales", "Berlin"):
        reconciling.group(name)
    reconciling.hire(PEOPLE, "Sales")
    reconciling.run()
    reconciling.hire(1, "Sales", "Berlin")
    return reconciling


def active(desk: Reconciling) -> int:
    """How many users are active."""
    return len(desk.users(active="true"))


def people(desk: Reconciling) -> list[Any]:
    """Those whom the directory lists, by age."""
    return [each for each in desk.emulator.company.users(desk.directory.id) if each.listed]


def proposed(run: Run) -> set[object]:
    """The directory users that the run proposes to remove."""
    assert run.state is State.NEEDS_APPROVAL
    assert run.held_back
    assert run.proposal
    found = run.proposal["people"]
    assert isinstance(found, list)
    return set(found)


def age(desk: Reconciling, hours: int) -> None:
    """Every run so far was so many hours earlier."""
    earlier = timedelta(hours=hours)
    with desk.database.writing() as session:
        for row in desk.dump()["reconcile_runs"]:
            times = {name: row[name] - earlier for name in ("requested_at", "due_at", "started_at", "finished_at") if row[name]}
            session.execute(update(reconcile_runs).where(reconcile_runs.c.id == row["id"]).values(times))


@ON_SQLITE
@pytest.mark.parametrize("fault", [Fault.CUT_SHORT, Fault.EMPTY])
def test_a_list_that_comes_back_short_deactivates_nobody(desk: Reconciling, fault: Fault) -> None:
    """What it does not show is proposed, the mark stays, and the next whole listing makes everything good."""
    mark = desk.mark()

    with desk.emulator.faults.during(Door.USERS, fault):
        run = desk.run()

    assert run.state is State.NEEDS_APPROVAL
    assert run.held_back
    assert active(desk) >= PEOPLE
    assert len(desk.groups()) == 2
    assert desk.mark() == mark
    again = desk.run()
    assert again.state is State.DONE
    assert active(desk) == PEOPLE + 1
    assert desk.now(run).state is State.CANCELLED
    assert (desk.mark() or 0) > (mark or 0)


def test_a_group_that_somebody_is_in_is_there(desk: Reconciling) -> None:
    """Whatever the list of groups says. One that nobody is in, and that is not listed, is gone."""
    desk.group("Deserted")
    assert desk.run().changes["groups_created"] == 1
    with desk.emulator.faults.during(Door.GROUPS, Fault.EMPTY):
        run = desk.run()
    assert (run.state, run.changes["groups_deleted"]) == (State.DONE, 1)
    assert sorted(group["name"] for group in desk.groups()) == ["Berlin", "Sales"]
    assert desk.run().changes["groups_updated"] == 1


@ON_SQLITE
@pytest.mark.parametrize("fault", [Fault.TOTAL_ONE_MORE])
def test_a_total_that_disagrees_holds_every_removal_back(desk: Reconciling, fault: Fault) -> None:
    """Even of a single person; the newcomer of that listing is there all the same."""
    leaver = people(desk)[0]
    desk.purge(leaver)
    mark = desk.mark()

    with desk.emulator.faults.during(Door.DIRECTORIES, fault):
        run = desk.run()

    assert proposed(run) == {leaver.id}
    assert active(desk) == PEOPLE + 1
    assert desk.mark() == mark


def test_where_totals_were_never_right_removals_are_always_proposals(reconciling: Reconciling) -> None:
    """Protobuf does not tell a total of 0 from none."""
    with reconciling.emulator.faults.during(Door.DIRECTORIES, Fault.TOTAL_ZERO):
        leaver, *_ = reconciling.hire(PEOPLE)
        reconciling.run()
        reconciling.purge(leaver)
        assert proposed(reconciling.run()) == {leaver.id}


@ON_SQLITE
@pytest.mark.parametrize("fault", [Fault.DETAIL_MISSING, Fault.ACTIVE_MISSING])
def test_where_active_was_never_said_newcomers_are_inactive_and_removals_are_proposals(reconciling: Reconciling, fault: Fault) -> None:
    """And reported; a webhook that says more makes them active."""
    with reconciling.emulator.faults.during(Door.USERS, fault):
        leaver, *_ = hired = reconciling.hire(10)
        run = reconciling.run()
        assert {each["what"] for each in run.drift if each["type"] == "user"} == {"missing_here", "active_unsaid"}
        assert active(reconciling) == 0
        assert reconciling.mark() is None
        reconciling.purge(leaver)
        assert proposed(reconciling.run()) == {leaver.id}
    reconciling.hear()
    assert active(reconciling) == len(hired) - 1


@ON_SQLITE
@pytest.mark.parametrize("fault", [Fault.DETAIL_MISSING, Fault.ACTIVE_MISSING])
def test_where_active_is_not_said_once_everybody_stays_as_they_are(desk: Reconciling, fault: Fault) -> None:
    """Active or not; and no mark is set."""
    suspended = people(desk)[0]
    desk.emulator.people.suspend(suspended.id)
    desk.run()
    assert active(desk) == PEOPLE
    mark = desk.mark()
    restored, other = people(desk)[0:2]
    desk.emulator.people.restore(restored.id)
    desk.emulator.people.suspend(other.id)

    with desk.emulator.faults.during(Door.USERS, fault):
        run = desk.run()

    assert run.state is State.DONE
    assert {each["what"] for each in run.drift} >= {"active_unsaid"}
    assert (active(desk), desk.mark()) == (PEOPLE, mark)
    assert suspended.email in {each["email"] for each in desk.users(active="false")}


@ON_SQLITE
@pytest.mark.parametrize("door", [Door.USERS, Door.GROUPS])
def test_a_list_that_never_ends_fails_the_run(desk: Reconciling, door: Door) -> None:
    """The same page for ever: what was applied by then stays, nothing is removed, the mark stays."""
    mark = desk.mark()
    desk.purge(people(desk)[0])
    with desk.emulator.faults.during(door, Fault.SAME_PAGE):
        run = desk.run()
    assert run.state is State.FAILED
    assert run.error
    assert active(desk) >= PEOPLE
    assert desk.mark() == mark


@ON_SQLITE
def test_a_page_that_fails_for_ever_fails_the_run(desk: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some tries; one that fails twice is read all the same."""
    monkeypatch.setattr("provisioning.scalekit.directories.FIRST_PAUSE", 0.001)
    desk.purge(people(desk)[0])
    mark = desk.mark()
    with desk.emulator.faults.during(Door.USERS, Fault.LATER_PAGES_FAIL):
        run = desk.run()
    assert run.state is State.FAILED
    assert (active(desk), desk.mark()) == (PEOPLE, mark)

    with desk.emulator.faults.during(Door.USERS, Fault.LATER_PAGES_FAIL_TWICE):
        assert desk.run().state is State.DONE
    assert active(desk) == PEOPLE
    assert len(desk.users(active="false")) == 1


def test_a_directory_that_is_gone_takes_nobody_along_unasked(desk: Reconciling) -> None:
    """However few are in it; approval removes them."""
    second = desk.emulator.structure.add_directory(desk.organization_id, Provider.GOOGLE)
    theirs = desk.hire(2, directory=second.id)
    desk.run()
    mark = desk.mark()
    desk.emulator.structure.delete_directory(second.id)

    run = desk.run()

    assert proposed(run) == {each.id for each in theirs}
    assert (active(desk), desk.mark()) == (PEOPLE + 3, mark)
    assert desk.approve(run).state is State.DONE
    assert active(desk) == PEOPLE + 1


def test_a_directory_that_is_gone_takes_nobody_along_who_may_be_of_it(desk: Reconciling) -> None:
    """Who was heard of only by webhook, and is listed nowhere, may have been in it."""
    second = desk.emulator.structure.add_directory(desk.organization_id, Provider.GOOGLE)
    (theirs,) = desk.hire(1, directory=second.id)
    desk.hear()
    desk.emulator.structure.delete_directory(second.id)

    run = desk.run()

    assert proposed(run) == {theirs.id}
    assert active(desk) == PEOPLE + 2


def test_an_organization_that_scalekit_does_not_know_any_more_loses_nobody_unasked(desk: Reconciling) -> None:
    """Everybody is proposed; approval deactivates them, and the next run says again that it is unknown, and sets no mark."""
    mark = desk.mark()
    desk.emulator.structure.delete_organization(desk.organization_id)

    run = desk.run()

    assert len(proposed(run)) == PEOPLE
    assert (active(desk), desk.mark()) == (PEOPLE, mark)
    desk.approve(run)
    assert active(desk) == 0
    desk.run()
    assert desk.mark() == mark


def test_an_organization_that_scalekit_never_knew_is_only_reported(reconciling: Reconciling) -> None:
    """It may be another environment's: nothing is proposed."""
    reconciling.hire(3)
    reconciling.hear()
    reconciling.emulator.structure.delete_organization(reconciling.organization_id)

    run = reconciling.run()

    assert (run.state, run.proposal) == (State.FAILED, None)
    assert run.error
    assert run.error.startswith("unknown")
    assert active(reconciling) == 3


def test_when_nobody_is_left_whom_we_knew_somebody_is_asked(reconciling: Reconciling) -> None:
    """Though others are listed in their place, which makes those who left no smaller a part of those who were here."""
    before = reconciling.hire(5)
    reconciling.run()
    reconciling.purge(*before)
    reconciling.hire(5)

    run = reconciling.run()

    assert proposed(run) == {each.id for each in before}
    assert active(reconciling) == 10


def test_newcomers_make_a_mass_leave_no_smaller(desk: Reconciling) -> None:
    """Eleven of fifty are more than a fifth, whoever comes at the same time; a dry run says so as well."""
    leavers = people(desk)[:11]
    desk.purge(*leavers)
    desk.hire(40)

    dry = desk.run(dry_run=True)
    run = desk.run()

    assert proposed(run) == {each.id for each in leavers}
    assert (dry.held_back, dry.proposal) == (run.held_back, run.proposal)
    assert active(desk) == PEOPLE + 41


def test_small_leaves_go_through_and_the_sum_of_a_day_counts(desk: Reconciling) -> None:
    """A fifth may go within 24 hours, in however many runs; after a day it is a new count."""
    crew = people(desk)
    for start in (0, 5):
        desk.purge(*crew[start : start + 5])
        assert desk.run().state is State.DONE
    assert active(desk) == PEOPLE - 9
    desk.purge(*crew[10:12])
    assert proposed(desk.run()) == {each.id for each in crew[10:12]}
    age(desk, 25)
    assert desk.run().state is State.DONE
    assert active(desk) == PEOPLE - 11


def test_approval_removes_those_proposed_who_are_still_gone_and_nobody_else(desk: Reconciling) -> None:
    """One who is back stays; one who left since is for another run; what approval removed counts for no day."""
    crew = people(desk)
    leavers, back, later = crew[:20], crew[0], crew[30]
    desk.purge(*leavers[1:])
    with desk.emulator.company.changing() as change:
        change.put(back.model_copy(update={"listed": False}))
    run = desk.run()
    assert proposed(run) == {each.id for each in leavers}
    assert active(desk) == PEOPLE + 1
    with desk.emulator.company.changing() as change:
        change.put(back)
    desk.purge(later)

    done = desk.approve(run, "anna")

    assert (done.id, done.state, done.approved_by) == (run.id, State.DONE, "anna")
    assert {each["email"] for each in desk.users(active="false")} == {each.email for each in leavers} - {back.email}
    final = desk.run()
    assert (final.state, final.changes["users_deactivated"]) == (State.DONE, 1)
    with pytest.raises(Conflict):
        desk.approve(desk.now(run))


def test_a_proposal_lapses_after_a_day_and_with_the_next_run(desk: Reconciling) -> None:
    """A dry run does not supersede it."""
    desk.purge(*people(desk)[:20])
    first = desk.run()
    desk.run(dry_run=True)
    assert desk.now(first).state is State.NEEDS_APPROVAL
    second = desk.run()
    assert (desk.now(first).state, second.state) == (State.CANCELLED, State.NEEDS_APPROVAL)
    with pytest.raises(Conflict):
        desk.reconciler.approve(desk.now(first), "anna")
    age(desk, 25)
    assert desk.now(second).state is State.CANCELLED
    with pytest.raises(Conflict):
        desk.reconciler.approve(desk.now(second), "anna")
    assert active(desk) == PEOPLE + 1


def test_a_short_list_of_strangers_sets_no_mark(reconciling: Reconciling) -> None:
    """Nobody is missing who is here, and yet it is not the whole: what is on its way about the others is not to be refused."""
    reconciling.hire(PEOPLE)
    with reconciling.emulator.faults.during(Door.USERS, Fault.CUT_SHORT):
        run = reconciling.run()
    assert (run.listed_users, reconciling.mark()) == (PEOPLE * 2 // 5, None)
    reconciling.run()
    assert reconciling.mark()


@pytest.mark.parametrize(("door", "kind"), [("groups", "groups"), ("memberships", "memberships"), ("roles", "role grants")])
def test_groups_memberships_and_grants_are_guarded_likewise(desk: Reconciling, door: str, kind: str) -> None:
    """Each by its own number: the rest is applied."""
    structure, crew = desk.emulator.structure, people(desk)
    sales = desk.emulator.company.group("Sales", desk.directory.id).id
    if door == "groups":
        for group in desk.emulator.company.groups(desk.directory.id):
            structure.delete_group(group.id)
    elif door == "memberships":
        for each in crew[:20]:
            desk.emulator.people.regroup(each.id, remove=["Sales"])
    else:
        structure.map_role(sales, "seller")
        desk.run()
        structure.map_role(sales, None)
    (new,) = desk.hire(1)
    before = desk.dump()

    run = desk.run()
    after = desk.dump()

    assert run.state is State.NEEDS_APPROVAL
    assert any(kind in each for each in run.held_back)
    assert new.email in {each["email"] for each in desk.users(active="true")}
    for name in ("memberships", "role_grants"):
        assert [row for row in before[name] if row not in after[name]] == []
    assert desk.approve(run).state is State.DONE
    assert desk.run().state is State.DONE


def test_a_dry_run_proposes_what_the_real_one_then_does(desk: Reconciling) -> None:
    """And asks nobody."""
    leavers = people(desk)[:20]
    desk.purge(*leavers)
    dry = desk.run(dry_run=True)
    run = desk.run()
    assert (dry.state, run.state) == (State.DONE, State.NEEDS_APPROVAL)
    assert (dry.held_back, dry.proposal, dry.changes) == (run.held_back, run.proposal, run.changes)
    with pytest.raises(Conflict):
        desk.reconciler.approve(desk.now(dry), "anna")


def test_in_an_organization_of_one_the_last_does_not_go_unasked(reconciling: Reconciling) -> None:
    """More than half is never a small number."""
    (only,) = reconciling.hire(1)
    reconciling.run()
    reconciling.purge(only)
    assert proposed(reconciling.run()) == {only.id}
    assert active(reconciling) == 1
