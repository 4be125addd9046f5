"""Roles that are given here, over HTTP: to whoever is in a group, and to one user."""

from collections.abc import Iterable
from typing import Annotated
from unicodedata import category

from fastapi import APIRouter, Depends
from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from provisioning.api.dependencies import GroupId, OperatorRoute, OrganizationId, ServicesDep, UserId, requires
from provisioning.api.problems import responses
from provisioning.api.shapes import Shape
from provisioning.db import roles as given
from provisioning.merge import Key
from provisioning.settings import ApiKey

router = APIRouter(prefix="/v1/organizations/{organization_id}", tags=["Roles"], route_class=OperatorRoute)

Reader = Annotated[ApiKey, Depends(requires("read"))]
Operator = Annotated[ApiKey, Depends(requires("operate"))]

_MAX_BYTES = 255
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, line and paragraph separators


def _named_well(role: str) -> str:
    if any(category(character) in _UNSEEN for character in role):
        raise PydanticCustomError("role", "A role has no control characters, line breaks or lone surrogates")
    if not role or role != role.strip():
        raise PydanticCustomError("role", "A role is not blank, and has no white space before or after it")
    if len(role.encode()) > _MAX_BYTES:
        raise PydanticCustomError("role", "A role has at most 255 bytes in UTF-8")
    return role


class GivenRoles(Shape):
    """Roles as the application calls them."""

    model_config = ConfigDict(extra="forbid")

    roles: Annotated[
        list[Annotated[str, AfterValidator(_named_well)]],
        Field(max_length=100, description="All of them: what is not here is given no more.", examples=[["admin", "member"]]),
    ]


@router.get("/groups/{group_id}/roles", summary="Get a group's roles", responses=responses(401, 403, 404, 422, 503))
def get_roles_of_group(organization_id: OrganizationId, group_id: GroupId, parts: ServicesDep, caller: Reader) -> GivenRoles:
    """The roles that the group is mapped to here, sorted; those of the directory's own mapping are not among them."""
    with parts.database.reading() as session:
        return _sorted(given.of_group(session, Key(organization_id, group_id)))


@router.put("/groups/{group_id}/roles", summary="Map a group to roles", responses=responses(401, 403, 404, 413, 422, 503))
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


@router.put("/users/{user_id}/roles", summary="Grant a user roles", responses=responses(401, 403, 404, 413, 422, 503))
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
