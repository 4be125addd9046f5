"""Runs migrations in one transaction, one replica at a time, on the database that the settings name."""

from alembic import context

from provisioning.db.models import metadata
from provisioning.db.session import make_engine
from provisioning.settings import load_settings

LOCK = 7_405_163_001  # any number that nothing else in the database uses


def offline(url: str) -> None:
    """Print the SQL instead of running it (`alembic upgrade head --sql`)."""
    options = {"paramstyle": "named"}
    context.configure(url=url, target_metadata=metadata, transactional_ddl=True, literal_binds=True, dialect_opts=options)
    migrate()


def online(url: str) -> None:
    """Run it."""
    engine = make_engine(url).execution_options(begin="migrate")
    try:
        with engine.connect() as connection, connection.begin():
            context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=True)
            migrate()
    finally:
        engine.dispose()


def migrate() -> None:
    """Whoever comes second waits for the lock, and then finds nothing left to do. On SQLite the transaction itself is the lock."""
    with context.begin_transaction():
        if context.get_context().dialect.name == "postgresql":
            context.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
            # Rather fail than make every query of the service queue behind a waiting ALTER TABLE.
            context.execute("SET LOCAL lock_timeout = '5s'")
        context.run_migrations()


url = context.config.attributes.get("url") or load_settings().database_url.get_secret_value()
offline(url) if context.is_offline_mode() else online(url)
