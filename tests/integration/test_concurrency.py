"""Any number of processes and threads receive into one database at once, and end where one alone ends: nothing lost, nothing doubled."""

import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.synchronize import Barrier
from random import Random
from threading import Barrier as ThreadBarrier
from typing import TypeAlias

import pytest
from faults import AT_STATEMENT, failing
from sqlalchemy import select
from sqlalchemy.orm import Session

from databases import Databases
from factories import ORGANIZATION, delivery, delivery_rows, event, named, roles, state, user_rows
from provisioning.accounts import show
from provisioning.db import users as accounts
from provisioning.db.models import directory_users
from provisioning.db.session import Contended, Database
from provisioning.events import Delivery, Json
from provisioning.inbox import Inbox, Outcome, Receipt
from provisioning.merge import Key

PATIENCE_SECONDS = 120

Batches: TypeAlias = Sequence[Sequence[Delivery]]


class Crew:
    """Two that receive at once, each over a database object of its own: processes, or for many short rounds threads."""

    def __init__(self, executor: Executor, size: int = 2) -> None:
        self._executor = executor
        self._size = size

    def receive(self, url: str, *work: Sequence[Batches]) -> list[list[Receipt]]:
        """Let each of them receive its work, starting every round of it together; returns each one's receipts."""
        assert len(work) == self._size
        return [each.result(PATIENCE_SECONDS) for each in [self._executor.submit(_receive, url, rounds) for rounds in work]]


_start: Barrier | ThreadBarrier


def _join_crew(start: Barrier) -> None:
    global _start  # noqa: PLW0603 # a process is given its barrier when it is born, and not later
    _start = start


def _receive(url: str, rounds: Sequence[Batches]) -> list[Receipt]:
    receipts = []
    try:
        with closing(Database(url)) as database:
            for batches in rounds:
                _start.wait(PATIENCE_SECONDS)
                for batch in batches:
                    receipts += Inbox(database).receive(batch)
    except BaseException:
        _start.abort()  # nobody has to wait for this one
        raise
    return receipts


@pytest.fixture(scope="module")
def processes() -> Iterator[Crew]:
    """Two processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, _join_crew, (context.Barrier(2),)) as executor:
        yield Crew(executor)


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
    first, second = processes.receive(database_url, *([told(random, each) for each in histories] for _ in range(2)))
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


def test_two_newcomers_at_once_make_one_user_whenever_they_should(database_url: str, processes: Crew) -> None:
    """200 times of 200: of one e-mail, or without any and of one upstream id, each arriving at another process."""

    def newcomers(side: str) -> list[Batches]:
        reasons: list[dict[str, Json]] = [
            {"email": f"{number}@example.com", "dp_id": f"{side}_{number}"} if number % 2 else {"dp_id": f"up_{number}"}
            for number in range(200)
        ]
        return [[[delivery(event("user_created", f"{side}_{number}", **data))]] for number, data in enumerate(reasons)]  # type: ignore[arg-type]

    processes.receive(database_url, newcomers("left"), newcomers("right"))
    with closing(Database(database_url)) as database:
        behind = sorted(sorted(row[0]) for row in state(database, ORGANIZATION)["users"])  # type: ignore[call-overload] # ids
    assert behind == sorted([f"left_{number}", f"right_{number}"] for number in range(200))


class Counting(Database):
    """A database that counts how often a batch lost against another one and was done again."""

    contended = 0

    @contextmanager
    def writing(self) -> Iterator[Session]:
        try:
            with super().writing() as session:
                yield session
        except Contended:
            self.contended += 1
            raise


def in_threads(url: str, *work: Batches) -> tuple[list[Receipt], int]:
    """Receive each of the `work` in a thread and over a database object of its own, all at once.

    Returns the receipts, and how many batches had to be done again.
    """
    start = ThreadBarrier(len(work))

    def receive(database: Database, batches: Batches) -> list[Receipt]:
        start.wait(PATIENCE_SECONDS)
        return [receipt for batch in batches for receipt in Inbox(database).receive(batch)]

    with ExitStack() as stack:
        databases = [stack.enter_context(closing(Counting(url))) for _ in work]
        threads = stack.enter_context(ThreadPoolExecutor(len(work)))
        receipts = [receipt for receipts in threads.map(receive, databases, work) for receipt in receipts]
        return receipts, sum(database.contended for database in databases)


def assert_users_show_who_is_behind_them(url: str) -> None:
    """What each user shows is what `accounts.show` says of the records as they are now."""
    with closing(Database(url)) as database, database.reading() as session:
        linked = select(directory_users.c.organization_id, directory_users.c.user_id).where(directory_users.c.user_id.is_not(None))
        people = {Key(*key) for key in session.execute(linked)}
        behind, granted, stored = accounts.behind(session, people), accounts.grants(session, people), accounts.USERS.read(session, people)
        disabled = accounts.disabled_directories(session, (person for each in behind.values() for person in each))
        assert people
        for key in people:
            shown = show(behind[key], disabled)
            assert shown.grants == granted[key]
            assert not accounts.differs(shown, stored[key])


def facts(random: Random, kinds: Sequence[str], size: int) -> list[Delivery]:
    """So many events of forty people with few addresses, forty groups or two directories, at any time."""

    def fact(kind: str) -> Delivery:
        subjects, prefix = {"user": (40, "u"), "group": (40, "g"), "directory": (2, "dir_")}[kind.partition("_")[0]]
        data: dict[str, Json] = {}
        if prefix == "u":
            data = {
                "email": f"{random.randrange(12)}@example.com",
                "dp_id": f"up_{random.randrange(12)}",
                "active": random.random() < 0.8,
                "directory_id": f"dir_{random.randrange(2)}",
                "groups": named(*(f"g{number}" for number in random.sample(range(40), 3))),
                "roles": roles(*random.sample(["admin", "member", "owner"], 2)),
            }
        return delivery(event(kind, f"{prefix}{random.randrange(subjects)}", at=random.randrange(10**6), **data))  # type: ignore[arg-type]

    return [fact(random.choice(kinds)) for _ in range(size)]


USERS = ("user_created", "user_updated", "user_updated", "user_deleted")
GROUPS = ("group_created", "group_updated", "group_deleted")
BATCHES = [12, pytest.param(300, marks=pytest.mark.proof)]


@pytest.mark.parametrize("batches", BATCHES)
def test_a_crowd_never_waits_in_a_ring(postgres_url: str, batches: int) -> None:
    """The same people and groups in every order: locks are taken in one order, so that no batch is ever a deadlock's victim."""
    random = Random(batches)  # noqa: S311 # as above
    receipts, contended = in_threads(postgres_url, *([facts(random, USERS + GROUPS, 40) for _ in range(batches)] for _ in range(4)))
    assert Counter(receipt.outcome for receipt in receipts).keys() == {"processed", "stale"}
    assert contended == 0
    assert_users_show_who_is_behind_them(postgres_url)


