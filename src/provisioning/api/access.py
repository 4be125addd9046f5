"""Access over HTTP: what somebody may do now, and why, for every login."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BeforeValidator, Field

from provisioning.api.dependencies import RESOLVING, OrganizationId, ServicesDep, UserId, requires
from provisioning.api.problems import responses
from provisioning.api.shapes import Shape
from provisioning.db.reading.access import Access as Found
from provisioning.db.reading.access import GrantKind, Reason, access_of
from provisioning.events import rfc3339

router = APIRouter(
    prefix="/v1/organizations/{organization_id}/users",
    tags=["Users"],
    dependencies=[Depends(requires("read"))],
    responses=responses(*RESOLVING),
)

SinceKept = Annotated[datetime | None, Field(description="Null: from before this was kept.", examples=["2026-11-22T09:30:00Z"])]


class GroupOfAccess(Shape):
    """A group that the user is in."""

    id: Annotated[str, Field(examples=["dirgroup_91263908563290112"])]
    name: Annotated[str | None, Field(description="Null until it is known.", examples=["Engineering"])]
    since: Annotated[datetime, Field(examples=["2026-11-22T09:30:00Z"])]
    through: Annotated[list[str], Field(description="The directory users that are in it.", examples=[["diruser_70687244567806212"]])]


class Because(Shape):
    """One thing that a role comes from; what does not belong to its kind is null."""

    kind: Annotated[
        GrantKind,
        Field(description="`directory`: its own mapping of groups; `group`: mapped to the role here; `local`: granted to the user here."),
    ]
    directory_user_id: Annotated[str | None, Field(examples=[None])]
    group_id: Annotated[str | None, Field(examples=["dirgroup_91263908563290112"])]
    group_name: Annotated[str | None, Field(examples=["Engineering"])]
    granted_by: Annotated[str | None, Field(description="Who mapped the group, or granted the role, here.", examples=["operations"])]
    since: SinceKept


class RoleOfAccess(Shape):
    """A role that the user has. All that it comes from would have to end for it to go."""

    role: Annotated[str, Field(examples=["admin"])]
    since: SinceKept
    because: list[Because]


class KeptRole(Shape):
    """A role that was granted to the user here: not had while it is inactive, and back when it is active again."""

    role: Annotated[str, Field(examples=["auditor"])]
    granted_by: Annotated[str, Field(examples=["operations"])]
    since: Annotated[datetime, Field(examples=["2026-11-22T09:30:00Z"])]


class DirectoryUserOfAccess(Shape):
    """A directory user behind the user, and what it does for it."""

    id: Annotated[str, Field(examples=["diruser_70687244567806212"])]
    directory_id: Annotated[str | None, Field(description="Known once a reconcile saw it there.", examples=["dir_45612890123456789"])]
    directory_enabled: Annotated[
        bool | None,
        Field(description="False: nothing is heard from its directory, and what that said last stays. Null while it is not known."),
    ]
    email: Annotated[str | None, Field(examples=["ada@example.com"])]
    active: bool
    deleted: bool
    counts: Annotated[bool, Field(description="False: its directory is disabled, and somebody of another is behind the user as well.")]
    reason: Annotated[
        Reason, Field(description="`active`: it lets the user in. Else why not, `directory_disabled` of one that does not count.")
    ]
    said_at: Annotated[
        str | None,
        BeforeValidator(lambda told: rfc3339(told) if isinstance(told, int) else told),
        Field(
            description="When that was last said there.",
            examples=["2026-11-22T09:29:58.123Z"],
            json_schema_extra={"format": "date-time"},
        ),
    ]


class Access(Shape):
    """What somebody may do now, and why."""

    user_id: Annotated[str, Field(examples=["usr_5d1f7c0a9b3e4f60"])]
    organization_id: Annotated[str, Field(examples=["org_83543878963298576"])]
    application_id: Annotated[str | None, Field(description="What the application calls this user.", examples=["42"])]
    active: Annotated[bool, Field(description="Whether this person may be let in.")]
    since: Annotated[datetime, Field(description="When it became so, as far as is known.", examples=["2026-11-22T09:30:00Z"])]
    reason: Annotated[Reason, Field(description="That of the directory users that count; `suspended` while one of them is not deleted.")]
    groups: Annotated[list[GroupOfAccess], Field(description="Sorted by id; empty while inactive.")]
    roles: Annotated[list[RoleOfAccess], Field(description="Sorted by name; empty while inactive.")]
    kept_roles: Annotated[list[KeptRole], Field(description="Sorted by name; empty while active, when they are among the roles.")]
    directory_users: Annotated[list[DirectoryUserOfAccess], Field(description="Who stands behind the user, sorted by id.")]


@router.get("/{user_id}/access", summary="Get a user's access", responses=responses(401, 403, 404, 422, 503))
def get_access(organization_id: OrganizationId, user_id: UserId, parts: ServicesDep) -> Access:
    """Whether somebody may be let in now, with groups and roles, and what each comes from. As cheap as it has to be at every login."""
    with parts.database.reading() as session:
        return shown(access_of(session, organization_id, user_id))


def shown(access: Found) -> Access:
    """Return the access as it goes over HTTP."""
    return Access.model_validate(access, from_attributes=True)
