"""What `check` says of webhooks: what waits for somebody, when one was last accepted, and why others were refused since."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from provisioning.api.words import ago
from provisioning.cli import local
from provisioning.cli.check.finding import Finding, note, ok, warn
from provisioning.db.standing import waiting_deliveries
from provisioning.inbox import Outcome
from provisioning.refused import remedy_of, since_accepted


def of_deliveries(session: Session, now: datetime) -> Iterator[Finding]:
    """Of those that are kept, and of those that were not let in."""
    waiting = waiting_deliveries(session)
    if not waiting:
        yield ok("queue", "nothing failed or dead-lettered that nobody dismissed")
    for outcome, what, then in (
        (Outcome.FAILED, "failed", ""),
        (Outcome.DEAD_LETTERED, "dead-lettered", " (replay or dismiss them)"),
    ):
        if found := waiting.get(outcome):
            retry = f", next tried again {ago(found.retry_at, now) if found.retry_at > now else 'now'}" if found.retry_at else ""
            command = f"{local.program()} deliveries list --outcome {outcome}"
            yield warn("queue", f"{found.number} {what}, the oldest {ago(found.oldest, now)}{retry}: {command}{then}")
    yield from of_refusals(*since_accepted(session), now)


def of_refusals(last: datetime | None, refused: Mapping[str, int], now: datetime) -> Iterator[Finding]:
    """A line for each reason since the last one was accepted."""
    accepted = f"last accepted {ago(last, now)}" if last else "none accepted yet"
    if not refused:
        yield ok("webhooks", f"{accepted}, none refused since") if last else note("webhooks", f"{accepted}, and none refused")
    for reason, number in refused.items():
        remedy = remedy_of(reason)
        made = note if remedy.anybodys else warn
        yield made("webhooks", f"{accepted}; {number} refused since: {remedy.what}. {remedy.to_do}")
