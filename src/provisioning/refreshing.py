"""Brings what users show to the records behind them, one by one: after another release, or a hand in the database, wrote past that.

It works beside webhooks, some users at a time, and changes nothing where nothing is amiss.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from time import monotonic, sleep

from sqlalchemy.orm import Session

from provisioning.changes import Cause, CauseKind
from provisioning.db import changes, users
from provisioning.db.repository import Writes
from provisioning.db.session import Database
from provisioning.merge import Key
from provisioning.showing import show_anew

USERS_AT_ONCE = 250  # what a webhook waits for at most


def refresh(database: Database, organization_id: str, by: str) -> Iterator[tuple[int, int]]:
    """Yields, each time some more are done, how many users were looked at so far, and how many changes that came to.

    Raises Unavailable: what was done by then is done.
    """
    looked_at, changed, reached = 0, 0, ""
    while True:
        began = monotonic()
        some, number = database.write(partial(_refresh_some, organization_id=organization_id, after=reached, by=by))
        looked_at, changed = looked_at + len(some), changed + number
        if some:
            yield looked_at, changed
        if len(some) < USERS_AT_ONCE:
            return
        reached = some[-1].id
        if database.dialect == "sqlite":
            sleep(monotonic() - began)  # its lock is not fair: the webhooks' turn is as long as ours


def _refresh_some(session: Session, organization_id: str, after: str, by: str) -> tuple[list[Key], int]:
    now = datetime.now(UTC)
    some = users.page_of_keys(session, organization_id, after=after, limit=USERS_AT_ONCE)
    cause = Cause(CauseKind.OPERATOR, by)
    writes = Writes()
    happened = show_anew(session, dict.fromkeys(some, cause), now, regrouped=some, writes=writes)
    changes.record(session, happened, now, writes)
    return some, len(happened)
