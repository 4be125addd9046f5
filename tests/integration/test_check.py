"""`provisioning check`: each line is fine, or says what to do; and looking changes nothing."""

from __future__ import annotations

import json
import secrets
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from factories import event
from operators import Command, Done
from provisioning.api.words import ago, span
from provisioning.cli.check.database import of_durability
from provisioning.cli.check.deliveries import of_refusals
from provisioning.cli.check.scalekit import of_clock
from provisioning.db import refusals, runs
from provisioning.db.durability import Durability
from provisioning.db.models import (
    changes,
    deliveries,
    directories,
    hook_dead_letters,
    hook_lanes,
    hooks,
    metadata,
    organizations,
)
from provisioning.db.reading.hooks import standings
from provisioning.db.runs import State
from provisioning.db.session import Database
from provisioning.emulator.faults import Door, Fault
from provisioning.errors import RefusalReason
from provisioning.refused import REMEDIES
from rows import put
from service import bearer, running, signed

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

REAL = {
    "SCALEKIT_WEBHOOK_SECRET": f"whsec_{b64encode(secrets.token_bytes(32)).decode()}",
    "PROVISIONING_API_KEYS": f"app:{secrets.token_urlsafe(32)}",
}
NOW = datetime.now(UTC) - timedelta(minutes=10)  # so that what is said in hours does not depend on when a test gets its turn
MINUTE = timedelta(minutes=1)
LEASE = timedelta(seconds=30)

Lines = list[tuple[str, str, str]]
Check = Callable[..., Done]

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # where the database has no part in it


@pytest.fixture
def check(command: Command, database: Database, database_url: str) -> Check:
    """Runs the command on this database, and sees that it writes nothing there."""

    def run(more: str = "", **given: str) -> Done:
        before = stored(database)
        done = command(f"check {more}", **{**REAL, "DATABASE_URL": database_url, **given})
        assert stored(database) == before
        assert done.stderr == ""
        return done

    return run


def stored(database: Database) -> list[Any]:
    """All that is in the database."""
    with database.reading() as session:
        return [session.execute(select(table)).all() for table in metadata.sorted_tables]


def lines(done: Done, *subjects: str) -> Lines:
    """What was found of these subjects, or of all: state, subject, words."""
    found = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    return [(state, subject, words) for state, subject, words in found if not subjects or subject in subjects]


def delivery(webhook_id: str, outcome: str, received: timedelta, **more: Any) -> dict[str, Any]:
    """One that was received so long ago."""
    return {"webhook_id": webhook_id, "outcome": outcome, "received_at": NOW - received, "attempts": 1, **more}


def ran(database: Database, organization: str, state: State, at: timedelta, *, dry_run: bool = False) -> str:
    """The id of a run that was asked for so long ago, and stood so a minute later, in which it still is."""
    asked = NOW - at
    with database.writing() as session:
        run, _ = runs.request(session, organization, dry_run=dry_run, requested_by="test", now=asked)
    if state is State.QUEUED:
        return run.id
    with database.writing() as session:
        assert runs.claim(session, owner="test", now=asked, lease=LEASE, only=[run.id])
        if state is not State.RUNNING:
            runs.end(session, run, owner="test", state=state, now=asked + timedelta(minutes=1), error="It broke.")
    if state is State.DONE and not dry_run:
        put(database, organizations, {"id": organization, "created_at": NOW, "complete_as_of": int(asked.timestamp()) * 10**9})
    return run.id


