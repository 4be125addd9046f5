"""All that is stored of one person, wherever it is: to be found, to be handed over, and to be removed."""

import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, RowMapping, Select, Table, and_, bindparam, delete, false, null, or_, select, text, update
from sqlalchemy.orm import Session

from provisioning.accounts import email_key
from provisioning.bodies import Json, words
from provisioning.db.deliveries import UNUSUAL
from provisioning.db.models import (
    BLANK,
    application_ids,
    changes,
    deliveries,
    directory_users,
    hook_dead_letters,
    hook_lanes,
    local_roles,
    memberships,
    reconcile_runs,
    role_grants,
    users,
)
from provisioning.db.prepared import dialect
from provisioning.db.session import LOCK_SECONDS, Database
from provisioning.merge import Key

Findings: TypeAlias = list[dict[str, Json]]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, by id: an account and the directory users behind it; or a directory user without an account, of whom `user_id` is None."""

    organization_id: str
    user_id: str | None
    directory_user_ids: tuple[str, ...]
    active: bool = False
    addresses: frozenset[str] = field(default=frozenset(), repr=False)  # also earlier ones, as far as changes are kept

    @property
    def keys(self) -> list[Key]:
        """Of the directory users."""
        return [Key(self.organization_id, each) for each in self.directory_user_ids]


def find(session: Session, given: str, organization_id: str | None) -> list[Person]:
    """Whoever has this id, ours or a directory user's, or this e-mail, in that organization or, without one, in any."""
    said = {"given": given, "email_key": email_key(given), "organization_id": organization_id}
    accounts: dict[Key, None] = {}
    alone: list[Person] = []
    for statement in (_USERS_BY, _DIRECTORY_USERS_BY):
        narrowed = statement if organization_id is None else statement.where(statement.selected_columns[0] == bindparam("organization_id"))
        for org, user_id, directory_user_id in session.execute(narrowed, said):
            if user_id is None:
                alone.append(_without_account(session, Key(org, directory_user_id)))
            else:
                accounts[Key(org, user_id)] = None
    if not accounts and not alone:  # of whom nothing could be applied yet
        heard = session.scalars(_HEARD_OF, said)
        alone = [Person(org, None, (given,)) for org in heard if organization_id in {None, org}]
    return [*(_of_account(session, key) for key in sorted(accounts)), *alone]


def again(session: Session, person: Person) -> Person:
    """The person as it is now: whoever had no account may have one, and others may be behind it."""
    if person.user_id is not None:
        return _of_account(session, Key(person.organization_id, person.user_id))
    (key,) = person.keys
    user_id = session.scalar(select(directory_users.c.user_id).where(*_is(directory_users, key)))
    return _without_account(session, key) if user_id is None else _of_account(session, Key(key.organization_id, user_id))


def _of_account(session: Session, user: Key) -> Person:
    behind = session.execute(_BEHIND, {"organization_id": user.organization_id, "user_id": user.id}).all()
    account = session.execute(select(users.c.active, users.c.email).where(*_is(users, user))).one_or_none()
    person = Person(user.organization_id, user.id, tuple(each.id for each in behind), bool(account and account.active))
    said = [each.email for each in (*behind, account) if each]
    for before, after in session.execute(select(changes.c.before, changes.c.after).where(*_about(changes, person))):
        said += [values.get("email") for values in (before, after) if values]
    return replace(person, addresses=frozenset(each for each in said if isinstance(each, str) and each))


def _without_account(session: Session, key: Key) -> Person:
    email = session.scalar(select(directory_users.c.email).where(*_is(directory_users, key)))
    return Person(key.organization_id, None, (key.id,), addresses=frozenset([email] if email else []))


def read(session: Session, person: Person) -> dict[str, list[RowMapping]]:
    """Every row about the person, by table; what runs found is in `findings`."""
    rows = {table.name: list(session.execute(select(table).where(*_about(table, person))).mappings()) for table in _TABLES}
    unread = [*_unread(session, person)]
    rows["deliveries"] += session.execute(select(deliveries).where(deliveries.c.webhook_id.in_(unread))).mappings() if unread else ()
    return rows


def findings(session: Session, person: Person) -> Findings:
    """What reconcile runs found about the person."""
    return [
        {**finding, "run_id": run.id}
        for run in session.execute(_runs_of(person))
        for finding in run.drift
        if finding.get("type") == "user" and finding.get("id") in person.directory_user_ids
    ]


def remove(session: Session, person: Person) -> dict[str, int]:
    """Remove all of it; returns how many rows that were, by table. Changes keep their place in the log, deliveries their ids.

    To be called while the organization is held alone, and the account locked.
    """
    if dialect(session) == "sqlite":
        session.execute(text("PRAGMA secure_delete=ON"))  # of this connection, from now on: what is deleted is overwritten
    unread = [*_unread(session, person)]
    removed = {table.name: _count(session, delete(table).where(*_about(table, person))) for table in _ROWS}
    removed["changes"] = _count(session, update(changes).where(*_about(changes, person)).values(_BLANKED))
    said = or_(deliveries.c.payload.is_not(None), deliveries.c.dismissed_reason.is_not(None))
    removed["deliveries"] = _count(session, update(deliveries).where(*_about(deliveries, person), said).values(_EMPTIED))
    if unread:
        removed["deliveries"] += _count(session, update(deliveries).where(deliveries.c.webhook_id.in_(unread)).values(_EMPTIED))
    removed["findings"] = _remove_findings(session, person)
    return removed


def flush_traces(database: Database) -> bool:
    """Whether SQLite's log beside the file is emptied, too: while somebody reads, it is not. PostgreSQL has its own ways and times."""
    file = database.engine.url.database
    if database.dialect != "sqlite" or file is None:
        return True
    with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection:
        try:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:
            return False
    return not busy


