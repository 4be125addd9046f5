"""Histories over HTTP: what happened to a user or a group, newest first."""

from collections.abc import Callable

from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session

from provisioning.api.changes import Change, change_id, shown
from provisioning.api.changes import place_of as place_of_change
from provisioning.api.dependencies import RESOLVING, GroupId, OrganizationId, ServicesDep, UserId, requires
from provisioning.api.paging import Cursor, Limit, Page, found, place_of
from provisioning.api.problems import responses
from provisioning.db.reading.changes import StoredChange, history_of_group, history_of_user
from provisioning.db.reading.groups import require_group
from provisioning.db.reading.users import require_user

router = APIRouter(prefix="/v1/organizations/{organization_id}", dependencies=[Depends(requires("read"))], responses=responses(*RESOLVING))

_END = 2**63 - 1  # no position is behind it


@router.get("/users/{user_id}/history", summary="Get a user's history", tags=["Users"], responses=responses(401, 403, 404, 422, 503))
def get_user_history(
    organization_id: OrganizationId, user_id: UserId, parts: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[Change]:
    """What became of a user, with its groups and roles, newest first, as far back as changes are kept."""
    with parts.database.reading() as session:
        return user_history(session, organization_id, user_id, limit=limit, cursor=cursor)


@router.get("/groups/{group_id}/history", summary="Get a group's history", tags=["Groups"], responses=responses(401, 403, 404, 422, 503))
def get_group_history(
    organization_id: OrganizationId, group_id: GroupId, parts: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[Change]:
    """What became of a group, and who came and went, newest first, as far back as changes are kept."""
    with parts.database.reading() as session:
        return group_history(session, organization_id, group_id, limit=limit, cursor=cursor)


def user_history(session: Session, organization_id: str, user_id: str, *, limit: int, cursor: str | None = None) -> Page[Change]:
    """Return a page of a user's history. Raises NotFound, InvalidCursor."""
    require_user(session, organization_id, user_id)
    return _page(lambda before: history_of_user(session, organization_id, user_id, before=before, limit=limit + 1), limit, cursor)


def group_history(session: Session, organization_id: str, group_id: str, *, limit: int, cursor: str | None = None) -> Page[Change]:
    """The same of a group."""
    require_group(session, organization_id, group_id)
    return _page(lambda before: history_of_group(session, organization_id, group_id, before=before, limit=limit + 1), limit, cursor)


def _page(read: Callable[[int], list[StoredChange]], limit: int, cursor: str | None) -> Page[Change]:
    place = place_of("history", cursor)
    page = found("history", read(place_of_change(place).position if place else _END), limit, lambda change: change_id(change.place))
    return Page(data=[shown(change) for change in page.data], next_cursor=page.next_cursor)
