"""What each of the eight events means, rule by rule, as writes to registers."""

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.bodies import Json
from provisioning.dispatcher import HANDLERS
from provisioning.events import Event, EventType, Version
from provisioning.merge import DELETED, Key, Kind, Write

AT = Version(1, 1_750_000_000_000_000_000, 7, 1, "digest")
GONE = {DELETED: True, "active": False, "groups": [], "roles": []}
SOFT = "0123456789abcdefABCDEF0123456789"  # 32 hex digits, as Entra puts them before the name of somebody deleted
KINDS = {"user": Kind.DIRECTORY_USER, "group": Kind.GROUP, "directory": Kind.DIRECTORY}
USERS_THERE = (EventType.USER_CREATED, EventType.USER_UPDATED)
GROUPS_THERE = (EventType.GROUP_CREATED, EventType.GROUP_UPDATED)
users_there = pytest.mark.parametrize("kind", USERS_THERE)
of_users = pytest.mark.parametrize("kind", [*USERS_THERE, EventType.USER_DELETED])
of_groups = pytest.mark.parametrize("kind", [*GROUPS_THERE, EventType.GROUP_DELETED])


def writes(kind: EventType, data: dict[str, Json]) -> list[Write]:
    """The writes of an event of org_1, whose data name another organization."""
    return HANDLERS[kind](Event(kind, "org_1", "record_1", AT, {"id": "record_1", "organization_id": "org_2", **data}))


def only(kind: EventType, **data: Json) -> Write:
    """The write to the record itself."""
    return writes(kind, data)[0]


def said(kind: EventType, **data: Json) -> dict[str, Json]:
    """What the event says of its record beyond that it is there, or gone; stated or hinted."""
    write, bare = only(kind, **data), only(kind)
    both = {**write.hints, **write.statements}
    return {key: value for key, value in both.items() if key not in bare.statements or value != bare.statements[key]}


json_values: st.SearchStrategy[Json] = st.sampled_from(
    [None, True, 0, 1.5, "", "x", [], ["x"], {}, {"id": "x"}, [{"id": "x", DELETED: True}]]
)
texts = st.sampled_from([None, "", " ", "x", "a@example.com", f"{SOFT}a@example.com"])
groups: st.SearchStrategy[Json] = st.sampled_from(
    [None, [], [{"id": "g_1"}], [{"id": "g_1", "name": "A", "x": 1}, {"id": "g_2", "name": None}]]
)
roles: st.SearchStrategy[Json] = st.sampled_from([None, [], [{"role_name": "admin"}], [{"role_name": "a"}, {"role_name": "b", "x": 1}]])
data_of_any_kind = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("email", "dp_id", "external_id", "directory_id", "preferred_username", "name", "display_name"), texts),
        "active": st.sampled_from([None, True, False]),
        "groups": groups,
        "roles": roles,
        **dict.fromkeys(("enabled", "custom_attributes", "title", DELETED, "id"), json_values),
    },
)


@given(st.sampled_from(EventType), data_of_any_kind)
def test_handlers_are_pure(kind: EventType, data: dict[str, Json]) -> None:
    """The same event gives the same writes, and is as it was."""
    event = Event(kind, "org_1", "record_1", AT, data)
    before = deepcopy(data)
    first, second = HANDLERS[kind](event), HANDLERS[kind](event)
    assert first == second
    assert json.dumps(event.data) == json.dumps(before)


@given(st.sampled_from(EventType), data_of_any_kind)
def test_every_write_is_to_the_organization_of_the_envelope_and_at_the_events_version(kind: EventType, data: dict[str, Json]) -> None:
    """The first is to the record that the event is about; neither ids nor anything named like our own register become registers."""
    found = writes(kind, data)
    assert (found[0].kind, found[0].key) == (KINDS[kind.rpartition(".")[2].partition("_")[0]], Key("org_1", "record_1"))
    assert {(write.version, write.key.organization_id) for write in found} == {(AT, "org_1")}
    assert not any({"id", "organization_id"} & {*write.statements, *write.hints} for write in found)
    assert not any(DELETED in write.hints for write in found)
    assert isinstance(found[0].statements.get(DELETED, False), bool)


