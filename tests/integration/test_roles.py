"""Roles that are given here: exactly those who are to have them do, and nothing that the directories say takes them away for good."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from threading import Barrier
from typing import Any, TypeAlias

import pytest
from crew import PATIENCE_SECONDS
from hypothesis import HealthCheck, given, settings
from hypothesis import event as note
from hypothesis import strategies as st
from sqlalchemy import Table, select, update
from sqlalchemy.orm import Session
from test_convergence import GROUPS, PEOPLE, Fact, facts

from factories import ORGANIZATION, delivery, event, named, one_by_one, receive, roles, state
from faults import Gate, until
from following import Copy, everything, original
from provisioning.accounts import LOCAL, from_group
from provisioning.bodies import Json
from provisioning.changes import Cause, CauseKind
from provisioning.db.models import (
    changes,
    directories,
    directory_users,
    group_roles,
    groups,
    local_roles,
    role_grants,
    unapplied_roles,
    users,
)
from provisioning.db.records import directory_user
from provisioning.db.session import Database
from provisioning.dispatcher import apply
from provisioning.errors import NotFound, Unavailable
from provisioning.events import listed, nanoseconds, parse
from provisioning.feed import Wanted
from provisioning.inbox import Inbox
from provisioning.merge import load
from provisioning.roles import Roles
from rows import put

_numbers = count(1)
# Each is a story of many transactions: a fifth as many as of what is cheap.
examples = settings(
    max_examples=settings().max_examples // 5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

BY = "operator"


def resume(given: Roles) -> None:
    """Do all the work that there is to take over."""
    while work := given.claim():
        work()


ROLES = (directories, groups, directory_users, users, role_grants, group_roles, local_roles, unapplied_roles, changes)
Rows: TypeAlias = Mapping[Table, list[dict[str, Any]]]


class Interrupted(Database):
    """A database that does something else first, each time before one of its transactions that write: `does` is given its number."""

    def __init__(self, url: str, does: Callable[[int], None]) -> None:
        super().__init__(url)
        self._does, self._written = does, count(1)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        self._does(next(self._written))
        with super().writing() as session:
            yield session


def look(database: Database, organization_id: str = ORGANIZATION, *tables: Table) -> Rows:
    """The organization's rows of these tables, or of all that roles come from and go to, at one moment and in the order of their keys."""
    with database.reading() as session:
        found = {}
        for table in tables or ROLES:
            wanted = select(table).where(table.c.organization_id == organization_id).order_by(*table.primary_key)
            found[table] = [dict(row) for row in session.execute(wanted).mappings()]
        return found


def rows(database: Database, table: Table, organization_id: str = ORGANIZATION) -> list[dict[str, Any]]:
    """A table's rows of the organization, in the order of their keys."""
    return look(database, organization_id, table)[table]


def user_of(database: Database, directory_user_id: str, organization_id: str = ORGANIZATION) -> str:
    """The id of the user behind whom the directory user stands."""
    found = {row["id"]: row["user_id"] for row in rows(database, directory_users, organization_id)}
    return str(found[directory_user_id])


def roles_of(database: Database, directory_user_id: str) -> dict[str, set[str]]:
    """The roles that the user of this directory user has now, each with where it comes from."""
    user_id, found = user_of(database, directory_user_id), defaultdict[str, set[str]](set)
    for row in rows(database, role_grants):
        if row["user_id"] == user_id:
            found[row["role"]].add(row["source"])
    return dict(found)


def told(database: Database, directory_user_id: str) -> list[tuple[str, str, str]]:
    """What the change log says of the roles of this directory user's user: what, which, and by whom."""
    user_id = user_of(database, directory_user_id)
    return [(row["type"], row["role"], row["cause"]) for row in rows(database, changes) if row["user_id"] == user_id and row["role"]]


def having(database: Database, role: str) -> set[str]:
    """The directory users whose users have the role."""
    with_it = {row["user_id"] for row in rows(database, role_grants) if row["role"] == role}
    return {row["id"] for row in rows(database, directory_users) if row["user_id"] in with_it}


