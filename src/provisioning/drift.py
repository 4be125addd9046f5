"""What a listing of a directory and the records here disagree on, record by record. Pure.

What a listing states can be brought here at once, as the event that a record's drift carries. What it merely does not show (groups and
roles that somebody has here) is told apart: whether that may be believed is the guard's to say.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from provisioning.accounts import DirectoryUser
from provisioning.bodies import Json
from provisioning.directory import Directory, ListedGroup, ListedUser
from provisioning.errors import Unreadable
from provisioning.events import Event, EventType, Version, listed
from provisioning.handlers import group_statements, user_statements
from provisioning.merge import DELETED, Key, Register, Registers

CHANGES = (
    "users_created",
    "users_updated",
    "users_deactivated",
    "users_reactivated",
    "groups_created",
    "groups_updated",
    "groups_deleted",
    "memberships_added",
    "memberships_removed",
    "roles_granted",
    "roles_revoked",
)
"""What a run counts."""

MISSING_HERE, CHANGED, GONE_THERE = "missing_here", "changed", "gone_there"
UNSETTLED = "unsettled"  # left to the next run
UNSAID = "active_unsaid"  # the listing does not say whether the person is active
ERASED = "erased"  # somebody who was erased here is in the directory still: nothing to be mended here
UNREADABLE = "unreadable"  # the listing says what no webhook could say
FAILED = "failed"  # something here fails on it

NEWER = "something newer than the listing was said of it"

SHOWN = 200

Pair: TypeAlias = tuple[Json, Json]

# What a record is taken to say that never said it.
_UNWRITTEN: Mapping[str, Json] = {"active": True, "enabled": True, DELETED: False}


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report: what is the matter with which record, and of which fields, before and after."""

    what: str
    type: str
    id: str
    fields: Mapping[str, Pair] = field(default_factory=dict)
    reason: str = ""

    def as_json(self) -> dict[str, Json]:
        """The finding, to be stored and shown."""
        shown: dict[str, Json] = {"what": self.what, "type": self.type, "id": self.id}
        if self.fields:
            shown["fields"] = {name: {"before": before, "after": after} for name, (before, after) in self.fields.items()}
        return {**shown, "reason": self.reason} if self.reason else shown


@dataclass
class Report:
    """Findings: the first of them, and how many there are that somebody or something may yet settle.

    Those that are `left` to the next run are shown last: what somebody has to decide about stands before them, however many they are.
    """

    first: list[Finding] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    number: int = 0

    def add(self, findings: Iterable[Finding | None]) -> None:
        """Report these, as far as they are findings."""
        for finding in findings:
            if finding:
                self.number += finding.what != ERASED
                shown = self.left if finding.what == UNSETTLED else self.first
                if len(shown) < SHOWN:
                    shown.append(finding)

    def joined(self, other: "Report") -> "Report":
        """Both, this one first."""
        return Report([*self.first, *other.first][:SHOWN], [*self.left, *other.left][:SHOWN], self.number + other.number)

    def as_json(self) -> list[dict[str, Json]]:
        """The first ones, to be stored and shown."""
        return [finding.as_json() for finding in [*self.first, *self.left][:SHOWN]]


