"""What the law asks for of one person, from the command line: everything that is stored of them, or all of it erased."""

import json
from pathlib import Path

import typer
from sqlalchemy.orm import Session

from provisioning import logs, privacy
from provisioning.cli import arguments, local
from provisioning.cli.database import opened
from provisioning.cli.terminal import plain
from provisioning.db import erased, personal
from provisioning.db.personal import Person
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError, NotFound
from provisioning.events import is_id
from provisioning.merge import Key
from provisioning.settings import load_settings

_WORDS = {
    "users": "account",
    "directory_users": "records of the directory",
    "memberships": "memberships",
    "role_grants": "roles",
    "local_roles": "roles granted here",
    "application_ids": "ids in the application",
    "hook_dead_letters": "messages that hooks were not told",
    "changes": "changes",
    "deliveries": "payloads of deliveries",
    "findings": "findings of runs",
}


def export(given: str, organization_id: str | None, output: Path | None) -> None:
    """Print everything that is stored of somebody as JSON, or write it to a file that only its owner may read.

    Raises ConfigurationError, NotFound, Unavailable.
    """
    settings = load_settings()
    organization_id = arguments.filtered_organization_id(organization_id, settings)
    with opened(settings) as database, database.reading() as session:
        told = privacy.export(session, _only(session, _id(given), organization_id))
    text = json.dumps(told, indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
        return
    try:
        with open(output, "x", encoding="utf-8", opener=local.private) as stream:
            stream.write(f"{text}\n")
    except OSError as error:
        raise ConfigurationError(f"Cannot write {output}: {error.strerror}.") from error
    typer.echo(f"Written to {output}, which only you may read.", err=True)


def erase(given: str, organization_id: str | None, *, by: str | None, sure: bool) -> None:
    """Erase somebody, and print what that was. Raises ConfigurationError, NotFound, Unavailable."""
    settings = load_settings()
    logs.configure()
    organization_id = arguments.filtered_organization_id(organization_id, settings)
    with opened(settings) as database:
        with database.reading() as session:
            person = _only(session, _id(given), organization_id)
        if not sure:
            _ask(person)
        done = privacy.erase(database, person, arguments.name(by))
    for table, number in done.removed.items():
        typer.echo(f"{number:>6}  {_WORDS[table]}")
    typer.echo("Erased.")
    if done.person.directory_user_ids:
        typer.echo(f"Nothing that is said of {plain(', '.join(done.person.directory_user_ids))} comes in again, until:")
        typer.echo(f"  {local.program()} erase --lift {plain(given_id(done.person))}")
    else:
        typer.echo("No directory has ever shown this person: nothing keeps out whom one shows from now on.")
    if not done.flushed:
        typer.echo("Somebody reads the database: until they have ended and it is written to, its -wal file may hold some of it.", err=True)


def lift(given: str, organization_id: str | None, *, by: str | None) -> None:
    """Let what is said of somebody come in again. Raises ConfigurationError, NotFound, Unavailable."""
    settings = load_settings()
    logs.configure()
    organization_id = arguments.filtered_organization_id(organization_id, settings)
    with opened(settings) as database:
        keys = _tombstones(database, _id(given), organization_id)
        privacy.lift(database, keys, arguments.name(by))
    for organization in sorted({key.organization_id for key in keys}):
        typer.echo(
            f"Lifted. To have the person back at once, if the directory still shows them: {local.program()} reconcile {plain(organization)}"
        )


def given_id(person: Person) -> str:
    """An id by which the person is found once erased."""
    return person.user_id or person.directory_user_ids[0]


def _ask(person: Person) -> None:
    """Raises ConfigurationError unless whoever types means it."""
    known = given_id(person)
    if not typer.get_text_stream("stdin").isatty():
        raise ConfigurationError(f"This cannot be undone: say --yes to erase {known} of {person.organization_id}.")
    said = typer.prompt(f"This cannot be undone. To erase {plain(known)} of {plain(person.organization_id)}, type that id", err=True)
    if said.strip() != known:
        raise ConfigurationError("That is another id: nothing was erased.")


def _id(given: str) -> str:
    if not is_id(given):
        raise ConfigurationError("Give our id of a user, a directory user's id, or an e-mail.")
    return given


def _only(session: Session, given: str, organization_id: str | None) -> Person:
    found = personal.find(session, given, organization_id)
    if not found and (gone := erased.told(session, given, organization_id)):
        raise NotFound(f"This person {gone}")
    if not found:
        raise NotFound("There is nobody with this id or e-mail: give our id of a user, a directory user's id, or an e-mail.")
    if len(found) > 1:
        several = ", ".join(f"{given_id(each)} of {each.organization_id}" for each in found[:20])
        raise ConfigurationError(
            f"Several people are called so: give one's id, and --organization where that is the same, of {plain(several)}."
        )
    return found[0]


def _tombstones(database: Database, given: str, organization_id: str | None) -> list[Key]:
    with database.reading() as session:
        found = [key for key in erased.found(session, given) if organization_id in {None, key.organization_id}]
    if not found:
        raise NotFound("Nobody was erased under this id: give our id of the user, or the directory user's id.")
    if len({key.organization_id for key in found}) > 1:
        raise ConfigurationError("Several organizations had one of this id: say --organization.")
    return found
