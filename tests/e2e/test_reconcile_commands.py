"""Reconciling as operators type it: what it does, prints and leaves with, and that nothing is lost however a process ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from factories import ORGANIZATION, event, named, receive
from operators import PROGRAM, SECONDS, SETTINGS, Command, Operator, until
from provisioning.db import organizations, roles, runs
from provisioning.db.models import role_grants
from provisioning.db.runs import Run, State
from provisioning.db.session import Database
from provisioning.merge import Key
from reconciling import Reconciling

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

SLOW = {"PROVISIONING_SCALEKIT_CALLS_PER_SECOND": "2"}  # a page of 30 people every half second
INTERRUPT = 130


# What a command says is no database's law; the runs themselves are tested on both.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)


@pytest.fixture
def operator(tmp_path: Path, database_url: str, reconciling: Reconciling) -> Operator:
    """An operator of the service that `reconciling` is about."""
    return operator_of(reconciling.emulator, tmp_path, database_url)


def operator_of(emulator: Emulator, folder: Path, database_url: str) -> Operator:
    """An operator with a database, and with credentials of the local Scalekit."""
    quick = {"PROVISIONING_CLOCK_MARGIN": "0s", "PROVISIONING_SCALEKIT_CALLS_PER_SECOND": "1000"}
    return Operator(folder, {**SETTINGS, **emulator.settings(), **emulator.trust(), "DATABASE_URL": database_url, **quick})


class Process:
    """A started command; what it says on stderr is collected, and what it printed is read at its end."""

    def __init__(self, operator: Operator, *arguments: str, **more: str) -> None:
        self.errors: list[str] = []
        reading, writing = os.pipe()
        self._says, self._printed = open(reading, encoding="utf-8"), tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `close`
        with open(os.devnull) as nothing, open(writing, "w", encoding="utf-8") as stderr:
            self.command = operator.start(arguments, [nothing, self._printed, stderr], **more)
        self._reader = threading.Thread(target=lambda: self.errors.extend(self._says))
        self._reader.start()

    def end(self, by: signal.Signals | None = None) -> tuple[int, str]:
        """The exit code and what it printed, once it has ended, by a signal if one is given."""
        if by is not None:
            self.command.send_signal(by)
        code = self.command.wait(SECONDS)
        self._reader.join()
        self._printed.seek(0)
        return code, self._printed.read()

    @property
    def stderr(self) -> str:
        return "".join(self.errors)

    def close(self) -> None:
        self.command.kill()
        self.command.wait()
        self._reader.join()
        self._says.close()
        self._printed.close()


@contextmanager
def started(operator: Operator, *arguments: str, **more: str) -> Iterator[Process]:
    """A command under way; killed at the end if it still runs."""
    process = Process(operator, *arguments, **more)
    try:
        yield process
    finally:
        process.close()


def run_of(done: subprocess.CompletedProcess[str] | str) -> dict[str, Any]:
    """The one run that a command printed as JSON."""
    [run] = json.loads(done if isinstance(done, str) else done.stdout)["runs"]
    return dict(run)


def all_runs(reconciling: Reconciling) -> list[Run]:
    """The organization's runs, newest first."""
    with reconciling.database.reading() as session:
        return runs.page(session, reconciling.organization_id, before="~", limit=50, now=datetime.now(UTC))


def under_way(reconciling: Reconciling) -> Run:
    """The organization's run, once somebody works on it."""
    return until(lambda: next((run for run in all_runs(reconciling) if run.state is State.RUNNING), None))


def settled(reconciling: Reconciling) -> bool:
    """Whether the service says what the directory says; nobody maps roles here, so that a default one is left alone."""
    return [each for each in reconciling.differences() if each.field != "user's roles"] == []


@ON_SQLITE
def test_what_the_directory_says_is_brought_here_once(reconciling: Reconciling, operator: Operator) -> None:
    """With --json stdout is the runs, as the HTTP API answers them, and stderr is silent; a second run changes nothing, and says so."""
    reconciling.group("Sales")
    reconciling.hire(40, "Sales")
    here = reconciling.organization_id

    first = replace(operator, executes=True).run("reconcile", here, here, "--json")  # the SDK warns while it is imported
    second = operator.run("reconcile", here)

    assert (first.returncode, first.stderr) == (0, "")
    run = run_of(first)
    assert (run["state"], run["dry_run"], run["listed"]) == ("done", False, {"users": 40, "groups": 1})
    assert {name: number for name, number in run["changes"].items() if number} == {
        "users_created": 40,
        "groups_created": 1,
        "memberships_added": 40,
    }
    assert run["requested_by"].endswith("command line)")
    assert {each["what"] for each in run["drift"]} == {"missing_here"}
    assert settled(reconciling)
    assert (second.returncode, second.stderr) == (0, "")
    header, row = (line.split("\t") for line in second.stdout.splitlines())
    found = dict(zip(header, row, strict=True))
    assert (found["organization"], found["state"], found["users listed"], found["changes"]) == (here, "done", "40", "none")


