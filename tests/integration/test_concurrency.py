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
from databases import Databases
from factories import ORGANIZATION, delivery, delivery_rows, event, named, roles, state, user_rows
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from provisioning.accounts import show
from provisioning.db import users as accounts
from provisioning.db.models import directory_users
from provisioning.db.session import Contended, Database
from provisioning.events import Delivery, Json
from provisioning.inbox import Inbox, Receipt
from provisioning.merge import Key

PATIENCE_SECONDS = 120

Batches: TypeAlias = Sequence[Sequence[Delivery]]


class Counting(Database):
    """A database that counts how often a batch lost against another and was done again."""

    contended = 0

    @contextmanager
    def writing(self) -> Iterator[Session]:
        try:
            with super().writing() as session:
                yield session
        except Contended:
            self.contended += 1
            raise


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
    random = Random(rounds)
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
            {"email": f"{number}@example.com", "dp_id": f"{side}_{number}"} if number % 2 else {"dp_id": f"up_{number}"} for number in range(200)
        ]
        return [[[delivery(event("user_created", f"{side}_{number}", **data))]] for number, data in enumerate(reasons)]  # type: ignore[arg-type]

    processes.receive(database_url, newcomers("left"), newcomers("right"))
    with closing(Database(database_url)) as database:
        behind = sorted(sorted(row[0]) for row in state(database, ORGANIZATION)["users"])  # type: ignore[call-overload] # ids
    assert behind == sorted([f"left_{number}", f"right_{number}"] for number in range(200))


def crowd(databases: Sequence[Database], work: Sequence[Batches]) -> list[Receipt]:
    """Receive each of the `work` in a thread and over a database object of its own, all at once."""
    start = ThreadBarrier(len(work))

    def receive(database: Database, batches: Batches) -> list[Receipt]:
        start.wait(PATIENCE_SECONDS)
        return [receipt for batch in batches for receipt in Inbox(database).receive(batch)]

    with ThreadPoolExecutor(len(work)) as threads:
        return [receipt for receipts in threads.map(receive, databases, work) for receipt in receipts]


def assert_users_show_who_is_behind_them(database: Database) -> None:
    """What each user shows is what `accounts.show` says of the records as they are now."""
    with database.reading() as session:
        people = [Key(*key) for key in session.execute(select(directory_users.c.organization_id, directory_users.c.user_id).distinct()) if key[1]]
        behind, granted = accounts.behind(session, people), accounts.grants(session, people)
        disabled = accounts.disabled_directories(session, (person for each in behind.values() for person in each))
        stored = accounts.USERS.read(session, people)
        for key in people:
            shown = show(behind[key], disabled)
            assert shown.grants == granted[key]
            assert not accounts.differs(shown, stored[key])


@pytest.mark.parametrize("batches", [15, pytest.param(300, marks=pytest.mark.proof)])
def test_a_crowd_never_waits_in_a_ring(postgres_url: str, batches: int) -> None:
    """Batches of the same people, groups and directories in every order: locks are taken in one order, so that nobody is a deadlock's victim."""
    random = Random(batches)
    with ExitStack() as stack:
        databases = [stack.enter_context(closing(Counting(postgres_url))) for _ in range(4)]
        work = [[random.sample(history(random, ORGANIZATION), 40) for _ in range(batches)] for _ in databases]
        receipts = crowd(databases, work)
        assert {receipt.outcome for receipt in receipts} == {"processed", "stale"}
        print("contended", [database.contended for database in databases])
        assert_users_show_who_is_behind_them(databases[0])
    with closing(Database(postgres_url)) as database, database.reading() as session:
        print("deadlocks", session.execute(text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")).scalar_one())


def test_shared(postgres_url: str) -> None:
    random = Random(5)
    with ExitStack() as stack:
        databases = [stack.enter_context(closing(Counting(postgres_url))) for _ in range(4)]
        def b():
            out=[]
            for _ in range(30):
                id_=f"u{random.randrange(40)}"
                k=random.choice(["user_created","user_updated","user_deleted"])
                data={}
                if random.random()<.8: data["email"]=f"e{random.randrange(6)}@x.com"
                if random.random()<.5: data["dp_id"]=f"d{random.randrange(6)}"
                data["groups"]=named(*random.sample([f"g{number}" for number in range(14)], random.randrange(4)))
                data["directory_id"]=f"dir_{random.randrange(2)}"
                out.append(delivery(event(k,id_,at=random.randrange(1000),**data)))
            if random.random()<.3: out.append(delivery(event(random.choice(["directory_enabled","directory_disabled"]),f"dir_{random.randrange(2)}",at=random.randrange(1000))))
            random.shuffle(out)
            return out
        work = [[b() for _ in range(30)] for _ in databases]
        receipts = crowd(databases, work)
        assert {receipt.outcome for receipt in receipts} == {"processed", "stale"}
        print("contended", [database.contended for database in databases])
        assert_users_show_who_is_behind_them(databases[0])
    with closing(Database(postgres_url)) as database, database.reading() as session:
        print("deadlocks", session.execute(text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")).scalar_one())
