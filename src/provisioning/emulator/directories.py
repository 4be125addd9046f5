"""scalekit.v1.directories.DirectoryService, to read: what the directories hold now, page by page."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import grpc
from scalekit.v1.directories import directories_pb2 as api
from scalekit.v1.directories.directories_pb2_grpc import DirectoryServiceServicer

from provisioning.emulator.company import Company
from provisioning.emulator.facts import group_data, user_data
from provisioning.emulator.faults import Door, Fault, Faults
from provisioning.emulator.history import nanoseconds, timestamp
from provisioning.emulator.paging import Listing, PageRequest, refuse
from provisioning.emulator.records import Directory, Group, User

R = TypeVar("R", User, Group)

USERS = Listing("diruser", default=10, most=30)
GROUPS = Listing("dirgroup", default=10, most=30)


class Directories(DirectoryServiceServicer):  # type: ignore[misc]  # the SDK ships no types
    """What is not overridden here answers UNIMPLEMENTED. Pages lead forward only."""

    def __init__(self, company: Company, faults: Faults) -> None:
        self._company = company
        self._faults = faults

    def ListDirectories(  # noqa: N802  # gRPC's names, here and below
        self, request: api.ListDirectoriesRequest, context: grpc.ServicerContext
    ) -> api.ListDirectoriesResponse:
        """All of an organization, the disabled too. NOT_FOUND: the organization."""
        if all(each.id != request.organization_id for each in self._company.organizations()):
            refuse(context, grpc.StatusCode.NOT_FOUND, "The emulator knows no such organization.")
        return api.ListDirectoriesResponse(directories=map(self._directory, self._company.directories(request.organization_id)))

    def GetDirectory(self, request: api.GetDirectoryRequest, context: grpc.ServicerContext) -> api.GetDirectoryResponse:  # noqa: N802
        """NOT_FOUND: the directory, in this organization."""
        return api.GetDirectoryResponse(directory=self._directory(self._find(request.organization_id, request.id, context)))

    def ListDirectoryUsers(  # noqa: N802
        self, request: api.ListDirectoryUsersRequest, context: grpc.ServicerContext
    ) -> api.ListDirectoryUsersResponse:
        """Everybody whom Scalekit has. Who of them is inactive shows in the details alone. NOT_FOUND: as above."""
        directory = self._find(request.organization_id, request.directory_id, context)
        users = _later(self._company.roster(directory.id).users, request)
        if request.HasField("directory_group_id"):
            users = [user for user in users if request.directory_group_id in user.groups]
        fault = self._faults.at(Door.USERS)
        found, total, token = self._page(Door.USERS, fault, USERS, users, request, context)
        groups = {group.id: group for group in self._company.groups(directory.id)}
        shown = [_user(user, groups, detailed=request.include_detail and fault is not Fault.DETAIL_MISSING) for user in found]
        if fault is Fault.ACTIVE_MISSING and request.include_detail:
            for user in shown:
                del user.user_detail["active"]
        return api.ListDirectoryUsersResponse(users=shown, total_size=total, next_page_token=token)

    def ListDirectoryGroups(  # noqa: N802
        self, request: api.ListDirectoryGroupsRequest, context: grpc.ServicerContext
    ) -> api.ListDirectoryGroupsResponse:
        """All groups; each with the number of its members, never with the members. NOT_FOUND: as above."""
        directory = self._find(request.organization_id, request.directory_id, context)
        groups = _later(self._company.groups(directory.id), request)
        found, total, token = self._page(Door.GROUPS, self._faults.at(Door.GROUPS), GROUPS, groups, request, context)
        members = self._company.roster(directory.id).members
        shown = [_group(group, members[group.id], detailed=request.include_detail) for group in found]
        return api.ListDirectoryGroupsResponse(groups=shown, total_size=total, next_page_token=token)

    def _page(
        self, door: Door, fault: Fault | None, listing: Listing, rows: Sequence[R], request: PageRequest, context: grpc.ServicerContext
    ) -> tuple[list[R], int, str]:
        """What is on the page, how long the list is, and the token of the next page. A list that falls short agrees with itself."""
        match fault:
            case Fault.CUT_SHORT:
                rows = rows[: len(rows) * 2 // 5]
            case Fault.EMPTY:
                rows = ()
            case Fault.LATER_PAGES_FAIL if request.page_token:
                refuse(context, grpc.StatusCode.UNAVAILABLE, f"The emulator was told to misbehave: {fault}.")
            case Fault.LATER_PAGES_FAIL_TWICE if request.page_token and self._faults.among_first(2, door):
                refuse(context, grpc.StatusCode.UNAVAILABLE, f"The emulator was told to misbehave: {fault}.")
        found, token = listing.page(rows, request, context)
        if fault is Fault.SAME_PAGE:
            token = request.page_token or listing.first_page
        return found, len(rows), token

    def _find(self, organization_id: str, directory_id: str, context: grpc.ServicerContext) -> Directory:
        found = next((each for each in self._company.directories(organization_id) if each.id == directory_id), None)
        return found or refuse(context, grpc.StatusCode.NOT_FOUND, "The emulator knows no such directory in this organization.")

    def _directory(self, directory: Directory) -> api.Directory:
        roster, groups = self._company.roster(directory.id), self._company.groups(directory.id)
        total = len(roster.users)
        match self._faults.at(Door.DIRECTORIES):
            case Fault.TOTAL_ONE_MORE:
                total += 1
            case Fault.TOTAL_ZERO:
                total = 0
        users_at = roster.updated_at or directory.updated_at
        groups_at = max((group.updated_at for group in groups), default=directory.updated_at)
        return api.Directory(
            id=directory.id,
            name=directory.provider,
            directory_type=api.SCIM,
            directory_provider=api.DirectoryProvider.Value(directory.provider),
            organization_id=directory.organization_id,
            enabled=directory.enabled,
            status=api.DirectoryStatus.Name(api.COMPLETED),
            last_synced_at=timestamp(max(users_at, groups_at, directory.updated_at)),
            total_users=total,
            total_groups=len(groups),
            stats=api.Stats(
                total_users=total,
                total_groups=len(groups),
                user_updated_at=timestamp(users_at),
                group_updated_at=timestamp(groups_at),
            ),
            role_assignments=api.RoleAssignments(
                assignments=[api.RoleAssignment(group_id=group, role_name=role) for group, role in directory.roles.items()]
            ),
        )


def _later(records: Sequence[R], request: api.ListDirectoryUsersRequest | api.ListDirectoryGroupsRequest) -> Sequence[R]:
    """Those that changed after the request's updated_after, if it has one."""
    if not request.HasField("updated_after"):
        return records
    after = nanoseconds(request.updated_after)
    return [record for record in records if record.updated_at > after]


def _user(user: User, groups: Mapping[str, Group], *, detailed: bool) -> api.DirectoryUser:
    # A group that came or went between the reading of the users and that of the groups is left out.
    user = user.model_copy(update={"groups": tuple(group for group in user.groups if group in groups)})
    shown = api.DirectoryUser(
        id=user.id,
        email=user.email,
        preferred_username=user.email,
        given_name=user.given_name,
        family_name=user.family_name,
        updated_at=timestamp(user.updated_at),
        emails=[user.email],
        groups=[api.DirectoryGroup(id=group, display_name=groups[group].name) for group in user.groups],
    )
    if detailed:
        said = user_data(user, map(groups.__getitem__, user.groups), ())
        del said["roles"]  # they are nowhere in this API but in the directory's role_assignments
        shown.user_detail.update(said)
    return shown


def _group(group: Group, members: int, *, detailed: bool) -> api.DirectoryGroup:
    shown = api.DirectoryGroup(id=group.id, display_name=group.name, total_users=members, updated_at=timestamp(group.updated_at))
    if detailed:
        shown.group_detail.update(group_data(group))
    return shown
