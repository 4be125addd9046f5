"""What the application reads is what the rows mean, page by page."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text, update

from provisioning.api.paging import cursor
from provisioning.db import migrations
from provisioning.db.models import (
    application_ids,
    deliveries,
    directories,
    directory_users,
    groups,
    memberships,
    organizations,
    role_grants,
    users,
)
from provisioning.db.reading.groups import one_group, page_of_groups
from provisioning.db.reading.users import UserFilter, page_of_users
from provisioning.db.session import Database
from rows import NOW, ORGANIZATION, put, put_all
from service import bearer, running

USERS = f"/v1/organizations/{ORGANIZATION}/users"
GROUPS = f"/v1/organizations/{ORGANIZATION}/groups"
LISTS = (
    "/v1/organizations",
    USERS,
    GROUPS,
    f"{GROUPS}/grp_1/members",
    f"{GROUPS}/grp_1/history",
    f"/v1/organizations/{ORGANIZATION}/directories",
    "/v1/deliveries",
)


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """A caller that may read."""
    with running(database_url) as client:
        client.headers.update(bearer())
        yield client


@pytest.mark.parametrize("query", ["emial=a@x.com", "Active=true", "email[]=a@x.com", "limit=1&limit=2", "limit=1&unknown"])
def test_a_misspelt_or_repeated_parameter_is_refused(client: TestClient, query: str) -> None:
    """Passed over, a misspelt filter would answer with everybody."""
    for path in LISTS:
        answer = client.get(f"{path}?{query}")
        assert answer.status_code == 422
        assert "a@x.com" not in answer.text


def all_of(client: TestClient, path: str, **parameters: str | bool) -> list[dict[str, Any]]:
    """Everything in a list, page after page."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get(path, params={**parameters, **after}).raise_for_status().json()
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        after = {"cursor": page["next_cursor"]}


def ids(client: TestClient, path: str, **parameters: str | bool) -> list[str]:
    """The ids in a list."""
    return [each["id"] for each in all_of(client, path, **parameters)]


def people(database: Database, *user_ids: str, **columns: object) -> None:
    """Users, each with one directory user behind it."""
    put(database, users, *({"id": user_id, **columns} for user_id in user_ids))
    active = columns.get("active", True)
    put(database, directory_users, *({"id": f"du_{user_id}", "user_id": user_id, "active": active} for user_id in user_ids))


def test_a_user_shows_what_the_contract_says(client: TestClient, database: Database) -> None:
    """Every field is there, with the values that are stored, and with those of the directory users behind it."""
    profile = {"email": "Ada@example.com", "name": "Ada", "given_name": "A", "family_name": "L", "preferred_username": "ada"}
    put(database, users, {"id": "usr_1", **profile, "email_key": "ada@example.com", "attributes": {"department": ["Engines", 1, None]}})
    put(database, application_ids, {"user_id": "usr_1", "application_id": "42", "set_by": "ops", "set_at": NOW})
    put(database, directory_users, {"id": "du_1", "user_id": "usr_1", "external_id": "00u1", "email": "ada@example.com"})
    put(database, groups, {"id": "grp_2", "name": "Two"}, {"id": "grp_1", "name": None})
    inside = {"directory_user_id": "du_1", "user_id": "usr_1", "since": NOW}
    put(database, memberships, *({**inside, "group_id": group} for group in ("grp_2", "grp_1")))
    put(database, role_grants, *({"user_id": "usr_1", "role": role, "source": "du_1"} for role in ("member", "admin")))
    shown = {
        "id": "usr_1",
        "organization_id": ORGANIZATION,
        "application_id": "42",
        **profile,
        "active": True,
        "groups": [{"id": "grp_1", "name": None}, {"id": "grp_2", "name": "Two"}],
        "roles": ["admin", "member"],
        "attributes": {"department": ["Engines", 1, None]},
        "directory_users": [
            {"id": "du_1", "external_id": "00u1", "directory_id": None, "email": "ada@example.com", "active": True, "deleted": False}
        ],
        "created_at": "2026-11-22T09:30:00Z",
        "updated_at": "2026-11-22T09:30:00Z",
        "deactivated_at": None,
    }
    assert client.get(f"{USERS}/usr_1").json() == shown
    assert client.get(USERS).json() == {"data": [shown], "next_cursor": None}
    assert client.get(f"{GROUPS}/grp_2/members").json() == {"data": [shown], "next_cursor": None}


