"""Any number of processes and threads receive into one database at once, and end where one alone ends: nothing lost, nothing doubled."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from random import Random
from threading import Barrier, BrokenBarrierError
from typing import TypeAlias

import pytest
from crew import PATIENCE_SECONDS, Crew, line_up
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from databases import Databases
from factories import ORGANIZATION, delivery, delivery_rows, event, named, receive, roles, state, user_rows
from faults import AT_STATEMENT, Gate, failing, opened, until
from provisioning.accounts import show
from provisioning.bodies import Json
from provisioning.changes import Cause, CauseKind, of_user
from provisioning.db import erased, organizations
from provisioning.db import roles as roles_given_here
from provisioning.db import users as accounts
from provisioning.db.models import deliveries, directory_users
from provisioning.db.session import Contended, Database
from provisioning.events import Delivery
from provisioning.inbox import Inbox, Outcome, Receipt
from provisioning.logs import describe
from provisioning.merge import Key
from provisioning.roles import Roles
from rows import NOW

Batches: TypeAlias = Sequence[Sequence[Delivery]]


def receive_in_rounds(work: tuple[str, Sequence[Batches]]) -> list[Receipt]:
    """What one process does with a database's URL and its batches: it begins every round together with the other one."""
    url, rounds = work
    receipts = []
    with closing(Database(url)) as database:
        for batches in rounds:
            line_up()
            for batch in batches:
                receipts += Inbox(database).receive(batch)
    return receipts


@pytest.fixture(scope="module")
def processes() -> Iterator[Crew]:
    """Two processes."""
    with Crew.assembled() as crew:
        yield crew


def history(random: Random, organization_id: str) -> list[Delivery]:
    """Sixty events of ten people, four groups and two directories; no two people share an e-mail or an upstream id."""
    bodies = []
    for at in range(60):
        subject = random.choice(["user"] * 8 + ["group", "directory"])
        data: dict[str, Json] = {}
        if subject == "directory":
            kind, id_ = random.choice(["directory_enabled", "directory_disabled"]), f"dir_{random.randrange(2)}"
        elif subject == "group":
            kind, id_ = random.choice(["group_updated", "group_deleted"]), f"g{random.randrange(4)}"
        else:
            kind, id_ = random.choice(["user_created", "user_updated", "user_updated", "user_deleted"]), f"u{random.randrange(10)}"
            data = {
                "email": f"{id_}@example.com",
                "dp_id": id_,
                "name": f"at {at}",
                "active": random.random() < 0.8,
                "directory_id": f"dir_{random.randrange(2)}",
                "groups": named(*random.sample([f"g{number}" for number in range(4)], random.randrange(4))),
                "roles": roles(*random.sample(["admin", "member"], random.randrange(3))),
            }
        bodies.append(event(kind, id_, at=at, organization_id=organization_id, **data))  # type: ignore[arg-type] # its data
    return [delivery(body) for body in bodies]


def told(random: Random, deliveries: Sequence[Delivery]) -> Batches:
    """The same in another order, cut into batches of different sizes."""
    order = random.sample(deliveries, len(deliveries))
    batches = []
    while order:
        size = random.choice([1, 2, 5, 20])
        batches.append(order[:size])
        del order[:size]
    return batches


