"""`provisioning check --live`: each assumption about Scalekit is seen to hold, and what does not hold is told, without anybody's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from operators import Command, Done, free_port
from provisioning.db.models import deliveries, metadata
from provisioning.emulator.faults import KNOWN, Door, Fault
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Provider
from reconciling import Reconciling

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

PEOPLE, GROUPS = 75, 35  # three pages and two, the last ones half full

Check = Callable[..., Done]

# What each fault makes differ. Everything that is read of people hangs together, so one fault may show in several places.
TOLD: dict[tuple[Door, Fault], set[str]] = {
    (Door.DIRECTORIES, Fault.TOTAL_ONE_MORE): {"total_users"},
    (Door.DIRECTORIES, Fault.TOTAL_ZERO): {"total_users"},
    (Door.USERS, Fault.CUT_SHORT): {"total_users", "total_users of groups"},
    (Door.USERS, Fault.EMPTY): {"total_users", "total_users of groups"},
    (Door.USERS, Fault.LATER_PAGES_FAIL): {"pages"},
    (Door.USERS, Fault.LATER_PAGES_FAIL_TWICE): set(),  # tried again
    (Door.USERS, Fault.SAME_PAGE): {"pages"},
    (Door.USERS, Fault.DETAIL_MISSING): {"user_detail", "active", "dp_id", "name"},
    (Door.USERS, Fault.ACTIVE_MISSING): {"active"},
    (Door.GROUPS, Fault.CUT_SHORT): {"groups of a person", "role_assignments"},
    (Door.GROUPS, Fault.EMPTY): {"groups of a person", "role_assignments"},
    (Door.GROUPS, Fault.LATER_PAGES_FAIL): {"groups"},
    (Door.GROUPS, Fault.LATER_PAGES_FAIL_TWICE): set(),
    (Door.GROUPS, Fault.SAME_PAGE): {"groups"},
    (Door.CLOCK, Fault.BEHIND): {"clock"},
    (Door.CLOCK, Fault.AHEAD): {"clock"},
}

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # where the database has no part in it


@pytest.fixture
def company(reconciling: Reconciling) -> Reconciling:
    """A company of which everything that is assumed can be seen, and heard of by webhook; whatever is somebody's says so."""
    groups = [reconciling.group(f"Canary {number}") for number in range(GROUPS)]
    newcomers = (Newcomer("Canary", f"Canary {n}", f"canary{n}@canary.example", title="Canary") for n in range(PEOPLE))
    people = reconciling.emulator.people.enrol(newcomers, reconciling.directory.id)
    reconciling.emulator.people.settle((each.id, [groups[-1].id]) for each in people[::2])
    reconciling.emulator.structure.map_role(groups[-1].id, "canary")
    reconciling.emulator.people.suspend(people[0].id)
    reconciling.emulator.structure.set_external_id(reconciling.organization_id, f"canary of {reconciling.organization_id}")
    elsewhere = reconciling.emulator.structure.add_organization(f"Not {reconciling.organization_id}")
    reconciling.emulator.structure.add_directory(elsewhere.id, Provider.OKTA)
    reconciling.hear()
    return reconciling


