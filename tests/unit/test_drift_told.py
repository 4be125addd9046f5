"""What drift tells of each record, whole: the event that brings it, the line of the report, and what counts."""

from dataclasses import replace
from typing import Any

import pytest

from provisioning.accounts import DirectoryUser
from provisioning.bodies import Json
from provisioning.directory import Directory, ListedGroup, ListedUser
from provisioning.drift import (
    ERASED,
    NEWER,
    SHOWN,
    UNSETTLED,
    Drift,
    Fewer,
    Finding,
    Pair,
    Place,
    Report,
    compare_directory,
    compare_group,
    compare_user,
    disabled_for_long,
    erased_user,
    gone_directory,
    gone_group,
    gone_person,
    gone_user,
    is_overtaken,
    is_touched,
    unsettled,
    without,
)
from provisioning.events import Event, EventType, Version, listed
from provisioning.handlers import user_deleted, user_updated
from provisioning.merge import Key, Kind, Register, merge

ORGANIZATION, ID = "org_1", "diruser_1"
LISTED_AT = 1000
DIRECTORY = Directory("dir_1", "OKTA", "SCIM", enabled=True, total_users=1, roles={"g1": frozenset({"seller"})})
PLACE = Place(ORGANIZATION, DIRECTORY, LISTED_AT, frozenset({"seller", "former"}))
KNOWN = {"directory_id": Register("dir_1", Version(1, 0, 0, 0, ""))}


def person(at: int, before: DirectoryUser | None = None, kind: EventType = EventType.USER_UPDATED, **data: Json) -> DirectoryUser:
    """A directory user of the directory after an event `at` this time."""
    event = Event(kind, ORGANIZATION, ID, Version(1, at, 0, 0, ""), data)
    writes = user_deleted(event) if kind is EventType.USER_DELETED else user_updated(event)
    (write,) = (each for each in writes if each.kind is Kind.DIRECTORY_USER)
    return DirectoryUser(Key(ORGANIZATION, ID), merge(before.registers if before else KNOWN, write) or {}, "usr_1")


def listing(groups: tuple[str, ...] = (), **data: Json) -> ListedUser:
    return ListedUser(ID, {group: f"Group {group}" for group in groups}, data={"active": True, **data})


def update(inferred: bool = False, **data: Json) -> Event:
    return listed(EventType.USER_UPDATED, ORGANIZATION, ID, LISTED_AT, data, inferred=inferred)


def groups_of(*ids: str) -> list[Json]:
    return [{"id": each, "name": f"Group {each}"} for each in ids]


def test_a_newcomer_is_brought_with_everything() -> None:
    """Also without a group: the next listing compares with none. Of roles only what a mapping gives is said."""
    drift = compare_user(PLACE, listing(("g2", "g1"), name="Ann"), None)
    roles: list[Json] = [{"role_name": "seller"}]
    event = update(active=True, name="Ann", directory_id="dir_1", groups=groups_of("g1", "g2"), roles=roles)
    counted = {"users_created": 1, "memberships_added": 2, "roles_granted": 1}
    assert drift == Drift(event, Finding("missing_here", "user", ID), counted)
    event = update(active=True, name="Ann", directory_id="dir_1", groups=[])
    assert compare_user(PLACE, listing(name="Ann"), None) == Drift(event, Finding("missing_here", "user", ID), {"users_created": 1})


def test_somebody_deleted_comes_back_unless_it_was_said_later() -> None:
    """At the very time of the listing is later."""
    for at, expected in (
        (LISTED_AT, Drift(standing=(Finding("unsettled", "user", ID, {"deleted": (True, False)}, NEWER),))),
        (
            LISTED_AT - 1,
            Drift(
                update(active=True),
                Finding("changed", "user", ID, {"deleted": (True, False), "active": (False, True)}),
                {"users_reactivated": 1},
            ),
        ),
    ):
        assert compare_user(PLACE, listing(), person(at, kind=EventType.USER_DELETED)) == expected