ROUNDS = [4, pytest.param(100, marks=pytest.mark.proof)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_two_processes_receive_the_same_at_once(database_url: str, sqlite_databases: Databases, processes: Crew, rounds: int) -> None:
    """They end where one alone ends, and each delivery is recorded once."""
    random = Random(rounds)  # noqa: S311 # for orders, not for secrets
    histories = [history(random, f"org_{number}") for number in range(rounds)]
    first, second = processes.run(receive_in_rounds, *((database_url, [told(random, each) for each in histories]) for _ in range(2)))
    done = Counter(receipt.webhook_id for receipt in first + second if receipt.outcome != "duplicate")
    assert done == Counter(each.webhook_id for deliveries in histories for each in deliveries)
    with ExitStack() as stack:
        alone = stack.enter_context(closing(Database(stack.enter_context(sqlite_databases.fresh(migrated=True)))))
        database = stack.enter_context(closing(Database(database_url)))
        for deliveries in histories:
            Inbox(alone).receive(deliveries)
        assert state(database) == state(alone)
        rows = delivery_rows(database)
    assert rows.keys() == done.keys()
    assert {(row["outcome"], row["attempts"]) for row in rows.values()} == {("processed", 1), ("stale", 1)}


@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_two_newcomers_at_once_make_one_user_whenever_they_should(database_url: str, processes: Crew) -> None:
    """200 times of 200 of one e-mail, and 50 of 50 without any and of one upstream id, each arriving at another process."""

    def newcomers(side: str) -> list[Batches]:
        reasons: list[dict[str, Json]] = [
            {"email": f"{number}@example.com", "dp_id": f"{side}_{number}"} if number < 200 else {"dp_id": f"up_{number}"}
            for number in range(250)
        ]
        return [[[delivery(event("user_created", f"{side}_{number}", **data))]] for number, data in enumerate(reasons)]  # type: ignore[arg-type]

    processes.run(receive_in_rounds, (database_url, newcomers("left")), (database_url, newcomers("right")))
    with closing(Database(database_url)) as database:
        behind = sorted(sorted(row[0]) for row in state(database, ORGANIZATION)["users"])  # type: ignore[call-overload] # ids
    assert behind == sorted([f"left_{number}", f"right_{number}"] for number in range(250))


class Counting(Database):
    """A database that counts how often a batch was a deadlock's victim, or lost its connection, and was done again."""

    victims = 0

    @contextmanager
    def writing(self) -> Iterator[Session]:
        try:
            with super().writing() as session:
                yield session
        except Contended as error:
            self.victims += error.__cause__ is not None  # else it is we who found that another batch had won
            raise


def in_threads(url: str, *work: Batches) -> tuple[list[Receipt], int]:
    """Receive each of the `work` in a thread and over a database object of its own, the first batch of each at once, then the second, …

    Returns the receipts, and how many batches were a deadlock's victims.
    """
    start = Barrier(len(work))

    def receive(database: Database, batches: Batches) -> list[Receipt]:
        receipts = []
        try:
            for batch in batches:
                start.wait(PATIENCE_SECONDS)
                receipts += Inbox(database).receive(batch)
        except BrokenBarrierError:
            return receipts  # another one says why
        except BaseException:
            start.abort()
            raise
        return receipts

    with ExitStack() as stack:
        databases = [stack.enter_context(closing(Counting(url))) for _ in work]
        threads = stack.enter_context(ThreadPoolExecutor(len(work)))
        receipts = [receipt for receipts in threads.map(receive, databases, work) for receipt in receipts]
        return receipts, sum(database.victims for database in databases)


def make_organizations(url: str, count: int) -> list[str]:
    """Make so many organizations known: else the first batches for one wait for each other to do so. Returns their ids."""
    organizations = [f"org_{number}" for number in range(count)]
    with closing(Database(url)) as database:
        Inbox(database).receive([delivery(event("directory_enabled", "new", organization_id=each)) for each in organizations])
    return organizations


def assert_users_show_who_is_behind_them(url: str) -> None:
    """What each user shows is what `accounts.show` says of the records as they are now."""
    with closing(Database(url)) as database, database.reading() as session:
        linked = select(directory_users.c.organization_id, directory_users.c.user_id).where(directory_users.c.user_id.is_not(None))
        people = {Key(*key) for key in session.execute(linked)}
        behind, granted, stored = accounts.behind(session, people), accounts.grants(session, people), accounts.USERS.read(session, people)
        disabled = accounts.disabled_directories(session, (person for each in behind.values() for person in each))
        in_groups = accounts.in_groups(session, (person for each in behind.values() for person in each))
        assert people
        for key in people:
            groups = roles_given_here.of_groups(session, {Key(key.organization_id, id_) for each in behind[key] for id_ in each.group_ids})
            shown = show(behind[key], disabled, groups)
            assert shown.grants == granted[key]
            assert shown.memberships == {place for place, since in in_groups[key].items() if since}
            assert not list(of_user(key, accounts.was(stored[key], shown.groups, shown.roles), shown, Cause(CauseKind.OPERATOR, "nobody")))


def facts(random: Random, organization_id: str, size: int) -> list[Delivery]:
    """So many events of forty people with few addresses and upstream ids, and of forty groups, at any time."""

    def fact(kind: str) -> Delivery:
        data: dict[str, Json] = {}
        if kind.startswith("user"):
            data = {
                "email": f"{random.randrange(12)}@example.com",
                "dp_id": f"up_{random.randrange(12)}",
                "active": random.random() < 0.8,
                "groups": named(*(f"g{number}" for number in random.sample(range(40), 3))),
                "roles": roles(*random.sample(["admin", "member", "owner"], 2)),
            }
        at, id_ = random.randrange(10**6), f"{kind[0]}{random.randrange(40)}"
        return delivery(event(kind, id_, at=at, organization_id=organization_id, **data))  # type: ignore[arg-type] # its data

    return [fact(random.choice(KINDS)) for _ in range(size)]


KINDS = ("user_created", "user_updated", "user_updated", "user_deleted", "group_created", "group_updated", "group_deleted")


@pytest.mark.parametrize("rounds", [6, pytest.param(200, marks=pytest.mark.proof)])
def test_a_crowd_never_waits_in_a_ring(postgres_url: str, rounds: int) -> None:
    """The same people and groups in every order: locks are taken in one order, so that no batch is ever a deadlock's victim."""
    random = Random(rounds)  # noqa: S311 # as above
    organizations = make_organizations(postgres_url, rounds) * 2  # once to make what is there, once to change it
    receipts, victims = in_threads(postgres_url, *([facts(random, each, 40) for each in organizations] for _ in range(4)))
    assert Counter(receipt.outcome for receipt in receipts).keys() == {"processed", "stale"}
    assert victims == 0
    assert_users_show_who_is_behind_them(postgres_url)


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.proof)])
def test_a_crowd_never_waits_in_a_ring_when_events_fail(postgres_url: str, rounds: int) -> None:
    """Then events are applied apart, in their own order."""
    random = Random(rounds)  # noqa: S311 # as above
    work = [[facts(random, ORGANIZATION, 20) for _ in range(rounds)] for _ in range(4)]
    for batch in (batch for each in work for batch in each):
        batch.insert(random.randrange(20), delivery(event("user_created", "bad")))
    with closing(Database(postgres_url)) as database, failing(database, AT_STATEMENT):
        receipts, victims = in_threads(postgres_url, *work)
    assert Counter(receipt.outcome for receipt in receipts)[Outcome.FAILED] == 4 * rounds
    assert victims == 0
    assert_users_show_who_is_behind_them(postgres_url)


