"""The organizations known here."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from provisioning.api.admin.asked import PER_PAGE, AskedList, Text
from provisioning.api.admin.pages import ROOT, at, page, see
from provisioning.api.admin.route import OperatorPage
from provisioning.api.dependencies import ServicesDep
from provisioning.api.paging import Found, found, place_of
from provisioning.db import organizations
from provisioning.db.reading.organizations import Organization, page_of_organizations
from provisioning.errors import NotFound

router = APIRouter(prefix=ROOT, route_class=OperatorPage)


class AskedOrganizations(AskedList):
    """All of them, or the one with this id."""

    id: Text = None


@router.get("/organizations")
def list_organizations(request: Request, parts: ServicesDep, asked: Annotated[AskedOrganizations, Query()]) -> Response:
    """In the order of their ids."""
    if asked.id:
        return see(at("organizations", asked.id))
    with parts.database.reading() as session:
        listed = some_organizations(session, asked.cursor)
    following = listed.next_cursor and at("organizations", cursor=listed.next_cursor)
    return page(request, "organizations.html", organizations=listed.data, first=asked.cursor is None, following=following)


def some_organizations(session: Session, cursor: str | None, limit: int = PER_PAGE) -> Found[Organization]:
    """A page of them. Raises InvalidCursor."""
    rows = page_of_organizations(session, after=place_of("organizations", cursor), limit=limit + 1)
    return found("organizations", rows, limit, lambda organization: organization.id)


def require_organization(session: Session, organization_id: str) -> None:
    """Raise NotFound where nothing is known of the organization."""
    if not organizations.known(session, organization_id):
        raise NotFound("Nothing is known of this organization.")