@pytest.mark.parametrize(
    ("stored", "said", "counted"),
    [
        (person(1, active=False), {}, {"users_reactivated": 1}),
        (person(1, active=True), {"active": False}, {"users_deactivated": 1}),
        (person(1, active=True), {"active": False, "name": "Bea"}, {"users_deactivated": 1, "users_updated": 1}),
        (person(1, kind=EventType.USER_DELETED), {"active": False}, {"users_updated": 1}),
        (person(1, directory_id="dir_2"), {}, {"users_updated": 1}),
        (person(1, name="Ann"), {"name": "Bea"}, {"users_updated": 1}),
        (person(1), {"groups": ("g2", "g3")}, {"memberships_added": 2}),
        (person(1, groups=groups_of("g1")), {"groups": ("g1",)}, {"roles_granted": 1}),
        (person(LISTED_AT, active=False), {"name": "Bea"}, {"users_updated": 1}),
    ],
)
def test_a_change_counts_once_as_what_it_is(stored: DirectoryUser, said: dict[str, Any], counted: dict[str, int]) -> None:
    """Who comes back inactive is updated, as is who changed the directory."""
    drift = compare_user(PLACE, listing(**said), stored)
    assert drift
    assert drift.changes == counted


def test_a_move_is_told_with_its_directories() -> None:
    drift = compare_user(PLACE, listing(), person(1, directory_id="dir_2"))
    assert drift == Drift(
        update(directory_id="dir_1"), Finding("changed", "user", ID, {"directory_id": ("dir_2", "dir_1")}), {"users_updated": 1}
    )


def test_groups_and_roles_of_which_something_newer_was_said_are_left() -> None:
    """Whatever stands beside them is brought."""
    stored = person(LISTED_AT, groups=groups_of("g2"), roles=[{"role_name": "former"}])
    drift = compare_user(PLACE, listing(("g1",), name="Ann"), stored)
    fields: dict[str, Pair] = {"groups": (["g2"], ["g1"]), "roles": (["former"], ["seller"])}
    finding = Finding("changed", "user", ID, {"name": (None, "Ann")})
    assert drift == Drift(update(name="Ann"), finding, {"users_updated": 1}, (Finding("unsettled", "user", ID, fields, NEWER),))


def test_what_is_missing_of_somebody_touched_is_left_to_the_next_run() -> None:
    """With what stands in the way of the rest."""
    stored = person(LISTED_AT + 1, person(1, groups=groups_of("g1", "g2"), roles=[{"role_name": "former"}]), name="Zoe")
    fields: dict[str, Pair] = {"name": ("Zoe", "Ann"), "groups": (["g1", "g2"], ["g2"]), "roles": (["former"], [])}
    assert compare_user(PLACE, listing(("g2",), name="Ann"), stored) == Drift(standing=(Finding("unsettled", "user", ID, fields, NEWER),))


def test_what_is_missing_is_told_with_all_that_is_there() -> None:
    """For the guard to decide about; what is new beside it comes at once."""
    stored = person(1, groups=groups_of("g1", "g2"), roles=[{"role_name": "former"}, {"role_name": "member"}])
    drift = compare_user(PLACE, listing(("g2", "g3")), stored)
    assert drift
    shown = {"g2": "Group g2", "g3": "Group g3"}
    assert drift.fewer == Fewer(frozenset({"g1"}), frozenset({"former"}), True, shown, frozenset(), frozenset({"member"}))
    before = stored.registers["groups"].version
    event = listed(EventType.USER_UPDATED, ORGANIZATION, ID, 1, {"groups": [{"id": "g1", "name": None}, *groups_of("g2", "g3")]})
    event = replace(event, version=before._replace(digest=f"{before.digest}+"))
    finding = Finding("changed", "user", ID, {"groups": (["g1", "g2"], ["g1", "g2", "g3"])})
    assert drift.beside == (Drift(event, finding, {"memberships_added": 1}),)
    assert (drift.event, drift.finding, drift.changes, drift.standing) == (None, None, {}, ())


def test_whether_somebody_loses_anything_is_person() -> None:
    drift = compare_user(PLACE, listing(active=False), person(1, active=False, groups=groups_of("g1")))
    assert drift
    assert drift.fewer == Fewer(frozenset({"g1"}), frozenset())


