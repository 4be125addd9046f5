"""The control API's answers on the screen: a thing as lines, several as a table, or JSON as it came."""

import json
from collections.abc import Mapping, Sequence

import typer

from provisioning.cli.terminal import plain, print_table


def print_answer(answer: Mapping[str, object], *, as_json: bool = False, only: str | None = None) -> None:
    """Print a thing, each of its fields in a line; with `only`, that field's value alone."""
    if as_json:
        print_json(answer)
        return
    if only:
        typer.echo(plain(answer.get(only)))
        return
    width = max(map(len, answer), default=0)
    for name, value in answer.items():
        typer.echo(f"{plain(name):<{width}}  {plain(words(value))}")


def print_rows(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Print these fields of things as a table."""
    print_table(columns, [[words(row.get(name)) for name in columns] for row in rows])


def print_json(answer: object) -> None:
    """Print it for a program, or a person who wants it whole: what steers a terminal is escaped, as JSON does it."""
    typer.echo(json.dumps(answer, indent=2))


def words(value: object) -> str | None:
    """Return a field as a person reads it; None when there is nothing. A thing inside another is shown by its name."""
    match value:
        case None | "":
            return None
        case bool():
            return "yes" if value else "no"
        case {"name": name}:
            return str(name)
        case Mapping():
            return ", ".join(f"{name}: {words(each)}" for name, each in value.items()) or None
        case list():
            return ", ".join(words(each) or "-" for each in value) or None
        case _:
            return str(value)
