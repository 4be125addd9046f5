"""Access, changes and runs in words: what a terminal prints, and what the operations page shows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from provisioning.api.changes import Change
from provisioning.api.reconciliations import Difference, Finding, Proposed
from provisioning.bodies import Json
from provisioning.changes import ChangeType
from provisioning.db.reading.access import Access, Because, GrantKind, PersonBehind, Reason
from provisioning.db.records import REPOSITORIES
from provisioning.db.users import USERS
from provisioning.events import rfc3339
from provisioning.merge import Kind

CHARACTERS = 60  # of a value, which may be anything

_SAID = {
    Reason.ACTIVE: "is active in {directory}",
    Reason.SUSPENDED: "is suspended in {directory}",
    Reason.DELETED: "is deleted in {directory}",
    Reason.DIRECTORY_DISABLED: "does not count: {directory} is disabled",
}
_CHANGED: Mapping[ChangeType, str] = {
    ChangeType.USER_CREATED: "came, {standing}",
    ChangeType.USER_UPDATED: "changed: {values}",
    ChangeType.USER_ACTIVATED: "got access",
    ChangeType.USER_DEACTIVATED: "lost access",
    ChangeType.USER_ERASED: "was erased",
    ChangeType.MEMBERSHIP_ADDED: "entered {group}",
    ChangeType.MEMBERSHIP_REMOVED: "left {group}",
    ChangeType.ROLE_GRANTED: "got the role {role}",
    ChangeType.ROLE_REVOKED: "lost the role {role}",
    ChangeType.GROUP_CREATED: "came",
    ChangeType.GROUP_UPDATED: "changed: {values}",
    ChangeType.GROUP_DELETED: "was deleted",
    ChangeType.DIRECTORY_ENABLED: "was enabled",
    ChangeType.DIRECTORY_DISABLED: "was disabled",
}


def described(name: str | None, email: str | None, id_: str) -> str:
    """A user or a group in words: who, for a person, and exactly which."""
    known = [text for text in (name, email and f"<{email}>") if text]
    return " ".join([*known, f"({id_})"]) if known else id_


def short(value: Json) -> str:
    """Return the start of `value` in words, `-` for none."""
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"


def standing(access: Access) -> str:
    """Whether the user has access, and since when."""
    return f"{'has access' if access.active else 'has no access'}, since {at(access.since)}."


def reasons(access: Access) -> Iterator[str]:
    """Why the user has access, or has none: a sentence for each directory user behind it."""
    if not access.directory_users:
        yield "No directory user is behind it."
    for person in _those_first_who_count(access):
        yield f"{person.id} {_SAID[person.reason].format(directory=_directory(person))}{_said(person)}.{_frozen(person)}"


def remedies(access: Access) -> Iterator[str]:
    """What would give a user who has no access its access back."""
    if access.reason is Reason.NOBODY_BEHIND:
        yield "That a directory user joins it: one with the same e-mail."
    for person in _those_first_who_count(access):
        if person.reason is Reason.SUSPENDED:
            yield f"That {_directory(person)} says that {person.id} is active again.{_first(person)}"
        elif person.reason is Reason.DELETED:
            yield f"That the same person is in {_directory(person)} again: as {person.id}, or with the same id upstream.{_first(person)}"
        elif person.active:
            yield f"That {_directory(person)} is enabled again: {person.id} is active in it."


def because(reason: Because) -> str:
    """One thing that a role comes from, and since when."""
    return f"{_source(reason)}, {f'since {at(reason.since)}' if reason.since else 'since before that was kept'}"


def change(changed: Change, names: Mapping[str, str]) -> str:
    """What happened to the one whom the change is about; `names`: what `names_in` found."""
    before, after = changed.before or {}, changed.after or {}
    return _CHANGED[changed.type].format(
        standing="with access" if after.get("active") else "without access",
        values="; ".join(_values(before, after)),
        group=names.get(changed.group_id or ""),
        role=changed.role,
    )


def sentences(session: Session, changes: Sequence[Change]) -> list[str]:
    """What happened, with whom it happened to: a sentence for each of these changes."""
    names = names_in(session, changes)
    return [f"{names.get(each.user_id or each.group_id or '', each.directory_id)} {change(each, names)}" for each in changes]


def names_in(session: Session, changes: Sequence[Change]) -> dict[str, str]:
    """The users and groups that these changes speak of, in words, by id."""
    users = USERS.read(session, {(change.organization_id, change.user_id) for change in changes if change.user_id})
    groups = REPOSITORIES[Kind.GROUP].read(session, {(change.organization_id, change.group_id) for change in changes if change.group_id})
    named = {id_: described(row["name"], row["email"], id_) for (_, id_), row in users.items()}
    return named | {id_: described(row["name"], None, id_) for (_, id_), row in groups.items()}


def numbers(counts: Mapping[str, int]) -> str:
    """What there is any of, and how much."""
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number) or "none"


def proposed(proposal: Proposed) -> str:
    """How much of what a run holds back."""
    counts = {"users": len(proposal.users), "groups": len(proposal.groups)}
    return numbers({**counts, "memberships": proposal.memberships_removed, "roles": proposal.roles_revoked})


def differences(finding: Finding) -> str:
    """What the directory and the database disagree on in a record; of what is large, the name alone."""
    ordered = sorted(finding.fields.items(), key=lambda item: (item[0] != "active", _is_large(item[1]), item[0]))
    return "; ".join(name if _is_large(pair) else f"{name}: {short(pair.before)} → {short(pair.after)}" for name, pair in ordered)


def at(moment: datetime) -> str:
    """The moment, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(length: timedelta) -> str:
    """A length of time, in its largest unit: `3 h`. What is less than nothing is nothing."""
    seconds = max(length.total_seconds(), 0)
    for unit, size in (("days", 2 * 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // (86_400 if unit == 'days' else size):.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago it was, or how soon it will be."""
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def subjects(number: int) -> str:
    """Whom a hook is told of: people, but for a few."""
    return "1 person (or group)" if number == 1 else f"{number} people (or groups)"


def host(url: str) -> str:
    """Where a hook's messages go, as far as it may be said anywhere: in a path or a query somebody may have put a secret."""
    return urlsplit(url).netloc


def target(url: str) -> str:
    """The same with the path, for operators."""
    split = urlsplit(url)
    return f"{split.netloc}{split.path}"


def _those_first_who_count(access: Access) -> list[PersonBehind]:
    return sorted(access.directory_users, key=lambda person: not person.counts)


def _directory(person: PersonBehind) -> str:
    return f"its directory {person.directory_id}" if person.directory_id else "its directory"


def _said(person: PersonBehind) -> str:
    return f", as it said on {_there(person.said_at)}" if person.said_at is not None else ""


def _frozen(person: PersonBehind) -> str:
    """Of somebody who counts in a disabled directory, because nobody else does."""
    if not person.counts or person.directory_enabled is not False:
        return ""
    since = f" since {_there(person.disabled_at)}" if person.disabled_at is not None else ""
    return f" That directory has been disabled{since}: nothing is heard from it, and what it said last stays."


def _first(person: PersonBehind) -> str:
    return " That directory has to be enabled again first." if person.directory_enabled is False else ""


def _source(reason: Because) -> str:
    match reason.kind:
        case GrantKind.DIRECTORY:
            return f"because its directory gives it to {reason.directory_user_id}"
        case GrantKind.GROUP:
            by = f" by {reason.granted_by}" if reason.granted_by else ""
            return f"because the group {described(reason.group_name, None, str(reason.group_id))} is mapped to it here{by}"
        case GrantKind.LOCAL:
            return f"because it was granted here by {reason.granted_by}"


def _values(before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[str]:
    """What differs; attributes one by one."""
    for name, is_ in after.items():
        was = before.get(name)
        if name == "attributes" and isinstance(was, dict) and isinstance(is_, dict):
            yield from _values(was, is_)
        else:
            yield f"{name}: {short(was)} → {short(is_)}"


def _is_large(pair: Difference) -> bool:
    """Whether a value is a map, or holds maps, of which the name alone fits a table."""
    values = (pair.before, pair.after)
    return any(isinstance(each, dict) or (isinstance(each, list) and any(isinstance(item, dict) for item in each)) for each in values)


def _there(nanoseconds: int) -> str:
    return f"{rfc3339(nanoseconds)[:19].replace('T', ' ')} UTC"
