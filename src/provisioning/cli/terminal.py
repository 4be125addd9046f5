"""What commands print: tables for people, tab-separated lines for programs, and nothing that steers a terminal."""

from collections.abc import Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

stdout = Console(width=1000, highlight=False)  # a table takes the room it needs: what the terminal breaks can be copied whole
stderr = Console(highlight=False, stderr=True)

_STYLES = {
    "processed": "green",
    "duplicate": "dim",
    "stale": "dim",
    "ignored": "dim",
    "dead_lettered": "yellow",
    "failed": "bold red",
    # Runs.
    "done": "green",
    "needs_approval": "bold yellow",
    "cancelled": "yellow",
    # The emulator's deliveries, and its people.
    "delivered": "green",
    "waiting": "yellow",
    "given_up": "bold red",
    "suspended": "yellow",
    "gone": "dim",
    # What is taken for granted of Scalekit.
    "ok": "green",
    "differs": "bold red",
    "not seen": "yellow",
}


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print `rows` under `columns`; when the output is not a terminal, each as a line with its values separated by tabs."""
    if not stdout.is_terminal:
        for row in (columns, *rows):
            typer.echo("\t".join(map(plain, row)))
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in map(plain, row)))
    stdout.print(table)


def plain(value: object) -> str:
    """Return `value` as text, `-` for none, with what is not printable escaped: others chose it, and it may hold a terminal's commands."""
    text = "-" if value is None else str(value)
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
