"""From the records there to the accounts here: who joins whom, which directory users count, and what a user shows. Pure.

Several directory users can stand behind one user; a user never leaves its organization.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from unicodedata import normalize

from provisioning.bodies import Json
from provisioning.events import Version
from provisioning.merge import DELETED, Key, Registers, newest
from provisioning.settings import LinkUsersByEmail

# What a user shows beside its attributes, which are everything else that the directory says.
PROFILE = ("email", "name", "given_name", "family_name", "preferred_username")
_NOT_ATTRIBUTES = frozenset({*PROFILE, DELETED, "active", "groups", "roles", "dp_id", "directory_id"})


def email_key(email: str | None) -> str | None:
    """What e-mails are compared by: stripped, NFC, lower case. Made here, since SQL's `lower()` differs between the databases."""
    return normalize("NFC", email.strip().lower()) or None if email else None


@dataclass(frozen=True)
class DirectoryUser:
    """A directory user, and what its registers come to; what is asked for again and again is worked out once."""

    key: Key
    registers: Registers
    user_id: str | None = None

    @property
    def email(self) -> str | None:
        """The address as the directory has it."""
        return self.text("email")

    @property
    def external_id(self) -> str | None:
        """The upstream id (`dp_id`)."""
        return self.text("dp_id")

    @property
    def directory_id(self) -> str | None:
        """The directory it was seen in; unknown until a reconcile."""
        return self.text("directory_id")

    @property
    def deleted(self) -> bool:
        """Whether the directory says that it is gone."""
        return self._value(DELETED) is True

    @cached_property
    def active(self) -> bool:
        """Whether the directory lets this person in: an `active` never written reads as true unless the record is deleted."""
        return not self.deleted and self._value("active") is not False

    @property
    def said_at(self) -> int | None:
        """When its directory last said that it is to be let in, or that it is not (nanoseconds since 1970); None if it never did."""
        said = self.registers.get(DELETED) if self.deleted else self.registers.get("active", self.registers.get(DELETED))
        return said.version.occurred_at if said else None

    @cached_property
    def group_ids(self) -> frozenset[str]:
        """The groups it is in, as its directory says."""
        return self._named("groups", "id")

    @cached_property
    def roles(self) -> frozenset[str]:
        """The roles that its organization's mapping gives it."""
        return self._named("roles", "role_name")

    @cached_property
    def version(self) -> Version | None:
        """How fresh it is."""
        return newest(self.registers)

    @property
    def attributes(self) -> dict[str, Json]:
        """Everything else that its directory says, less what it cleared."""
        return {
            key: register.value
            for key, register in sorted(self.registers.items())
            if key not in _NOT_ATTRIBUTES and register.value is not None
        }

    def text(self, key: str) -> str | None:
        """The register `key`, if it holds a text."""
        value = self._value(key)
        return value if isinstance(value, str) else None

    def _value(self, key: str) -> Json:
        register = self.registers.get(key)
        return register.value if register else None

    def items(self, key: str) -> list[dict[str, Json]]:
        """The entries of the register `key`, if it holds a list."""
        found = self._value(key)
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def _named(self, key: str, name: str) -> frozenset[str]:
        return frozenset(str(item[name]) for item in self.items(key))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A user whom a new directory user might join, and who is behind it now."""

    user_id: str
    email_key: str | None
    behind: Sequence[DirectoryUser]


def join(newcomer: DirectoryUser, candidates: Iterable[Candidate], policy: LinkUsersByEmail) -> str | None:
    """The id of the user whom `newcomer` joins, or None for a new one.

    The same e-mail joins while somebody is still behind that user, else only with the same upstream id: an address is given to the
    next person, and a newcomer must not inherit a leaver's account. Where either has no e-mail, the upstream id alone decides.
    """
    by_email = policy != "never"
    wanted = email_key(newcomer.email) if by_email else None
    joinable: list[tuple[bool, str]] = []
    for candidate in candidates:
        same_person = newcomer.external_id is not None and any(each.external_id == newcomer.external_id for each in candidate.behind)
        theirs = candidate.email_key if by_email else None
        if wanted is None or theirs is None:
            joins = same_person
        else:
            lives = not candidate.behind or any(not each.deleted for each in candidate.behind)
            joins = wanted == theirs and (same_person or lives or policy == "always")
        if joins:
            joinable.append((not same_person, candidate.user_id))
    return min(joinable)[1] if joinable else None


LOCAL = "local"  # where a role comes from that was granted here


def from_group(group_id: str) -> str:
    """Where a role comes from that the group of this id is mapped to here."""
    return f"group:{group_id}"


@dataclass(frozen=True, slots=True)
class Groups:
    """What is to be known of groups: which are deleted, and the roles that others are mapped to here."""

    deleted: Collection[Key] = frozenset()
    roles: Mapping[Key, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a user shows. `memberships`: who behind it lets it into which group; `grants`: its roles, each with where it comes from."""

    active: bool
    profile: dict[str, str | None]
    attributes: dict[str, Json]
    memberships: frozenset[tuple[str, str]]
    grants: frozenset[tuple[str, str]]

    @property
    def groups(self) -> frozenset[str]:
        """The groups it is in."""
        return frozenset(group_id for _, group_id in self.memberships)

    @property
    def roles(self) -> frozenset[str]:
        """The roles it has."""
        return frozenset(role for role, _ in self.grants)


def counting(behind: Sequence[DirectoryUser], disabled: Collection[Key]) -> list[DirectoryUser]:
    """Those of `behind` that count: whose directory is not among the `disabled`, or all of them when every one is of such a directory.

    So moving a company from one directory to another locks nobody out when the old one is disabled, and lets no leaver stay in by it.
    """
    enabled = [each for each in behind if each.directory_id is None or Key(each.key.organization_id, each.directory_id) not in disabled]
    return enabled or list(behind)


def show(behind: Sequence[DirectoryUser], disabled: Collection[Key], groups: Groups = Groups(), local_roles: Collection[str] = ()) -> Shown:
    """What the user with these directory users behind it shows: an active one's profile first, then the newest's.

    Groups and roles are those of all active ones, the roles that its groups are mapped to, and those granted to it here.
    """
    considered = counting(behind, disabled)
    best = max(considered, key=lambda each: (each.active, each.version or (), each.key))
    active = [each for each in considered if each.active]
    memberships = frozenset(
        (each.key.id, id_) for each in active for id_ in each.group_ids if Key(each.key.organization_id, id_) not in groups.deleted
    )
    grants = {(role, each.key.id) for each in active for role in each.roles}
    if active:
        grants.update((role, LOCAL) for role in local_roles)
    if groups.roles:
        entered = {group_id for _, group_id in memberships}
        grants.update((role, from_group(id_)) for id_ in entered for role in groups.roles.get(Key(best.key.organization_id, id_), ()))
    return Shown(bool(active), {name: best.text(name) for name in PROFILE}, best.attributes, memberships, frozenset(grants))


def is_abandoned(behind: Sequence[DirectoryUser], newcomers: Mapping[Key, float], disabled: Collection[Key]) -> bool:
    """Whether newcomers, each with the time it came at, joined a user whom everybody had left by then: what was granted is not theirs.

    Who leaves after that, as in a move from one directory to another, leaves it to them.
    """
    came = [newcomers[each.key] for each in behind if each.key in newcomers]
    before = counting([each for each in behind if each.key not in newcomers], disabled)
    return bool(came and before) and not any(each.active or (each.said_at or 0) > min(came) for each in before)
