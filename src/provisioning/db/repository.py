"""A table's rows by their keys, many at a time: read, lock, insert, save, delete. Each is one prepared statement, whatever the batch;
and what is to be written into several tables is one, too.

A set of keys travels as one JSON text, so that a batch of any size stays under every database's limit on parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import TypeAlias, cast

from sqlalchemy import (
    JSON,
    Integer,
    Select,
    String,
    Subquery,
    Table,
    and_,
    bindparam,
    delete,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert  # SQLite writes ON CONFLICT in the same words
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from provisioning.db.arrays import Array
from provisioning.db.models import metadata
from provisioning.db.prepared import Numbered, Prepared, Row, Stored, ask, columns, dialect, insert_rows, numbered
from provisioning.db.session import Contended
from provisioning.jsons import dumps

Id: TypeAlias = tuple[str, ...]

INSERT, SAVE = "insert", "save"


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
        found = among(table, *self._key)
        self._known, self._read = Prepared(found.with_only_columns(*key)), Prepared(found)
        # FOR NO KEY UPDATE: the check of a foreign key on such a row does not wait for us.
        self._lock = Prepared(found.order_by(*key).with_for_update(key_share=True, of=table))
        self.table, self._names = table, [each.name for each in table.columns]
        written = [each.name for each in table.columns if each not in key and each.name != "created_at"]
        anew = ", ".join(f'"{each}" = excluded."{each}"' for each in written)
        self._conflicts = {INSERT: f"DO NOTHING RETURNING {', '.join(self._key)}", SAVE: f"DO UPDATE SET {anew}"}
        rows = insert(table)
        self._insert = Prepared(rows.on_conflict_do_nothing(index_elements=key).returning(*key), self.statement(INSERT))
        if written:
            over = rows.on_conflict_do_update(index_elements=key, set_={each: rows.excluded[each] for each in written})
            self._save = Prepared(over, self.statement(SAVE))
        wanted = keys(*self._key)
        self._delete = Prepared(
            delete(table).where(tuple_(*key).in_(select(wanted))),
            # USING: for the sub-select above PostgreSQL reads the whole table.
            delete(table).where(*(each == wanted.c[each.name] for each in key)),
        )

    def known(self, session: Session, ids: Iterable[Id]) -> set[Id]:
        """Those of the keys that are there now."""
        return {cast(Id, tuple(row)) for row in self._known.rows(session, as_keys(ids))} if (ids := list(ids)) else set()

    def read(self, session: Session, ids: Iterable[Id]) -> dict[Id, Stored]:
        """The rows with these keys, as they are now."""
        return self._by_id(session, self._read, ids)

    def lock(self, session: Session, ids: Iterable[Id]) -> dict[Id, Stored]:
        """The rows with these keys, locked until the transaction ends; those that are not there are left out."""
        return self._by_id(session, self._lock, ids)

    def insert(self, session: Session, rows: Iterable[Row]) -> set[Id]:
        """Insert those rows whose key is not there yet; returns the keys of those inserted."""
        if not (ordered := self.ordered(rows)):
            return set()
        return {cast(Id, tuple(row)) for row in self._insert.write(session, self.table, ordered)}

    def save(self, session: Session, rows: Iterable[Row]) -> None:
        """Write these rows, which are locked, over what is stored under their keys; `created_at` stays."""
        if ordered := self.ordered(rows):
            self._save.write(session, self.table, ordered)

    def delete(self, session: Session, ids: Iterable[Id]) -> None:
        """Delete the rows with these keys."""
        if ids := list(ids):
            self._delete.rows(session, as_keys(ids))

    def _by_id(self, session: Session, statement: Prepared, ids: Iterable[Id]) -> dict[Id, Stored]:
        found = statement.rows(session, as_keys(ids)) if (ids := list(ids)) else ()
        # A table's key are its first columns.
        return {row[: len(self._key)]: dict(zip(self._names, row, strict=True)) for row in map(tuple, found)}

    def ordered(self, rows: Iterable[Row]) -> list[Row]:
        """The rows in the order of their keys."""
        return sorted(rows, key=itemgetter(*self._key))

    def statement(self, how: str, name: str = "rows") -> str:
        """How PostgreSQL is told to write the rows in the parameters of this name."""
        return f"{insert_rows(self.table, name)} ON CONFLICT ({', '.join(self._key)}) {self._conflicts[how]}"

    def parameters(self, ordered: Sequence[Row], name: str) -> dict[str, Array]:
        """The rows as these parameters."""
        return columns(self.table.columns, ordered, name)


Step: TypeAlias = tuple[Repository, str]


class Writes:
    """Rows of several tables that are written together: on PostgreSQL by one statement; on SQLite one table after the other, those first
    that others refer to. What is to be deleted goes before, by statements of its own.
    """

    def __init__(self) -> None:
        self._rows: dict[Step, list[Row]] = {}
        self._claimed: set[Repository] = set()
        self._deleted: dict[Repository, list[Id]] = {}

    def insert(self, repository: Repository, rows: Iterable[Row]) -> None:
        """Rows that are new. What is there already stays."""
        self._rows.setdefault((repository, INSERT), []).extend(rows)

    def claim(self, repository: Repository, rows: Iterable[Row]) -> None:
        """Rows that nobody else may have made."""
        self.insert(repository, rows)
        self._claimed.add(repository)

    def save(self, repository: Repository, rows: Iterable[Row]) -> None:
        """Rows that are locked."""
        self._rows.setdefault((repository, SAVE), []).extend(rows)

    def delete(self, repository: Repository, ids: Iterable[Id]) -> None:
        """Rows that are to go, before any is written."""
        self._deleted.setdefault(repository, []).extend(ids)

    def write(self, session: Session) -> None:
        """Write what there is to write, and be empty again. Raises Contended when a row to be claimed is there already."""
        rows = {step: step[0].ordered(rows) for step, rows in sorted(self._rows.items(), key=_place) if rows}
        deleted, claimed = self._deleted, self._claimed
        self._rows, self._deleted, self._claimed = {}, {}, set()
        for repository, ids in deleted.items():
            repository.delete(session, ids)
        inserted = _write(session, rows) if rows else {}
        if any(inserted[step] < len(each) for step, each in rows.items() if step[1] == INSERT and step[0] in claimed):
            raise Contended


def _place(step: tuple[Step, object]) -> int:
    """A table's after those that it refers to."""
    return _PLACES[step[0][0].table]