def test_a_service_that_is_as_it_should_be(check: Check, database: Database, database_url: str, emulator: Emulator) -> None:
    """Every line is fine, and the exit code 0; the same as JSON."""
    put(database, deliveries, delivery("msg_1", "processed", timedelta(hours=3)))
    put(database, directories, {"id": "dir_1"})
    ran(database, "org_1", State.DONE, timedelta(hours=5))
    given = {**emulator.settings(), **REAL, "PROVISIONING_JWT_ISSUER": "https://app.example", "PROVISIONING_JWT_AUDIENCE": "app"}
    done, parsed = check(**given), check("--json", **given)
    found = lines(done)
    here = ("a local Scalekit's", "fsync is off", "full_page_writes is off")  # as these tests have it
    told = [(state, subject) for state, subject, words in found if not any(each in words for each in here)]
    fine = ("configuration", "database", "migrations", "queue", "webhooks", "reconcile", "hooks", "clock", "scalekit", "tokens")
    assert told == [("ok", subject) for subject in fine]
    said = {subject: words for _, subject, words in reversed(found)}  # the first of each
    assert said["database"].startswith("SQLite" if database_url.startswith("sqlite") else "PostgreSQL")
    assert said["webhooks"] == "last accepted 3 h ago, none refused since"
    assert said["reconcile"].endswith("was read whole 5 h ago")
    assert "signed in at https://localhost" in said["scalekit"]
    assert said["tokens"].startswith("1 key ")
    assert (done.code, parsed.code) == (0, 0)
    assert {tuple(each) for each in json.loads(parsed.stdout)["findings"]} == {("subject", "state", "words")}
    assert [each["subject"] for each in json.loads(parsed.stdout)["findings"]] == [subject for _, subject, _ in found]


def test_what_is_merely_not_set_up_is_noted(check: Check) -> None:
    """Receiving webhooks needs neither keys nor credentials; nothing has come yet."""
    done = check(PROVISIONING_API_KEYS="")
    noted = [subject for state, subject, _ in lines(done) if state == "note"]
    assert (noted, done.code) == (["configuration", "webhooks", "reconcile", "clock", "scalekit"], 0)


