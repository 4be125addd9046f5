"""Statements that are always the same, compiled once: SQLAlchemy needs longer to find a compiled statement again, each time it is
executed, than for all else that it does for it. And rows that come as an array a column, which is less work for PostgreSQL, and for the
driver, than a list of rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from json import JSONEncoder
from typing import Any, TypeAlias

from sqlalchemy import JSON, Column, CursorResult, Executable, Table
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.orm import Session

Row: TypeAlias = Mapping[str, object]

_POSTGRESQL = psycopg.dialect()  # type: ignore[no-untyped-call]


class Prepared:
    """A statement for both databases. PostgreSQL's may also be given as the driver takes it, with `%(name)s` for a parameter."""

    def __init__(self, statement: Executable, postgresql: Executable | str | None = None) -> None:
        self._statement = statement
        self.postgresql, self._fixed = _compiled(statement if postgresql is None else postgresql)

    def execute(self, session: Session, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> CursorResult[*tuple[Any, ...]]:
        """Execute it in the session's transaction. Values come as the driver has them: on PostgreSQL it makes JSON and times by itself."""
        connection = session.connection()
        if isinstance(parameters, Mapping) and connection.dialect.name == "postgresql":
            return connection.exec_driver_sql(self.postgresql, {**self._fixed, **parameters})
        return connection.execute(self._statement, parameters)


def _compiled(statement: Executable | str) -> tuple[str, dict[str, Any]]:
    """The text, and the parameters whose values are known."""
    if isinstance(statement, str):
        return statement, {}
    compiled = statement.compile(dialect=_POSTGRESQL)  # type: ignore[attr-defined]  # every one can
    return str(compiled), {name: value for name, value in compiled.params.items() if value is not None}


def dialect(session: Session) -> str:
    """The database's name: `sqlite` or `postgresql`."""
    return session.get_bind().dialect.name


def insert_columns(table: Table, how: str) -> str:
    """The statement, for PostgreSQL, that inserts the rows that are its parameters (`columns`)."""
    return f"INSERT INTO {table.name} ({listed(table.columns)}) {unnested(table.columns, how)}"


def unnested(given: Iterable[Column[Any]], how: str) -> str:
    """The rows that come as an array a column, in their order; `how` tells these parameters from others.

    Short, since psycopg reads a statement of more than 4,096 characters, or 50 parameters, anew each time.
    """
    return f"SELECT * FROM unnest({', '.join(f'%({how}.{each.name})s::{_type(each)}[]' for each in given)})"  # noqa: S608 (ours)


def listed(given: Iterable[Column[Any]]) -> str:
    """The columns' names, as SQL lists them."""
    return ", ".join(f'"{each.name}"' for each in given)


def columns(given: Iterable[Column[Any]], how: str, rows: Sequence[Row]) -> dict[str, list[object]]:
    """The parameters of such a statement; of what a row does not say, null."""
    return {
        f"{how}.{each.name}": [_text(row.get(each.name)) for row in rows] if _is_json(each) else [row.get(each.name) for row in rows]
        for each in given
    }


def _type(each: Column[Any]) -> str:
    name = each.type.compile(dialect=_POSTGRESQL).partition(" COLLATE")[0]
    return {"TIMESTAMP WITH TIME ZONE": "timestamptz"}.get(name, name.lower())


def _is_json(each: Column[Any]) -> bool:
    return isinstance(each.type, JSON)


def _text(value: object) -> str | None:
    return None if value is None else _encode(value)


_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
