"""The service as an operator runs it: real processes on a real port, on both databases."""

import json
import signal
import socket
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from databases import Databases
from operators import KEY, PAYLOADS, SETTINGS, Command, Operator, Running, until
from provisioning.cli.serve import GRACE_SECONDS

CAPTURED = "organization.directory.user_created.okta"
JANE = "org_118460706403795901"
DOCUMENTED = "org_53879494091473415"


@pytest.fixture
def operator(tmp_path: Path, database_url: str) -> Operator:
    """An operator with a webhook secret, an API key and a migrated database."""
    return Operator(tmp_path, {**SETTINGS, "DATABASE_URL": database_url})


def send(command: Command, running: Running, *names: str, options: str = "") -> list[str]:
    """Send payloads as they are; return the outcome of each."""
    assert running.get("/health/live").status_code == 200  # a worker imports for longer than `send` waits, on a busy machine
    files = " ".join(str(PAYLOADS / f"{name}.json") for name in names)
    done = command(f"send --url {running.url}/webhooks/scalekit {options} {files}")
    assert done.code == 0, done.stderr
    return [row[3] for row in done.rows]


def users(running: Running, organization_id: str) -> dict[str, Any]:
    """The organization's users, by the id of the directory user behind each."""
    found = running.get(f"/v1/organizations/{organization_id}/users").json()["data"]
    return {user["directory_users"][0]["id"]: user for user in found}


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.proof), 2])
@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_a_captured_event_becomes_a_user(operator: Operator, command: Command, workers: int) -> None:
    """The captured Okta event, posted as it is, makes the person, and the same delivery again is a duplicate, whichever process takes it.

    SIGTERM then ends the service with exit code 0 and no word of failure.
    """
    with operator.started("serve", "--workers", str(workers)) as running:
        outcomes = [send(command, running, CAPTURED, options="--webhook-id msg_1") for _ in range(3)]
        [jane] = users(running, JANE).values()
        assert running.end() == 0
    assert outcomes == [["processed"], ["duplicate"], ["duplicate"]]
    assert (jane["email"], jane["name"], jane["active"], jane["groups"], jane["roles"]) == (
        "jane.doe@example.com",
        "Jane Doe",
        True,
        [],
        ["member"],
    )
    assert {json.loads(line)["level"] for line in running.stderr} == {"info"}


def test_the_documented_events_do_what_their_names_say(operator: Operator, command: Command) -> None:
    """Scalekit's documented examples, one after another: the person is there, is updated, is deactivated; groups come and go."""
    john = "diruser_12312312312312"
    with operator.started("serve") as running:
        assert send(command, running, "organization.directory.user_created") == ["processed"]
        [dayton] = users(running, DOCUMENTED).values()
        assert (dayton["given_name"], dayton["active"], dayton["roles"]) == ("Dayton", True, ["billing_admin"])

        assert send(command, running, "organization.directory.user_updated") == ["processed"]
        updated = users(running, DOCUMENTED)[john]
        assert (updated["name"], updated["active"], updated["roles"]) == ("John Doe", True, ["billing_admin"])
        assert updated["groups"] == [{"id": "dirgroup_12312312312312", "name": "Group Name"}]

        others = [f"organization.directory.{name}" for name in ("user_deleted", "group_created", "group_updated", "group_deleted")]
        others += ["organization.directory_enabled", "organization.directory_disabled"]
        assert send(command, running, *others) == ["processed"] * 6
        deleted = users(running, DOCUMENTED)[john]
        assert (deleted["name"], deleted["active"], deleted["roles"], deleted["groups"]) == ("John Doe", False, [], [])
        [avengers] = running.get("/v1/organizations/org_38609339635728478/groups").json()["data"]
        assert (avengers["name"], avengers["deleted"]) == ("Avengers", False)
        assert running.get("/v1/organizations/org_39802449573184223/groups").json()["data"] == []
        [enabled] = running.get("/v1/organizations/org_55135410258444802/directories").json()["data"]
        [disabled] = running.get(f"/v1/organizations/{DOCUMENTED}/directories").json()["data"]
        assert (enabled["enabled"], disabled["enabled"]) == (True, False)


