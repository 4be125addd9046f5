"""Brings the database to this release's tables, and says from where to where."""

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
    before = _revision(url)
    migrations.upgrade(url)
    after = _revision(url)
    if before == after:
        return f"Nothing to do: the database is at {after}."
    return f"Migrated the database from {before or 'empty'} to {after}."


def _revision(url: str) -> str | None:
    database = Database(url, pool_size=1)
    try:
        with database.reading() as session:
            return MigrationContext.configure(session.connection()).get_current_revision()
    finally:
        database.close()
