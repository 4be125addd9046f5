"""What somebody may do, and why: the reasons that are given are the reasons that there are."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session
from test_convergence import GROUPS, Fact, examples, facts, tell

from factories import event, named, one_by_one, receive, roles, show_again, user_of
from provisioning.accounts import LOCAL, counting
from provisioning.db import users as accounts
from provisioning.db.models import changes, group_roles, local_roles, memberships, role_grants, users
from provisioning.db.reading.access import Access, GrantKind, Reason, access_of
from provisioning.db.reading.users import UserFilter, page_of_users
from provisioning.db.session import Database
from provisioning.merge import Key
from rows import NOW, ORGANIZATION, put
from service import bearer, running

USERS = f"/v1/organizations/{ORGANIZATION}/users"
AT_0, AT_1 = "2025-06-15T15:06:40Z", "2025-06-15T15:06:41Z"


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """A caller that may read."""
    with running(database_url) as client:
        client.headers.update(bearer())
        yield client


def give(database: Database, user_id: str, *, mapped: str = "", granted: str = "", organization_id: str = ORGANIZATION) -> None:
    """Map a group (`group:role`) and grant a role here, and have the user show it."""
    here = {"organization_id": organization_id}
    if mapped:
        group_id, role = mapped.split(":")
        put(database, group_roles, {**here, "group_id": group_id, "role": role, "mapped_by": "mapper", "mapped_at": NOW})
    if granted:
        put(database, local_roles, {**here, "user_id": user_id, "role": granted, "granted_by": "granter", "granted_at": NOW})
    show_again(database, user_id, organization_id=organization_id)


def access(client: TestClient, user_id: str) -> dict[str, Any]:
    """The user's access, over HTTP."""
    found: dict[str, Any] = client.get(f"{USERS}/{user_id}/access").raise_for_status().json()
    return found


def test_each_thing_that_is_had_has_its_reasons(client: TestClient, database: Database) -> None:
    """A group names who is in it; a role the directory user, the group that is mapped to it, and whoever granted it."""
    receive(database, event("user_created", "du_1", email="a@x.com", active=True, groups=named("grp_1"), roles=roles("admin")))
    user_id = user_of(database, "du_1")
    give(database, user_id, mapped="grp_1:admin", granted="admin")
    with database.reading() as session:
        [in_group] = session.scalars(select(memberships.c.since))
        since = {row.source: row.since for row in session.execute(select(role_grants))}
    shown = access(client, user_id)
    created = client.get(f"{USERS}/{user_id}").json()["created_at"]
    nothing = {"directory_user_id": None, "group_id": None, "group_name": None, "granted_by": None}

    def text(moment: datetime) -> str:
        return moment.isoformat().replace("+00:00", "Z")

    assert shown == {
        "user_id": user_id,
        "organization_id": ORGANIZATION,
        "application_id": None,
        "active": True,
        "since": created,
        "reason": "active",
        "groups": [{"id": "grp_1", "name": "Group grp_1", "since": text(in_group), "through": ["du_1"]}],
        "roles": [
            {
                "role": "admin",
                "since": text(since["du_1"]),
                "because": [
                    {**nothing, "kind": "directory", "directory_user_id": "du_1", "since": text(since["du_1"])},
                    {
                        **nothing,
                        "kind": "group",
                        "group_id": "grp_1",
                        "group_name": "Group grp_1",
                        "granted_by": "mapper",
                        "since": text(since["group:grp_1"]),
                    },
                    {**nothing, "kind": "local", "granted_by": "granter", "since": text(since[LOCAL])},
                ],
            }
        ],
        "kept_roles": [],
        "directory_users": [
            {
                "id": "du_1",
                "directory_id": None,
                "directory_enabled": None,
                "email": "a@x.com",
                "active": True,
                "deleted": False,
                "counts": True,
                "reason": "active",
                "said_at": AT_0,
            }
        ],
    }