@on_sqlite
def test_what_is_for_one_machine_is_told(check: Check) -> None:
    """A start that others could reach would be refused."""
    done = check(SCALEKIT_WEBHOOK_SECRET="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert [state for state, _, words in lines(done, "configuration") if "SCALEKIT_WEBHOOK_SECRET" in words] == ["warn"]
    assert "MfKQ" not in done.stdout


# The queue -------------------------------------------------------------------------------------------------------------------------------


def test_what_failed_is_told_with_the_command_that_lists_it(check: Check, database: Database) -> None:
    """How many, the oldest, and when the service next tries; dismissed ones are somebody's decision, and the others are fine."""
    put(
        database,
        deliveries,
        delivery("msg_1", "failed", timedelta(hours=5), retry_at=datetime.now(UTC) + timedelta(minutes=4, seconds=50)),
        delivery("msg_2", "failed", timedelta(hours=2)),
        delivery("msg_3", "failed", timedelta(days=9), dismissed_at=NOW, dismissed_by="somebody"),
        delivery("msg_4", "dead_lettered", timedelta(days=3)),
        delivery("msg_5", "processed", timedelta(days=30)),
        delivery("msg_6", "ignored", timedelta(days=30)),
    )
    done, listed = check(), "provisioning deliveries list --outcome"
    assert lines(done, "queue") == [
        ("warn", "queue", f"2 failed, the oldest 5 h ago, next tried again in 4 min: {listed} failed"),
        ("warn", "queue", f"1 dead-lettered, the oldest 3 days ago: {listed} dead_lettered (replay or dismiss them)"),
    ]
    assert done.code == 0


# Refusals --------------------------------------------------------------------------------------------------------------------------------


def test_a_wrong_secret_is_no_silence(check: Check, database: Database) -> None:
    """What was refused since the last one was accepted, by reason, with what to do; what came before it is over."""
    put(database, deliveries, delivery("msg_1", "dead_lettered", timedelta(hours=3)))
    with database.writing() as session:
        refusals.add(session, {"signature": 1000}, NOW - timedelta(hours=4))
        refusals.add(session, {"signature": 200, "missing": 3}, NOW - timedelta(hours=2))
        refusals.add(session, {"signature": 14}, NOW - timedelta(minutes=5))
    done = check()
    [secret, noise] = lines(done, "webhooks")
    assert secret[0] == "warn"
    assert secret[2].startswith("last accepted 3 h ago; 214 refused since: bad signature. Compare SCALEKIT_WEBHOOK_SECRET")
    assert noise[0] == "note"
    assert "3 refused since: without a webhook's headers" in noise[2]
    assert done.code == 0


def test_before_the_first_one_every_refusal_counts(check: Check, database: Database) -> None:
    """However long ago it was."""
    with database.writing() as session:
        refusals.add(session, {"expired": 2}, NOW - timedelta(days=40))
    [line] = lines(check(), "webhooks")
    assert line[0] == "warn"
    assert line[2].startswith("none accepted yet; 2 refused since: too old or of the future. Set this machine's clock right")


def test_every_reason_for_a_refusal_has_something_to_do() -> None:
    """And one that an older release has written is told as it is."""
    assert set(REMEDIES) == set(get_args(RefusalReason))
    assert "PROVISIONING_MAX_BODY_BYTES" in next(iter(of_refusals(None, {"too_large": 1}, NOW))).words
    assert "1 refused since: strange." in next(iter(of_refusals(None, {"strange": 1}, NOW))).words


# Runs ------------------------------------------------------------------------------------------------------------------------------------


def test_an_organization_that_was_never_read_whole_is_told(check: Check, database: Database) -> None:
    """With the command that reads it; a dry run reads nothing into the database, and a disabled directory has nobody to read."""
    put(database, directories, {"id": "dir_1"}, {"id": "dir_2", "organization_id": "org_2"})
    put(database, directories, {"id": "dir_3", "organization_id": "org_3", "enabled": False})
    ran(database, "org_1", State.DONE, timedelta(hours=5))
    ran(database, "org_2", State.DONE, timedelta(hours=5), dry_run=True)
    assert lines(check(), "reconcile") == [
        ("warn", "reconcile", "1 of 2 organizations with a directory never read whole: provisioning reconcile org_2")
    ]


def test_a_schedule_that_is_not_kept_is_told(check: Check, database: Database) -> None:
    """Of the organization that has waited longest."""
    put(database, directories, {"id": "dir_1"}, {"id": "dir_2", "organization_id": "org_2"})
    ran(database, "org_1", State.DONE, timedelta(hours=20))
    ran(database, "org_2", State.DONE, timedelta(hours=2))
    [(state, _, words)] = lines(check(PROVISIONING_RECONCILE_INTERVAL="6h"), "reconcile")
    assert (state, words.startswith("org_1 was last read whole 20 h ago")) == ("warn", True)
    assert lines(check(PROVISIONING_RECONCILE_INTERVAL="12h"), "reconcile")[0][0] == "ok"
    assert lines(check(), "reconcile")[0][0] == "ok"


def test_without_a_schedule_a_week_is_long(check: Check, database: Database) -> None:
    """Webhooks get lost, and nobody looks."""
    put(database, directories, {"id": "dir_1"})
    ran(database, "org_1", State.DONE, timedelta(days=8))
    [(state, _, words)] = lines(check(), "reconcile")
    assert (state, words.endswith("provisioning reconcile org_1, or set PROVISIONING_RECONCILE_INTERVAL")) == ("note", True)


def test_each_run_in_trouble_is_told_with_the_command_to_type(check: Check, database: Database) -> None:
    """One that waits for an approval, one that failed, one that nobody works on."""
    approval = ran(database, "org_1", State.NEEDS_APPROVAL, timedelta(hours=2))
    ran(database, "org_2", State.FAILED, timedelta(hours=3))
    stuck = ran(database, "org_3", State.RUNNING, timedelta(hours=1))
    ran(database, "org_4", State.QUEUED, timedelta(minutes=10))
    found = lines(check(), "runs")
    assert [state for state, _, _ in found] == ["warn"] * 3
    assert found[0][2].endswith(f"provisioning reconcile --approve {approval}")
    assert found[1][2].endswith("It broke. Again: provisioning reconcile org_2")
    assert found[2][2].startswith(f"{stuck} of org_3 is running, and nobody works on it for 1 h: provisioning worker")
    assert found[2][2].endswith("(1 more like it)")


def test_a_run_that_is_over_troubles_nobody(check: Check, database: Database) -> None:
    """A failure that was made good, a dry run's, a proposal that has lapsed, one that is worked on, and one that waits behind it."""
    ran(database, "org_1", State.FAILED, timedelta(hours=3))
    ran(database, "org_1", State.DONE, timedelta(hours=2))
    ran(database, "org_2", State.FAILED, timedelta(hours=3), dry_run=True)
    ran(database, "org_3", State.NEEDS_APPROVAL, timedelta(hours=30))
    ran(database, "org_4", State.QUEUED, timedelta(minutes=10))
    with database.writing() as session:
        asked, _ = runs.request(session, "org_5", dry_run=False, requested_by="test", now=NOW)
        assert runs.claim(session, owner="test", now=NOW, lease=timedelta(hours=1), only=[asked.id])
    assert lines(check(), "runs") == []


# Hooks -----------------------------------------------------------------------------------------------------------------------------------


def waiting(hook_id: str, *subjects: str, **more: Any) -> list[dict[str, Any]]:
    """Lanes of a hook in which there is something to tell."""
    return [{"hook_id": hook_id, "subject_id": each, "due_at": NOW, **more} for each in subjects]


def test_a_hook_in_trouble_is_told_with_the_command_to_type(check: Check, database: Database) -> None:
    """One that fails, one that refuses what concerns one person, one with dead letters; a failure of seconds is merely noted, and of a URL
    only the host is said."""
    now, url = datetime.now(UTC), "https://app.example.com/canary?token=canary"
    failing = {"failing_since": now - timedelta(hours=3), "retry_at": now, "error": "cannot be reached"}
    put(
        database,
        hooks,
        {"id": "hook_1", "url": url, "secrets": [{"secret": "whsec_canary", "until": None}], **failing},
        {"id": "hook_2", "told_at": now},
        {"id": "hook_3"},
        {"id": "hook_4", "failing_since": now - timedelta(seconds=20), "retry_at": now, "error": "HTTP 502"},
    )
    put(database, hook_lanes, *waiting("hook_1", "usr_1", "usr_2"), *waiting("hook_2", "usr_1", failing_since=now - timedelta(hours=5)))
    put(database, hook_dead_letters, *({"hook_id": "hook_3", "position": position} for position in (7, 8)))
    done, host = check(), "(app.example.com)"
    assert lines(done, "hooks") == [
        (
            "warn",
            "hooks",
            f"hook_1 {host} has been failing for 3 h: cannot be reached, and has yet to be told of 2 people (or groups)."
            " It is tried again; to try it now: provisioning hooks test hook_1",
        ),
        (
            "warn",
            "hooks",
            f"hook_2 {host} has not taken what concerns 1 person (or group) for 5 h, though it takes the rest:"
            " message_not_told in the log says which and why",
        ),
        (
            "warn",
            "hooks",
            f"2 messages to hook_3 {host} given up after a day: provisioning hooks dead-letters hook_3, then"
            " provisioning hooks retry hook_3 --all",
        ),
        ("note", "hooks", f"hook_4 {host} fails just now: HTTP 502. It is tried again"),
    ]
    assert (done.code, "canary" in done.stdout) == (0, False)


def test_hooks_that_are_told_of_everything_are_counted(check: Check, database: Database) -> None:
    """With how much is on its way; where nobody tells it, that is said."""
    put(database, hooks, {"id": "hook_1", "told_at": datetime.now(UTC)}, {"id": "hook_2"})
    put(database, hook_lanes, *waiting("hook_1", "usr_1"))
    assert lines(check(), "hooks") == [("ok", "hooks", "2, yet to be told of 1 person (or group)")]
    put(database, hook_lanes, *waiting("hook_2", "usr_1", due_at=NOW - timedelta(hours=3)))
    [(state, _, words)] = lines(check(), "hooks")
    assert (state, words) == (
        "warn",
        "there is something to tell, and nobody has tried for 3 h: does serve run, or provisioning worker?",
    )


TELLING: dict[str, tuple[dict[str, int], list[int], int | None]] = {
    # The hook's times, those that its lanes are due, and since when nobody tells it; in minutes ago.
    "nobody": ({}, [10, 3, -1], 10),
    "its turn comes": ({}, [1], None),
    "claimed, or to be tried again": ({}, [-1], None),
    "slow, with much to be told": ({"told_at": 1}, [10], None),
    "not told any more": ({"told_at": 9}, [10], 9),
    "fails, and is tried": ({"failing_since": 20, "retry_at": -1}, [10], None),
    "fails, and is not tried any more": ({"failing_since": 20, "retry_at": 5}, [10], 5),
    "nothing waits": ({"failing_since": 20, "retry_at": 5}, [], None),
}


def test_whether_anybody_tells_a_hook(database: Database) -> None:
    """By when it was last told anything, or is to be tried again, whatever waits; and nobody does where what is new is in no lane."""
    for name, (times, due, _) in TELLING.items():
        put(database, hooks, {"id": name, "position": 2, **{time: NOW - ago * MINUTE for time, ago in times.items()}})
        put(database, hook_lanes, *(waiting(name, f"usr_{ago}", due_at=NOW - ago * MINUTE)[0] for ago in due))
    put(database, hooks, {"id": "behind", "position": 1})
    put(database, changes, {"position": 2, "type": "x", "cause": "run", "cause_id": "x", "recorded_at": NOW - 7 * MINUTE})
    with database.reading() as session:
        found = {each.hook.id: each.untold_since for each in standings(session, NOW)}
    expected = {name: ago for name, (_, _, ago) in TELLING.items()} | {"behind": 7}
    assert found == {name: None if ago is None else NOW - ago * MINUTE for name, ago in expected.items()}


# The database ----------------------------------------------------------------------------------------------------------------------------


def test_a_postgresql_that_forgets_commits_is_told(command: Command, postgres_url: str) -> None:
    """synchronous_commit, as it is for this service's sessions."""
    with closing(Database(postgres_url)) as database, database.engine.connect() as connection:
        name = connection.scalar(text("SELECT current_database()"))
        connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
        connection.commit()
    done = command("check", **{**REAL, "DATABASE_URL": postgres_url})
    told = {words.split()[0]: state for state, _, words in lines(done, "database")}
    assert (told["synchronous_commit"], done.code) == ("warn", 0)


def test_a_role_without_rights_is_told_what_to_grant(command: Command, postgres_url: str) -> None:
    """One finding, no figures, and 503 for whoever needs the database; with just these rights everything works."""
    role, body = f"limited_{uuid4().hex}", event("user_created", "diruser_1")
    owner = psycopg.connect(postgres_url, autocommit=True)
    url = make_url(postgres_url).set(username=role, password="limited").render_as_string(hide_password=False)
    owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'limited'")
    try:
        done = command("check", **{**REAL, "DATABASE_URL": url})
        assert [state for state, _, words in lines(done, "database") if "GRANT it SELECT, INSERT, UPDATE and DELETE" in words] == ["wrong"]
        assert done.code == 1
        with running(url) as client:
            assert "provisioning_database_up 0.0" in client.get("/metrics", headers=bearer()).text
            assert client.get("/v1/organizations", headers=bearer()).status_code == 503
            assert client.post("/webhooks/scalekit", content=body, headers=signed(body)).status_code == 503
        owner.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        owner.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}")
        with running(url) as client:
            assert client.post("/webhooks/scalekit", content=body, headers=signed(body)).status_code == 201
            assert client.get("/v1/changes", headers=bearer()).json()["data"]
        assert command("check", **{**REAL, "DATABASE_URL": url}).code == 0
    finally:
        owner.execute(f"DROP OWNED BY {role}")
        owner.execute(f"DROP ROLE {role}")
        owner.close()