def test_what_each_event_says_by_being_sent() -> None:
    """That the record is there, or gone; whoever is created is active."""
    assert {kind: (only(kind).statements, only(kind).hints) for kind in EventType} == {
        EventType.DIRECTORY_ENABLED: ({"enabled": True}, {}),
        EventType.DIRECTORY_DISABLED: ({"enabled": False}, {}),
        EventType.USER_CREATED: ({DELETED: False, "active": True}, {}),
        EventType.USER_UPDATED: ({DELETED: False}, {}),
        EventType.USER_DELETED: (GONE, {}),
        EventType.GROUP_CREATED: ({DELETED: False}, {}),
        EventType.GROUP_UPDATED: ({DELETED: False}, {}),
        EventType.GROUP_DELETED: ({DELETED: True}, {}),
    }


@pytest.mark.parametrize("kind", EventType)
@pytest.mark.parametrize("value", [None, "", 0, False, [], {"a": [1, None]}, "x"])
def test_unknown_keys_are_taken_over_as_they_are(kind: EventType, value: Json) -> None:
    """Null clears, like any other value; who is gone only hints at them."""
    write = only(kind, custom_attributes=value)
    assert (write.hints if kind.endswith("deleted") else write.statements)["custom_attributes"] == value
    assert len([*write.hints, *write.statements]) == len(only(kind).statements) + 1


@users_there
@pytest.mark.parametrize("value", [None, "x"])
@pytest.mark.parametrize("key", ["email", "dp_id", "name", "given_name", "family_name", "preferred_username", "directory_id", "title"])
def test_an_absent_key_says_nothing_and_null_clears(kind: EventType, key: str, value: Json) -> None:
    """Only what the event carries is stated."""
    assert only(kind, **{key: value}).statements == {**only(kind).statements, key: value}


@pytest.mark.parametrize("active", [True, False])
@users_there
def test_active_is_stated_as_it_is_said(kind: EventType, active: bool) -> None:
    """Whoever is created may be suspended already."""
    assert only(kind, active=active).statements["active"] is active


@users_there
def test_a_null_active_counts_as_absent(kind: EventType) -> None:
    """So that who is created with it is active, and who is updated with it stays what they are."""
    assert only(kind, active=None) == only(kind)


@users_there
@pytest.mark.parametrize("key", ["groups", "roles"])
def test_null_groups_or_roles_are_none(kind: EventType, key: str) -> None:
    """The captured event has null for somebody who is in no group; absent ones stay what they were."""
    assert said(kind, **{key: None}) == said(kind, **{key: []}) == {key: []}
    assert key not in only(kind).statements


@of_users
@pytest.mark.parametrize("key", ["email", "dp_id"])
@pytest.mark.parametrize("blank", ["", " ", "\t\n\u00a0"])
def test_a_blank_email_or_upstream_id_counts_as_missing(kind: EventType, key: str, blank: str) -> None:
    """It is written over nothing; other texts may be blank."""
    assert only(kind, **{key: blank}) == only(kind)
    assert said(kind, preferred_username=blank, name=blank) == {"preferred_username": blank, "name": blank}


@of_users
@pytest.mark.parametrize("key", ["email", "preferred_username"])
@pytest.mark.parametrize("name", [f"{SOFT}jane@example.com", f"{SOFT}jane.d+x@a.b", f"{SOFT}{SOFT}@example.com", f"{'F' * 32}j@x"])
def test_the_name_of_somebody_soft_deleted_in_entra_is_not_taken_over(kind: EventType, key: str, name: str) -> None:
    """32 hex digits, then an address: that counts as missing, and says nothing of the other key."""
    assert only(kind, **{key: name}) == only(kind)
    other = {"email", "preferred_username"} - {key}
    assert said(kind, **{key: name}, **dict.fromkeys(other, "jane@example.com")) == dict.fromkeys(other, "jane@example.com")


@of_users
@pytest.mark.parametrize(
    "name", [f"{SOFT}@example.com", f"{SOFT[:31]}g@example.com", f"{SOFT[:31]}jane@example.com", f"x{SOFT}jane@example.com"]
)
@pytest.mark.parametrize("key", ["email", "preferred_username"])
def test_other_names_with_hex_digits_are_taken_over(kind: EventType, key: str, name: str) -> None:
    """A local part of exactly 32 hex digits is somebody's own; so is whatever is a digit short, or begins with another letter."""
    assert said(kind, **{key: name}) == {key: name}


@of_users
def test_only_addresses_are_looked_at_for_a_soft_delete(kind: EventType) -> None:
    """A name or a user name that is no address may be what it likes."""
    assert said(kind, name=f"{SOFT}jane@example.com", preferred_username=f"{SOFT}jane") == {
        "name": f"{SOFT}jane@example.com",
        "preferred_username": f"{SOFT}jane",
    }


