"""What a listing and the records here disagree on: field by field, and nothing that was said later than the listing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.accounts import DirectoryUser
from provisioning.bodies import Json
from provisioning.directory import Directory, ListedGroup, ListedUser
from provisioning.drift import Fewer, Place, compare_directory, compare_group, compare_user, gone_user, same, without
from provisioning.events import Event, EventType, Version
from provisioning.handlers import group_updated, user_created, user_deleted, user_updated
from provisioning.merge import Key, Kind, merge

ORGANIZATION, ID = "org_1", "diruser_1"
LISTED_AT = 1000
DIRECTORY = Directory("dir_1", "OKTA", "SCIM", enabled=True, total_users=1, roles={"g1": frozenset({"seller"})})
PLACE = Place(ORGANIZATION, DIRECTORY, LISTED_AT, frozenset({"seller", "former"}))


def person(at: int, **data: Json) -> DirectoryUser:
    """A directory user that an event made `at` this time."""
    event = Event(EventType.USER_CREATED, ORGANIZATION, ID, Version(1, at, 0, 0, ""), data)
    (write, *_) = user_created(event)
    return DirectoryUser(Key(ORGANIZATION, ID), merge({}, write) or {}, "usr_1")


def listing(groups: tuple[str, ...] = (), **data: Json) -> ListedUser:
    return ListedUser(ID, {group: f"Group {group}" for group in groups}, data={"active": True, **data})


def brought(stored: DirectoryUser, event: Event | None) -> DirectoryUser:
    """The record after the event that its drift carries."""
    if event is None:
        return stored
    (write,) = [each for each in user_updated(event) if each.kind is Kind.DIRECTORY_USER]
    return DirectoryUser(stored.key, merge(stored.registers, write) or stored.registers, "usr_1")


def test_what_is_the_same_is_no_drift() -> None:
    stored = person(1, name="Ann", directory_id="dir_1", groups=[{"id": "g1"}], roles=[{"role_name": "seller"}, {"role_name": "member"}])
    assert compare_user(PLACE, listing(("g1",), name="Ann"), stored) is None


def test_fields_are_said_before_and_after() -> None:
    """Also what was never said here, and what the listing clears."""
    drift = compare_user(PLACE, listing(name="Bea", title=None, city="Bern"), person(1, name="Ann", title="CEO", directory_id="dir_1"))
    assert drift
    assert drift.finding
    assert drift.finding.fields == {"name": ("Ann", "Bea"), "title": ("CEO", None), "city": (None, "Bern")}
    assert drift.changes["users_updated"] == 1


def test_what_was_said_later_is_left_and_reported() -> None:
    """Field by field: the rest is brought. What was said at the very time of the listing counts as later."""
    stored = person(1, name="Ann", title="CEO", directory_id="dir_1")
    later = Event(EventType.USER_UPDATED, ORGANIZATION, ID, Version(1, LISTED_AT, 0, 1, ""), {"name": "Zoe"})
    stored = brought(stored, later)
    drift = compare_user(PLACE, listing(name="Bea", title="CTO"), stored)
    assert drift
    assert [(each.what, each.fields) for each in drift.standing] == [("unsettled", {"name": ("Zoe", "Bea")})]
    after = brought(stored, drift.event)
    assert (after.text("name"), after.text("title")) == ("Zoe", "CTO")


@pytest.mark.parametrize(
    ("here", "there", "new", "missing"),
    [
        ([], ("g1",), {"seller"}, set()),
        (["seller"], (), set(), {"seller"}),
        (["former"], (), set(), {"former"}),
        (["member"], (), set(), set()),
        (["former", "member"], ("g1",), {"seller"}, {"former"}),
    ],
)
def test_roles_of_the_mapping_are_managed_and_no_others(here: list[str], there: tuple[str, ...], new: set[str], missing: set[str]) -> None:
    """Those it names now, or named at the last run."""
    groups: list[Json] = [{"id": each} for each in there]
    stored = person(1, directory_id="dir_1", groups=groups, roles=[{"role_name": each} for each in here])
    drift = compare_user(PLACE, listing(there), stored)
    assert (drift.fewer.roles if drift and drift.fewer else frozenset()) == missing
    for each in (drift, *drift.beside) if drift else ():
        stored = brought(stored, each.event)
    assert stored.roles == {*here, *new}


def test_who_is_listed_without_active_stays_as_they_are_and_newcomers_are_inactive() -> None:
    """Until somebody says it; both are reported."""
    said = ListedUser(ID, {}, data={"email": "ann@x.com"})
    for active in (True, False):
        drift = compare_user(PLACE, said, person(1, active=active, directory_id="dir_1"))
        assert drift
        assert [each.what for each in drift.standing] == ["active_unsaid"]
        assert brought(person(1, active=active), drift.event).active is active
    drift = compare_user(PLACE, said, None)
    assert drift
    newcomer = brought(DirectoryUser(Key(ORGANIZATION, ID), {}), drift.event)
    assert not newcomer.active
    welcomed = Event(EventType.USER_CREATED, ORGANIZATION, ID, Version(1, 1, 0, 0, ""), {})
    assert DirectoryUser(newcomer.key, merge(newcomer.registers, user_created(welcomed)[0]) or {}).active


def test_to_learn_the_directory_is_no_drift() -> None:
    drift = compare_user(PLACE, listing(), person(1))
    assert drift
    assert drift.event
    assert (drift.finding, sum(drift.changes.values())) == (None, 0)


def test_what_no_webhook_could_say_is_reported_and_not_brought() -> None:
    drift = compare_user(PLACE, listing(name="a\x00b"), person(1, directory_id="dir_1"))
    assert drift
    assert drift.event is None
    assert [each.what for each in drift.standing] == ["unreadable"]


def test_groups_and_directories_likewise() -> None:
    """A stub, which only its members named, is completed."""
    said = ListedGroup("g1", {"display_name": "Sales", "external_id": "00u1"})
    drift = compare_group(PLACE, said, {})
    assert drift
    assert drift.finding
    assert drift.finding.fields == {"name": (None, "Sales"), "external_id": (None, "00u1")}
    assert drift.event
    registers = merge({}, group_updated(drift.event)[0])
    assert registers is not None
    assert compare_group(PLACE, said, registers) is None
    known = compare_directory(ORGANIZATION, DIRECTORY, None, LISTED_AT)
    assert known
    assert known.finding
    assert known.finding.what == "missing_here"


def test_less_is_taken_only_of_what_is_still_here() -> None:
    """A webhook may have taken it meanwhile, or brought something else."""
    stored = person(1, groups=[{"id": "g1"}, {"id": "g2"}], roles=[{"role_name": "seller"}])
    drift = without(stored, LISTED_AT, Fewer(frozenset({"g1", "g9"}), frozenset()), guarded=True)
    assert drift
    assert brought(stored, drift.event).group_ids == {"g2"}
    assert drift.removed == {"memberships": 1, "role grants": 0}
    assert without(stored, LISTED_AT, Fewer(frozenset({"g9"}), frozenset({"other"})), guarded=True) is None


def test_with_what_is_taken_comes_what_the_listing_shows() -> None:
    """What the record had of it by the listing may have been overtaken by a webhook from before."""
    stored = person(1, groups=[{"id": "g1"}, {"id": "g2"}], roles=[{"role_name": "seller"}])
    less = Fewer(frozenset({"g1"}), frozenset({"seller"}), shown_groups={"g2": "Two", "g3": "Three"}, shown_roles=frozenset({"buyer"}))
    drift = without(stored, LISTED_AT, less, guarded=True)
    assert drift
    after = brought(stored, drift.event)
    assert ({*after.group_ids}, {*after.roles}) == ({"g2", "g3"}, {"buyer"})
    assert drift.changes == {"memberships_removed": 1, "roles_revoked": 1}
    assert drift.finding
    assert drift.finding.fields == {"groups": (["g1", "g2"], ["g2", "g3"]), "roles": (["seller"], ["buyer"])}


def test_who_was_spoken_of_later_is_not_half_removed() -> None:
    """What is only inferred is written whole or not at all, though the later event said nothing of groups and roles."""
    stored = person(1, groups=[{"id": "g1"}], roles=[{"role_name": "seller"}])
    later = Event(EventType.USER_UPDATED, ORGANIZATION, ID, Version(1, LISTED_AT + 1, 0, 1, ""), {"name": "Zoe"})
    drift = gone_user(stored, LISTED_AT, managed_roles=frozenset(), guarded=True)
    assert drift.event
    (write,) = user_deleted(drift.event)
    assert merge(stored.registers, write) is not None
    assert merge(brought(stored, later).registers, write) is None


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
data = st.dictionaries(st.sampled_from(["name", "title", "city", "x"]), values | st.none(), max_size=4)


@given(here=data, there=data, active=st.booleans(), at=st.integers(LISTED_AT - 3, LISTED_AT + 3))
def test_once_brought_there_is_no_drift_or_it_is_unsettled(here: dict[str, Json], there: dict[str, Json], active: bool, at: int) -> None:
    """And what was said later is never undone."""
    texts = {key: value for key, value in here.items() if key != "name" or value is None or isinstance(value, str)}
    said = {key: value for key, value in there.items() if key != "name" or value is None or isinstance(value, str)}
    stored = person(at, **texts)
    drift = compare_user(PLACE, ListedUser(ID, {}, data={"active": active, **said}), stored)
    after = brought(stored, drift.event if drift else None)
    again = compare_user(PLACE, ListedUser(ID, {}, data={"active": active, **said}), after)
    assert again is None or (again.event is None and {each.what for each in again.standing} <= {"unsettled", "unreadable"})
    if at >= LISTED_AT:
        assert {name: after.registers[name].value for name in stored.registers} == {
            name: register.value for name, register in stored.registers.items()
        }


@given(one=values, other=values)
def test_sameness_is_equality_but_for_kinds_of_numbers(one: Json, other: Json) -> None:
    """A listing knows only doubles; true is no 1."""
    assert same(one, one)
    assert same(one, other) == same(other, one)
    assert not same(True, 1)
    assert same(1, 1.0)


@pytest.mark.parametrize("touched", [False, True])
def test_what_is_added_beside_something_missing_is_as_old_as_the_list_was(touched: bool) -> None:
    """Else a late webhook, that says what became of both, would come too late. Also of somebody of whom something newer was said."""
    stored = person(1, groups=[{"id": "g1"}], directory_id="dir_1")
    if touched:
        newer = Event(EventType.USER_UPDATED, ORGANIZATION, ID, Version(1, LISTED_AT + 1, 0, 1, ""), {"title": "CEO"})
        stored = brought(stored, newer)
    drift = compare_user(PLACE, listing(("g2",)), stored)
    assert drift
    assert drift.event is None or "groups" not in drift.event.data
    (added,) = [each for each in drift.beside if each.event and "groups" in each.event.data]
    after = brought(stored, added.event)
    assert after.group_ids == {"g1", "g2"}
    assert after.registers["groups"].version.occurred_at == stored.registers["groups"].version.occurred_at
    assert (drift.fewer.groups if drift.fewer else set()) == (set() if touched else {"g1"})