@pytest.mark.parametrize("batches", [5, pytest.param(100, marks=pytest.mark.proof)])
def test_a_crowd_never_waits_in_a_ring_when_events_fail(postgres_url: str, batches: int) -> None:
    """Then events are applied apart, in their own order."""
    random = Random(batches)  # noqa: S311 # as above
    work = [[facts(random, USERS, 20) for _ in range(batches)] for _ in range(4)]
    for batch in (batch for each in work for batch in each):
        batch.insert(random.randrange(20), delivery(event("user_created", "bad")))
    with closing(Database(postgres_url)) as database, failing(database, AT_STATEMENT):
        receipts, contended = in_threads(postgres_url, *work)
    assert Counter(receipt.outcome for receipt in receipts)[Outcome.FAILED] == 4 * batches
    assert contended == 0
    assert_users_show_who_is_behind_them(postgres_url)


@pytest.mark.parametrize("batches", BATCHES)
def test_directories_flip_while_their_people_change(postgres_url: str, batches: int) -> None:
    """Whoever is seen for the first time, moves to a directory or is suspended meanwhile: in the end each user is as the records say."""
    random = Random(batches)  # noqa: S311 # as above
    flips = [[facts(random, ("directory_disabled", "directory_enabled"), 1) for _ in range(batches * 3)] for _ in range(2)]
    changes = [[facts(random, USERS, 10) for _ in range(batches * 3)] for _ in range(2)]
    in_threads(postgres_url, *flips, *changes)
    assert_users_show_who_is_behind_them(postgres_url)


def test_who_has_nothing_to_be_joined_on_is_made_once(postgres_url: str) -> None:
    """There is nothing to lock then: one of two batches that make the same record at once is done again."""
    with closing(Database(postgres_url)) as database:
        Inbox(database).receive([delivery(event("group_created", "g"))])  # else the first ones wait for each other to make the organization
        start = ThreadBarrier(2)

        def receive(side: int) -> list[Receipt]:
            receipts = []
            for number in range(50):
                letter = delivery(event("user_created", f"u{number}", at=side, name=str(side), number=1))
                start.wait(PATIENCE_SECONDS)
                receipts += Inbox(database).receive([letter])
            return receipts

        with ThreadPoolExecutor(2) as threads:
            assert {receipt.outcome for receipts in threads.map(receive, range(2)) for receipt in receipts} <= {"processed", "stale"}
        assert [(row["name"], row["active"]) for row in user_rows(database)] == [("1", True)] * 50
