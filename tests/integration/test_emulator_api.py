"""The Directory API and the past events of the local Scalekit, as the unmodified SDK reads them over TLS: as strict as the real one's."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from provisioning.emulator.faults import Door, Fault
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Directory, Event, Group, Provider, User
from provisioning.errors import Conflict, NotFound

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from scalekit import ScalekitClient

    from provisioning.emulator.server import Emulator

Made = Callable[[Provider], Directory]


@pytest.fixture
def make(emulator: Emulator, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes an empty directory, of an organization that is this test's alone."""
    monkeypatch.setattr(emulator.company, "_listeners", [])  # nobody receives webhooks here: do not keep the process busy with trying
    organization = emulator.structure.add_organization(request.node.nodeid)
    return partial(emulator.structure.add_directory, organization.id)


@pytest.fixture
def directory(make: Made) -> Directory:
    """One of Okta's, where those who are fired stay, inactive."""
    return make(Provider.OKTA)


@pytest.fixture
def api(emulator: Emulator) -> Iterator[Api]:
    """The SDK, signed in."""
    with_token = Api(emulator)
    yield with_token
    with_token.close()


class Api:
    """The SDK's calls, each answered with the response alone."""

    def __init__(self, emulator: Emulator) -> None:
        from scalekit import ScalekitClient  # noqa: PLC0415  # the emulator has imported the SDK, with its warnings silenced
        from scalekit.v1.directories import directories_pb2  # noqa: PLC0415
        from scalekit.v1.events import events_pb2  # noqa: PLC0415

        self._requests, self._events = directories_pb2, events_pb2
        self.retrying = True
        self._client: ScalekitClient = ScalekitClient(emulator.url, emulator.tokens.client_id, emulator.tokens.client_secret)

    def close(self) -> None:
        self._client.core_client.grpc_secure_channel.close()

    def organization(self, by: str, text: str) -> Any:
        """As the SDK asks for one."""
        organizations = self._client.organization
        return {"id": organizations.get_organization, "external_id": organizations.get_organization_by_external_id}[by](text)[
            0
        ].organization

    def directories(self, organization_id: str) -> Any:
        return self._client.directory.list_directories(organization_id)[0].directories

    def directory(self, organization_id: str, directory_id: str) -> Any:
        return self._client.directory.get_directory(organization_id, directory_id)[0].directory

    def users(self, directory: Directory, **asked: object) -> Any:
        """A page. The SDK's own list_directory_users fails on every page with somebody on it: scalekit.md."""
        return self._list("ListDirectoryUsers", directory, asked)

    def groups(self, directory: Directory, **asked: object) -> Any:
        return self._list("ListDirectoryGroups", directory, asked)

    def events(self, *, page_size: int | None = None, page_token: str | None = None, **asked: object) -> Any:
        return self._client.events.list_events_paginated(page_size, page_token, self._events.EventFilter(**asked))[0]

    def _list(self, method: str, directory: Directory, asked: dict[str, object]) -> Any:
        service = self._client.directory.directory_service
        whose = {"organization_id": directory.organization_id, "directory_id": directory.id}
        request = getattr(self._requests, f"{method}Request")(**{**whose, **asked})
        call = getattr(service, method).with_call
        return self._client.core_client.grpc_exec(call, request, retry_on_unavailable=self.retrying)[0]


def pages(call: Callable[..., Any], *arguments: object, **asked: object) -> Iterator[Any]:
    """Every page, from the first on."""
    token = ""
    while True:
        answer = call(*arguments, **asked, page_token=token)
        yield answer
        if not (token := answer.next_page_token):
            return


def refusal(call: Callable[[], object]) -> str:
    """The gRPC status with which the call ends."""
    from scalekit.common.exceptions import ScalekitServerException  # noqa: PLC0415

    with pytest.raises(ScalekitServerException) as caught:
        call()
    return str(caught.value.grpc_status.name)


def crowd(emulator: Emulator, directory: Directory, size: int) -> list[User]:
    """So many people at once, in no group."""
    return emulator.people.enrol((Newcomer("Person", str(n), f"person.{n}@example.com") for n in range(size)), directory.id)


def everybody_and_groups(emulator: Emulator, directory: Directory, size: int) -> dict[str, list[str]]:
    """The ids of so many people and as many groups, all new."""
    groups = [emulator.structure.add_group(f"Group {number}", directory.id).id for number in range(size)]
    return {"users": [user.id for user in crowd(emulator, directory, size)], "groups": groups}


