"""An organization answers to the application's own id of it, `ext:…`, wherever an id is taken; and no other organization does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Barrier
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, select, text
from sqlalchemy import event as listening

from databases import Databases
from described import Operation, operations_of
from factories import delivery, event, named, roles
from operations import visiting
from operators import Command, Done
from provisioning.api.admin.asked import PER_PAGE
from provisioning.api.dependencies import RESOLVING
from provisioning.db import organizations, runs
from provisioning.db.models import groups, users
from provisioning.db.models import organizations as table
from provisioning.db.session import Database
from provisioning.emulator.faults import Door, Fault
from provisioning.errors import UnknownOrganization
from provisioning.inbox import Inbox
from reconciling import Reconciling, reaching
from rows import NOW, put
from service import OPERATE_KEY, PORTAL_KEY, READ_KEY, bearer, running

if TYPE_CHECKING:
    from provisioning.emulator.records import Organization
    from provisioning.emulator.server import Emulator

AN_HOUR = timedelta(hours=1)
ALL_SCOPES = "everything".ljust(32, "0")
_numbers = count(1)

# Where the database has no part in it.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
desk_on_sqlite = pytest.mark.parametrize("service_on", ["sqlite"], indirect=True)


@dataclass
class Customer:
    """An organization that Scalekit calls `id` and the application `called`, with one of everything here; `ids` fill a path."""

    id: str
    called: str
    ids: dict[str, str]

    @property
    def external(self) -> str:
        return f"ext:{self.called}"


@dataclass
class Desk:
    """The service, the local Scalekit behind it, and whoever asks with every scope."""

    emulator: Emulator
    database: Database
    client: TestClient
    operations: list[Operation]

    def customer(self) -> Customer:
        """A new one, of which a directory has told; a run of it is under way elsewhere, and stays so."""
        called = f"tenant-{next(_numbers)} é"
        made = self.emulator.structure.add_organization(f"Customer {called}", external_id=called)
        in_group: dict[str, Any] = {"groups": named(f"grp_{made.id}"), "roles": roles("member")}
        told = event("user_created", f"du_{made.id}", organization_id=made.id, email=f"{made.id}@x.com", **in_group)
        Inbox(self.database).receive([delivery(told, f"msg_{made.id}")])
        now = datetime.now(UTC)
        with self.database.writing() as session:
            runs.request(session, made.id, dry_run=False, requested_by="test", now=now)
            run = runs.claim(session, owner="elsewhere", now=now, lease=AN_HOUR)
            assert run
            user_id = session.execute(select(users.c.id).where(users.c.organization_id == made.id)).scalar_one()
            group_id = session.execute(select(groups.c.id).where(groups.c.organization_id == made.id)).scalar_one()
        return Customer(made.id, called, {"user_id": user_id, "group_id": group_id, "run_id": run.id})

    def asked(self) -> int:
        """How often Scalekit was asked for an organization."""
        text = self.client.get("/metrics", headers=bearer()).text
        found = re.findall(r'call_duration_seconds_count\{call="GetOrganization",result="\w+"\} (\d+)', text)
        return sum(map(int, found))

    def users(self, organization: str, key: str = READ_KEY) -> Response:
        """Its users: the status, and who."""
        return self.client.get(f"/v1/organizations/{quote(organization, safe='')}/users", headers=bearer(key))

    def ask(self, what: Operation, organization: str, ids: dict[str, str], key: str = ALL_SCOPES) -> Response:
        """The answer to it."""
        url = what.path.format(organization_id=quote(organization, safe=""), **ids)
        return self.client.request(what.method, url, json=what.body, headers=bearer(key))

    def every(self, *names: str, ids: dict[str, str]) -> Iterator[list[tuple[int, Any]]]:
        """What each of them answers to an organization called by these names, one after another."""
        for each in self.operations:
            yield [seen(self.ask(each, name, ids)) for name in names]


def seen(answer: Response) -> tuple[int, Any]:
    """The status, and what is said that does not differ from one request to the next."""
    said = answer.json() if answer.content else None
    if isinstance(said, dict):
        said = {name: value for name, value in said.items() if name not in {"request_id", "id", "location", "expires_at", "updated_at"}}
    return answer.status_code, said


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service_on(request: pytest.FixtureRequest, started_emulator: Emulator) -> Iterator[Desk]:
    """The service on a database of either kind, for all tests here: each brings its own customers."""
    keys = f"everything:read+operate+portal:{ALL_SCOPES} reader:read:{READ_KEY} frontend:portal:{PORTAL_KEY} operator:operate:{OPERATE_KEY}"
    given = {**reaching(started_emulator), "portal_origins": started_emulator.portal_origin, "api_keys": keys}
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    with databases.fresh(migrated=True) as url, closing(Database(url)) as database, running(url, **given) as client:
        found = [each for each in operations_of(client) if "{organization_id}" in each.path]
        assert len(found) > 15
        yield Desk(started_emulator, database, client, sorted(found, key=lambda each: each.method != "get"))


@pytest.fixture
def desk(service_on: Desk, emulator: Emulator) -> Desk:
    """The service, with Scalekit behind it."""
    return service_on


@contextmanager
def statements(about: str) -> Iterator[list[str]]:
    """Those inside the `with` that have this in them, on any database."""
    found: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        found.extend([statement] if about in statement else [])

    listening.listen(Engine, "before_cursor_execute", note)
    yield found
    listening.remove(Engine, "before_cursor_execute", note)


def say(database: Database, organization_id: str, external_id: str | None, at: datetime) -> None:
    """Scalekit said so then."""
    database.write(lambda session: organizations.set_external_id(session, organization_id, external_id, at))


def whose(database: Database, external_id: str) -> str | None:
    """The organization that this names."""
    with database.reading() as session:
        return organizations.by_external_id(session, external_id)


def test_every_route_answers_the_same_to_either_id(desk: Desk) -> None:
    """Each operation of the API's description with an organization in its path; what it answers names Scalekit's id alone."""
    ours, others = desk.customer(), desk.customer()
    for by_id, by_external_id in desk.every(ours.id, ours.external, ids=ours.ids):
        assert by_external_id == by_id
        assert by_id[0] in {200, 201, 202, 409}, by_id
        assert ours.called not in str(by_external_id)
    for by_id, by_external_id in desk.every(others.id, others.external, ids=ours.ids):
        assert by_external_id == by_id
        assert ours.id not in str(by_external_id)


def test_an_external_id_that_moved_means_the_other_from_then_on(desk: Desk) -> None:
    """On every route, with nothing of the one that had it before, once Scalekit has said so."""
    ours, others = desk.customer(), desk.customer()
    assert desk.users(ours.external).status_code == 200
    say(desk.database, others.id, ours.called, datetime.now(UTC))
    for ids in (others.ids, ours.ids):
        for by_id, by_external_id in desk.every(others.id, ours.external, ids=ids):
            assert by_external_id == by_id
            assert ours.id not in str(by_external_id)


def test_lists_of_everything_take_either_id(desk: Desk) -> None:
    """`?organization_id=` of the changes and of the deliveries, to read and to replay."""
    ours, others = desk.customer(), desk.customer()
    for method, path in (("GET", "/v1/changes"), ("GET", "/v1/deliveries"), ("POST", "/v1/deliveries/replay")):
        answers = [
            seen(desk.client.request(method, path, params={"organization_id": each}, headers=bearer(ALL_SCOPES)))
            for each in (ours.id, ours.external, others.external)
        ]
        [by_id, by_external_id, of_others] = answers
        assert by_id[0] == 200
        if path != "/v1/deliveries/replay":  # which counts attempts
            assert by_external_id == by_id
        assert {each["organization_id"] for each in by_external_id[1]["data"]} == {ours.id}
        assert {each["organization_id"] for each in of_others[1]["data"]} == {others.id}


@desk_on_sqlite
def test_every_route_declares_what_may_come_of_a_look_up(desk: Desk) -> None:
    """Each with an organization in its path, in the API's description."""
    for path, item in desk.client.get("/openapi.json").json()["paths"].items():
        if "{organization_id}" in path:
            for method, operation in item.items():
                assert {*map(str, RESOLVING)} <= operation["responses"].keys(), (method, path)


