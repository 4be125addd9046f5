"""Where a run has to be more careful than it seems: late webhooks, roles that were unmapped meanwhile, records on which something fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from provisioning.db import runs
from provisioning.db.models import reconcile_runs
from provisioning.db.runs import State
from provisioning.directory import ListedUser
from provisioning.dispatcher import Effect, apply
from provisioning.emulator.faults import Door, Fault
from provisioning.emulator.records import Provider, User
from provisioning.errors import Unavailable
from provisioning.events import Delivery, Event
from provisioning.inbox import Inbox
from provisioning.reconcile import applying
from provisioning.reconcile.lease import Lease
from provisioning.scalekit import directories
from provisioning.scalekit.directories import DirectoryReader
from reconciling import Reconciling

pytestmark = pytest.mark.usefixtures("exact_clock")


def changed(desk: Reconciling) -> dict[str, int]:
    """What the next run changes."""
    return {name: number for name, number in desk.run().changes.items() if number}


def test_what_is_held_back_says_nothing_against_a_late_webhook(reconciling: Reconciling) -> None:
    """15 of 20 moved; the run puts them into the new group and holds the old one back. Their webhooks, older than that, still count."""
    reconciling.group("Sales")
    reconciling.group("Berlin")
    crew = reconciling.hire(20, "Sales")
    reconciling.run()
    told = len(reconciling.said())
    for each in crew[:15]:
        reconciling.emulator.people.regroup(each.id, add=["Berlin"], remove=["Sales"])

    run = reconciling.run()
    assert (run.state, run.changes["memberships_added"], run.changes.get("memberships_removed", 0)) == (State.NEEDS_APPROVAL, 15, 0)
    assert {len(user["groups"]) for user in reconciling.users()} == {1, 2}
    reconciling.hear(*reconciling.said()[told:])

    assert sorted(group["name"] for user in reconciling.users() for group in user["groups"]) == ["Berlin"] * 15 + ["Sales"] * 5


def test_a_role_that_somebody_unsettled_has_is_not_forgotten(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was unmapped while a webhook about its owner was newer than the listing: the next run still knows that it was the mapping's."""
    sales = reconciling.group("Sales")
    reconciling.group("Other")
    reconciling.hire(40, "Other")
    person, *_ = reconciling.hire(2, "Sales")
    reconciling.emulator.structure.map_role(sales.id, "admin")
    reconciling.hear()
    reconciling.run()
    assert len(reconciling.users(role="admin")) == 2
    with monkeypatch.context() as patched:
        patched.setitem(reconciling.reconciler._settings.__dict__, "clock_margin", timedelta(minutes=1))
        reconciling.emulator.people.rename(person.id, given_name="Zed")
        reconciling.hear()
        reconciling.emulator.structure.map_role(sales.id, None, resend=False)
        reconciling.run()

    reconciling.run()

    assert reconciling.users(role="admin") == []


def test_people_of_a_disabled_directory_do_not_loosen_the_guard(reconciling: Reconciling) -> None:
    """200 whom nobody lists have memberships too: the 20 who are listed lose theirs only when somebody approves."""
    other = reconciling.emulator.structure.add_directory(reconciling.organization_id, Provider.GOOGLE)
    reconciling.emulator.structure.add_group("All", other.id)
    reconciling.group("Sales")
    crew = reconciling.hire(20, "Sales")
    frozen = reconciling.hire(60, directory=other.id)
    reconciling.emulator.people.settle((user.id, ["All"]) for user in frozen)
    reconciling.run()
    reconciling.emulator.structure.disable_directory(other.id)
    reconciling.run()
    for each in crew[:10]:
        reconciling.emulator.people.regroup(each.id, remove=["Sales"])

    run = reconciling.run()

    assert (run.state, run.held_back) == (State.NEEDS_APPROVAL, ["10 of 20 memberships were not listed."])


def test_a_deleted_groups_memberships_count_as_one_group(reconciling: Reconciling) -> None:
    """So does the day after it."""
    for name in ("Big", "Small", "Third", "Fourth"):
        reconciling.group(name)
    crew = reconciling.hire(20, "Big", "Small")
    reconciling.run()
    reconciling.emulator.structure.delete_group(reconciling.emulator.company.group("Big", reconciling.directory.id).id)
    run = reconciling.run()
    assert (run.state, run.changes["memberships_removed"], run.removed) == (State.DONE, 20, {"groups": 1})
    reconciling.emulator.people.regroup(crew[0].id, remove=["Small"])
    assert changed(reconciling) == {"memberships_removed": 1}


