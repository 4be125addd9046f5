"""What a batch changed, for whom, and by what: the rows of the change log. Pure.

Only what differs for whoever asks this service is a change: a role that comes from another group now is none.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TypeAlias

from provisioning.accounts import Shown
from provisioning.bodies import Json
from provisioning.merge import Key

Values: TypeAlias = Mapping[str, Json]


class ChangeType(StrEnum):
    """What can happen to users, groups, memberships, roles and directories."""

    DIRECTORY_ENABLED = "directory.enabled"
    DIRECTORY_DISABLED = "directory.disabled"
    GROUP_CREATED = "group.created"
    GROUP_UPDATED = "group.updated"
    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USER_ACTIVATED = "user.activated"
    MEMBERSHIP_ADDED = "membership.added"
    ROLE_GRANTED = "role.granted"
    ROLE_REVOKED = "role.revoked"
    MEMBERSHIP_REMOVED = "membership.removed"
    USER_DEACTIVATED = "user.deactivated"
    USER_ERASED = "user.erased"
    GROUP_DELETED = "group.deleted"


class CauseKind(StrEnum):
    """What changes anything here."""

    DELIVERY = "delivery"
    RUN = "run"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Cause:
    """What changed something: a delivery by its webhook id, a run by its id, an operator by name. `occurred_at`: when it happened
    there, in nanoseconds since 1970; of what an operator does, None."""

    kind: CauseKind
    id: str
    occurred_at: int | None = None


def newest_of(causes: Iterable[Cause]) -> Cause:
    """The newest of these causes."""
    return max(causes, key=lambda cause: (cause.occurred_at or 0, cause.id))


@dataclass(frozen=True, slots=True)
class Change:
    """One row. `before` and `after` hold what differs; of what was not there or is gone, None."""

    type: ChangeType
    organization_id: str
    cause: Cause
    user_id: str | None = None
    group_id: str | None = None
    directory_id: str | None = None
    role: str | None = None
    before: Values | None = field(default=None, repr=False)
    after: Values | None = field(default=None, repr=False)


def in_order(changes: Iterable[Change]) -> list[Change]:
    """The changes of one batch so that nobody is in a group, or has a role, before it is there and after it is gone."""
    return sorted(changes, key=lambda change: _ORDER[change.type])


def of_directory(key: Key, before: bool | None, after: bool, cause: Cause) -> Iterator[Change]:
    """A directory was enabled or disabled; `before` is None of one that was not known."""
    if before != after:
        type_ = ChangeType.DIRECTORY_ENABLED if after else ChangeType.DIRECTORY_DISABLED
        was = None if before is None else {"enabled": before}
        yield Change(type_, key.organization_id, cause, directory_id=key.id, before=was, after={"enabled": after})


def of_group(key: Key, before: Values | None, after: Values | None, cause: Cause) -> Iterator[Change]:
    """What became of a group; None stands for one that is not there, or is deleted."""
    change = partial(Change, organization_id=key.organization_id, cause=cause, group_id=key.id)
    if before is None and after is not None:
        yield change(ChangeType.GROUP_CREATED, after=after)
    elif after is None and before is not None:
        yield change(ChangeType.GROUP_DELETED, before=before)
    elif before is not None and after is not None and (differing := _differing(before, after)):
        yield change(ChangeType.GROUP_UPDATED, before=differing[0], after=differing[1])


@dataclass(frozen=True, slots=True)
class Was:
    """What a user showed before."""

    active: bool
    profile: Mapping[str, str | None]
    attributes: Values
    groups: frozenset[str]
    roles: frozenset[str]


def of_user(key: Key, before: Was | None, after: Shown, cause: Cause, *, application_id: str | None = None) -> Iterator[Change]:
    """What became of a user, its groups and its roles; `before` is None of a new one, which the application may have an id of."""
    change = partial(Change, organization_id=key.organization_id, cause=cause, user_id=key.id)
    now_in, has = after.groups, after.roles
    if before is None:
        was_in = had = frozenset[str]()
        told = {"active": after.active, **after.profile, "application_id": application_id, "attributes": after.attributes}
        yield change(ChangeType.USER_CREATED, after=told)
    else:
        was_in, had = before.groups, before.roles
        if differing := _user_differing(before, after):
            yield change(ChangeType.USER_UPDATED, before=differing[0], after=differing[1])
        if before.active != after.active:
            type_ = ChangeType.USER_ACTIVATED if after.active else ChangeType.USER_DEACTIVATED
            yield change(type_, before={"active": before.active}, after={"active": after.active})
    for group_id in sorted(now_in - was_in):
        yield change(ChangeType.MEMBERSHIP_ADDED, group_id=group_id)
    for role in sorted(has - had):
        yield change(ChangeType.ROLE_GRANTED, role=role)
    for role in sorted(had - has):
        yield change(ChangeType.ROLE_REVOKED, role=role)
    for group_id in sorted(was_in - now_in):
        yield change(ChangeType.MEMBERSHIP_REMOVED, group_id=group_id)


def of_application_id(key: Key, before: str | None, after: str | None, cause: Cause) -> Change:
    """The application calls a user by another id."""
    was, is_ = {"application_id": before}, {"application_id": after}
    return Change(ChangeType.USER_UPDATED, key.organization_id, cause, user_id=key.id, before=was, after=is_)


def of_erased(key: Key, *, active: bool, cause: Cause) -> Iterator[Change]:
    """Somebody lost access, if they had it, and was erased, with every membership and role: nothing more is said of them."""
    change = partial(Change, organization_id=key.organization_id, cause=cause, user_id=key.id)
    if active:
        yield change(ChangeType.USER_DEACTIVATED, before={"active": True}, after={"active": False})
    yield change(ChangeType.USER_ERASED)


_ORDER = {type_: number for number, type_ in enumerate(ChangeType)}


def _user_differing(before: Was, after: Shown) -> tuple[dict[str, Json], dict[str, Json]] | None:
    """The profile's values that differ, and of the attributes those that do; null is one that is not there."""
    was, is_ = _differing(before.profile, after.profile) or ({}, {})
    if attributes := _differing(before.attributes, after.attributes):
        was["attributes"], is_["attributes"] = attributes
    return (was, is_) if is_ else None


def _differing(before: Values, after: Values) -> tuple[dict[str, Json], dict[str, Json]] | None:
    names = sorted(name for name in before.keys() | after.keys() if not _same(before.get(name), after.get(name)))
    return ({name: before.get(name) for name in names}, {name: after.get(name) for name in names}) if names else None


def _same(one: Json, other: Json) -> bool:
    """As JSON: 1 is neither true nor 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return repr(one) == repr(other) if isinstance(one, float) else one == other  # 0.0 is not -0.0
