"""Fresh databases for single tests, on both kinds of server. The migrations run once a session; a test gets a copy of their result."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier

from provisioning.db.migrations import upgrade


class Databases(Protocol):
    """Makes databases that nothing else uses, each gone when its context ends."""

    def fresh(self, *, migrated: bool) -> AbstractContextManager[str]:
        """Yield the URL of a new database: with this release's tables, or empty."""


class SqliteDatabases:
    """Databases that are files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def fresh(self, *, migrated: bool) -> Iterator[str]:
        file = self._folder / f"{uuid4().hex}.db"
        if migrated:
            _copy(self._template, file)
        yield _sqlite_url(file)
        for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
            (self._folder / name).unlink(missing_ok=True)

    @cached_property
    def _template(self) -> Path:
        file = self._folder / "template.db"
        upgrade(_sqlite_url(file))
        return file


class PostgresDatabases:
    """Databases on the server at `server_url`, whose user may create some. Use it as a context: it owns a connection and a template."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def fresh(self, *, migrated: bool) -> Iterator[str]:
        with self._copy_of(self._template if migrated else "template0") as name:
            yield self._url(name)

    @cached_property
    def _template(self) -> str:
        name = self._stack.enter_context(self._copy_of("template0"))
        upgrade(self._url(name))
        return name

    @cached_property
    def _admin(self) -> psycopg.Connection:
        return self._stack.enter_context(psycopg.connect(self._server_url, autocommit=True))

    @contextmanager
    def _copy_of(self, template: str) -> Iterator[str]:
        name = f"provisioning_test_{uuid4().hex}"
        self._admin.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template)))
        try:
            yield name
        finally:
            self._admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def _url(self, name: str) -> str:
        return urlsplit(self._server_url)._replace(path=f"/{name}").geturl()


def _sqlite_url(file: Path) -> str:
    return f"sqlite:///{file}"


def _copy(source: Path, target: Path) -> None:
    # Not a copy of the file: what lies in a write-ahead log beside it would be missing.
    with closing(sqlite3.connect(source)) as template, closing(sqlite3.connect(target)) as copy:
        template.backup(copy)