@desk_on_sqlite
def test_nobody_without_the_right_causes_a_look_up(desk: Desk) -> None:
    """401 without a key, 403 without the scope; neither the database nor Scalekit is asked whose id it is."""
    ours = desk.customer()
    lists = [("GET", "/v1/changes", PORTAL_KEY), ("GET", "/v1/deliveries", PORTAL_KEY), ("POST", "/v1/deliveries/replay", READ_KEY)]
    asked_before = desk.asked()
    with statements("organizations.external_id = ") as looked_up:
        for each in desk.operations:
            assert [desk.ask(each, ours.external, ours.ids, key).status_code for key in ("", "x" * 32)] == [401, 401]
            refused = [key for key in (READ_KEY, PORTAL_KEY, OPERATE_KEY) if desk.ask(each, ours.id, ours.ids, key).status_code == 403]
            assert len(refused) == 2, each
            assert [desk.ask(each, ours.external, ours.ids, key).status_code for key in refused] == [403, 403]
        for method, path, key in lists:
            asked = {"organization_id": ours.external}
            assert desk.client.request(method, path, params=asked).status_code == 401
            assert desk.client.request(method, path, params=asked, headers=bearer(key)).status_code == 403
        assert (looked_up, desk.asked()) == ([], asked_before)
        assert desk.users(ours.external).status_code == 200
        assert looked_up
        assert desk.asked() == asked_before + 1


