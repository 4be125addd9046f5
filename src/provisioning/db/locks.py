"""Transaction locks on things that have no row yet. They end with the transaction, so a pooler in transaction mode is no obstacle.

SQLite has one writer at a time and needs none.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from sqlalchemy import ARRAY, BigInteger, Boolean, bindparam, text
from sqlalchemy.orm import Session

from provisioning.db.arrays import Array
from provisioning.db.prepared import Prepared, dialect

# unnest gives the elements in their order, and the locks are taken in it: two batches never wait for each other in a ring.
_HOLD = Prepared(
    text(
        "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(name) ELSE pg_advisory_xact_lock_shared(name) END"
        " FROM unnest(:names, :alone) AS wanted (name, alone)"
    ).bindparams(bindparam("names", type_=ARRAY(BigInteger)), bindparam("alone", type_=ARRAY(Boolean)))
)


def hold(session: Session, names: Iterable[tuple[str, ...]]) -> None:
    """Hold these locks alone until the transaction ends."""
    share(session, dict.fromkeys(names, True))


def share(session: Session, names: Mapping[tuple[str, ...], bool]) -> None:
    """Hold these locks until the transaction ends: alone where the value is true, else together with others that share."""
    if not names or dialect(session) != "postgresql":
        return
    wanted: dict[int, bool] = {}
    for name, alone in names.items():
        number = int.from_bytes(blake2b("\0".join(name).encode(), digest_size=8).digest(), signed=True)
        wanted[number] = wanted.get(number, False) or alone
    ordered = sorted(wanted.items())
    numbers, alone_ = zip(*ordered, strict=True)
    _HOLD.rows(session, {"names": Array("bigint", numbers), "alone": Array("boolean", alone_)})
