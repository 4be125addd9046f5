"""A reader of the feed, for tests: follows it page by page into tables of its own, which start empty, and believes nothing twice."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from provisioning.changes import ChangeType
from provisioning.db.reading.changes import Place, StoredChange, last_place
from provisioning.db.reading.groups import page_of_groups
from provisioning.db.reading.users import UserFilter, page_of_users
from provisioning.db.session import Database
from provisioning.feed import Feed, Wanted
from provisioning.merge import Key

EVERYTHING = Wanted()


def everything(database: Database, after: int = 0, wanted: Wanted = EVERYTHING, limit: int = 7) -> list[StoredChange]:
    """All that has settled behind `after`, page by page."""
    feed, found = Feed(database), list[StoredChange]()
    with database.reading() as session:
        here = last_place(session, after)
    place = here if here.position == after else Place(after)
    while True:
        part = feed.read(place, wanted, limit)
        found += part.changes
        if part.last:
            return found
        place = part.place


@dataclass
class Copy:
    """What a reader of the feed makes of it. Each change has to fit what came before it."""

    users: dict[Key, dict[str, Any]] = field(default_factory=dict)
    groups: dict[Key, dict[str, Any]] = field(default_factory=dict)
    memberships: set[tuple[str, str | None, str | None]] = field(default_factory=set)
    roles: set[tuple[str, str | None, str | None]] = field(default_factory=set)
    directories: dict[Key, bool] = field(default_factory=dict)

    def follow(self, changes: Iterator[StoredChange] | list[StoredChange]) -> "Copy":
        """Take these over, in their order."""
        for change in changes:
            self._take(change)
        return self

    def _take(self, change: StoredChange) -> None:
        organization_id, before, after = change.organization_id, change.before, change.after
        noun, verb = change.type.split(".")
        if noun == "user":
            self._user(Key(organization_id, str(change.user_id)), verb, before, after)
        elif noun == "group":
            self._group(Key(organization_id, str(change.group_id)), verb, before, after)
        elif noun == "directory":
            key = Key(organization_id, str(change.directory_id))
            assert (None if before is None else before["enabled"]) == self.directories.get(key)
            assert after == {"enabled": verb == "enabled"}
            self.directories[key] = verb == "enabled"
        else:
            assert before is None is after
            held, what = (self.memberships, change.group_id) if noun == "membership" else (self.roles, change.role)
            entry = (organization_id, change.user_id, what)
            assert Key(organization_id, str(change.user_id)) in self.users
            if change.type in {ChangeType.MEMBERSHIP_ADDED, ChangeType.ROLE_GRANTED}:
                assert entry not in held
                held.add(entry)
            else:
                held.remove(entry)

    def _user(self, key: Key, verb: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        if verb == "erased":
            assert before is after is None
            assert not self.users.pop(key, {"active": False})["active"]  # who reads from the beginning never heard of them
            self.memberships = {entry for entry in self.memberships if entry[:2] != key}
            self.roles = {entry for entry in self.roles if entry[:2] != key}
            return
        assert after is not None
        if key not in self.users and verb == "deactivated":
            return  # of somebody who was erased since
        if verb == "created":
            assert before is None
            assert key not in self.users
            # What is not said is null: a release before this one said nothing of application ids.
            self.users[key] = {"application_id": None, **after, "attributes": dict(after["attributes"])}
            return
        user = self.users[key]
        assert before is not None
        assert before != after
        assert before.keys() == after.keys()
        attributes = {name: user["attributes"].get(name) for name in before.get("attributes", {})}
        assert {**before, "attributes": before.get("attributes", {})} == {**{name: user[name] for name in before}, "attributes": attributes}
        changed = {**user["attributes"], **after.get("attributes", {})}
        self.users[key] = {**user, **after, "attributes": {name: value for name, value in changed.items() if value is not None}}
        assert verb == "updated" or after == {"active": verb == "activated"}

    def _group(self, key: Key, verb: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        group = self.groups.get(key)
        if verb == "created":
            assert before is group is None
            assert after is not None
            self.groups[key] = dict(after)
        elif verb == "deleted":
            assert before == group
            assert after is None
            del self.groups[key]
        else:
            assert group is not None
            assert before is not None
            assert after is not None
            assert before == {name: group[name] for name in before}
            self.groups[key] = {**group, **after}


def original(database: Database, organization_id: str) -> Copy:
    """The same as the service says it of one organization to whoever asks."""
    copy = Copy()
    with database.reading() as session:
        for user in page_of_users(session, organization_id, UserFilter(), after="", limit=10_000):
            names = ("active", "email", "name", "given_name", "family_name", "preferred_username", "application_id", "attributes")
            copy.users[Key(organization_id, user.id)] = {name: getattr(user, name) for name in names}
            copy.memberships |= {(organization_id, user.id, group.id) for group in user.groups}
            copy.roles |= {(organization_id, user.id, role) for role in user.roles}
        for group in page_of_groups(session, organization_id, include_deleted=False, after="", limit=10_000):
            values = {"name": group.name, "external_id": group.external_id, "directory_id": group.directory_id}
            copy.groups[Key(organization_id, group.id)] = values
    return copy
