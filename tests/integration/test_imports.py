"""Accounts that the application had before: joined by whoever comes from a directory, and never doubled."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from threading import Barrier
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sent
from structlog.testing import capture_logs
from test_convergence import VALUES, Fact

from factories import ORGANIZATION, delivery, event, named, one_by_one, receive, roles, user_of
from faults import Gate, opened, until
from following import Copy, everything, original
from provisioning import application_ids, imports, privacy
from provisioning.db import personal
from provisioning.db.reading.users import User, UserFilter, page_of_users
from provisioning.db.session import Database
from provisioning.feed import Wanted
from provisioning.imports import Account, Fate, bring, unknown_organizations
from provisioning.inbox import Inbox
from provisioning.merge import Key

BY = "operator"
PEOPLE = ("ann", "bob", "eve")
_numbers = count(1)


def account(number: int, email: str, application_id: str, organization_id: str = ORGANIZATION, **more: Any) -> Account:
    """The account in this line of a file."""
    return Account(number, organization_id, email, application_id, **more)


def file_of(*people: str, organization_id: str = ORGANIZATION) -> list[Account]:
    """A file with their accounts: each has the e-mail `<name>@x.com`, and is called by its name."""
    return [account(line, f"{each}@x.com", each, organization_id) for line, each in enumerate(people, 2)]


def brought(database: Database, accounts: Iterable[Account], *, apply: bool = True) -> dict[int, tuple[str, list[str]]]:
    """Bring them in; returns what became of each line."""
    parts = bring(database, list(accounts), BY, apply=apply)
    return {each.account.line: (str(each.fate), list(each.user_ids)) for part in parts for each in part}


def users(database: Database, organization_id: str = ORGANIZATION) -> list[User]:
    """The organization's."""
    with database.reading() as session:
        return page_of_users(session, organization_id, UserFilter(), after="", limit=999)


def called(database: Database, organization_id: str = ORGANIZATION) -> dict[str | None, User]:
    """The same by what the application calls them; nobody is called as another is."""
    found = users(database, organization_id)
    assert len({user.application_id for user in found}) == len(found)
    return {user.application_id: user for user in found}


def test_each_account_has_its_fate(database: Database) -> None:
    """A dry run says the same, and changes nothing; done again everything is as it was, and whoever was left is left."""
    receive(database, *(event("user_created", each, email=f"{each.upper()}@x.com") for each in ("ann", "bob", "eve", "kim")))
    receive(database, *(event("user_created", f"two_{number}", email="two@x.com", dp_id=f"up_{number}") for number in range(2)))
    one_by_one(database, [event("user_deleted", "two_0", at=1), event("user_created", "two_2", at=2, email="two@x.com", dp_id="up_2")])
    ids = {each: user_of(database, each) for each in ("ann", "bob", "eve", "kim", "two_0", "two_2")}
    assert ids["two_0"] == ids["two_2"]
    application_ids.call(database, Key(ORGANIZATION, ids["bob"]), "bob", BY)
    application_ids.call(database, Key(ORGANIZATION, ids["eve"]), "another", BY)
    accounts = [
        *file_of("ann", "bob", "eve"),
        account(5, "kim@x.com", "another"),
        account(6, "new@x.com", "new", name="Newcomer"),
        account(7, "left@x.com", "left", active=False),
        account(8, "Twice@x.com", "once"),
        account(9, "twice@X.com", "again"),
        account(10, "one@x.com", "same"),
        account(11, "other@x.com", "same"),
        account(12, "ann@x.com", "ann", "org_2"),
    ]
    due = {
        2: ("linked", [ids["ann"]]),
        3: ("unchanged", [ids["bob"]]),
        4: ("called_otherwise", [ids["eve"]]),
        5: ("taken", [ids["eve"]]),
        **dict.fromkeys((6, 7, 12), ("made", [])),
        **dict.fromkeys((8, 9, 10, 11), ("repeated", [])),
    }
    before = users(database), everything(database)
    assert brought(database, accounts, apply=False) == due
    assert (users(database), everything(database)) == before
    assert unknown_organizations(database, accounts) == ["org_2"]
    assert brought(database, accounts) == due
    assert unknown_organizations(database, accounts) == []
    ours = {user.application_id: user for user in users(database)}
    assert {ours[each].id for each in ("ann", "bob", "another")} == {ids[each] for each in ("ann", "bob", "eve")}
    assert [(ours[each].email, ours[each].name, ours[each].active) for each in ("new", "left")] == [
        ("new@x.com", "Newcomer", True),
        ("left@x.com", None, False),
    ]
    updated_at = {user.id: user.updated_at for user in before[0]}
    assert [ours[each].updated_at > updated_at[ids[each]] for each in ("ann", "bob")] == [True, False]
    after = users(database), everything(database)
    again = brought(database, accounts)
    assert {line: fate for line, (fate, _) in again.items()} == {
        line: "unchanged" if fate in {"linked", "made"} else fate for line, (fate, _) in due.items()
    }
    assert (users(database), everything(database)) == after
    assert Copy().follow(everything(database, wanted=Wanted(ORGANIZATION))).users == original(database, ORGANIZATION).users