ODD = [
    *("", "\x00", "a\x00b", "a" * 1000, "a" * 508, "/", "../x", "a/b", "ünï ☃", "\u202e", "org_1", "ext:", "ext:ext:org_1", "%", "\n"),
    "' OR 1=1 --",
]


def test_what_is_odd_is_not_found(desk: Desk) -> None:
    """404 or 422 whatever comes after `ext:`, wherever it is asked; never another organization's data, never a 500."""
    ours = desk.customer()
    for odd in [*ODD, ours.id, f"ext:{ours.called}", f"{ours.called}\x00", ours.called.upper(), f" {ours.called}"]:
        given = f"ext:{odd}"
        answers = [
            desk.users(given),
            desk.client.post(f"/v1/organizations/{quote(given, safe='')}/portal-links", headers=bearer(PORTAL_KEY)),
        ]
        answers += [
            desk.client.get(path, params={"organization_id": given}, headers=bearer(READ_KEY)) for path in ("/v1/changes", "/v1/deliveries")
        ]
        assert {answer.status_code for answer in answers} <= {404, 422}, (odd, [answer.text for answer in answers])
        assert ours.id not in "".join(answer.text for answer in answers)


def test_what_is_known_is_answered_by_the_database_alone(desk: Desk) -> None:
    """Scalekit is asked once, and need not be there any more."""
    ours, asked_before = desk.customer(), desk.asked()
    first = desk.users(ours.external)
    with desk.emulator.faults.during(Door.API, Fault.REFUSE), statements("organizations.external_id = ") as executed:
        assert desk.users(ours.external).json() == first.json()
        assert desk.users(ours.id).json() == first.json()
    assert len(executed) == 1  # of the two
    assert desk.asked() == asked_before + 1
    listed = desk.client.get("/v1/organizations", params={"limit": 200}, headers=bearer()).json()["data"]
    assert [each["external_id"] for each in listed if each["id"] == ours.id] == [ours.called]


