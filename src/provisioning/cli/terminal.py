"""What commands print: tables for people, tab-separated lines for programs, and nothing that steers the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(highlight=False, soft_wrap=True, stderr=True)

STYLES = {
    "processed": "green",
    "duplicate": "dim",
    "stale": "dim",
    "ignored": "dim",
    "dead_lettered": "yellow",
    "failed": "bold red",
    "refused": "bold red",
}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print `rows` under `columns`; when the output is not a terminal, a line for each, its values separated by tabs."""
    if not stdout.is_terminal:
        for row in (columns, *rows):
            stdout.print("\t".join(map(plain, row)), markup=False)
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(text, style=STYLES.get(text, ""), overflow="fold") for text in map(plain, row)))
    stdout.print(table, soft_wrap=False)


def plain(value: object) -> str:
    """`value` as text on one line, `-` for none. What somebody else wrote may hold an escape sequence: only printable characters leave."""
    text = "-" if value is None else str(value)
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
