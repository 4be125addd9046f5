"""Whether what a listing did not show may be removed here, or is held back until somebody approves. Pure.

A short answer looks like a company of which half has left; so what is only inferred from absence is believed in small numbers.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import cast

from provisioning.bodies import Json
from provisioning.db.known import Present, Strength

ALWAYS = 5  # so many of a kind may go within a day, however small the organization

Lists = Mapping[str, frozenset[str]]


@dataclass
class Missing:
    """What is here and was not listed: people and groups by id, and by person, of those who were listed, memberships and roles."""

    people: Mapping[str, Present] = field(default_factory=dict)
    groups: Mapping[str, Present] = field(default_factory=dict)
    memberships: Lists = field(default_factory=dict)
    roles: Lists = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.people or self.groups or self.memberships or self.roles)

    def both(self, other: "Missing") -> "Missing":
        """What is in the other as well."""
        return Missing(
            {id_: each for id_, each in self.people.items() if id_ in other.people},
            {id_: each for id_, each in self.groups.items() if id_ in other.groups},
            _both(self.memberships, other.memberships),
            _both(self.roles, other.roles),
        )

    def less(self, other: "Missing") -> "Missing":
        """What `other` leaves of it."""
        return Missing(
            {id_: each for id_, each in self.people.items() if id_ not in other.people},
            {id_: each for id_, each in self.groups.items() if id_ not in other.groups},
            _less(self.memberships, other.memberships),
            _less(self.roles, other.roles),
        )

    def without(self, ids: Container[str]) -> "Missing":
        """What of it is not about these people and groups."""
        people = {id_: each for id_, each in self.people.items() if id_ not in ids}
        return Missing(people, {id_: each for id_, each in self.groups.items() if id_ not in ids}, self.memberships, self.roles)

    def proposed(self, proposal: Mapping[str, Json]) -> "Missing":
        """What of it a stored proposal named."""
        said = cast("Mapping[str, Mapping[str, list[str]]]", proposal)
        people, groups = frozenset(said["people"]), frozenset(said["groups"])
        return Missing(
            {id_: each for id_, each in self.people.items() if id_ in people},
            {id_: each for id_, each in self.groups.items() if id_ in groups},
            _both(self.memberships, said["memberships"]),
            _both(self.roles, said["roles"]),
        )

    def as_proposal(self) -> dict[str, Json]:
        """As it is stored. `users`: the accounts of the people."""
        return {
            "people": [*sorted(self.people)],
            "users": [*sorted({each.user_id for each in self.people.values() if each.user_id})],
            "groups": [*sorted(self.groups)],
            "memberships": {id_: [*sorted(groups)] for id_, groups in self.memberships.items()},
            "roles": {id_: [*sorted(roles)] for id_, roles in self.roles.items()},
        }


@dataclass(frozen=True, slots=True)
class Amount:
    """Of one kind: how many would go, have gone within a day without approval, and are there now."""

    kind: str
    going: int
    gone: int
    present: int

    def why_not(self, share: float) -> str | None:
        """Why they may not go unasked: within a day more than the larger of ALWAYS and `share` of those there were, or than half."""
        before, within_a_day = self.present + self.gone, self.going + self.gone
        if self.going == 0 or (within_a_day <= max(ALWAYS, share * before) and within_a_day <= before / 2):
            return None
        also = f", and {self.gone} have gone within a day" if self.gone else ""
        return f"{self.going} of {self.present} {self.kind} were not listed{also}."


@dataclass(frozen=True, slots=True)
class Situation:
    """What a judgement rests on. `strength` before the listing; `gone` within a day, by kind; `active`: people who lose memberships.

    `doubts`: why the listing is not to be believed at all in what it does not show; `gone_directories`: those that are here alone.
    """

    strength: Strength
    listable: frozenset[str | None]
    gone: Mapping[str, int]
    active: frozenset[str]
    doubts: list[str]
    gone_directories: frozenset[str]

    def judge(self, missing: Missing, share: float) -> tuple[Missing, Missing, list[str]]:
        """What goes, what is held back, and why it is."""
        held = self._of_gone_directories(missing)
        why = [f"The directory {each} is gone." for each in sorted(self.gone_directories)] if held else []
        if missing and self.doubts:
            return Missing(), missing, [*why, *self.doubts]
        rest = missing.less(held)

        def too_many(kind: str, going: int, there: Mapping[str | None, int]) -> bool:
            present = sum(number for directory_id, number in there.items() if directory_id in self.listable)
            reason = Amount(kind, going, self.gone.get(kind, 0), present).why_not(share)
            why.extend([reason] if reason else [])
            return reason is not None

        if too_many("people", sum(each.active for each in rest.people.values()), self.strength.active):
            held.people = {**held.people, **rest.people}
        if too_many("groups", len(rest.groups), self.strength.groups):
            held.groups = {**held.groups, **rest.groups}
        # Who was in a group that goes is out with it: that is the group's going, and is counted as such.
        gone = frozenset(rest.groups.keys() - held.groups.keys())
        left = {id_: groups - gone for id_, groups in rest.memberships.items() if groups - gone}
        if too_many("memberships", self._of_active(left), self.strength.memberships):
            held.memberships = left
        if too_many("role grants", self._of_active(rest.roles), self.strength.grants):
            held.roles = rest.roles
        return missing.less(held), held, why

    def _of_gone_directories(self, missing: Missing) -> Missing:
        """The part whose directory is gone, or may be: of whom no listing said yet in which one they are."""

        def of(records: Mapping[str, Present]) -> dict[str, Present]:
            homes = {None, *self.gone_directories} if self.gone_directories else set()
            return {id_: each for id_, each in records.items() if each.directory_id in homes}

        return Missing(of(missing.people), of(missing.groups))

    def _of_active(self, lists: Lists) -> int:
        return sum(len(each) for id_, each in lists.items() if id_ in self.active)


def named(missing: Missing) -> frozenset[str]:
    """The directories of what is missing, as far as they are known."""
    records = chain(missing.people.values(), missing.groups.values())
    return frozenset(each.directory_id for each in records if each.directory_id)


def proposed_ids(proposal: Mapping[str, Json]) -> frozenset[str]:
    """The people and groups that a stored proposal names."""
    said = cast("Mapping[str, list[str]]", proposal)
    return frozenset([*said["people"], *said["groups"]])


def _both(lists: Lists, other: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    return {id_: both for id_, each in lists.items() if (both := each & frozenset(other.get(id_, ())))}


def _less(lists: Lists, other: Lists) -> dict[str, frozenset[str]]:
    return {id_: rest for id_, each in lists.items() if (rest := each - other.get(id_, frozenset()))}
