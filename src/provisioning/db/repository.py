"""A table's rows by their keys, many at a time: read, lock, insert, save, delete. Each is one prepared statement, whatever the batch.

A set of keys travels as one JSON text, so that a batch of any size stays under every database's limit on parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from json import dumps
from typing import TypeAlias

from sqlalchemy import JSON, Insert, RowMapping, Select, String, Subquery, Table, and_, bindparam, delete, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import insert  # SQLite writes ON CONFLICT in the same words
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

Row: TypeAlias = Mapping[str, object]
Id: TypeAlias = tuple[str, ...]


class each_of(GenericFunction[object]):  # noqa: N801 (named as a SQL function is)
    """The elements of a JSON array as rows of one column, `value`."""

    type = JSON()
    inherit_cache = True


@compiles(each_of, "sqlite")
def _each_sqlite(element: each_of, compiler: SQLCompiler, **options: object) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(each_of, "postgresql")
def _each_postgresql(element: each_of, compiler: SQLCompiler, **options: object) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS json))"


def keys(*fields: str) -> Subquery:
    """The parameter `keys`, which `as_keys` makes, as a table with these columns."""
    values = each_of(bindparam("keys", type_=String)).table_valued("value")
    return select(*(values.c.value.op("->>")(literal_column(str(index))).label(field) for index, field in enumerate(fields))).subquery(
        "keys"
    )


def as_keys(values: Iterable[Sequence[str]]) -> dict[str, str]:
    """The parameter for `keys`, each once."""
    return {"keys": dumps(sorted({tuple(value) for value in values}))}


def among(table: Table, *fields: str) -> Select[tuple[object, ...]]:
    """The rows of `table` whose `fields` are one of the `keys`."""
    wanted = keys(*fields)
    return select(table).join(wanted, and_(*(table.c[field] == wanted.c[field] for field in fields)))


class Repository:
    """The rows of one table. Whoever changes a row locks it first; rows are locked and written in the order of their keys."""

    def __init__(self, table: Table) -> None:
        """Build the statements, once."""
        key = list(table.primary_key.columns)
        self._key = tuple(column.name for column in key)
        self._read = among(table, *self._key)
        # FOR NO KEY UPDATE: the check of a foreign key on such a row does not wait for us.
        self._lock = self._read.order_by(*key).with_for_update(key_share=True, of=table)
        # RETURNING makes the driver send many rows in one statement.
        self._insert = insert(table).on_conflict_do_nothing(index_elements=key).returning(*key)
        rows = insert(table)
        kept = {column.name: rows.excluded[column.name] for column in table.columns if column not in key and column.name != "created_at"}
        self._save: Insert | None = (
            rows.on_conflict_do_update(index_elements=key, set_=kept or None).returning(literal_column("1")) if kept else None
        )
        self._delete = delete(table).where(tuple_(*key).in_(select(keys(*self._key))))

    def read(self, session: Session, ids: Iterable[Id]) -> dict[Id, RowMapping]:
        """The rows with these keys, as they are now."""
        return self._by_id(session, self._read, ids)

    def lock(self, session: Session, ids: Iterable[Id]) -> dict[Id, RowMapping]:
        """The rows with these keys, locked until the transaction ends; those that are not there are left out."""
        return self._by_id(session, self._lock, ids)

    def insert(self, session: Session, rows: Iterable[Row]) -> set[Id]:
        """Insert those rows whose key is not there yet; returns the keys of those inserted."""
        ordered = self._ordered(rows)
        return {tuple(row) for row in session.execute(self._insert, ordered)} if ordered else set()

    def save(self, session: Session, rows: Iterable[Row]) -> None:
        """Write these rows, which are locked, over what is stored under their keys; `created_at` stays."""
        if self._save is not None and (ordered := self._ordered(rows)):
            session.execute(self._save, ordered)

    def delete(self, session: Session, ids: Iterable[Id]) -> None:
        """Delete the rows with these keys."""
        if ids := list(ids):
            session.execute(self._delete, as_keys(ids))

    def _by_id(self, session: Session, statement: Select[tuple[object, ...]], ids: Iterable[Id]) -> dict[Id, RowMapping]:
        ids = list(ids)
        found = session.execute(statement, as_keys(ids)).mappings() if ids else ()
        return {tuple(str(row[field]) for field in self._key): row for row in found}

    def _ordered(self, rows: Iterable[Row]) -> list[dict[str, object]]:
        return sorted((dict(row) for row in rows), key=lambda row: tuple(str(row[field]) for field in self._key))
