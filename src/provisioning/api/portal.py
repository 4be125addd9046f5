"""Portal links over HTTP: a fresh one for every page load, given to the caller alone and never kept on the way.

The one endpoint that browsers call, from the origins of PROVISIONING_ALLOWED_ORIGINS (api/cors.py).
"""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import ConfigDict, Field

from provisioning.api.dependencies import RESOLVING, Caller, PortalRoute, ScalekitOrganizationId, ServicesDep, portal_caller
from provisioning.api.problems import SENDING, responses
from provisioning.api.shapes import Shape
from provisioning.directory import Feature
from provisioning.portal import make_link

PATH = "/v1/organizations/{organization_id}/portal-links"

router = APIRouter(tags=["Admin portal"], route_class=PortalRoute)


class PortalLinkRequest(Shape):
    """What the link is for."""

    model_config = ConfigDict(extra="forbid")

    features: Annotated[
        tuple[Feature, ...],
        Field(max_length=len(Feature), description="What may be configured; without any, Scalekit decides.", examples=[["dir_sync"]]),
    ] = ()


class PortalLinkResponse(Shape):
    """A credential: whoever holds it can change the organization's login. It opens once, within a minute."""

    id: Annotated[str, Field(examples=["5b9d8a1c-6f0e-4d0a-9c55-3f1a0a9f7f10"])]
    location: Annotated[
        str,
        Field(
            description='For the `src` of an iframe with `allow="clipboard-write"`.',
            examples=["https://acme.scalekit.com/magicLink/5b9d8a1c-6f0e-4d0a-9c55-3f1a0a9f7f10"],
        ),
    ]
    expires_at: Annotated[datetime, Field(examples=["2026-11-22T09:31:00Z"])]


@router.post(
    PATH,
    status_code=201,
    summary="Make a portal link",
    response_description="The link. `Cache-Control: no-store`.",
    responses=responses(401, 403, 422, *RESOLVING, *SENDING),
)
async def make_portal_link(
    organization_id: ScalekitOrganizationId,
    parts: ServicesDep,
    caller: Annotated[Caller, Depends(portal_caller)],
    response: Response,
    asked: PortalLinkRequest | None = None,
) -> PortalLinkResponse:
    """Make a link that lets the organization's IT admin configure SSO and SCIM.

    For an API key with the scope `portal`, or a visitor's own token that names this organization and one of `PROVISIONING_PORTAL_ROLES`.
    """
    link = await make_link(
        parts.scalekit,
        origins=parts.settings.portal_origins,
        caller=caller.name,
        organization_id=organization_id,
        features=asked.features if asked else (),
    )
    response.headers["Cache-Control"] = "no-store"
    return PortalLinkResponse(id=link.id, location=link.location, expires_at=link.expires_at)
