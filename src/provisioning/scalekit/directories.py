"""Reading a customer's directories through Scalekit's API: page by page, paced, tried again, and in our own words.

The SDK's own list methods fail on every page that is not empty, so the calls are made one layer below (scalekit.md, *SDK 2.21.0*).
"""

import random
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any, TypeVar

from provisioning.bodies import SECRET_KEYS, Json
from provisioning.directory import Directory, ListedGroup, ListedUser, Organization
from provisioning.errors import ScalekitError, ScalekitRefused, ScalekitUnavailable
from provisioning.scalekit.client import CALLING, Failure, ScalekitClient
from provisioning.scalekit.clock import read_clock
from provisioning.scalekit.organizations import get_organization

T = TypeVar("T")
Rest = Callable[[float], None]

PAGE_SIZE = 30  # the most that the API allows
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; each doubles the one before, less up to half of it by chance
TRIES, TRIES_WHEN_LIMITED = 6, 9  # some 12 s in all, and some 80 s where Scalekit limits our calls
EMPTY_PAGES = 100  # in a row, after which a list counts as endless

# The organization was listed a moment ago: it is the directory that is gone.
_OF_DIRECTORY: Mapping[str, Failure] = {**CALLING, "NOT_FOUND": (ScalekitRefused, "Scalekit does not know a directory it listed.")}


class DirectoryReader:
    """Reads one organization. `rest(seconds)` is called to wait, and may raise to give up."""

    def __init__(self, client: ScalekitClient, organization_id: str, rest: Rest) -> None:
        self._client = client
        self._organization_id = organization_id
        self._rest = rest

    def clock(self) -> tuple[int, float]:
        """Scalekit's time (nanoseconds since 1970, whole seconds), and by how many seconds ours is ahead of it. Raises a ScalekitError."""
        return self._again(self._clock)

    def organization(self) -> Organization:
        """The organization itself, asked for once: a run can do without. Raises a ScalekitError."""
        self._client.pace.wait(self._rest)
        return self._client.call("GetOrganization", lambda vendor: get_organization(vendor, "id", self._organization_id))

    def directories(self) -> list[Directory]:
        """The organization's directories, the disabled ones too. Raises UnknownOrganization and every other ScalekitError."""
        request = {"organization_id": self._organization_id}
        answer = self._ask("ListDirectories", request, CALLING)
        return [_directory(each) for each in answer.directories]

    def directory(self, directory_id: str) -> Directory:
        """One of them, as it is now. Raises a ScalekitError."""
        request = {"organization_id": self._organization_id, "id": directory_id}
        return _directory(self._ask("GetDirectory", request, _OF_DIRECTORY).directory)

    def users(self, directory_id: str) -> Iterator[list[ListedUser]]:
        """Everybody in the directory, a page at a time. Raises a ScalekitError."""
        for users in self._pages("ListDirectoryUsers", "users", directory_id):
            yield [_user(each) for each in users]

    def groups(self, directory_id: str) -> Iterator[list[ListedGroup]]:
        """All groups of the directory, a page at a time. Raises a ScalekitError."""
        for groups in self._pages("ListDirectoryGroups", "groups", directory_id):
            yield [_group(each) for each in groups]

    def _pages(self, method: str, what: str, directory_id: str) -> Iterator[Any]:
        token, empty, known = "", 0, {""}
        while True:
            page = self._page(method, directory_id, page_size=PAGE_SIZE, include_detail=True, page_token=token)
            entries = getattr(page, what)
            yield entries
            empty = 0 if entries else empty + 1
            token = page.next_page_token
            if not token:
                return
            if token in known or empty > EMPTY_PAGES:
                raise ScalekitRefused("Scalekit's list of a directory does not end.", f"{method}: a page leads back")
            known.add(token)

    def _page(self, method: str, directory_id: str, **asked: object) -> Any:
        return self._ask(method, {"organization_id": self._organization_id, "directory_id": directory_id, **asked}, _OF_DIRECTORY)

    def _ask(self, method: str, request: Mapping[str, object], failures: Mapping[str, Failure]) -> Any:
        return self._again(lambda: self._client.call(method, lambda vendor: _exec(vendor, method, request), failures))

    def _again(self, call: Callable[[], T]) -> T:
        """What `call` gives, tried again with growing pauses while its failure may pass."""
        pause, attempt = FIRST_PAUSE, 0
        while True:
            self._client.pace.wait(self._rest)
            try:
                return call()
            except ScalekitError as error:
                attempt += 1
                if not error.passing or attempt >= (TRIES_WHEN_LIMITED if isinstance(error, ScalekitUnavailable) else TRIES):
                    raise
            self._rest(pause * random.uniform(0.5, 1))  # noqa: S311  # so that many do not come again all at once
            pause = min(2 * pause, LONGEST_PAUSE)

    def _clock(self) -> tuple[int, float]:
        with self._client.calling("clock"):
            return read_clock(self._client.url)


def _exec(vendor: Any, method: str, request: Mapping[str, object]) -> Any:
    from scalekit.v1.directories import directories_pb2 as api  # noqa: PLC0415  # the vendor's client has imported it by now

    function = getattr(vendor.directory.directory_service, method).with_call
    # One attempt and, when the token has expired, one with a new token: when to come back is decided above.
    answer, _ = vendor.core_client.grpc_exec(function, getattr(api, f"{method}Request")(**request), retry=1, retry_on_unavailable=False)
    return answer


def _directory(said: Any) -> Directory:
    from scalekit.v1.directories import directories_pb2 as api  # noqa: PLC0415  # as above

    roles: dict[str, frozenset[str]] = {}
    for assignment in said.role_assignments.assignments:
        if assignment.group_id and assignment.role_name:
            roles[assignment.group_id] = roles.get(assignment.group_id, frozenset()) | {assignment.role_name}
    return Directory(
        id=said.id,
        provider=_name(api.DirectoryProvider, said.directory_provider),
        type=_name(api.DirectoryType, said.directory_type),
        enabled=said.enabled,
        total_users=said.total_users,
        roles=roles,
    )


def _name(words: Any, number: int) -> str:
    """The word for it; none when it is not said, and the number itself when Scalekit knows more of them than the SDK."""
    return "" if number == 0 else words.Name(number) if number in words.values() else str(number)


def _user(said: Any) -> ListedUser:
    detail = struct_json(said.user_detail)
    shown = {"email": said.email, "preferred_username": said.preferred_username}
    shown |= {"given_name": said.given_name, "family_name": said.family_name}
    detail.pop("roles", None)  # the provider's own, not the application's
    data = {**{key: value for key, value in shown.items() if value}, **detail}
    data.pop("groups", None)
    groups = {group.id: group.display_name for group in said.groups if group.id}
    return ListedUser(said.id, groups, data)


def _group(said: Any) -> ListedGroup:
    shown = {"display_name": said.display_name} if said.display_name else {}
    return ListedGroup(said.id, {**shown, **struct_json(said.group_detail)})


def struct_json(struct: Any) -> dict[str, Json]:
    """A protobuf Struct as the JSON that it stands for, less the members named like a secret."""
    return {key: _value(value) for key, value in struct.fields.items() if key.lower() not in SECRET_KEYS}


def _value(value: Any) -> Json:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return struct_json(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    if kind == "number_value":
        number: float = value.number_value
        whole = number.is_integer() and abs(number) < 2**53
        return int(number) if whole else number if isfinite(number) else None
    return None if kind in {None, "null_value"} else getattr(value, kind)