@ON_SQLITE
def test_a_dry_run_says_what_differs_and_changes_nothing(reconciling: Reconciling, operator: Operator) -> None:
    """Exit code 2, and a line for each record: what, whom, from what to what, with nothing in it that a terminal would obey."""
    here, sales = reconciling.organization_id, reconciling.group("Sales")
    people = reconciling.hire(210)
    reconciling.run()
    before = all_runs(reconciling)
    reconciling.emulator.structure.rename_group(sales.id, "Sa\x9bles")
    for user in people:
        reconciling.emulator.people.suspend(user.id)

    done = operator.run("reconcile", here, "--dry-run")

    assert (done.returncode, done.stderr) == (2, "")
    table, drift = done.stdout.split("\n\n")
    assert "\tdone (dry run)\t210\t1\t" in table
    _, *found, more = drift.splitlines()
    assert len(found) == 25
    assert found[0].split("\t") == [here, "changed", f"group {sales.id}", "name: Sales → Sa\\x9bles", ""]
    assert "\tactive: true → false" in found[1]
    assert more == f"and 186 more in {here}: --json shows the first 200"
    assert len(reconciling.users(active="true")) == 210
    assert len(all_runs(reconciling)) == len(before) + 1


@ON_SQLITE
def test_what_is_held_back_waits_for_the_command_that_is_printed(reconciling: Reconciling, operator: Operator) -> None:
    """Exit code 2 with the reasons; the printed line, typed, removes exactly that. A run that waits for nothing cannot be approved."""
    here, people = reconciling.organization_id, reconciling.hire(14)
    reconciling.run()
    reconciling.purge(*people[:9])

    held = operator.run("reconcile", here)
    waiting = len(reconciling.users(active="true"))
    line = held.stdout.splitlines()[-1].strip()
    approved = operator.shell(f"{line} --json")
    again = operator.shell(line)

    assert (held.returncode, waiting) == (2, 14)
    assert f"{here}: held back: 9 of 14 people were not listed." in held.stdout
    assert line.startswith("provisioning reconcile --approve run_")
    assert approved.returncode == 0
    run = run_of(approved)
    assert (run["state"], run["changes"]["users_deactivated"], run["approved_by"][-13:]) == ("done", 9, "command line)")
    assert settled(reconciling)
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (1, "", 1)
    assert "only one that needs approval" in again.stderr


@ON_SQLITE
def test_all_is_everybody_known_here(reconciling: Reconciling, operator: Operator) -> None:
    """One that Scalekit does not know is said, and is no failure; asked for by name it is one. Nobody known is no failure either."""
    nobody = operator.run("reconcile", "--all", "--json")
    strangers = [f"org_stranger_{number:02}" for number in range(12)]
    with reconciling.database.writing() as session:
        for each in [*strangers, reconciling.organization_id]:
            organizations.know(session, each, datetime.now(UTC))
    reconciling.hire(3)

    everybody = operator.run("reconcile", "--all", "--json")
    named = operator.run("reconcile", strangers[0], reconciling.organization_id)

    assert (nobody.returncode, json.loads(nobody.stdout)) == (0, {"runs": []})
    assert "No organization is known here yet" in nobody.stderr
    assert everybody.returncode == 0
    ended = {run["organization_id"]: run for run in json.loads(everybody.stdout)["runs"]}
    assert set(ended) == {*strangers, reconciling.organization_id}
    assert ended[reconciling.organization_id]["changes"]["users_created"] == 3
    assert all(ended[each]["state"] == "failed" and ended[each]["error"].startswith("unknown") for each in strangers)
    assert settled(reconciling)
    assert named.returncode == 1
    assert "unknown" in named.stdout


@ON_SQLITE
def test_an_interrupt_cancels_what_it_asked_for(reconciling: Reconciling, operator: Operator) -> None:
    """It waits for the end, says so, prints what had been done, and leaves with 130."""
    reconciling.hire(120)
    with started(operator, "reconcile", reconciling.organization_id, "--json", **SLOW) as process:
        run = under_way(reconciling)
        code, printed = process.end(signal.SIGINT)
    assert code == INTERRUPT
    ended = run_of(printed)
    assert (ended["id"], ended["state"]) == (run.id, "cancelled")
    assert ended["error"].startswith("Cancelled by ")
    assert "Interrupted" in process.stderr
    assert "Traceback" not in process.stderr
    assert reconciling.now(run).state is State.CANCELLED


