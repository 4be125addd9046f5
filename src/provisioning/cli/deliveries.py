"""The inbox for operators, straight from the database: also while the service is down."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import typer
from rich.progress import Progress

from provisioning import logs
from provisioning.api.changes import shown as shown_change
from provisioning.api.deliveries import CHANGES_SHOWN
from provisioning.api.words import sentences
from provisioning.bodies import Json, shown
from provisioning.cli import arguments
from provisioning.cli.database import opened
from provisioning.cli.terminal import plain, print_table, stderr
from provisioning.db.deliveries import NEWEST, StoredDelivery, Wanted, changed_by, one_delivery, page_of_deliveries
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError
from provisioning.events import EventType, rfc3339
from provisioning.inbox import MENDABLE, Inbox, Receipt
from provisioning.settings import load_settings

AT_ONCE = 64


def list_deliveries(wanted: Wanted, limit: int, *, as_json: bool) -> None:
    """Print the last `limit` of the deliveries, newest first. Raises ConfigurationError, Unavailable."""
    with opened(load_settings()) as database, database.reading() as session:
        found = page_of_deliveries(session, wanted, before=NEWEST, limit=limit + 1)
    rows = [_shown(each) for each in found[:limit]]
    if as_json:
        typer.echo(json.dumps({"data": rows}, indent=2))
        return
    columns = ("received_at", "webhook_id", "outcome", "type", "organization_id", "attempts", "error")
    table = ([*(row[name] for name in columns), _standing(each)] for row, each in zip(rows, found, strict=False))
    print_table((*columns, "then"), table)
    if len(found) > limit:
        typer.echo("provisioning: there are more; --limit says how many are shown, up to 200.", err=True)


def show_delivery(webhook_id: str) -> None:
    """Print one delivery with its payload and what it changed. Raises ConfigurationError, NotFound, Unavailable."""
    with opened(load_settings()) as database, database.reading() as session:
        found = one_delivery(session, webhook_id)
        changes = [shown_change(each) for each in changed_by(session, found, limit=CHANGES_SHOWN + 1)]
        words = sentences(session, changes[:CHANGES_SHOWN])
    for name, value in _shown(found).items():
        if name != "dismissed":
            typer.echo(f"{name:<16} {plain(value)}")
    typer.echo(f"{'dismissed':<16} {plain(_standing(found)) if found.dismissed_at else '-'}")
    for change in words:
        typer.echo(f"{'changed':<16} {plain(change)}")
    if len(changes) != len(words):
        typer.echo(f"{'changed':<16} … and more")
    if not words:
        typer.echo(f"{'changed':<16} nothing, or nothing that the log still has")
    typer.echo("")
    for line in _readable(found.payload).split("\n"):
        typer.echo(plain(line))


def replay_deliveries(webhook_ids: Sequence[str]) -> None:
    """Handle stored deliveries again and print what became of them. Leaves with 1 if one is bad again.

    Raises ConfigurationError, NotFound, ProvisioningError for one whose payload was not kept, Unavailable.
    """
    settings = load_settings()
    logs.configure()
    with opened(settings) as database:
        _print_receipts(Inbox.of(settings, database).replay(webhook_ids))


def replay_matching(wanted: Wanted) -> None:
    """The same of all deliveries that are so, as far as their payloads are kept, newest first; the bad ones are printed, and a count.

    Those that were dismissed are left out unless they are asked for.

    Whoever interrupts it may begin again: what was applied stays applied.
    """
    if not wanted.given():
        raise ConfigurationError("Say which: webhook ids, or options such as --outcome failed. All that ever came: --since 1970-01-01.")
    if wanted.dismissed is None:
        wanted = replace(wanted, dismissed=False)
    settings = load_settings()
    logs.configure()
    bad: list[Receipt] = []
    seen = handled = 0
    with opened(settings) as database, Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("deliveries", total=None)
        inbox = Inbox.of(settings, database)
        for webhook_ids in _pages(database, wanted):
            receipts = inbox.replay_kept(webhook_ids)
            seen, handled = seen + len(webhook_ids), handled + len(receipts)
            bad += [each for each in receipts if each.outcome in MENDABLE]
            progress.update(task, completed=seen)
    skipped = f"; of {seen - handled} more the payload is not kept" if seen > handled else ""
    typer.echo(f"{handled} replayed, {len(bad)} of them bad again{skipped}", err=True)
    if bad:
        _print_receipts(bad)


def dismiss_deliveries(webhook_ids: Sequence[str], *, reason: str, by: str | None) -> None:
    """Have them concern nobody any more. Raises ConfigurationError, NotFound, Conflict, Unavailable."""
    if not reason.strip() or len(reason.strip()) > 500 or not reason.isprintable():
        raise ConfigurationError("--reason is one line of up to 500 characters that says why.")
    settings = load_settings()
    logs.configure()
    with opened(settings) as database:
        inbox = Inbox.of(settings, database)
        for webhook_id in webhook_ids:
            done = inbox.dismiss(webhook_id, by=arguments.name(by), reason=reason.strip())
            typer.echo(f"dismissed {plain(webhook_id)}{'' if done else ' (it was before, and keeps its first reason)'}")


def wanted(
    *,
    outcome: str | None,
    organization: str | None,
    type_: str | None,
    about: str | None,
    since: str | None,
    until: str | None,
    dismissed: bool | None,
) -> Wanted:
    """What the options of a command ask for. Raises ConfigurationError."""
    for text in (type_, about):
        if text is not None and "\x00" in text:
            raise ConfigurationError("No id holds a NUL.")
    organization = organization and arguments.filtered_organization_id(organization, load_settings())
    return Wanted(
        outcome, organization, type_ and EventType.named(type_), about, _moment("--since", since), _moment("--until", until), dismissed
    )


def _moment(option: str, text: str | None) -> datetime | None:
    """A time in ISO 8601, UTC unless it says otherwise, or so long ago: `90m`, `6h`, `3d`."""
    if text is None:
        return None
    units = {"m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units and text[:-1].isdecimal():
            return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{option} is a time such as 2026-11-22T09:30 (UTC), or how long ago, such as 90m, 6h or 3d.") from None


def _pages(database: Database, wanted: Wanted) -> Iterator[list[str]]:
    """The webhook ids, a page at a time."""
    before = NEWEST
    while True:
        with database.reading() as session:
            rows = page_of_deliveries(session, wanted, before=before, limit=AT_ONCE)
        if not rows:
            return
        before = (rows[-1].received_at, rows[-1].webhook_id)
        yield [row.webhook_id for row in rows]


def _print_receipts(receipts: Sequence[Receipt]) -> None:
    columns = ("webhook_id", "outcome", "event_id", "error")
    print_table(columns, [(each.webhook_id, each.outcome, each.event_id, each.error) for each in receipts])
    if any(each.outcome in MENDABLE for each in receipts):
        raise typer.Exit(1)


def _standing(row: StoredDelivery) -> str | None:
    """What is being done about it."""
    if row.dismissed_at:
        return f"dismissed by {row.dismissed_by}: {row.dismissed_reason}"
    return f"tried again at {_utc(row.retry_at)}" if row.retry_at else None


def _shown(row: StoredDelivery) -> dict[str, Json]:
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
        "retry_at": None if row.retry_at is None else _utc(row.retry_at),
        "dismissed": None
        if row.dismissed_at is None
        else {"at": _utc(row.dismissed_at), "by": row.dismissed_by, "reason": row.dismissed_reason},
    }


def _utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _readable(payload: bytes | None) -> str:
    """The payload as indented JSON, or in base64 when it is none."""
    if payload is None:
        return "The payload is not kept."
    document, encoding = shown(payload)
    return json.dumps(document, indent=2, ensure_ascii=False) if encoding == "json" else f"base64: {document}"
