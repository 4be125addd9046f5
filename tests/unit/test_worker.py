"""A worker goes on looking, whatever becomes of one look or of one part of it."""

from threading import Event

from structlog.testing import capture_logs

from provisioning.errors import Unavailable
from provisioning.worker import Worker

SECONDS = 30


def raising(error: Exception) -> None:
    raise error


def test_what_fails_at_a_look_keeps_nothing_else_from_its_turn() -> None:
    """Neither a database that is away for one of the ticks, nor a mistake in another; the next look finds all of them again."""
    ticked, claimed, again = Event(), Event(), Event()

    def claim() -> None:
        (again if claimed.is_set() else claimed).set()

    ticks = [lambda: raising(RuntimeError("broken")), ticked.set]
    with capture_logs() as entries:
        worker = Worker([claim], [], ticks)
        worker.start()
        assert ticked.wait(SECONDS)
        assert again.wait(SECONDS)
        worker.stop(SECONDS)
    assert {entry["event"] for entry in entries} == {"look_failed"}


def test_a_database_that_is_away_is_said_once_a_look() -> None:
    """Whichever parts miss it, and each of them is given its turn."""
    turns: list[str] = []
    looked = Event()

    def away(name: str) -> None:
        turns.append(name)
        if name == "claim":
            looked.set()
        raise Unavailable

    with capture_logs() as entries:
        worker = Worker([lambda: away("claim")], [], [lambda: away("first"), lambda: away("second")])
        worker.start()
        assert looked.wait(SECONDS)
        worker.stop(SECONDS)
    assert turns == ["first", "second", "claim"]
    assert [entry["event"] for entry in entries] == ["database_unavailable"]


def test_a_worker_that_stops_has_everything_let_go_of() -> None:
    """Each of what it was given to stop."""
    stopped: list[str] = []
    worker = Worker([lambda: None], [lambda: stopped.append("runs"), lambda: stopped.append("roles")])
    worker.start()
    worker.stop(SECONDS)
    assert stopped == ["runs", "roles"]
