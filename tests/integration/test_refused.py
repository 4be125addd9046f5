"""What was refused is in the database, by minute and reason, and a flood of it costs the database next to nothing."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from provisioning import refused
from provisioning.db import refusals
from provisioning.db.models import refusals as table
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.refused import Refusals
from service import running


def kept(database: Database, days: int = 365) -> dict[str, int]:
    """What the database says of so many days."""
    with database.reading() as session:
        return refusals.since(session, datetime.now(UTC) - timedelta(days=days))


def test_what_was_refused_is_kept_when_the_service_ends(database_url: str, database: Database) -> None:
    """By reason; a flood makes no more rows than there are reasons, and nothing at all while it lasts."""
    with running(database_url) as client:
        for _ in range(50):
            client.post("/webhooks/scalekit")
        client.post("/webhooks/scalekit", headers=[("webhook-id", "1"), ("webhook-id", "2")])
    assert kept(database) == {"missing": 50, "malformed": 1}
    with database.reading() as session:
        assert session.execute(select(func.count()).select_from(table)).scalar_one() <= 4  # of two minutes, at most


def test_it_is_written_now_and_then(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is new since the last time, and not at every tick."""
    counts: Counter[str] = Counter(signature=2)
    keeper = Refusals(database, lambda: counts)
    keeper.tick()
    counts["signature"] += 1
    keeper.tick()
    assert kept(database) == {"signature": 2}
    monkeypatch.setattr(refused, "SECONDS_BETWEEN_WRITES", 0)
    keeper = Refusals(database, lambda: counts)
    for _ in range(3):
        keeper.tick()
    assert kept(database) == {"signature": 5}


def test_nothing_is_lost_while_the_database_is_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is written when it is back, once."""
    counts: Counter[str] = Counter(signature=2)
    keeper = Refusals(database, lambda: counts)

    def away(*_: object) -> None:
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", away)
        with pytest.raises(Unavailable):
            keeper.flush()
    counts["expired"] += 1
    keeper.flush()
    keeper.flush()
    assert kept(database) == {"signature": 2, "expired": 1}


def test_a_week_is_kept(database: Database) -> None:
    """What is older goes."""
    now = datetime.now(UTC)
    with database.writing() as session:
        refusals.add(session, {"signature": 1}, now - timedelta(days=6))
        refusals.add(session, {"signature": 10}, now - timedelta(days=8))
    Refusals(database, dict).tick()
    assert kept(database) == {"signature": 1}