@dataclass(frozen=True, slots=True)
class Fewer:
    """The groups and roles that somebody has here and a listing does not show; `active`: whether the person loses anything by that.

    `shown_groups`, with their names, and `shown_roles` are those that it does show; `kept_roles` what they had besides, which are no
    mapping's to take.
    """

    groups: frozenset[str]
    roles: frozenset[str]
    active: bool = False
    shown_groups: Mapping[str, str] = field(default_factory=dict)
    shown_roles: frozenset[str] = frozenset()
    kept_roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Drift:
    """One record's. `event`, if any, brings it here; `finding` and `changes` say what it changes, `removed` what the guard has to count.

    `beside`: what else there is to bring, in events of their own. `standing`: what stays as it is, and why.
    `fewer`: what a person has here and the listing does not show.
    """

    event: Event | None = None
    finding: Finding | None = None
    changes: Mapping[str, int] = field(default_factory=dict)
    standing: tuple[Finding, ...] = ()
    fewer: "Fewer | None" = None
    removed: Mapping[str, int] = field(default_factory=dict)
    beside: tuple["Drift", ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where and when something was listed. `occurred_at`: the version of what the listing states, in nanoseconds since 1970.

    `managed_roles`: those that the directory's mapping gives now, or gave at the last run. Others are not the mapping's to take.
    """

    organization_id: str
    directory: Directory
    occurred_at: int
    managed_roles: frozenset[str] = frozenset()


def compare_user(place: Place, said: ListedUser, stored: DirectoryUser | None) -> Drift | None:
    """What differs between a listed person and the record here, if there is one. None: nothing."""
    known = stored or DirectoryUser(Key(place.organization_id, said.id), {})
    if known.deleted and _is_newer(known.registers.get(DELETED), place.occurred_at):
        return Drift(standing=(Finding(UNSETTLED, "user", said.id, {"deleted": (True, False)}, NEWER),))
    statements = {**user_statements(said.data), "directory_id": place.directory.id}
    changed, newer = _split(place.occurred_at, known.registers, {DELETED: False, **statements})
    roles = frozenset(role for group in said.groups for role in place.directory.roles.get(group, ()))
    new_groups, missing_groups = _compare_sets(place, known, "groups", known.group_ids, frozenset(said.groups), newer)
    new_roles, missing_roles = _compare_sets(place, known, "roles", known.roles & (place.managed_roles | roles), roles, newer)
    shown_whole = {"groups": not missing_groups, "roles": not missing_roles}
    if (missing_groups or missing_roles) and is_touched(known.registers, place.occurred_at):
        newer |= {"groups": (_sorted(known.group_ids), _sorted(said.groups)), "roles": (_sorted(known.roles), _sorted(roles))}
        missing_groups = missing_roles = frozenset()
    standing = [Finding(UNSETTLED, "user", said.id, newer, NEWER)] if newer else []
    if unsaid := "active" not in statements:
        standing.append(Finding(UNSAID, "user", said.id, reason="the list does not say whether they are active"))

    first = known.user_id is None
    data = dict(statements) if first else {name: after for name, (_, after) in changed.items() if name != DELETED}
    names = {**dict.fromkeys(known.group_ids), **said.groups}
    groups: list[Json] = [{"id": each, "name": names[each]} for each in sorted(known.group_ids | new_groups)]
    granted: list[Json] = [{"role_name": role} for role in sorted(known.roles | new_roles)]
    lists = _Additions("groups", groups, known.group_ids, new_groups), _Additions("roles", granted, known.roles, new_roles)
    beside = []
    for added in lists:
        if added.new and not shown_whole[added.name]:
            beside.append(_beside(known, added))
        elif added.new or (first and added.name == "groups"):
            data[added.name] = added.items
            changed |= added.fields()
    event = None
    if first or changed:
        hints: dict[str, Json] = {"active": False} if first and unsaid else {}
        try:
            event = listed(EventType.USER_UPDATED, place.organization_id, said.id, place.occurred_at, data, hints=hints)
        except Unreadable as error:
            return Drift(standing=(Finding(UNREADABLE, "user", said.id, reason=str(error)),))
    less = None
    if missing_groups or missing_roles:
        less = Fewer(missing_groups, missing_roles, known.active, said.groups, roles, known.roles - missing_roles)
    if not (event or beside or standing or less):
        return None
    changes = {**_of_person(known, changed, first=first), **_count(each for each in lists if each.name in changed)}
    finding = _finding("user", said.id, changed, first=first)
    return Drift(event, finding, changes, tuple(standing), less, beside=tuple(beside))


def erased_user(id_: str) -> Drift:
    """Of somebody whom the directory shows, and who was erased here."""
    return Drift(standing=(Finding(ERASED, "user", id_, reason="erased, still in the directory"),))


@dataclass(frozen=True, slots=True)
class _Additions:
    """What a person's groups or roles would be, with what is `new`, and before anything is taken."""

    name: str
    items: list[Json]
    here: frozenset[str]
    new: frozenset[str]

    def fields(self) -> dict[str, Pair]:
        return {self.name: (_sorted(self.here), _sorted(self.here | self.new))} if self.new else {}


def _beside(known: DirectoryUser, added: _Additions) -> Drift:
    """Additions beside which something is missing: the listing does not state what it does not show.

    So the list is written as old as it was, and a webhook that is late still says what became of it.
    """
    organization_id, id_ = known.key
    before = known.registers[added.name].version
    event = listed(EventType.USER_UPDATED, organization_id, id_, before.occurred_at, {added.name: added.items})
    event = replace(event, version=before._replace(digest=f"{before.digest}+"))
    return Drift(event, Finding(CHANGED, "user", id_, added.fields()), _count([added]))


def _count(lists: Iterable[_Additions]) -> dict[str, int]:
    return {"memberships_added" if each.name == "groups" else "roles_granted": len(each.new) for each in lists}


def compare_group(place: Place, said: ListedGroup, stored: Registers | None) -> Drift | None:
    """The same of a group. One that only its members' events named so far has no registers but a name."""
    registers = stored or {}
    statements = {DELETED: False, **group_statements(said.data), "directory_id": place.directory.id}
    changed, newer = _split(place.occurred_at, registers, statements)
    standing = (Finding(UNSETTLED, "group", said.id, newer, NEWER),) if newer else ()
    event = None
    if changed or stored is None:
        data = {name: after for name, (_, after) in changed.items() if name != DELETED}
        try:
            event = listed(EventType.GROUP_UPDATED, place.organization_id, said.id, place.occurred_at, data)
        except Unreadable as error:
            return Drift(standing=(Finding(UNREADABLE, "group", said.id, reason=str(error)),))
    if not (event or standing):
        return None
    finding = _finding("group", said.id, changed, first=stored is None)
    changes = {"groups_created" if stored is None else "groups_updated": 1} if finding else {}
    return Drift(event, finding, changes, standing)


def compare_directory(organization_id: str, said: Directory, stored: Registers | None, occurred_at: int) -> Drift | None:
    """The same of a directory itself: whether it is enabled, and whose it is."""
    data: dict[str, Json] = {name: word for name, word in (("provider", said.provider), ("directory_type", said.type)) if word}
    changed, newer = _split(occurred_at, stored or {}, {"enabled": said.enabled, **data})
    if newer:
        return Drift(standing=(Finding(UNSETTLED, "directory", said.id, newer, NEWER),))
    if stored is not None and not changed:
        return None
    kind = EventType.DIRECTORY_ENABLED if said.enabled else EventType.DIRECTORY_DISABLED
    event = listed(kind, organization_id, said.id, occurred_at, data)
    return Drift(event, _finding("directory", said.id, changed, first=stored is None))


def is_touched(registers: Registers, occurred_at: int) -> bool:
    """Whether anything newer than a listing was said of a record: then absence from it proves nothing."""
    return any(register.version.occurred_at > occurred_at for register in registers.values())


def gone_user(known: DirectoryUser, occurred_at: int, *, managed_roles: frozenset[str], guarded: bool) -> Drift:
    """Of a person whom no listing shows. Roles that are no mapping's stay with the record, for the day on which the person is back."""
    organization_id, id_ = known.key
    kept: list[Json] = [item for item in known.items("roles") if item["role_name"] not in managed_roles]
    event = listed(EventType.USER_DELETED, organization_id, id_, occurred_at, {"roles": kept}, inferred=True)
    changes = {"users_deactivated": 1} if known.active else {}
    return Drift(event, gone_person(id_, known.email), changes, removed={"people": 1} if known.active and guarded else {})


def gone_person(id_: str, email: str | None, reason: str = "") -> Finding:
    """Somebody whom no listing shows, so that whoever decides about it sees who it is."""
    return Finding(GONE_THERE, "user", id_, {"email": (email, None)} if email else {}, reason)


def gone_group(organization_id: str, id_: str, occurred_at: int, *, guarded: bool) -> Drift:
    """Of a group that no listing shows."""
    event = listed(EventType.GROUP_DELETED, organization_id, id_, occurred_at, {}, inferred=True)
    return Drift(event, Finding(GONE_THERE, "group", id_), {"groups_deleted": 1}, removed={"groups": 1} if guarded else {})


def gone_directory(organization_id: str, id_: str, occurred_at: int) -> Drift:
    """Of a directory that is gone, like everybody in it."""
    return Drift(listed(EventType.DIRECTORY_DISABLED, organization_id, id_, occurred_at, {}))


def is_overtaken(known: DirectoryUser, less: Fewer) -> bool:
    """Whether the person has something now that the listing did not show and that is not among what is missing: a webhook from before the
    listing has given it since, or only one of two listings misses it.

    Said as of the listing it would stay, since the webhook that takes it is older.
    """
    groups, roles = less.groups | less.shown_groups.keys(), less.roles | less.shown_roles | less.kept_roles
    return not (known.group_ids <= groups and known.roles <= roles)


def without(known: DirectoryUser, occurred_at: int, less: Fewer, *, guarded: bool, gone: frozenset[str] = frozenset()) -> Drift | None:
    """Of a person whom the listing shows without the groups and roles of `less`. None: they are gone here as well by now.

    What the listing shows stays or comes with it, whatever a webhook from before it has said meanwhile: the next one would come too late.
    `gone`: groups that went themselves, and count as such.
    """
    groups, roles = less.groups & known.group_ids, less.roles & known.roles
    data: dict[str, Json] = {}
    fields: dict[str, Pair] = {}
    shown_groups: dict[str, Json] = {id_: {"id": id_, "name": name} for id_, name in sorted(less.shown_groups.items())}
    shown_roles: dict[str, Json] = {role: {"role_name": role} for role in sorted(less.shown_roles)}
    for name, key, here, going, shown in (
        ("groups", "id", known.group_ids, groups, shown_groups),
        ("roles", "role_name", known.roles, roles, shown_roles),
    ):
        if going:
            kept = [item for item in known.items(name) if item[key] not in going]
            data[name] = [*kept, *(item for id_, item in shown.items() if id_ not in here)]  # which were counted as they were brought
            fields[name] = (_sorted(here), _sorted((here - going) | shown.keys()))
    if not fields:
        return None
    organization_id, id_ = known.key
    event = listed(EventType.USER_UPDATED, organization_id, id_, occurred_at, data, inferred=True)
    changes = {"memberships_removed": len(groups), "roles_revoked": len(roles)}
    removed = {"memberships": len(groups - gone), "role grants": len(roles)} if known.active and guarded else {}
    return Drift(event, Finding(CHANGED, "user", id_, fields), changes, removed=removed)


def disabled_for_long(organization_id: str, id_: str, occurred_at: int) -> Drift:
    """Of a person in a directory that has been disabled for as long as the operator wants to wait."""
    event = listed(EventType.USER_UPDATED, organization_id, id_, occurred_at, {"active": False})
    return Drift(event, Finding(CHANGED, "user", id_, {"active": (True, False)}), {"users_deactivated": 1})


def unsettled(beaten: Iterable[Drift]) -> list[Finding]:
    """The findings of drift that something newer kept from being applied."""
    return [replace(drift.finding, what=UNSETTLED, reason=NEWER) for drift in beaten if drift.finding]


def _split(occurred_at: int, registers: Registers, statements: Mapping[str, Json]) -> tuple[dict[str, Pair], dict[str, Pair]]:
    """What differs: the fields that the listing may change, and those of which something newer was said. Each before and after."""
    changed: dict[str, Pair] = {}
    newer: dict[str, Pair] = {}
    for name, after in statements.items():
        register = registers.get(name)
        before = register.value if register else _UNWRITTEN.get(name)
        if not same(before, after):
            (newer if _is_newer(register, occurred_at) else changed)[name] = (before, after)
    return changed, newer


def _compare_sets(
    place: Place, known: DirectoryUser, name: str, here: frozenset[str], there: frozenset[str], newer: dict[str, Pair]
) -> tuple[frozenset[str], frozenset[str]]:
    """What is new there, and what the listing does not show of what is here."""
    if here != there and _is_newer(known.registers.get(name), place.occurred_at):
        newer[name] = (_sorted(here), _sorted(there))
        return frozenset(), frozenset()
    return there - here, here - there


def _is_newer(register: Register | None, occurred_at: int) -> bool:
    """Whether the register was written by something that a statement of a listing at this time does not overrule."""
    return register is not None and register.version >= Version(1, occurred_at, 0, 0, "")


def _of_person(known: DirectoryUser, changed: Mapping[str, Pair], *, first: bool) -> dict[str, int]:
    if first:
        return {"users_created": 1}
    said = known.registers.get("active")
    is_active = changed["active"][1] is True if "active" in changed else said is None or said.value is not False
    became = "users_reactivated" if is_active and not known.active else "users_deactivated" if known.active and not is_active else ""
    profile = changed.keys() - {DELETED, "active", "groups", "roles", "directory_id"}
    moved = changed.get("directory_id", (None,))[0] is not None
    back = known.deleted and not became
    return {**({became: 1} if became else {}), **({"users_updated": 1} if profile or moved or back else {})}


def _finding(type_: str, id_: str, changed: Mapping[str, Pair], *, first: bool) -> Finding | None:
    """In which directory somebody is is learned from the first listing: no webhook says it, so that is no drift."""
    shown = {name.lstrip("$"): pair for name, pair in changed.items() if name != "directory_id" or pair[0] is not None}
    if not shown:
        return None
    return Finding(MISSING_HERE, type_, id_) if first else Finding(CHANGED, type_, id_, shown)


def same(one: Json, other: Json) -> bool:
    """Whether two JSON values say the same. Numbers are compared as doubles: the listing knows no others."""
    if isinstance(one, str) or one is None:  # what most are
        return one == other
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return isinstance(other, int | float) and float(one) == float(other)


def _sorted(ids: Iterable[str]) -> list[Json]:
    return [*sorted(ids)]
