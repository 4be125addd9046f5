"""A table's rows by their keys, many at a time: read, lock, insert, save, delete. Each is one prepared statement, whatever the batch.

A set of keys travels as one JSON text, so that a batch of any size stays under every database's limit on parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from json import dumps
from typing import TypeAlias

from sqlalchemy import (
    JSON,
    Executable,
    Integer,
    Result,
    RowMapping,
    Select,
    String,
    Subquery,
    Table,
    and_,
    bindparam,
    column,
    delete,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import Insert, insert  # SQLite writes ON CONFLICT in the same words
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
    columns = (values.c.value.op("->>")(literal_column(str(index))).label(field) for index, field in enumerate(fields))
    # The limit takes nothing away: it tells PostgreSQL, which would guess 100, how few there are, and so that an index pays.
    return select(*columns).limit(bindparam("how_many", type_=Integer)).subquery("keys")


def as_keys(values: Iterable[Sequence[str]]) -> dict[str, str | int]:
    """The parameters for `keys`, each key once."""
    ordered = sorted({tuple(value) for value in values})
    return {"keys": dumps(ordered), "how_many": len(ordered)}


def among(table: Table, *fields: str) -> Select[tuple[object, ...]]:
    """The rows of `table` whose `fields` are one of the `keys`."""
    wanted = keys(*fields)
    return select(table).join(wanted, and_(*(table.c[field] == wanted.c[field] for field in fields)))


class Repository:
    """The rows of one table. Whoever changes a row locks it first; rows are locked and written in the order of their keys."""

    def __init__(self, table: Table) -> None:
        """Build the statements, once."""
        key = list(table.primary_key.columns)
        self._key = tuple(each.name for each in key)
        self._read = among(table, *self._key)
        # FOR NO KEY UPDATE: the check of a foreign key on such a row does not wait for us.
        self._lock = self._read.order_by(*key).with_for_update(key_share=True, of=table)
        written = [each.name for each in table.columns if each not in key and each.name != "created_at"]
        self._insert: dict[str, Executable] = {}
        self._save: dict[str, Executable] = {}
        for name, rows in (("sqlite", insert(table)), ("postgresql", insert_document(table))):
            self._insert[name] = rows.on_conflict_do_nothing(index_elements=key).returning(*key)
            if written:
                self._save[name] = rows.on_conflict_do_update(index_elements=key, set_={each: rows.excluded[each] for each in written})
        wanted = keys(*self._key)
        self._delete: dict[str, Executable] = {
            "sqlite": delete(table).where(tuple_(*key).in_(select(wanted))),
            # USING: for the sub-select above PostgreSQL reads the whole table.
            "postgresql": delete(table).where(*(each == wanted.c[each.name] for each in key)),
        }

    def read(self, session: Session, ids: Iterable[Id]) -> dict[Id, RowMapping]:
        """The rows with these keys, as they are now."""
        return self._by_id(session, self._read, ids)

    def lock(self, session: Session, ids: Iterable[Id]) -> dict[Id, RowMapping]:
        """The rows with these keys, locked until the transaction ends; those that are not there are left out."""
        return self._by_id(session, self._lock, ids)

    def insert(self, session: Session, rows: Iterable[Row]) -> set[Id]:
        """Insert those rows whose key is not there yet; returns the keys of those inserted."""
        inserted = self._execute(session, self._insert, rows)
        return {tuple(str(value) for value in row) for row in inserted} if inserted else set()

    def save(self, session: Session, rows: Iterable[Row]) -> None:
        """Write these rows, which are locked, over what is stored under their keys; `created_at` stays."""
        self._execute(session, self._save, rows)

    def delete(self, session: Session, ids: Iterable[Id]) -> None:
        """Delete the rows with these keys."""
        if ids := list(ids):
            session.execute(self._delete[dialect(session)], as_keys(ids))

    def _by_id(self, session: Session, statement: Select[tuple[object, ...]], ids: Iterable[Id]) -> dict[Id, RowMapping]:
        ids = list(ids)
        found = session.execute(statement, as_keys(ids)).mappings() if ids else ()
        return {tuple(str(row[field]) for field in self._key): row for row in found}

    def _execute(self, session: Session, statements: Mapping[str, Executable], rows: Iterable[Row]) -> Result[tuple[object, ...]] | None:
        ordered = sorted(rows, key=lambda row: tuple(str(row[field]) for field in self._key))
        if not ordered:
            return None
        on_postgresql = dialect(session) == "postgresql"
        return session.execute(statements[dialect(session)], document(ordered) if on_postgresql else [dict(row) for row in ordered])


def dialect(session: Session) -> str:
    """The database's name: `sqlite` or `postgresql`."""
    return session.get_bind().dialect.name


def insert_document(table: Table) -> Insert:
    """Insert the rows of one JSON document, `rows`: PostgreSQL reads it several times faster than a statement that lists them."""
    columns = [column(each.name, each.type) for each in table.columns]
    rows = func.json_to_recordset(bindparam("rows", type_=String).cast(JSON)).table_valued(*columns).render_derived(with_types=True)
    return insert(table).from_select([each.name for each in columns], select(*rows.c))


def document(rows: Iterable[Row]) -> dict[str, str]:
    """The parameter `rows` of such a statement."""
    return {"rows": dumps([dict(row) for row in rows], ensure_ascii=False, default=_as_json)}


def _as_json(value: object) -> str:
    """Times and bytes as PostgreSQL reads them."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return rf"\x{value.hex()}"
    raise TypeError(f"a {type(value).__name__} goes into no column")
