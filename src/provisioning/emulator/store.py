"""Keeps records between two starts: each as JSON, under its kind and id, in one SQLite file."""

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from provisioning.emulator.records import Record
from provisioning.errors import ConfigurationError

R = TypeVar("R", bound=Record)


class Store:
    """The records of one emulator; without a `file` they end with it. Safe to use from any thread."""

    def __init__(self, file: Path | None = None) -> None:
        """Raises ConfigurationError when the file is none of ours."""
        self._file = file
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(file or ":memory:", check_same_thread=False, isolation_level=None)
        try:
            # What the system loses when it crashes is a toy company's: nobody waits for a disk here.
            self._connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
                "CREATE TABLE IF NOT EXISTS records (kind TEXT, id TEXT, body TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID;"
            )
        except sqlite3.DatabaseError as error:
            raise self._unreadable() from error

    def load(self, kind: type[R]) -> list[R]:
        """All of a kind, by id. Raises ConfigurationError when another release wrote them otherwise."""
        with self._lock:
            rows = self._connection.execute("SELECT body FROM records WHERE kind = ? ORDER BY id", (kind.__name__,)).fetchall()
        try:
            return [kind.model_validate_json(body) for (body,) in rows]
        except ValidationError as error:
            raise self._unreadable() from error

    def save(self, put: Iterable[Record], drop: Iterable[Record] = ()) -> None:
        """Put records in or over their like, and drop others: all of it or nothing."""
        putting = [(type(record).__name__, record.id, record.model_dump_json()) for record in put]
        dropping = [(type(record).__name__, record.id) for record in drop]
        with self._lock, self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", putting)
            self._connection.executemany("DELETE FROM records WHERE kind = ? AND id = ?", dropping)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def _unreadable(self) -> ConfigurationError:
        return ConfigurationError(f"{self._file} is not what this release of the emulator keeps: remove its folder, or ./run --fresh.")