def without(drift: Findings, gone: Collection[str]) -> Findings:
    """What runs found, less what they found out about these directory users: what has no fields says nothing but an id."""
    return [each for each in drift if each.get("type") != "user" or each.get("id") not in gone or not each.get("fields")]


def unproposed(proposal: Mapping[str, Json], gone: Collection[str], user_id: str | None = None) -> dict[str, Json]:
    """A proposal, less what it proposes of these directory users, and of their account."""
    ids = {*gone, user_id}
    left: dict[str, Json] = {}
    for name, each in proposal.items():
        if isinstance(each, dict):
            left[name] = {id_: of for id_, of in each.items() if id_ not in ids}
        elif isinstance(each, list):
            left[name] = [id_ for id_ in each if id_ not in ids]
    return left


def _remove_findings(session: Session, person: Person) -> int:
    """Also of a run that is just ending: its row is waited for."""
    removed, gone = 0, person.directory_user_ids
    for run in session.execute(_runs_of(person).with_for_update()).all():
        left = without(run.drift, gone)
        proposal = None if run.proposal is None else unproposed(run.proposal, gone, person.user_id)
        if len(left) < len(run.drift) or proposal != run.proposal:
            removed += len(run.drift) - len(left)
            here = and_(reconcile_runs.c.organization_id == person.organization_id, reconcile_runs.c.id == run.id)
            session.execute(update(reconcile_runs).where(here).values(drift=left, **({"proposal": proposal} if proposal else {})))
    return removed


def _runs_of(person: Person) -> Select[Any]:
    """Those that hold anything of anybody, or may soon."""
    here = reconcile_runs.c
    holds = or_(here.drifted > 0, here.proposal.is_not(None), here.state == "running")
    return select(here.id, here.drift, here.proposal).where(here.organization_id == person.organization_id, holds)


def _unread(session: Session, person: Person) -> Iterator[str]:
    """The dead letters that name the person, by webhook id: they may be about somebody without saying so where it could be read."""
    names = [re.escape(each.casefold()) for each in (*person.directory_user_ids, *person.addresses)]
    if not names:
        return
    named = re.compile(rf"(?<![\w.+%-])(?:{'|'.join(names)})(?![\w-]|\.\w)")  # and not within a longer address or id
    whose = or_(deliveries.c.organization_id == person.organization_id, deliveries.c.organization_id.is_(None))
    dead = (deliveries.c.outcome == "dead_lettered", UNUSUAL, deliveries.c.subject_id.is_(None), deliveries.c.payload.is_not(None))
    found = select(deliveries.c.webhook_id, deliveries.c.payload).where(*dead, whose)
    for webhook_id, payload in session.execute(found.execution_options(yield_per=50)):
        if named.search(words(payload)):
            yield webhook_id


def _about(table: Table, person: Person) -> tuple[ColumnElement[bool], ...]:
    here = table.c.organization_id == person.organization_id
    if table in _BY_RECORD:
        return here, _BY_RECORD[table].in_(person.directory_user_ids)
    return here, false() if person.user_id is None else _BY_ACCOUNT[table] == person.user_id


def _is(table: Table, key: Key) -> tuple[ColumnElement[bool], ...]:
    return table.c.organization_id == key.organization_id, table.c.id == key.id


def _count(session: Session, statement: Any) -> int:
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]  # what such a statement returns has it


_USERS_BY: Select[Any] = select(users.c.organization_id, users.c.id, null()).where(
    or_(users.c.id == bindparam("given"), users.c.email_key == bindparam("email_key"))
)
_DIRECTORY_USERS_BY: Select[Any] = select(directory_users.c.organization_id, directory_users.c.user_id, directory_users.c.id).where(
    directory_users.c.id == bindparam("given")
)
_HEARD_OF = (
    select(deliveries.c.organization_id)
    .where(
        deliveries.c.subject_id == bindparam("given"),
        deliveries.c.organization_id.is_not(None),
        deliveries.c.type.like("organization.directory.user%"),
        deliveries.c.payload.is_not(None),
    )
    .distinct()
)
_BEHIND = (
    select(directory_users.c.id, directory_users.c.email)
    .where(directory_users.c.organization_id == bindparam("organization_id"), directory_users.c.user_id == bindparam("user_id"))
    .order_by(directory_users.c.id)
)
_BY_ACCOUNT: Mapping[Table, ColumnElement[Any]] = {
    users: users.c.id,
    role_grants: role_grants.c.user_id,
    local_roles: local_roles.c.user_id,
    application_ids: application_ids.c.user_id,
    hook_lanes: hook_lanes.c.subject_id,
    hook_dead_letters: hook_dead_letters.c.subject_id,
    changes: changes.c.user_id,
}
_BY_RECORD: Mapping[Table, ColumnElement[Any]] = {
    directory_users: directory_users.c.id,
    memberships: memberships.c.directory_user_id,
    deliveries: deliveries.c.subject_id,
}
_TABLES = (*_BY_ACCOUNT, *_BY_RECORD)
# In the order that foreign keys want. Lanes stay, which hold ids: there hooks are told of the erasure, and not beside a message under way.
_ROWS = (memberships, role_grants, local_roles, application_ids, hook_dead_letters, directory_users, users)
_BLANKED = {
    "type": BLANK,
    "cause": "operator",
    "cause_id": BLANK,
    **dict.fromkeys(("user_id", "group_id", "directory_id", "role", "before", "after", "occurred_at")),
}
_EMPTIED = {"payload": None, "retry_at": None, "dismissed_reason": None}