def test_several_with_the_e_mail_are_named_unless_one_has_the_id(database: Database) -> None:
    """Nobody guesses who is meant: once an operator has said it, nothing is left."""
    receive(database, event("user_created", "old", email="a@x.com", dp_id="1"))
    one_by_one(database, [event("user_deleted", "old", at=1), event("user_created", "new", at=2, email="a@x.com", dp_id="2")])
    both = sorted(user_of(database, each) for each in ("old", "new"))
    assert len(set(both)) == 2
    accounts = [account(2, "a@x.com", "42")]
    assert brought(database, accounts) == {2: ("ambiguous", both)}
    application_ids.call(database, Key(ORGANIZATION, both[1]), "42", BY)
    assert brought(database, accounts) == {2: ("unchanged", [both[1]])}


def test_a_leavers_account_is_nobodys_by_its_e_mail(database: Database) -> None:
    """The address may be the next person's by now: an operator says who is meant. While somebody is behind the user, it is linked."""
    receive(database, *(event("user_created", each, email="a@x.com") for each in ("first", "second")))
    accounts = [account(2, "a@x.com", "42")]
    user_id = user_of(database, "first")
    assert user_of(database, "second") == user_id
    receive(database, event("user_deleted", "first", at=1))
    assert brought(database, accounts, apply=False) == {2: ("linked", [user_id])}
    receive(database, event("user_deleted", "second", at=1))
    before = everything(database)
    assert brought(database, accounts) == {2: ("left_behind", [user_id])}
    assert everything(database) == before
    application_ids.call(database, Key(ORGANIZATION, user_id), "42", BY)
    assert brought(database, accounts) == {2: ("unchanged", [user_id])}


def test_who_was_imported_is_joined_by_the_first_sync_and_leaves_with_it(database: Database) -> None:
    """Groups, roles and access come to the account that the application knows; a leaver has none."""
    brought(database, [account(2, "Ann@x.com", "42", name="A."), account(3, "bob@x.com", "43")])
    before = called(database)
    assert [user.groups for user in before.values()] == [[], []]
    synced = [
        event("user_created", each, email=f"{each}@x.com", name=each, groups=named("g"), roles=roles("member")) for each in ("ann", "bob")
    ]
    receive(database, *synced)
    after = called(database)
    assert {each: user.id for each, user in after.items()} == {each: user.id for each, user in before.items()}
    ann = after["42"]
    assert (ann.active, ann.name, ann.email, ann.roles, [each.id for each in ann.groups]) == (True, "ann", "ann@x.com", ["member"], ["g"])
    receive(database, event("user_updated", "ann", at=1, active=False), event("user_deleted", "bob", at=1))
    assert {each: (user.active, user.roles, user.groups) for each, user in called(database).items()} == {
        "42": (False, [], []),
        "43": (False, [], []),
    }
    told = [(change.type, change.cause) for change in everything(database) if change.user_id == ann.id]
    assert told[0] == ("user.created", "operator")
    assert [type_ for type_, _ in told].count("user.created") == 1