SAFE = Durability(fsync="on", full_page_writes="on", synchronous_commit="on", synchronous_standbys=True, read_only=False)


@pytest.mark.parametrize(
    ("found", "states"),
    [
        (SAFE, []),
        (replace(SAFE, synchronous_commit="remote_apply"), []),
        (replace(SAFE, fsync="off"), ["warn"]),
        (replace(SAFE, full_page_writes="off"), ["warn"]),
        (replace(SAFE, synchronous_commit="off"), ["warn"]),
        (replace(SAFE, synchronous_commit="local"), ["note"]),
        (replace(SAFE, synchronous_commit="remote_write"), ["note"]),
        (replace(SAFE, synchronous_commit="local", synchronous_standbys=False), []),
        (replace(SAFE, read_only=True), ["wrong"]),
    ],
)
def test_what_a_commit_is_worth(found: Durability, states: list[str]) -> None:
    """What can lose one is a warning; what only a failover can lose is for somebody to know."""
    assert [each.state for each in of_durability(found)] == states


def test_looking_makes_no_database(command: Command, tmp_path: Path) -> None:
    """Of a SQLite file that is not there it says what makes it."""
    done = command("check", **{**REAL, "DATABASE_URL": "sqlite:///new.db"})
    assert [(state, words) for state, _, words in lines(done, "database")] == [
        ("wrong", "The SQLite file that DATABASE_URL names is not there yet: provisioning migrate makes it.")
    ]
    assert (done.code, list(tmp_path.iterdir())) == (1, [])


