"""A look at one organization of the real account: whether all that this service takes for granted of Scalekit is so. Changes nothing."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime

import typer

from provisioning.cli import arguments
from provisioning.cli.assumptions import Finding, Word, of_clock, of_directories, of_directory, of_events, of_organization
from provisioning.cli.check.scalekit import CREDENTIALS_HINT
from provisioning.cli.terminal import print_table, stderr
from provisioning.db import migrations
from provisioning.db.deliveries import last_event_ids
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError, ScalekitError, ScalekitNotConfigured, Unavailable
from provisioning.reconcile.sweep import CLOCK_TOLERANCE
from provisioning.scalekit.client import ScalekitClient
from provisioning.scalekit.reality import RealityReader
from provisioning.settings import Settings, load_settings

WEBHOOKS = 20  # the organization's last, looked for in the log of events


def live(organization_id: str, *, as_json: bool) -> None:
    """Print each assumption with what was seen. Leaves with 1 if one does not hold. Raises ConfigurationError, a ScalekitError."""
    settings = load_settings()
    with closing(ScalekitClient(settings)) as client:
        _sign_in(client)
        organization_id = arguments.organization_id(organization_id, settings)
        with stderr.status("Reading what Scalekit says of the organization …"):
            findings = list(_findings(settings, client, organization_id))
    if as_json:
        typer.echo(json.dumps({"data": [asdict(each) for each in findings]}, indent=2))
    else:
        columns = ("result", "assumption", "assumed", "seen", "what it changes", "directory")
        rows = ((each.word, each.subject, each.assumed, each.seen, each.changes, each.directory_id) for each in findings)
        print_table(columns, rows)
    if any(each.word is Word.DIFFERS for each in findings):
        raise typer.Exit(1)


def _sign_in(client: ScalekitClient) -> None:
    try:
        asyncio.run(client.sign_in())
    except ScalekitNotConfigured:
        raise
    except ScalekitError as error:
        raise ConfigurationError(f"{error} {CREDENTIALS_HINT}") from error


def _findings(settings: Settings, client: ScalekitClient, organization_id: str) -> Iterator[Finding]:
    reader = RealityReader(client, organization_id, time.sleep)
    directories = reader.directories()  # first: whether there is such an organization
    yield of_clock(reader.clock()[1], CLOCK_TOLERANCE)
    yield from of_organization(reader.called())
    yield of_directories(directories)
    for directory in directories:
        if directory.enabled:
            yield from of_directory(reader.look(directory.id))
    received = _received(settings, organization_id)  # before the log is read: what comes meanwhile is in the log alone
    yield from of_events(reader.events(), received, datetime.now(UTC))


def _received(settings: Settings, organization_id: str) -> list[str]:
    """The ids of the organization's last events that came by webhook. None where there is no inbox to look into."""
    try:
        with closing(Database(settings.database_url.get_secret_value())) as database, database.reading() as session:
            return [] if migrations.state(session) else last_event_ids(session, organization_id, WEBHOOKS)
    except Unavailable:
        return []
