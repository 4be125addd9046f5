"""An organization's groups, and one of them: who is in it, what it gives, and what happened to it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from provisioning.api import words
from provisioning.api.admin.asked import PER_PAGE, AskedList, Maybe, Place
from provisioning.api.admin.organizations import require_organization
from provisioning.api.admin.pages import ROOT, at, page
from provisioning.api.admin.route import OperatorPage
from provisioning.api.dependencies import GroupId, OrganizationId, ServicesDep
from provisioning.api.history import group_history
from provisioning.api.paging import found, place_of
from provisioning.api.users import page_of_users
from provisioning.db import roles
from provisioning.db.reading.groups import one_group, page_of_groups
from provisioning.db.reading.users import UserFilter
from provisioning.merge import Key

router = APIRouter(prefix=f"{ROOT}/organizations/{{organization_id}}/groups", route_class=OperatorPage)


class AskedGroups(AskedList):
    """Which groups: deleted ones, too?"""

    deleted: Maybe[bool] = None


class AskedGroup(AskedList):
    """One group, with its members and its history from these places on."""

    history: Place = None


@router.get("")
def list_groups(request: Request, parts: ServicesDep, organization_id: OrganizationId, asked: Annotated[AskedGroups, Query()]) -> Response:
    """In the order of their ids."""
    after, deleted = place_of("groups", asked.cursor), bool(asked.deleted)
    with parts.database.reading() as session:
        require_organization(session, organization_id)
        rows = page_of_groups(session, organization_id, include_deleted=deleted, after=after, limit=PER_PAGE + 1)
    groups = found("groups", rows, PER_PAGE, lambda group: group.id)
    here = ("organizations", organization_id, "groups")
    following = groups.next_cursor and at(*here, deleted="true" if deleted else None, cursor=groups.next_cursor)
    return page(request, "groups.html", organization_id=organization_id, asked=asked, groups=groups.data, following=following)


@router.get("/{group_id}")
def show_group(
    request: Request, parts: ServicesDep, organization_id: OrganizationId, group_id: GroupId, asked: Annotated[AskedGroup, Query()]
) -> Response:
    """The record, the members, the roles that it is mapped to here, and the history."""
    with parts.database.reading() as session:
        group = one_group(session, organization_id, group_id)
        mapped = sorted(roles.of_group(session, Key(organization_id, group_id)))
        members = page_of_users(session, organization_id, UserFilter(group_id=group_id), limit=PER_PAGE, cursor=asked.cursor)
        history = group_history(session, organization_id, group_id, limit=PER_PAGE, cursor=asked.history)
        names = words.names_in(session, history.data)
    here = ("organizations", organization_id, "groups", group_id)
    return page(
        request,
        "group.html",
        organization_id=organization_id,
        group=group,
        mapped=mapped,
        members=members.data,
        following=members.next_cursor and at(*here, cursor=members.next_cursor),
        history=history.data,
        names=names,
        earlier=history.next_cursor and at(*here, history=history.next_cursor),
    )