def assert_everybody_has_what_is_due(seen: Rows) -> None:
    """The law of roles, written down a second time: from the records, the mappings and the grants made here; and the log says the same."""
    mapped, granted = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for row in seen[group_roles]:
        mapped[row["group_id"]].add(row["role"])
    for row in seen[local_roles]:
        granted[row["user_id"]].add(row["role"])
    deleted = {row["id"] for row in seen[groups] if row["deleted"]}
    behind, has = defaultdict[str, list[dict[str, Any]]](list), defaultdict[str, set[tuple[str, str]]](set)
    for row in seen[directory_users]:
        behind[row["user_id"]].append(row)
    for row in seen[role_grants]:
        has[row["user_id"]].add((row["role"], row["source"]))
    said = logged(seen)
    for user in seen[users]:
        active = [directory_user(row) for row in live(seen, behind[user["id"]]) if row["active"]]
        due = {(role, each.key.id) for each in active for role in each.roles}
        due |= {(role, LOCAL) for role in granted[user["id"]] if active}
        inside = {group_id for each in active for group_id in each.group_ids} - deleted
        due |= {(role, from_group(group_id)) for group_id in inside for role in mapped[group_id]}
        assert has.pop(user["id"], set()) == due
        assert said[user["id"]] == {role for role, _ in due}
    assert not has
    assert not seen[unapplied_roles]


