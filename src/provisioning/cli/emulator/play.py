"""Starts long work and shows how far it is, until nothing is left to deliver."""

import time
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from provisioning.cli.emulator.control import Cancelled, Control, Job, State
from provisioning.cli.emulator.show import print_json, print_rows
from provisioning.cli.terminal import plain, stderr

POLL_SECONDS = 0.2


def play(folder: Path, action: str, body: Mapping[str, object], *, wait: bool, as_json: bool) -> None:
    """Start the job, wait for its end and that of its deliveries, and print it. Leaves with 1 unless all of it succeeded."""
    with Control(folder) as control:
        given_up = control.state().deliveries.given_up
        job = Job.model_validate(control.post(action, body))
        if wait:
            state = _ended(control, job.name)
            job, given_up = state.job or job, state.deliveries.given_up - given_up
    if as_json:
        print_json(job.model_dump())
    else:
        _print(job)
    if not wait:
        return
    if given_up > 0:
        typer.echo(f"{given_up} deliveries were given up; provisioning emulator deliveries --progress given_up lists them.", err=True)
    if job.state != "done" or given_up > 0:
        raise typer.Exit(1)


def cancel(folder: Path, *, as_json: bool) -> None:
    """End the job that runs, and print how far it came."""
    with Control(folder) as control:
        answer = Cancelled.model_validate(control.post("cancel", {}))
    if as_json:
        print_json(answer.model_dump())
    elif answer.job:
        _print(answer.job)
    else:
        typer.echo("Nothing has run yet.")


def list_scenarios(folder: Path, *, as_json: bool) -> None:
    """Print what can be played."""
    with Control(folder) as control:
        scenarios = [each.model_dump() for each in control.state().scenarios]
    if as_json:
        print_json({"data": scenarios})
    else:
        print_rows(("name", "what"), scenarios)


def _print(job: Job) -> None:
    typer.echo(plain(": ".join(filter(None, (job.name, job.state, job.error or job.step)))))


def _ended(control: Control, name: str) -> State:
    """The state in which the job runs no more."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        bar = progress.add_task(name, total=None)
        while (job := (state := control.state()).job) and job.state == "running":
            progress.update(bar, description=plain(job.step or name), completed=job.done, total=job.total or None)
            time.sleep(POLL_SECONDS)
        return state
