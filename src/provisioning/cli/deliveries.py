"""The inbox for operators, straight from the database: also while the service is down."""

import json
from base64 import b64encode
from datetime import UTC, datetime

import typer

from provisioning import logs
from provisioning.cli.database import opened
from provisioning.cli.terminal import plain, print_table
from provisioning.db.deliveries import StoredDelivery, one_delivery, page_of_deliveries
from provisioning.events import rfc3339
from provisioning.inbox import Inbox, Outcome
from provisioning.settings import load_settings

END_OF_TIME = (datetime.max.replace(tzinfo=UTC), "")
BAD = frozenset({Outcome.FAILED, Outcome.DEAD_LETTERED})


def list_deliveries(limit: int, *, as_json: bool) -> None:
    """Print the last `limit` deliveries, newest first. Raises ConfigurationError, Unavailable."""
    with opened(load_settings()) as database, database.reading() as session:
        rows = [_shown(each) for each in page_of_deliveries(session, before=END_OF_TIME, limit=limit)]
    if as_json:
        typer.echo(json.dumps({"data": rows}, indent=2))
        return
    columns = ("received_at", "webhook_id", "outcome", "type", "organization_id", "attempts", "error")
    print_table(columns, ([row[name] for name in columns] for row in rows))


def show_delivery(webhook_id: str) -> None:
    """Print one delivery with its payload. Raises ConfigurationError, NotFound, Unavailable."""
    with opened(load_settings()) as database, database.reading() as session:
        found = one_delivery(session, webhook_id)
    for name, value in _shown(found).items():
        typer.echo(f"{name:<16} {plain(value)}")
    typer.echo("")
    for line in _readable(found.payload).split("\n"):
        typer.echo(plain(line))


def replay_deliveries(webhook_ids: list[str]) -> None:
    """Handle stored deliveries again and print what became of them. Leaves with 1 if one is bad again.

    Raises ConfigurationError, NotFound, ProvisioningError for one whose payload was not kept, Unavailable.
    """
    settings = load_settings()
    logs.configure()
    with opened(settings) as database:
        inbox = Inbox(database, link_users_by_email=settings.link_users_by_email, environment_id=settings.environment_id)
        receipts = inbox.replay(webhook_ids)
    columns = ("webhook_id", "outcome", "event_id", "error")
    print_table(columns, [(each.webhook_id, each.outcome, each.event_id, each.error) for each in receipts])
    if any(each.outcome in BAD for each in receipts):
        raise typer.Exit(1)


def _shown(row: StoredDelivery) -> dict[str, str | int | None]:
    """The delivery as the HTTP API shows it, without the payload."""
    return {
        "webhook_id": row.webhook_id,
        "event_id": row.event_id,
        "type": row.type,
        "organization_id": row.organization_id,
        "occurred_at": None if row.occurred_at is None else rfc3339(row.occurred_at),
        "received_at": _utc(row.received_at),
        "processed_at": None if row.processed_at is None else _utc(row.processed_at),
        "outcome": row.outcome,
        "attempts": row.attempts,
        "error": row.error,
    }


def _utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _readable(payload: bytes | None) -> str:
    """The payload as indented JSON, or in base64 when it is none."""
    if payload is None:
        return "The payload is not kept."
    try:
        return json.dumps(json.loads(payload), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return f"base64: {b64encode(payload).decode()}"
