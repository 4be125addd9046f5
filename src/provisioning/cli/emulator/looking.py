"""Declares the commands that change nothing. What carries them out is imported when one runs."""
# ruff: noqa: PLC0415 (imports where a command runs: see above)

from functools import partial
from typing import Annotated, Literal

import typer

from provisioning.cli.emulator.calls import AsJson, act, folder, given
from provisioning.cli.emulator.structure import OfOrganization
from provisioning.cli.examples import examples

looking = typer.Typer()
command = partial(looking.command, rich_help_panel="Look")

OfDirectory = Annotated[str | None, typer.Option(help="A directory's id.", show_default="the first enabled one")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many at most.")]
Progress = Literal["waiting", "delivered", "given_up"]


@command(epilog=examples("provisioning emulator status", "provisioning emulator status --json | jq .deliveries"))
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """The organizations and directories, the deliveries, and what is set to go wrong."""
    from provisioning.cli.emulator.look import show_status

    show_status(folder(context), as_json=as_json)


@command(epilog=examples("provisioning emulator people", "provisioning emulator people --query ada --json"))
def people(
    context: typer.Context,
    query: Annotated[str | None, typer.Option(help="A part of a name or an address.")] = None,
    directory: OfDirectory = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """A directory's people."""
    from provisioning.cli.emulator.look import list_people

    list_people(folder(context), given(q=query, directory=directory, limit=limit), as_json=as_json)


@command(epilog=examples("provisioning emulator groups"))
def groups(context: typer.Context, directory: OfDirectory = None, as_json: AsJson = False) -> None:
    """A directory's groups, and the roles that they give."""
    from provisioning.cli.emulator.look import list_groups

    list_groups(folder(context), given(directory=directory), as_json=as_json)


@command(epilog=examples("provisioning emulator deliveries", "provisioning emulator deliveries --progress given_up --limit 200"))
def deliveries(
    context: typer.Context,
    progress: Annotated[Progress | None, typer.Option(help="Only these.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The webhooks sent last, newest first, and how the service answered."""
    from provisioning.cli.emulator.look import list_deliveries

    list_deliveries(folder(context), given(progress=progress, limit=limit), as_json=as_json)


@command(epilog=examples("provisioning emulator delivery msg_118462867057559311"))
def delivery(
    context: typer.Context, webhook_id: Annotated[str, typer.Argument(help="As the list shows it.")], as_json: AsJson = False
) -> None:
    """One of them, with each attempt and the event."""
    from provisioning.cli.emulator.look import show_delivery

    show_delivery(folder(context), webhook_id, as_json=as_json)


@command(epilog=examples("provisioning emulator compare", "provisioning emulator sync --users 500 && provisioning emulator compare"))
def compare(context: typer.Context, organization: OfOrganization = None, as_json: AsJson = False) -> None:
    """Where the service says otherwise than the directories. The exit code is 1 if there is such a place."""
    from provisioning.cli.emulator.look import show_comparison

    show_comparison(folder(context), given(organization=organization), as_json=as_json)


@command(epilog=examples("provisioning emulator portal-link", 'xdg-open "$(provisioning emulator portal-link --organization Acme)"'))
def portal_link(context: typer.Context, organization: OfOrganization = None, as_json: AsJson = False) -> None:
    """A link into the admin portal: it opens once, within a minute. Whoever has it can change the organization."""
    act(context, "portal-link", given(organization=organization), as_json=as_json, only="location")


@command(epilog=examples("provisioning emulator visitor-token", "provisioning emulator visitor-token --organization Acme --role member"))
def visitor_token(
    context: typer.Context,
    organization: OfOrganization = None,
    role: Annotated[str, typer.Option(help="The role that it names.")] = "admin",
    as_json: AsJson = False,
) -> None:
    """A token as an application's own login would give it to somebody of the organization, for an hour.

    A service takes it with PROVISIONING_JWT_AUDIENCE=portal-demo, and SCALEKIT_ENVIRONMENT_URL as its PROVISIONING_JWT_ISSUER.
    """
    act(context, "visitor-token", {"role": role, **given(organization=organization)}, as_json=as_json, only="token")
