"""What differs for whoever asks, and nothing else, is a change."""

from collections.abc import Sequence
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.accounts import PROFILE, Shown
from provisioning.bodies import Json, canonical
from provisioning.changes import Cause, CauseKind, Change, ChangeType, Values, Was, in_order, newest_of, of_directory, of_group, of_user
from provisioning.merge import Key

KEY = Key("org_1", "id")
CAUSE = Cause(CauseKind.DELIVERY, "msg_1", 1)


def shown(*, active: bool = True, groups: Sequence[str] = (), roles: Sequence[str] = (), by: str = "u", **attributes: Json) -> Shown:
    """What a user shows: in these groups and with these roles by the one directory user behind it."""
    return Shown(
        active,
        dict.fromkeys(PROFILE),
        attributes,
        frozenset((by, group) for group in groups),
        frozenset((role, by) for role in roles),
    )


def was(before: Shown) -> Was:
    """The same, as it is stored."""
    return Was(before.active, before.profile, before.attributes, before.groups, before.roles)


def types(changes: Sequence[Change]) -> list[str]:
    return [change.type.value for change in changes]


def test_a_user_who_shows_the_same_has_not_changed() -> None:
    """Whoever behind it lets it in, and gives it the role, now."""
    before = shown(groups=["g"], roles=["r"], title="Dr", by="one")
    assert not list(of_user(KEY, was(before), shown(groups=["g"], roles=["r"], title="Dr", by="two"), CAUSE))


@pytest.mark.parametrize(
    ("before", "after"), [(1, True), (0, False), (1, 1.0), ([1], [True]), ({"a": 0}, {"a": False}), ("1", 1), (None, "")]
)
def test_values_are_compared_as_json(before: Json, after: Json) -> None:
    """Python holds several of these for equal."""
    [change] = of_user(KEY, was(shown(title=before)), shown(title=after), CAUSE)
    assert (change.type, change.before, change.after) == (
        "user.updated",
        {"attributes": {"title": before}},
        {"attributes": {"title": after}},
    )


def test_an_attribute_that_comes_or_goes_was_or_is_null() -> None:
    [change] = of_user(KEY, was(shown(a="1", same="x")), shown(b="2", same="x"), CAUSE)
    assert change.before == {"attributes": {"a": "1", "b": None}}
    assert change.after == {"attributes": {"a": None, "b": "2"}}


def test_a_newcomer_is_created_with_what_it_has() -> None:
    found = list(of_user(KEY, None, shown(groups=["g", "h"], roles=["r"]), CAUSE))
    assert types(found) == ["user.created", "membership.added", "membership.added", "role.granted"]
    assert {(change.organization_id, change.user_id, change.cause) for change in found} == {("org_1", "id", CAUSE)}


def test_a_leaver_loses_everything_one_by_one() -> None:
    found = in_order(of_user(KEY, was(shown(groups=["g"], roles=["r", "s"])), shown(active=False), CAUSE))
    assert types(found) == ["role.revoked", "role.revoked", "membership.removed", "user.deactivated"]
    assert [change.role for change in found] == ["r", "s", None, None]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, {"name": "A"}, ("group.created", None, {"name": "A"})),
        ({"name": "A", "external_id": "1"}, {"name": "B", "external_id": "1"}, ("group.updated", {"name": "A"}, {"name": "B"})),
        ({"name": "A"}, None, ("group.deleted", {"name": "A"}, None)),
        ({"name": "A"}, {"name": "A"}, None),
        (None, None, None),
    ],
)
def test_what_becomes_of_a_group(
    before: Values | None, after: Values | None, expected: tuple[str, Values | None, Values | None] | None
) -> None:
    """A deleted one that nobody knew changes nothing."""
    found = [(change.type, change.before, change.after) for change in of_group(KEY, before, after, CAUSE)]
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(None, True, "enabled"), (None, False, "disabled"), (True, False, "disabled"), (False, True, "enabled"), (True, True, None)],
)
def test_what_becomes_of_a_directory(before: bool | None, after: bool, expected: str | None) -> None:
    assert types(list(of_directory(KEY, before, after, CAUSE))) == ([f"directory.{expected}"] if expected else [])


def test_a_batch_is_told_so_that_nobody_is_in_a_group_that_is_not_there() -> None:
    """Groups and users come before memberships and roles, and go after them; a directory says why, and is first."""
    every = [Change(type_, "org_1", CAUSE) for type_ in reversed(ChangeType)]
    told = types(in_order(every))
    for first, then in [
        ("directory.disabled", "user.deactivated"),
        ("group.created", "membership.added"),
        ("user.created", "membership.added"),
        ("user.created", "role.granted"),
        ("membership.removed", "group.deleted"),
        ("membership.removed", "user.deactivated"),
        ("role.revoked", "user.deactivated"),
    ]:
        assert told.index(first) < told.index(then)


def test_the_newest_cause_is_what_happened_last() -> None:
    """What an operator did has no time there; of two at one time the same one wins, in whatever order they are given."""
    early, late, other = (Cause(CauseKind.DELIVERY, id_, at) for id_, at in (("a", 1), ("b", 2), ("c", 2)))
    assert newest_of([early, late]) == newest_of([late, early]) == late
    assert newest_of([other, late]) == newest_of([late, other])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 2.5, 0.0, -0.0]) | st.sampled_from(["", "a", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


@given(JSON, JSON)
def test_values_are_the_same_when_their_json_is(one: Json, other: Json) -> None:
    for each in (other, deepcopy(one)):
        differs = bool(list(of_user(KEY, was(shown(title=one)), shown(title=each), CAUSE)))
        assert differs == (canonical(one) != canonical(each))
