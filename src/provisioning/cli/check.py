"""Whether the service could do its work: configuration, database, migrations, Scalekit; a line for each, and what to do."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import typer

from provisioning.cli.terminal import print_table
from provisioning.db import migrations
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError, ScalekitError, ScalekitNotConfigured, Unavailable
from provisioning.scalekit.client import ScalekitClient
from provisioning.settings import Settings, load_settings


@dataclass(frozen=True)
class Finding:
    """One line. What is merely not set up is fine: receiving webhooks does not need it."""

    subject: str
    fine: bool
    words: str


def check() -> None:
    """Print the findings. Leaves with 1 if something is wrong."""
    findings = list(_findings())
    print_table(("", "", ""), [(each.subject, "ok" if each.fine else "wrong", each.words) for each in findings])
    if not all(each.fine for each in findings):
        raise typer.Exit(1)


def _findings() -> Iterator[Finding]:
    try:
        settings = load_settings()
        settings.require_webhook_secrets()
    except ConfigurationError as error:
        yield Finding("configuration", False, " ".join(str(error).splitlines()))
        return
    yield Finding("configuration", True, _keys(settings))
    yield from _of_database(settings.database_url.get_secret_value())
    yield _of_scalekit(settings)


def _keys(settings: Settings) -> str:
    if not settings.api_keys:
        return "No PROVISIONING_API_KEYS: webhooks are received, but nobody may read the result over HTTP."
    return f"{len(settings.scalekit_webhook_secrets)} webhook secret(s), API keys of {', '.join(key.name for key in settings.api_keys)}"
