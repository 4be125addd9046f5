"""The change log's rows: written in the transaction of what they tell, and read in an order that nothing late gets in front of.

Positions are taken under the locks on what changed, so that they rise along everybody's own history; but transactions end in another
order than they took theirs. So each holds a lock, while it lasts, that says behind which position its own are, and the log is read up to
the lowest of these. (A snapshot's horizon would not do: transaction ids rise in yet another order, and any long transaction of anybody
on the server would keep the log from being read.)
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile

from sqlalchemy import Executable, bindparam, delete, select, text, update
from sqlalchemy.orm import Session

from provisioning.changes import Change, in_order
from provisioning.db.arrays import Array
from provisioning.db.models import change_log, changes
from provisioning.db.prepared import Row, columns, dialect, listed, unnested
from provisioning.db.repository import Id, Repository, Writes

_UNDER_WAY = 1_884_245_857  # the first half of the locks' names: any number that nothing else in the database uses
_HALF = 2**31
_LAST_TAKEN = "SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM changes_position"
_ANNOUNCED = text(
    "SELECT CAST(objid AS bigint) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = CAST(:under_way AS bigint)"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
).bindparams(under_way=_UNDER_WAY)
_TAKE = update(change_log).values(last=change_log.c.last + bindparam("how_many")).returning(change_log.c.last)
_OLDEST = select(changes.c.position, changes.c.recorded_at).order_by(changes.c.position).limit(bindparam("at_most"))
_FORGET = delete(changes).where(changes.c.position <= bindparam("to"))
_FORGOTTEN = update(change_log).where(change_log.c.forgotten < bindparam("to")).values(forgotten=bindparam("to"))
_LAST: dict[str, Executable] = {"sqlite": select(change_log.c.last), "postgresql": text(_LAST_TAKEN)}
_FORGOTTEN_TO = select(change_log.c.forgotten)
_TOLD = [each for each in changes.columns if each.name != "position"]
_ANNOUNCE = f"SELECT pg_advisory_xact_lock_shared({_UNDER_WAY}, CAST(last %% {_HALF} AS int)) FROM ({_LAST_TAKEN}) AS taken (last)"  # noqa: S608 (ours)
_TAKE_AND_TELL = f"INSERT INTO changes (position, {listed(_TOLD)}) SELECT nextval('changes_position'), told.* FROM announced,"  # noqa: S608 (ours)


class _Log(Repository):
    """The log, among the tables that a batch writes. Its rows stay in their order, and get their positions as they are written."""

    def ordered(self, rows: Iterable[Row]) -> list[Row]:
        return list(rows)

    def statement(self, how: str, name: str = "rows") -> str:
        # It announces before it takes: no position is taken for a row that is not joined to the announcement.
        return f"WITH announced AS MATERIALIZED ({_ANNOUNCE}) {_TAKE_AND_TELL} {unnested(_TOLD, name)} AS told RETURNING 1"

    def parameters(self, ordered: Sequence[Row], name: str) -> dict[str, Array]:
        return columns(_TOLD, ordered, name)

    def insert(self, session: Session, rows: Iterable[Row]) -> set[Id]:
        rows = list(rows)
        last: int = session.execute(_TAKE, {"how_many": len(rows)}).scalar_one()
        return super().insert(session, [{**row, "position": last - len(rows) + number} for number, row in enumerate(rows, start=1)])


_LOG = _Log(changes)


def record(session: Session, happened: Iterable[Change], now: datetime, writes: Writes | None = None) -> None:
    """Write what a batch changed, and with it what else there is to be written. To be called under all its locks."""
    writes = writes or Writes()
    writes.insert(_LOG, [_row(change, now) for change in in_order(happened)])
    writes.write(session)


def settled(session: Session) -> int:
    """The last position that nothing still under way can get in front of: what is read up to there in a later transaction is complete.

    Whoever took a position up to the last one had announced it before. If that is not to be seen any more, it has ended since.
    """
    last = int(session.execute(_LAST[dialect(session)]).scalar_one())
    if dialect(session) == "sqlite":
        return last
    behind = ((last - announced) % _HALF for announced in session.scalars(_ANNOUNCED))
    # What was announced since is ahead of the last one, and holds nothing back.
    return last - max((each for each in behind if each < _HALF // 2), default=0)


def forgotten(session: Session) -> int:
    """The position up to which changes are not kept any more."""
    return session.scalar(_FORGOTTEN_TO) or 0


def forget(session: Session, before: datetime, *, at_most: int) -> int:
    """Delete up to so many changes from the beginning of the log that were recorded before then; returns how many.

    Whoever asks for what followed one of them is told from now on that it is not kept.
    """
    oldest = session.execute(_OLDEST, {"at_most": at_most}).all()
    old = list(takewhile(lambda row: row.recorded_at < before, oldest))
    if old:
        session.execute(_FORGET, {"to": old[-1].position})
        session.execute(_FORGOTTEN, {"to": old[-1].position})
    return len(old)


def _row(change: Change, now: datetime) -> dict[str, object]:
    return {
        "organization_id": change.organization_id,
        "type": change.type.value,
        "user_id": change.user_id,
        "group_id": change.group_id,
        "directory_id": change.directory_id,
        "role": change.role,
        "before": change.before,
        "after": change.after,
        "cause": change.cause.kind.value,
        "cause_id": change.cause.id,
        "occurred_at": change.cause.occurred_at,
        "recorded_at": now,
    }
