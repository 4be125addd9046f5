"""Whether the service says of everybody what the directories say. Pure: facts in, differences out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioning.emulator.people import address
from provisioning.emulator.records import Group, User


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one directory user or group: what the directory says, and what the service says."""

    directory_user_id: str
    email: str
    field: str
    directory: object
    service: object


def compare(
    users: Sequence[User],
    groups: Sequence[Group],
    disabled: Iterable[str],
    roles_of: Callable[[User], list[str]],
    answers: Sequence[Mapping[str, Any]],
    group_answers: Sequence[Mapping[str, Any]],
) -> list[Difference]:
    """The differences between an organization's directories and the service's `answers` (Users and Groups of its HTTP API).

    `disabled`: ids of directories whose people do not count where others do, as far as the service can know in which one somebody is.
    """
    there = {user.id: user for user in users if user.listed}
    found = [difference for answer in answers for difference in _of_user(answer, there, frozenset(disabled), roles_of)]
    known = {behind["id"] for answer in answers for behind in answer["directory_users"]}
    missing = [Difference(user.id, user.email, "user", "there", "unknown") for user in there.values() if user.id not in known]
    return [*found, *missing, *_of_groups(groups, group_answers)]


def _of_user(
    answer: Mapping[str, Any], there: Mapping[str, User], disabled: frozenset[str], roles_of: Callable[[User], list[str]]
) -> Iterator[Difference]:
    behind = answer["directory_users"]
    for each in behind:
        user = there.get(each["id"])
        if user is None:
            if not each["deleted"]:
                yield Difference(each["id"], each["email"] or "", "user", "gone", "there")
            continue
        said = {"active": user.active, "deleted": False, "email": address(user), "external_id": user.dp_id}
        yield from (Difference(user.id, user.email, name, value, each[name]) for name, value in said.items() if each[name] != value)
    counting = [each for each in behind if each["directory_id"] not in disabled] or behind
    active = [user for each in counting if (user := there.get(each["id"])) and user.active]
    expected = {
        "active": bool(active),
        "groups": sorted({group for user in active for group in user.groups}),
        "roles": sorted({role for user in active for role in roles_of(user)}),
    }
    shown = {"active": answer["active"], "groups": sorted(group["id"] for group in answer["groups"]), "roles": answer["roles"]}
    if len(active) == 1:
        names = {"email": active[0].email, "given_name": active[0].given_name, "family_name": active[0].family_name}
        expected |= names
        shown |= {name: answer[name] for name in names}
    yield from (
        Difference(behind[0]["id"], answer["email"] or "", f"user's {name}", value, shown[name])
        for name, value in expected.items()
        if shown[name] != value
    )


def _of_groups(groups: Sequence[Group], answers: Sequence[Mapping[str, Any]]) -> Iterator[Difference]:
    said = {group.id: group.name for group in groups}
    shown = {answer["id"]: answer["name"] for answer in answers}
    for group_id in sorted(said.keys() | shown.keys()):
        if said.get(group_id) != shown.get(group_id):
            yield Difference(group_id, "", "group", said.get(group_id, "gone"), shown.get(group_id, "unknown"))
