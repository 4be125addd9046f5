"""A newcomer never inherits the account of somebody who leaves, or gives up the address, at the same moment."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text

from factories import delivery, event, one_by_one, receive, user_rows
from provisioning.changes import Cause, CauseKind
from provisioning.db.session import Database
from provisioning.dispatcher import apply
from provisioning.events import parse


@pytest.mark.parametrize(
    "goes", [event("user_deleted", "old", at=1), event("user_updated", "old", at=1, email="renamed@x.com")], ids=["leaves", "is renamed"]
)
def test_a_newcomer_waits_for_whoever_is_just_giving_up_the_address(postgres_url: str, goes: bytes) -> None:
    with closing(Database(postgres_url)) as database, ThreadPoolExecutor(1) as other:
        one_by_one(database, [event("user_created", "old", email="jane@x.com", dp_id="1")])
        event_ = parse(delivery(goes)).event
        assert event_ is not None
        with database.writing() as session:
            apply(session, [event_], [Cause(CauseKind.DELIVERY, "msg_goes")], "live")
            newcomer = other.submit(receive, database, event("user_created", "new", at=2, email="jane@x.com", dp_id="2"))
            wait_until_blocked_or(newcomer, database)
        assert [receipt.outcome for receipt in newcomer.result()] == ["processed"]
        assert len(user_rows(database)) == 2


def wait_until_blocked_or(done: Future[Any], database: Database) -> None:
    """Until the other transaction waits for this one, or has ended without."""
    while not done.done():
        with database.reading() as session:
            if session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                return
