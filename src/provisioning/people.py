"""One batch's directory users: merged, linked to users, and written; then the users behind whom something changed are shown anew.

Locks come first and in one order (what newcomers are joined on, directory users, users), so that batches never wait in a ring.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import inf
from secrets import token_hex
from typing import TypeAlias

from sqlalchemy.orm import Session

from provisioning import showing
from provisioning.accounts import Candidate, DirectoryUser, email_key, join, show
from provisioning.bodies import Json
from provisioning.changes import Cause, CauseKind, Change, newest_of
from provisioning.db import locks, records, users
from provisioning.db.repository import Writes
from provisioning.db.session import Contended
from provisioning.merge import DELETED, Key, Kind, Write, fold
from provisioning.settings import LinkUsersByEmail

Numbered: TypeAlias = tuple[int, Write]
Reason: TypeAlias = tuple[str, str, str]  # what a newcomer is joined on: email or external_id, the organization, the text

_DIRECTORY_USERS = records.REPOSITORIES[Kind.DIRECTORY_USER]


class Batch:
    """The directory users that a batch writes to, before it and after it."""

    def __init__(
        self,
        session: Session,
        writes: Mapping[Key, Sequence[Numbered]],
        disabled: Collection[Key],
        link: LinkUsersByEmail,
        now: datetime,
    ) -> None:
        """Lock the records and what newcomers are joined on, and merge; nothing is written yet. `disabled` are the directories that are."""
        self._session, self._disabled, self._link, self._now = session, disabled, link, now
        self._held = _join_locks(session, writes)
        locks.hold(session, self._held)
        self.before = {Key(*key): records.directory_user(row) for key, row in _DIRECTORY_USERS.lock(session, writes).items()}
        self.after: dict[Key, DirectoryUser] = {}
        self.won: set[int] = set()
        self._told_by: dict[Key, set[int]] = {}
        for key, numbered in writes.items():
            stored = self.before.get(key, DirectoryUser(key, {}))
            merged, won = fold(stored.registers, numbered)
            self.after[key] = replace(stored, registers=merged) if won else stored
            self.won |= won
            self._told_by[key] = won or {number for number, _ in numbered}  # who is linked may have learned nothing new
        # In the order of their first event: which account somebody joins depends on who came first.
        self._newcomers = {
            key: came
            for key, numbered in writes.items()
            if self.after[key].user_id is None and (came := [number for number, write in numbered if _provisions(write)])
        }

    def write(self, flipped: Mapping[Key, Cause], causes: Sequence[Cause], writes: Writes) -> list[Change]:
        """Have all written that changed; show the users anew behind whom it did, and those `flipped` by a directory or a group.

        Returns the changes, each put down to the newest of the `causes`, by number, that had a part in it.
        """
        made = self._link_newcomers()
        caused, regrouped = self._caused(flipped, causes)
        changes = showing.make(self._session, made, self._disabled, caused, self._now, writes)
        claims = self._write_records(writes)
        affected = {user: cause for user, cause in caused.items() if user not in made}
        if affected and (claims or self._newcomers):
            # Whoever waits for a record to be made holds no lock on a user; and who joins one is found behind it.
            writes.write(self._session)
        newcomers = {key: min(_came(causes[number]) for number in numbers) for key, numbers in self._newcomers.items()}
        return changes + showing.show_anew(
            self._session,
            affected,
            self._now,
            regrouped=regrouped,
            newcomers=newcomers,
            known=self.after,
            disabled=self._disabled,
            writes=writes,
        )

    def _caused(self, flipped: Mapping[Key, Cause], causes: Sequence[Cause]) -> tuple[dict[Key, Cause], set[Key]]:
        """What changed each user, and the users whose groups or roles may be others now."""
        caused, regrouped = dict(flipped), set(flipped)
        for person in self._changed():
            if person.user_id:
                user = Key(person.key.organization_id, person.user_id)
                newest = newest_of(causes[number] for number in self._told_by[person.key])
                caused[user] = newest_of([caused[user], newest]) if user in caused else newest
                if _standing(person) != _standing(self.before.get(person.key)):
                    regrouped.add(user)
        return caused, regrouped

    def _changed(self) -> Iterator[DirectoryUser]:
        return (person for key, person in self.after.items() if person is not self.before.get(key))

    def _link_newcomers(self) -> dict[Key, list[DirectoryUser]]:
        """Give each newcomer its user; returns the users that had to be made, with who is behind them."""
        made: dict[Key, list[DirectoryUser]] = {}
        if not self._newcomers:
            return made
        newcomers = [self.after[key] for key in self._newcomers]
        if not self._held.issuperset(reason for person in newcomers for reason in _reasons(person)):
            raise Contended  # another batch said meanwhile what they are to be joined on
        pool = _Pool(self._session, newcomers, self._changed(), self.after, self._disabled)
        for key in self._newcomers:
            person = self.after[key]
            user_id = join(person, pool.candidates(person), self._link)
            person = self.after[key] = replace(person, user_id=user_id or new_id(self._now))
            user = Key(key.organization_id, str(person.user_id))
            if user_id is None:
                made[user] = []
            if user in made:
                made[user].append(person)
            pool.joined(person)
        return made

    def _write_records(self, writes: Writes) -> bool:
        """Whether some are new: another batch may make one of them meanwhile, with neither e-mail nor upstream id in common."""
        rows = {person.key: records.directory_user_row(person, self._now) for person in self._changed()}
        new = rows.keys() - self.before.keys()
        writes.claim(_DIRECTORY_USERS, [rows[key] for key in new])
        writes.save(_DIRECTORY_USERS, [row for key, row in rows.items() if key not in new])
        return bool(new)


class _Pool:
    """Whom newcomers might join: the users as this batch leaves them, and those joined or made since."""

    def __init__(
        self,
        session: Session,
        newcomers: Iterable[DirectoryUser],
        changed: Iterable[DirectoryUser],
        after: Mapping[Key, DirectoryUser],
        disabled: Collection[Key],
    ) -> None:
        self._by_reason: defaultdict[Reason, dict[str, Candidate]] = defaultdict(dict)
        sought = [reason for person in newcomers for reason in _reasons(person)]
        # A colleague who is renamed in this very batch is found by the new address, and no longer by the old one.
        renamed = {Key(person.key.organization_id, person.user_id) for person in changed if person.user_id}
        found = users.candidates(session, sought, renamed, after)
        for key, stored in found.items():
            email = email_key(show(stored.behind, disabled).profile["email"]) if stored.behind else stored.email_key
            self._add(key.organization_id, replace(stored, email_key=email))

    def candidates(self, person: DirectoryUser) -> list[Candidate]:
        """Those with the newcomer's e-mail or upstream id."""
        found: dict[str, Candidate] = {}
        for reason in _reasons(person):
            found |= self._by_reason[reason]
        return list(found.values())

    def joined(self, person: DirectoryUser) -> None:
        """`person` is behind its user from now on."""
        user_id = str(person.user_id)
        known = next((each for each in self.candidates(person) if each.user_id == user_id), Candidate(user_id, email_key(person.email), []))
        self._add(person.key.organization_id, replace(known, behind=[*known.behind, person]))

    def _add(self, organization_id: str, candidate: Candidate) -> None:
        reasons = {("external_id", organization_id, each.external_id) for each in candidate.behind if each.external_id}
        if candidate.email_key:
            reasons.add(("email", organization_id, candidate.email_key))
        for reason in reasons:
            self._by_reason[reason][candidate.user_id] = candidate


