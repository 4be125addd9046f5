"""Who has access, and why, in words."""

import json
from collections.abc import Iterator

import typer

from provisioning.api import words
from provisioning.api.access import shown
from provisioning.cli import arguments, whom
from provisioning.cli.database import opened
from provisioning.cli.terminal import plain
from provisioning.db.reading.access import Access, access_of
from provisioning.settings import load_settings


def explain(organization_id: str, given: str, *, as_json: bool) -> None:
    """Print what the user may do now, and why. Raises ConfigurationError, NotFound, Unavailable."""
    settings = load_settings()
    organization_id = arguments.organization_id(organization_id, settings)
    with opened(settings) as database, database.reading() as session:
        user = whom.user(session, organization_id, given)
        access = access_of(session, organization_id, user.id)
    if as_json:
        typer.echo(json.dumps(shown(access).model_dump(mode="json"), indent=2))
        return
    for line in (
        f"{words.described(user.name, user.email, user.id)} {words.standing(access)}",
        *_called(access),
        *_why(access),
        *_what(access),
    ):
        typer.echo(plain(line))


def _called(access: Access) -> Iterator[str]:
    if access.application_id is not None:
        yield f"The application calls it {access.application_id}."


def _why(access: Access) -> Iterator[str]:
    yield from ("", "Why" if access.active else "Why not")
    yield from (f"  {line}" for line in words.reasons(access))
    if not access.active:
        yield from ("", "What would give it back")
        yield from (f"  {line}" for line in words.remedies(access))


def _what(access: Access) -> Iterator[str]:
    if access.active:
        yield from ("", "Groups" if access.groups else "Groups: none")
        for group in access.groups:
            yield f"  {words.described(group.name, None, group.id)}, since {words.at(group.since)}, through {', '.join(group.through)}"
        yield from ("", "Roles" if access.roles else "Roles: none")
        for role in access.roles:
            yield f"  {role.role}"
            yield from (f"    {words.because(each)}" for each in role.because)
    elif access.kept_roles:
        yield from ("", "Granted here, and back with the access")
        yield from (f"  {role.role}, by {role.granted_by}, since {words.at(role.since)}" for role in access.kept_roles)
