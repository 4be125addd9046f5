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
from sqlalchemy.pool import ConnectionPoolEntry

_LOOK_SECONDS = 0.2


class Watchdog:
    """Watches the connections of an engine from one daemon thread, which starts with the first connection."""

    def __init__(self, seconds: float) -> None:
        """Cut a connection that has waited longer than `seconds`, within another 0.2 s."""
        self._seconds = seconds
        self._deadlines: dict[socket.socket, float] = {}
        self._lock = Lock()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="database-watchdog", daemon=True)

    def guard(self, engine: Engine) -> None:
        """Watch every connection of `engine` from now on."""
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "close", self._closed)
        event.listen(engine, "checkin", lambda _, entry: self._answered(entry.info))
        event.listen(engine, "before_cursor_execute", self._asked)
        event.listen(engine, "after_cursor_execute", lambda connection, *_: self._answered(connection.info))
        event.listen(engine, "handle_error", self._failed)
        event.listen(engine, "commit", self._asked)
        event.listen(engine, "rollback", self._asked)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _connected(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        # A duplicate of the descriptor: the number itself could belong to another socket by the time it is cut.
        entry.info["watched"] = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()

    def _closed(self, _: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        self._answered(entry.info)
        if watched := entry.info.pop("watched", None):
            watched.close()

    def _asked(self, connection: Connection, *_: object) -> None:
        if watched := connection.info.get("watched"):
            with self._lock:
                self._deadlines[watched] = monotonic() + self._seconds

    def _answered(self, info: dict[str, socket.socket]) -> None:
        if watched := info.get("watched"):
            with self._lock:
                self._deadlines.pop(watched, None)

    def _failed(self, context: ExceptionContext) -> None:
        # An invalidated connection has no record of its own left to look into; `close` has seen to it.
        if context.connection is not None and not context.connection.invalidated:
            self._answered(context.connection.info)

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            now = monotonic()
            with self._lock:
                for watched in [each for each, deadline in self._deadlines.items() if deadline <= now]:
                    del self._deadlines[watched]
                    with suppress(OSError):
                        watched.shutdown(socket.SHUT_RDWR)