def hired(emulator: Emulator, directory: Directory, name: str, *groups: Group) -> User:
    newcomer = Newcomer(name, "Doe", f"{name.lower()}@example.com", "Engineer", "Research", [group.id for group in groups])
    return emulator.people.hire(newcomer, directory.id)


def said(emulator: Emulator, directory: Directory) -> list[Event]:
    """All events of the directory's organization, oldest first."""
    return [event for event in emulator.company.events() if event.organization_id == directory.organization_id]


def nanoseconds(moment: Timestamp) -> int:
    return int(moment.ToNanoseconds())


def at(nanoseconds: int) -> Timestamp:
    from google.protobuf.timestamp_pb2 import Timestamp  # noqa: PLC0415

    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def test_5000_users_page_through_completely_and_once(emulator: Emulator, api: Api, directory: Directory) -> None:
    """In the order of their ids."""
    everybody = [user.id for user in crowd(emulator, directory, 5000)]

    answers = list(pages(api.users, directory, page_size=30))

    assert [user.id for answer in answers for user in answer.users] == everybody
    assert {answer.total_size for answer in answers} == {5000}
    assert [len(answer.users) for answer in answers] == [30] * 166 + [20]


def test_a_directorys_people_are_gone_through_once_however_many_pages_are_read(
    emulator: Emulator, api: Api, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a page of 50,000 costs what a page of 500 does; only after a change among them they are gone through again."""
    staff = emulator.structure.add_group("Staff", directory.id)
    crowd(emulator, directory, 200)
    elsewhere = emulator.structure.add_directory(directory.organization_id, Provider.GOOGLE)
    read, walks = emulator.company.users, list[str]()

    def walk(directory_id: str) -> list[User]:
        walks.append(directory_id)
        return read(directory_id)

    monkeypatch.setattr(emulator.company, "users", walk)

    def look() -> int:
        """How many are listed."""
        for answer in pages(api.groups, directory):
            assert answer.groups[0].id == staff.id
        shown = api.directory(directory.organization_id, directory.id)
        listed = sum(len(answer.users) for answer in pages(api.users, directory, include_detail=True))
        assert shown.total_users == listed
        return listed

    assert (look(), look()) == (200, 200)
    assert walks == [directory.id]
    emulator.structure.rename_group(staff.id, "Crew")
    emulator.people.enrol([Newcomer("Zoe", "Doe", "zoe@example.com")], elsewhere.id)
    walks.clear()
    assert (look(), walks) == (200, [])
    emulator.people.enrol([Newcomer("Zoe", "Doe", "zoe@example.com")], directory.id)
    walks.clear()
    assert (look(), look(), walks) == (201, 201, [directory.id])


@pytest.mark.proof
def test_whoever_stays_is_listed_once_while_others_come_and_go(emulator: Emulator, api: Api, directory: Directory) -> None:
    """A page begins behind the last id of the one before, even when that one is gone; newcomers come last."""
    everybody = [user.id for user in crowd(emulator, directory, 5000)]
    ahead, gone, newcomers = everybody[-100:], set(), []

    listed: list[str] = []
    for number, answer in enumerate(pages(api.users, directory, page_size=30)):
        shown = [user.id for user in answer.users]
        listed += shown
        if number < 100:
            gone |= {emulator.people.purge(user_id).id for user_id in (shown[0], shown[-1], ahead[number])}
            newcomers.append(hired(emulator, directory, f"Late{number}").id)

    assert len(gone) == 300
    assert listed == [*everybody[:-100], *newcomers]


@pytest.mark.parametrize("what", ["users", "groups"])
def test_a_page_has_10_unless_told_and_30_at_most(emulator: Emulator, api: Api, directory: Directory, what: str) -> None:
    """After a last page that is full, no other is announced."""
    crowd(emulator, directory, 40)
    for number in range(40):
        emulator.structure.add_group(f"Group {number}", directory.id)
    call = getattr(api, what)

    sizes = {size: [len(getattr(answer, what)) for answer in pages(call, directory, page_size=size)] for size in (None, 0, 1, 10, 30)}

    assert sizes == {None: [10] * 4, 0: [10] * 4, 1: [1] * 40, 10: [10] * 4, 30: [30, 10]}
    assert call(directory, page_size=1).total_size == 40
    assert refusal(partial(call, directory, page_size=31)) == "INVALID_ARGUMENT"


def token(text: str) -> str:
    return f">:{urlsafe_b64encode(text.encode()).decode()}"


NOBODYS = [
    "1",
    "nonsense",
    "é",
    ">:",
    ">:%%%",
    token("nonsense"),
    token('["org_1"]'),
    token('["diruser_"]'),
    token('["diruser_one"]'),
    token('["diruser_1"]')[2:],
    token('["diruser_1"] '),
    token(f'["diruser_{"1" * 5000}"]'),
]


@pytest.mark.parametrize("page_token", NOBODYS, ids=range(len(NOBODYS)))
def test_a_token_that_no_list_gave_out_is_refused(api: Api, directory: Directory, page_token: str) -> None:
    for call in (partial(api.users, directory), partial(api.groups, directory), api.events):
        assert refusal(partial(call, page_token=page_token)) == "INVALID_ARGUMENT"


def test_a_token_is_good_for_lists_of_its_kind_alone(emulator: Emulator, api: Api, directory: Directory) -> None:
    """Users, groups, events."""
    crowd(emulator, directory, 2)
    for number in range(2):
        emulator.structure.add_group(f"Group {number}", directory.id)
    calls: list[Callable[..., Any]] = [partial(api.users, directory), partial(api.groups, directory), api.events]

    tokens = [call(page_size=1).next_page_token for call in calls]

    for number, call in enumerate(calls):
        call(page_token=tokens[number])
        for other in (tokens[number - 1], tokens[number - 2]):
            assert refusal(partial(call, page_token=other)) == "INVALID_ARGUMENT"


def test_what_is_not_the_organizations_is_not_found(emulator: Emulator, api: Api, directory: Directory) -> None:
    """A directory of another organization neither; and a name is no id."""
    other = emulator.structure.add_organization(f"Not {directory.organization_id}")
    elsewhere = emulator.structure.add_directory(other.id, Provider.GOOGLE)

    for organization_id in ("org_0", "", other.name):
        assert refusal(partial(api.directories, organization_id)) == "NOT_FOUND"
    for organization_id, directory_id in [
        (other.id, directory.id),
        (directory.organization_id, elsewhere.id),
        (directory.organization_id, "dir_0"),
        (directory.organization_id, ""),
        ("org_0", directory.id),
        ("", directory.id),
    ]:
        assert refusal(partial(api.directory, organization_id, directory_id)) == "NOT_FOUND"
        stranger = directory.model_copy(update={"organization_id": organization_id, "id": directory_id})
        assert refusal(partial(api.users, stranger)) == "NOT_FOUND"
        assert refusal(partial(api.groups, stranger)) == "NOT_FOUND"


def test_an_organization_that_is_deleted_is_known_no_more(emulator: Emulator, api: Api, directory: Directory) -> None:
    """Nor anything of it, by no call; nothing is said about that, and what was said before stays among the events."""
    organization_id = directory.organization_id
    everybody_and_groups(emulator, directory, 2)
    other = emulator.structure.add_organization(f"Not {organization_id}")
    sent = said(emulator, directory)

    emulator.structure.delete_organization(organization_id)

    for call in (partial(api.directories, organization_id), partial(api.directory, organization_id, directory.id)):
        assert refusal(call) == "NOT_FOUND"
    for lists in (api.users, api.groups):
        assert refusal(partial(lists, directory)) == "NOT_FOUND"
    assert not emulator.company.users(directory.id) + emulator.company.groups(directory.id)
    assert said(emulator, directory) == sent
    assert len(api.events(organization_id=organization_id).events) == len(sent)
    assert list(api.directories(other.id)) == []
    with pytest.raises(NotFound):
        emulator.structure.delete_organization(organization_id)


def test_an_organization_lists_its_directories_and_no_others(emulator: Emulator, api: Api, make: Made) -> None:
    """Of every provider, the disabled too."""
    made = [make(provider) for provider in Provider]
    emulator.structure.disable_directory(made[1].id)

    shown = api.directories(made[0].organization_id)

    assert [(each.id, each.organization_id, each.enabled) for each in shown] == [
        (each.id, each.organization_id, each != made[1]) for each in made
    ]
    names = type(shown[0]).DESCRIPTOR.fields_by_name["directory_provider"].enum_type.values_by_number
    assert [names[each.directory_provider].name for each in shown] == [each.provider.value for each in made]
    emulator.structure.delete_directory(made[0].id)
    assert [each.id for each in api.directories(made[0].organization_id)] == [each.id for each in made[1:]]


def test_a_directory_says_how_many_there_are_and_which_groups_give_roles(emulator: Emulator, api: Api, directory: Directory) -> None:
    """Alone as in the list. Who has gone for good does not count, who is inactive does; the default role is not named."""
    admins, staff = (emulator.structure.add_group(name, directory.id) for name in ("Admins", "Staff"))
    people = [hired(emulator, directory, name, staff) for name in ("Ann", "Ben", "Cleo")]
    emulator.people.purge(people[0].id)
    fired = emulator.people.fire(people[1].id)
    assigned = emulator.structure.map_role(admins.id, "admin", resend=False)

    shown = api.directory(directory.organization_id, directory.id)

    assert shown == api.directories(directory.organization_id)[0]
    assert [(each.group_id, each.role_name) for each in shown.role_assignments.assignments] == [(admins.id, "admin")]
    assert (shown.total_users, shown.total_groups) == (shown.stats.total_users, shown.stats.total_groups) == (2, 2)
    assert (nanoseconds(shown.stats.user_updated_at), nanoseconds(shown.stats.group_updated_at)) == (fired.updated_at, staff.updated_at)
    assert nanoseconds(shown.last_synced_at) == assigned.updated_at
    assert (shown.directory_type, shown.status) == (1, "COMPLETED")  # SCIM


def test_a_listed_user_has_names_addresses_and_groups_and_no_roles(emulator: Emulator, api: Api, directory: Directory) -> None:
    """To the nanosecond; and nothing that tells an active user from another."""
    groups = [emulator.structure.add_group(name, directory.id) for name in ("Staff", "Admins")]
    emulator.structure.map_role(groups[1].id, "admin")
    ann = emulator.people.suspend(hired(emulator, directory, "Ann", *groups).id)

    (shown,) = api.users(directory).users

    assert (shown.id, shown.email, shown.given_name, shown.family_name) == (ann.id, "ann@example.com", "Ann", "Doe")
    assert (shown.preferred_username, list(shown.emails)) == ("ann@example.com", ["ann@example.com"])
    assert [(group.id, group.display_name) for group in shown.groups] == [(group.id, group.name) for group in groups]
    assert nanoseconds(shown.updated_at) == ann.updated_at
    assert not shown.HasField("user_detail")
    assert not api.users(directory, include_detail=False).users[0].HasField("user_detail")


@pytest.mark.parametrize("provider", Provider)
def test_the_details_are_what_the_last_webhook_said_without_the_roles(emulator: Emulator, api: Api, make: Made, provider: Provider) -> None:
    """Of those who are there, of the suspended, and of those who are gone and still listed; nobody else is."""
    directory = make(provider)
    group = emulator.structure.add_group("Staff", directory.id)
    ann, ben, cleo, dora = [hired(emulator, directory, name, group) for name in ("Ann", "Ben", "Cleo", "Dora")]
    emulator.people.suspend(ben.id)
    cleo = emulator.people.fire(cleo.id)
    emulator.people.purge(dora.id)

    details = {user.id: as_json(user.user_detail) for user in api.users(directory, include_detail=True).users}

    last = {event.subject_id: json.loads(event.body)["data"] for event in said(emulator, directory)}
    listed = [ann.id, ben.id, *([cleo.id] if cleo.listed else [])]
    assert details == {user_id: {key: value for key, value in last[user_id].items() if key != "roles"} for user_id in listed}
    assert {user_id: detail["active"] for user_id, detail in details.items()} == {user_id: user_id == ann.id for user_id in listed}
    assert cleo.listed is (provider in (Provider.OKTA, Provider.ENTRA_ID))
    assert (details[ann.id]["name"], details[ann.id]["dp_id"], details[ann.id]["title"]) == ("Ann Doe", ann.dp_id, "Engineer")


def as_json(message: Any) -> Any:
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415

    return MessageToDict(message, preserving_proto_field_name=True)


def test_a_group_shows_the_number_of_its_members_and_its_upstream_id_when_asked(emulator: Emulator, api: Api, directory: Directory) -> None:
    """Who is gone for good is no member."""
    admins, staff = (emulator.structure.add_group(name, directory.id) for name in ("Admins", "Staff"))
    ann, ben, cleo = (hired(emulator, directory, name, staff) for name in ("Ann", "Ben", "Cleo"))
    emulator.people.regroup(ann.id, [admins.id])
    emulator.people.purge(ben.id)
    emulator.people.suspend(cleo.id)

    shown = api.groups(directory).groups
    detailed = api.groups(directory, include_detail=True).groups

    assert [(group.id, group.display_name, group.total_users) for group in shown] == [(admins.id, "Admins", 1), (staff.id, "Staff", 2)]
    assert [nanoseconds(group.updated_at) for group in shown] == [admins.updated_at, staff.updated_at]
    assert not any(group.HasField("group_detail") for group in shown)
    assert [group.group_detail["external_id"] for group in detailed] == [admins.external_id, staff.external_id]
    assert [group.group_detail["display_name"] for group in detailed] == ["Admins", "Staff"]


def test_the_members_of_a_group_page_like_everybody(emulator: Emulator, api: Api, directory: Directory) -> None:
    """The total is theirs; a group that is not there has none."""
    staff = emulator.structure.add_group("Staff", directory.id)
    everybody = [user.id for user in crowd(emulator, directory, 60)]
    members = everybody[::4]
    emulator.people.settle((user_id, [staff.id]) for user_id in members)

    answers = list(pages(api.users, directory, directory_group_id=staff.id))

    assert [user.id for answer in answers for user in answer.users] == members
    assert [(answer.total_size, len(answer.users)) for answer in answers] == [(15, 10), (15, 5)]
    assert api.users(directory, directory_group_id="dirgroup_0").total_size == 0


@pytest.mark.parametrize("what", ["users", "groups"])
def test_updated_after_means_later_to_the_nanosecond(emulator: Emulator, api: Api, directory: Directory, what: str) -> None:
    """Also for the total; a time that is past protobuf's last one is just late."""
    rows: dict[str, list[User] | list[Group]] = {
        "users": [hired(emulator, directory, name) for name in ("Ann", "Ben", "Cleo")],
        "groups": [emulator.structure.add_group(name, directory.id) for name in ("Admins", "Staff", "Crew")],
    }
    first, second, third = rows[what]

    def later(moment: Timestamp) -> list[str]:
        answer = getattr(api, what)(directory, updated_after=moment)
        assert answer.total_size == len(getattr(answer, what))
        return [each.id for each in getattr(answer, what)]

    assert later(at(second.updated_at)) == [third.id]
    assert later(at(second.updated_at - 1)) == [second.id, third.id]
    assert later(at(0)) == [first.id, second.id, third.id]
    assert later(at(10**27)) == []


def test_a_group_that_goes_while_its_members_are_listed_is_left_out(
    emulator: Emulator, api: Api, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users and groups are read one after the other: between the two the group is deleted here."""
    staff, crew = (emulator.structure.add_group(name, directory.id) for name in ("Staff", "Crew"))
    ann = hired(emulator, directory, "Ann", staff, crew)
    read = emulator.company.groups

    def delete_first(directory_id: str) -> list[Group]:
        emulator.structure.delete_group(staff.id)
        return read(directory_id)

    monkeypatch.setattr(emulator.company, "groups", delete_first)
    (shown,) = api.users(directory, include_detail=True).users

    assert (shown.id, [group.id for group in shown.groups]) == (ann.id, [crew.id])
    assert as_json(shown.user_detail["groups"]) == [{"id": crew.id, "name": "Crew"}]


def test_events_are_the_webhooks_newest_first(emulator: Emulator, api: Api, directory: Directory) -> None:
    """Envelope and data alike, the time to the nanosecond."""
    staff = emulator.structure.add_group("Staff", directory.id)
    ann = hired(emulator, directory, "Ann", staff)
    emulator.people.suspend(ann.id)
    emulator.structure.rename_group(staff.id, "Crew")
    emulator.structure.delete_group(staff.id)
    emulator.people.purge(ann.id)
    emulator.structure.disable_directory(directory.id)
    sent = said(emulator, directory)

    shown = api.events(organization_id=directory.organization_id, page_size=100).events

    assert [nanoseconds(event.occurred_at) for event in shown] == [event.occurred_at for event in reversed(sent)]
    assert [without_time(as_json(event)) for event in shown] == [without_time(json.loads(event.body)) for event in reversed(sent)]


def without_time(envelope: dict[str, Any]) -> dict[str, Any]:
    """Which protobuf's JSON writes with another number of zeros; and an empty name it leaves out."""
    return {key: value for key, value in envelope.items() if key not in ("occurred_at", "display_name")}


def test_what_is_done_in_silence_only_the_directories_show(emulator: Emulator, api: Api, directory: Directory) -> None:
    """No event tells of it, and what happens afterwards is told as ever; what another thread does meanwhile, too."""
    ann = hired(emulator, directory, "Ann")
    before = said(emulator, directory)

    with emulator.company.silent():
        staff = emulator.structure.add_group("Staff", directory.id)
        emulator.people.regroup(ann.id, [staff.id])
        ben = hired(emulator, directory, "Ben", staff)
        with emulator.company.silent():
            emulator.people.suspend(ann.id)
        cleo = hired(emulator, directory, "Cleo")
        with ThreadPoolExecutor(1) as another:
            another.submit(hired, emulator, directory, "Dora").result()
    told = said(emulator, directory)[len(before) :]
    emulator.people.suspend(cleo.id)

    shown = {user.id: user for user in api.users(directory, include_detail=True).users}
    assert [group.id for group in shown[ann.id].groups] == [group.id for group in shown[ben.id].groups] == [staff.id]
    assert not shown[ann.id].user_detail["active"]
    assert [json.loads(event.body)["data"]["given_name"] for event in told] == ["Dora"]
    assert [event.subject_id for event in said(emulator, directory)[len(before) + 1 :]] == [cleo.id]


def test_events_page_through_completely_and_once_while_more_happen(emulator: Emulator, api: Api, directory: Directory) -> None:
    """What happens meanwhile is newer than the first page, so it is not met."""
    crowd(emulator, directory, 1000)
    sent = [event.id for event in said(emulator, directory)]

    listed: list[str] = []
    for answer in pages(api.events, organization_id=directory.organization_id, page_size=100):
        listed += [event.id for event in answer.events]
        hired(emulator, directory, f"Late{len(listed)}")

    assert listed == sent[::-1]


def test_a_page_of_events_has_10_unless_told_and_100_at_most(emulator: Emulator, api: Api, directory: Directory) -> None:
    """As the SDK's protobuf states both."""
    crowd(emulator, directory, 100)

    sizes = {size: len(api.events(page_size=size).events) for size in (None, 0, 1, 100, 101)}

    assert sizes == {None: 10, 0: 10, 1: 1, 100: 100, 101: 100}


def test_events_are_found_by_type_organization_and_time(emulator: Emulator, api: Api, directory: Directory) -> None:
    """Both ends of the time included; what directories' events have nothing of finds none."""
    staff = emulator.structure.add_group("Staff", directory.id)
    hired(emulator, directory, "Ann", staff)
    hired(emulator, emulator.structure.add_directory(emulator.structure.add_organization(f"Not {directory.id}").id, Provider.OKTA), "Ben")
    enabled, group, created, updated = said(emulator, directory)

    def found(organization_id: str = directory.organization_id, **asked: Any) -> list[str]:
        return [event.id for event in api.events(organization_id=organization_id, **asked).events]

    def ids(*events: Event) -> list[str]:
        return [event.id for event in events]

    assert found() == ids(updated, created, group, enabled)
    assert found(event_types=[created.type]) == ids(created)
    assert found(event_types=[group.type, updated.type]) == ids(updated, group)
    assert found(event_types=["organization.directory.user_promoted"]) == []
    assert found(organization_id="org_0") == []
    assert found(start_time=at(created.occurred_at)) == ids(updated, created)
    assert found(start_time=at(created.occurred_at + 1)) == ids(updated)
    assert found(end_time=at(created.occurred_at)) == ids(created, group, enabled)
    assert found(end_time=at(created.occurred_at - 1)) == ids(group, enabled)
    assert found(start_time=at(group.occurred_at), end_time=at(group.occurred_at)) == ids(group)
    assert found(source="DIR_SYNC") == ids(updated, created, group, enabled)
    assert found(source="SCALEKIT") == []
    assert found(connection_id="conn_1") == []
    assert refusal(partial(found, start_time=at(group.occurred_at), end_time=at(group.occurred_at - 1))) == "INVALID_ARGUMENT"


def test_of_all_organizations_the_newest_events_come_first(emulator: Emulator, api: Api, make: Made) -> None:
    """Without a filter."""
    first, second = make(Provider.OKTA), make(Provider.GOOGLE)
    happened = [hired(emulator, directory, f"Ann{number}") for number, directory in enumerate([first, second, first, second])]

    shown = api.events(page_size=4).events

    assert [event.data["id"] for event in shown] == [user.id for user in reversed(happened)]


def test_whoever_comes_with_an_expired_token_gets_another_and_goes_on(emulator: Emulator, directory: Directory) -> None:
    """The SDK does that by itself, once; it then sends both tokens, the good one first."""
    everybody = [user.id for user in crowd(emulator, directory, 25)]
    with emulator.faults.during(Door.OAUTH, Fault.EXPIRED):
        late = Api(emulator)
    issued = emulator.tokens.issued

    listed = [user.id for answer in pages(late.users, directory) for user in answer.users]
    late.close()

    assert listed == everybody
    assert emulator.tokens.issued == issued + 1


def test_a_token_that_stays_expired_is_refused(emulator: Emulator, directory: Directory) -> None:
    """So that the test above does not pass because nobody looks."""
    with emulator.faults.during(Door.OAUTH, Fault.EXPIRED):
        late = Api(emulator)
        assert refusal(partial(late.users, directory)) == "UNAUTHENTICATED"
    late.close()


def test_a_burst_is_paged_through_completely(emulator: Emulator, api: Api, directory: Directory) -> None:
    """A deleted group's events come in no order of their subjects, and are listed by time nevertheless."""
    group = emulator.structure.add_group("Burst", directory.id)
    crowd(emulator, directory, 20)
    emulator.people.settle([(user.id, [group.id]) for user in emulator.company.users(directory.id)])
    emulator.structure.delete_group(group.id)
    sent = [event for event in emulator.company.events() if event.organization_id == directory.organization_id]

    listed = [event.id for answer in pages(api.events, organization_id=directory.organization_id, page_size=3) for event in answer.events]

    assert listed == [event.id for event in sorted(sent, key=lambda event: event.occurred_at, reverse=True)]


@pytest.mark.parametrize("what", ["users", "groups"])
@pytest.mark.parametrize(("fault", "share"), [(Fault.CUT_SHORT, 0.4), (Fault.EMPTY, 0)])
def test_a_list_that_falls_short_says_nothing_of_it(
    emulator: Emulator, api: Api, directory: Directory, what: str, fault: Fault, share: float
) -> None:
    """It ends with 200, without a next page, in agreement with itself; the directory counts as it should, and the other list is whole."""
    everything = everybody_and_groups(emulator, directory, 100)
    others = "groups" if what == "users" else "users"

    with emulator.faults.during(Door(what), fault):
        answers = list(pages(getattr(api, what), directory, page_size=30, include_detail=True))
        shown = api.directory(directory.organization_id, directory.id)
        untouched = list(pages(getattr(api, others), directory, page_size=30))

    assert [each.id for answer in answers for each in getattr(answer, what)] == everything[what][: int(100 * share)]
    assert {answer.total_size for answer in answers} == {100 * share}
    assert (shown.total_users, shown.total_groups) == (100, 100)
    assert [each.id for answer in untouched for each in getattr(answer, others)] == everything[others]
    assert len(list(pages(getattr(api, what), directory, page_size=30))) == 4


@pytest.mark.parametrize("what", ["users", "groups"])
def test_later_pages_fail_while_the_first_is_there(emulator: Emulator, api: Api, directory: Directory, what: str) -> None:
    """For ever, or to the first two calls since the fault was set."""
    everything = everybody_and_groups(emulator, directory, 70)[what]
    call = partial(getattr(api, what), directory, page_size=30)
    first = call()
    second = partial(call, page_token=first.next_page_token)
    api.retrying = False

    with emulator.faults.during(Door(what), Fault.LATER_PAGES_FAIL):
        for _ in range(4):
            assert refusal(second) == "UNAVAILABLE"
        assert call() == first
    for _ in range(2):
        with emulator.faults.during(Door(what), Fault.LATER_PAGES_FAIL_TWICE):
            assert call() == first
            assert [refusal(second) for _ in range(2)] == ["UNAVAILABLE"] * 2
            assert [each.id for answer in pages(call) for each in getattr(answer, what)] == everything


@pytest.mark.parametrize("what", ["users", "groups"])
@pytest.mark.parametrize("size", [5, 70])
def test_a_page_leads_to_itself_for_ever(emulator: Emulator, api: Api, directory: Directory, what: str, size: int) -> None:
    """The first, the second, and one on which everything is."""
    everything = everybody_and_groups(emulator, directory, size)[what]
    call = partial(getattr(api, what), directory, page_size=30)
    second = call().next_page_token

    with emulator.faults.during(Door(what), Fault.SAME_PAGE):
        walk = list(islice(pages(call), 4))
        assert not second or call(page_token=second).next_page_token == second

    assert [[each.id for each in getattr(answer, what)] for answer in walk] == [everything[:30]] * 4
    assert len({answer.next_page_token for answer in walk}) == 1


@pytest.mark.parametrize(("fault", "counted"), [(Fault.TOTAL_ONE_MORE, 4), (Fault.TOTAL_ZERO, 0)])
def test_a_directory_counts_its_users_wrong(emulator: Emulator, api: Api, directory: Directory, fault: Fault, counted: int) -> None:
    """Alone as in the list, both times that it says it. The groups it counts right, and whoever is there is listed."""
    everybody_and_groups(emulator, directory, 3)

    with emulator.faults.during(Door.DIRECTORIES, fault):
        shown = api.directory(directory.organization_id, directory.id)
        assert shown == api.directories(directory.organization_id)[0]
        assert api.users(directory).total_size == len(api.users(directory).users) == 3

    assert (shown.total_users, shown.stats.total_users) == (counted, counted)
    assert (shown.total_groups, shown.stats.total_groups) == (3, 3)


def test_users_come_without_the_details_that_were_asked_for(emulator: Emulator, api: Api, directory: Directory) -> None:
    """Or with details that do not say who is active; all else is as always, and who asks for none gets none."""
    hired(emulator, directory, "Ann")
    (usual,) = api.users(directory, include_detail=True).users
    (bare,) = api.users(directory).users

    with emulator.faults.during(Door.USERS, Fault.DETAIL_MISSING):
        (without,) = api.users(directory, include_detail=True).users
    with emulator.faults.during(Door.USERS, Fault.ACTIVE_MISSING):
        (silent,) = api.users(directory, include_detail=True).users
        assert api.users(directory).users == [bare]

    assert without == bare
    assert as_json(silent.user_detail) == {key: value for key, value in as_json(usual.user_detail).items() if key != "active"}


def test_an_organization_is_found_by_either_of_its_ids(emulator: Emulator, api: Api, directory: Directory) -> None:
    """By each it is the same one; an external id is one organization's, can be taken back, and is then nobody's."""
    here, called = directory.organization_id, f"tenant of {directory.id}"
    assert (api.organization("id", here).id, api.organization("id", here).HasField("external_id")) == (here, False)
    emulator.structure.set_external_id(here, called)
    assert {(said.id, said.external_id) for said in (api.organization("id", here), api.organization("external_id", called))} == {
        (here, called)
    }
    with pytest.raises(Conflict):
        emulator.structure.add_organization(f"Not {here}", external_id=called)
    with pytest.raises(Conflict):
        emulator.structure.set_external_id("org_1", called)
    emulator.structure.set_external_id(here, None)
    assert refusal(lambda: api.organization("external_id", called)) == "NOT_FOUND"


def test_an_organization_is_asked_for_as_strictly_as_of_the_real_one(api: Api, directory: Directory) -> None:
    """The rules that the SDK's own descriptors carry; nothing else than an external id is taken for one."""
    here = directory.organization_id
    refused = {
        "NOT_FOUND": [("id", "org_unknown"), ("external_id", here)],
        "INVALID_ARGUMENT": [("id", "x" * 33), ("id", ""), ("external_id", "")],
    }
    for status, asked in refused.items():
        for by, text in asked:
            assert refusal(lambda by=by, text=text: api.organization(by, text)) == status  # type: ignore[misc]
