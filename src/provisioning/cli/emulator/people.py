"""Declares what can be done to people."""

from functools import partial
from typing import Annotated

import typer

from provisioning.cli.emulator.calls import AsJson, act, given
from provisioning.cli.examples import examples

people = typer.Typer()
command = partial(people.command, rich_help_panel="People")

User = Annotated[str, typer.Argument(help="An address, or an id.")]
Groups = Annotated[list[str] | None, typer.Option("--group", help="A group to be in, by name or id; as often as you like.")]
IntoDirectory = Annotated[str | None, typer.Option(help="A directory's id.", show_default="the first enabled one")]


@command(
    epilog=examples(
        "provisioning emulator hire Jane Doe",
        "provisioning emulator hire Jane Doe --email jane@example.com --department Engineering --group Engineering",
    )
)
def hire(
    context: typer.Context,
    given_name: str,
    family_name: str,
    email: Annotated[str | None, typer.Option(help="The address.", show_default="made of the name")] = None,
    title: Annotated[str | None, typer.Option(help="What the person is.")] = None,
    department: Annotated[str | None, typer.Option(help="Where the person works.")] = None,
    groups: Groups = None,
    directory: IntoDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Somebody new."""
    optional = given(email=email, title=title, department=department, groups=groups, directory=directory)
    act(context, "hire", {"given_name": given_name, "family_name": family_name, **optional}, as_json=as_json)


@command(epilog=examples("provisioning emulator rename ada@example.com --family-name King --email ada.king@example.com"))
def rename(
    context: typer.Context,
    user: User,
    given_name: Annotated[str | None, typer.Option(help="The new one.")] = None,
    family_name: Annotated[str | None, typer.Option(help="The new one.")] = None,
    email: Annotated[str | None, typer.Option(help="The new address.")] = None,
    as_json: AsJson = False,
) -> None:
    """Another name or address; the ids stay."""
    act(context, "rename", given(user=user, given_name=given_name, family_name=family_name, email=email), as_json=as_json)


@command(epilog=examples("provisioning emulator move ada@example.com Finance --title Analyst"))
def move(
    context: typer.Context,
    user: User,
    department: str,
    title: Annotated[str | None, typer.Option(help="What the person is there.", show_default="as before")] = None,
    as_json: AsJson = False,
) -> None:
    """Into another department, and from the group that is called like the old one into the one that is called like the new one."""
    act(context, "move", given(user=user, department=department, title=title), as_json=as_json)


@command(epilog=examples("provisioning emulator regroup ada@example.com --add Finance --remove Engineering"))
def regroup(
    context: typer.Context,
    user: User,
    add: Annotated[list[str] | None, typer.Option(help="A group to join, by name or id; as often as you like.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A group to leave.")] = None,
    as_json: AsJson = False,
) -> None:
    """Into groups, and out of others."""
    act(context, "regroup", given(user=user, add=add, remove=remove), as_json=as_json)


def _change(action: str, promise: str) -> None:
    @command(action, help=promise, epilog=examples(f"provisioning emulator {action} ada@example.com"))
    def change(context: typer.Context, user: User, as_json: AsJson = False) -> None:
        act(context, action, {"user": user}, as_json=as_json)


_change("suspend", "Inactive, until restored.")
_change("restore", "Back from being suspended or fired.")
_change("fire", "Gone, the way the directory's provider does it; the person can be restored.")
_change("purge", "Deleted from the directory for good.")
