"""The operators' commands as operators type them: what they print, how they exit, and what they never say."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from operators import PAYLOADS, PROGRAM, SETTINGS, Command, Operator, free_port
from provisioning.db.session import Database

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

SAMPLE = PAYLOADS / "organization.directory.user_created.okta.json"
INBOX = ("deliveries list", "deliveries show", "deliveries replay", "deliveries dismiss")
HOOKS = tuple(f"hooks {name}" for name in ("add", "list", "remove", "rotate-secret", "test", "dead-letters", "retry"))
COMMANDS = (
    *("serve", "dev", "migrate", "send", "reconcile", "explain", "history", "import-users", "refresh", "export", "erase", "worker"),
    *("portal-link", "check"),
    *INBOX,
    *HOOKS,
    "emulator",
)
HEAVY = ("alembic", "fastapi", "grpc", "httpx", "pydantic", "rich", "scalekit", "sqlalchemy", "uvicorn")
AWAY = {"sqlite": "sqlite:////nowhere/canary.db", "postgresql": "postgresql://canary-user:canary-password@127.0.0.1:1/canary"}


def test_asking_what_there_is_is_cheap() -> None:
    """`--help`, a typing mistake and a shell's completion import no heavy package."""
    code = f"import sys; import provisioning.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(command: Command) -> None:
    """`--version` names the program."""
    done = command("--version")
    assert (done.code, done.stdout.split()[0]) == (0, "provisioning")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_teaches_by_example(command: Command, name: str) -> None:
    """Every command shows how it is used."""
    done = command(f"{name} --help")
    assert done.code == 0
    assert f"provisioning {name}" in done.stdout[done.stdout.index("Examples:") :]


