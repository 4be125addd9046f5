"""An organization's directories, and how far behind each of them this service is."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from provisioning.api.admin.asked import PER_PAGE, AskedList
from provisioning.api.admin.organizations import require_organization
from provisioning.api.admin.pages import ROOT, at, page
from provisioning.api.admin.route import OperatorPage
from provisioning.api.dependencies import OrganizationId, ServicesDep
from provisioning.api.paging import found, place_of
from provisioning.db import organizations
from provisioning.db.reading.directories import last_heard, page_of_directories

router = APIRouter(prefix=f"{ROOT}/organizations/{{organization_id}}/directories", route_class=OperatorPage)


@router.get("")
def list_directories(
    request: Request, parts: ServicesDep, organization_id: OrganizationId, asked: Annotated[AskedList, Query()]
) -> Response:
    """In the order of their ids, with the newest event of each."""
    after = place_of("directories", asked.cursor)
    with parts.database.reading() as session:
        require_organization(session, organization_id)
        rows = page_of_directories(session, organization_id, after=after, limit=PER_PAGE + 1)
        heard = last_heard(session, organization_id)
        mark = organizations.mark(session, organization_id)
    directories = found("directories", rows, PER_PAGE, lambda directory: directory.id)
    here = ("organizations", organization_id, "directories")
    return page(
        request,
        "directories.html",
        organization_id=organization_id,
        directories=directories.data,
        heard=heard,
        complete_as_of=mark.complete_as_of,
        following=directories.next_cursor and at(*here, cursor=directories.next_cursor),
    )
