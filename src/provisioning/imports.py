"""Accounts that the application had before: each is linked to the user with its e-mail, or becomes a user whom somebody from a directory
joins later. Nobody is doubled, whatever comes from the directories meanwhile, and however often it is done.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from time import monotonic, sleep

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.accounts import PROFILE, Shown, email_key
from provisioning.changes import Cause, CauseKind, of_application_id, of_user
from provisioning.db import application_ids, changes, locks, organizations, users
from provisioning.db.prepared import Stored
from provisioning.db.session import Database
from provisioning.merge import Key
from provisioning.people import new_id

ACCOUNTS_AT_ONCE = 500  # what a webhook waits for at most

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the application's, and the line that tells of it. Its e-mail is one; `name` and `active` are for a user who is made."""

    line: int
    organization_id: str
    email: str = field(repr=False)
    application_id: str
    name: str | None = field(default=None, repr=False)
    active: bool = True

    @property
    def by_email(self) -> Key:
        """What it is linked by."""
        return Key(self.organization_id, str(email_key(self.email)))

    @property
    def by_id(self) -> Key:
        """What it is called."""
        return Key(self.organization_id, self.application_id)


class Fate(StrEnum):
    """What becomes of an account."""

    LINKED = "linked"  # to the one user with its e-mail, which had no application id
    MADE = "made"  # a user, since nobody has its e-mail
    UNCHANGED = "unchanged"  # a user with its e-mail has its id
    REPEATED = "repeated"  # nothing: another account has the same e-mail, or the same id
    AMBIGUOUS = "ambiguous"  # nothing: several users have its e-mail
    LEFT_BEHIND = "left_behind"  # nothing: whoever was behind the user with its e-mail is deleted, and the next one would not join it
    CALLED_OTHERWISE = "called_otherwise"  # nothing: the user with its e-mail has another application id
    TAKEN = "taken"  # nothing: a user with another e-mail has its id


@dataclass(frozen=True, slots=True)
class Decided:
    """What becomes of an account, and the users that were there whom it is about."""

    account: Account
    fate: Fate
    user_ids: Sequence[str] = ()


def unknown_organizations(database: Database, accounts: Iterable[Account]) -> list[str]:
    """Those of these accounts' organizations of which nothing is known yet. Raises Unavailable."""
    with database.reading() as session:
        return sorted(organizations.unknown(session, {each.organization_id for each in accounts}))


def bring(database: Database, accounts: Collection[Account], by: str, *, apply: bool) -> Iterator[list[Decided]]:
    """Yields, some at a time, what has become of these accounts; or, unless `apply`, what would.

    Raises Unavailable: what was yielded by then is done, and to begin again does no harm.
    """
    emails, ids = Counter(each.by_email for each in accounts), Counter(each.by_id for each in accounts)
    left = [each for each in accounts if emails[each.by_email] == ids[each.by_id] == 1]
    yield [Decided(each, Fate.REPEATED) for each in accounts if emails[each.by_email] > 1 or ids[each.by_id] > 1]
    counts = Counter({Fate.REPEATED: len(accounts) - len(left)})
    for start in range(0, len(left), ACCOUNTS_AT_ONCE):
        some, began = left[start : start + ACCOUNTS_AT_ONCE], monotonic()
        if apply:
            decided = database.write(partial(_bring_some, accounts=some, by=by))
        else:
            with database.reading() as session:
                decided = _decided(some, _found(session, some))
        counts.update(each.fate for each in decided)
        yield decided
        if apply and database.dialect == "sqlite":
            sleep(monotonic() - began)  # its lock is not fair: the webhooks' turn is as long as ours
    if apply:
        log.info("accounts_imported", **{fate: counts[fate] for fate in Fate}, caller=by)


@dataclass(frozen=True, slots=True)
class _Found:
    """The users with the accounts' e-mails, those of them who have left, what each is called, and who has the accounts' ids."""

    with_email: Mapping[Key, Sequence[str]]
    left: Collection[Key]
    called: Mapping[Key, str]
    having: Mapping[Key, str]
    rows: Mapping[tuple[str, ...], Stored]


def _found(session: Session, accounts: Sequence[Account], *, lock: bool = False) -> _Found:
    with_email = users.with_emails(session, (each.by_email for each in accounts))
    keys = [Key(key.organization_id, id_) for key, ids in with_email.items() for id_ in ids]
    rows = users.USERS.lock(session, keys) if lock else {}
    # Only under their locks: somebody may be giving them others, or be leaving.
    left = {key for key, behind in users.behind(session, keys).items() if all(each.deleted for each in behind)}
    called = application_ids.of_users(session, keys)
    return _Found(with_email, left, called, application_ids.having(session, (each.by_id for each in accounts)), rows)


def _decided(accounts: Iterable[Account], found: _Found) -> list[Decided]:
    return [_decide(each, found) for each in accounts]


def _decide(account: Account, found: _Found) -> Decided:
    with_email, holder = found.with_email.get(account.by_email, ()), found.having.get(account.by_id)
    if holder is not None:
        return Decided(account, Fate.UNCHANGED if holder in with_email else Fate.TAKEN, [holder])
    if not with_email:
        return Decided(account, Fate.MADE)
    if len(with_email) > 1:
        return Decided(account, Fate.AMBIGUOUS, with_email)
    user = Key(account.organization_id, with_email[0])
    if user in found.called:
        return Decided(account, Fate.CALLED_OTHERWISE, with_email)
    return Decided(account, Fate.LEFT_BEHIND if user in found.left else Fate.LINKED, with_email)


def _bring_some(session: Session, accounts: Sequence[Account], by: str) -> list[Decided]:
    """What becomes of these is decided while nobody else can join, or be given, what they are about: as a batch of events does."""
    now, cause = datetime.now(UTC), Cause(CauseKind.OPERATOR, by)
    organizations.enter(session, dict.fromkeys((each.organization_id for each in accounts), False), now)
    joined_on = {("email", *each.by_email) for each in accounts}  # as people.py names it
    locks.hold(session, joined_on | application_ids.lock_names(each.by_id for each in accounts))
    found = _found(session, accounts, lock=True)
    decided = _decided(accounts, found)
    linked = {Key(each.account.organization_id, each.user_ids[0]): each.account for each in decided if each.fate is Fate.LINKED}
    made = {Key(each.account.organization_id, new_id(now)): each.account for each in decided if each.fate is Fate.MADE}
    users.USERS.insert(session, [users.row(user, _shown(account), None, now) for user, account in made.items()])
    users.USERS.save(session, [{**found.rows[user], "updated_at": now} for user in linked])
    application_ids.put(session, {user: account.application_id for user, account in (linked | made).items()}, by, now)
    happened = [of_application_id(user, None, account.application_id, cause) for user, account in linked.items()]
    for user, account in made.items():
        happened += of_user(user, None, _shown(account), cause, application_id=account.application_id)
    changes.record(session, happened, now)
    return decided


def _shown(account: Account) -> Shown:
    """What a user shows whom nobody is behind yet."""
    profile = {**dict.fromkeys(PROFILE), "email": account.email, "name": account.name}
    return Shown(account.active, profile, {}, frozenset(), frozenset())