@given(data_of_any_kind)
def test_a_deleted_user_is_inactive_and_without_groups_and_roles_whatever_else_is_said(data: dict[str, Json]) -> None:
    """The rest is a hint, never written over a profile; no group is made for somebody who is gone."""
    (write,) = writes(EventType.USER_DELETED, data)
    assert write.statements == GONE
    stated = only(EventType.USER_UPDATED, **data).statements
    assert write.hints == {key: value for key, value in stated.items() if key not in GONE}


@users_there
def test_a_group_that_a_user_is_in_is_there(kind: EventType) -> None:
    """Under the name that is given, as a hint; an empty name is none. Nothing is stated of it, so that a deleted one stays deleted."""
    mentioned: list[Json] = [
        {"id": "a", "name": "A"},
        {"id": "b", "name": None},
        {"id": "c", "name": ""},
        {"id": "d"},
        {"id": "e", "name": "E", "x": 1},
    ]
    person, *stubs = writes(kind, {"groups": mentioned})
    assert person.statements["groups"] == mentioned
    assert stubs == [
        Write(Kind.GROUP, Key("org_1", id_), AT, {}, {"name": name} if name else {})
        for id_, name in [("a", "A"), ("b", None), ("c", None), ("d", None), ("e", "E")]
    ]


@users_there
def test_a_user_without_groups_mentions_none(kind: EventType) -> None:
    """Absent, null and empty alike."""
    bodies: list[dict[str, Json]] = [{}, {"groups": None}, {"groups": []}]
    assert all(len(writes(kind, data)) == 1 for data in bodies)


@of_users
def test_only_dp_id_is_a_users_upstream_id(kind: EventType) -> None:
    """What else a directory calls a user's `external_id`, `display_name` or `enabled` are attributes like any other."""
    attributes: dict[str, Json] = {"external_id": {"x": 1}, "display_name": "Jane", "enabled": False}
    assert said(kind, dp_id="up", **attributes) == {"dp_id": "up", **attributes}


@of_groups
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"display_name": "A"}, {"name": "A"}),
        ({"display_name": "A", "name": "B"}, {"name": "A"}),
        ({"display_name": None}, {"name": None}),
        ({"name": "B"}, {"name": "B"}),
        ({"external_id": "e"}, {"external_id": "e"}),
        ({"dp_id": "d"}, {"external_id": "d"}),
        ({"external_id": "e", "dp_id": "d"}, {"external_id": "e"}),
        ({"external_id": None, "dp_id": "d"}, {"external_id": "d"}),
        ({"external_id": "", "dp_id": "d"}, {"external_id": "d"}),
        ({"external_id": "e", "dp_id": None}, {"external_id": "e"}),
        ({"external_id": "e", "dp_id": " "}, {"external_id": "e"}),
        ({"external_id": None}, {"external_id": None}),
        ({"dp_id": None}, {"external_id": None}),
        ({"external_id": " ", "dp_id": ""}, {}),
        ({"directory_id": "dir_1", "raw_attributes": {}}, {"directory_id": "dir_1", "raw_attributes": {}}),
    ],
)
def test_a_group_has_one_name_and_one_upstream_id(kind: EventType, data: dict[str, Json], expected: dict[str, Json]) -> None:
    """Whichever of Scalekit's two words the event uses for it; a blank upstream id counts as missing. Who is gone only hints."""
    assert said(kind, **data) == expected
    assert only(kind, **data).statements == (only(kind).statements if kind.endswith("deleted") else {DELETED: False, **expected})


@pytest.mark.parametrize("enabled", [True, False, None, "false", 0])
def test_a_directory_is_what_the_events_type_says(enabled: Json) -> None:
    """The documented directory_enabled says `"enabled": false`. Nothing is said of anybody in it."""
    for kind, expected in ((EventType.DIRECTORY_ENABLED, True), (EventType.DIRECTORY_DISABLED, False)):
        (write,) = writes(kind, {"enabled": enabled, "provider": "OKTA", "directory_type": None})
        assert (write.statements, write.hints) == ({"enabled": expected, "provider": "OKTA", "directory_type": None}, {})
        assert write.statements["enabled"] is expected


def test_every_type_we_understand_has_its_handler() -> None:
    """By the same name."""
    assert {kind.rpartition(".")[2] for kind in EventType} == {handler.__name__ for handler in HANDLERS.values()}
    assert all(kind.endswith(handler.__name__) for kind, handler in HANDLERS.items())
