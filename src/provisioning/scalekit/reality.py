"""What Scalekit's answers look like, to test on a real account what this service takes for granted of them. Only reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Generic, TypeVar

from provisioning.bodies import Json
from provisioning.directory import Directory
from provisioning.errors import ScalekitError, ScalekitRefused
from provisioning.events import Delivery, parse
from provisioning.scalekit.client import CALLING
from provisioning.scalekit.directories import PAGE_SIZE, DirectoryReader, struct_json
from provisioning.scalekit.organizations import get_organization

T = TypeVar("T")

MOST_PAGES = 50  # of each list: enough to judge by
SMALL_PAGE, SMALL_PAGES = 10, 3  # together as many as one page of PAGE_SIZE
EVENTS_A_PAGE = 100  # the most that the API gives
SAME, NOT_FOUND = "the same", "NOT_FOUND"

_ENVELOPE = ("spec_version", "id", "type", "occurred_at", "environment_id", "organization_id", "object", "data")


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A list as far as it was read. Unless it is `whole`, reading ended at its bound, or by a `failure`: in words of ours."""

    entries: list[T] = field(repr=False)
    pages: int
    whole: bool
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class SeenOrganization:
    """An organization, asked for by itself: what came of asking by its external id, if it has one, and by one that is made up."""

    by_external_id: str | None
    by_made_up: str


@dataclass(frozen=True, slots=True)
class SeenUser:
    """A person as listed: in which groups, and, unless they came without, the `detail`."""

    id: str
    groups: frozenset[str]
    detail: Mapping[str, Json] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SeenGroup:
    """A group as listed, with how many members Scalekit counts in it."""

    id: str
    named: bool
    members: int


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event of the log. `wrong`: what a webhook's envelope has and this has not, or why it is no event we can read."""

    id: str
    occurred_at: int | None
    wrong: str | None


@dataclass(frozen=True, slots=True)
class SeenDirectory:
    """One directory, read in several ways. `directory`: as it was after the last page. The people of its first page, by id: `again`,
    asked for once more; `small`, asked for in pages of SMALL_PAGE; `unsized`, asked for without a size and without details.
    """

    directory: Directory
    users: Listing[SeenUser]
    groups: Listing[SeenGroup]
    again: list[str]
    small: Listing[SeenUser]
    unsized: list[SeenUser]
    refuses_more: bool  # a page of PAGE_SIZE + 1


class RealityReader(DirectoryReader):
    """Reads one organization as DirectoryReader does, and keeps what that one takes for granted."""

    def look(self, directory_id: str) -> SeenDirectory:
        """One directory, up to MOST_PAGES of each of its lists. Raises a ScalekitError."""
        refuses_more = self._refuses(directory_id, PAGE_SIZE + 1)
        unsized = [_user(each) for each in self._page("ListDirectoryUsers", directory_id).users]
        again = self._users(directory_id, PAGE_SIZE, most=1)
        small = self._users(directory_id, SMALL_PAGE, most=SMALL_PAGES)
        groups = self._listing(lambda token: self._groups_page(directory_id, token), MOST_PAGES)
        users = self._users(directory_id, PAGE_SIZE, most=MOST_PAGES)
        return SeenDirectory(self.directory(directory_id), users, groups, [each.id for each in again.entries], small, unsized, refuses_more)

    def called(self) -> SeenOrganization:
        """The organization by both of its ids, and by one that nobody has. Raises a ScalekitError."""
        said = self.organization()
        by_external_id = self._status_of(said.external_id) if said.external_id is not None else None
        return SeenOrganization(by_external_id, self._status_of(f"provisioning-check-{token_hex(16)}"))

    def events(self) -> Listing[SeenEvent]:
        """The organization's directory events, newest first, up to MOST_PAGES."""
        return self._listing(self._events_page, MOST_PAGES)

    def _status_of(self, external_id: str) -> str:
        """What comes of asking for an organization by this external id: a status, or a word of ours."""
        self._client.pace.wait(self._rest)
        try:
            found = self._client.call("GetOrganization", lambda vendor: get_organization(vendor, "external_id", external_id))
        except ScalekitError as error:
            return _status(error) or str(error)
        return SAME if found.id == self._organization_id else "another organization"

    def _refuses(self, directory_id: str, page_size: int) -> bool:
        try:
            self._page("ListDirectoryUsers", directory_id, page_size=page_size)
        except ScalekitRefused as error:
            if _status(error) == "INVALID_ARGUMENT":
                return True
            raise
        return False

    def _users(self, directory_id: str, size: int, most: int) -> Listing[SeenUser]:
        def page(token: str) -> tuple[list[SeenUser], str]:
            said = self._page("ListDirectoryUsers", directory_id, page_size=size, include_detail=True, page_token=token)
            return [_user(each) for each in said.users], said.next_page_token

        return self._listing(page, most)

    def _groups_page(self, directory_id: str, token: str) -> tuple[list[SeenGroup], str]:
        said = self._page("ListDirectoryGroups", directory_id, page_size=PAGE_SIZE, include_detail=True, page_token=token)
        return [SeenGroup(each.id, bool(each.display_name), each.total_users) for each in said.groups], said.next_page_token

    def _events_page(self, token: str) -> tuple[list[SeenEvent], str]:
        said = self._again(
            lambda: self._client.call("ListEvents", lambda vendor: _list_events(vendor, self._organization_id, token), CALLING)
        )
        return [_event(each, self._organization_id) for each in said.events], said.next_page_token

    @staticmethod
    def _listing(page: Callable[[str], tuple[list[T], str]], most: int) -> Listing[T]:
        entries: list[T] = []
        token = ""
        for number in range(1, most + 1):
            try:
                some, following = page(token)
            except ScalekitError as error:
                return Listing(entries, number - 1, False, f"page {number}: {_status(error) or error}")
            entries += some
            if not following:
                return Listing(entries, number, True)
            if following == token:
                return Listing(entries, number, False, f"page {number} leads to itself")
            token = following
        return Listing(entries, most, False)


def _status(error: ScalekitError) -> str:
    """The first of the vendor's words, which is the status: the others may quote what they are about."""
    return error.vendor_message.partition(":")[0]


def _user(said: Any) -> SeenUser:
    detail = struct_json(said.user_detail) if said.HasField("user_detail") else None
    return SeenUser(said.id, frozenset(group.id for group in said.groups if group.id), detail)


def _list_events(vendor: Any, organization_id: str, token: str) -> Any:
    from scalekit.v1.events import events_pb2 as api  # noqa: PLC0415  # the vendor's client has imported it by now

    asked = api.EventFilter(organization_id=organization_id, source=api.DIR_SYNC)
    request = api.ListEventsPaginatedRequest(filter=asked, page_size=EVENTS_A_PAGE, page_token=token)
    function = vendor.events.events_service.ListEventsPaginated.with_call
    answer, _ = vendor.core_client.grpc_exec(function, request, retry=1, retry_on_unavailable=False)
    return answer


def _event(said: Any, organization_id: str) -> SeenEvent:
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415  # as above

    present = {field.name for field, _ in said.ListFields()}
    missing = [name for name in _ENVELOPE if name not in present]
    body = MessageToJson(said, preserving_proto_field_name=True).encode()
    parsed = parse(Delivery(said.id, said.occurred_at.seconds, datetime.now(UTC), body))
    wrong = f"no {', '.join(missing)}" if missing else parsed.error
    if said.organization_id != organization_id:
        wrong = wrong or "another organization's"
    return SeenEvent(said.id, parsed.envelope.occurred_at, wrong)
