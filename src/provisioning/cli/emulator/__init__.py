"""`provisioning emulator`: starts the local Scalekit, and drives the one that runs, through its control API.

What can be done is declared beside: people, structure, sending, playing, looking. They import nothing heavy either.
"""
# ruff: noqa: PLC0415 (imports where a command runs: see above)

from pathlib import Path
from typing import Annotated

import typer

from provisioning.cli.emulator.calls import folder
from provisioning.cli.emulator.looking import looking
from provisioning.cli.emulator.people import people
from provisioning.cli.emulator.playing import playing
from provisioning.cli.emulator.sending import sending
from provisioning.cli.emulator.structure import structure
from provisioning.cli.examples import examples

emulator = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "provisioning emulator",
        '(eval "$(provisioning emulator env)"; provisioning migrate && provisioning serve)',
        "provisioning emulator hire Jane Doe",
        "provisioning emulator sync --users 200 && provisioning emulator compare",
    ),
)
for part in (people, structure, playing, sending, looking):
    emulator.add_typer(part)


@emulator.callback()
def start_or_drive(
    context: typer.Context,
    chosen: Annotated[Path, typer.Option("--folder", envvar="EMULATOR_FOLDER", help="Where it keeps its state.")] = Path(
        ".provisioning/emulator"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="For its page, its control API and the admin portal.")] = 8100,
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="For Scalekit's API, with TLS.")] = 8143,
    deliver_to: Annotated[str, typer.Option(metavar="URL", help="Where webhooks go.")] = "http://127.0.0.1:8000/webhooks/scalekit",
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Let them go to another machine.")] = False,
    service: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The service to ask what it says of somebody, with the API key that `env` gives it, or that of EMULATOR_SERVICE_KEY.",
            show_default="where webhooks go",
        ),
    ] = None,
    embed: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="An origin that may embed the admin portal; as often as you like.")
    ] = None,
    retry_scale: Annotated[
        float, typer.Option(min=0.000001, max=1, help="The waits between a webhook's attempts, as a share of Scalekit's, 27 hours in all.")
    ] = 0.001,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True, help="End when standard input does.")] = False,
) -> None:
    """A local Scalekit: starts it, and drives the one that runs.

    Without a command it starts: Scalekit's API, a company directory to play with, its webhooks, and a page to see it all. It listens on
    this machine alone, until Ctrl-C. The commands, in another terminal, do what the page does; all options but --folder are for the start.
    """
    context.obj = chosen
    if context.invoked_subcommand:
        _refuse_all_but_folder(context)
    else:
        from provisioning.cli.emulator.start import start

        start(
            chosen,
            port=port,
            api_port=api_port,
            deliver_to=deliver_to,
            anywhere=anywhere,
            service=service,
            embedding_origins=embed or [],
            retry_scale=retry_scale,
            with_parent=with_parent,
        )


@emulator.command("env", epilog=examples('eval "$(provisioning emulator env)"; provisioning check'))
def print_environment(context: typer.Context) -> None:
    """Print the settings with which a service uses the running emulator, as lines for a shell. They hold secrets, though made-up ones."""
    from provisioning.cli.emulator.look import print_exports

    print_exports(folder(context))


def _refuse_all_but_folder(context: typer.Context) -> None:
    """What is passed over in silence would be taken for done."""
    for name in context.params.keys() - {"chosen"}:
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{name.replace('_', '-')} is for the start, and {context.invoked_subcommand} is not one.")
