"""The service, whole and in processes of its own, while the path to its database or to Scalekit breaks, stalls and crawls, and while its
disk is full: it says so in time, acknowledges nothing that is not committed, and is at work again by itself.
"""

import resource
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC
from pathlib import Path
from random import Random
from threading import Event
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import Row, event, select

import service
from application import add, application
from databases import Databases
from delivering import Delivering, delivering
from factories import delivery_rows
from following import everything
from live import listening
from living import living
from operators import KEY, SECRET, SETTINGS, Operator, until
from processes import descriptors
from provisioning.api.changes import change_id
from provisioning.app import create_app
from provisioning.db.models import reconcile_runs
from provisioning.db.runs import State
from provisioning.db.session import Database
from stalling_proxy import StallingProxy
from storms import CALLERS, FAULTS, Callers, Fault, harmful, storm

if TYPE_CHECKING:
    from provisioning.emulator.records import Attempt

Ask = Callable[[httpx.Client], bool]
Limit = Callable[[float | None], None]  # to this share; None: to nothing

TIMES = 2  # that there is each kind of fault
PEOPLE, SILENT = 300, 900
CALM = 5.0  # seconds
A_BUSY_MACHINE = 1.5  # seconds that it may add
UNAVAILABLE_WITHIN, ANSWERS_WITHIN = 5 + A_BUSY_MACHINE, 10 + A_BUSY_MACHINE  # seconds; design.md, Failures
RECOVERS_WITHIN = 10.0
FULL = 12  # times
SOME_PAGES, NO_LIMIT = 40, 2**30
SOME_MORE = 30  # descriptors: connections that a pool had not opened before


@pytest.mark.proof
@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_happens_to_the_path_to_postgresql(postgres_url: str, tmp_path: Path, say: Callable[[str], None], workers: int) -> None:
    """Deliveries, readers, runs and hooks come through it, with the processes that were there at its beginning."""
    with ExitStack() as stack:
        path = stack.enter_context(StallingProxy(postgres_url))
        database = stack.enter_context(closing(Database(postgres_url)))  # past it
        told = stack.enter_context(application())
        add(database, told, organization_id=CALLERS)
        there = stack.enter_context(delivering(tmp_path, path.url, PROVISIONING_SCALEKIT_CALLS_PER_SECOND="5"))
        running = stack.enter_context(there.serving(workers))
        assert running.get("/health/live").status_code == 200  # worker processes come up after the socket
        organization_id, quiet = there.emulator.structure.add_organization("Acme").id, silently_filled(there)
        callers = Callers(running.url, KEY, there.emulator.endpoint.secrets[0])
        over, life_long = Event(), Random(workers)  # noqa: S311  # chance, not secrecy
        with (
            living(there.emulator.parts, organization_id, life_long, PEOPLE, over.is_set, ahead=200),
            ExitStack() as ending,
            callers.at_work(
                callers.deliver,
                callers.deliver,
                lambda client: callers.ask(client, "users", "GET", f"/v1/organizations/{organization_id}/users"),
                lambda client: callers.ask(client, "readiness", "GET", "/health/ready"),
                lambda client: callers.ask(client, "link", "POST", f"/v1/organizations/{organization_id}/portal-links"),
            ),
            callers.at_work(
                lambda client: callers.ask(client, "run", "POST", f"/v1/organizations/{quiet}/reconciliations"),
                every=0.5,
            ),
        ):
            ending.callback(over.set)
            before = in_the_calm(callers, running.process.pid)
            faults = storm(path, workers, TIMES, lambda since: callers.recovery(since, callers.deliver))
            after = in_the_calm(callers, running.process.pid)
        there.emulator.deliveries.resend()  # what was given up, as an operator would
        assert there.settled()
        callers.assert_all_was_taken_once(database)
        attempts = assert_the_company_is_there_once(there, database)
        until(lambda: all(run.finished_at for run in runs_of(database, quiet)))
        assert {run.state for run in runs_of(database, quiet)} == {State.DONE}
        assert there.differences(organization_id) == there.differences(quiet) == []
        assert runs_met(runs_of(database, quiet), faults)
        changes = {change_id(each.place) for each in everything(database, limit=1000) if each.organization_id == CALLERS}
        told.wait(lambda: {*told.ids()} == changes)
    refused = [each for each in callers.answers if each.said not in {200, 201, 202}]
    assert {each.said for each in refused} == {503}
    assert all(each.comes_again for each in refused)
    assert callers.said("link") == {201}  # it needs no database
    assert callers.longest("webhook") < UNAVAILABLE_WITHIN
    assert callers.longest() < ANSWERS_WITHIN
    assert max(attempt.milliseconds for attempt in attempts) < UNAVAILABLE_WITHIN * 1000
    assert {attempt.status for attempt in attempts} == {201, 503}  # and never none
    assert max(each.recovery for each in faults) < RECOVERS_WITHIN
    assert harmful(faults, callers.answers).keys() >= FAULTS.keys() - {"drop"}  # what was cut off is done again, and nobody notices
    assert_the_same_processes(before, after)
    say(f"{len(attempts)} attempts of the local Scalekit; {figures(callers, faults)}")


