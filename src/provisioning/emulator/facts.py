"""The events that Scalekit makes of a change, in its shapes and with its quirks, each with an id and a time that rise."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from provisioning.emulator.records import Directory, Event, Group, User, moment

ENVIRONMENT_ID = "env_118451842212053207"

_EPOCH = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 100)
_OBJECTS = {"user": "DirectoryUser", "group": "DirectoryGroup", "directory": "Directory"}


class Ticks:
    """Times and ids, each greater than the one before, on every thread. `after`, `above`: the last time and id of an earlier start."""

    def __init__(self, after: int = 0, above: int = 0) -> None:
        self._lock = threading.Lock()
        self._time = after
        self._id = above

    def time(self) -> int:
        """Now, in nanoseconds since 1970."""
        with self._lock:
            self._time = max(time.time_ns(), self._time + 1)
            return self._time

    def id(self, kind: str) -> str:
        """A new id such as `diruser_118462867007293155`: ticks of 10 ms since 2024 in its high bits, as in Scalekit's own."""
        with self._lock:
            self._id = max((time.time_ns() // 10**7 - _EPOCH) << 24, self._id + (1 << 16))
            return f"{kind}_{self._id}"


class Facts:
    """Makes events. `group_of` finds a group by its id, `roles_of` says which roles a person's groups give."""

    def __init__(self, ticks: Ticks, group_of: Callable[[str], Group], roles_of: Callable[[User], list[str]]) -> None:
        self._ticks = ticks
        self._group_of = group_of
        self._roles_of = roles_of

    def user_created(self, user: User) -> Event:
        """Somebody new; without groups they are null, as captured."""
        return self._event("user_created", user.organization_id, user.id, self._user(user))

    def user_updated(self, user: User) -> Event:
        """The whole person: a change of anything, and of `active` in particular."""
        return self._event("user_updated", user.organization_id, user.id, self._user(user))

    def user_deleted(self, user: User) -> Event:
        """Nothing but who it was."""
        data = {"id": user.id, "organization_id": user.organization_id, "dp_id": user.dp_id, "email": user.email}
        return self._event("user_deleted", user.organization_id, user.id, data)

    def group_created(self, group: Group) -> Event:
        """Never with members."""
        return self._event("group_created", group.organization_id, group.id, group_data(group))

    def group_updated(self, group: Group) -> Event:
        """Another name."""
        return self._event("group_updated", group.organization_id, group.id, group_data(group))

    def group_deleted(self, group: Group) -> Event:
        """Here the upstream id goes by another name."""
        return self._event("group_deleted", group.organization_id, group.id, {**_group(group), "dp_id": group.external_id})

    def directory_enabled(self, directory: Directory) -> Event:
        """With `enabled: false` in its data: so does the documented example."""
        return self._event("directory_enabled", directory.organization_id, directory.id, _directory(directory))

    def directory_disabled(self, directory: Directory) -> Event:
        """Nobody is deleted by it."""
        return self._event("directory_disabled", directory.organization_id, directory.id, _directory(directory))

    def _user(self, user: User) -> dict[str, object]:
        return user_data(user, map(self._group_of, user.groups), self._roles_of(user))

    def _event(self, what: str, organization_id: str, subject_id: str, data: Mapping[str, object]) -> Event:
        occurred_at = self._ticks.time()
        kind = f"organization.{what}" if what.startswith("directory_") else f"organization.directory.{what}"
        envelope = {
            "spec_version": "1",
            "id": self._ticks.id("evt"),
            "type": kind,
            "occurred_at": _rfc3339(occurred_at),
            "environment_id": ENVIRONMENT_ID,
            "organization_id": organization_id,
            "object": _OBJECTS[what.partition("_")[0]],
            "data": data,
            "display_name": "",
        }
        # In an order of its own each time, as Scalekit's is: whoever writes the body again before verifying it finds out here.
        names = random.sample(list(envelope), len(envelope))
        body = json.dumps({name: envelope[name] for name in names}, ensure_ascii=False, separators=(",", ":"))
        event_id = str(envelope["id"])
        return Event(id=event_id, type=kind, organization_id=organization_id, subject_id=subject_id, occurred_at=occurred_at, body=body)


def user_data(user: User, groups: Iterable[Group], roles: Iterable[str]) -> dict[str, object]:
    """The `data` of an event about a person, unless it is a deletion."""
    return {
        "active": user.active,
        "dp_id": user.dp_id,
        "email": user.email,
        "family_name": user.family_name,
        "given_name": user.given_name,
        "groups": [{"id": group.id, "name": group.name} for group in groups] or None,
        "id": user.id,
        "locale": "en-US",
        "name": user.name,
        "organization_id": user.organization_id,
        "preferred_username": user.email,
        "title": user.title or None,
        "department": user.department or None,
        "raw_attributes": _scim(user),
        "roles": [{"role_name": role} for role in roles],
    }


def group_data(group: Group) -> dict[str, object]:
    """The `data` of an event about a group, unless it is a deletion. Never with members."""
    return {**_group(group), "external_id": group.external_id}


def _group(group: Group) -> dict[str, object]:
    return {
        "directory_id": group.directory_id,
        "display_name": group.name,
        "id": group.id,
        "organization_id": group.organization_id,
        "raw_attributes": {},
    }


def _directory(directory: Directory) -> dict[str, object]:
    return {
        "directory_type": "SCIM",
        "enabled": False,
        "id": directory.id,
        "organization_id": directory.organization_id,
        "provider": directory.provider,
        "updated_at": _rfc3339(directory.updated_at),
    }


def _scim(user: User) -> dict[str, object]:
    """The person as the provider sent it (RFC 7643)."""
    return {
        "active": user.active,
        "displayName": user.name,
        "emails": [{"primary": True, "type": "work", "value": user.email}],
        "externalId": user.dp_id,
        "name": {"familyName": user.family_name, "givenName": user.given_name},
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "userName": user.email,
    }


def _rfc3339(nanoseconds: int) -> str:
    """With nine digits, less the zeros at the end: three to nine is what Scalekit sends."""
    fraction = f"{nanoseconds % 10**9:09d}".rstrip("0").ljust(3, "0")
    return f"{moment(nanoseconds):%Y-%m-%dT%H:%M:%S}.{fraction}Z"