@pytest.fixture
def check(company: Reconciling, command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs the command on that company, and sees that it writes nothing and names nobody. What fails is tried again at once."""
    monkeypatch.setattr("provisioning.scalekit.directories.FIRST_PAUSE", 0.001)

    def run(more: str = "", organization_id: str = company.organization_id, **settings: str) -> Done:
        given = {**company.emulator.settings(), "PROVISIONING_SCALEKIT_CALLS_PER_SECOND": "1000", "DATABASE_URL": database_url}
        before = stored(company)
        done = command(f"check --live {organization_id} {more}", **{**given, **settings})
        assert stored(company) == before
        assert "canary" not in f"{done.stdout}{done.stderr}".lower()
        return done

    return run


def stored(company: Reconciling) -> list[Any]:
    """All that is in the database."""
    with company.database.reading() as session:
        return [session.execute(select(table)).all() for table in metadata.sorted_tables]


def told(done: Done, word: str) -> set[str]:
    """The assumptions that stand so."""
    return {row[1] for row in done.rows if row[0] == word}


def row(done: Done, subject: str) -> list[str]:
    """What is said of one."""
    [found] = [row for row in done.rows if row[1] == subject]
    return found


def test_every_assumption_is_seen_to_hold(check: Check) -> None:
    """On an account that is as assumed nothing is left unseen, and nothing changes; the exit code is 0."""
    done = check()
    assert {row[0] for row in done.rows} == {"ok"}, done.stdout
    assert {row[4] for row in done.rows} == {"-"}
    assert (done.code, done.stderr) == (0, "")
    assert "75; 75 listed" in row(done, "total_users")
    assert "20 of the last 20" in row(done, "webhooks in the log")


@on_sqlite
def test_json_says_the_same(check: Check) -> None:
    """For a program, with the same exit code."""
    table, parsed = check(), check("--json")
    assert parsed.code == 0
    assert [(each["word"], each["subject"]) for each in json.loads(parsed.stdout)["data"]] == [(row[0], row[1]) for row in table.rows]


def test_what_every_fault_of_a_list_and_of_the_clock_changes_is_known() -> None:
    """Of those of signing in, and of every call, the command is told as by all others."""
    doors = (Door.DIRECTORIES, Door.USERS, Door.GROUPS, Door.CLOCK)
    assert set(TOLD) == {(door, fault) for door in doors for fault in KNOWN[door]}


@pytest.mark.proof
@on_sqlite
def test_each_fault_is_told(check: Check, emulator: Emulator) -> None:
    """Where it differs, with what that changes, and exit code 1; nothing else is said to differ."""
    found = {}
    for door, fault in TOLD:
        with emulator.faults.during(door, fault):
            done = check()
        differing = found[door, fault] = told(done, "differs")
        assert done.code == (1 if differing else 0)
        assert all(row(done, subject)[4] != "-" for subject in differing)
    assert found == TOLD


@on_sqlite
def test_what_makes_removals_need_approval_says_so(check: Check, emulator: Emulator) -> None:
    """`active` never seen, and a total that is not that of the list."""
    for door, fault, subject in (
        (Door.USERS, Fault.ACTIVE_MISSING, "active"),
        (Door.USERS, Fault.DETAIL_MISSING, "active"),
        (Door.USERS, Fault.CUT_SHORT, "total_users"),
        (Door.DIRECTORIES, Fault.TOTAL_ZERO, "total_users"),
    ):
        with emulator.faults.during(door, fault):
            assert "removals need approval" in row(check(), subject)[4]


@on_sqlite
def test_of_a_list_longer_than_the_bound_it_says_where_it_stopped(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not judge what takes the whole."""
    monkeypatch.setattr("provisioning.scalekit.reality.MOST_PAGES", 1)
    done = check()
    assert row(done, "total_users")[:1] + row(done, "total_users")[3:4] == ["not seen", "75; 30 listed, stopped after 1 pages"]
    assert "stopped after 1 pages of 100" in row(done, "event log's reach")[3]
    assert done.code == 0


@on_sqlite
def test_a_webhook_that_the_log_does_not_have_is_told(check: Check, company: Reconciling) -> None:
    """As if Scalekit's log had other ids, or forgot."""
    with company.database.writing() as session:
        session.execute(update(deliveries).values(event_id=deliveries.c.event_id + "0"))
    done = check()
    assert told(done, "differs") == {"webhooks in the log"}
    assert "0 of the last 20" in row(done, "webhooks in the log")


@on_sqlite
def test_without_an_inbox_there_is_no_webhook_to_look_for(check: Check) -> None:
    """Everything else is tested all the same, before the service ever ran."""
    done = check(DATABASE_URL="sqlite:////nowhere/provisioning.db")
    assert told(done, "not seen") == {"webhooks in the log"}
    assert done.code == 0


@on_sqlite
def test_an_organization_without_a_directory_has_little_to_show(check: Check, emulator: Emulator) -> None:
    """Which is no failure: nothing differs."""
    done = check(organization_id=emulator.structure.add_organization("Canary").id)
    assert told(done, "differs") == set()
    assert "directories" in told(done, "not seen")
    assert done.code == 0


@on_sqlite
def test_what_cannot_be_tested_at_all_is_said_in_one_line(check: Check, emulator: Emulator) -> None:
    """An unknown organization, credentials that are missing or wrong, an API that is away or refuses: exit code 1, and what to look at."""
    failures = {
        "does not know": check(organization_id="org_0"),
        "set SCALEKIT_CLIENT_ID": check(SCALEKIT_CLIENT_ID=""),
        "and SCALEKIT_CLIENT_SECRET right?": check(SCALEKIT_CLIENT_SECRET="wrong"),
        "cannot be reached. Are SCALEKIT_ENVIRONMENT_URL": check(SCALEKIT_ENVIRONMENT_URL=f"https://localhost:{free_port()}"),
    }
    for fault, words in {Fault.AWAY: "cannot be reached", Fault.REFUSE: "refused", Fault.RATE_LIMIT: "limiting"}.items():
        with emulator.faults.during(Door.API, fault):
            failures[words] = check()
    for words, done in failures.items():
        assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert words in done.stderr