def test_what_is_done_is_one_line_in_the_log_without_a_name(database: Database) -> None:
    """How many, and by whom; a dry run is none."""
    with capture_logs() as entries:
        brought(database, file_of("ann", "bob"), apply=False)
        brought(database, [*file_of("ann", "bob"), account(9, "bob@x.com", "x")])
    nothing = dict.fromkeys(("linked", "unchanged", "ambiguous", "left_behind", "called_otherwise", "taken"), 0)
    assert entries == [{"event": "accounts_imported", "log_level": "info", "caller": BY, **nothing, "made": 1, "repeated": 2}]


# In any order

Step: TypeAlias = Fact | None  # None: the file is brought in


@st.composite
def _facts(draw: st.DrawFn) -> Fact:
    """An event about somebody of the file, with the e-mail that Scalekit always sends."""
    kind = draw(st.sampled_from(["user_created", "user_updated", "user_updated", "user_deleted"]))
    person, at, number = draw(st.sampled_from(PEOPLE)), draw(st.integers(0, 6)), draw(st.integers(1, 3))
    data = [(key, draw(st.sampled_from(list(VALUES[key])))) for key in ("active", "name", "groups", "roles") if draw(st.booleans())]
    return Fact(kind, person, at, number, tuple(data))


def _told(fact: Fact, organization_id: str) -> bytes:
    data = {key: VALUES[key][value] for key, value in fact.data}
    # As others write it: what it is compared by is the same.
    email = f"{fact.id.title()}@X.com" if fact.number == 1 else f"{fact.id}@x.com"
    return event(fact.kind, fact.id, at=fact.at, number=fact.number, organization_id=organization_id, told="org", email=email, **data)


@st.composite
def _tellings(draw: st.DrawFn) -> list[list[Step]]:
    """The same events twice, in other orders and with repetitions, and the file between them, once or more."""
    history: list[Step] = draw(st.lists(_facts(), min_size=1, max_size=6))
    return [draw(st.permutations([*history, *draw(st.lists(st.sampled_from([*history, None]), max_size=2)), None])) for _ in range(2)]