@pytest.mark.parametrize(("kind", "data", "reason"), [("user_updated", {"active": False}, "suspended"), ("user_deleted", {}, "deleted")])
def test_who_has_no_access_is_told_why_and_what_is_kept(
    client: TestClient, database: Database, kind: str, data: dict[str, Any], reason: str
) -> None:
    """In no group and without a role; what was granted here is kept, and comes back with the person."""
    receive(database, event("user_created", "du_1", email="a@x.com", groups=named("grp_1"), roles=roles("member")))
    user_id = user_of(database, "du_1")
    give(database, user_id, mapped="grp_1:admin", granted="auditor")
    assert [role["role"] for role in access(client, user_id)["roles"]] == ["admin", "auditor", "member"]
    receive(database, event(kind, "du_1", at=1, **data))
    shown = access(client, user_id)
    assert (shown["active"], shown["reason"], shown["groups"], shown["roles"]) == (False, reason, [], [])
    assert shown["since"] == client.get(f"{USERS}/{user_id}").json()["deactivated_at"]
    assert shown["kept_roles"] == [{"role": "auditor", "granted_by": "granter", "since": "2026-11-22T09:30:00Z"}]
    [person] = shown["directory_users"]
    assert (person["counts"], person["reason"], person["said_at"]) == (True, reason, AT_1)
    receive(database, event("user_created", "du_1", at=2, active=True, groups=[], roles=[]))
    shown = access(client, user_id)
    assert (shown["active"], [role["role"] for role in shown["roles"]], shown["kept_roles"]) == (True, ["auditor"], [])
    assert shown["since"] > client.get(f"{USERS}/{user_id}").json()["created_at"]  # when it was activated


def test_a_disabled_directory_lets_nobody_in_beside_another(client: TestClient, database: Database) -> None:
    """Whoever is of it does not count, since it was disabled; where all are of such, all count: it takes nobody's access."""
    person: dict[str, Any] = {"email": "a@x.com", "dp_id": "up", "active": True, "groups": named("grp_1")}
    one_by_one(
        database,
        [
            event("directory_enabled", "dir_1"),
            event("directory_enabled", "dir_2"),
            event("user_created", "du_1", directory_id="dir_1", **person),
            event("user_created", "du_2", directory_id="dir_2", **person),
        ],
    )
    user_id = user_of(database, "du_1")
    assert user_of(database, "du_2") == user_id
    assert [group["through"] for group in access(client, user_id)["groups"]] == [["du_1", "du_2"]]
    receive(database, event("directory_disabled", "dir_1", at=1))
    assert [group["through"] for group in access(client, user_id)["groups"]] == [["du_2"]]
    receive(database, event("user_deleted", "du_2"))
    shown = access(client, user_id)
    assert (shown["active"], shown["reason"]) == (False, "deleted")
    told = [(each["counts"], each["reason"], each["said_at"]) for each in shown["directory_users"]]
    assert told == [(False, "directory_disabled", AT_1), (True, "deleted", AT_0)]
    receive(database, event("directory_disabled", "dir_2", at=1))
    shown = access(client, user_id)
    assert (shown["active"], shown["reason"]) == (True, "active")
    told = [(each["counts"], each["reason"], each["said_at"]) for each in shown["directory_users"]]
    assert told == [(True, "active", AT_0), (True, "deleted", AT_0)]
    assert [group["through"] for group in shown["groups"]] == [["du_1"]]


def test_a_directory_user_says_whether_anything_is_heard_of_it(client: TestClient, database: Database) -> None:
    """Whether its directory is enabled; of a directory that nobody spoke of yet nobody knows."""
    receive(database, event("user_created", "du_1", email="a@x.com", directory_id="dir_1"))
    user_id = user_of(database, "du_1")
    enabled: list[bool | None] = []
    for kind in (None, "directory_enabled", "directory_disabled", "directory_enabled"):
        if kind:
            receive(database, event(kind, "dir_1", at=len(enabled)))
        [person] = access(client, user_id)["directory_users"]
        assert (person["counts"], person["reason"]) == (True, "active")
        enabled.append(person["directory_enabled"])
    assert enabled == [None, True, False, True]


def test_a_user_that_nobody_is_behind_says_so(client: TestClient, database: Database) -> None:
    """An account that was brought here before its directory was."""
    put(database, users, {"id": "usr_1", "active": False, "deactivated_at": NOW})
    shown = access(client, "usr_1")
    assert (shown["active"], shown["reason"], shown["since"], shown["directory_users"]) == (
        False,
        "nobody_behind",
        "2026-11-22T09:30:00Z",
        [],
    )


def test_what_is_older_than_the_log_says_what_is_known(client: TestClient, database: Database) -> None:
    """Of a role that came before times were kept there is none; a user whose activation is not kept any more is as old as its row."""
    receive(database, event("user_created", "du_1", roles=roles("admin")))
    user_id = user_of(database, "du_1")
    with database.writing() as session:
        session.execute(role_grants.update().values(since=None))
        session.execute(changes.delete())
    give(database, user_id, granted="admin")
    shown = access(client, user_id)
    assert [(role["since"], len(role["because"])) for role in shown["roles"]] == [(None, 2)]
    assert shown["since"] == client.get(f"{USERS}/{user_id}").json()["created_at"]


