"""Roles that are given here, over HTTP: to whoever is in a group, and to one user."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field

from provisioning.api.dependencies import RESOLVING, GroupId, OperatorRoute, OrganizationId, ServicesDep, UserId, requires
from provisioning.api.problems import SENDING, responses
from provisioning.api.shapes import Shape, named_well
from provisioning.db import roles as given
from provisioning.merge import Key
from provisioning.settings import ApiKey

router = APIRouter(prefix="/v1/organizations/{organization_id}", tags=["Roles"], route_class=OperatorRoute, responses=responses(*RESOLVING))

Reader = Annotated[ApiKey, Depends(requires("read"))]
Operator = Annotated[ApiKey, Depends(requires("operate"))]


class GivenRoles(Shape):
    """Roles as the application calls them."""

    model_config = ConfigDict(extra="forbid")

    roles: Annotated[
        list[Annotated[str, named_well("A role")]],
        Field(max_length=100, description="All of them: what is not here is given no more.", examples=[["admin", "member"]]),
    ]


@router.get("/groups/{group_id}/roles", summary="Get a group's roles", responses=responses(401, 403, 404, 422, 503))
def get_roles_of_group(organization_id: OrganizationId, group_id: GroupId, parts: ServicesDep, caller: Reader) -> GivenRoles:
    """The roles that the group is mapped to here, sorted; those of the directory's own mapping are not among them."""
    with parts.database.reading() as session:
        return _sorted(given.of_group(session, Key(organization_id, group_id)))


@router.put("/groups/{group_id}/roles", summary="Map a group to roles", responses=responses(401, 403, 404, 422, 503, *SENDING))
def map_group_to_roles(
    organization_id: OrganizationId, group_id: GroupId, wanted: GivenRoles, parts: ServicesDep, caller: Operator
) -> GivenRoles:
    """Give these roles to whoever is in the group, now and later, for as long; answers when all present members have them.

    The list replaces the one before. After a 503 it may be decided already, and is then brought to the members by itself; to ask again does
    no harm. Needs the scope `operate`.
    """
    roles = frozenset(wanted.roles)
    parts.roles.map_group(organization_id, group_id, roles, caller.name)
    return _sorted(roles)


@router.get("/users/{user_id}/roles", summary="Get a user's own roles", responses=responses(401, 403, 404, 422, 503))
def get_roles_of_user(organization_id: OrganizationId, user_id: UserId, parts: ServicesDep, caller: Reader) -> GivenRoles:
    """The roles that were granted to the user here, sorted, active or not; what it has altogether is in the user's `roles`."""
    with parts.database.reading() as session:
        return _sorted(given.of_user(session, Key(organization_id, user_id)))


@router.put("/users/{user_id}/roles", summary="Grant a user roles", responses=responses(401, 403, 404, 422, 503, *SENDING))
def grant_roles_to_user(
    organization_id: OrganizationId, user_id: UserId, wanted: GivenRoles, parts: ServicesDep, caller: Operator
) -> GivenRoles:
    """Grant these roles to the user, whatever its directory says; an inactive one shows them once it is active again.

    The list replaces the one before. Needs the scope `operate`.
    """
    roles = frozenset(wanted.roles)
    parts.roles.grant(organization_id, user_id, roles, caller.name)
    return _sorted(roles)


def _sorted(roles: Iterable[str]) -> GivenRoles:
    return GivenRoles.model_construct(roles=sorted(roles))
