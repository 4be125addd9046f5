"""What each event means, as register writes. Pure: the same event always gives the same writes.

A group's two names for one thing end here: `display_name` is its `name`, `dp_id` its `external_id` (scalekit.md, *Events*).
"""

import re
from collections.abc import Mapping

from provisioning.bodies import Json
from provisioning.events import Event
from provisioning.merge import DELETED, Key, Kind, Write

# Entra ID soft-deletes by putting 32 hex digits before the address; such a name must not be written over the real one.
_SOFT_DELETED = re.compile(r"[0-9a-fA-F]{32}[^@\s]+@.+", re.DOTALL)


def directory_enabled(event: Event) -> list[Write]:
    """The directory is enabled: the event's type says so, whatever `enabled` its data carries (the documented example has false)."""
    return [_directory(event, enabled=True)]


def directory_disabled(event: Event) -> list[Write]:
    """The directory is disabled. Nobody is deleted by it."""
    return [_directory(event, enabled=False)]


def user_created(event: Event) -> list[Write]:
    """The person is there, and active unless the event says otherwise."""
    return _stated(event, {"active": True})


def user_updated(event: Event) -> list[Write]:
    """The person is there, with the keys that the event carries; `active: false` is how many providers suspend and deprovision."""
    return _stated(event, {})


def user_deleted(event: Event) -> list[Write]:
    """The person is gone. What else the event carries is a hint: it is thin, and must not be written over a profile."""
    gone: dict[str, Json] = {DELETED: True, "active": False, "groups": [], "roles": []}
    if event.inferred:
        gone["roles"] = event.data.get("roles", [])  # what no list shows, and nobody took: a default role
    hints = {key: value for key, value in user_statements(event.data).items() if key not in gone}
    return [_write(Kind.DIRECTORY_USER, event, gone, hints)]


def group_created(event: Event) -> list[Write]:
    """The group is there."""
    return [_write(Kind.GROUP, event, {DELETED: False, **group_statements(event.data)})]


def group_updated(event: Event) -> list[Write]:
    """The group is there, under this name. Its members come with the events of users only."""
    return [_write(Kind.GROUP, event, {DELETED: False, **group_statements(event.data)})]


def group_deleted(event: Event) -> list[Write]:
    """The group is gone; it stops counting at once, whenever the events of its members arrive."""
    return [_write(Kind.GROUP, event, {DELETED: True}, group_statements(event.data))]


def _directory(event: Event, *, enabled: bool) -> Write:
    return _write(Kind.DIRECTORY, event, {**_data(event.data), "enabled": enabled})


def _stated(event: Event, defaults: dict[str, Json]) -> list[Write]:
    data = user_statements(event.data)
    person = _write(Kind.DIRECTORY_USER, event, {DELETED: False, **defaults, **data}, event.hints)
    return [person, *(_group_mentioned(event, group) for group in _items(data.get("groups")))]


def _group_mentioned(event: Event, group: dict[str, Json]) -> Write:
    """A group that a person is in exists, even if nothing else was heard of it yet."""
    hints = {"name": group["name"]} if group.get("name") else {}
    return Write(Kind.GROUP, Key(event.organization_id, str(group["id"])), event.version, hints=hints)


def user_statements(said: Mapping[str, Json]) -> dict[str, Json]:
    """What the data of an event, or a listing, states of a person: less what says nothing, or is not to be believed."""
    data = _data(said)
    for key, name in (("groups", "id"), ("roles", "role_name")):
        if key in data:
            data[key] = [item for item in _items(data[key]) if item.get(name)]
    if data.get("active") is None:
        data.pop("active", None)
    for key in ("email", "preferred_username"):
        if isinstance(value := data.get(key), str) and _SOFT_DELETED.fullmatch(value):
            del data[key]
    return _without_blank(data, "email", "dp_id")


def group_statements(said: Mapping[str, Json]) -> dict[str, Json]:
    """The same of a group, by the names that its registers have."""
    data = _without_blank(_data(said), "external_id", "dp_id")
    if "display_name" in data:
        data["name"] = data.pop("display_name")
    if "dp_id" in data:
        dp_id = data.pop("dp_id")
        data["external_id"] = data.get("external_id") or dp_id
    return data


def _data(said: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in said.items() if key not in ("id", "organization_id", DELETED)}


def _without_blank(data: dict[str, Json], *keys: str) -> dict[str, Json]:
    """`data` without those `keys` whose text is blank: that says nothing, while null says that there is none."""
    return {key: value for key, value in data.items() if not (key in keys and isinstance(value, str) and not value.strip())}


def _write(kind: Kind, event: Event, statements: dict[str, Json], hints: dict[str, Json] | None = None) -> Write:
    return Write(kind, Key(event.organization_id, event.subject_id), event.version, statements, hints or {}, event.inferred)


def _items(value: Json) -> list[dict[str, Json]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
