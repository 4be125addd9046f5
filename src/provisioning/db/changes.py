"""The change log's rows: written in the transaction of what they tell, and read in an order that nothing late gets in front of.

Positions are taken under the locks on what changed, so that they rise along everybody's own history; but transactions end in another
order than they took theirs. So each holds a lock, while it lasts, that says behind which position its own are, and the log is read up to
the lowest of these. (A snapshot's horizon would not do: transaction ids rise in yet another order, and any long transaction of anybody
on the server would keep the log from being read.)
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile

from sqlalchemy import Executable, bindparam, delete, insert, select, text, update
from sqlalchemy.orm import Session

from provisioning.changes import Change, in_order
from provisioning.db.models import change_log, changes
from provisioning.db.repository import dialect, document, insert_document

_UNDER_WAY = 1_884_245_857  # the first half of the locks' names: any number that nothing else in the database uses
_HALF = 2**31
_LAST_TAKEN = "SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM changes_position"
_ANNOUNCE = text(
    f"SELECT pg_advisory_xact_lock_shared(:under_way, CAST(last % :half AS int)) FROM ({_LAST_TAKEN}) AS taken (last)"  # noqa: S608 (ours)
).bindparams(under_way=_UNDER_WAY, half=_HALF)
_ANNOUNCED = text(
    "SELECT CAST(objid AS bigint) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = CAST(:under_way AS bigint)"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
).bindparams(under_way=_UNDER_WAY)
_TAKE = text("SELECT nextval('changes_position') FROM generate_series(1, :how_many)")
_TAKE_ON_SQLITE = update(change_log).values(last=change_log.c.last + bindparam("how_many")).returning(change_log.c.last)
_OLDEST = select(changes.c.position, changes.c.recorded_at).order_by(changes.c.position).limit(bindparam("at_most"))
_FORGET = delete(changes).where(changes.c.position <= bindparam("to"))
_FORGOTTEN = update(change_log).where(change_log.c.forgotten < bindparam("to")).values(forgotten=bindparam("to"))
_RECORD = insert_document(changes)
_LAST: dict[str, Executable] = {"sqlite": select(change_log.c.last), "postgresql": text(_LAST_TAKEN)}
_FORGOTTEN_TO = select(change_log.c.forgotten)
_RECORD_ON_SQLITE = insert(changes)


def record(session: Session, happened: Sequence[Change], now: datetime) -> None:
    """Write what a batch changed. To be called under all its locks, once its rows are written."""
    if not happened:
        return
    ordered = in_order(happened)
    on_sqlite = dialect(session) == "sqlite"
    rows = [_row(change, position, now) for change, position in zip(ordered, _positions(session, len(ordered), on_sqlite), strict=True)]
    if on_sqlite:
        session.execute(_RECORD_ON_SQLITE, rows)
    else:
        session.execute(_RECORD, document(rows))


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


def _positions(session: Session, how_many: int, on_sqlite: bool) -> Sequence[int]:
    if on_sqlite:
        last: int = session.execute(_TAKE_ON_SQLITE, {"how_many": how_many}).scalar_one()
        return range(last - how_many + 1, last + 1)
    session.execute(_ANNOUNCE)  # a statement of its own, before any position is taken
    return session.execute(_TAKE, {"how_many": how_many}).scalars().all()


def _row(change: Change, position: int, now: datetime) -> dict[str, object]:
    return {
        "organization_id": change.organization_id,
        "position": position,
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