@desk_on_sqlite
def test_what_is_unknown_is_asked_once_in_half_a_minute(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it comes; then again, and what Scalekit says by then is heard."""
    called, asked_before = f"late-{next(_numbers)}", desk.asked()
    problems = [desk.users(f"ext:{called}").json() for _ in range(5)]
    assert {problem["type"] for problem in problems} == {"urn:provisioning:problem:unknown-organization"}
    assert desk.asked() == asked_before + 1
    made = desk.emulator.structure.add_organization(called, external_id=called)
    assert desk.users(f"ext:{called}").status_code == 404
    monkeypatch.setattr("provisioning.organizations.REMEMBERED", 0)
    assert desk.users(f"ext:{called}").status_code == 200
    assert whose(desk.database, called) == made.id


@desk_on_sqlite
def test_who_asks_at_once_shares_a_call(desk: Desk) -> None:
    """Whether Scalekit knows it or not; each is told the same."""
    service: Any = desk.client.app
    resolve: Callable[[str], Awaitable[str]] = service.state.services.organizations.resolve
    ours, asked_before = desk.customer(), desk.asked()

    async def at_once(given: str) -> list[str | BaseException]:
        return await asyncio.gather(*(resolve(given) for _ in range(8)), return_exceptions=True)

    assert desk.client.portal
    problems = desk.client.portal.call(at_once, f"ext:nobody-{next(_numbers)}")
    assert {type(problem) for problem in problems} == {UnknownOrganization}
    assert desk.asked() == asked_before + 1
    assert desk.client.portal.call(at_once, ours.external) == [ours.id] * 8


@desk_on_sqlite
def test_an_answer_that_is_outdated_already_is_asked_for_once(desk: Desk) -> None:
    """Something newer was said of the organization: for half a minute its former id is nobody's."""
    ours, asked_before = desk.customer(), desk.asked()
    say(desk.database, ours.id, "renamed", datetime.now(UTC) + AN_HOUR)
    assert [desk.users(ours.external).status_code for _ in range(3)] == [404] * 3
    assert desk.asked() == asked_before + 1


@desk_on_sqlite
def test_a_failure_of_scalekit_is_said_and_not_remembered(desk: Desk) -> None:
    """502, 503, 504 as of every call; the next request asks anew."""
    ours = desk.customer()
    for fault, status in ((Fault.REFUSE, 502), (Fault.RATE_LIMIT, 503), (Fault.AWAY, 504)):
        with desk.emulator.faults.during(Door.API, fault):
            assert desk.users(ours.external).status_code == status
    assert desk.users(ours.external).status_code == 200


@on_sqlite
def test_without_credentials_only_what_is_known_is_found(database: Database, database_url: str) -> None:
    """The others are a 404 that says what is missing."""
    put(database, table, {"id": "org_1", "external_id": "acme", "external_id_at": NOW, "created_at": NOW})
    with running(database_url) as client:
        assert client.get("/v1/organizations/ext:acme/users", headers=bearer()).status_code == 200
        answer = client.get("/v1/organizations/ext:other/users", headers=bearer())
    assert answer.status_code == 404
    assert "SCALEKIT_ENVIRONMENT_URL" in answer.json()["detail"]


@on_sqlite
def test_the_operations_page_finds_it(database: Database, database_url: str) -> None:
    """In its field for an organization's id."""
    put(database, table, {"id": "org_1", "external_id": "acme", "external_id_at": NOW, "created_at": NOW})
    with visiting(database_url) as visit:
        visit.log_in()
        answer = visit.get(visit.get("/admin/organizations?id=ext:acme").headers["location"])
    assert answer.status_code == 200
    assert "org_1" in answer.text


@on_sqlite
def test_the_operations_pages_list_of_deliveries_takes_either_id(database: Database, database_url: str) -> None:
    """And goes on to its next page as it was asked; what nobody is called is said, and nothing is listed."""
    put(database, table, {"id": "org_1", "external_id": "acme", "external_id_at": NOW, "created_at": NOW})
    for number in range(PER_PAGE + 1):
        Inbox(database).receive([delivery(event("user_created", f"du_{number}", organization_id="org_1"), f"msg_{number}")])
    Inbox(database).receive([delivery(event("user_created", "du", organization_id="org_2"), "msg_of_another")])
    with visiting(database_url) as visit:
        visit.log_in()
        by_id, by_external_id = (visit.get(f"/admin/deliveries?organization_id={each}") for each in ("org_1", "ext:acme"))
        unknown = visit.get("/admin/deliveries?organization_id=ext:nobody")
    listed = [set(re.findall(r"/admin/deliveries/(msg_\w+)", page.text)) for page in (by_id, by_external_id)]
    assert listed[0] == listed[1]
    assert len(listed[0]) == PER_PAGE
    assert "organization_id=ext%3Aacme" in by_external_id.text
    assert (unknown.status_code, re.findall("msg_", unknown.text)) == (404, [])


def test_an_id_is_one_organizations_however_many_say_so_at_once(database: Database) -> None:
    """The one of whom it was said last has it, and no other; each organization is known."""
    threads = 6
    for n in range(5):
        called, begin = f"wanted-{n}", Barrier(threads)

        def give(number: int, called: str = called, begin: Barrier = begin, n: int = n) -> None:
            begin.wait(10)
            say(database, f"org_{n}_{number}", called, NOW + timedelta(seconds=number * 7 % threads))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(give, range(threads)))
        with database.reading() as session:
            having = session.execute(select(table.c.id).where(table.c.external_id == called)).scalars().all()
            known = session.execute(select(table.c.id).where(table.c.id.like(f"org\\_{n}\\_%", escape="\\"))).scalars().all()
        assert (having, len(known)) == ([f"org_{n}_5"], threads)


def test_what_was_said_earlier_changes_nothing_that_was_said_later(database: Database) -> None:
    """Of the organization, or of the id: an answer that was long on its way."""
    say(database, "org_1", "acme", NOW)
    say(database, "org_2", "acme", NOW + timedelta(seconds=2))
    say(database, "org_1", "acme", NOW + timedelta(seconds=1))
    assert whose(database, "acme") == "org_2"
    say(database, "org_2", None, NOW + timedelta(seconds=1))
    assert whose(database, "acme") == "org_2"
    say(database, "org_2", None, NOW + timedelta(seconds=3))
    assert whose(database, "acme") is None


