"""Frees threads from a PostgreSQL connection whose path has stalled: past its deadline the socket is shut down, and the driver raises.

Only waiting for the server counts: the clock starts with a statement or a commit and stops with its answer.
"""

import os
import socket
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry, ManagesConnection

from provisioning.errors import Unavailable

_LOOK_SECONDS = 0.2


class Watchdog:
    """Watches the connections of an engine from one daemon thread, which starts with the first connection."""

    def __init__(self, seconds: float) -> None:
        """Cut a connection that has waited longer than `seconds`, within another 0.2 s: whoever waits on it gets Unavailable."""
        self._seconds = seconds
        self._deadlines: dict[socket.socket, float] = {}
        self._lock = Lock()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="database-watchdog", daemon=True)

    def guard(self, engine: Engine) -> None:
        """Watch every connection of `engine` from now on."""
        # Before all others: with the first connection SQLAlchemy asks the server what it is.
        event.listen(engine, "connect", self._connected, insert=True)
        event.listen(engine, "checkout", lambda _, entry, __: self._answered(entry))
        event.listen(engine, "checkin", lambda _, entry: self._answered(entry))
        event.listen(engine, "close", lambda _, entry: self._closed(entry))
        event.listen(engine, "before_cursor_execute", self._asks)
        event.listen(engine, "after_cursor_execute", lambda connection, *_: self._answered(connection.connection))
        event.listen(engine, "handle_error", self._failed)
        event.listen(engine, "commit", self._asks)
        event.listen(engine, "rollback", self._asks)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _connected(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        # A duplicate of the descriptor: the number itself could belong to another socket by the time it is cut.
        _info(entry)["watched"] = socket.socket(fileno=os.dup(connection.fileno()))
        self._asked(entry)
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()

    def _asks(self, connection: Connection, *_: object) -> None:
        if not connection.invalidated:  # else there is nobody left to ask
            self._asked(connection.connection)

    def _asked(self, waiting: ManagesConnection) -> None:
        if watched := _info(waiting).get("watched"):
            with self._lock:
                self._deadlines[watched] = monotonic() + self._seconds

    def _answered(self, waiting: ManagesConnection) -> None:
        if watched := _info(waiting).get("watched"):
            with self._lock:
                self._deadlines.pop(watched, None)

    def _closed(self, entry: ConnectionPoolEntry) -> None:
        self._answered(entry)
        if watched := _info(entry).pop("watched", None):
            watched.close()

    def _failed(self, context: ExceptionContext) -> Unavailable | None:
        if context.connection is None or context.connection.invalidated:
            return None
        waiting = context.connection.connection
        self._answered(waiting)
        watched = _info(waiting).get("watched")
        return Unavailable("The database has stalled.") if watched and watched.fileno() < 0 else None

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            now = monotonic()
            with self._lock:
                for watched in [each for each, deadline in self._deadlines.items() if deadline <= now]:
                    del self._deadlines[watched]
                    with suppress(OSError):
                        watched.shutdown(socket.SHUT_RDWR)
                    watched.close()  # and so marked as cut


def _info(waiting: ManagesConnection) -> dict[str, socket.socket]:
    """What is kept with a connection's place in the pool: `info` is not there yet while a connection is being made."""
    info = waiting.record_info
    return {} if info is None else info
