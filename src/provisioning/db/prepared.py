"""Statements that are always the same, compiled once, and past most of SQLAlchemy where PostgreSQL executes them: finding a compiled
statement again, and making its result one of SQLAlchemy's, costs as much as all else that happens to it here.

Rows that are written travel as an array a column, which is less work for PostgreSQL, and for the driver, than a parameter a value.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias, cast

from psycopg import Connection as PostgreSQL
from psycopg import Error, RawCursor
from sqlalchemy import Column, Connection, CursorResult, Executable, RowMapping, Table
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.orm import Session

from provisioning.db.arrays import Array

Row: TypeAlias = Mapping[str, object]
Stored: TypeAlias = Mapping[str, Any] | RowMapping
"""A row as it was read."""

_POSTGRESQL = psycopg.dialect()  # type: ignore[no-untyped-call]
_NAME = re.compile(r"%\(([\w.]+)\)s")
_NONE: Mapping[str, Any] = {}


class Numbered(NamedTuple):
    """A statement as PostgreSQL takes it, with `$1` for the first of the parameters of these `names`. The driver, which would read it
    again each time if it were long, has nothing to do with it.
    """

    text: str
    names: Sequence[str]


def numbered(named: str) -> Numbered:
    """The statement with `%(name)s` for a parameter, and `%%` for `%`."""
    names = list(dict.fromkeys(_NAME.findall(named)))
    return Numbered(_NAME.sub(lambda found: f"${names.index(found[1]) + 1}", named).replace("%%", "%"), names)


class Prepared:
    """A statement for both databases. PostgreSQL's may also be given as text, with `%(name)s` for a parameter."""

    def __init__(self, statement: Executable, postgresql: Executable | str | None = None) -> None:
        self._statement = statement
        named, self._fixed = _compiled(statement if postgresql is None else postgresql)
        self._postgresql = numbered(named)

    def rows(self, session: Session, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """What it returns in the session's transaction. Values come as the driver has them: JSON and times are made by itself."""
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            return ask(connection, self._postgresql, {**self._fixed, **parameters} if self._fixed else parameters)
        return _returned(connection.execute(self._statement, parameters))

    def write(self, session: Session, table: Table, rows: Sequence[Row]) -> Sequence[Sequence[Any]]:
        """The same of one that writes these rows into the table (`insert_rows`)."""
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            return ask(connection, self._postgresql, columns(table.columns, rows))
        return _returned(connection.execute(self._statement, [dict(row) for row in rows]))


def ask(connection: Connection, statement: Numbered, parameters: Mapping[str, Any] = _NONE) -> Sequence[Sequence[Any]]:
    """What PostgreSQL returns. Who listens to the connection's statements hears of it, but has no say; errors are SQLAlchemy's."""
    heard = connection.dispatch
    text, given = statement.text, [parameters[name] for name in statement.names]
    try:
        with RawCursor(cast("PostgreSQL[Any]", connection.connection.dbapi_connection)) as cursor:
            for listener in heard.before_cursor_execute:
                listener(connection, cursor, text, given, None, False)
            try:
                cursor.execute(text, given)
            finally:
                if not isinstance(sys.exception(), Error):  # of those it is told as of others
                    for listener in heard.after_cursor_execute:
                        listener(connection, cursor, text, given, None, False)
            return cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else ()  # its `description` would be made first
    except Error as error:
        connection._handle_dbapi_exception(error, text, None, None, None)  # private, but the only way to its errors


def _returned(result: CursorResult[*tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
    return result.all() if result.returns_rows else ()


def _compiled(statement: Executable | str) -> tuple[str, dict[str, Any]]:
    """The text, and the parameters whose values are known."""
    if isinstance(statement, str):
        return statement, {}
    compiled = statement.compile(dialect=_POSTGRESQL)  # type: ignore[attr-defined]  # every one can
    return str(compiled), {name: value for name, value in compiled.params.items() if value is not None}


def dialect(session: Session) -> str:
    """The database's name: `sqlite` or `postgresql`."""
    return session.get_bind().dialect.name


def insert_rows(table: Table, name: str = "rows") -> str:
    """The statement, for PostgreSQL, that inserts the rows that are its parameters of this name (`columns`)."""
    return f"INSERT INTO {table.name} ({listed(table.columns)}) SELECT * FROM {unnested(table.columns, name)}"  # noqa: S608 (ours)


def unnested(given: Iterable[Column[Any]], name: str = "rows") -> str:
    """The rows that come as an array a column, in their order."""
    return f"unnest({', '.join(f'%({name}.{number})s::{_type(each)}[]' for number, each in enumerate(given))})"


def columns(given: Iterable[Column[Any]], rows: Sequence[Row], name: str = "rows") -> dict[str, Array]:
    """The parameters of such a statement; of what a row does not say, null."""
    return {f"{name}.{number}": Array(_type(each), [row.get(each.name) for row in rows]) for number, each in enumerate(given)}


def listed(given: Iterable[Column[Any]]) -> str:
    """The columns' names, as SQL lists them."""
    return ", ".join(f'"{each.name}"' for each in given)


@cache
def _type(each: Column[Any]) -> str:
    name = each.type.compile(dialect=_POSTGRESQL).partition(" COLLATE")[0]
    return {"TIMESTAMP WITH TIME ZONE": "timestamptz"}.get(name, name.lower())
