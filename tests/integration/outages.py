"""What the tests of outages look at: how long it takes to be told, and that what was sent is received once afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import pytest
from factories import delivery, delivery_rows, event, named, state

from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.events import Delivery
from provisioning.inbox import Inbox


@contextmanager
def opened(url: str, *, pool_size: int = 10) -> Iterator[Database]:
    """The database at `url`, closed at the end."""
    database = Database(url, pool_size=pool_size)
    try:
        yield database
    finally:
        database.close()


def person(id_: str = "u", **data: str) -> Delivery:
    """The event that makes a person, under a webhook id named after them."""
    return delivery(event("user_created", id_, email=f"{id_}@example.com", groups=named("g"), **data), f"msg_{id_}")


def seconds_until_unavailable(work: Callable[[], object]) -> float:
    """How long it takes until `work` raises Unavailable."""
    started = monotonic()
    with pytest.raises(Unavailable):
        work()
    return monotonic() - started


def assert_received_once(database: Database, letter: Delivery) -> None:
    """Sent again, the delivery is received: by this attempt or by one that was given up, but once."""
    (receipt,) = Inbox(database).receive([letter])
    assert receipt.outcome in {"processed", "duplicate"}
    rows = delivery_rows(database)
    assert (rows[letter.webhook_id]["outcome"], rows[letter.webhook_id]["attempts"]) == ("processed", 1)
    found = state(database)
    assert len(found["users"]) == len(found["directory_users"]) == len(rows)
