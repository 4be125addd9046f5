"""Declares what can be done to organizations, directories and groups, and to the admin portal's page."""

from functools import partial
from typing import Annotated, Literal

import typer

from provisioning.cli.emulator.calls import AsJson, act, given
from provisioning.cli.emulator.people import IntoDirectory
from provisioning.cli.examples import examples

structure = typer.Typer()
command = partial(structure.command, rich_help_panel="Organizations, directories and groups")

Provider = Literal["OKTA", "MICROSOFT_AD", "GOOGLE", "JUMPCLOUD"]
Dialect = Literal["official", "guide"]
OfOrganization = Annotated[str | None, typer.Option(help="An organization's name or id.", show_default="the first one")]
Group = Annotated[str, typer.Argument(help="A group's name or id.")]


@command(
    epilog=examples(
        'provisioning emulator add-organization "Analytical Engines"',
        "provisioning emulator add-organization Initech --external-id initech",
    )
)
def add_organization(
    context: typer.Context,
    name: str,
    external_id: Annotated[str | None, typer.Option(help="What the application calls it.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """A new customer, without a directory."""
    act(context, "add-organization", {"name": name, **given(external_id=external_id)}, as_json=as_json)


@command(
    epilog=examples("provisioning emulator set-external-id Acme tenant-42", "provisioning emulator set-external-id Acme --none"),
)
def set_external_id(
    context: typer.Context,
    organization: Annotated[str, typer.Argument(help="Its name or id.")],
    external_id: Annotated[str | None, typer.Argument(help="What the application calls it.", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="Nothing any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """The application calls the customer so from now on; no event says so."""
    if (external_id is None) is not none:
        raise typer.BadParameter("Name an external id, or say --none.")
    act(context, "set-external-id", {"organization": organization, "external_id": external_id}, as_json=as_json)


@command(epilog=examples('provisioning emulator delete-organization "Analytical Engines"'))
def delete_organization(
    context: typer.Context,
    organization: Annotated[str, typer.Argument(help="Its name or id.")],
    as_json: AsJson = False,
) -> None:
    """The customer is gone, with its directories and everybody in them; no event says so."""
    act(context, "delete-organization", {"organization": organization}, as_json=as_json)


@command(epilog=examples("provisioning emulator add-directory OKTA", "provisioning emulator add-directory GOOGLE --organization Acme"))
def add_directory(
    context: typer.Context,
    provider: Annotated[Provider, typer.Argument(case_sensitive=False, help="Whose style it has; MICROSOFT_AD is Entra ID.")],
    organization: OfOrganization = None,
    as_json: AsJson = False,
) -> None:
    """A directory that is enabled, with nobody in it."""
    act(context, "add-directory", {"provider": provider, **given(organization=organization)}, as_json=as_json)


def _switch(action: str, promise: str) -> None:
    @command(action, help=promise, epilog=examples(f"provisioning emulator {action} dir_91263908563290112"))
    def switch(
        context: typer.Context, directory: Annotated[str, typer.Argument(help="A directory's id.")], as_json: AsJson = False
    ) -> None:
        act(context, action, {"directory": directory}, as_json=as_json)


_switch("enable-directory", "What changes in the directory reaches the service again.")
_switch("disable-directory", "The sync is switched off: nobody in the directory can be changed until it is on again.")
_switch("delete-directory", "The directory is gone, with everybody in it; no event says so.")


@command(epilog=examples("provisioning emulator add-group Finance"))
def add_group(context: typer.Context, name: str, directory: IntoDirectory = None, as_json: AsJson = False) -> None:
    """A group without members."""
    act(context, "add-group", {"name": name, **given(directory=directory)}, as_json=as_json)


@command(epilog=examples('provisioning emulator rename-group Finance "Money matters"'))
def rename_group(context: typer.Context, group: Group, name: str, as_json: AsJson = False) -> None:
    """Another name; the id stays."""
    act(context, "rename-group", {"group": group, "name": name}, as_json=as_json)


@command(epilog=examples("provisioning emulator delete-group Finance"))
def delete_group(context: typer.Context, group: Group, as_json: AsJson = False) -> None:
    """The group is gone: an event about it, and one about each member."""
    act(context, "delete-group", {"group": group}, as_json=as_json)


@command(
    epilog=examples("provisioning emulator map-role Engineering admin", "provisioning emulator map-role Engineering --none --no-resend")
)
def map_role(
    context: typer.Context,
    group: Group,
    role: Annotated[str | None, typer.Argument(help="The role that its members get.", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="They get none from it any more.")] = False,
    resend: Annotated[bool, typer.Option(help="Send an event about each member. Whether Scalekit does is not documented.")] = True,
    as_json: AsJson = False,
) -> None:
    """The group gives its members a role."""
    if (role is None) is not none:
        raise typer.BadParameter("Name a role, or say --none.")
    act(context, "map-role", {"group": group, "role": role, "resend": resend}, as_json=as_json)


@command(epilog=examples("provisioning emulator portal --dialect guide", "provisioning emulator portal --embed https://app.example.com"))
def portal(
    context: typer.Context,
    dialect: Annotated[Dialect | None, typer.Option(help="The words in which the page tells of what was done.")] = None,
    embed: Annotated[list[str] | None, typer.Option(metavar="ORIGIN", help="An origin that may embed it, instead of those so far.")] = None,
    embed_nowhere: Annotated[bool, typer.Option("--embed-nowhere", help="No other origin may embed it any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """How the admin portal's page behaves: what is not given stays."""
    origins = {"embedding_origins": []} if embed_nowhere else given(embedding_origins=embed)
    act(context, "portal", {**given(dialect=dialect), **origins}, as_json=as_json)
