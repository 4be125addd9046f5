"""Runs migrations in one transaction, one replica at a time, on the database that the settings name."""

from alembic import context
from provisioning.settings import load_settings
from sqlalchemy import text

from provisioning.db.models import metadata
from provisioning.db.session import make_engine

LOCK = 7_405_163_001  # any number that nothing else in the database uses


def offline(url: str) -> None:
    """Print the SQL instead of running it (`alembic upgrade head --sql`)."""
    context.configure(url=url, target_metadata=metadata, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()


def online(url: str) -> None:
    """Migrate; whoever comes second waits here, and then finds nothing left to do."""
    engine = make_engine(url).execution_options(begin="migrate")
    with engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            # Rather fail than make every query of the service queue behind a waiting ALTER TABLE.
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


url = context.config.attributes.get("url") or load_settings().database_url.get_secret_value()
offline(url) if context.is_offline_mode() else online(url)