def _write(session: Session, rows: Mapping[Step, list[Row]]) -> dict[Step, int]:
    """How many rows were written, of each kind."""
    if dialect(session) == "postgresql":
        parameters: dict[str, Array] = {}
        for number, ((repository, _), each) in enumerate(rows.items()):
            parameters |= repository.parameters(each, str(number))
        return dict(zip(rows, ask(session.connection(), _together(tuple(rows)), parameters)[0], strict=True))
    written: dict[Step, int] = {}
    for (repository, how), each in rows.items():
        if how == SAVE:
            repository.save(session, each)
        else:
            written[repository, how] = len(repository.insert(session, each))
    return written


@cache
def _together(steps: tuple[Step, ...]) -> Numbered:
    each_told = (f"{repository.statement(how, str(number))}{_COUNTED[how]}" for number, (repository, how) in enumerate(steps))
    told = ", ".join(f"step_{number} AS ({text})" for number, text in enumerate(each_told))
    counts = ", ".join(f"(SELECT count(*) FROM step_{number})" for number in range(len(steps)))  # noqa: S608 (ours)
    return numbered(f"WITH {told} SELECT {counts}")


_COUNTED = {INSERT: "", SAVE: " RETURNING 1"}  # whoever inserts hears of each row already
_PLACES = {table: number for number, table in enumerate(metadata.sorted_tables)}