def test_what_cannot_be_brought_says_why() -> None:
    """Of a person, and of a group."""
    nul = "The body holds a NUL character."
    said = ListedGroup("g1", {"display_name": "a\0"})
    assert compare_user(PLACE, listing(name="a\0"), None) == Drift(standing=(Finding("unreadable", "user", ID, reason=nul),))
    assert compare_group(PLACE, said, None) == Drift(standing=(Finding("unreadable", "group", "g1", reason=nul),))
    unsaid = compare_user(PLACE, ListedUser(ID, {}, {}), person(1))
    assert unsaid == Drift(standing=(Finding("active_unsaid", "user", ID, reason="the list does not say whether they are active"),))
    assert erased_user(ID) == Drift(standing=(Finding("erased", "user", ID, reason="erased, still in the directory"),))


def test_a_group_is_told_whole() -> None:
    """New, changed, known, and overtaken."""
    said = ListedGroup("g1", {"display_name": "Sales"})
    at = Version(1, LISTED_AT, 0, 0, "")
    known = {"name": Register("Sales", at), "directory_id": Register("dir_1", at)}
    event = listed(EventType.GROUP_UPDATED, ORGANIZATION, "g1", LISTED_AT, {"name": "Sales", "directory_id": "dir_1"})
    assert compare_group(PLACE, said, None) == Drift(event, Finding("missing_here", "group", "g1"), {"groups_created": 1})
    finding = Finding("changed", "group", "g1", {"name": (None, "Sales")})
    assert compare_group(PLACE, said, {}) == Drift(event, finding, {"groups_updated": 1})
    assert compare_group(PLACE, said, known) is None
    finding = Finding("unsettled", "group", "g1", {"name": ("Sales", "Service")}, NEWER)
    assert compare_group(PLACE, ListedGroup("g1", {"display_name": "Service"}), known) == Drift(standing=(finding,))
    event = listed(EventType.GROUP_UPDATED, ORGANIZATION, "g1", LISTED_AT, {"directory_id": "dir_1"})
    assert compare_group(PLACE, said, {"name": known["name"]}) == Drift(event)


def test_a_directory_is_told_whole() -> None:
    """New, changed, known, and overtaken."""
    disabled = replace(DIRECTORY, enabled=False, provider="")
    for said, kind, provider in ((DIRECTORY, EventType.DIRECTORY_ENABLED, "OKTA"), (disabled, EventType.DIRECTORY_DISABLED, "")):
        data: dict[str, Json] = {"directory_type": "SCIM", **({"provider": provider} if provider else {})}
        event = listed(kind, ORGANIZATION, "dir_1", LISTED_AT, data)
        assert compare_directory(ORGANIZATION, said, None, LISTED_AT) == Drift(event, Finding("missing_here", "directory", "dir_1"))
    known = {"enabled": Register(True, Version(1, LISTED_AT, 0, 0, "")), "directory_type": Register("SCIM", Version(1, 1, 0, 0, ""))}
    fields = {"enabled": (True, False)}
    newer = Finding("unsettled", "directory", "dir_1", fields, NEWER)
    assert compare_directory(ORGANIZATION, disabled, known, LISTED_AT) == Drift(standing=(newer,))
    assert compare_directory(ORGANIZATION, disabled, known, LISTED_AT + 1) == Drift(
        replace(event, version=event.version._replace(occurred_at=LISTED_AT + 1)), Finding("changed", "directory", "dir_1", fields)
    )
    assert compare_directory(ORGANIZATION, replace(disabled, enabled=True), known, LISTED_AT) is None


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("active", [False, True])
def test_who_or_what_is_gone_is_told_whole(guarded: bool, active: bool) -> None:
    """Only what is lost counts, and only what is guarded is counted for the guard. Roles that are no mapping's stay."""
    stored = person(1, active=active, email="ann@x.com", roles=[{"role_name": "seller"}, {"role_name": "member"}], groups=groups_of("g1"))
    event = listed(EventType.USER_DELETED, ORGANIZATION, ID, LISTED_AT, {"roles": [{"role_name": "member"}]}, inferred=True)
    finding = Finding("gone_there", "user", ID, {"email": ("ann@x.com", None)})
    removed = {"people": 1} if guarded and active else {}
    expected = Drift(event, finding, {"users_deactivated": 1} if active else {}, removed=removed)
    assert gone_user(stored, LISTED_AT, managed_roles=frozenset({"seller"}), guarded=guarded) == expected
    event = listed(EventType.GROUP_DELETED, ORGANIZATION, "g1", LISTED_AT, {}, inferred=True)
    expected = Drift(event, Finding("gone_there", "group", "g1"), {"groups_deleted": 1}, removed={"groups": 1} if guarded else {})
    assert gone_group(ORGANIZATION, "g1", LISTED_AT, guarded=guarded) == expected
    less = Fewer(frozenset({"g1"}), frozenset({"seller"}), shown_groups={"g3": "Group g3"})
    event = update(inferred=True, groups=groups_of("g3"), roles=[{"role_name": "member"}])
    finding = Finding("changed", "user", ID, {"groups": (["g1"], ["g3"]), "roles": (["member", "seller"], ["member"])})
    for gone, memberships in ((frozenset[str](), 1), (frozenset({"g1"}), 0)):
        removed = {"memberships": memberships, "role grants": 1} if guarded and active else {}
        expected = Drift(event, finding, {"memberships_removed": 1, "roles_revoked": 1}, removed=removed)
        assert without(stored, LISTED_AT, less, guarded=guarded, gone=gone) == expected


