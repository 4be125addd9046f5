"""Users shown anew: what changed behind them, or was decided about them here, is brought to what they show, and into the change log.

Whoever shows a user holds its lock, and reads under it all that decides what the user shows: so everybody's history has one order.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

from sqlalchemy.orm import Session

from provisioning.accounts import LOCAL, PROFILE, DirectoryUser, Groups, Shown, is_abandoned, show
from provisioning.changes import Cause, Change, of_user
from provisioning.db import roles, users
from provisioning.db.prepared import Stored
from provisioning.db.repository import Id, Writes
from provisioning.merge import Key

_USERS_AT_ONCE = 1000

Behind = Mapping[Key, Sequence[DirectoryUser]]

_NOBODY: Mapping[Key, float] = {}
_NOT_KNOWN: Mapping[Key, DirectoryUser] = {}
_ANY_GROUPS = Groups()


def make(
    session: Session, made: Behind, disabled: Collection[Key], causes: Mapping[Key, Cause], now: datetime, writes: Writes
) -> list[Change]:
    """Have new users written, with their memberships and roles; returns the changes that they are."""
    groups = roles.of_groups(session, _named(chain.from_iterable(made.values())))
    changes: list[Change] = []
    for user, behind in made.items():
        shown = show(behind, disabled, groups)
        writes.insert(users.USERS, [users.row(user, shown, None, now)])
        _regroup(writes, now, user, _stated(behind), shown, {}, frozenset())
        changes += of_user(user, None, shown, causes[user])
    return changes


def show_anew(
    session: Session,
    affected: Mapping[Key, Cause],
    now: datetime,
    *,
    regrouped: Collection[Key],
    newcomers: Mapping[Key, float] = _NOBODY,
    known: Mapping[Key, DirectoryUser] = _NOT_KNOWN,
    disabled: Collection[Key] | None = None,
    writes: Writes,
) -> list[Change]:
    """Bring these stored users to what is behind them; returns the changes, each put down to its user's cause.

    Groups and roles are looked at for the `regrouped` only. The `newcomers` are directory users that join theirs now, each with the
    time (nanoseconds since 1970) at which it came there. The directory users that are `known` are locked, and as this transaction
    writes them; which directories are `disabled` is looked up unless it is said. What is to be written joins the other `writes`.
    """
    changes: list[Change] = []
    ordered = sorted(affected)
    for start in range(0, len(ordered), _USERS_AT_ONCE):
        stored = {Key(*key): row for key, row in users.USERS.lock(session, ordered[start : start + _USERS_AT_ONCE]).items()}
        behind = users.behind(session, stored, known)
        off = users.disabled_directories(session, chain.from_iterable(behind.values())) if disabled is None else disabled
        standing = _standing(session, {key: behind[key] for key in stored if key in regrouped}, off, newcomers)
        for key, row in stored.items():
            if key in regrouped:
                shown = _shown(row, behind[key], off, standing.groups, standing.granted_here[key])
                in_groups, granted = standing.in_groups[key], standing.granted[key]
                _regroup(writes, now, key, _stated(behind[key]), shown, in_groups, granted)
                entered = (group_id for (_, group_id), since in in_groups.items() if since)
                before = users.was(row, entered, (role for role, _ in granted))
            else:
                shown = replace(_shown(row, behind[key], off), memberships=frozenset(), grants=frozenset())
                before = users.was(row, (), ())
            if differing := list(of_user(key, before, shown, affected[key])):
                writes.save(users.USERS, [users.row(key, shown, row, now)])
                changes += differing
        writes.delete(users.LOCAL_ROLES, standing.ended)
        if start + _USERS_AT_ONCE < len(ordered):
            writes.write(session)  # what is written is no longer held in memory
    return changes


def _shown(
    row: Stored,
    behind: Sequence[DirectoryUser],
    disabled: Collection[Key],
    groups: Groups = _ANY_GROUPS,
    granted_here: Collection[str] = (),
) -> Shown:
    """What a stored user shows. One that nobody is behind yet stays as it is, with what was granted to it here."""
    if behind:
        return show(behind, disabled, groups, granted_here)
    grants = frozenset((role, LOCAL) for role in granted_here) if row["active"] else frozenset()
    return Shown(row["active"], {name: row[name] for name in PROFILE}, row["attributes"], frozenset(), grants)


@dataclass(frozen=True, slots=True)
class _Standing:
    """How users stand: since when somebody behind each counts in a group, its roles and where from, those granted here. `ended`: the
    grants made here to people who have all left."""

    groups: Groups
    in_groups: Mapping[Key, Mapping[tuple[str, str], datetime | None]]
    granted: Mapping[Key, set[tuple[str, str]]]
    granted_here: Mapping[Key, set[str]]
    ended: Sequence[Id]


def _standing(session: Session, behind: Behind, disabled: Collection[Key], newcomers: Mapping[Key, float]) -> _Standing:
    people = list(chain.from_iterable(behind.values()))
    granted_here = users.granted_here(session, behind)
    abandoned = {key for key, each in behind.items() if newcomers and granted_here[key] and is_abandoned(each, newcomers, disabled)}
    ended = [(*key, role) for key in abandoned for role in granted_here[key]]
    for key in abandoned:
        granted_here[key].clear()
    return _Standing(
        roles.of_groups(session, _named(people)),
        users.in_groups(session, people),
        users.grants(session, behind),
        granted_here,
        ended,
    )


def _regroup(
    writes: Writes,
    now: datetime,
    key: Key,
    stated: Collection[tuple[str, str]],
    shown: Shown,
    in_groups: Mapping[tuple[str, str], datetime | None],
    granted: Collection[tuple[str, str]],
) -> None:
    """Bring a user's memberships to what its directory users state and what of it counts, and its roles to what it shows."""
    writes.delete(users.MEMBERSHIPS, [(key.organization_id, *place) for place in in_groups.keys() - stated])
    for place in stated:
        since = now if place in shown.memberships else None
        if place not in in_groups:
            writes.insert(users.MEMBERSHIPS, [users.membership_row(key, place, since)])
        elif (since is None) != (in_groups[place] is None):
            writes.save(users.MEMBERSHIPS, [users.membership_row(key, place, since)])
    writes.delete(users.GRANTS, [(*key, *grant) for grant in granted if grant not in shown.grants])
    writes.insert(users.GRANTS, [users.grant_row(key, grant, now) for grant in shown.grants if grant not in granted])


def _stated(behind: Iterable[DirectoryUser]) -> set[tuple[str, str]]:
    return {(person.key.id, group_id) for person in behind for group_id in person.group_ids}


def _named(people: Iterable[DirectoryUser]) -> set[Key]:
    return {Key(person.key.organization_id, group_id) for person in people for group_id in person.group_ids}