@ON_SQLITE
@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.proof), signal.SIGTERM], ids=["interrupted", "terminated"])
def test_what_others_wait_for_is_let_go(reconciling: Reconciling, operator: Operator, how: signal.Signals) -> None:
    """An interrupt cancels nothing that was asked for elsewhere, and SIGTERM nothing at all: others go on at once."""
    reconciling.hire(120)
    asked = None
    if how == signal.SIGINT:
        asked, _ = reconciling.reconciler.request(reconciling.organization_id, dry_run=False, requested_by="anna")
    with started(operator, "reconcile", reconciling.organization_id, **SLOW) as process:
        run = under_way(reconciling)
        code, printed = process.end(how)
    assert (code, printed) == (128 + how, "")
    assert f"Left to other processes, such as a service, `provisioning worker` or this command again: {run.id}" in process.stderr
    assert asked is None or asked.id == run.id
    assert reconciling.work(run).state is State.DONE  # without waiting for the end of a lease
    assert settled(reconciling)


@ON_SQLITE
def test_a_second_interrupt_leaves_at_once(reconciling: Reconciling, operator: Operator) -> None:
    """Also while the first one's wish has not been heard; what it worked on is cancelled by whoever takes it over."""
    reconciling.hire(30)
    with started(operator, "reconcile", reconciling.organization_id, PROVISIONING_SCALEKIT_CALLS_PER_SECOND="0.1") as process:
        run = under_way(reconciling)
        process.command.send_signal(signal.SIGINT)
        until(lambda: "Cancelling" in process.stderr and reconciling.now(run).cancel_wanted_by)
        code, printed = process.end(signal.SIGINT)
    assert (code, printed) == (INTERRUPT, "")
    assert "Traceback" not in process.stderr
    assert reconciling.now(run).cancel_wanted_by


def test_two_at_once_make_one_run(reconciling: Reconciling, operator: Operator) -> None:
    """Whoever comes second follows the first one's run to its end."""
    reconciling.hire(90)
    line = ("reconcile", reconciling.organization_id, "--json")
    with started(operator, *line, **SLOW) as one, started(operator, *line, **SLOW) as other:
        (first_code, first), (second_code, second) = one.end(), other.end()
    assert (first_code, second_code) == (0, 0)
    assert run_of(first) == run_of(second)
    assert len(all_runs(reconciling)) == 1


@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_a_run_whose_process_was_killed_is_taken_over(reconciling: Reconciling, operator: Operator) -> None:
    """kill -9 in the middle: a worker begins it again once the lease has lapsed, and it ends right."""
    reconciling.hire(960)
    with started(operator, "reconcile", reconciling.organization_id, PROVISIONING_SCALEKIT_CALLS_PER_SECOND="5") as process:
        left = until(lambda: next((run for run in all_runs(reconciling) if run.changes), None))
        assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert (left.state, left.changes["users_created"]) == (State.RUNNING, 300)
    with started(operator, "worker") as worker:
        ended = until(lambda: next((run for run in all_runs(reconciling) if run.state.ended), None))
        assert worker.end(signal.SIGTERM) == (0, "")
    assert (ended.id, ended.state, ended.changes["users_created"]) == (left.id, State.DONE, 960)
    assert settled(reconciling)


@ON_SQLITE
def test_a_worker_keeps_the_schedule(reconciling: Reconciling, operator: Operator) -> None:
    """It says what it does, reconciles again and again without anybody asking, and ends with 0 by SIGTERM."""
    with reconciling.database.writing() as session:
        organizations.know(session, reconciling.organization_id, datetime.now(UTC))
    with started(operator, "worker", PROVISIONING_RECONCILE_INTERVAL="1s") as worker:
        for _ in range(2):
            reconciling.hire(2)
            until(lambda: settled(reconciling))
        assert worker.end(signal.SIGTERM) == (0, "")
    assert {run.requested_by for run in all_runs(reconciling)} == {"the schedule"}
    said = [json.loads(line) for line in worker.errors]
    assert (said[0]["event"], said[0]["reconcile_interval"]) == ("working", "0:00:01")
    assert {each["level"] for each in said} == {"info"}