def live(seen: Rows, behind: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those behind a user who count: of directories that are not disabled, if there are any."""
    disabled = {row["id"] for row in seen[directories] if not row["enabled"]}
    return [row for row in behind if row["directory_id"] not in disabled] or behind


def logged(seen: Rows) -> Mapping[str, set[str]]:
    """Who has which roles, as the change log says; none is granted to who has it, or revoked from who has not."""
    said = defaultdict[str, set[str]](set)
    for row in seen[changes]:
        if row["role"]:
            has = said[row["user_id"]]
            assert (row["role"] in has) == (row["type"] == "role.revoked")
            has ^= {row["role"]}
    return said


# Grants to a user, and the directories


@dataclass(frozen=True)
class Decision:
    """Somebody here gives roles: to the group, or to one of the users that there are."""

    group_id: str | None
    number: int
    roles: frozenset[str]


_some_roles = st.frozensets(st.sampled_from(["admin", "member", "owner"]))
_decisions = st.builds(Decision, st.sampled_from([None, None, None, *GROUPS]), st.integers(0, 1), _some_roles)
# So that there is somebody to give something to.
SOME = [[Fact("user_created", person, 0, 1, (("groups", "all"), ("roles", "admin"))) for person in PEOPLE[:2]]]


@dataclass(frozen=True)
class Rehire:
    """Everybody behind one of the users leaves, and somebody new comes who has the same upstream id as one of them."""

    number: int
    at_once: bool

    def told(self, before: Rows, organization_id: str, at: int) -> list[list[bytes]]:
        """What the directory says of it, in its batches; nothing where there is nobody yet."""
        if not before[users]:
            return []
        user_id = before[users][self.number % len(before[users])]["id"]
        behind = [row["id"] for row in before[directory_users] if row["user_id"] == user_id]

        def says(kind: str, id_: str, later: float, **data: Json) -> bytes:
            return event(kind, id_, at=at + later, organization_id=organization_id, **data)  # type: ignore[arg-type] # its data

        known = says("user_updated", behind[0], 0, dp_id=f"up_{at}")
        gone = [says("user_deleted", each, 0.1) for each in behind]
        comes = says("user_created", f"rehired_{at}", 0.2, dp_id=f"up_{at}")
        return [[known], [*gone, comes]] if self.at_once else [[known], gone, [comes]]


_told = st.lists(facts(shared=True), min_size=1, max_size=4)
_rehires = st.builds(Rehire, st.integers(0, 1), st.booleans())
_histories = st.lists(st.one_of(_told, _rehires, _rehires, _decisions, _decisions), min_size=6, max_size=12).map(
    lambda steps: [*SOME, *steps]
)


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@examples
@given(history=_histories)
def test_a_local_grant_survives_any_stream_of_directory_events(database: Database, history: list[list[Fact] | Rehire | Decision]) -> None:
    """Whatever the directories say: its row stays as it is, and its role is shown exactly while the user is active.

    But for one thing: where somebody new joins a user whom everybody before had left by then, all that was granted to those ends.
    Whoever follows the feed has the same as the service at the end.
    """
    organization_id = f"org_{next(_numbers)}"
    before = look(database, organization_id)
    for at, step in enumerate(history, 10):
        if isinstance(step, Decision):
            wanted = decided(database, organization_id, step, before)
            before = look(database, organization_id)
            assert who_has_what(before[local_roles]) == wanted
        else:
            told = (
                [[fact.delivery(organization_id).body for fact in step]]
                if isinstance(step, list)
                else step.told(before, organization_id, at)
            )
            for batch in told:
                receive(database, *batch)
                after = look(database, organization_id)
                taken = taken_over(before, after, batch)
                assert after[local_roles] == [row for row in before[local_roles] if row["user_id"] not in taken]
                note(f"grants ended: {after[local_roles] != before[local_roles]}")
                before = after
        assert_everybody_has_what_is_due(before)
    copy = Copy().follow(everything(database, wanted=Wanted(organization_id), limit=200))
    copy.directories.clear()  # of which the service says no more
    assert copy == original(database, organization_id)


def decided(database: Database, organization_id: str, decision: Decision, before: Rows) -> set[tuple[str, str]]:
    """Give what is decided, if there is whom to; returns who is to have been granted what then."""
    present, granted = [row["id"] for row in before[users]], who_has_what(before[local_roles])
    if decision.group_id in {row["id"] for row in before[groups]}:
        Roles(database, users_at_once=2).map_group(organization_id, str(decision.group_id), decision.roles, BY)
    elif decision.group_id is None and present:
        user_id = present[decision.number % len(present)]
        Roles(database).grant(organization_id, user_id, decision.roles, BY)
        granted = {each for each in granted if each[0] != user_id} | {(user_id, role) for role in decision.roles}
    return granted


def who_has_what(granted: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Each user with each role that was granted to it."""
    return {(row["user_id"], row["role"]) for row in granted}


def taken_over(before: Rows, after: Rows, batch: list[bytes]) -> set[str]:
    """The users whom somebody new has joined, after everybody of those before had left."""
    linked = {row["id"] for row in before[directory_users] if row["user_id"]}
    known, came = defaultdict[str, list[dict[str, Any]]](list), defaultdict[str, list[int]](list)
    for row in after[directory_users]:
        if row["id"] in linked:
            known[row["user_id"]].append(row)
        elif row["user_id"]:
            told = [json.loads(body) for body in batch]
            came[row["user_id"]] += [
                nanoseconds(each["occurred_at"])
                for each in told
                if each["data"]["id"] == row["id"] and each["type"].endswith(("user_created", "user_updated"))
            ]
    return {
        user_id
        for user_id in came.keys() & known.keys()
        if all(not row["active"] and left_at(row) <= min(came[user_id]) for row in live(after, known[user_id]))
    }


def left_at(row: dict[str, Any]) -> int:
    """When the directory said that this inactive one is."""
    return load(row["registers"])["$deleted" if row["deleted"] else "active"].version.occurred_at


def test_who_comes_back_finds_what_was_granted(database: Database) -> None:
    """Suspended or deleted and there again, under the same id: nobody new, and the rows say still who granted it, and when."""
    receive(database, event("user_created", "u", email="u@example.com"))
    Roles(database).grant(ORGANIZATION, user_of(database, "u"), {"owner"}, BY)
    granted = rows(database, local_roles)
    for at, gone in ((1, event("user_updated", "u", at=1, active=False)), (3, event("user_deleted", "u", at=3))):
        receive(database, gone)
        assert (roles_of(database, "u"), rows(database, local_roles)) == ({}, granted)
        receive(database, event("user_created", "u", at=at + 1))
        assert (roles_of(database, "u"), rows(database, local_roles)) == ({"owner": {LOCAL}}, granted)
    assert granted[0]["granted_by"] == BY


@pytest.mark.parametrize("at_once", [True, False])
def test_who_joins_an_abandoned_account_gets_nothing_that_was_granted_there(database: Database, at_once: bool) -> None:
    """A rehire by the same upstream id, or where addresses decide, another person: the log says that a role ends that was shown."""
    receive(database, event("user_created", "left", email="a@example.com", dp_id="up", roles=roles("member")))
    user_id = user_of(database, "left")
    Roles(database).grant(ORGANIZATION, user_id, {"member", "owner"}, BY)
    came = event("user_created", "came", at=2, dp_id="up", roles=roles("member"))
    gone = event("user_deleted", "left", at=1)
    receive(database, gone, came) if at_once else one_by_one(database, [gone, came])
    assert user_of(database, "came") == user_id
    assert (rows(database, local_roles), roles_of(database, "came")) == ([], {"member": {"came"}})
    granted, revoked, delivered, operated = "role.granted", "role.revoked", "delivery", "operator"
    both = [(granted, "member", delivered), (granted, "owner", operated)]
    if at_once:  # `member` was had all the time
        assert told(database, "came") == [*both, (revoked, "owner", delivered)]
    else:
        gone_with_them = [(revoked, "member", delivered), (revoked, "owner", delivered)]
        assert told(database, "came") == [*both, *gone_with_them, (granted, "member", delivered)]


@pytest.mark.parametrize("at_once", [True, False])
def test_who_joins_a_colleague_shares_what_was_granted(database: Database, at_once: bool) -> None:
    """A second directory of a company that moves: nobody new, if the first said then that the person is there, whenever we hear of it."""
    receive(database, event("user_created", "old", email="a@example.com"))
    Roles(database).grant(ORGANIZATION, user_of(database, "old"), {"owner"}, BY)
    came, gone = event("user_created", "new", at=1, email="a@example.com"), event("user_updated", "old", at=2, active=False)
    receive(database, came, gone) if at_once else one_by_one(database, [gone, came])
    assert user_of(database, "new") == user_of(database, "old")
    assert roles_of(database, "new") == {"owner": {LOCAL}}


@pytest.mark.parametrize("active", [True, False])
def test_whom_nobody_is_behind_yet_may_be_granted_roles(database: Database, active: bool) -> None:
    """An account that was brought over from elsewhere stays as it is."""
    put(database, users, {"id": "usr_1", "active": active, "name": "Ann", "attributes": {"a": 1}})
    Roles(database).grant(ORGANIZATION, "usr_1", {"owner"}, BY)
    assert [(row["active"], row["name"], row["attributes"]) for row in rows(database, users)] == [(active, "Ann", {"a": 1})]
    assert [row["role"] for row in rows(database, role_grants)] == (["owner"] if active else [])
    assert [row["role"] for row in rows(database, local_roles)] == ["owner"]


def test_whom_a_run_finds_on_an_abandoned_account_gets_nothing_that_was_granted_there(database: Database) -> None:
    """A listing does not say when somebody came; what it says is as old as its start, less a margin."""
    receive(database, event("user_created", "left", email="a@example.com"), event("user_updated", "left", at=100, active=False))
    Roles(database).grant(ORGANIZATION, user_of(database, "left"), {"owner"}, BY)
    began = parse(delivery(event("user_created", "came", at=70))).event
    assert began
    found = listed(began.type, ORGANIZATION, "came", began.version.occurred_at, {"email": "a@example.com", "active": True})
    with database.writing() as session:
        apply(session, [found], [Cause(CauseKind.RUN, "run_1", found.version.occurred_at)], "live", heed_mark=False)
    assert user_of(database, "came") == user_of(database, "left")
    assert (rows(database, local_roles), roles_of(database, "came")) == ([], {})


def test_what_stays_granted_is_as_it_was(database: Database) -> None:
    """A grant replaces the whole list: what is in both has its first hour and hand, and who asks for the same again changes nothing."""
    receive(database, event("user_created", "u"))
    user_id = user_of(database, "u")
    for wanted, by in (({"admin", "owner"}, "first"), ({"owner", "member"}, "second"), ({"member", "owner"}, "third")):
        Roles(database).grant(ORGANIZATION, user_id, wanted, by)
    assert {row["role"]: row["granted_by"] for row in rows(database, local_roles)} == {"member": "second", "owner": "first"}
    assert [(row["type"], row["role"], row["cause_id"]) for row in rows(database, changes) if row["role"]] == [
        ("role.granted", "admin", "first"),
        ("role.granted", "owner", "first"),
        ("role.granted", "member", "second"),
        ("role.revoked", "admin", "second"),
    ]
    assert {row["occurred_at"] for row in rows(database, changes) if row["cause"] == "operator"} == {None}


def test_nobody_who_is_not_here_can_be_given_anything(database: Database) -> None:
    """Nor a group; and what another organization has is not here."""
    receive(database, event("user_created", "u", groups=named("g")))
    user_id = user_of(database, "u")
    for organization_id, user, group in ((ORGANIZATION, "u", "u"), ("org_2", user_id, "g")):
        with pytest.raises(NotFound, match="user"):
            Roles(database).grant(organization_id, user, {"admin"}, BY)
        with pytest.raises(NotFound, match="group"):
            Roles(database).map_group(organization_id, group, {"admin"}, BY)
    assert having(database, "admin") == set()


# Groups mapped to roles


def test_a_mapped_role_is_that_of_who_is_in_the_group_and_active(database: Database) -> None:
    """It comes and goes with membership, activity, the group and the mapping, in both directions."""
    receive(database, event("user_created", "in", groups=named("g")), event("user_created", "out", groups=named("other")))
    receive(database, event("user_created", "idle", groups=named("g"), active=False))
    Roles(database).map_group(ORGANIZATION, "g", {"admin"}, BY)
    assert having(database, "admin") == {"in"}
    for at, (kind, id_, data, have) in enumerate(
        [
            ("user_updated", "out", {"groups": named("g", "other")}, {"in", "out"}),
            ("user_updated", "in", {"groups": []}, {"out"}),
            ("user_updated", "idle", {"active": True}, {"out", "idle"}),
            ("user_updated", "out", {"active": False}, {"idle"}),
            ("user_created", "new", {"groups": named("g")}, {"idle", "new"}),
            ("group_deleted", "g", {}, set()),
            ("user_updated", "in", {"groups": named("g")}, set()),
            ("group_created", "g", {}, {"idle", "new", "in"}),
            ("user_deleted", "new", {}, {"idle", "in"}),
        ],
        1,
    ):
        receive(database, event(kind, id_, at=at, **data))  # type: ignore[arg-type] # its data
        assert having(database, "admin") == have
        assert_everybody_has_what_is_due(look(database))
    Roles(database).map_group(ORGANIZATION, "g", (), BY)
    assert having(database, "admin") == set()


def test_a_role_of_two_sources_is_granted_once_and_revoked_with_the_last(database: Database) -> None:
    """Of the directory, of a group, and granted here: one role."""
    receive(database, event("user_created", "u", roles=roles("admin"), groups=named("g")))
    user_id = user_of(database, "u")
    Roles(database).map_group(ORGANIZATION, "g", {"admin"}, BY)
    Roles(database).grant(ORGANIZATION, user_id, {"admin"}, BY)
    assert roles_of(database, "u") == {"admin": {"u", from_group("g"), LOCAL}}
    receive(database, event("user_updated", "u", at=1, roles=[]))
    Roles(database).grant(ORGANIZATION, user_id, (), BY)
    assert told(database, "u") == [("role.granted", "admin", "delivery")]
    receive(database, event("user_updated", "u", at=2, groups=[]))
    assert told(database, "u") == [("role.granted", "admin", "delivery"), ("role.revoked", "admin", "delivery")]


def test_what_is_told_again_changes_nothing_that_was_given(database: Database) -> None:
    """Duplicates and replays: no row, and no line in the log."""
    history = [
        delivery(event("user_created", "u", groups=named("g"), roles=roles("member"))),
        delivery(event("user_updated", "u", at=1, name="U")),
        delivery(event("group_updated", "g", at=1)),
    ]
    Inbox(database).receive(history)
    Roles(database).map_group(ORGANIZATION, "g", {"admin"}, BY)
    Roles(database).grant(ORGANIZATION, user_of(database, "u"), {"owner"}, BY)
    before = state(database), rows(database, local_roles), rows(database, role_grants), rows(database, changes)
    Inbox(database).receive(history)
    Inbox(database).replay([each.webhook_id for each in history])
    receive(database, *(each.body for each in history))
    Roles(database).map_group(ORGANIZATION, "g", {"admin"}, "another")
    Roles(database).grant(ORGANIZATION, user_of(database, "u"), {"owner"}, "another")
    assert (state(database), rows(database, local_roles), rows(database, role_grants), rows(database, changes)) == before


# Many members


def company(database: Database, members: int) -> set[str]:
    """So many people in the group `g`, each with an account of their own; returns their ids."""
    ids = [f"u{number:05}" for number in range(members)]
    for start in range(0, members, 250):
        receive(database, *(event("user_created", each, groups=named("g")) for each in ids[start : start + 250]))
    return set(ids)


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@pytest.mark.parametrize("members", [0, 1, 19, 20, 21, 40, 101])
def test_everybody_gets_it_however_many_there_are(database: Database, members: int) -> None:
    """Whether the last twenty are full or not; nothing is left to do then."""
    everybody = company(database, members) if members else receive(database, event("group_created", "g")) and set()
    Roles(database, users_at_once=20).map_group(ORGANIZATION, "g", {"admin"}, BY)
    assert having(database, "admin") == everybody
    assert rows(database, unapplied_roles) == []
    Roles(database, users_at_once=20).map_group(ORGANIZATION, "g", {"member"}, BY)
    assert (having(database, "admin"), having(database, "member")) == (set(), everybody)


def test_webhooks_are_received_while_a_group_is_mapped(database_url: str) -> None:
    """Between any twenty members and the next, whomever and whatever they are about."""
    with closing(Database(database_url)) as database:
        everybody = company(database, 200)
        outcomes: list[str] = []

        def webhooks(number: int) -> None:
            outcomes.extend(
                one_by_one(
                    database,
                    [
                        event("user_updated", f"u{number:05}", at=1, groups=[]),
                        event("user_updated", f"u{199 - number:05}", at=1, groups=[]),
                        event("user_created", f"v{number:05}", at=1, groups=named("g")),
                        event("group_updated", "g", at=1, display_name=str(number)),
                    ],
                )
            )

        with closing(Interrupted(database_url, webhooks)) as interrupted:
            Roles(interrupted, users_at_once=20).map_group(ORGANIZATION, "g", {"admin"}, BY)
        assert len(outcomes) >= 4 * 11
        assert set(outcomes) == {"processed"}
        times = len(outcomes) // 4 + 1
        left = {f"u{number:05}" for each in range(1, times) for number in (each, 199 - each)}
        assert having(database, "admin") == (everybody - left) | {f"v{number:05}" for number in range(1, times)}
        assert_everybody_has_what_is_due(look(database))


class Died(BaseException):
    """The process is no more."""


def dies_at(number: int) -> Callable[[int], None]:
    """Ends a process before its transaction of this number."""

    def does(transaction: int) -> None:
        if transaction == number:
            raise Died

    return does


def overdue(database: Database) -> None:
    """It was a minute ago that somebody said to be at it."""
    with database.writing() as session:
        session.execute(update(unapplied_roles).values(due_at=datetime.now(UTC) - timedelta(seconds=1)))


@pytest.mark.parametrize("again", [True, False])
def test_what_a_process_leaves_undone_another_one_finishes(database_url: str, again: bool) -> None:
    """Put down to whoever asked for it; not while it may still be at it, but at once when somebody asks for the same again."""
    with closing(Database(database_url)) as database, closing(Interrupted(database_url, dies_at(4))) as dying:
        everybody = company(database, 100)
        with pytest.raises(Died):
            Roles(dying, users_at_once=20).map_group(ORGANIZATION, "g", {"admin"}, BY)
        assert len(having(database, "admin")) == 40
        resume(Roles(database))
        assert len(having(database, "admin")) == 40
        if again:
            Roles(database).map_group(ORGANIZATION, "g", {"admin"}, BY)
        else:
            overdue(database)
            resume(Roles(database, users_at_once=20))
        assert having(database, "admin") == everybody
        granted = [(row["role"], row["cause_id"]) for row in rows(database, changes) if row["type"] == "role.granted"]
        assert granted == [("admin", BY)] * 100
        before = rows(database, changes), rows(database, role_grants)
        Roles(database).map_group(ORGANIZATION, "g", {"admin"}, "another")
        resume(Roles(database))
        assert (rows(database, changes), rows(database, role_grants), rows(database, unapplied_roles)) == (*before, [])


def test_who_takes_over_may_die_as_well(database_url: str) -> None:
    """It is found again, as often as it takes; a group that cannot be finished is in no other's way."""
    with closing(Database(database_url)) as database, closing(Interrupted(database_url, dies_at(4))) as dying:
        everybody = company(database, 100)
        with pytest.raises(Died):
            Roles(dying, users_at_once=20).map_group(ORGANIZATION, "g", {"admin"}, BY)
        overdue(database)
        with closing(Interrupted(database_url, dies_at(3))) as taking_over, pytest.raises(Died):
            resume(Roles(taking_over, users_at_once=20))
        resume(Roles(database))
        assert len(rows(database, unapplied_roles)) == 1, "its time is not over yet"
        overdue(database)
        resume(Roles(database))
        assert (having(database, "admin"), rows(database, unapplied_roles)) == (everybody, [])


@pytest.mark.parametrize("dies", [True, False])
def test_who_is_overtaken_leaves_it_to_who_came_after(database_url: str, dies: bool) -> None:
    """Of two who decide about a group the second's is what everybody gets, and what the log puts down to it, whoever brings it."""
    with closing(Database(database_url)) as database, closing(Interrupted(database_url, dies_at(2 if dies else 0))) as other:
        everybody = company(database, 100)

        def second(transaction: int) -> None:
            if transaction == 3:
                with suppress(Died):
                    Roles(other, users_at_once=20).map_group(ORGANIZATION, "g", {"member"}, "second")

        with closing(Interrupted(database_url, second)) as first:
            Roles(first, users_at_once=20).map_group(ORGANIZATION, "g", {"admin"}, "first")
        if dies:
            assert (len(having(database, "admin")), len(having(database, "member"))) == (20, 0)
            overdue(database)
            resume(Roles(database))
        assert (having(database, "admin"), having(database, "member")) == (set(), everybody)
        by = {(row["type"], row["role"], row["cause_id"]) for row in rows(database, changes) if row["role"]}
        assert by == {("role.granted", "admin", "first"), ("role.granted", "member", "second"), ("role.revoked", "admin", "second")}


def test_who_is_stopped_says_so_and_leaves_the_rest(database_url: str) -> None:
    """A service that ends between two slices: what is decided stays decided, and waits for another process."""
    with closing(Database(database_url)) as database:
        everybody = company(database, 60)
        stopped: list[Roles] = []

        def stop(transaction: int) -> None:
            if transaction == 2:
                stopped[0].stop()

        with closing(Interrupted(database_url, stop)) as ending:
            stopped.append(Roles(ending, users_at_once=20))
            with pytest.raises(Unavailable, match="stopping"):
                stopped[0].map_group(ORGANIZATION, "g", {"admin"}, BY)
            overdue(database)
            resume(stopped[0])
        assert len(having(database, "admin")) == 20
        resume(Roles(database))
        assert having(database, "admin") == everybody


# At once, on PostgreSQL


def test_who_is_put_into_a_group_while_it_is_mapped_is_found(postgres_url: str) -> None:
    """Whoever put them there has read the mapping of before, and is waited for."""
    with closing(Database(postgres_url)) as database, ThreadPoolExecutor() as threads:
        receive(database, event("group_created", "g"), event("user_created", "u"))
        with Gate.before_commits(postgres_url, "memberships") as gate:
            joins = threads.submit(receive, database, event("user_updated", "u", at=1, groups=named("g")))
            until(lambda: gate.waiting() == 1)
            maps = threads.submit(Roles(database).map_group, ORGANIZATION, "g", {"admin"}, BY)
            until(lambda: gate.waiting() == 2 or maps.done())
            gate.open()
            for each in (joins, maps):
                each.result(PATIENCE_SECONDS)
        assert having(database, "admin") == {"u"}


@pytest.mark.parametrize("rounds", [4, pytest.param(200, marks=pytest.mark.proof)])
def test_mappings_and_grants_that_race_with_webhooks_end_right(postgres_url: str, rounds: int) -> None:
    """Three who tell of people and groups, and two who decide: in the end everybody has what is due, and the log never said it twice."""
    random = Random(rounds)  # noqa: S311 # for orders, not for secrets
    with closing(Database(postgres_url, writers=5)) as database, ThreadPoolExecutor(5) as threads:
        for number in range(rounds):
            organization_id = f"org_{number}"
            people = [event("user_created", f"u{each}", organization_id=organization_id) for each in range(12)]
            receive(database, *people, *(event("group_created", f"g{each}", organization_id=organization_id) for each in range(2)))
            start = Barrier(5)
            tasks = [(each, Random(random.random())) for each in [tells] * 3 + [decides] * 2]  # noqa: S311
            for done in [threads.submit(work, database, organization_id, chance, start) for work, chance in tasks]:
                done.result(PATIENCE_SECONDS)
            assert_everybody_has_what_is_due(look(database, organization_id))


def tells(database: Database, organization_id: str, chance: Random, start: Barrier) -> None:
    """Of twelve who enter and leave two groups, come and go, and of the groups."""
    start.wait(PATIENCE_SECONDS)
    for _ in range(8):
        receive(database, *(happens(chance, organization_id) for _ in range(3)))


def decides(database: Database, organization_id: str, chance: Random, start: Barrier) -> None:
    """About the groups, and about anybody."""
    given, present = Roles(database, users_at_once=3), [row["id"] for row in rows(database, users, organization_id)]
    start.wait(PATIENCE_SECONDS)
    for _ in range(4):
        given.map_group(organization_id, f"g{chance.randrange(2)}", some_roles(chance), BY)
        given.grant(organization_id, chance.choice(present), some_roles(chance), BY)


def happens(chance: Random, organization_id: str) -> bytes:
    """Something at any time: half of what is told is overtaken already."""
    at = chance.randrange(10**6)
    if chance.random() < 0.1:
        kind = chance.choice(["group_updated", "group_deleted"])
        return event(kind, f"g{chance.randrange(2)}", at=at, organization_id=organization_id)
    kind = chance.choice(["user_updated"] * 4 + ["user_deleted"])
    data: dict[str, Json] = {"active": chance.random() < 0.8}
    if chance.random() < 0.8:
        data["groups"] = named(*(each for each in ("g0", "g1") if chance.random() < 0.5))
    return event(kind, f"u{chance.randrange(12)}", at=at, organization_id=organization_id, **data)  # type: ignore[arg-type] # its data


def some_roles(chance: Random) -> set[str]:
    """Any of three."""
    return {role for role in ("admin", "member", "owner") if chance.random() < 0.5}