def _come_to(database: Database, steps: list[Step]) -> dict[str | None, object]:
    """Tell it to an organization of its own; returns what each account shows in the end, by its application id."""
    organization_id = f"org_{next(_numbers)}"
    for step in steps:
        if step is None:
            fates = brought(database, file_of(*PEOPLE, organization_id=organization_id))
            assert {fate for fate, _ in fates.values()} <= {"linked", "made", "unchanged", "left_behind"}
            for line, (fate, ids) in fates.items():
                if fate == "left_behind":  # an operator says that it is the same person
                    application_ids.call(database, Key(organization_id, ids[0]), PEOPLE[line - 2], BY)
        else:
            Inbox(database).receive([delivery(_told(step, organization_id))])
    copy = Copy().follow(everything(database, wanted=Wanted(organization_id), limit=200))
    ours = original(database, organization_id)
    assert (copy.users, copy.memberships, copy.roles) == (ours.users, ours.memberships, ours.roles)
    return {
        each: (user.active, user.name, [group.id for group in user.groups], user.roles, [person.id for person in user.directory_users])
        for each, user in called(database, organization_id).items()
    }


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@settings(max_examples=settings().max_examples // 5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(told=_tellings())
def test_an_import_may_come_before_between_or_after(database: Database, told: list[list[Step]]) -> None:
    """In the end there is one user for each person, with its application id, and as its directory says: never two."""
    first, *others = (_come_to(database, steps) for steps in told)
    assert sorted(map(str, first)) == sorted(PEOPLE)
    for other in others:
        assert other == first


# At once

WAYS: tuple[Callable[[Database, list[str], str], object], ...] = (
    lambda database, people, organization_id: brought(database, file_of(*people, organization_id=organization_id)),
    lambda database, people, organization_id: receive(
        database, *(event("user_created", each, email=f"{each}@x.com", organization_id=organization_id) for each in reversed(people))
    ),
)


@pytest.mark.parametrize("second", [0, 1], ids=["import", "sync"])
def test_at_once_they_double_nobody(database: Database, monkeypatch: pytest.MonkeyPatch, second: int) -> None:
    """An import beside another, or beside the first sync of the same people: one user each, with its application id."""
    monkeypatch.setattr(imports, "ACCOUNTS_AT_ONCE", 7)
    people = [f"p{number}" for number in range(20)]
    begin = Barrier(2)

    def work(way: Callable[[Database, list[str], str], object], organization_id: str) -> None:
        begin.wait(20)
        way(database, people, organization_id)

    with ThreadPoolExecutor(2) as threads:
        for number in range(4):
            done = [threads.submit(work, way, f"org_{number}") for way in (WAYS[0], WAYS[second])]
            for each in done:
                each.result(60)
            found = called(database, f"org_{number}")
            assert sorted(map(str, found)) == sorted(people)
            assert {len(user.directory_users) for user in found.values()} == {second}


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 0)], ids=["import import", "import sync", "sync import"])
def test_whoever_comes_second_finds_what_the_first_did(postgres_url: str, first: int, second: int) -> None:
    """Also where that one is about to commit."""
    with opened(postgres_url) as database:
        receive(database, event("directory_enabled", "dir_1"))  # or both would wait to be the first who know the organization
        with Gate.before_commits(postgres_url, "changes") as gate, ThreadPoolExecutor(2) as threads:
            one = threads.submit(WAYS[first], database, ["ann", "bob"], ORGANIZATION)
            until(lambda: gate.waiting() == 1)
            other = threads.submit(WAYS[second], database, ["bob", "ann"], ORGANIZATION)
            until(lambda: gate.waiting() == 2)
            gate.open()
            one.result(20)
            other.result(20)
        assert sorted(map(str, called(database))) == ["ann", "bob"]


def erase(database: Database, directory_user_id: str) -> None:
    """Erase the person."""
    with database.reading() as session:
        (whom,) = personal.find(session, directory_user_id, None)
    privacy.erase(database, whom, BY)


@pytest.mark.parametrize("decided", ["called otherwise", "another is called so", "erased"])
def test_what_an_operator_is_deciding_is_waited_for(postgres_url: str, decided: str) -> None:
    """Somebody gets another id, somebody else the same one, or is erased: the account has the fate that follows from it."""
    with opened(postgres_url) as database:
        receive(database, *(event("user_created", each, email=f"{each}@x.com") for each in ("ann", "bob")))
        ann, bob = (Key(ORGANIZATION, user_of(database, each)) for each in ("ann", "bob"))
        decide, due = {
            "called otherwise": (partial(application_ids.call, database, ann, "other", BY), ("called_otherwise", [ann.id])),
            "another is called so": (partial(application_ids.call, database, bob, "ann", BY), ("taken", [bob.id])),
            "erased": (partial(erase, database, "ann"), ("made", [])),
        }[decided]
        with Gate.before_commits(postgres_url, "changes") as gate, ThreadPoolExecutor(2) as threads:
            one = threads.submit(decide)
            until(lambda: gate.waiting() == 1)
            other = threads.submit(brought, database, file_of("ann"))
            until(lambda: gate.waiting() == 2)
            gate.open()
            one.result(20)
            assert other.result(20) == {2: due}


def test_it_costs_no_statement_an_account(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hundred are decided at once, by as many statements as two."""
    statements = list[str]()
    sent.listen(database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    costs = []
    for organization_id, number in (("org_1", 2), ("org_2", 200)):
        receive(
            database,
            *(event("user_created", f"p{each}", email=f"p{each}@x.com", organization_id=organization_id) for each in range(number)),
        )
        before = len(statements)
        fates = brought(database, file_of(*(f"p{each}" for each in range(2 * number)), organization_id=organization_id))
        assert [fate for fate, _ in fates.values()].count(Fate.LINKED) == number
        costs.append(len(statements) - before)
    assert costs[0] == costs[1] < 25