@pytest.mark.proof
@pytest.mark.parametrize(("kind", "workers"), [("sqlite", 1), ("postgresql", 2)])
def test_whatever_happens_to_the_path_to_scalekit(
    request: pytest.FixtureRequest, tmp_path: Path, say: Callable[[str], None], kind: str, workers: int
) -> None:
    """Who asks for a portal link is told so in time, and nobody else notices. Runs fail with a reason, and succeed once it is back."""
    with ExitStack() as stack:
        databases: Databases = request.getfixturevalue(f"{kind}_databases")
        url = stack.enter_context(databases.fresh(migrated=True))
        database = stack.enter_context(closing(Database(url)))
        there = stack.enter_context(delivering(tmp_path, url, PROVISIONING_SCALEKIT_CALLS_PER_SECOND="20"))
        path = stack.enter_context(StallingProxy(there.emulator.url, "localhost"))
        running = stack.enter_context(there.serving(workers, SCALEKIT_ENVIRONMENT_URL=path.url))
        assert running.get("/health/live").status_code == 200  # as above
        quiet = silently_filled(there)
        callers = Callers(running.url, KEY, there.emulator.endpoint.secrets[0])
        of_it = f"/v1/organizations/{quiet}"
        ask_link: Ask = lambda client: callers.ask(client, "link", "POST", f"{of_it}/portal-links")  # noqa: E731  # named for its type
        ask_run: Ask = lambda client: callers.ask(client, "run", "POST", f"{of_it}/reconciliations")  # noqa: E731  # named for its type
        with (
            callers.at_work(callers.deliver, lambda client: callers.ask(client, "users", "GET", f"{of_it}/users")),
            callers.at_work(*[ask_link] * 4, ask_run, every=0.3),
        ):
            before = in_the_calm(callers, running.process.pid)
            faults = storm(path, workers, TIMES, lambda since: callers.recovery(since, ask_link))
            after = in_the_calm(callers, running.process.pid)
        until(lambda: all(run.finished_at for run in runs_of(database, quiet)))
        with callers.client() as client:
            assert ask_run(client)
        until(lambda: all(run.finished_at for run in runs_of(database, quiet)))
        runs = runs_of(database, quiet)
        callers.assert_all_was_taken_once(database)
        assert there.differences(quiet) == []
    assert runs_met(runs, faults)
    assert {run.state for run in runs} <= {State.DONE, State.FAILED}
    assert {run.error for run in runs if run.state == State.FAILED} <= {"Scalekit cannot be reached.", "Scalekit did not answer in time."}
    assert max(runs, key=lambda run: run.started_at).state == State.DONE
    assert (callers.said("webhook"), callers.said("users"), callers.said("run")) == ({201}, {200}, {202})
    assert callers.said("link") == {201, 504}
    assert callers.longest("webhook", "users", "run") < UNAVAILABLE_WITHIN
    assert callers.longest("link") < ANSWERS_WITHIN
    assert max(each.recovery for each in faults) < ANSWERS_WITHIN + RECOVERS_WITHIN  # whoever asks on a forgotten path notices for all
    assert harmful(faults, callers.answers).keys() >= FAULTS.keys() - {"drop"}
    assert_the_same_processes(before, after)
    failed = sum(run.state == State.FAILED for run in runs)
    say(f"{figures(callers, faults)}; {failed} of {len(runs)} runs failed, with the reason")


@pytest.mark.proof
@pytest.mark.parametrize("workers", [0, 1, 2], ids=["in this process", "one", "two"])
def test_a_disk_that_is_full_again_and_again(sqlite_databases: Databases, tmp_path: Path, say: Callable[[str], None], workers: int) -> None:
    """Wherever it is in what it writes: reading goes on, and so does writing as soon as there is room."""
    chance, recoveries = Random(workers), list[float]()  # noqa: S311  # as above
    with sqlite_databases.fresh(migrated=True) as url, closing(Database(url)) as database:
        disk = limited_files(tmp_path, url, workers) if workers else limited_pages(url)
        with disk as (callers, limit):
            ask_users: Ask = lambda client: callers.ask(client, "users", "GET", f"/v1/organizations/{CALLERS}/users")  # noqa: E731  # named for its type
            with callers.at_work(*[callers.deliver] * 3, ask_users):
                for _ in range(FULL):
                    callers.recovery(time.time(), callers.deliver)
                    now = time.time()
                    limit(chance.random())
                    until(lambda: any(each.said == 503 and each.sent > now for each in callers.answers))  # noqa: B023  # of this round
                    time.sleep(chance.uniform(0, 2))
                    limit(None)
                    recoveries.append(callers.recovery(time.time(), callers.deliver))
        callers.assert_all_was_taken_once(database)
    assert (callers.said("webhook"), callers.said("users")) == ({201, 503}, {200})
    assert all(each.comes_again for each in callers.answers if each.said == 503)
    assert callers.longest() < UNAVAILABLE_WITHIN
    assert max(recoveries) < RECOVERS_WITHIN
    say(f"{by_status(callers)}; full {FULL} times; the longest recovery took {max(recoveries):.1f} s")


