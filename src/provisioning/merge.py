"""How an event joins a stored record: a last-writer-wins map, one register per key, so order and duplicates cannot matter.

Merging is commutative, associative and idempotent (Shapiro et al., *Conflict-free Replicated Data Types*, 2011, LWW-register).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from provisioning.bodies import Json
from provisioning.events import Version

DELETED = "$deleted"  # our own register; a key of this name in somebody's data is not taken over


class Kind(StrEnum):
    """The records that are kept in registers, by the name of their table."""

    DIRECTORY = "directories"
    GROUP = "groups"
    DIRECTORY_USER = "directory_users"


class Key(NamedTuple):
    """A record's key. An id means nothing outside its organization."""

    organization_id: str
    id: str


class Register(NamedTuple):
    """A value, and the version that wrote it."""

    value: Json
    version: Version


Registers: TypeAlias = Mapping[str, Register]
Stored: TypeAlias = "list[list[Json]]"


@dataclass(frozen=True, slots=True)
class Write:
    """What one event says of one record: statements at its version, hints at the same version's lower grade.

    What is only `inferred` is written whole or, once anything newer was said of the record, not at all.
    """

    kind: Kind
    key: Key
    version: Version
    statements: Mapping[str, Json] = field(default_factory=dict)
    hints: Mapping[str, Json] = field(default_factory=dict)
    inferred: bool = False

    def said(self, key: str) -> Json:
        """What it says of the register `key`; None when it says nothing."""
        return self.statements[key] if key in self.statements else self.hints.get(key)


def merge(registers: Registers, write: Write) -> Registers | None:
    """The registers after `write`, or None when it wins none of them."""
    if write.inferred and any(register.version.occurred_at > write.version.occurred_at for register in registers.values()):
        return None
    hint = Version(0, *write.version[1:])
    won = {
        key: Register(value, version)
        for version, values in ((hint, write.hints), (write.version, write.statements))
        for key, value in values.items()
        if key not in registers or version > registers[key].version
    }
    return {**registers, **won} if won else None


def fold(registers: Registers, writes: Iterable[tuple[int, Write]]) -> tuple[Registers, set[int]]:
    """The registers after all of the numbered `writes`, and the numbers of those that won one when their turn came."""
    won: set[int] = set()
    for number, write in writes:
        if (merged := merge(registers, write)) is not None:
            registers = merged
            won.add(number)
    return registers, won


def newest(registers: Registers) -> Version | None:
    """The highest version among the registers: how fresh the record is."""
    return max((register.version for register in registers.values()), default=None)


def dump(registers: Registers) -> Stored:
    """The registers as JSON, grouped by version: `[[version, {key: value}], …]`, newest first. Equal registers give an equal dump."""
    groups: dict[Version, dict[str, Json]] = {}
    for key in sorted(registers):
        value, version = registers[key]
        groups.setdefault(version, {})[key] = value
    return [[list(version), values] for version, values in sorted(groups.items(), reverse=True)]


def load(stored: Iterable[Iterable[Json]]) -> Registers:
    """The registers that `dump` wrote."""
    result: dict[str, Register] = {}
    for version, values in stored:
        assert isinstance(version, list) and isinstance(values, dict)  # noqa: S101, PT018 (narrows what only `dump` writes)
        at = Version(*version)  # type: ignore[arg-type] # five fields, as `dump` wrote them
        result.update((key, Register(value, at)) for key, value in values.items())
    return result
