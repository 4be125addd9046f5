"""What `check` says of reconciling: when everything was last read whole, and which runs wait for somebody."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from provisioning.api.words import ago, span
from provisioning.cli import local
from provisioning.cli.check.finding import Finding, note, ok, warn
from provisioning.cli.terminal import plain
from provisioning.db.runs import State
from provisioning.db.standing import Troubled, complete_as_of, troubled_runs

LONG = timedelta(days=7)  # for what webhooks missed to stay so, where nobody has said how often to look


def of_runs(session: Session, now: datetime, interval: timedelta | None) -> Iterator[Finding]:
    """As of when organizations with an enabled directory were last read whole, and which runs are in trouble."""
    yield _of_complete(complete_as_of(session), now, interval)
    troubled = troubled_runs(session, now)
    for states, words in (
        ({State.NEEDS_APPROVAL}, "{of} waits for approval for {since}: {program} reconcile --approve {id}"),
        ({State.FAILED}, "{of} failed {since} ago: {error} Again: {program} reconcile {organization}"),
        ({State.RUNNING, State.QUEUED}, "{of} is {state}, and nobody works on it for {since}: {program} worker does, with API credentials"),
    ):
        if found := [each for each in troubled if each.state in states]:
            yield warn("runs", _line(words, found, now))


def _of_complete(complete: Mapping[str, datetime | None], now: datetime, interval: timedelta | None) -> Finding:
    if not complete:
        return note("reconcile", "No organization has an enabled directory.")
    organization, oldest = next(iter(complete.items()))
    command = f"{local.program()} reconcile {plain(organization)}"
    if oldest is None:
        number = sum(each is None for each in complete.values())
        return warn("reconcile", f"{number} of {len(complete)} organizations with a directory never read whole: {command}")
    if interval and now - oldest > 2 * interval:
        late = f"{plain(organization)} was last read whole {ago(oldest, now)}, though PROVISIONING_RECONCILE_INTERVAL is {span(interval)}"
        return warn("reconcile", f"{late}: {command}")
    words = f"{len(complete)} organizations with a directory, of which the longest ago was read whole {ago(oldest, now)}"
    if not interval and now - oldest > LONG:
        return note("reconcile", f"{words}: {command}, or set PROVISIONING_RECONCILE_INTERVAL")
    return ok("reconcile", words)


def _line(words: str, found: list[Troubled], now: datetime) -> str:
    """The oldest of them, and how many more there are."""
    first, more = found[0], len(found) - 1
    line = words.format(
        of=f"{first.id} of {plain(first.organization_id)}",
        id=first.id,
        organization=plain(first.organization_id),
        state=first.state,
        since=span(now - first.since),
        error=plain(first.error or ""),
        program=local.program(),
    )
    return f"{line} ({more} more like it)" if more else line
