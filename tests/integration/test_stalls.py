"""A path to PostgreSQL that stalls or breaks: neither libpq nor the server notices a stall, so the watchdog does, within 5 s."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic

import pytest

from factories import event, receive, state
from faults import assert_received_once, opened, person, seconds_until_unavailable, use_at_once
from provisioning.db import session as database_session
from provisioning.errors import Unavailable
from provisioning.inbox import Inbox
from stalling_proxy import StallingProxy

STALLS = {
    "idle": (b"", False),
    "before a statement": (b"INSERT INTO directory_users", False),
    "after a statement": (b"INSERT INTO directory_users", True),
    "before the commit": (b"COMMIT", False),
    "after the commit": (b"COMMIT", True),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases opened in the test give a stalled path 1 s."""
    monkeypatch.setattr(database_session, "STALLED_SECONDS", 1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("moment", STALLS)
def test_a_stalled_path_is_given_up(postgres_url: str, moment: str) -> None:
    """Whenever it stalls; and once the path is back, the same delivery is received at once, and once."""
    words, received = STALLS[moment]
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        receive(database, event("user_created", "before"))
        if words:
            path.stall_at(words, received=received)
        else:
            path.stall()
        assert 0.9 < seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 3
        path.resume()
        assert_received_once(database, person())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("words", [b"version()", b"hstore", b"pg_backend_pid", b"lock_timeout"])
def test_a_path_that_stalls_with_the_first_connection_is_given_up(postgres_url: str, words: bytes) -> None:
    """SQLAlchemy asks the server what it is then, before anybody else has the connection."""
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        path.stall_at(words)
        assert 0.9 < seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 3
        path.resume()
        assert_received_once(database, person())


def test_a_stalled_path_costs_no_more_than_five_seconds(postgres_url: str) -> None:
    """With the times that the service has: over an open connection and, after that, when there is none yet."""
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        receive(database, event("user_created", "before"))
        path.stall()
        assert seconds_until_unavailable(lambda: state(database)) < 4.8
        assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 4.8


@pytest.mark.usefixtures("impatient")
def test_when_one_connection_is_lost_all_are_doubted(postgres_url: str) -> None:
    """A NAT on the way has forgotten them: else each pooled one would cost another caller its seconds."""
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        use_at_once(database, 5)
        path.forget()
        seconds_until_unavailable(lambda: use_at_once(database, 1))
        started = monotonic()
        use_at_once(database, 5)
        assert monotonic() - started < 1


def test_a_batch_whose_path_is_lost_for_good_lets_go(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hears nothing of it, and would keep its locks in the way of the next attempt for hours."""
    monkeypatch.setitem(database_session._SETTINGS["write"], "idle_in_transaction_session_timeout", "'1s'")
    with StallingProxy(postgres_url) as path, opened(path.url) as next_replica:
        with monkeypatch.context() as hasty, ExitStack() as stack:
            hasty.setattr(database_session, "STALLED_SECONDS", 1)
            database = stack.enter_context(opened(path.url))
            path.stall_at(b"INSERT INTO directory_users")
            seconds_until_unavailable(lambda: Inbox(database).receive([person()]))
        path.forget()
        assert_received_once(next_replica, person())


def test_a_server_that_is_away_is_told_of_at_once(postgres_url: str) -> None:
    with StallingProxy(postgres_url) as path, opened(path.url) as database:
        receive(database, event("user_created", "before"))
        path.cut()
        for _ in range(2):
            assert seconds_until_unavailable(lambda: Inbox(database).receive([person()])) < 1
            assert seconds_until_unavailable(lambda: state(database)) < 1
        path.restore()
        assert_received_once(database, person())


def test_a_server_that_goes_in_the_middle_of_a_batch_leaves_nothing_of_it(postgres_url: str) -> None:
    with StallingProxy(postgres_url) as path, opened(path.url) as database, ThreadPoolExecutor() as threads:
        receive(database, event("user_created", "before"))
        before = state(database)
        path.stall_at(b"INSERT INTO directory_users")
        receiving = threads.submit(Inbox(database).receive, [person()])
        assert path.stalled.wait(10)
        path.cut()
        with pytest.raises(Unavailable):
            receiving.result(10)
        path.restore()
        assert state(database) == before
        assert_received_once(database, person())