def test_migrate_says_from_where_to_where(command: Command, empty_database_url: str) -> None:
    """The first run names both revisions; the second finds nothing to do."""
    first, second = (command("migrate", DATABASE_URL=empty_database_url) for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert first.stdout.startswith("Migrated the database from empty to ")
    assert second.stdout == f"Nothing to do: the database is at {first.stdout.split()[-1]}\n"


def test_migrate_leaves_a_newer_release_alone(command: Command, database_url: str) -> None:
    """A revision that this release does not know is a newer one's, which has migrated already: during a roll-out both run."""
    with closing(Database(database_url)) as database, database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '2999_newer'"))
    done = command("migrate", DATABASE_URL=database_url)
    assert (done.code, done.stdout) == (0, "Nothing to do: the database is at 2999_newer.\n")


@pytest.mark.parametrize("kind", AWAY)
@pytest.mark.parametrize("line", ["migrate", "deliveries list", "deliveries show msg_1"])
def test_a_database_that_is_away_is_said_in_one_line(command: Command, kind: str, line: str) -> None:
    """Exit code 1 and what to look at; neither the driver's words nor the URL."""
    done = command(line, DATABASE_URL=AWAY[kind])
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "DATABASE_URL" in done.stderr
    assert "canary" not in done.stderr


def test_the_inbox_wants_a_migrated_database(command: Command, empty_database_url: str) -> None:
    """Instead of a missing table the commands say what to run."""
    done = command("deliveries list", DATABASE_URL=empty_database_url)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "provisioning migrate" in done.stderr


def test_what_nobody_expected_is_one_line_too(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error's class and place, and none of its words: a driver's carry values."""

    def fail(**_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr("provisioning.cli.check.check", fail)
    done = command("check")
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "RuntimeError" in done.stderr
    assert "canary" not in done.stderr


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_deliveries_are_sent_listed_shown_and_replayed(command: Command, tmp_path: Path, database_url: str) -> None:
    """The inbox says the same on the command line as over HTTP, and a replay changes nothing that was done."""
    operator = Operator(tmp_path, {**SETTINGS, "DATABASE_URL": database_url})
    sample = SAMPLE.read_text()
    with operator.started("serve") as running:
        send = f"send --url {running.url}/webhooks/scalekit"
        assert command(f"{send} --webhook-id msg_1 -", stdin=sample).rows[0][:4] == ["-", "msg_1", "201", "processed"]
        assert command(f"{send} --webhook-id msg_2 -", stdin='{"note": "\x9b31m"}').rows[0][3:5] == ["dead_lettered", "-"]
        over_http = running.get("/v1/deliveries").json()["data"]
    (tmp_path / ".env").write_text(f"DATABASE_URL={database_url}\n")

    listed, table = command("deliveries list --json"), command("deliveries list --limit 1")
    assert json.loads(listed.stdout)["data"] == over_http
    assert [each["webhook_id"] for each in over_http] == ["msg_2", "msg_1"]
    assert [row[1:3] for row in table.rows] == [["msg_2", "dead_lettered"]]
    assert "jane" not in listed.stdout

    shown, dead = command("deliveries show msg_1").stdout, command("deliveries show msg_2").stdout
    assert json.loads(shown[shown.index("{") :]) == json.loads(sample)
    assert '"note": "\\x9b31m"' in dead  # what a terminal would obey is spelt out

    # In a process of its own: handling sets up logs.
    replayed = operator.run("deliveries", "replay", "msg_1", "msg_2")
    assert (replayed.returncode, replayed.stdout.splitlines()[1:]) == (
        1,
        ["msg_1\tprocessed\tevt_118462867057559311\t-", f"msg_2\tdead_lettered\t-\t{over_http[0]['error']}"],
    )


def test_a_delivery_that_nobody_sent_is_said_in_one_line(command: Command, database_url: str) -> None:
    """Not found is exit code 1."""
    done = command("deliveries show msg_1", DATABASE_URL=database_url)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_send_sends_what_it_can_read(command: Command, tmp_path: Path, database_url: str) -> None:
    """A file that is missing, or that cannot be signed, is said in its row, and the others are sent. One bad row is exit code 1."""
    (tmp_path / "latin.json").write_bytes('{"name": "Zoë"}'.encode("latin-1"))
    with Operator(tmp_path, {**SETTINGS, "DATABASE_URL": database_url}).started("serve") as running:
        send = f"send --url {running.url}/webhooks/scalekit"
        mixed = command(f"{send} missing.json {SAMPLE} latin.json")
        refused = command(f"{send} {SAMPLE}", SCALEKIT_WEBHOOK_SECRET=SETTINGS["SCALEKIT_WEBHOOK_SECRET"].replace("b", "c"))
    assert [(row[0], row[2], row[3]) for row in mixed.rows] == [
        ("missing.json", "-", "not sent: No such file or directory"),
        (str(SAMPLE), "201", "processed"),
        ("latin.json", "-", "not sent: not UTF-8"),
    ]
    assert (mixed.code, refused.code, refused.rows[0][2]) == (1, 1, "400")


def test_send_says_when_nobody_listens(command: Command) -> None:
    """Where it tried, and what to do; the port is that of the environment."""
    port = str(free_port())
    done = command(f"send {SAMPLE}", PORT=port)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"http://127.0.0.1:{port}/webhooks/scalekit" in done.stderr


def test_one_webhook_id_is_for_one_file(command: Command) -> None:
    """Two deliveries under one id would be one."""
    assert command(f"send --webhook-id msg_1 {SAMPLE} {SAMPLE}").code == 2
    done = command(f"send --webhook-id ü {SAMPLE}")
    assert (done.code, "visible ASCII" in done.stderr) == (2, True)


def test_check_says_what_is_wrong(tmp_path: Path, command: Command) -> None:
    """Each thing that is wrong is said, with exit code 1 and without a secret."""
    misconfigured = command("check", SCALEKIT_WEBHOOK_SECRET="whsec_canary")
    away = command("check", DATABASE_URL=AWAY["postgresql"])
    url = f"https://127.0.0.1:{free_port()}"
    credentials = {"SCALEKIT_ENVIRONMENT_URL": url, "SCALEKIT_CLIENT_ID": "skc_1", "SCALEKIT_CLIENT_SECRET": "canary-secret"}
    # In a process of its own: the SDK warns while it is imported.
    unmigrated = Operator(tmp_path, {**SETTINGS, **credentials}, executes=True).run("check")
    assert misconfigured.stdout.startswith("wrong  configuration")
    assert "wrong  database" in away.stdout
    lines = [line for line in unmigrated.stdout.splitlines() if line.startswith("wrong")]
    assert [line.split()[1] for line in lines] == ["database", "scalekit"]
    assert "provisioning migrate" in lines[0]
    assert (misconfigured.code, away.code, unmigrated.returncode) == (1, 1, 1)
    assert "canary" not in misconfigured.stdout + away.stdout + unmigrated.stdout + unmigrated.stderr


def test_a_portal_link_is_printed_with_what_to_know_of_it(emulator: Emulator, tmp_path: Path) -> None:
    """It opens once, within 60 s, with the features asked for; the one line on stderr is the audit, without the link."""
    operator = Operator(tmp_path, {**SETTINGS, **emulator.settings(), **emulator.trust()})
    began = datetime.now(UTC)
    # In processes of their own: making a link sets up logs.
    spoken = operator.run("portal-link", "org_1", "--feature", "dir_sync", "--feature", "sso")
    parsed = operator.run("portal-link", "org_1", "--json")

    assert (spoken.returncode, parsed.returncode) == (0, 0)
    location, *told = spoken.stdout.splitlines()
    link = json.loads(parsed.stdout)
    assert location.startswith(emulator.portal_origin)
    assert location != link["location"]
    assert "once, within 60 s" in told[0]
    assert re.search(r"until [0-9-]{10} [0-9:]{8} UTC", told[0])
    assert "dashboard" in told[1]
    assert set(link) == {"id", "location", "expires_at"}
    assert timedelta() < datetime.fromisoformat(link["expires_at"]) - began <= timedelta(seconds=120)
    made = emulator.links.open(location.rpartition("/")[2])
    assert made
    assert made.features == ("dir_sync", "sso")
    (audit,) = [line for line in spoken.stderr.splitlines() if "portal_link_made" in line]
    assert [json.loads(audit)[name] for name in ("caller", "organization_id", "features")] == ["command line", "org_1", ["dir_sync", "sso"]]
    for secret in (location, location.rpartition("/")[2], SETTINGS["SCALEKIT_WEBHOOK_SECRET"], emulator.tokens.client_secret):
        assert secret not in spoken.stderr


def test_a_portal_link_that_cannot_be_is_said_in_one_line(emulator: Emulator, tmp_path: Path) -> None:
    """What is missing, or what Scalekit said of it in our words; exit code 1, and nothing that looks like a link."""
    configured = {**emulator.settings(), **emulator.trust()}
    failures = {
        "SCALEKIT_CLIENT_ID": Operator(tmp_path, SETTINGS).run("portal-link", "org_1"),
        "no organization's id": Operator(tmp_path, SETTINGS).run("portal-link", "org 1"),
        # Executed: the SDK warns while it is imported.
        "does not know": Operator(tmp_path, {**SETTINGS, **configured}, executes=True).run("portal-link", "org_0"),
        "PROVISIONING_PORTAL_ORIGINS": Operator(
            tmp_path, {**SETTINGS, **configured, "PROVISIONING_PORTAL_ORIGINS": "https://elsewhere.example"}
        ).run("portal-link", "org_1"),
        "cannot be reached": Operator(
            tmp_path, {**SETTINGS, **configured, "SCALEKIT_ENVIRONMENT_URL": f"https://localhost:{free_port()}"}
        ).run("portal-link", "org_1"),
    }
    for words, done in failures.items():
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert words in done.stderr


@pytest.mark.proof
def test_a_reader_that_leaves_is_nothing_to_talk_about(tmp_path: Path) -> None:
    """A pipe whose reader ends early gets no error message."""
    done = Operator(tmp_path, SETTINGS).shell(
        "provisioning migrate | true; provisioning deliveries list | true; provisioning --help | true"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_an_interrupt_is_130_without_a_word(tmp_path: Path) -> None:
    """Ctrl-C while a command waits ends it quietly."""
    environment = Operator(tmp_path, SETTINGS).environment()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line: list[str | Path] = [PROGRAM, "send", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}/", SAMPLE]
        process = subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)  # it waits for the answer now
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130
