"""Who has access, and why, in words."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import typer

from provisioning.api.access import shown
from provisioning.cli import arguments, whom
from provisioning.cli.database import opened
from provisioning.cli.terminal import plain
from provisioning.db.reading.access import Access, Because, GrantKind, PersonBehind, Reason, access_of
from provisioning.events import rfc3339
from provisioning.settings import load_settings

_SAID = {
    Reason.ACTIVE: "is active in {directory}",
    Reason.SUSPENDED: "is suspended in {directory}",
    Reason.DELETED: "is deleted in {directory}",
    Reason.DIRECTORY_DISABLED: "does not count: {directory} is disabled",
}


def explain(organization_id: str, given: str, *, as_json: bool) -> None:
    """Print what the user may do now, and why. Raises ConfigurationError, NotFound, Unavailable."""
    arguments.organization_id(organization_id)
    with opened(load_settings()) as database, database.reading() as session:
        user = whom.user(session, organization_id, given)
        access = access_of(session, organization_id, user.id)
    if as_json:
        typer.echo(json.dumps(shown(access).model_dump(mode="json"), indent=2))
        return
    for line in (f"{whom.described(user.name, user.email, user.id)} {_standing(access)}", *_why(access), *_what(access)):
        typer.echo(plain(line))


def _standing(access: Access) -> str:
    return f"{'has access' if access.active else 'has no access'}, since {_time(access.since)}."


def _why(access: Access) -> Iterator[str]:
    yield ""
    yield "Why" if access.active else "Why not"
    if not access.directory_users:
        yield "  No directory user is behind it."
    for person in _those_first_who_count(access):
        yield f"  {person.id} {_SAID[person.reason].format(directory=_directory(person))}{_said(person)}.{_frozen(person)}"
    if not access.active:
        yield ""
        yield "What would give it back"
        yield from (f"  {line}" for line in _remedies(access))


def _remedies(access: Access) -> Iterator[str]:
    if access.reason is Reason.NOBODY_BEHIND:
        yield "That a directory user joins it: one with the same e-mail."
    for person in _those_first_who_count(access):
        if person.reason is Reason.SUSPENDED:
            yield f"That {_directory(person)} says that {person.id} is active again.{_first(person)}"
        elif person.reason is Reason.DELETED:
            yield f"That the same person is in {_directory(person)} again: as {person.id}, or with the same id upstream.{_first(person)}"
        elif person.active:
            yield f"That {_directory(person)} is enabled again: {person.id} is active in it."


def _those_first_who_count(access: Access) -> list[PersonBehind]:
    return sorted(access.directory_users, key=lambda person: not person.counts)


def _what(access: Access) -> Iterator[str]:
    if access.active:
        yield from ("", "Groups" if access.groups else "Groups: none")
        for group in access.groups:
            yield f"  {whom.described(group.name, None, group.id)}, since {_time(group.since)}, through {', '.join(group.through)}"
        yield from ("", "Roles" if access.roles else "Roles: none")
        for role in access.roles:
            yield f"  {role.role}"
            yield from (f"    {_reason(each)}, {_since(each.since)}" for each in role.because)
    elif access.kept_roles:
        yield from ("", "Granted here, and back with the access")
        yield from (f"  {role.role}, by {role.granted_by}, since {_time(role.since)}" for role in access.kept_roles)


def _reason(because: Because) -> str:
    match because.kind:
        case GrantKind.DIRECTORY:
            return f"because its directory gives it to {because.directory_user_id}"
        case GrantKind.GROUP:
            by = f" by {because.granted_by}" if because.granted_by else ""
            return f"because the group {whom.described(because.group_name, None, str(because.group_id))} is mapped to it here{by}"
        case GrantKind.LOCAL:
            return f"because it was granted here by {because.granted_by}"


def _directory(person: PersonBehind) -> str:
    return f"its directory {person.directory_id}" if person.directory_id else "its directory"


def _said(person: PersonBehind) -> str:
    return f", as it said on {_at(person.said_at)}" if person.said_at is not None else ""


def _frozen(person: PersonBehind) -> str:
    """Of somebody who counts in a disabled directory, because nobody else does."""
    if not person.counts or person.directory_enabled is not False:
        return ""
    since = f" since {_at(person.disabled_at)}" if person.disabled_at is not None else ""
    return f" That directory has been disabled{since}: nothing is heard from it, and what it said last stays."


def _first(person: PersonBehind) -> str:
    return " That directory has to be enabled again first." if person.directory_enabled is False else ""


def _at(nanoseconds: int) -> str:
    return f"{rfc3339(nanoseconds)[:19].replace('T', ' ')} UTC"


def _since(moment: datetime | None) -> str:
    return f"since {_time(moment)}" if moment else "since before that was kept"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
