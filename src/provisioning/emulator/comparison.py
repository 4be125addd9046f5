"""Whether the service says of everybody what the directories say. Pure: facts in, differences out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from provisioning.emulator.records import Group, User


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class GroupRef(_Answer):
    """One of a user's groups."""

    id: str


class Behind(_Answer):
    """A directory user behind a user."""

    id: str
    external_id: str | None
    directory_id: str | None
    email: str | None
    active: bool
    deleted: bool


class UserAnswer(_Answer):
    """What is read of a User as the service answers it."""

    id: str
    email: str | None
    name: str | None
    given_name: str | None
    family_name: str | None
    preferred_username: str | None
    active: bool
    groups: list[GroupRef]
    roles: list[str]
    attributes: dict[str, object]
    directory_users: list[Behind]


class GroupAnswer(_Answer):
    """What is read of a Group as the service answers it."""

    id: str
    name: str | None
    external_id: str | None
    directory_id: str | None


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
    answers: Sequence[UserAnswer],
    group_answers: Sequence[GroupAnswer],
    roles_by_directory: Callable[[UserAnswer], list[str]],
) -> list[Difference]:
    """The differences between an organization's directories and the service's `answers` (Users and Groups of its HTTP API).

    `disabled`: ids of directories whose people do not count where others do, as far as the service can know in which one somebody is.
    `roles_by_directory`: those of a user's roles that it does not have by the service alone; asked of users whose roles differ.
    """
    there = {user.id: user for user in users if user.listed}
    found = [difference for answer in answers for difference in _of_user(answer, there, frozenset(disabled), roles_of, roles_by_directory)]
    known = {behind.id for answer in answers for behind in answer.directory_users}
    missing = [Difference(user.id, user.email, "user", "there", "unknown") for user in there.values() if user.id not in known]
    return [*found, *missing, *_of_groups(groups, group_answers)]


def _of_user(
    answer: UserAnswer,
    there: Mapping[str, User],
    disabled: frozenset[str],
    roles_of: Callable[[User], list[str]],
    roles_by_directory: Callable[[UserAnswer], list[str]],
) -> Iterator[Difference]:
    behind = answer.directory_users
    for each in behind:
        user = there.get(each.id)
        if user is None:
            if not each.deleted:
                yield Difference(each.id, each.email or "", "user", "gone", "there")
            continue
        says = {"active": user.active, "deleted": False, "email": user.address, "external_id": user.dp_id}
        yield from _unequal(user.id, user.email, "", says, dict(each))
    counting = [each for each in behind if each.directory_id not in disabled] or behind
    active = [user for each in counting if (user := there.get(each.id)) and user.active]
    expected: dict[str, object] = {
        "active": bool(active),
        "groups": sorted({group for user in active for group in user.groups}),
        "roles": sorted({role for user in active for role in roles_of(user)}),
    }
    shown = {**dict(answer), "groups": sorted(group.id for group in answer.groups)}
    if shown["roles"] != expected["roles"]:
        shown["roles"] = roles_by_directory(answer)
    # Whose names count is the service's to decide where several directory users stand behind a user.
    if len(behind) == 1 and (alone := there.get(behind[0].id)):
        expected |= _profile(alone)
        shown |= {name: answer.attributes.get(name) or "" for name in ("title", "department")}
    yield from _unequal(behind[0].id if behind else answer.id, answer.email or "", "user's ", expected, shown)


def _profile(user: User) -> dict[str, object]:
    names = ("name", "given_name", "family_name", "title", "department")
    return {**{name: getattr(user, name) for name in names}, "email": user.address, "preferred_username": user.address}


def _of_groups(groups: Sequence[Group], answers: Sequence[GroupAnswer]) -> Iterator[Difference]:
    there, shown = {group.id: group for group in groups}, {answer.id: answer for answer in answers}
    for group_id in sorted(there.keys() | shown.keys()):
        group, answer = there.get(group_id), shown.get(group_id)
        if group is None or answer is None:
            yield Difference(group_id, "", "group", "there" if group else "gone", "there" if answer else "unknown")
        else:
            says = {"name": group.name, "external_id": group.external_id, "directory_id": group.directory_id}
            yield from _unequal(group_id, "", "group's ", says, dict(answer))


def _unequal(subject_id: str, email: str, whose: str, says: Mapping[str, object], shown: Mapping[str, object]) -> Iterator[Difference]:
    for name, value in says.items():
        if shown[name] != value:
            yield Difference(subject_id, email, f"{whose}{name}", value, shown[name])