def test_the_end_does_not_wait_for_those_who_wait_for_changes(tmp_path: Path, sqlite_databases: Databases) -> None:
    """They are answered at once with what there is, and the service ends in less time than it gives requests under way."""
    with (
        sqlite_databases.fresh(migrated=True) as url,
        Operator(tmp_path, {**SETTINGS, "DATABASE_URL": url}).started("serve") as running,
        closing(HTTPConnection(running.url.removeprefix("http://"), timeout=30)) as waiting,
    ):
        waiting.request("GET", "/v1/changes?wait=30", headers={"Authorization": f"Bearer {KEY}"})
        assert running.get("/health/live").status_code == 200  # which came later
        began = time.monotonic()
        assert running.end() == 0
        assert time.monotonic() - began < GRACE_SECONDS
        answer = waiting.getresponse()
        assert (answer.status, json.load(answer)["data"]) == (200, [])
    assert not [line for line in running.stderr if '"error"' in line]


def test_an_interrupt_leaves_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C ends the service with 130, as shells expect."""
    with Operator(tmp_path, SETTINGS).started("serve") as running:
        assert running.end(signal.SIGINT) == 130
    assert "Traceback" not in "".join(running.stderr)


def test_an_interrupt_is_heard_where_a_shell_had_it_ignored(tmp_path: Path) -> None:
    """A shell starts what `&` puts into the background with SIGINT ignored; the service is ended by it all the same."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Operator(tmp_path, SETTINGS, executes=True).started("serve") as running:
            assert running.end(signal.SIGINT) == 130
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_is_not_ready_until_migrated(tmp_path: Path, empty_database_url: str) -> None:
    """`serve` does not migrate: it says what to do, answers 503 for readiness, and is ready once somebody has."""
    operator = Operator(tmp_path, {**SETTINGS, "DATABASE_URL": empty_database_url})
    with operator.started("serve") as running:
        assert running.get("/health/live").status_code == 200
        assert running.get("/health/ready").status_code == 503
        assert operator.run("migrate").returncode == 0
        until(lambda: running.get("/health/ready").status_code == 200)  # what was found a second ago is not looked for again
    assert "provisioning migrate" in next(line for line in running.stderr if "not_ready" in line)


WRONG = {
    "no secret": ({"SCALEKIT_WEBHOOK_SECRET": ""}, "SCALEKIT_WEBHOOK_SECRET"),
    "a placeholder": ({"SCALEKIT_WEBHOOK_SECRET": "whsec_<your-secret>"}, "SCALEKIT_WEBHOOK_SECRET"),
    "a short API key": ({"PROVISIONING_API_KEYS": "canary-key"}, "PROVISIONING_API_KEYS"),
    "another database": ({"DATABASE_URL": "mysql://canary-user:canary-password@host/db"}, "DATABASE_URL"),
    "traces by gRPC": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "canary"},
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ),
    "a misspelt name": ({"PROVISIONING_API_KEY": "x"}, "PROVISIONING_API_KEY"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_settings_stop_the_start_with_one_line(tmp_path: Path, case: str) -> None:
    """Whatever is wrong, `serve` names it in one line without the value, and starts no worker."""
    bad, name = WRONG[case]
    done = Operator(tmp_path, {**SETTINGS, **bad}).run("serve", "--workers", "2")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert name in done.stderr
    assert "canary" not in done.stderr


def test_demo_secrets_stop_a_start_that_others_could_reach(tmp_path: Path) -> None:
    """A line for each, before anything listens; on loopback every other test here starts with them."""
    done = Operator(tmp_path, SETTINGS).run("serve", "--host", "0.0.0.0")  # noqa: S104  # what has to be refused, or not
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 2)
    assert "SCALEKIT_WEBHOOK_SECRET (entry 1) is printed" in done.stderr
    assert "PROVISIONING_API_KEYS has tests" in done.stderr


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    """Somebody else's port stops the start before a worker is there."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = Operator(tmp_path, SETTINGS).run("serve", "--workers", "2", PORT=port)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"Port {port} is taken" in done.stderr
