"""Users over HTTP: an organization's people, with what they may do now."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field, JsonValue
from sqlalchemy.orm import Session

from provisioning.api.dependencies import RESOLVING, OrganizationId, QueryText, ServicesDep, UserId, requires
from provisioning.api.paging import Cursor, Found, Limit, Page, found, place_of
from provisioning.api.problems import responses
from provisioning.api.shapes import Shape
from provisioning.db.reading import users as reading

router = APIRouter(
    prefix="/v1/organizations/{organization_id}/users",
    tags=["Users"],
    dependencies=[Depends(requires("read"))],
    responses=responses(*RESOLVING),
)


class GroupOfUser(Shape):
    """A group that a user is in."""

    id: Annotated[str, Field(examples=["dirgroup_91263908563290112"])]
    name: Annotated[str | None, Field(description="Null until it is known.", examples=["Engineering"])]


class DirectoryUserOfUser(Shape):
    """A directory user behind a user, as its directory says."""

    id: Annotated[str, Field(examples=["diruser_70687244567806212"])]
    external_id: Annotated[str | None, Field(description="The upstream id, Scalekit's `dp_id`.", examples=["00u4l2u8q9Xk2cJ5d696"])]
    directory_id: Annotated[str | None, Field(description="Known once a reconcile saw it there.", examples=["dir_45612890123456789"])]
    email: Annotated[str | None, Field(examples=["ada@example.com"])]
    active: bool
    deleted: bool


class User(Shape):
    """An account of the application. Identity is `id`; an e-mail may be missing, change, or be given to somebody else."""

    id: Annotated[str, Field(description="Ours, stable.", examples=["usr_5d1f7c0a9b3e4f60"])]
    organization_id: Annotated[str, Field(examples=["org_83543878963298576"])]
    application_id: Annotated[str | None, Field(description="What the application calls this user.", examples=["42"])]
    email: Annotated[str | None, Field(examples=["ada@example.com"])]
    name: Annotated[str | None, Field(examples=["Ada Lovelace"])]
    given_name: Annotated[str | None, Field(examples=["Ada"])]
    family_name: Annotated[str | None, Field(examples=["Lovelace"])]
    preferred_username: Annotated[str | None, Field(examples=["ada"])]
    active: Annotated[bool, Field(description="Whether this person may be let in.")]
    groups: Annotated[list[GroupOfUser], Field(description="Sorted by id; empty while inactive.")]
    roles: Annotated[list[str], Field(description="Sorted; empty while inactive.", examples=[["admin", "member"]])]
    attributes: Annotated[dict[str, JsonValue], Field(description="What else the directory says.", examples=[{"department": "Engines"}])]
    directory_users: Annotated[list[DirectoryUserOfUser], Field(description="Who stands behind this user, sorted by id.")]
    created_at: Annotated[datetime, Field(examples=["2026-11-22T09:30:00Z"])]
    updated_at: Annotated[datetime, Field(description="Moves only when something changed.", examples=["2026-11-22T09:30:00Z"])]
    deactivated_at: Annotated[datetime | None, Field(examples=[None])]


@router.get("", response_model=Page[User], summary="List users", responses=responses(401, 403, 422, 503))
def list_users(
    organization_id: OrganizationId,
    parts: ServicesDep,
    email: Annotated[QueryText | None, Query(description="Compared without regard to case.", examples=["ada@example.com"])] = None,
    active: bool | None = None,
    group_id: Annotated[QueryText | None, Query(description="Active users who are in this group.")] = None,
    role: Annotated[QueryText | None, Query(description="Active users who have this role.")] = None,
    directory_user_id: Annotated[QueryText | None, Query(description="The user that this directory user stands behind.")] = None,
    application_id: Annotated[QueryText | None, Query(description="The user that the application calls so.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Found[reading.User]:
    """The organization's users in the order of their ids; with several filters, those that match all of them."""
    wanted = reading.UserFilter(email, active, group_id, role, directory_user_id, application_id)
    with parts.database.reading() as session:
        return page_of_users(session, organization_id, wanted, limit=limit, cursor=cursor)


@router.get("/{user_id}", response_model=User, summary="Get a user", responses=responses(401, 403, 404, 422, 503))
def get_user(organization_id: OrganizationId, user_id: UserId, parts: ServicesDep) -> reading.User:
    """One user, active or not."""
    with parts.database.reading() as session:
        return reading.one_user(session, organization_id, user_id)


def page_of_users(
    session: Session, organization_id: str, wanted: reading.UserFilter, *, limit: int, cursor: str | None
) -> Found[reading.User]:
    """Return a page of the users that match. Raises InvalidCursor."""
    users = reading.page_of_users(session, organization_id, wanted, after=place_of("users", cursor), limit=limit + 1)
    return found("users", users, limit, lambda user: user.id)