def test_it_is_found_by_its_index(database: Database) -> None:
    """Among many organizations."""
    put(database, table, *({"id": f"org_{n}", "external_id": f"tenant-{n}", "external_id_at": NOW, "created_at": NOW} for n in range(500)))
    explain, analyze = ("EXPLAIN QUERY PLAN", "ANALYZE") if database.dialect == "sqlite" else ("EXPLAIN", "ANALYZE organizations")
    with database.writing() as session:
        session.execute(text(analyze))
    with database.reading() as session, statements("organizations.external_id = ") as executed:
        assert organizations.by_external_id(session, "tenant-7") == "org_7"
        literal = re.sub(r"(external_id = )\S+", r"\1'tenant-7'", executed[0])
        plan = session.execute(text(f"{explain} {literal}")).all()
    assert "ix_organizations_external_id" in str(plan)


def test_a_run_follows_what_the_application_calls_it(reconciling: Reconciling) -> None:
    """Given, changed, moved, withdrawn; a dry run only looks, and a run that finds nothing new writes nothing of it."""
    here, structure, database = reconciling.organization_id, reconciling.emulator.structure, reconciling.database
    first, second = (f"followed-{next(_numbers)}" for _ in range(2))
    structure.set_external_id(here, first)
    reconciling.run(dry_run=True)
    assert whose(database, first) is None
    say(database, "org_before", first, NOW)
    reconciling.run()
    assert whose(database, first) == here
    structure.set_external_id(here, second)
    reconciling.run()
    assert (whose(database, first), whose(database, second)) == (None, here)
    before = reconciling.dump()["organizations"]
    with reconciling.writes() as written:
        reconciling.run()
    assert not [statement for statement in written if "external_id" in statement]
    assert {row["external_id_at"] for row in reconciling.dump()["organizations"]} == {row["external_id_at"] for row in before}
    structure.set_external_id(here, None)
    reconciling.run()
    assert whose(database, second) is None


def test_a_run_goes_on_where_scalekit_does_not_say(reconciling: Reconciling) -> None:
    """Here it refuses this one call: the id is longer than it takes. What is known of it stays."""
    organization_id = f"org_{next(_numbers):040}"
    made: Organization = reconciling.emulator.structure.add_organization(organization_id, organization_id)
    reconciling.emulator.structure.add_directory(made.id, reconciling.directory.provider)
    say(reconciling.database, made.id, "kept", NOW)
    assert reconciling.run(made.id).state == "done"
    assert whose(reconciling.database, "kept") == made.id


@pytest.fixture
def told(reconciling: Reconciling, command: Command, database_url: str) -> Callable[[str, str], Done]:
    """Runs a command line with an organization for ORG; Scalekit has an external id for the one that there is: `typed`."""
    reconciling.emulator.structure.set_external_id(reconciling.organization_id, "typed")
    settings = {**reconciling.emulator.settings(), "DATABASE_URL": database_url, "PROVISIONING_SCALEKIT_CALLS_PER_SECOND": "1000"}
    return lambda line, organization: command(line.replace("ORG", organization), **settings)


COMMANDS = (
    *("explain ORG WHOM", "history ORG WHOM", "refresh ORG", "deliveries list --organization ORG", "deliveries replay --organization ORG"),
    *("export WHOM --organization ORG", "reconcile ORG --dry-run", "portal-link ORG", "check --live ORG", "erase WHOM --organization ORG"),
)
# What differs each time that a command is run.
ONES_OWN = r"[0-9-]{10}[T ][0-9:.]{8,}|run_[0-9a-f]{24}|magicLink/\S+|[0-9.]+ days|[0-9]+ s (ahead of|behind)"


@on_sqlite
def test_every_command_takes_either_id(reconciling: Reconciling, told: Callable[[str, str], Done]) -> None:
    """And prints Scalekit's; erasing asks whether that is meant. What nobody is called is said in one line."""
    [user] = reconciling.hire(1)
    reconciling.hear()
    for line in COMMANDS:
        by_id, by_external_id = (
            replace(done, stdout=re.sub(ONES_OWN, "", done.stdout), stderr=re.sub(ONES_OWN, "", done.stderr))
            for done in (told(line.replace("WHOM", user.email), each) for each in (reconciling.organization_id, "ext:typed"))
        )
        assert by_external_id == by_id, line
        assert by_id.code == (1 if line.startswith("erase") else 0), (line, by_id)
        assert "typed" not in f"{by_external_id}", line
    for odd in ("ext:", "ext:nobody", "ext:ext:typed", "ext:\u202e", f"ext:{'a' * 1000}"):
        done = told("history ORG jane@x.com", odd)
        assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "organization" in done.stderr
