"""Hooks for operators, straight in the database: `serve` and `worker` find there whom to tell."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import typer
from pydantic import SecretStr, TypeAdapter, ValidationError

from provisioning import logs
from provisioning.api.changes import change_id, place_of
from provisioning.bodies import Json
from provisioning.changes import ChangeType
from provisioning.cli import arguments
from provisioning.cli.database import opened
from provisioning.cli.terminal import plain, print_table
from provisioning.db import hooks, lanes, organizations
from provisioning.db.hooks import Hook
from provisioning.db.reading.changes import Place
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError, Conflict, InvalidCursor, NotFound
from provisioning.hooks import subscriptions
from provisioning.hooks.target import checked_url, why_not
from provisioning.settings import Settings, load_settings
from provisioning.settings.values import WebhookSecrets

LISTED = 200
MAX_URL = 2_000


def add(
    url: str, *, types: Sequence[str], organization_id: str | None, secret_file: Path | None, from_start: bool, again: bool, by: str | None
) -> None:
    """Make a hook, and print its id and its secret. Raises ConfigurationError, Conflict, Unavailable."""
    settings = load_settings()
    if len(url) > MAX_URL:
        raise ConfigurationError(f"A URL is no longer than {MAX_URL:,} characters.")
    given = checked_url(url)
    _check_reach(given, settings)
    wanted = _types(types)
    if organization_id is not None:
        organization_id = arguments.organization_id(organization_id, settings)
    secret = _secret(secret_file)
    logs.configure()
    with opened(settings) as database:
        with database.reading() as session:
            same = [
                each
                for each in hooks.all_hooks(session)
                if (each.url, [*each.types], each.organization_id) == (given, wanted, organization_id)
            ]
            known = organization_id is None or organizations.known(session, organization_id)
        if same and not again:
            raise Conflict(f"{same[0].id} is told of the same at this URL already. Another one beside it: --again.")
        hook = subscriptions.add(
            database,
            given,
            types=wanted,
            organization_id=organization_id,
            secret=secret,
            from_start=from_start,
            by=arguments.name(by),
        )
    typer.echo(f"id      {hook.id}")
    typer.echo(f"secret  {hook.secrets[0].text if secret is None else 'the one in the file'}")
    if not known:
        typer.echo(f"Nothing is known of {plain(organization_id)} yet: is that its id?", err=True)
    if secret is None:
        typer.echo("The secret is not shown again: give it to whatever verifies the messages.", err=True)


def list_hooks(*, as_json: bool) -> None:
    """Print every hook and how it stands. Raises ConfigurationError, Unavailable."""
    with opened(load_settings()) as database, database.reading() as session:
        found = hooks.all_hooks(session)
        waiting, dead = lanes.waiting(session), lanes.given_up(session)
    rows: list[dict[str, Json]] = [
        {
            "id": each.id,
            "url": each.url,
            "types": list(each.types),
            "organization_id": each.organization_id,
            "waiting": waiting.get(each.id, 0),
            "dead_letters": dead.get(each.id, 0),
            "failing_since": each.failing_since.isoformat() if each.failing_since else None,
            "error": each.error,
        }
        for each in found
    ]
    if as_json:
        typer.echo(json.dumps({"data": rows}, indent=2))
        return
    columns = ("id", "url", "types", "organization_id", "waiting", "dead_letters", "failing_since", "error")
    print_table(columns, [[*(_cell(row[name]) for name in columns)] for row in rows])


def remove(hook_id: str, by: str | None) -> None:
    """Forget a hook. Raises ConfigurationError, NotFound, Unavailable."""
    settings = load_settings()
    logs.configure()
    with opened(settings) as database:
        subscriptions.remove(database, hook_id, arguments.name(by))
    typer.echo(f"removed {plain(hook_id)}")


def rotate(hook_id: str, *, keep: str, secret_file: Path | None, by: str | None) -> None:
    """Give a hook another secret, and print it. Raises ConfigurationError, NotFound, Unavailable."""
    settings = load_settings()
    given, kept = _secret(secret_file), _duration(keep)
    logs.configure()
    with opened(settings) as database:
        new = subscriptions.rotate(database, hook_id, secret=given, keep=kept, by=arguments.name(by))
    typer.echo(f"secret  {new.text if given is None else 'the one in the file'}")
    typer.echo(f"Messages are signed with the one before, too, for {keep}." if kept else "The one before signs nothing any more.", err=True)


def try_out(hook_id: str) -> None:
    """Send a message of no consequence, and print what it came to; leaves with 1 if it was not taken.

    Raises ConfigurationError, NotFound, Unavailable.
    """
    settings = load_settings()
    with opened(settings) as database:
        hook = _one(database, hook_id)
    answer = subscriptions.try_out(hook, settings.hook_networks)
    if answer.error:
        typer.echo(f"not taken: {answer.error}", err=True)
        raise typer.Exit(1)
    typer.echo("taken")


def list_dead_letters(hook_id: str | None, limit: int, *, as_json: bool) -> None:
    """Print what hooks could not be told for a day. Raises ConfigurationError, NotFound, Unavailable."""
    with opened(load_settings()) as database:
        if hook_id is not None:
            _one(database, hook_id)
        with database.reading() as session:
            found = lanes.dead_letters(session, hook_id, limit=limit + 1)
    rows: list[dict[str, Json]] = [
        {
            "hook_id": each.hook_id,
            "change_id": change_id(Place(each.position, each.mark)),
            "type": each.type,
            "organization_id": each.organization_id,
            "about": each.subject_id,
            "died_at": each.died_at.isoformat(),
            "attempts": each.attempts,
            "error": each.error,
        }
        for each in found[:limit]
    ]
    if as_json:
        typer.echo(json.dumps({"data": rows}, indent=2))
    else:
        columns = ("hook_id", "change_id", "type", "organization_id", "about", "died_at", "attempts", "error")
        print_table(columns, [[*(row[name] for name in columns)] for row in rows])
    if len(found) > limit:
        typer.echo("provisioning: there are more; --limit says how many are shown, up to 200.", err=True)


def retry(hook_id: str, change_ids: Sequence[str], *, everything: bool, by: str | None) -> None:
    """Have told again what was given up. Raises ConfigurationError, NotFound, Unavailable."""
    if bool(change_ids) == everything:
        raise ConfigurationError("Say which: the ids that `hooks dead-letters` shows, or --all.")
    positions = None if everything else {_position(each) for each in change_ids}
    settings = load_settings()
    logs.configure()
    with opened(settings) as database:
        ended = subscriptions.retry(database, hook_id, positions, arguments.name(by))
    if positions is not None and not ended:
        raise NotFound("No dead letter of this hook has one of these ids.")
    typer.echo(f"{ended} told again, with what followed")


def _one(database: Database, hook_id: str) -> Hook:
    with database.reading() as session, suppress(StopIteration):
        return next(each for each in hooks.all_hooks(session) if each.id == hook_id)
    raise NotFound("There is no such hook: `provisioning hooks list` shows them all.")


def _check_reach(url: str, settings: Settings) -> None:
    """Raises ConfigurationError where nothing may be sent; a name that leads nowhere may do so later."""
    if reason := why_not(url, settings.hook_networks):
        raise ConfigurationError(f"Nothing may be sent there: {reason}.")


def _types(given: Sequence[str]) -> list[str]:
    names = sorted({name.strip() for each in given for name in each.split(",") if name.strip()})
    if unknown := sorted(set(names) - set(ChangeType)):
        raise ConfigurationError(f"{plain(unknown[0])} is no type of change. They are: {', '.join(sorted(ChangeType))}.")
    return names


def _secret(file: Path | None) -> str | None:
    """What is in the file. Raises ConfigurationError; nothing of it is quoted."""
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
        secrets: tuple[SecretStr, ...] = TypeAdapter(WebhookSecrets).validate_python(text)
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError("The file with the secret cannot be read as UTF-8 text.") from None
    except ValidationError as error:
        raise ConfigurationError(f"The file's secret {error.errors()[0].get('ctx', {}).get('error', 'is none')}.") from None
    if len(secrets) != 1:
        raise ConfigurationError("The file is to hold one secret: whsec_ and 32 or more letters.")
    return secrets[0].get_secret_value()


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,4})([mhd])", text)
    if not match:
        raise ConfigurationError("--keep is a duration such as 30m, 24h or 7d.")
    return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[match[2]]: int(match[1])})


def _position(change: str) -> int:
    try:
        return place_of(change).position
    except InvalidCursor as error:
        raise ConfigurationError(str(error)) from None


def _cell(value: Json) -> object:
    return (", ".join(map(str, value)) or "all") if isinstance(value, list) else value