def test_what_nobody_lists_is_told_whole() -> None:
    """A person without an e-mail, a directory, and somebody in one that has been disabled for long."""
    assert gone_person(ID, None) == Finding("gone_there", "user", ID)
    assert gone_person(ID, None, "why") == Finding("gone_there", "user", ID, reason="why")
    event = listed(EventType.DIRECTORY_DISABLED, ORGANIZATION, "dir_1", LISTED_AT, {})
    assert gone_directory(ORGANIZATION, "dir_1", LISTED_AT) == Drift(event)
    finding = Finding("changed", "user", ID, {"active": (True, False)})
    long = disabled_for_long(ORGANIZATION, ID, LISTED_AT)
    assert long == Drift(update(active=False), finding, {"users_deactivated": 1})
    assert unsettled([Drift(), long]) == [Finding("unsettled", "user", ID, {"active": (True, False)}, NEWER)]


def test_who_has_more_than_the_listing_and_what_it_misses_is_overtaken() -> None:
    """More groups, or more roles; all or some of them is not more."""
    sets = (frozenset({"g1"}), frozenset({"a"}), True, {"g2": "Two"}, frozenset({"b"}), frozenset({"c"}))
    for groups, roles, more in (("", "", False), ("12", "abc", False), ("1", "a", False), ("13", "a", True), ("1", "ad", True)):
        stored = person(1, groups=[{"id": f"g{each}"} for each in groups], roles=[{"role_name": each} for each in roles])
        assert is_overtaken(stored, Fewer(*sets)) is more


def test_a_record_is_touched_by_what_is_newer() -> None:
    """Not by what was said at the very time of the listing."""
    assert [is_touched(person(at).registers, LISTED_AT) for at in (LISTED_AT - 1, LISTED_AT, LISTED_AT + 1)] == [False, False, True]


def test_a_report_shows_the_first_findings_and_counts_what_is_to_be_settled() -> None:
    """Whoever was erased is shown, and settled."""
    line = Finding("changed", "user", ID, {"name": (None, "Ann")})
    shown = {"what": "changed", "type": "user", "id": ID, "fields": {"name": {"before": None, "after": "Ann"}}}
    assert line.as_json() == shown
    assert Finding(ERASED, "user", ID, reason="why").as_json() == {"what": "erased", "type": "user", "id": ID, "reason": "why"}
    some, many = Report(), Report()
    some.add([None, line, Finding(ERASED, "user", ID), line])
    many.add([replace(line, id="other")] * (SHOWN + 1))
    assert (len(some.first), some.number, len(many.first), many.number) == (3, 2, SHOWN, SHOWN + 1)
    both = some.joined(many)
    assert (both.first, both.number) == ([*some.first, *many.first[3:]], SHOWN + 3)
    assert both.as_json()[0] == shown


def test_a_report_shows_last_what_the_next_run_settles() -> None:
    """What somebody has to decide about is never beyond the lines that are shown."""
    one, other = Report(), Report()
    one.add(Finding(UNSETTLED, "user", f"du_{number}") for number in range(SHOWN + 1))
    other.add([Finding("gone_there", "user", ID, reason="held back")])
    both = one.joined(other)
    assert [line["what"] for line in both.as_json()] == ["gone_there", *["unsettled"] * (SHOWN - 1)]
    assert both.number == SHOWN + 2
