"""The database as commands use it: migrated, or with a word that says what to do."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from structlog import get_logger

from provisioning.db import migrations
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError, Unavailable
from provisioning.settings import Settings

_log = get_logger(__name__)


@contextmanager
def opened(settings: Settings, *, writers: int = 4, readers: int = 8) -> Iterator[Database]:
    """The database, migrated. Raises ConfigurationError, Unavailable."""
    with closing(Database(settings.database_url.get_secret_value(), writers=writers, readers=readers)) as database:
        if to_do := _to_do(database):
            raise ConfigurationError(to_do)
        yield database


def warn_unless_migrated(settings: Settings) -> None:
    """Say it in the log. It keeps nobody from starting: a migration can come, the database come back."""
    try:
        with closing(Database(settings.database_url.get_secret_value())) as database:
            to_do = _to_do(database)
    except Unavailable as error:
        to_do = str(error)
    if to_do:
        _log.warning("not_ready", reason=to_do)


def _to_do(database: Database) -> str | None:
    with database.reading() as session:
        return migrations.state(session)
