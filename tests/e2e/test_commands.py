"""The operators' commands as operators run them: what they print, how they exit, and what they never say."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from operators import KEY, PAYLOADS, PROGRAM, SECRET, Operator, free_port

SAMPLE = str(PAYLOADS / "organization.directory.user_created.okta.json")
SETTINGS = {"SCALEKIT_WEBHOOK_SECRET": SECRET, "PROVISIONING_API_KEYS": f"tests:{KEY}"}
HEAVY = ("alembic", "fastapi", "grpc", "httpx", "pydantic", "rich", "scalekit", "sqlalchemy", "uvicorn")


@pytest.fixture
def operator(tmp_path: Path, database_url: str) -> Operator:
    """An operator with a webhook secret, an API key and a migrated database."""
    return Operator(tmp_path, {**SETTINGS, "DATABASE_URL": database_url})


@pytest.fixture
def alone(tmp_path: Path) -> Operator:
    """The same with a database that is not there yet."""
    return Operator(tmp_path, SETTINGS)


def test_help_is_cheap() -> None:
    """Asking what there is imports no heavy package: they take seconds."""
    code = f"import sys; import provisioning.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_and_help(alone: Operator) -> None:
    """`--version` names the program; `--help` has examples, and so has each command's."""
    assert alone.run("--version").stdout.startswith("provisioning 0.")
    for command in (
        [],
        ["serve"],
        ["dev"],
        ["migrate"],
        ["send"],
        ["check"],
        ["deliveries", "list"],
        ["deliveries", "show"],
        ["deliveries", "replay"],
    ):
        done = alone.run(*command, "--help")
        assert done.returncode == 0
        assert "Examples:\n" in "\n".join(map(str.strip, done.stdout.splitlines()))


def test_migrate_says_from_where_to_where(tmp_path: Path, empty_database_url: str) -> None:
    """The first run names both revisions; the second finds nothing to do."""
    operator = Operator(tmp_path, {"DATABASE_URL": empty_database_url})
    first, second = operator.run("migrate"), operator.run("migrate")
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.startswith("Migrated the database from empty to ")
    assert second.stdout == f"Nothing to do: the database is at {first.stdout.split()[-1]}\n"


AWAY = {"sqlite": "sqlite:////nowhere/canary.db", "postgresql": "postgresql://canary-user:canary-password@127.0.0.1:1/canary"}


@pytest.mark.parametrize("kind", AWAY)
@pytest.mark.parametrize("command", ["migrate", "deliveries list", "deliveries show msg_1", "deliveries replay msg_1"])
def test_a_database_that_is_away_is_said_in_one_line(alone: Operator, kind: str, command: str) -> None:
    """Exit code 1 and what to look at; neither the driver's words nor the URL."""
    done = alone.run(*command.split(), DATABASE_URL=AWAY[kind])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "DATABASE_URL" in done.stderr
    assert "canary" not in done.stderr


def test_commands_on_the_inbox_want_a_migrated_database(alone: Operator) -> None:
    """Instead of a missing table they say what to run."""
    done = alone.run("deliveries", "list")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "provisioning migrate" in done.stderr


def test_deliveries_are_listed_shown_and_replayed(operator: Operator) -> None:
    """The inbox says the same on the command line and over HTTP; a replay of what was applied finds it stale."""
    with operator.started("serve") as running:
        sent = operator.run(
            "send", "--url", f"{running.url}/webhooks/scalekit", "--webhook-id", "msg_1", "-", stdin=Path(SAMPLE).read_text()
        )
        broken = operator.run("send", "--url", f"{running.url}/webhooks/scalekit", "--webhook-id", "msg_2", "-", stdin="not json\x1b[31m")
        over_http = running.get("/v1/deliveries").json()["data"]
    assert (sent.returncode, broken.returncode) == (0, 0)
    assert [line.split("\t")[3] for done in (sent, broken) for line in done.stdout.splitlines()[1:]] == ["processed", "dead_lettered"]

    assert json.loads(operator.run("deliveries", "list", "--json").stdout)["data"] == over_http
    assert [each["webhook_id"] for each in over_http] == ["msg_2", "msg_1"]
    newest = operator.run("deliveries", "list", "--limit", "1").stdout.splitlines()
    assert [line.split("\t")[1:3] for line in newest] == [["webhook_id", "outcome"], ["msg_2", "dead_lettered"]]
    assert "jane.doe" not in operator.run("deliveries", "list").stdout

    shown = operator.run("deliveries", "show", "msg_1").stdout
    assert json.loads(shown[shown.index("{") :]) == json.loads(Path(SAMPLE).read_text())
    assert "\x1b" not in operator.run("deliveries", "show", "msg_2").stdout

    replayed, again = operator.run("deliveries", "replay", "msg_1"), operator.run("deliveries", "replay", "msg_2")
    assert (replayed.returncode, replayed.stdout.splitlines()[1].split("\t")[:2]) == (0, ["msg_1", "stale"])
    assert (again.returncode, again.stdout.splitlines()[1].split("\t")[:2]) == (1, ["msg_2", "dead_lettered"])
    unknown = operator.run("deliveries", "replay", "msg_3")
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (1, "", 1)


