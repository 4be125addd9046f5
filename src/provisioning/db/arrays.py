"""PostgreSQL's arrays as the wire carries them (`array_send` and the element types' own `send` functions): a column of rows in one go.

The driver's own way from a list costs four times as much, and asks the server to plan anew for every column that happens to be all null.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

from psycopg.abc import AdaptContext, PyFormat
from psycopg.adapt import Dumper
from psycopg.pq import Format

from provisioning.jsons import dumped

Pack: TypeAlias = Callable[[Any], bytes]

_HEAD = Struct("!iiIii")  # dimensions, whether there are nulls, the elements' type, how many, the first one's index
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_eight_bytes = Struct("!q").pack
_LENGTHS = [length.to_bytes(4) for length in range(4096)]
_UNEQUAL = {"json", "timestamptz"}  # of which two can be equal and not the same: 1 and true; an hour that comes twice a year
_NULL = b"\xff\xff\xff\xff"


class _Type(NamedTuple):
    oid: int
    array_oid: int
    pack: Pack


def _time(value: datetime) -> bytes:
    return _eight_bytes((value - _EPOCH) // _MICROSECOND)


TYPES = {
    "text": _Type(25, 1009, str.encode),
    "json": _Type(114, 199, dumped),
    "bytea": _Type(17, 1001, bytes),
    "boolean": _Type(16, 1000, (b"\0", b"\1").__getitem__),
    "bigint": _Type(20, 1016, _eight_bytes),
    "integer": _Type(23, 1007, Struct("!i").pack),
    "timestamptz": _Type(1184, 1185, _time),
}


class Array:
    """Values of one of the TYPES, as a parameter."""

    __slots__ = ("type", "values")

    def __init__(self, type_: str, values: Sequence[Any]) -> None:
        self.type, self.values = type_, values


class ArrayDumper(Dumper):
    """Says an Array as PostgreSQL reads it."""

    format = Format.BINARY

    def __init__(self, cls: type, context: AdaptContext | None = None, type_: str = "text") -> None:
        super().__init__(cls, context)
        self._element, self.oid, self._pack = TYPES[type_]

    def get_key(self, obj: Array, format: PyFormat) -> Any:
        """What this dumper is found by again."""
        return Array, obj.type

    def upgrade(self, obj: Array, format: PyFormat) -> "ArrayDumper":
        """The dumper of arrays of this type."""
        return ArrayDumper(Array, None, obj.type)

    def dump(self, obj: Array) -> bytes:
        """The array's bytes."""
        values = obj.values
        head = _HEAD.pack(1, 1, self._element, len(values), 1)
        if values and obj.type not in _UNEQUAL and values.count(values[0]) == len(values):
            return head + b"".join(self._packed(values[:1])) * len(values)
        return head + b"".join(self._packed(values))

    def _packed(self, values: Sequence[Any]) -> Iterator[bytes]:
        """Each value, behind its length."""
        for value in values:
            if value is None:
                yield _NULL
            else:
                packed = self._pack(value)
                length = len(packed)
                yield _LENGTHS[length] if length < len(_LENGTHS) else length.to_bytes(4)
                yield packed
