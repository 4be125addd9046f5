"""What most commands are: one call of the control API, and its answer on the screen. The client is imported when a command runs."""
# ruff: noqa: PLC0415 (imports where a command runs: see above)

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the control API's answer.")]


def folder(context: typer.Context) -> Path:
    """The emulator's folder, as `provisioning emulator --folder` names it."""
    return Path(context.obj)


def given(**fields: object) -> dict[str, object]:
    """Those of the options that were given."""
    return {name: value for name, value in fields.items() if value is not None and value != []}


def act(context: typer.Context, action: str, body: Mapping[str, object], *, as_json: bool, only: str | None = None) -> None:
    """Do it, and print what has changed, or of that the field `only`. Raises ConfigurationError, ControlRefused."""
    from provisioning.cli.emulator.control import Control
    from provisioning.cli.emulator.show import print_answer

    with Control(folder(context)) as control:
        print_answer(control.post(action, body), as_json=as_json, only=only)
