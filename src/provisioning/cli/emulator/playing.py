"""Declares what takes a while. What carries it out is imported when it runs."""
# ruff: noqa: PLC0415 (imports where a command runs: see above)

from functools import partial
from typing import Annotated

import typer

from provisioning.cli.emulator.calls import AsJson, folder, given
from provisioning.cli.emulator.people import IntoDirectory
from provisioning.cli.examples import examples

playing = typer.Typer()
command = partial(playing.command, rich_help_panel="Play")

Wait = Annotated[bool, typer.Option(help="Show the progress, and end when nothing is left to deliver.")]


@command(epilog=examples("provisioning emulator sync --users 200", "provisioning emulator sync --users 5000 --rate 200 --no-wait"))
def sync(
    context: typer.Context,
    users: Annotated[int, typer.Option(min=1, help="How many people.")] = 100,
    rate: Annotated[float | None, typer.Option(min=0.1, help="People a second.", show_default="as fast as it goes")] = None,
    directory: IntoDirectory = None,
    silent: Annotated[bool, typer.Option("--silent", help="Send no webhook about it: only the Directory API shows them.")] = False,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """A directory's first sync: made-up people arrive, and then their groups.

    Ctrl-C ends the waiting, `provisioning emulator cancel` the sync.
    """
    from provisioning.cli.emulator.play import play

    body = {"users": users, "silent": silent, **given(rate=rate, directory=directory)}
    play(folder(context), "sync", body, wait=wait, as_json=as_json)


@command(epilog=examples("provisioning emulator scenario", "provisioning emulator scenario leaver"))
def scenario(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which; without, they are listed.", show_default=False)] = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Play a story from a company's life. The exit code is 1 if it failed."""
    from provisioning.cli.emulator.play import list_scenarios, play

    if name is None:
        list_scenarios(folder(context), as_json=as_json)
    else:
        play(folder(context), "scenario", {"name": name}, wait=wait, as_json=as_json)


@command(epilog=examples("provisioning emulator cancel"))
def cancel(context: typer.Context, as_json: AsJson = False) -> None:
    """End the sync or scenario that runs; what it has done stays."""
    from provisioning.cli.emulator.play import cancel as end

    end(folder(context), as_json=as_json)