def test_a_membership_goes_only_when_two_listings_do_not_show_it(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaver has the directory listed twice; the second answer alone leaves out five people's groups."""
    reconciling.group("Sales")
    leaver, *crew = reconciling.hire(40, "Sales")
    reconciling.run()
    reconciling.purge(leaver)
    listings = 0
    users = DirectoryReader.users

    def forgetful(self: DirectoryReader, directory_id: str) -> Iterator[list[ListedUser]]:
        nonlocal listings
        listings += 1
        short = {each.id for each in crew[:5]} if listings == 2 else set()
        for page in users(self, directory_id):
            yield [replace(each, groups={}) if each.id in short else each for each in page]

    monkeypatch.setattr(DirectoryReader, "users", forgetful)
    assert changed(reconciling) == {"users_deactivated": 1}
    assert listings == 2


def test_a_directory_that_is_long_gone_casts_no_doubt(reconciling: Reconciling) -> None:
    """Nobody was in it any more; whoever leaves another directory later goes without asking, also if only a webhook ever named them."""
    old = reconciling.emulator.structure.add_directory(reconciling.organization_id, Provider.GOOGLE)
    reconciling.hire(30)
    reconciling.run()
    reconciling.emulator.structure.delete_directory(old.id)
    assert reconciling.run().state is State.DONE
    (person,) = reconciling.hire(1)
    reconciling.hear()
    reconciling.purge(person)
    run = reconciling.run()
    assert (run.state, run.changes["users_deactivated"]) == (State.DONE, 1)


def test_a_record_on_which_something_fails_fails_the_run_and_nobody_else(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its batch are brought; what failed is reported, the mark stays, and the next run settles it."""
    first, *_ = reconciling.hire(20)
    real: Callable[..., list[Effect]] = apply

    def broken(session: Session, events: Sequence[Event], *rest: object, **named: object) -> list[Effect]:
        if any(event.subject_id == first.id for event in events):
            raise RuntimeError("boom")
        return real(session, events, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(applying, "apply", broken)
        run = reconciling.run()
    assert (run.state, run.changes["users_created"], len(reconciling.users())) == (State.FAILED, 19, 19)
    assert run.error
    assert [each["id"] for each in run.drift if each["what"] == "failed"] == [first.id]
    assert reconciling.mark() is None
    assert changed(reconciling) == {"users_created": 1}


def test_a_database_that_is_away_leaves_the_run_to_others(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the run that failed."""
    (person,) = reconciling.hire(1)

    def away(*_: object, **__: object) -> None:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr("provisioning.reconcile.run.known.strength", away)
        patched.setattr(applying, "PAUSES", (0,))
        run = reconciling.run()
    assert run.state is State.RUNNING
    with reconciling.database.writing() as session:
        session.execute(update(reconcile_runs).values(leased_until=datetime.now(UTC) - timedelta(seconds=1)))
    assert reconciling.work(run).state is State.DONE
    assert reconciling.users(directory_user_id=person.id)


def test_a_first_import_that_fails_is_asked_for_again(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later each time: nobody else would ask. One that Scalekit refuses for good is not."""
    monkeypatch.setattr(directories, "FIRST_PAUSE", 0.001)
    people: list[User] = reconciling.hire(3)
    (enabled,) = [event for event in reconciling.said() if event.type == "organization.directory_enabled"]
    delivery = Delivery(enabled.id, int(time.time()), datetime.now(UTC), enabled.body.encode())
    Inbox(reconciling.database, import_directories=True).receive([delivery])

    def waiting() -> list[timedelta]:
        rows = reconciling.dump()["reconcile_runs"]
        return [row["due_at"] - row["requested_at"] for row in rows if row["state"] == "queued"]

    def work() -> None:
        with reconciling.database.writing() as session:
            session.execute(update(reconcile_runs).values(due_at=datetime.now(UTC) - timedelta(seconds=1)))
        go_on = reconciling.reconciler.claim()
        assert go_on
        go_on()

    assert waiting() == [timedelta(seconds=10)]
    with reconciling.emulator.faults.during(Door.API, Fault.AWAY):
        work()
        assert waiting() == [timedelta(minutes=1)]
        work()
        assert waiting() == [timedelta(minutes=2)]
    work()
    assert waiting() == []
    assert len(reconciling.users()) == len(people)


def test_who_comes_back_has_the_default_role_of_before(reconciling: Reconciling) -> None:
    """No list shows it, so a run takes it from nobody: not from who was missing for a day either."""
    sales = reconciling.group("Sales")
    crew = reconciling.hire(20, "Sales")
    reconciling.emulator.structure.map_role(sales.id, "seller")
    other, *_ = reconciling.hire(1)
    reconciling.hear()
    reconciling.run()
    before = {user["id"]: user["roles"] for user in reconciling.users()}
    assert ["member"] in before.values()
    with reconciling.emulator.company.silent(), reconciling.emulator.company.changing() as change:
        for each in (crew[0], other):
            change.put(each.model_copy(update={"listed": False}))
    assert changed(reconciling) == {"users_deactivated": 2}
    assert [user["roles"] for user in reconciling.users(active="false")] == [[], []]
    with reconciling.emulator.company.silent(), reconciling.emulator.company.changing() as change:
        for each in (crew[0], other):
            change.put(each)
    assert changed(reconciling)["users_reactivated"] == 2
    assert {user["id"]: user["roles"] for user in reconciling.users()} == before


def test_who_comes_back_has_no_role_of_a_mapping_that_is_no_more(reconciling: Reconciling) -> None:
    """It was unmapped while they were gone, and by then no run knows any more that it was the mapping's."""
    sales = reconciling.group("Sales")
    reconciling.group("Other")
    crew = reconciling.hire(20, "Other")
    seller, *_ = reconciling.hire(2, "Sales")
    reconciling.emulator.structure.map_role(sales.id, "seller")
    reconciling.hear()
    reconciling.run()
    with reconciling.emulator.company.silent(), reconciling.emulator.company.changing() as change:
        change.put(seller.model_copy(update={"listed": False}))
    assert changed(reconciling) == {"users_deactivated": 1}
    reconciling.emulator.structure.map_role(sales.id, None, resend=False)
    assert changed(reconciling) == {"roles_revoked": 1}
    reconciling.run()
    with reconciling.emulator.company.silent(), reconciling.emulator.company.changing() as change:
        change.put(seller)
    reconciling.run()
    assert len(reconciling.users(active="true")) == len(crew) + 2
    assert reconciling.users(role="seller") == []


def test_what_cannot_be_removed_yet_is_not_proposed(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody of whom a webhook spoke within the clock's margin is unsettled: nobody is asked to approve what would not happen."""
    crew = reconciling.hire(20)
    reconciling.hear()
    reconciling.run()
    reconciling.emulator.people.rename(crew[0].id, given_name="Zed")
    reconciling.hear()
    reconciling.purge(*crew[:12])
    with monkeypatch.context() as patched:
        patched.setitem(reconciling.reconciler._settings.__dict__, "clock_margin", timedelta(minutes=1))
        all_recent = reconciling.run()
    assert (all_recent.state, all_recent.proposal) == (State.DONE, None)
    assert {each["what"] for each in all_recent.drift} == {"unsettled"}

    run = reconciling.run()
    assert run.state is State.NEEDS_APPROVAL
    assert run.proposal
    assert len(str(run.proposal["people"]).split(",")) == 12
    approved = reconciling.reconciler.approve(run, "anna")
    with monkeypatch.context() as patched:
        patched.setitem(reconciling.reconciler._settings.__dict__, "clock_margin", timedelta(minutes=1))
        ended = reconciling.work(approved)
    assert ended.error
    assert ended.error.startswith("12 of those approved were not removed")
    assert len(reconciling.users(active="true")) == 20


def test_a_beat_takes_back_nothing(reconciling: Reconciling) -> None:
    """The heartbeat says how far the listing is; what was removed only the transaction says that removed it."""
    run, _ = reconciling.reconciler.request(reconciling.organization_id, dry_run=False, requested_by="test")
    with reconciling.database.writing() as session:
        claimed = runs.claim(session, owner="me", now=datetime.now(UTC), lease=timedelta(minutes=1))
    assert claimed
    lease = Lease(reconciling.database, claimed, "me", threading.Event())
    with reconciling.database.writing() as session:
        lease.write(session, removed={"people": 5})
    lease.progress.listed_users = 7
    with reconciling.database.writing() as session:
        lease._renew(session, lease.progress.listed())
    now = reconciling.now(run)
    assert (now.listed_users, now.removed) == (7, {"people": 5})
