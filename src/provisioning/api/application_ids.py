"""The application's own ids of users, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field

from provisioning import application_ids
from provisioning.api.dependencies import RESOLVING, OperatorRoute, OrganizationId, ServicesDep, UserId, requires
from provisioning.api.problems import SENDING, responses
from provisioning.api.shapes import Shape, named_well
from provisioning.merge import Key
from provisioning.settings import ApiKey

router = APIRouter(prefix="/v1/organizations/{organization_id}/users", tags=["Users"], route_class=OperatorRoute)

Operator = Annotated[ApiKey, Depends(requires("operate"))]


class ApplicationId(Shape):
    """What the application calls a user."""

    model_config = ConfigDict(extra="forbid")

    application_id: Annotated[
        Annotated[str, named_well("An application id")] | None, Field(description="Null: nothing, or nothing any more.", examples=["42"])
    ]


@router.put(
    "/{user_id}/application-id", summary="Set a user's application id", responses=responses(401, 403, 409, 422, *RESOLVING, *SENDING)
)
def set_application_id(
    organization_id: OrganizationId, user_id: UserId, wanted: ApplicationId, parts: ServicesDep, caller: Operator
) -> ApplicationId:
    """Have the user called so from now on: one id a user, and one user an id within the organization.

    409: another user is called so; the problem says which. Needs the scope `operate`.
    """
    application_ids.call(parts.database, Key(organization_id, user_id), wanted.application_id, caller.name)
    return wanted