def test_a_folder_that_is_not_ours_is_told(command: Command) -> None:
    """Beside the file SQLite writes its log."""
    done = command("check", **{**REAL, "DATABASE_URL": "sqlite:////nowhere/canary.db"})
    [(state, _, words)] = lines(done, "database")
    assert (state, done.code) == ("wrong", 1)
    assert "folder" in words
    assert "canary" not in done.stdout


@on_sqlite
def test_another_journal_than_a_write_ahead_log_is_told(command: Command, database_url: str) -> None:
    """Readers would wait for webhooks, and webhooks for readers."""
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    [(state, _, words), _] = lines(command("check", **{**REAL, "DATABASE_URL": database_url}), "database")
    assert (state, words.startswith("SQLite's journal mode is delete, not wal")) == ("warn", True)


def test_without_tables_nothing_more_is_asked_of_the_database(command: Command, empty_database_url: str) -> None:
    """One line says what to do."""
    if empty_database_url.startswith("sqlite"):
        Path(empty_database_url.removeprefix("sqlite:///")).touch()
    done = command("check", **{**REAL, "DATABASE_URL": empty_database_url})
    assert [state for state, _, _ in lines(done, "migrations")] == ["wrong"]
    assert "provisioning migrate" in done.stdout
    assert (lines(done, "queue", "webhooks", "runs"), done.code) == ([], 1)


