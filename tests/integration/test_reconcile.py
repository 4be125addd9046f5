"""What a reconcile finds and mends: whatever the webhooks missed, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from provisioning.db.runs import Run, State
from provisioning.emulator.comparison import Difference
from provisioning.emulator.records import Provider, User
from reconciling import Reconciling, connected

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

pytestmark = pytest.mark.usefixtures("exact_clock")


@pytest.fixture(params=(Provider.OKTA, Provider.ENTRA_ID, Provider.GOOGLE), ids=lambda each: str(each.value))
def of_a_provider(emulator: Emulator, database_url: str, request: pytest.FixtureRequest) -> Iterator[Reconciling]:
    """The same as `reconciling`, of each provider that leavers leave in another way."""
    with connected(emulator, database_url, request.node.name, request.param) as desk:
        yield desk


def counted(run: Run) -> dict[str, int]:
    """What the run changed."""
    assert (run.state, run.error, run.held_back) == (State.DONE, None, [])
    return {name: number for name, number in run.changes.items() if number}


def differences(desk: Reconciling) -> list[Difference]:
    """Those there are, less the default role, which no list of a directory shows: a run leaves it to the webhooks."""
    default = {desk.directory.default_role}

    def told(each: Difference) -> bool:
        return each.field == "user's roles" and set(map(str, each.directory)) - default == set(map(str, each.service)) - default  # type: ignore[call-overload] # lists

    return [each for each in desk.differences() if not told(each)]


def findings(run: Run) -> list[tuple[object, object, object]]:
    """What was found of whom."""
    return sorted((each["what"], each["type"], each["id"]) for each in run.drift)


def fields(run: Run, id_: str) -> dict[str, Any]:
    """What the run says of one record, field by field, before and after."""
    (found,) = [each for each in run.drift if each["id"] == id_]
    shown: Any = found.get("fields", {})
    return {name: (pair["before"], pair["after"]) for name, pair in shown.items()}


def assert_settled(desk: Reconciling) -> None:
    """The service is what the directory is, and another run writes nothing but its own row and the mark."""
    assert differences(desk) == []
    before = desk.dump()
    with desk.writes() as statements:
        assert counted(desk.run()) == {}
    after = desk.dump()
    known = {row["id"] for row in before["reconcile_runs"]}
    assert [row for row in after["reconcile_runs"] if row["id"] in known] == before["reconcile_runs"]
    for rows in (before, after):
        del rows["reconcile_runs"]
        for organization in rows["organizations"]:
            del organization["complete_as_of"]
    assert after == before
    assert {statement.split()[1 if statement.startswith("UPDATE") else 2] for statement in statements} <= {
        "reconcile_runs",
        "organizations",
    }


def test_an_empty_database_becomes_what_the_directory_is(reconciling: Reconciling) -> None:
    """With groups, memberships and the roles of the mapping."""
    sales = reconciling.group("Sales")
    reconciling.group("Empty")
    people = reconciling.hire(40) + reconciling.hire(35, "Sales")
    reconciling.emulator.structure.map_role(sales.id, "seller")
    reconciling.emulator.people.suspend(people[0].id)

    run = reconciling.run()

    assert counted(run) == {"users_created": 75, "groups_created": 2, "memberships_added": 35, "roles_granted": 35}
    assert (run.listed_users, run.listed_groups) == (75, 2)
    assert len(reconciling.users(role="seller")) == 35
    assert len(reconciling.users(active="false")) == 1
    assert reconciling.complete_as_of()
    assert_settled(reconciling)


def place(desk: Reconciling, name: str) -> str:
    """The id of the group of this name."""
    return desk.emulator.company.group(name, desk.directory.id).id


Change = Callable[[Reconciling, User], object]
CHANGES: dict[str, tuple[Change, dict[str, int]]] = {
    "renamed": (lambda desk, person: desk.emulator.people.rename(person.id, given_name="Renata"), {"users_updated": 1}),
    "new address": (lambda desk, person: desk.emulator.people.rename(person.id, email="other@acme.example"), {"users_updated": 1}),
    "suspended": (
        lambda desk, person: desk.emulator.people.suspend(person.id),
        {"users_deactivated": 1, "users_updated": 1},
    ),  # what the provider sent is an attribute
    "joins a group": (lambda desk, person: desk.emulator.people.regroup(person.id, add=["Berlin"]), {"memberships_added": 1}),
    "leaves a group": (lambda desk, person: desk.emulator.people.regroup(person.id, remove=["Sales"]), {"memberships_removed": 1}),
    "changes groups": (
        lambda desk, person: desk.emulator.people.regroup(person.id, add=["Berlin"], remove=["Sales"]),
        {"memberships_added": 1, "memberships_removed": 1},
    ),
    "purged": (lambda desk, person: desk.purge(person), {"users_deactivated": 1}),
    "a group is renamed": (lambda desk, _: desk.emulator.structure.rename_group(place(desk, "Sales"), "Sales EMEA"), {"groups_updated": 1}),
    "a new group": (lambda desk, _: desk.group("Paris"), {"groups_created": 1}),
    "an empty group is deleted": (lambda desk, _: desk.emulator.structure.delete_group(place(desk, "Berlin")), {"groups_deleted": 1}),
}


@pytest.mark.parametrize(
    ("database_url", "heard"),
    [
        pytest.param("sqlite", True, id="sqlite-after webhooks"),
        pytest.param("postgresql", False, id="postgresql-after a run"),
        pytest.param("sqlite", False, id="sqlite-after a run", marks=pytest.mark.proof),
        pytest.param("postgresql", True, id="postgresql-after webhooks", marks=pytest.mark.proof),
    ],
    indirect=["database_url"],
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_which_no_webhook_told_is_mended(reconciling: Reconciling, change: str, *, heard: bool) -> None:
    """Whichever way the record was known; a dry run says the same before, and changes nothing."""
    for name in ("Sales", "Berlin", "Rome"):
        reconciling.group(name)
    people = reconciling.hire(20, "Sales", "Rome")
    if heard:
        reconciling.hear()
    reconciling.run()
    assert differences(reconciling) == []
    make, expected = CHANGES[change]

    make(reconciling, people[3])

    before = {**reconciling.dump(), "reconcile_runs": []}
    dry = reconciling.run(dry_run=True)
    assert {**reconciling.dump(), "reconcile_runs": []} == before
    run = reconciling.run()
    assert counted(run) == counted(dry) == expected
    assert findings(run) == findings(dry)
    assert_settled(reconciling)


def test_whoever_is_fired_is_deactivated_and_comes_back_when_restored(of_a_provider: Reconciling) -> None:
    """Whether the directory goes on listing them as inactive, renames them (Entra ID), or forgets them."""
    desk = of_a_provider
    people = desk.hire(20)
    desk.run()
    leavers = people[:3]
    for each in leavers:
        desk.emulator.people.fire(each.id)

    run = desk.run()

    assert counted(run)["users_deactivated"] == 3
    assert {each["email"] for each in desk.users(active="false")} == {each.email for each in leavers}
    assert_settled(desk)
    for each in leavers:
        desk.emulator.people.restore(each.id)
    back = counted(desk.run())
    assert back.get("users_reactivated", 0) + back.get("users_created", 0) == 3
    assert_settled(desk)
    assert len(desk.users(active="true")) == len(desk.users()) == 20


def test_the_report_says_field_by_field_what_was_and_what_is(reconciling: Reconciling) -> None:
    """Of every record that changed."""
    person, gone, *_ = reconciling.hire(20)
    sales = reconciling.group("Sales")
    reconciling.run()
    reconciling.emulator.people.rename(person.id, given_name="Renata", email="renata@acme.example")
    reconciling.emulator.people.suspend(person.id)
    reconciling.emulator.structure.rename_group(sales.id, "Sales EMEA")
    reconciling.purge(gone)
    (new,) = reconciling.hire(1)

    run = reconciling.run()

    shown = fields(run, person.id)
    assert shown.pop("raw_attributes")
    assert shown == {
        "active": (True, False),
        "email": (person.email, "renata@acme.example"),
        "preferred_username": (person.email, "renata@acme.example"),
        "given_name": (person.given_name, "Renata"),
        "name": (person.name, f"Renata {person.family_name}"),
    }
    assert fields(run, sales.id) == {"name": ("Sales", "Sales EMEA")}
    assert findings(run) == sorted(
        [
            ("changed", "user", person.id),
            ("changed", "group", sales.id),
            ("gone_there", "user", gone.id),
            ("missing_here", "user", new.id),
        ]
    )


def test_roles_follow_the_mapping_and_a_default_role_stays(reconciling: Reconciling) -> None:
    """Added, changed and removed without a word; whoever has a role that no mapping names keeps it."""
    desk = reconciling
    desk.group("Sales")
    desk.group("Other")
    desk.hire(40, "Other")
    sellers = {each.id for each in desk.hire(3, "Sales")}
    desk.hear()
    assert len(desk.users(role="member")) == 43
    desk.run()

    for role, expected in (
        ("seller", {"roles_granted": 3}),
        ("trader", {"roles_granted": 3, "roles_revoked": 3}),
        (None, {"roles_revoked": 3}),
    ):
        desk.emulator.structure.map_role(place(desk, "Sales"), role, resend=False)
        assert counted(desk.run()) == expected
        for user in desk.users():
            (behind,) = user["directory_users"]
            mapped = {role} if role and behind["id"] in sellers else set()
            assert set(user["roles"]) == {"member", *mapped}
        assert_settled(desk)


def test_people_known_only_by_webhook_get_their_directory_without_a_word(reconciling: Reconciling) -> None:
    """No webhook says in which one they are: to learn it is no drift."""
    reconciling.hire(4)
    reconciling.hear()

    run = reconciling.run()

    assert (counted(run), run.drift) == ({}, [])
    behind = [each for user in reconciling.users() for each in user["directory_users"]]
    assert {each["directory_id"] for each in behind} == {reconciling.directory.id}
    assert_settled(reconciling)


def test_directories_are_known_and_enabled_as_they_are_there(reconciling: Reconciling) -> None:
    """One that nobody told of, one that was disabled or enabled without a word."""
    desk, structure = reconciling, reconciling.emulator.structure
    second = structure.add_directory(desk.organization_id, Provider.GOOGLE)
    desk.hire(4)
    desk.hire(3, directory=second.id)
    assert findings(desk.run())[:2] == sorted([("missing_here", "directory", each) for each in (desk.directory.id, second.id)])
    assert_settled(desk)

    structure.disable_directory(second.id)
    assert fields(desk.run(), second.id) == {"enabled": (True, False)}
    assert_settled_but_mark(desk)
    structure.enable_directory(second.id)
    assert fields(desk.run(), second.id) == {"enabled": (False, True)}
    assert_settled(desk)


def assert_settled_but_mark(desk: Reconciling) -> None:
    assert differences(desk) == []
    mark = desk.mark()
    assert counted(desk.run()) == {}
    assert desk.mark() == mark


def test_the_people_of_a_disabled_directory_stay_as_they_are(reconciling: Reconciling) -> None:
    """And no mark is set while events about them may be on their way."""
    desk = reconciling
    desk.hire(10)
    desk.run()
    desk.emulator.structure.disable_directory(desk.directory.id)
    mark = desk.mark()

    assert counted(desk.run()) == {}

    assert len(desk.users(active="true")) == 10
    assert desk.mark() == mark


def test_people_of_unknown_directory_stay_while_one_is_disabled(reconciling: Reconciling) -> None:
    """Who was heard of only by webhook may be of the disabled one."""
    desk = reconciling
    second = desk.emulator.structure.add_directory(desk.organization_id, Provider.GOOGLE)
    desk.hire(10)
    (theirs,) = desk.hire(1, directory=second.id)
    desk.hear()
    desk.emulator.structure.disable_directory(second.id)

    assert counted(desk.run()) == {}

    assert theirs.email in {each["email"] for each in desk.users(active="true")}


@pytest.mark.parametrize(("patience", "active"), [(timedelta(days=30), 10), (timedelta(microseconds=1), 0)])
def test_the_people_of_a_directory_disabled_for_long_are_deactivated_if_wanted(
    emulator: Emulator, database_url: str, request: pytest.FixtureRequest, patience: timedelta, active: int
) -> None:
    """And come back with the directory."""
    with connected(emulator, database_url, request.node.name, disabled_directory=patience) as desk:
        desk.hire(10)
        desk.run()
        emulator.structure.disable_directory(desk.directory.id)
        desk.run()
        desk.run()
        assert len(desk.users(active="true")) == active
        emulator.structure.enable_directory(desk.directory.id)
        desk.run()
        assert len(desk.users(active="true")) == 10
        assert_settled(desk)


def test_a_deleted_group_takes_its_memberships_along(reconciling: Reconciling) -> None:
    """Of which the guard counts none: who was in it is out with it."""
    desk = reconciling
    for name in ("Big", "Small", "Third", "Fourth"):
        desk.group(name)
    desk.hire(20, "Big")
    desk.run()
    desk.emulator.structure.delete_group(place(desk, "Big"))

    assert counted(desk.run()) == {"groups_deleted": 1, "memberships_removed": 20}

    assert_settled(desk)