def test_groups_directories_and_organizations_show_what_the_contract_says(client: TestClient, database: Database) -> None:
    """Every field is there, and no other."""
    times = {"created_at": "2026-11-22T09:30:00Z", "updated_at": "2026-11-22T09:30:00Z"}
    put(database, groups, {"id": "grp_1", "name": "One", "external_id": "00g1", "directory_id": "dir_1"})
    put(database, directories, {"id": "dir_1", "provider": "OKTA", "type": "SCIM", "enabled": False})
    put(database, organizations, {"id": ORGANIZATION, "complete_as_of": 1_750_000_000_000_000_001, "created_at": NOW})
    people(database, "usr_1", "usr_2")
    group = {"id": "grp_1", "organization_id": ORGANIZATION, "name": "One", "external_id": "00g1", "directory_id": "dir_1"}
    assert client.get(f"{GROUPS}/grp_1").json() == {**group, "deleted": False, "member_count": 0, **times}
    directory = {"id": "dir_1", "organization_id": ORGANIZATION, "provider": "OKTA", "type": "SCIM", "enabled": False}
    assert all_of(client, f"/v1/organizations/{ORGANIZATION}/directories") == [{**directory, "updated_at": times["updated_at"]}]
    assert all_of(client, "/v1/organizations") == [
        {
            "id": ORGANIZATION,
            "external_id": None,
            "active_users": 2,
            "complete_as_of": "2025-06-15T15:06:40.000000001Z",
            "last_event_at": None,
        }
    ]


def test_the_last_event_of_an_organization_is_its_own(client: TestClient, database: Database) -> None:
    """The newest delivery of another organization, or of none, says nothing about this one."""
    put(database, organizations, {"id": ORGANIZATION, "created_at": NOW})
    kept = {"outcome": "processed", "attempts": 1}
    put(
        database,
        deliveries,
        {"webhook_id": "msg_1", "organization_id": ORGANIZATION, "received_at": NOW, **kept},
        {"webhook_id": "msg_2", "organization_id": ORGANIZATION, "received_at": NOW - timedelta(days=1), **kept},
        {"webhook_id": "msg_3", "organization_id": "org_2", "received_at": NOW + timedelta(days=1), **kept},
        {"webhook_id": "msg_4", "organization_id": None, "received_at": NOW + timedelta(days=2), **kept},
    )
    assert all_of(client, "/v1/organizations")[0]["last_event_at"] == "2026-11-22T09:30:00Z"


def test_an_unknown_id_is_not_found_and_an_unknown_organization_is_empty(client: TestClient, database: Database) -> None:
    """An id of another organization is as unknown as one that is nowhere."""
    people(database, "usr_1")
    put(database, groups, {"id": "grp_1"})
    for path in (f"{USERS}/usr_2", f"{GROUPS}/grp_2", f"{GROUPS}/grp_2/members", "/v1/deliveries/msg_9"):
        assert client.get(path).status_code == 404
    elsewhere = "/v1/organizations/org_2"
    for path in (f"{elsewhere}/users/usr_1", f"{elsewhere}/groups/grp_1", f"{elsewhere}/groups/grp_1/members"):
        assert client.get(path).status_code == 404
    for noun in ("users", "groups", "directories"):
        assert client.get(f"{elsewhere}/{noun}").json() == {"data": [], "next_cursor": None}


def test_a_deleted_group_is_nobodys(client: TestClient, database: Database) -> None:
    """It is listed only when asked for, has no members, and no user shows it."""
    people(database, "usr_1")
    put(database, groups, {"id": "grp_1", "deleted": True}, {"id": "grp_2", "deleted": False})
    put(database, memberships, {"directory_user_id": "du_usr_1", "group_id": "grp_1", "user_id": "usr_1"})
    assert ids(client, GROUPS) == ["grp_2"]
    assert ids(client, GROUPS, include_deleted=True) == ["grp_1", "grp_2"]
    assert client.get(f"{GROUPS}/grp_1").json()["member_count"] == 0
    assert ids(client, f"{GROUPS}/grp_1/members") == ids(client, USERS, group_id="grp_1") == []
    assert client.get(f"{USERS}/usr_1").json()["groups"] == []


@pytest.mark.parametrize("asked", ["ada@example.com", " ADA@Example.COM ", "jose\u0301@example.com", "JOSÉ@example.com"])
def test_an_email_is_found_however_it_is_written(client: TestClient, database: Database, asked: str) -> None:
    """White space, case and the way an accent is composed make no difference; a part of an address is no match."""
    put(database, users, {"id": "usr_1", "email_key": "ada@example.com"}, {"id": "usr_2", "email_key": "josé@example.com"})
    assert ids(client, USERS, email=asked) == [("usr_1" if "da@" in asked.lower() else "usr_2")]
    assert ids(client, USERS, email=asked.strip()[1:]) == []
    assert ids(client, USERS, email="  ") == []