# Scalekit --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "state"), [(0.4, "ok"), (-60, "ok"), (61, "warn"), (-300, "warn"), (301, "wrong"), (-90_000, "wrong")])
def test_a_clock_is_told_before_webhooks_are_refused_for_it(seconds: float, state: str) -> None:
    """A minute is a warning, five are too many: signatures expire."""
    found = of_clock(seconds)
    assert found.state == state
    assert state == "ok" or ("behind" if seconds < 0 else "ahead of") in found.words


@on_sqlite
def test_what_is_wrong_with_scalekit_is_told(check: Check, emulator: Emulator) -> None:
    """Its clock, the credentials, the keys: each in its line, with exit code 1, and what cannot be looked at is not judged."""
    given = {**emulator.settings(), **REAL, "PROVISIONING_JWT_ISSUER": "https://app.example", "PROVISIONING_JWT_AUDIENCE": "app"}
    with emulator.faults.during(Door.CLOCK, Fault.AHEAD):
        off = check(**given)
    refused = check(**{**given, "SCALEKIT_CLIENT_SECRET": "canary"})
    away = check(**{**given, "PROVISIONING_JWT_JWKS_URL": f"{emulator.settings()['SCALEKIT_ENVIRONMENT_URL']}/nothing"})
    assert [state for state, _, _ in lines(off, "clock", "scalekit", "tokens")] == ["wrong", "ok", "ok"]
    assert [state for state, _, _ in lines(refused, "clock", "scalekit", "tokens")] == ["ok", "wrong", "ok"]
    assert [state for state, _, _ in lines(away, "clock", "scalekit", "tokens")] == ["ok", "ok", "wrong"]
    assert "PROVISIONING_JWT_JWKS_URL answers 404." in lines(away, "tokens")[0][2]
    assert lines(away, "tokens")[0][2].endswith("is PROVISIONING_JWT_JWKS_URL where its keys are?")
    assert (off.code, refused.code, away.code) == (1, 1, 1)
    assert "canary" not in refused.stdout


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (59.9, "60 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (172_799, "47 h"), (172_800, "2 days")],
)
def test_times_are_said_in_their_largest_unit(seconds: float, words: str) -> None:
    """Whole ones, that have passed."""
    assert span(timedelta(seconds=seconds)) == words
    assert ago(NOW - timedelta(seconds=max(seconds, 0)), NOW) == f"{words} ago"
    assert seconds < 1 or ago(NOW + timedelta(seconds=seconds), NOW) == f"in {words}"
