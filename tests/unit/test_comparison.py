"""The comparison finds every way in which a service can differ from a directory. Without that, `equal` would say nothing."""

from typing import Any

import pytest

from provisioning.emulator.comparison import Difference, GroupAnswer, UserAnswer, compare
from provisioning.emulator.records import Group, State, User

ADA = User(
    id="diruser_1",
    organization_id="org_1",
    directory_id="dir_1",
    dp_id="00u1",
    email="ada@acme.example",
    given_name="Ada",
    family_name="Lovelace",
    title="Analyst",
    groups=("dirgroup_1",),
    updated_at=0,
)
ENGINEERING = Group(id="dirgroup_1", organization_id="org_1", directory_id="dir_1", name="Engineering", external_id="g1", updated_at=0)
BEHIND = {"id": "diruser_1", "external_id": "00u1", "directory_id": None, "email": "ada@acme.example", "active": True, "deleted": False}
ANSWER = {
    "id": "usr_1",
    "email": "ada@acme.example",
    "given_name": "Ada",
    "family_name": "Lovelace",
    "name": "Ada Lovelace",
    "preferred_username": "ada@acme.example",
    "attributes": {"title": "Analyst", "department": None, "locale": "en-US"},
    "active": True,
    "groups": [{"id": "dirgroup_1", "name": "Engineering"}],
    "roles": ["admin"],
    "directory_users": [BEHIND],
}
GROUP_ANSWER = {"id": "dirgroup_1", "name": "Engineering", "external_id": "g1", "directory_id": "dir_1"}


def differences(
    users: tuple[User, ...] = (ADA,),
    answers: tuple[dict[str, Any], ...] = (ANSWER,),
    groups: tuple[Group, ...] = (ENGINEERING,),
    group_answers: tuple[dict[str, Any], ...] = (GROUP_ANSWER,),
    disabled: tuple[str, ...] = (),
    given_here: tuple[str, ...] = (),
) -> list[Difference]:
    """Where these differ; everybody in a group is an admin, and has what is `given_here` by the service alone."""
    roles = lambda user: ["admin"] if user.groups else ["member"]  # noqa: E731
    said, said_of_groups = [UserAnswer(**answer) for answer in answers], [GroupAnswer(**answer) for answer in group_answers]
    by_directory = lambda answer: [role for role in answer.roles if role not in given_here]  # noqa: E731
    return compare(users, groups, disabled, roles, said, said_of_groups, by_directory)


def test_equal_is_equal() -> None:
    """Of one person, of nobody, and of one who is gone on both sides."""
    assert differences() == []
    assert differences((), (), (), ()) == []
    gone = ADA.model_copy(update={"state": State.GONE, "listed": False})
    behind = {**BEHIND, "active": False, "deleted": True}
    assert differences((gone,), ({**ANSWER, "active": False, "groups": [], "roles": [], "directory_users": [behind]},)) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"active": False}, "user's active"),
        ({"groups": []}, "user's groups"),
        ({"roles": ["member"]}, "user's roles"),
        ({"email": "other@acme.example"}, "user's email"),
        ({"given_name": None}, "user's given_name"),
        ({"family_name": "King"}, "user's family_name"),
        ({"name": "Ada"}, "user's name"),
        ({"preferred_username": None}, "user's preferred_username"),
        ({"attributes": {}}, "user's title"),
        ({"attributes": {"title": "Analyst", "department": "Sales"}}, "user's department"),
        ({"directory_users": [{**BEHIND, "active": False}]}, "active"),
        ({"directory_users": [{**BEHIND, "deleted": True}]}, "deleted"),
        ({"directory_users": [{**BEHIND, "email": None}]}, "email"),
        ({"directory_users": [{**BEHIND, "external_id": "x"}]}, "external_id"),
    ],
)
def test_whatever_the_service_says_otherwise_is_found(change: dict[str, Any], field: str) -> None:
    """One thing changed, one difference."""
    assert [each.field for each in differences(answers=({**ANSWER, **change},))] == [field]


def test_what_the_service_gives_beside_the_directory_is_no_difference() -> None:
    """But a role of the directory's that is missing is one, and so is one that nobody gave."""
    assert differences(answers=({**ANSWER, "roles": ["admin", "auditor"]},), given_here=("auditor",)) == []
    for has, by_directory in ((["auditor"], []), (["admin", "auditor", "owner"], ["admin", "owner"])):
        [difference] = differences(answers=({**ANSWER, "roles": has},), given_here=("auditor",))
        assert (difference.field, difference.directory, difference.service) == ("user's roles", ["admin"], by_directory)


def test_who_is_missing_or_too_many_is_found() -> None:
    """People and groups, on either side."""
    assert [(each.field, each.service) for each in differences(answers=())] == [("user", "unknown")]
    assert next((each.directory_user_id, each.directory) for each in differences(users=())) == ("diruser_1", "gone")
    assert [(each.field, each.service) for each in differences(group_answers=())] == [("group", "unknown")]
    assert [(each.field, each.directory) for each in differences(groups=())] == [("group", "gone")]
    for name in ("name", "external_id", "directory_id"):
        [difference] = differences(group_answers=({**GROUP_ANSWER, name: "other"},))
        assert (difference.field, difference.service) == (f"group's {name}", "other")


def test_an_account_with_nobody_behind_it_is_compared_too() -> None:
    """Imported, say: in no directory, so it should not be active."""
    nobody = {**ANSWER, "groups": [], "roles": [], "directory_users": []}
    assert [each.field for each in differences((), (nobody,), (), ())] == ["user's active"]


def test_a_leaver_who_is_still_active_there_is_found() -> None:
    """The difference that matters most."""
    gone = ADA.model_copy(update={"state": State.GONE, "listed": False})
    assert {each.field for each in differences((gone,))} == {"user", "user's active", "user's groups", "user's roles"}


def test_soft_deleted_people_are_compared_by_their_own_address() -> None:
    """The service keeps it, whatever Entra ID puts before."""
    gone = ADA.model_copy(update={"state": State.GONE, "email": f"{'0' * 32}ada@acme.example"})
    behind = {**BEHIND, "active": False}
    assert differences((gone,), ({**ANSWER, "active": False, "groups": [], "roles": [], "directory_users": [behind]},)) == []


def test_people_of_a_disabled_directory_do_not_count_beside_others() -> None:
    """As far as the service knows where they are."""
    new = ADA.model_copy(update={"id": "diruser_2", "directory_id": "dir_2", "dp_id": "x", "groups": ()})
    both = [{**BEHIND, "directory_id": "dir_1"}, {**BEHIND, "id": "diruser_2", "external_id": "x", "directory_id": "dir_2"}]
    answer = {**ANSWER, "groups": [], "roles": ["member"], "directory_users": both}
    assert differences((ADA, new), (answer,), disabled=("dir_1",)) == []
    assert {each.field for each in differences((ADA, new), (answer,))} == {"user's groups", "user's roles"}
