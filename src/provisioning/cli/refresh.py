"""Refreshing from the command line."""

from collections.abc import Sequence

import typer
from rich.progress import Progress

from provisioning import logs
from provisioning.cli import arguments
from provisioning.cli.database import opened
from provisioning.cli.terminal import plain, print_table, stderr
from provisioning.db import runs
from provisioning.errors import ConfigurationError
from provisioning.refreshing import refresh as refreshed
from provisioning.settings import load_settings


def refresh(organization_ids: Sequence[str], *, everything: bool) -> None:
    """Refresh them one after another, and print how many users and changes that came to. Raises ConfigurationError, Unavailable."""
    if bool(organization_ids) == everything:
        raise ConfigurationError("Name the organizations, or say --all.")
    settings = load_settings()
    logs.configure()
    wanted = arguments.organization_ids(organization_ids, settings)
    by, done = arguments.operator(), list[tuple[str, int, int]]()
    with opened(settings) as database, Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        if everything:
            with database.reading() as session:
                wanted = [*runs.last_requests(session)]
        for organization_id in progress.track(wanted, description="organizations"):
            users, changes = 0, 0
            task = progress.add_task(f"{plain(organization_id)}, users", total=None)
            for users, changes in refreshed(database, organization_id, by):  # noqa: B007  # the last ones count
                progress.update(task, completed=users)
            progress.remove_task(task)
            done.append((organization_id, users, changes))
    print_table(("organization_id", "users", "changes"), done)
    typer.echo(f"{sum(changes for *_, changes in done)} changes", err=True)
