"""What the emulator's directories say when something changes, in each provider's style. The service's own reader judges the events."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine

from provisioning.emulator.company import Company
from provisioning.emulator.facts import Ticks
from provisioning.emulator.people import Newcomer, People
from provisioning.emulator.records import Directory, Provider, State
from provisioning.emulator.store import Store
from provisioning.emulator.structure import Structure
from provisioning.errors import ConfigurationError, Conflict, NotFound
from provisioning.events import Delivery, parse

ADA = Newcomer("Ada", "Lovelace", "ada@acme.example", "Analyst", "Engineering", ["Engineering"])


class World:
    """One company with one directory and two groups, and what it says from then on."""

    def __init__(self, provider: Provider, store: Store | None = None) -> None:
        self.company = Company(store or Store())
        self.people, self.structure = People(self.company), Structure(self.company)
        organization = self.structure.add_organization("Acme")
        self.directory: Directory = self.structure.add_directory(organization.id, provider)
        for name in ("Engineering", "Sales"):
            self.structure.add_group(name, self.directory.id)
        self._heard = len(self.company.events())

    def said(self) -> list[tuple[str, dict[str, Any]]]:
        """Type and data of every event since the last call; each is one that the service understands."""
        events = self.company.events()[self._heard :]
        self._heard += len(events)
        for event in events:
            now = datetime.now(UTC)
            assert parse(Delivery("msg", int(now.timestamp()), now, event.body.encode())).event is not None, event.body
        return [(event.type.rpartition(".")[2], json.loads(event.body)["data"]) for event in events]

    def types(self) -> list[str]:
        """Only the types."""
        return [kind for kind, _ in self.said()]


@pytest.mark.parametrize("provider", Provider)
def test_somebody_new_is_created_with_or_before_their_groups(provider: Provider) -> None:
    """Google's people come with their groups; the others' `groups` are null at first, and an update follows."""
    world = World(provider)
    ada = world.people.hire(ADA)
    first, *more = world.said()
    assert first[0] == "user_created"
    assert (first[1]["email"], first[1]["dp_id"], first[1]["active"], first[1]["roles"]) == (
        ada.email,
        ada.dp_id,
        True,
        [{"role_name": "member"}],
    )
    last = [*more, first][0][1]
    assert [group["name"] for group in last["groups"]] == ["Engineering"]
    assert [kind for kind, _ in more] == ([] if provider is Provider.GOOGLE else ["user_updated"])
    if more:
        assert first[1]["groups"] is None


@pytest.mark.parametrize("provider", Provider)
def test_a_suspension_is_an_update_and_so_is_its_end(provider: Provider) -> None:
    """`active` flips and flips back; nothing is deleted."""
    world = World(provider)
    ada = world.people.hire(ADA)
    world.said()
    world.people.suspend(ada.email)
    world.people.restore(ada.email)
    assert [(kind, data["active"], data["id"]) for kind, data in world.said()] == [
        ("user_updated", False, ada.id),
        ("user_updated", True, ada.id),
    ]


@pytest.mark.parametrize(
    ("provider", "types"),
    [
        (Provider.OKTA, ["user_updated"]),
        (Provider.ENTRA_ID, ["user_updated"]),
        (Provider.GOOGLE, ["user_deleted"]),
        (Provider.JUMPCLOUD, ["user_updated", "user_deleted"]),
    ],
)
def test_everybody_fires_in_their_own_way(provider: Provider, types: list[str]) -> None:
    """And whom Scalekit has deleted comes back as somebody new, with the old id upstream; the others as themselves."""
    world = World(provider)
    ada = world.people.hire(ADA)
    world.said()
    gone = world.people.fire(ada.id)
    said = world.said()
    assert [kind for kind, _ in said] == types
    assert gone.state is State.GONE
    assert gone.listed is (types[-1] == "user_updated")
    assert all(data["active"] is False for kind, data in said if kind == "user_updated")
    assert all(data.keys() == {"id", "organization_id", "dp_id", "email"} for kind, data in said if kind == "user_deleted")
    with pytest.raises(Conflict, match="gone"):
        world.people.fire(ada.id)

    back = world.people.restore(gone.email)
    assert (back.email, back.dp_id, back.groups, back.state) == (ada.email, ada.dp_id, ada.groups, State.ACTIVE)
    assert (back.id == ada.id) is gone.listed
    assert world.types()[0] == ("user_updated" if gone.listed else "user_created")


def test_entra_id_puts_32_digits_before_the_address_of_a_leaver() -> None:
    """In the e-mail and in the user name; a month later the person is purged."""
    world = World(Provider.ENTRA_ID)
    ada = world.people.hire(ADA)
    world.said()
    gone = world.people.fire(ada.id)
    [(_, data)] = world.said()
    assert re.fullmatch(r"[0-9a-f]{32}ada@acme\.example", data["email"])
    assert data["preferred_username"] == data["email"] == gone.email
    world.people.purge(gone.email)
    assert world.types() == ["user_deleted"]
    with pytest.raises(NotFound):
        world.company.user(ada.id)


@pytest.mark.parametrize(
    ("provider", "number"), [(Provider.OKTA, 1), (Provider.ENTRA_ID, 2), (Provider.GOOGLE, 1), (Provider.JUMPCLOUD, 2)]
)
def test_who_is_piecemeal_says_each_attribute_by_itself(provider: Provider, number: int) -> None:
    """A new name and a new address at once; the last event has both. The same again is nothing."""
    world = World(provider)
    ada = world.people.hire(ADA)
    world.said()
    for _ in range(2):
        world.people.rename(ada.id, family_name="King", email="ada.king@acme.example")
    said = world.said()
    assert [kind for kind, _ in said] == ["user_updated"] * number
    assert (said[-1][1]["family_name"], said[-1][1]["email"], said[-1][1]["name"]) == ("King", "ada.king@acme.example", "Ada King")


def test_a_move_changes_department_and_group() -> None:
    """The groups that have nothing to do with it stay."""
    world = World(Provider.OKTA)
    ada = world.people.hire(ADA)
    world.structure.add_group("Chess")
    world.people.regroup(ada.id, add=["Chess"])
    world.said()
    moved = world.people.move(ada.id, "Sales", "Account Executive")
    [(kind, data)] = world.said()
    assert (kind, data["department"], data["title"]) == ("user_updated", "Sales", "Account Executive")
    assert {group["name"] for group in data["groups"]} == {"Sales", "Chess"}
    assert world.people.regroup(moved.id, remove=["Sales", "Chess"]).groups == ()
    assert world.said()[0][1]["groups"] is None


def test_a_deleted_group_takes_an_event_of_each_member_along() -> None:
    """And its upstream id has another name there."""
    world = World(Provider.OKTA)
    for n in range(3):
        world.people.hire(Newcomer("N", str(n), f"{n}@acme.example", groups=["Engineering"]))
    world.structure.map_role("Engineering", "admin")
    assert world.said()[-1][1]["roles"] == [{"role_name": "admin"}]
    group = world.structure.delete_group("Engineering")
    said = world.said()
    assert sorted(kind for kind, _ in said) == ["group_deleted", *["user_updated"] * 3]
    [deleted] = [data for kind, data in said if kind == "group_deleted"]
    assert deleted["dp_id"] == group.external_id
    assert "external_id" not in deleted
    assert all(data["groups"] is None and data["roles"] == [{"role_name": "member"}] for kind, data in said if kind == "user_updated")
    assert world.company.directory(world.directory.id).roles == {}


def test_a_mapped_role_reaches_members_only_when_it_is_sent_again() -> None:
    """Whether Scalekit does is not documented; the directory knows it at once."""
    world = World(Provider.OKTA)
    ada = world.people.hire(ADA)
    world.said()
    world.structure.map_role("Engineering", "admin", resend=False)
    assert world.said() == []
    assert world.company.roles_of(ada) == ["admin"]
    world.structure.map_role("Engineering", None)
    assert [data["roles"] for _, data in world.said()] == [[{"role_name": "member"}]]


def test_a_disabled_directory_is_silent_and_refuses() -> None:
    """Its event carries `enabled: false`, and so does the other one, as documented."""
    world = World(Provider.OKTA)
    ada = world.people.hire(ADA)
    world.said()
    world.structure.disable_directory(world.directory.id)
    world.structure.enable_directory(world.directory.id)
    assert [(kind, data["enabled"]) for kind, data in world.said()] == [("directory_disabled", False), ("directory_enabled", False)]
    world.structure.disable_directory(world.directory.id)
    world.said()
    doings: list[Callable[[], object]] = [
        lambda: world.people.hire(Newcomer("B", "B", "b@acme.example"), world.directory.id),
        lambda: world.people.suspend(ada.id),
        lambda: world.people.fire(ada.id),
        lambda: world.people.purge(ada.id),
        lambda: world.structure.add_group("New", world.directory.id),
        lambda: world.structure.delete_group("Sales"),
        lambda: world.structure.map_role("Sales", "x"),
        lambda: world.structure.disable_directory(world.directory.id),
    ]
    for doing in doings:
        with pytest.raises(Conflict, match="disabled"):
            doing()
    assert world.said() == []


def test_a_deleted_directory_leaves_without_a_word() -> None:
    """With everybody and everything in it."""
    world = World(Provider.OKTA)
    world.people.hire(ADA)
    world.said()
    world.structure.delete_directory(world.directory.id)
    assert world.said() == []
    assert (world.company.users(world.directory.id), world.company.groups(world.directory.id)) == ([], [])


def test_what_is_refused_changes_nothing() -> None:
    """A second person with an address, a group that is not there: neither is half done."""
    world = World(Provider.OKTA)
    ada = world.people.hire(ADA)
    world.said()
    for wrong in (ADA, Newcomer("B", "B", "ADA@acme.example"), Newcomer("B", "B", "b@acme.example", groups=["None"])):
        with pytest.raises((Conflict, NotFound)):
            world.people.hire(wrong)
    with pytest.raises(Conflict):
        world.people.rename(world.people.hire(Newcomer("B", "B", "b@acme.example")).id, email=ada.email)
    assert world.types() == ["user_created"]
    assert len(world.company.users(world.directory.id)) == 2


def test_a_name_of_several_is_no_reference() -> None:
    """The refusal names the ids to choose from."""
    world = World(Provider.OKTA)
    ada = world.people.hire(ADA)
    other = world.structure.add_directory(None, Provider.GOOGLE)
    world.structure.add_group("Engineering", other.id)
    twin = world.people.hire(ADA, other.id)
    with pytest.raises(Conflict, match=f"{ada.id} or {twin.id}"):
        world.people.suspend(ADA.email)
    assert world.company.user(ADA.email, other.id) == twin


def test_ids_and_times_rise_on_every_thread_and_over_a_restart() -> None:
    """Even when the clock went back meanwhile."""
    ticks, found = Ticks(), []

    def draw() -> None:
        found.extend([(ticks.id("evt"), ticks.time()) for _ in range(500)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({event_id for event_id, _ in found}) == len({time for _, time in found}) == 2000
    late = max(time for _, time in found) + 10**15
    again = Ticks(after=late, above=2**62)
    assert again.time() == late + 1
    assert int(again.id("evt").removeprefix("evt_")) > 2**62


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """People, groups, roles and events; times go on from there."""
    store = Store(tmp_path / "state.db")
    world = World(Provider.OKTA, store)
    ada = world.people.hire(ADA)
    world.people.purge(world.people.hire(Newcomer("B", "B", "b@acme.example")).id)
    world.structure.map_role("Engineering", "admin")
    world.structure.delete_group("Sales")
    store.close()

    again = Company(Store(tmp_path / "state.db"))
    assert again.users(world.directory.id) == world.company.users(world.directory.id)
    assert again.groups(world.directory.id) == world.company.groups(world.directory.id)
    assert again.events() == world.company.events()
    assert again.roles_of(again.user(ada.id)) == ["admin"]
    with time_machine.travel(0):
        assert int(again.ticks.id("evt").removeprefix("evt_")) > int(world.company.events()[-1].id.removeprefix("evt_"))
        assert again.ticks.time() > world.company.events()[-1].occurred_at


def test_a_file_that_is_no_store_is_refused_in_words(tmp_path: Path) -> None:
    """And left as it is."""
    (tmp_path / "state.db").write_bytes(b"not a database, but long enough to be taken for a damaged one" * 100)
    with pytest.raises(ConfigurationError, match="--fresh"):
        Store(tmp_path / "state.db")


def test_a_burst_in_any_order_has_ids_and_times_that_rise() -> None:
    """So that past events can be listed page by page, before and after a restart alike."""
    store = Store()
    world = World(Provider.OKTA, store)
    world.people.enrol([Newcomer("N", str(n), f"{n}@acme.example") for n in range(20)], world.directory.id)
    world.people.settle([(user.id, ["Sales"]) for user in world.company.users(world.directory.id)])
    world.structure.delete_group("Sales")
    events = world.company.events()
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert [event.occurred_at for event in events] == sorted({event.occurred_at for event in events})
    assert Company(store).events() == events


def test_an_address_that_is_used_again_is_its_new_owners() -> None:
    """Google: fired and unlisted, then somebody else is hired with the address."""
    world = World(Provider.GOOGLE)
    first = world.people.hire(ADA)
    world.people.fire(first.id)
    second = world.people.hire(ADA)
    assert world.people.suspend(ADA.email).id == second.id
    with pytest.raises(Conflict):
        world.people.restore(first.id)


def test_a_leaver_is_found_by_the_address_of_before() -> None:
    """Nobody types 32 hex digits."""
    world = World(Provider.ENTRA_ID)
    ada = world.people.hire(ADA)
    world.people.fire(ada.email)
    assert world.people.restore(ada.email).email == ada.email


def test_hex_digits_of_ones_own_stay() -> None:
    """Only what Entra ID put before the address of somebody gone is taken away again."""
    world = World(Provider.OKTA)
    own = f"x{'0' * 32}@acme.example"
    odd = world.people.hire(Newcomer("A", "B", own))
    assert world.people.restore(world.people.fire(odd.id).id).email == own


def test_settling_says_nothing_of_who_is_gone_by_then() -> None:
    """During a long first sync people leave; a word about them afterwards would bring them back."""
    world = World(Provider.GOOGLE)
    gone, purged, stays = world.people.enrol([Newcomer("N", str(n), f"{n}@acme.example") for n in range(3)], world.directory.id)
    world.people.fire(gone.id)
    world.people.purge(purged.id)
    world.said()
    world.people.settle([(user.id, ["Sales"]) for user in (gone, purged, stays)])
    assert [data["id"] for _, data in world.said()] == [stays.id]


def test_many_at_once_have_an_address_each() -> None:
    """Neither one that somebody has, nor the same twice."""
    world = World(Provider.OKTA)
    world.people.hire(ADA)
    for newcomers in ([ADA], [Newcomer("B", "B", "b@acme.example"), Newcomer("C", "C", "B@acme.example")]):
        with pytest.raises(Conflict, match="address"):
            world.people.enrol(newcomers, world.directory.id)
    assert len(world.company.users(world.directory.id)) == 1


def test_a_cleared_title_is_said_to_be_none() -> None:
    """An absent key would leave the old one."""
    world = World(Provider.OKTA)
    ada = world.people.hire(ADA)
    world.said()
    world.people.move(ada.id, "Engineering", "")
    assert [(data["title"], data["department"]) for _, data in world.said()] == [(None, "Engineering")]


@pytest.mark.parametrize("provider", Provider)
def test_the_roster_is_whom_scalekit_has_after_every_change(provider: Provider) -> None:
    """And who is in which group; of another directory it tells nothing."""
    world = World(provider)
    people, structure, place = world.people, world.structure, world.directory.id
    elsewhere = structure.add_directory(None, Provider.OKTA).id
    changes: list[Callable[[], object]] = [
        lambda: people.hire(ADA, place),
        lambda: people.enrol([Newcomer("Ben", "Doe", "ben@acme.example"), Newcomer("Cleo", "Doe", "cleo@acme.example")], place),
        lambda: people.enrol([Newcomer("Ben", "Doe", "ben@elsewhere.example")], elsewhere),
        lambda: people.settle((user.id, ["Sales"]) for user in world.company.users(place)),
        lambda: people.rename("ben@acme.example", given_name="Benjamin"),
        lambda: people.suspend("ada@acme.example"),
        lambda: people.fire("ben@acme.example"),
        lambda: people.restore("ben@acme.example"),
        lambda: people.purge("cleo@acme.example"),
        lambda: structure.delete_group("Sales"),
        lambda: structure.map_role("Engineering", "admin"),
        lambda: structure.delete_directory(place),
    ]
    for change in changes:
        change()
        roster = world.company.roster(place)
        assert list(roster.users) == [user for user in world.company.users(place) if user.listed]
        assert roster.updated_at == max((user.updated_at for user in roster.users), default=0)
        assert roster.members == Counter(group for user in roster.users for group in user.groups)
    assert world.company.roster(elsewhere).users
