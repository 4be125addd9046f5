"""Declares what can be done to deliveries, and how Scalekit's side can be made to go wrong."""

from functools import partial
from typing import Annotated, Literal

import typer

from provisioning.cli.emulator.calls import AsJson, act, given
from provisioning.cli.examples import examples

sending = typer.Typer()
command = partial(sending.command, rich_help_panel="Webhooks and failures")

Door = Literal["oauth", "api", "directories", "users", "groups", "clock"]
Fault = Literal[
    "hang",
    "rate_limit",
    "away",
    "refuse",
    "missing",
    "unreadable",
    "expired",
    "link_empty",
    "link_without_expiry",
    "link_elsewhere",
    "total_one_more",
    "total_zero",
    "cut_short",
    "empty",
    "later_pages_fail",
    "later_pages_fail_twice",
    "same_page",
    "detail_missing",
    "active_missing",
    "behind",
    "ahead",
]
Step = Literal["begin", "finish"]


@command(
    epilog=examples(
        "provisioning emulator switches",
        "provisioning emulator switches --duplicates 0.2 --reorder 5 --drop 0.1",
        "provisioning emulator switches --paused && provisioning emulator hire Jane Doe",
    )
)
def switches(
    context: typer.Context,
    duplicates: Annotated[float | None, typer.Option(min=0, max=1, help="The share of deliveries that are sent twice.")] = None,
    reorder: Annotated[float | None, typer.Option(min=0, max=3600, help="Each is held back for up to so many seconds.")] = None,
    delay: Annotated[float | None, typer.Option(min=0, max=3600, help="Each attempt is so many seconds late.")] = None,
    drop: Annotated[float | None, typer.Option(min=0, max=1, help="The share of attempts that are lost.")] = None,
    retry_scale: Annotated[float | None, typer.Option(help="The waits between attempts, as a share of Scalekit's.")] = None,
    at_once: Annotated[int | None, typer.Option(min=1, max=64, help="How many deliveries are under way at a time.")] = None,
    paused: Annotated[bool | None, typer.Option("--paused/--resumed", help="Nothing is sent.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """How deliveries go wrong; without options, how they do now."""
    wanted = given(duplicates=duplicates, reorder=reorder, delay=delay, drop=drop, retry_scale=retry_scale, at_once=at_once, paused=paused)
    act(context, "switches", wanted, as_json=as_json)


@command(epilog=examples("provisioning emulator reset"))
def reset(context: typer.Context, as_json: AsJson = False) -> None:
    """Nothing goes wrong any more: deliveries and the API are as at the start."""
    act(context, "reset", {}, as_json=as_json)


@command(
    epilog=examples(
        "provisioning emulator fault api rate_limit",
        "provisioning emulator fault users cut_short",
        "provisioning emulator fault api --none",
    )
)
def fault(
    context: typer.Context,
    door: Annotated[Door, typer.Argument(help="Where: tokens, every call, a directory's totals, a list, the time.")],
    kind: Annotated[Fault | None, typer.Argument(help="How it goes wrong. Each door knows some of these.", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="All is well again.")] = False,
    as_json: AsJson = False,
) -> None:
    """The API misbehaves, until told otherwise."""
    if (kind is None) is not none:
        raise typer.BadParameter("Name a fault, or say --none.")
    act(context, "fault", {"door": door, "fault": kind}, as_json=as_json)


@command(epilog=examples("provisioning emulator rotate-secret begin", "provisioning emulator rotate-secret finish"))
def rotate_secret(context: typer.Context, step: Step, as_json: AsJson = False) -> None:
    """Webhooks are signed with the old secret and the new one, and from `finish` on with the new one alone.

    `provisioning emulator env` hands out both from the start.
    """
    act(context, "rotate-secret", {"step": step}, as_json=as_json)


@command(epilog=examples("provisioning emulator resend", "provisioning emulator resend msg_118462867057559311"))
def resend(
    context: typer.Context,
    deliveries: Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="Without, all that were given up.")] = None,
    as_json: AsJson = False,
) -> None:
    """Deliveries begin again with their first attempt."""
    act(context, "resend", given(deliveries=deliveries), as_json=as_json)
