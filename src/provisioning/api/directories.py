"""Directories over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from provisioning.api.dependencies import RESOLVING, OrganizationId, ServicesDep, requires
from provisioning.api.paging import Cursor, Found, Limit, Page, found, place_of
from provisioning.api.problems import responses
from provisioning.api.shapes import Shape
from provisioning.db.reading import directories as reading

router = APIRouter(
    prefix="/v1/organizations/{organization_id}/directories",
    tags=["Directories"],
    dependencies=[Depends(requires("read"))],
    responses=responses(*RESOLVING),
)


class Directory(Shape):
    """A customer's directory, as far as events and reconciles told of it."""

    id: Annotated[str, Field(examples=["dir_45612890123456789"])]
    organization_id: Annotated[str, Field(examples=["org_83543878963298576"])]
    provider: Annotated[str | None, Field(examples=["OKTA"])]
    type: Annotated[str | None, Field(examples=["SCIM"])]
    enabled: bool
    updated_at: Annotated[datetime, Field(examples=["2026-11-22T09:30:00Z"])]


@router.get("", response_model=Page[Directory], summary="List directories", responses=responses(401, 403, 422, 503))
def list_directories(
    organization_id: OrganizationId, parts: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> Found[reading.Directory]:
    """The organization's directories in the order of their ids."""
    after = place_of("directories", cursor)
    with parts.database.reading() as session:
        directories = reading.page_of_directories(session, organization_id, after=after, limit=limit + 1)
    return found("directories", directories, limit, lambda directory: directory.id)
