"""Organizations as a batch enters them: under a shared lock, and with the mark below which events are stale."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from provisioning.db import locks
from provisioning.db.models import organizations
from provisioning.db.repository import Repository

_ORGANIZATIONS = Repository(organizations)


def enter(session: Session, alone: Mapping[str, bool], now: datetime) -> dict[str, int | None]:
    """The mark (nanoseconds since 1970) of each of these organizations, which are known from now on.

    Batches share an organization; whoever sets its mark, or changes what counts for everybody in it, holds it alone (the value true).
    """
    locks.share(session, {("organization", organization): held for organization, held in alone.items()})
    ids = [(organization,) for organization in alone]
    found = _ORGANIZATIONS.read(session, ids)
    _ORGANIZATIONS.insert(session, ({"id": id_, "created_at": now} for (id_,) in ids if (id_,) not in found))
    return {id_: found[id_,]["complete_as_of"] if (id_,) in found else None for (id_,) in ids}
