"""Whether the service could do its work: configuration, database, migrations, Scalekit; a line for each, and what to do."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import typer

from provisioning.db import migrations
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError, ScalekitError, ScalekitNotConfigured, Unavailable
from provisioning.scalekit.client import ScalekitClient
from provisioning.settings import Settings, load_settings

CREDENTIALS_HINT = "Are SCALEKIT_ENVIRONMENT_URL, SCALEKIT_CLIENT_ID and SCALEKIT_CLIENT_SECRET right?"
_HINT = " Is DATABASE_URL right (host, port, user, password, database), and the server running?"


@dataclass(frozen=True)
class Finding:
    """One line. What is merely not set up is fine: receiving webhooks does not need it."""

    subject: str
    fine: bool
    words: str


def check() -> None:
    """Print the findings. Leaves with 1 if something is wrong."""
    fine = True
    for each in _findings():
        word = typer.style("ok   ", fg=typer.colors.GREEN) if each.fine else typer.style("wrong", fg=typer.colors.RED)
        typer.echo(f"{word}  {each.subject:<13}  {each.words}")
        fine = fine and each.fine
    if not fine:
        raise typer.Exit(1)


def _findings() -> Iterator[Finding]:
    try:
        settings = load_settings()
        settings.require_webhook_secrets()
    except ConfigurationError as error:
        for line in str(error).splitlines():
            yield Finding("configuration", False, line)
        return
    yield Finding("configuration", True, _keys(settings))
    yield from _of_database(settings.database_url.get_secret_value())
    yield _of_scalekit(settings)


def _keys(settings: Settings) -> str:
    if not settings.api_keys:
        return "No PROVISIONING_API_KEYS: webhooks are received, but nobody may read the result over HTTP."
    return f"{len(settings.scalekit_webhook_secrets)} webhook secret(s), API keys of {', '.join(key.name for key in settings.api_keys)}"


def _of_database(url: str) -> Iterator[Finding]:
    try:
        with closing(Database(url)) as database, database.reading() as session:
            dialect = session.connection().dialect
            version = ".".join(map(str, dialect.server_version_info or ()))
            to_do = migrations.state(session)
        yield Finding("database", True, f"{'SQLite' if dialect.name == 'sqlite' else 'PostgreSQL'} {version}")
        yield Finding("migrations", to_do is None, to_do or "at this release's tables")
    except Unavailable as error:
        yield Finding("database", False, f"{error}{_HINT if str(error) == str(Unavailable()) else ''}")


def _of_scalekit(settings: Settings) -> Finding:
    try:
        with closing(ScalekitClient(settings)) as client:
            asyncio.run(client.sign_in())
    except ScalekitNotConfigured as error:
        return Finding("scalekit", True, f"{error} Webhooks work without; portal links do not.")
    except ScalekitError as error:
        return Finding("scalekit", False, f"{error} {CREDENTIALS_HINT}")
    return Finding("scalekit", True, f"signed in at {settings.scalekit_environment_url}")