def _reasons(person: DirectoryUser) -> list[Reason]:
    return _joined_on(person.key, person.email, person.external_id)


def _joined_on(key: Key, email: Json, external_id: Json) -> list[Reason]:
    """What a directory user with these might be joined on."""
    address = email_key(email) if isinstance(email, str) else None
    upstream = external_id if isinstance(external_id, str) else None
    return [(field, key.organization_id, text) for field, text in (("email", address), ("external_id", upstream)) if text]


def _join_locks(session: Session, writes: Mapping[Key, Sequence[Numbered]]) -> set[Reason]:
    """What newcomers might be joined on, whichever of their events wins, and what leavers and the renamed might be joined on.

    So a newcomer who comes while a leaver goes waits for it, and finds nobody behind the account. A link is never changed, so this may
    look before it locks.
    """
    stored = records.links(session, writes)
    names: set[Reason] = set()
    for key, numbered in writes.items():
        known = stored.get(key, records.Link())
        before = set(_joined_on(key, known.email, known.external_id))
        said = {reason for _, write in numbered for reason in _joined_on(key, write.said("email"), write.said("dp_id"))}
        goes = any(write.statements.get(DELETED) is True for _, write in numbered)
        if known.user_id is None or goes or not said <= before:
            names |= before | said
    return names


def _standing(person: DirectoryUser | None) -> tuple[object, ...] | None:
    """What of a directory user has a say in its user's groups and roles."""
    return None if person is None else (person.user_id, person.active, person.directory_id, person.group_ids, person.roles)


def _came(cause: Cause) -> float:
    """When somebody came there, in nanoseconds since 1970. A run says who is there, and nothing of when they came: as late as can be."""
    return inf if cause.kind is CauseKind.RUN or cause.occurred_at is None else cause.occurred_at


def _provisions(write: Write) -> bool:
    """Whether the write says that the person is there: a deletion alone makes no account."""
    return write.statements.get(DELETED) is False


def new_id(now: datetime) -> str:
    """A new user's id. Rising with time, so that lists show newcomers last and indexes grow at one end."""
    return f"usr_{int(now.timestamp() * 1000):012x}{token_hex(10)}"