@contextmanager
def limited_pages(url: str) -> Iterator[tuple[Callers, Limit]]:
    """A service whose database grows by so many pages at most, as SQLite limits each connection: it is in this process."""
    app, most = create_app(service.settings(url)), NO_LIMIT

    def limit(share: float | None) -> None:
        nonlocal most
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            (now,) = connection.execute("PRAGMA page_count").fetchone()
        most = NO_LIMIT if share is None else now + int(share * SOME_PAGES)

    def apply(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {most}")

    with listening(app) as address:
        event.listen(app.state.services.database.engine, "checkout", apply)
        yield Callers(address, service.READ_KEY, service.WEBHOOK_SECRET), limit


@contextmanager
def limited_files(folder: Path, url: str, workers: int) -> Iterator[tuple[Callers, Limit]]:
    """A service, in processes of its own, that can write no file beyond a share of the database's size: the system limits each of them."""
    file = Path(url.removeprefix("sqlite:///"))
    operator = Operator(folder, {**SETTINGS, "DATABASE_URL": url})

    def limit(share: float | None) -> None:
        size = resource.RLIM_INFINITY if share is None else int(share * file.stat().st_size)
        for pid in descriptors(running.process.pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    with operator.started("serve", "--workers", str(workers)) as running:
        assert running.get("/health/live").status_code == 200  # as above
        yield Callers(running.url, KEY, SECRET), limit


def in_the_calm(callers: Callers, pid: int) -> dict[int, int]:
    """How many descriptors each process has when all that it uses has been in use."""
    callers.recovery(time.time(), callers.deliver)
    time.sleep(CALM)
    return descriptors(pid)


def assert_the_same_processes(before: Mapping[int, int], after: Mapping[int, int]) -> None:
    """None was started anew, and none has kept the descriptors of what was cut."""
    assert before.keys() == after.keys()
    assert all(number < before[pid] + SOME_MORE for pid, number in after.items()), (before, after)


def silently_filled(there: Delivering) -> str:
    """An organization of whose people no webhook tells."""
    from provisioning.emulator.jobs import Job  # noqa: PLC0415  # as in `delivering`
    from provisioning.emulator.records import Provider  # noqa: PLC0415  # as above
    from provisioning.emulator.sync import first_sync  # noqa: PLC0415  # as above

    parts = there.emulator.parts
    organization = parts.structure.add_organization("Quiet")
    with parts.company.silent():
        directory = parts.structure.add_directory(organization.id, Provider.OKTA)
    first_sync(parts, Job("sync"), directory.id, SILENT, None, silent=True)
    return organization.id


def assert_the_company_is_there_once(there: Delivering, database: Database) -> "list[Attempt]":
    """Whatever the local Scalekit sent is there, and was handled once; returns its attempts."""
    sent = there.emulator.deliveries.latest(10**6)
    rows = {id_: row for id_, row in delivery_rows(database).items() if row["organization_id"] != CALLERS}
    assert rows.keys() == {each.id for each in sent}
    assert {row["outcome"] for row in rows.values()} <= {"processed", "stale"}
    assert {row["attempts"] for row in rows.values()} == {1}
    return [attempt for each in sent for attempt in each.attempts]


def runs_of(database: Database, organization_id: str) -> Sequence[Row[Any]]:
    """All runs of the organization."""
    with database.reading() as session:
        return session.execute(select(reconcile_runs).where(reconcile_runs.c.organization_id == organization_id)).all()


def runs_met(runs: Sequence[Row[Any]], faults: Sequence[Fault]) -> Counter[str]:
    """How many runs were under way while there was this kind of fault."""
    times = [(run.started_at.replace(tzinfo=UTC).timestamp(), run.finished_at.replace(tzinfo=UTC).timestamp()) for run in runs]
    return Counter(fault.kind for fault in faults for began, ended in times if began < fault.began < ended)


def by_status(callers: Callers) -> str:
    """How often what was answered."""
    answers = Counter(str(each.said) for each in callers.answers)
    return ", ".join(f"{number} × {what}" for what, number in sorted(answers.items()))


def figures(callers: Callers, faults: Sequence[Fault]) -> str:
    """What was answered, and how long it took at most."""
    recovery = max(each.recovery for each in faults)
    seconds = sum(each.ended - each.began for each in faults)
    longest = f"longest answer {callers.longest():.1f} s, longest recovery {recovery:.1f} s"
    return f"{by_status(callers)} in {len(faults)} faults of {seconds:.0f} s; {longest}"