@pytest.mark.parametrize("first", ["the directory", "the person"])
@pytest.mark.parametrize("known", [False, True])
def test_a_directory_is_disabled_while_somebody_comes_to_it(postgres_url: str, first: str, known: bool) -> None:
    """Seen there for the first time, or moved there: no leaver stays in by it, who has left the other directory."""

    def of(id_: str, at: float, **data: Json) -> Delivery:
        return delivery(event("user_updated", id_, at=at, email="a@example.com", **data))  # type: ignore[arg-type] # its data

    disabled, comes = delivery(event("directory_disabled", "old", at=1)), of("stays", 1, directory_id="old")
    with opened(postgres_url) as database, ThreadPoolExecutor() as threads:
        Inbox(database).receive([of("left", 0, active=False, directory_id="new"), *([of("stays", 0, directory_id="new")] if known else [])])
        table, order = ("directories", [disabled, comes]) if first == "the directory" else ("directory_users", [comes, disabled])
        with Gate.before_commits(postgres_url, table) as gate:
            one = threads.submit(Inbox(database).receive, order[:1])
            until(lambda: gate.waiting() == 1)
            other = threads.submit(Inbox(database).receive, order[1:])
            until(lambda: gate.waiting() == 2 or other.done())
            gate.open()
            assert [receipt.outcome for each in (one, other) for receipt in each.result(PATIENCE_SECONDS)] == ["processed"] * 2
        assert [row["active"] for row in user_rows(database)] == [False]
    assert_users_show_who_is_behind_them(postgres_url)


@pytest.mark.parametrize("change", ["deleted", "mapped"])
def test_what_becomes_of_a_group_waits_for_who_is_joining_it(postgres_url: str, change: str) -> None:
    """Else neither saw the other: in a deleted group for good, or without the role that everybody in it has."""
    joins = event("user_created", "u", at=2, email="a@example.com", groups=named("g"))
    with opened(postgres_url) as database, ThreadPoolExecutor() as threads:
        receive(database, event("group_created", "g", at=0, name="Group"))
        with Gate.before_commits(postgres_url, "memberships") as gate:
            joiner = threads.submit(receive, database, joins)
            until(lambda: gate.waiting() == 1)
            other = (
                threads.submit(receive, database, event("group_deleted", "g", at=5))
                if change == "deleted"
                else threads.submit(Roles(database).map_group, ORGANIZATION, "g", ["admin"], "ops")
            )
            with pytest.raises(TimeoutError):
                other.result(0.5)
            gate.open()
            joiner.result(PATIENCE_SECONDS)
            other.result(PATIENCE_SECONDS)
    assert_users_show_who_is_behind_them(postgres_url)


