"""What came of runs, for people: what changed, what differed, and what waits for an approval."""

import json
from collections.abc import Iterator, Sequence

import typer

from provisioning.api import words
from provisioning.api.reconciliations import Finding, shown
from provisioning.cli import local
from provisioning.cli.terminal import plain, print_table
from provisioning.db.runs import Run, State
from provisioning.drift import SHOWN

ROWS = 25  # of a run's drift


def print_json(runs: Sequence[Run]) -> None:
    """Print them as the HTTP API answers them."""
    typer.echo(json.dumps({"runs": [shown(run, drift=True).model_dump(mode="json") for run in runs]}, indent=2))


def print_report(runs: Sequence[Run]) -> None:
    """Print tables, and the command that approves what is held back."""
    if not runs:
        return
    columns = ("organization", "run", "state", "users listed", "groups listed", "changes", "error")
    print_table(
        columns,
        [(*_place(run), run.listed_users, run.listed_groups, words.numbers(run.changes), run.error) for run in runs],
    )
    if any(run.drift for run in runs):
        typer.echo("")
        print_table(("organization", "found", "whom", "before → after", "why"), (row for run in runs for row in _drift(run)))
    for run in runs:
        if (more := run.drifted - ROWS) > 0:
            typer.echo(f"and {more} more in {plain(run.organization_id)}: --json shows the first {SHOWN}")
    for run in runs:
        _print_held_back(run)
    if any(run.state is State.FAILED for run in runs):
        typer.echo("")
        typer.echo(f"Is it the connection to Scalekit? {local.program()} check says what is wrong with it.")


def _print_held_back(run: Run) -> None:
    if not run.held_back:
        return
    typer.echo("")
    for reason in run.held_back:
        typer.echo(f"{plain(run.organization_id)}: {'would be held' if run.dry_run else 'held'} back: {plain(reason)}")
    if run.state is State.NEEDS_APPROVAL:
        what = words.proposed(shown(run).proposed)
        typer.echo(f"To remove {what} all the same, as far as still gone, within 24 hours and before the next run begins:")
        typer.echo(f"  {local.program()} reconcile --approve {run.id}")


def _place(run: Run) -> tuple[str, str, str]:
    return run.organization_id, run.id, f"{run.state} (dry run)" if run.dry_run else str(run.state)


def _drift(run: Run) -> Iterator[tuple[str, ...]]:
    for each in run.drift[:ROWS]:
        found = Finding.model_validate(each)
        yield run.organization_id, found.what.replace("_", " "), f"{found.type} {found.id}", words.differences(found), found.reason or ""