def test_send_sends_what_it_can_read(operator: Operator) -> None:
    """A file that is missing, or that no signature is made for, is said in its row; the others are sent. One bad row is exit code 1."""
    latin = operator.folder / "latin.json"
    latin.write_bytes('{"name": "Zoë"}'.encode("latin-1"))
    with operator.started("serve") as running:
        url = f"{running.url}/webhooks/scalekit"
        done = operator.run("send", "--url", url, "missing.json", SAMPLE, "latin.json")
        refused = operator.run("send", "--url", url, SAMPLE, SCALEKIT_WEBHOOK_SECRET="whsec_" + SECRET[:5:-1])
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("missing.json", "-", "not sent: No such file or directory"),
        (SAMPLE, "201", "processed"),
        ("latin.json", "-", "not sent: not UTF-8"),
    ]
    assert (done.returncode, refused.returncode) == (1, 1)
    assert refused.stdout.splitlines()[1].split("\t")[2] == "400"


def test_send_says_when_nobody_listens(alone: Operator) -> None:
    """Where it tried, and what to do."""
    port = str(free_port())
    done = alone.run("send", SAMPLE, PORT=port)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"http://127.0.0.1:{port}/webhooks/scalekit" in done.stderr


def test_check_has_a_line_for_each(operator: Operator) -> None:
    """Fine is 0; credentials that are not there are no failure, since receiving does not need them."""
    done = operator.run("check")
    assert done.returncode == 0, done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", name] for name in ("configuration", "database", "migrations", "scalekit")
    ]


def test_check_says_what_is_wrong(alone: Operator) -> None:
    """Each thing that is wrong is said, with the exit code 1, and without a secret."""
    url = f"https://127.0.0.1:{free_port()}"
    credentials = {"SCALEKIT_ENVIRONMENT_URL": url, "SCALEKIT_CLIENT_ID": "skc_1", "SCALEKIT_CLIENT_SECRET": "canary-secret"}
    unmigrated = alone.run("check", **credentials)
    lines = [line.split(maxsplit=2) for line in unmigrated.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["ok", "configuration"], ["ok", "database"], ["wrong", "migrations"], ["wrong", "scalekit"]]
    assert "provisioning migrate" in lines[2][2]
    away = alone.run("check", DATABASE_URL=AWAY["postgresql"])
    assert "wrong  database" in away.stdout
    misconfigured = alone.run("check", SCALEKIT_WEBHOOK_SECRET="whsec_canary")
    assert misconfigured.stdout.startswith("wrong  configuration")
    assert [done.returncode for done in (unmigrated, away, misconfigured)] == [1, 1, 1]
    assert "canary" not in unmigrated.stdout + away.stdout + misconfigured.stdout


def test_a_reader_that_leaves_is_no_failure_to_talk_about(operator: Operator) -> None:
    """`… | head -0` writes nothing to stderr."""
    done = operator.shell("provisioning deliveries list --json | true; provisioning --help | true")
    assert (done.stdout, done.stderr) == ("", "")


def test_an_interrupt_is_130_without_a_word(alone: Operator) -> None:
    """Ctrl-C during a command that waits ends it quietly."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        process = subprocess.Popen(
            [PROGRAM, "send", "--url", url, SAMPLE],
            cwd=alone.folder,
            env=alone.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)  # it is waiting for the answer now
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130
