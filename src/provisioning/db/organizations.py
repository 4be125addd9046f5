"""Organizations as a batch enters them: under a shared lock, and with the mark below which events are stale. And what they are called."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import JSON, bindparam, case, exists, or_, select, update
from sqlalchemy.orm import Session

from provisioning.db import locks
from provisioning.db.models import Name, directories, organizations
from provisioning.db.prepared import Prepared
from provisioning.db.repository import Repository, as_keys, keys
from provisioning.merge import Key

_ORGANIZATIONS = Repository(organizations)
_id = organizations.c.id == bindparam("its_id")
_MARK = select(organizations.c.complete_as_of, organizations.c.mapped_roles).where(_id)
_SET_MARK = update(organizations).where(_id).values(complete_as_of=bindparam("mark"))
_SET_ROLES = update(organizations).where(_id).values(mapped_roles=bindparam("mapped_roles", type_=JSON))

_wanted = keys("id")
_ENTER = Prepared(
    select(organizations.c.id, organizations.c.complete_as_of, organizations.c.has_erased, directories.c.id)
    .join(_wanted, organizations.c.id == _wanted.c.id)
    .outerjoin(directories, (directories.c.organization_id == organizations.c.id) & ~directories.c.enabled)
)

_called = bindparam("external_id", type_=Name)
_BY_EXTERNAL_ID = select(organizations.c.id).where(organizations.c.external_id == _called)
_EXTERNAL_ID = select(organizations.c.external_id).where(_id)
_others = organizations.alias()
_SET_EXTERNAL_ID = (
    update(organizations)
    .where(
        or_(_id, organizations.c.external_id == _called),
        ~exists().where(
            or_(_others.c.id == bindparam("its_id"), _others.c.external_id == _called), _others.c.external_id_at > bindparam("at")
        ),
    )
    .values(external_id=case((_id, _called)), external_id_at=bindparam("at"))
)


@dataclass(frozen=True, slots=True)
class Mark:
    """How complete an organization is: `complete_as_of` in nanoseconds since 1970; by directory, the roles mapped at the last run."""

    complete_as_of: int | None = None
    mapped_roles: Mapping[str, list[str]] | None = None


@dataclass(slots=True)
class Entered:
    """An organization that a batch has entered: its mark, in nanoseconds since 1970, whether somebody of it was erased, and its disabled
    directories.
    """

    complete_as_of: int | None = None
    has_erased: bool = False
    disabled: set[Key] = field(default_factory=set)


def enter(session: Session, alone: Mapping[str, bool], now: datetime) -> dict[str, Entered]:
    """Each of these organizations, which are known from now on.

    Batches share an organization; whoever sets its mark, or changes what counts for everybody in it, holds it alone (the value true).
    """
    hold(session, alone)
    found: dict[str, Entered] = {}
    for id_, complete_as_of, has_erased, disabled in _ENTER.rows(session, as_keys((id_,) for id_ in alone)):
        entered = found.setdefault(id_, Entered(complete_as_of, bool(has_erased)))
        if disabled is not None:
            entered.disabled.add(Key(id_, disabled))
    new = alone.keys() - found.keys()
    _ORGANIZATIONS.insert(session, ({"id": id_, "created_at": now} for id_ in new))
    return found | {id_: Entered() for id_ in new}


def hold(session: Session, alone: Mapping[str, bool]) -> None:
    """Hold these organizations until the transaction ends, as `enter` does, known or not."""
    locks.share(session, {("organization", organization): held for organization, held in alone.items()})


def know(session: Session, organization_id: str, now: datetime) -> None:
    """The organization is known from now on."""
    _ORGANIZATIONS.insert(session, [{"id": organization_id, "created_at": now}])


def known(session: Session, organization_id: str) -> bool:
    """Whether anything is known of the organization."""
    return session.execute(_MARK, {"its_id": organization_id}).one_or_none() is not None


def unknown(session: Session, organization_ids: Collection[str]) -> set[str]:
    """Those of these organizations of which nothing is known."""
    found = _ORGANIZATIONS.read(session, ((each,) for each in organization_ids))
    return {each for each in organization_ids if (each,) not in found}


def mark(session: Session, organization_id: str) -> Mark:
    """The organization's mark; an empty one where nothing is known of it."""
    row = session.execute(_MARK, {"its_id": organization_id}).one_or_none()
    return Mark(row.complete_as_of, row.mapped_roles) if row else Mark()


def set_mark(session: Session, organization_id: str, complete_as_of: int) -> None:
    """Set the mark of an organization that was entered alone. It never moves back."""
    session.execute(_SET_MARK, {"its_id": organization_id, "mark": complete_as_of})


def set_mapped_roles(session: Session, organization_id: str, mapped_roles: Mapping[str, list[str]]) -> None:
    """Remember them of an organization that is known."""
    session.execute(_SET_ROLES, {"its_id": organization_id, "mapped_roles": dict(mapped_roles)})


def by_external_id(session: Session, external_id: str) -> str | None:
    """Whose external id this is."""
    return session.execute(_BY_EXTERNAL_ID, {"external_id": external_id}).scalar_one_or_none()


def external_id(session: Session, organization_id: str) -> str | None:
    """What the application calls it, as far as is known."""
    return session.execute(_EXTERNAL_ID, {"its_id": organization_id}).scalar_one_or_none()


def set_external_id(session: Session, organization_id: str, external_id: str | None, at: datetime) -> None:
    """Remember what Scalekit said when it was asked at `at`, unless something newer was said of either; no other has this id any more.

    The organization is known from now on.
    """
    locks.hold(session, [("external ids",)])  # one at a time: two who give one id to two organizations would not see each other
    know(session, organization_id, at)
    session.execute(_SET_EXTERNAL_ID, {"its_id": organization_id, "external_id": external_id, "at": at})
