"""What a PostgreSQL's settings make of a commit."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Durability:
    """The settings as they are for this service's own sessions; `read_only`: it is a standby."""

    fsync: str
    full_page_writes: str
    synchronous_commit: str
    synchronous_standbys: bool
    read_only: bool


def durability(session: Session) -> Durability:
    """Return them, of a PostgreSQL."""
    return Durability(**session.execute(_SETTINGS).mappings().one())


_SETTINGS = text(
    "SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,"
    " current_setting('synchronous_commit') AS synchronous_commit,"
    " current_setting('synchronous_standby_names') <> '' AS synchronous_standbys, pg_is_in_recovery() AS read_only"
)