# Who counts, and what that shows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    """A directory user to be: behind which user, of which directory, in which groups."""

    user: int
    directory: str | None
    active: bool
    deleted: bool
    groups: frozenset[str]


persons = st.builds(
    Person,
    user=st.integers(0, 2),
    directory=st.sampled_from([None, "on", "off", "off2", "unheard_of"]),
    active=st.booleans(),
    deleted=st.booleans(),
    groups=st.frozensets(st.sampled_from(["grp_1", "grp_2", "gone"])),
)


def in_groups(everybody: list[Person], user: int) -> set[str]:
    """The groups of an active user, by design.md: of those behind it who count and are active, without deleted ones."""
    behind = [each for each in everybody if each.user == user]
    counting = [each for each in behind if each.directory not in {"off", "off2"}] or behind
    return {group for each in counting if each.active and not each.deleted for group in each.groups} - {"gone"}


organization_numbers = count(1)
in_group = ScriptDirectory.from_config(migrations.config("sqlite://")).get_revision("2026_11_22_changes").module.IN_GROUP


@given(everybody=st.lists(persons, max_size=8), active=st.tuples(st.booleans(), st.booleans(), st.booleans()))
@example(everybody=[Person(user, None, True, False, frozenset({"grp_1"})) for user in (0, 0, 1)], active=(True, True, True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_counts_brings_the_user_into_groups(database: Database, everybody: list[Person], active: tuple[bool, ...]) -> None:
    """A user's groups, a group's members and its member_count are the memberships that count; an inactive user is in no group.

    Which of them count in a database that is older than that is found by its migration.
    """
    here = {"organization_id": f"org_{next(organization_numbers)}"}
    named = [(f"du_{number}", each) for number, each in enumerate(everybody)]
    put_all(
        database,
        {
            directories: [{**here, "id": id_, "enabled": id_ == "on"} for id_ in ("on", "off", "off2")],
            groups: [{**here, "id": id_, "deleted": id_ == "gone"} for id_ in ("grp_1", "grp_2", "gone")],
            users: [{**here, "id": f"usr_{user}", "active": active[user]} for user in range(3)],
            directory_users: [
                {**here, "id": id_, "user_id": f"usr_{p.user}", "directory_id": p.directory, "active": p.active, "deleted": p.deleted}
                for id_, p in named
            ],
            memberships: [
                {**here, "directory_user_id": id_, "group_id": group, "user_id": f"usr_{p.user}"} for id_, p in named for group in p.groups
            ],
        },
    )
    expected = {f"usr_{user}": in_groups(everybody, user) if active[user] else set() for user in range(3)}
    with database.writing() as session:
        session.execute(text(in_group))
    with database.reading() as session:
        org = here["organization_id"]
        shown = page_of_users(session, org, UserFilter(), after="", limit=9)
        assert {user.id: {group.id for group in user.groups} for user in shown} == expected
        for group in page_of_groups(session, org, include_deleted=True, after="", limit=9):
            members = sorted(user for user, theirs in expected.items() if group.id in theirs)
            assert [user.id for user in page_of_users(session, org, UserFilter(group_id=group.id), after="", limit=9)] == members
            assert [user.id for user in page_of_users(session, org, UserFilter(group_id=group.id), after="", limit=2)] == members[:2]
            assert group.member_count == one_group(session, org, group.id).member_count == len(members)


@pytest.fixture
def mixed(database: Database) -> Database:
    """Twelve users of all sorts."""
    numbers = range(12)
    active = {number: number % 3 != 0 for number in numbers}
    named = {number: {"user_id": f"usr_{number:02}"} for number in numbers}
    put_all(
        database,
        {
            groups: [{"id": "grp_1"}, {"id": "grp_2"}],
            users: [{"id": f"usr_{number:02}", "active": active[number], "email_key": f"p{number % 4}@example.com"} for number in numbers],
            directory_users: [{"id": f"du_{number:02}", "active": active[number], **named[number]} for number in numbers],
            memberships: [
                {"directory_user_id": f"du_{number:02}", "group_id": group, **named[number]}
                for number in numbers
                for group in ("grp_1", "grp_2")[: number % 3]
            ],
            role_grants: [
                {"role": role, "source": f"du_{number:02}", **named[number]}
                for number in numbers
                for role in ("member", "admin")[: number % 5]
                if active[number]
            ],
        },
    )
    return database


@given(
    email=st.none() | st.sampled_from(["p0@example.com", "p1@example.com", "p9@example.com"]),
    active=st.none() | st.booleans(),
    group_id=st.none() | st.sampled_from(["grp_1", "grp_2", "grp_9"]),
    role=st.none() | st.sampled_from(["member", "admin", "nothing"]),
    directory_user_id=st.none() | st.sampled_from(["du_01", "du_03", "du_99"]),
    limit=st.integers(1, 5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filters_together_give_those_who_match_all(mixed: Database, limit: int, **filters: Any) -> None:
    """Each of the 32 combinations gives what sieving the whole list would give, in pages of any size."""
    with mixed.reading() as session:
        everybody = page_of_users(session, ORGANIZATION, UserFilter(), after="", limit=99)
        expected = [
            user.id
            for number, user in enumerate(everybody)
            if filters["email"] in {None, f"p{number % 4}@example.com"}
            and filters["active"] in {None, user.active}
            and (filters["group_id"] is None or filters["group_id"] in {group.id for group in user.groups})
            and (filters["role"] is None or filters["role"] in user.roles)
            and (filters["directory_user_id"] is None or filters["directory_user_id"] in {each.id for each in user.directory_users})
        ]
        found: list[str] = []
        while page := page_of_users(session, ORGANIZATION, UserFilter(**filters), after=found[-1] if found else "", limit=limit):
            found += [user.id for user in page]
    assert found == expected


# Pages -----------------------------------------------------------------------------------------------------------------------------------


def test_the_last_page_says_so(client: TestClient, database: Database) -> None:
    """Also when it is exactly full."""
    people(database, "usr_1", "usr_2")
    first = client.get(USERS, params={"limit": 1}).json()
    assert [user["id"] for user in first["data"]] == ["usr_1"]
    last = client.get(USERS, params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert ([user["id"] for user in last["data"]], last["next_cursor"]) == (["usr_2"], None)
    assert client.get(USERS, params={"limit": 2}).json()["next_cursor"] is None


def test_pages_neither_skip_nor_repeat_while_rows_change(client: TestClient, database: Database) -> None:
    """Whoever was there all the time is seen once, though others come and go and everybody is written to meanwhile."""
    people(database, *(f"usr_{number:02}" for number in range(0, 40, 2)))
    seen: list[str] = []
    after: dict[str, str] = {}
    for turn in range(20):
        page = client.get(USERS, params={"limit": 3, **after}).json()
        seen += [user["id"] for user in page["data"]]
        if page["next_cursor"] is None:
            break
        after = {"cursor": page["next_cursor"]}
        put(database, users, {"id": f"usr_{2 * turn + 1:02}"})
        with database.writing() as session:
            session.execute(update(users).values(name=f"turn {turn}", active=turn % 2 == 0))
            session.execute(update(users).where(users.c.id == f"usr_{2 * turn:02}").values(email="new@example.com"))
    assert seen == sorted(set(seen))
    assert {f"usr_{number:02}" for number in range(0, 40, 2)} <= set(seen)


def test_a_cursor_that_is_not_this_lists_is_a_422(client: TestClient, database: Database) -> None:
    """Whatever it is: garbage, another list's, or a place that cannot be."""
    put(database, groups, {"id": "grp_1"})
    for path in LISTS:
        refuses_cursors(client, path)


def refuses_cursors(client: TestClient, path: str) -> None:
    kind = "users" if path.endswith("members") else path.rsplit("/", 1)[-1]
    other = cursor("groups" if kind == "users" else "users", "x")
    for wrong in ("", "!", "é", "YQ", other, cursor(kind, ""), cursor(kind, "a\x00b"), "=" * 9, "A" * 3000):
        assert client.get(path, params={"cursor": wrong}).status_code == 422, (path, wrong)
    places = {"deliveries": ("9" * 40 + ":x", "x", "0:\x00"), "history": ("x", "chg_1", "chg_" + "9" * 19)}.get(kind, ())
    for place in places:
        assert client.get(path, params={"cursor": cursor(kind, place)}).status_code == 422


def test_a_limit_out_of_bounds_is_a_422(client: TestClient, database: Database) -> None:
    """1 to 200."""
    put(database, groups, {"id": "grp_1"})
    for path in LISTS:
        assert client.get(path, params={"limit": 200}).status_code == 200, path
        for limit in ("0", "201", "-1", "9" * 30, "x", "1.5", ""):
            assert client.get(path, params={"limit": limit}).status_code == 422, (path, limit)