def test_nobody_elses_access_is_shown(client: TestClient, database: Database) -> None:
    """A user of another organization is unknown, as one that is nowhere is."""
    receive(database, event("user_created", "du_1", organization_id="org_2"))
    other = user_of(database, "du_1", "org_2")
    for user_id in (other, "usr_0"):
        answer = client.get(f"{USERS}/{user_id}/access")
        assert (answer.status_code, answer.json()["title"]) == (404, "No such record")
    assert client.get(f"{USERS}/{other}/access?active=true").status_code == 422


# Whatever happened -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@examples
@given(
    history=st.lists(facts(shared=True), min_size=1, max_size=25),
    mapped=st.sets(st.tuples(st.sampled_from(GROUPS), st.sampled_from(["admin", "editor"])), max_size=3),
    granted=st.sets(st.sampled_from(["admin", "auditor"])),
    later=st.lists(facts(shared=True), max_size=10),
)
def test_access_says_what_the_user_shows_and_each_reason_is_real(
    database: Database, history: list[Fact], mapped: set[tuple[str, str]], granted: set[str], later: list[Fact]
) -> None:
    """After any history, with roles given here in the midst of it."""
    organization_id = tell(database, [history[:5], history[5:]] if history[5:] else [history])
    here = {"organization_id": organization_id}
    with database.reading() as session:
        known = [each.id for each in page_of_users(session, organization_id, UserFilter(), after="", limit=99)]
    receive(database, *(event("group_created", id_, at=-1, organization_id=organization_id) for id_ in GROUPS))
    put(database, group_roles, *({**here, "group_id": g, "role": r, "mapped_by": "m", "mapped_at": NOW} for g, r in mapped))
    put(database, local_roles, *({**here, "user_id": u, "role": r, "granted_by": "g", "granted_at": NOW} for u in known for r in granted))
    show_again(database, *known, organization_id=organization_id)
    receive(database, *(fact.delivery(organization_id).body for fact in later))
    with database.reading() as session:
        for user in page_of_users(session, organization_id, UserFilter(), after="", limit=99):
            found = access_of(session, organization_id, user.id)
            assert (found.active, [group.id for group in found.groups], [role.role for role in found.roles]) == (
                user.active,
                [group.id for group in user.groups],
                list(user.roles),
            )
            assert [(each.id, each.active, each.deleted) for each in found.directory_users] == [
                (each.id, each.active, each.deleted) for each in user.directory_users
            ]
            check_reasons(session, found, mapped)


def check_reasons(session: Session, found: Access, mapped: set[tuple[str, str]]) -> None:
    """Every reason is one that the records give, and nothing is had without one."""
    key = Key(found.organization_id, found.user_id)
    people = {person.key.id: person for person in accounts.behind(session, [key])[key]}
    disabled = accounts.disabled_directories(session, people.values())
    count = {person.key.id for person in counting(list(people.values()), disabled)}
    live = {id_: person for id_, person in people.items() if person.active and id_ in count}
    kept_here = accounts.granted_here(session, [key])[key]
    assert found.active == bool(live)
    assert {each.id for each in found.directory_users if each.reason is Reason.ACTIVE} == set(live)
    assert {each.id for each in found.directory_users if each.counts} == count
    assert (found.reason is Reason.ACTIVE) == found.active
    if not found.active:
        assert found.reason is (Reason.DELETED if all(people[id_].deleted for id_ in count) else Reason.SUSPENDED)
        assert {each.role for each in found.kept_roles} == kept_here
    else:
        assert not found.kept_roles
    for group in found.groups:
        assert group.through == sorted(id_ for id_, person in live.items() if group.id in person.group_ids) != []
    for role in found.roles:
        given_by = {(each.kind, each.directory_user_id or each.group_id) for each in role.because}
        expected: set[tuple[GrantKind, str | None]] = set()
        expected |= {(GrantKind.DIRECTORY, id_) for id_, person in live.items() if role.role in person.roles}
        expected |= {(GrantKind.GROUP, group.id) for group in found.groups if (group.id, role.role) in mapped}
        expected |= {(GrantKind.LOCAL, None)} if role.role in kept_here else set()
        assert given_by == expected != set()
        assert len(given_by) == len(role.because)
