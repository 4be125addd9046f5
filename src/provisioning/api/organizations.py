"""Organizations over HTTP: which ones are known here, and how fresh what is known of them is."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from provisioning.api.dependencies import ServicesDep, requires
from provisioning.api.paging import Cursor, Limit, Page, found, place_of
from provisioning.api.problems import responses
from provisioning.api.shapes import Shape
from provisioning.db.reading import organizations as reading
from provisioning.events import rfc3339

router = APIRouter(prefix="/v1/organizations", tags=["Organizations"], dependencies=[Depends(requires("read"))])


class Organization(Shape):
    """A customer."""

    id: Annotated[str, Field(examples=["org_83543878963298576"])]
    external_id: Annotated[
        str | None, Field(description="What you call it, if you told Scalekit: it answers to `ext:` and this, too.", examples=["acme"])
    ]
    active_users: Annotated[int, Field(examples=[412])]
    complete_as_of: Annotated[
        str | None,
        Field(
            description="When the directory was last read whole; null: never.",
            examples=["2026-11-22T09:00:00Z"],
            json_schema_extra={"format": "date-time"},
        ),
    ]
    last_event_at: Annotated[
        datetime | None, Field(description="When its last event was received here.", examples=["2026-11-22T09:30:00Z"])
    ]


@router.get("", summary="List organizations", responses=responses(401, 403, 422, 503))
def list_organizations(parts: ServicesDep, limit: Limit = 50, cursor: Cursor = None) -> Page[Organization]:
    """The organizations that an event or a reconcile named, in the order of their ids."""
    after = place_of("organizations", cursor)
    with parts.database.reading() as session:
        rows = reading.page_of_organizations(session, after=after, limit=limit + 1)
    page = found("organizations", rows, limit, lambda organization: organization.id)
    return Page(data=[_shown(each) for each in page.data], next_cursor=page.next_cursor)


def _shown(row: reading.Organization) -> Organization:
    complete_as_of = rfc3339(row.complete_as_of) if row.complete_as_of is not None else None
    return Organization(
        id=row.id,
        external_id=row.external_id,
        active_users=row.active_users,
        complete_as_of=complete_as_of,
        last_event_at=row.last_event_at,
    )
