"""Reconciling from the command line, here and now: no service has to run for it."""

import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue

import typer

from provisioning import logs
from provisioning.cli import arguments, report
from provisioning.cli.bars import Bars
from provisioning.cli.database import opened
from provisioning.cli.following import Ask, Following
from provisioning.cli.terminal import plain, stderr
from provisioning.db import runs
from provisioning.db.runs import Run, State
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError
from provisioning.reconcile import Reconciler
from provisioning.scalekit.client import ScalekitClient
from provisioning.settings import load_settings
from provisioning.worker import AT_ONCE

LOOK_EVERY = 0.2  # seconds


def reconcile(organization_ids: Sequence[str], *, everything: bool, approve: str | None, dry_run: bool, as_json: bool) -> None:
    """Go through with the runs and print what came of them. Leaves with 1 if one failed, else with 2 if one leaves something to do.

    Raises ConfigurationError, NotFound, Conflict, ScalekitNotConfigured, Unavailable.
    """
    _require_one(organization_ids, everything=everything, approve=approve, dry_run=dry_run)
    settings = load_settings()
    logs.configure()
    logging.getLogger("provisioning").setLevel(logging.WARNING)  # the end of a run is what this command prints
    organization_ids = arguments.organization_ids(organization_ids, settings)
    with closing(ScalekitClient(settings)) as scalekit:
        scalekit.require_credentials()
        with opened(settings, writers=AT_ONCE + 2, readers=AT_ONCE + 1) as database:
            reconciler = Reconciler(database, scalekit, settings)
            by = arguments.operator()
            asks = _asks(database, reconciler, _known(database) if everything else organization_ids, approve, dry_run, by)
            following = Following(database, reconciler, asks)
            ended_by = _follow(following, by)
    ended = sorted(following.ended, key=lambda run: run.id)  # as they were asked for
    for line in _words(following, asks, ended_by):
        typer.echo(f"provisioning: {plain(line)}", err=True)
    if as_json:
        report.print_json(ended)
    else:
        report.print_report(ended)
    if code := _exit_code(ended, following.refused, everything=everything) if ended_by is None else 128 + ended_by:
        raise typer.Exit(code)


def _follow(following: Following, by: str) -> int | None:
    """Go through with all of it. Returns the signal that ended it early, if one did: an interrupt cancels what was asked for here, and
    waits for that; SIGTERM lets go at once. Raises Unavailable.
    """
    signals, ended_by = _signals(), None
    with Bars() as bars:
        following.start()
        while following.look():
            bars.show(following.under_way.values(), following.ended, following.to_come)
            with suppress(Empty):
                ended_by = signals.get(timeout=LOOK_EVERY)
                if ended_by != signal.SIGINT:
                    break
                stderr.print("Cancelling what was asked for here. Ctrl-C again leaves at once.")
                following.cancel(by)
        following.stop()
    return ended_by


def _words(following: Following, asks: Mapping[str, Ask], ended_by: int | None) -> Iterator[str]:
    """What is to be said beside the result."""
    yield from following.refused
    if not asks:
        yield "No organization is known here yet: name one, as Scalekit does."
    if ended_by == signal.SIGINT:
        yield "Interrupted: what was asked for here is cancelled. What it had changed stays."
    if following.left:
        names = ", ".join(run.id for run in following.left)
        yield f"Left to other processes, such as a service, `provisioning worker` or this command again: {names}"


def _exit_code(ended: Sequence[Run], refused: Sequence[str], *, everything: bool) -> int:
    failed = [run for run in ended if run.state in {State.FAILED, State.CANCELLED}]
    if everything:  # what another environment's webhooks made known here is no failure
        failed = [run for run in failed if not (run.error or "").startswith("unknown")]
    if failed or refused:
        return 1
    return 2 if any(run.state is State.NEEDS_APPROVAL or (run.dry_run and run.drifted) for run in ended) else 0


def _require_one(organization_ids: Sequence[str], *, everything: bool, approve: str | None, dry_run: bool) -> None:
    """Not a usage error, whose exit code is 2: that one says here that there is drift."""
    if bool(organization_ids) + everything + (approve is not None) != 1:
        raise ConfigurationError("Say what to reconcile: organizations by their ids, or --all, or --approve and a run's id.")
    if approve is not None:
        arguments.run_id(approve)
        if dry_run:
            raise ConfigurationError("A dry run removes nothing, so there is nothing to approve: leave out --dry-run, or --approve.")


def _asks(
    database: Database, reconciler: Reconciler, organization_ids: Sequence[str], approve: str | None, dry_run: bool, by: str
) -> Mapping[str, Ask]:
    if approve is None:
        return {each: partial(reconciler.request, each, dry_run=dry_run, requested_by=by) for each in organization_ids}
    with database.reading() as session:
        proposed = runs.by_id(session, approve, datetime.now(UTC))
    return {proposed.id: lambda: (reconciler.approve(proposed, by), True)}


def _known(database: Database) -> list[str]:
    with database.reading() as session:
        return [*runs.last_requests(session)]


def _signals() -> "SimpleQueue[int]":
    """Where signals arrive from now on. A second interrupt ends the process at once: the leases of what it works on lapse."""
    arriving = SimpleQueue[int]()

    def hear(number: int, _: object) -> None:
        arriving.put(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, hear)
    signal.signal(signal.SIGTERM, hear)
    return arriving
