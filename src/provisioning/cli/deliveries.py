"""The inbox for operators, straight from the database: also while the service is down."""

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import typer

from provisioning.cli.terminal import plain, print_table, stdout
from provisioning.db import migrations
from provisioning.db.deliveries import StoredDelivery, one_delivery, page_of_deliveries
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError
from provisioning.events import rfc3339
from provisioning.inbox import Inbox, Outcome
from provisioning.settings import Settings, load_settings

NEWEST = (datetime.max.replace(tzinfo=UTC), "")


def list_deliveries(limit: int, *, as_json: bool) -> None:
    """Print the last `limit` deliveries, newest first. Raises ConfigurationError, Unavailable."""
    with _database(load_settings()) as database, database.reading() as session:
        found = page_of_deliveries(session, before=NEWEST, limit=limit)
    if as_json:
        _print_json({"data": [_shown(each) for each in found]})
        return
    columns = ("received", "webhook-id", "outcome", "type", "organization", "attempts", "error")
    rows = [_shown(each) for each in found]
    print_table(columns, [[row[name] for name in ("received_at", "webhook_id", "outcome", "type", "organization_id", "attempts", "error")] for row in rows])


def show_delivery(webhook_id: str, *, as_json: bool) -> None:
    """Print one delivery with its payload. Raises ConfigurationError, NotFound, Unavailable."""
    with _database(load_settings()) as database, database.reading() as session:
        found = one_delivery(session, webhook_id)
    payload = _payload(found.payload)
    if as_json:
        _print_json({**_shown(found), "payload": payload})
        return
    for name, value in _shown(found).items():
        stdout.print(f"{name:<16} {plain(value)}", markup=False)
    _print_json(payload)


def replay_deliveries(webhook_ids: list[str]) -> None:
    """Handle stored deliveries again and print what became of them. Leaves with 1 if one failed. Raises ConfigurationError, NotFound, Unavailable."""
    settings = load_settings()
    with _database(settings) as database:
        inbox = Inbox(database, link_users_by_email=settings.link_users_by_email, environment_id=settings.environment_id)
        receipts = inbox.replay(webhook_ids)
    print_table(("webhook-id", "outcome", "event id", "error"), [(each.webhook_id, each.outcome, each.event_id, each.error) for each in receipts])
    if any(each.outcome in {Outcome.FAILED, Outcome.DEAD_LETTERED} for each in receipts):
        raise typer.Exit(1)
