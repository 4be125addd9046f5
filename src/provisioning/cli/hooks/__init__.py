"""`provisioning hooks`: whom the application wants told of what becomes different. Carried out by `managing`, imported when it runs."""
# ruff: noqa: PLC0415 (imports where a command runs: see above)

from pathlib import Path
from typing import Annotated

import typer

from provisioning.cli.examples import examples

hooks = typer.Typer(
    help="Have your application told, by signed webhooks of our own, of what becomes different: who came, changed, lost access.",
    no_args_is_help=True,
    epilog=examples(
        "provisioning hooks add https://app.example.com/hooks/provisioning",
        "provisioning hooks test hook_5d1f7c0a9b3e4f60",
        "provisioning hooks list",
    ),
)

# `ChangeType`, which is not imported for a help text.
TYPES = (
    "directory.disabled, directory.enabled, group.created, group.deleted, group.updated, membership.added, membership.removed,"
    " role.granted, role.revoked, user.activated, user.created, user.deactivated, user.erased, user.updated"
)
HookId = Annotated[str, typer.Argument(metavar="HOOK", help="Its id, as `hooks list` shows it.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who says so.", show_default="who is logged in here")]
SecretFile = Annotated[
    Path | None, typer.Option(help="A file with the secret to sign with: whsec_ and 32 or more letters.", show_default="a new one is made")
]


@hooks.command(
    "add",
    epilog=examples(
        "provisioning hooks add https://app.example.com/hooks/provisioning",
        "provisioning hooks add http://127.0.0.1:3000/hooks/provisioning --from-start",
        "provisioning hooks add https://app.example.com/leavers --type user.deactivated --type user.erased",
    ),
)
def add_hook(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://…, or http://… on this machine.")],
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help=f"Only changes of this type; as often as you like: {TYPES}.", show_default="every change"),
    ] = None,
    organization: Annotated[str | None, typer.Option(metavar="ORG", help="Only of this organization.", show_default="all of them")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Also what is in the change log already.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also if a hook is told of the same at this URL already.")] = False,
    secret_file: SecretFile = None,
    by: By = None,
) -> None:
    """Have a URL told of every change, or of some, from now on; prints the hook's id and the secret that signs its messages, once.

    `serve` and `worker` do the telling, within moments. Where a message is not answered by a 2xx within 10 s it is sent again for 24 hours.
    """
    from provisioning.cli.hooks.managing import add

    add(url, types=types or [], organization_id=organization, secret_file=secret_file, from_start=from_start, again=again, by=by)


@hooks.command("list", epilog=examples("provisioning hooks list", "provisioning hooks list --json | jq '.data[].error'"))
def show_hooks(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Every hook, about how many people (or groups) it has yet to be told something, and whether it fails, and why."""
    from provisioning.cli.hooks.managing import list_hooks

    list_hooks(as_json=as_json)


@hooks.command("remove", epilog=examples("provisioning hooks remove hook_5d1f7c0a9b3e4f60"))
def remove_hook(hook_id: HookId, by: By = None) -> None:
    """Tell it nothing more, and forget what it has not been told."""
    from provisioning.cli.hooks.managing import remove

    remove(hook_id, by)


@hooks.command("rotate-secret", epilog=examples("provisioning hooks rotate-secret hook_5d1f7c0a9b3e4f60 --keep 7d"))
def rotate_secret(
    hook_id: HookId,
    keep: Annotated[str, typer.Option(metavar="DURATION", help="For how long the secret before signs, too; 0m: no more.")] = "24h",
    secret_file: SecretFile = None,
    by: By = None,
) -> None:
    """Sign its messages with a new secret, and for a while also with the one before. Prints the new one, once."""
    from provisioning.cli.hooks.managing import rotate

    rotate(hook_id, keep=keep, secret_file=secret_file, by=by)


@hooks.command("test", epilog=examples("provisioning hooks test hook_5d1f7c0a9b3e4f60"))
def try_hook(hook_id: HookId) -> None:
    """Send it a message of the type `hook.test` now, from here, and say what it came to; the exit code is 1 if it was not taken.

    It waits up to 10 s for an answer. No service has to run.
    """
    from provisioning.cli.hooks.managing import try_out

    try_out(hook_id)


@hooks.command("dead-letters", epilog=examples("provisioning hooks dead-letters", "provisioning hooks dead-letters hook_5d1f7c0a9b3e4f60"))
def show_dead_letters(
    hook_id: Annotated[str | None, typer.Argument(metavar="HOOK", help="Of this hook only.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What was given up after 24 hours, the oldest first, and why.

    What followed about the same people was told without it.
    """
    from provisioning.cli.hooks.managing import list_dead_letters

    list_dead_letters(hook_id, limit, as_json=as_json)


@hooks.command(
    "retry",
    epilog=examples(
        "provisioning hooks retry hook_5d1f7c0a9b3e4f60 --all",
        "provisioning hooks retry hook_5d1f7c0a9b3e4f60 chg_0000000000004711-3fa2c1",
    ),
)
def retry_dead_letters(
    hook_id: HookId,
    change_ids: Annotated[
        list[str] | None, typer.Argument(metavar="CHANGE_ID…", help="As `dead-letters` shows them.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that this hook was not told.")] = False,
    by: By = None,
) -> None:
    """Have it told again what was given up, and after it what followed about the same people, in order: some of it a second time.

    What is told last of somebody is how it is, so order is kept. What is not kept in the change log any more cannot be told.
    """
    from provisioning.cli.hooks.managing import retry

    retry(hook_id, change_ids or [], everything=everything, by=by)
