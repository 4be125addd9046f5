"""Brings the database to this release's tables, and says from where to where."""

from contextlib import closing

import typer
from alembic.runtime.migration import MigrationContext

from provisioning.db import migrations
from provisioning.db.session import Database
from provisioning.settings import load_settings


def migrate() -> None:
    """Run the migrations that are missing. Raises ConfigurationError, Unavailable."""
    typer.echo(migrated(load_settings().database_url.get_secret_value()))


def migrated(url: str) -> str:
    """Migrate the database at `url` and return a line that says what that took. Raises Unavailable."""
    before, to_do = _look(url)
    if to_do is None:
        return f"Nothing to do: the database is at {before}."
    migrations.upgrade(url)
    after, _ = _look(url)
    return f"Migrated the database from {before or 'empty'} to {after}."


def _look(url: str) -> tuple[str | None, str | None]:
    """The database's revision, and what there is to do."""
    with closing(Database(url)) as database, database.reading() as session:
        return MigrationContext.configure(session.connection()).get_current_revision(), migrations.state(session)