@pytest.mark.parametrize("empty_database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_a_worker_waits_for_its_database(emulator: Emulator, tmp_path: Path, empty_database_url: str) -> None:
    """One that is not migrated is said at the start, and worked on once somebody has migrated it. Without an interval, only when asked."""
    operator = operator_of(emulator, tmp_path, empty_database_url)
    with started(operator, "worker") as worker, closing(Database(empty_database_url)) as database:
        until(lambda: len(worker.errors) > 1)
        assert operator.run("migrate").returncode == 0
        with database.writing() as session:
            run, _ = runs.request(session, "org_0", dry_run=False, requested_by="anna", now=datetime.now(UTC))

        def ended() -> bool:
            with database.reading() as session:
                return runs.one(session, "org_0", run.id, datetime.now(UTC)).state is State.FAILED

        until(ended)
        assert worker.end(signal.SIGINT)[0] == 0
    said = [json.loads(line) for line in worker.errors]
    assert said[0]["event"] == "not_ready"
    assert "provisioning migrate" in said[0]["reason"]
    assert next(each["reconcile_interval"] for each in said if each["event"] == "working") == "off"


def test_a_worker_without_credentials_does_what_takes_none(tmp_path: Path, database_url: str) -> None:
    """It says that it does not reconcile, and brings roles to everybody that another process has left undone."""
    with closing(Database(database_url)) as database:
        receive(database, event("user_created", "u", groups=named("g")))
        with database.writing() as session:
            group, now = Key(ORGANIZATION, "g"), datetime.now(UTC)
            roles.map_group(session, group, {"admin"}, "anna", now)
            roles.take(session, group, "anna", now)

        def has_role() -> bool:
            with database.reading() as session:
                return session.execute(select(role_grants.c.role)).scalars().all() == ["admin"]

        operator = Operator(tmp_path, {**SETTINGS, "DATABASE_URL": database_url, "PROVISIONING_RECONCILE_INTERVAL": "1s"})
        with started(operator, "worker") as worker:
            until(has_role)
            assert worker.end(signal.SIGTERM) == (0, "")
        said = [json.loads(line) for line in worker.errors]
        assert [each["event"] for each in said] == ["working", "not_reconciling", "roles_taken_over", "stopped"]


@ON_SQLITE
def test_a_terminal_sees_how_far_it_is(reconciling: Reconciling, operator: Operator) -> None:
    """A bar with the organization, the listed of the expected people and the rate, on stderr; what is piped stays clean."""
    reconciling.hire(60)
    ours, theirs = pty.openpty()
    environment = operator.environment({**SLOW, "TERM": "xterm", "COLUMNS": "200"})
    line: list[str | Path] = [PROGRAM, "reconcile", reconciling.organization_id, "--json"]
    process = subprocess.Popen(line, cwd=operator.folder, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    seen = b"".join(_read(ours)).decode()
    os.close(ours)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert run_of(printed)["state"] == "done"
    assert f"{reconciling.organization_id}, people" in seen
    assert "/60" in seen
    assert seen.endswith(("\x1b[?25h", "\x1b[2K"))  # the bar is gone, and the cursor back


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            yield os.read(terminal, 4096)
        except OSError:  # what Linux says at the end
            return


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("reconcile", "or --all, or --approve"),
        ("reconcile org_1 --all", "or --all, or --approve"),
        ("reconcile --approve run_1 --dry-run", "nothing to approve"),
        ("reconcile org_é", "no organization's id"),
        ("reconcile --approve é", "no run's id"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(command: Command, line: str, words: str) -> None:
    """Exit code 1, not 2: that one means drift."""
    done = command(line)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert words in done.stderr


def test_missing_credentials_are_named(tmp_path: Path) -> None:
    """All of them, in one line."""
    done = Operator(tmp_path, SETTINGS).run("reconcile", "org_1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert "SCALEKIT_ENVIRONMENT_URL, SCALEKIT_CLIENT_ID, SCALEKIT_CLIENT_SECRET" in done.stderr


@ON_SQLITE
def test_a_run_in_the_way_is_said(reconciling: Reconciling, operator: Operator) -> None:
    """A dry run and a real one exclude each other: one line names the other, and the organizations that can be are reconciled."""
    other, _ = reconciling.reconciler.request("org_1", dry_run=True, requested_by="anna")
    reconciling.hire(2)
    done = operator.run("reconcile", "org_1", reconciling.organization_id)
    nothing = operator.run("reconcile", "--approve", "run_0")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"org_1: A dry run of this organization is queued: {other.id}." in done.stderr
    assert settled(reconciling)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (1, "", "provisioning: There is no run run_0.\n")
