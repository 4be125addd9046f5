"""Bringing a database to this release's tables, from any number of replicas at once, and telling whether it is there."""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, String, Table, inspect, select
from sqlalchemy.orm import Session

from provisioning.db.session import Contended, named_failures
from provisioning.errors import Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String))  # as Alembic makes it

# In a wheel the scripts lie inside the package, in a checkout beside `src`.
_PLACES = (Path(__file__).parents[1] / "migrations", Path(__file__).parents[3] / "migrations")
_NAMED = re.compile(r'^(revision|down_revision) = "(\w+)"$', re.MULTILINE)


def upgrade(url: str, revision: str = "head") -> None:
    """Run the migrations that are missing in the database at `url`; a second replica waits for the first and finds nothing to do.

    Raises Unavailable; the database is as it was then.
    """
    from alembic import command  # noqa: PLC0415  # 7 MB, which a service that only asks for the `state` need not carry

    try:
        with named_failures():
            command.upgrade(config(url), revision)
    except Contended as error:
        raise Unavailable from error


def config(url: str) -> "Config":
    """Alembic's configuration for the database at `url`."""
    from alembic.config import Config  # noqa: PLC0415  # as above

    result = Config()
    result.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    result.attributes["url"] = url
    return result


def state(session: Session) -> str | None:
    """Return None when the database is migrated, else a line that says what to do.

    A revision that this release does not know is a newer one's, which has migrated already: it counts as migrated.
    """
    versioned = inspect(session.connection()).has_table(_VERSION.name)
    current = session.scalar(select(_VERSION.c.version_num)) if versioned else None
    head, known = _revisions()
    if current == head or (current is not None and current not in known):
        return None
    return f"The database is at {current or 'no revision'}, this release needs {head}: run `provisioning migrate`."


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The newest, and all of them: as the scripts say, without Alembic."""
    named = [each for script in _scripts().glob("versions/*.py") for each in _NAMED.findall(script.read_text(encoding="utf-8"))]
    known = frozenset(name for what, name in named if what == "revision")
    [head] = known.difference(name for what, name in named if what == "down_revision")
    return head, known


@cache
def _scripts() -> Path:
    return next(place for place in _PLACES if (place / "env.py").exists())
