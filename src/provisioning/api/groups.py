"""Groups over HTTP, and who is in them."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from provisioning.api.dependencies import RESOLVING, GroupId, OrganizationId, ServicesDep, requires
from provisioning.api.paging import Cursor, Found, Limit, Page, found, place_of
from provisioning.api.problems import responses
from provisioning.api.shapes import Shape
from provisioning.api.users import User, page_of_users
from provisioning.db.reading import groups as reading
from provisioning.db.reading.users import User as StoredUser
from provisioning.db.reading.users import UserFilter

router = APIRouter(
    prefix="/v1/organizations/{organization_id}/groups",
    tags=["Groups"],
    dependencies=[Depends(requires("read"))],
    responses=responses(*RESOLVING),
)


class Group(Shape):
    """A directory's group."""

    id: Annotated[str, Field(examples=["dirgroup_91263908563290112"])]
    organization_id: Annotated[str, Field(examples=["org_83543878963298576"])]
    name: Annotated[str | None, Field(description="Null until it is known.", examples=["Engineering"])]
    external_id: Annotated[str | None, Field(description="The upstream id.", examples=["00g1a2b3c4D5e6F7g8h9"])]
    directory_id: Annotated[str | None, Field(examples=["dir_45612890123456789"])]
    deleted: bool
    member_count: Annotated[int, Field(description="Active users in it; 0 when it is deleted.", examples=[12])]
    created_at: Annotated[datetime, Field(examples=["2026-11-22T09:30:00Z"])]
    updated_at: Annotated[datetime, Field(examples=["2026-11-22T09:30:00Z"])]


@router.get("", response_model=Page[Group], summary="List groups", responses=responses(401, 403, 422, 503))
def list_groups(
    organization_id: OrganizationId,
    parts: ServicesDep,
    include_deleted: Annotated[bool, Query(description="Also those that the directory deleted.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Found[reading.Group]:
    """The organization's groups in the order of their ids."""
    after = place_of("groups", cursor)
    with parts.database.reading() as session:
        groups = reading.page_of_groups(session, organization_id, include_deleted=include_deleted, after=after, limit=limit + 1)
    return found("groups", groups, limit, lambda group: group.id)


@router.get("/{group_id}", response_model=Group, summary="Get a group", responses=responses(401, 403, 404, 422, 503))
def get_group(organization_id: OrganizationId, group_id: GroupId, parts: ServicesDep) -> reading.Group:
    """One group, deleted or not."""
    with parts.database.reading() as session:
        return reading.one_group(session, organization_id, group_id)


@router.get(
    "/{group_id}/members", response_model=Page[User], summary="List a group's members", responses=responses(401, 403, 404, 422, 503)
)
def list_members(
    organization_id: OrganizationId, group_id: GroupId, parts: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> Found[StoredUser]:
    """The active users who are in this group, in the order of their ids; nobody is in a deleted one."""
    with parts.database.reading() as session:
        reading.require_group(session, organization_id, group_id)
        return page_of_users(session, organization_id, UserFilter(group_id=group_id), limit=limit, cursor=cursor)