def test_who_has_nothing_to_be_joined_on_is_made_once(postgres_url: str) -> None:
    """There is nothing to lock then: of two batches that make the same record at once, one is done again."""
    organizations = make_organizations(postgres_url, 50)
    sides = ([[delivery(event("user_created", "u", at=at, organization_id=each, name=str(at)))] for each in organizations] for at in (1, 2))
    receipts, _ = in_threads(postgres_url, *sides)
    assert Counter(receipt.outcome for receipt in receipts).keys() <= {"processed", "stale"}
    with closing(Database(postgres_url)) as database:
        assert [row["name"] for each in organizations for row in user_rows(database, each)] == ["2"] * 50


def test_a_writer_on_sqlite_is_alone_from_its_first_look(sqlite_databases: Databases) -> None:
    """Who reads and then writes what follows from it would else lose what was written between."""
    with sqlite_databases.fresh(migrated=True) as url, closing(Database(url)) as database:
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=0)
        with closing(other), database.writing() as session:
            session.execute(text("SELECT 1"))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")


def test_whoever_erases_somebody_waits_for_no_delivery(postgres_url: str) -> None:
    """One that is handled again is locked after its organization, as an erasure locks them: neither waits for the other in a ring."""
    with opened(postgres_url) as database, Gate.before_commits(postgres_url, "hooks") as gate, ThreadPoolExecutor(1) as threads:
        with failing(database, AT_STATEMENT):
            Inbox(database).receive([delivery(event("user_created", "bad"), "msg_bad")])
        with database.writing() as session:
            organizations.hold(session, {ORGANIZATION: True})
            again = threads.submit(Inbox(database).retry, ["msg_bad"])
            until(lambda: gate.waiting() == 1)
            assert len(session.scalars(select(deliveries.c.webhook_id).with_for_update(nowait=True)).all()) == 1
        assert [receipt.outcome for receipt in again.result(20)] == ["processed"]


def test_nothing_is_kept_of_what_failed_while_they_are_erased(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the failure and its record an erasure begins: its end is waited for."""
    with ExitStack() as stack:
        database, gate = stack.enter_context(opened(postgres_url)), stack.enter_context(Gate.before_commits(postgres_url, "hooks"))
        erasing = stack.enter_context(ExitStack())

        def late(error: Exception) -> str:
            session = erasing.enter_context(database.writing())
            organizations.enter(session, {ORGANIZATION: True}, NOW)
            erased.put(session, [Key(ORGANIZATION, "bad")], None, by="Ada", now=NOW)
            return describe(error)

        monkeypatch.setattr("provisioning.inbox.describe", late)
        with failing(database, AT_STATEMENT), ThreadPoolExecutor(1) as threads:
            told = threads.submit(Inbox(database).receive, [delivery(event("user_created", "bad"), "msg_bad")])
            until(lambda: gate.waiting() == 1)
            erasing.close()
            assert [receipt.outcome for receipt in told.result(20)] == ["failed"]
        row = delivery_rows(database)["msg_bad"]
        assert (row["payload"], row["retry_at"]) == (None, None)


def test_what_is_wanted_alone_is_not_shared_before(postgres_url: str) -> None:
    """By a batch with a duplicate, which asks earlier: two that shared an organization and then wanted it alone would wait in a ring."""
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    sharing = text(f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND {here}")  # noqa: S608  # ours
    known = delivery(event("user_created", "u"))
    with opened(postgres_url) as database, Gate.before_commits(postgres_url, "hooks") as gate, ThreadPoolExecutor(1) as threads:
        Inbox(database).receive([known])
        with database.writing() as session:
            organizations.hold(session, {ORGANIZATION: False})
            told = threads.submit(Inbox(database).receive, [known, delivery(event("directory_disabled", "d"))])
            until(lambda: gate.waiting() == 1)
            assert session.scalar(sharing) == 1  # ours
        assert [receipt.outcome for receipt in told.result(20)] == ["duplicate", "processed"]


def test_a_dead_letter_waits_for_no_other_event(postgres_url: str) -> None:
    """It shares its organization with whatever is being handled there."""
    with opened(postgres_url) as database, database.writing() as session:
        organizations.hold(session, {ORGANIZATION: False})
        (receipt,) = Inbox(database).receive([delivery(event("user_created", "u", at=10**9))])
    assert receipt.outcome == "dead_lettered"
