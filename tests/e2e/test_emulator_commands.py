"""The emulator as operators start and drive it: a real process, beside a real service.

Commands that drive it run in this process, for speed, where it does not matter.
"""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import typer

from operators import KEY, PROGRAM, SECONDS, Command, Done, Operator, Running, free_port, until
from provisioning.cli.emulator import emulator
from provisioning.cli.emulator.sending import Door, Fault, Step
from provisioning.cli.emulator.structure import Dialect, Provider

FOLDER = Path(".provisioning/emulator")
AT_ONCE = ("--api-port", "0", "--retry-scale", "0.0002")  # all retries are over in 20 seconds
# What the emulator sends ends alike on both databases: test_emulator_and_service.py.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)


@dataclass(frozen=True)
class Town:
    """An operator whose emulator runs, and the port of the service that it delivers to."""

    operator: Operator
    command: Command
    port: int

    def drive(self, line: str) -> Done:
        """Run a command of the emulator's."""
        return self.command(f"emulator {line}")

    def answer(self, line: str) -> Any:
        """Run one that succeeds, and return the JSON that it prints."""
        return answered(self.command, line)

    def serving(self) -> AbstractContextManager[Running]:
        """Start the service, with what the emulator hands out."""
        return self.operator.started("serve", port=self.port, **environment(self.operator))

    def says(self, service: Running, person: dict[str, Any], **what: object) -> Callable[[], bool]:
        """The claim that the service says this now of a directory user."""
        path = f"/v1/organizations/{person['organization_id']}/users?directory_user_id={person['id']}"
        return lambda: any(what.items() <= user.items() for user in service.get(path).json()["data"])


def answered(command: Command, line: str) -> Any:
    """What the command prints with --json, when it succeeds."""
    done = command(f"emulator {line} --json")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def declared() -> dict[str, object]:
    """The commands of `provisioning emulator`, by name."""
    commands: dict[str, object] = typer.main.get_command(emulator).commands  # type: ignore[attr-defined]  # it is a group
    return commands


def environment(operator: Operator) -> dict[str, str]:
    """What the emulator hands to a service, under what is set already."""
    handed: dict[str, str] = json.loads((operator.folder / FOLDER / "control.json").read_text())["environment"]
    return {**handed, **operator.settings}


@pytest.fixture
def town(tmp_path: Path, command: Command, database_url: str) -> Iterator[Town]:
    """The emulator runs, and may ask the service, which does not run yet."""
    keys = {"PROVISIONING_API_KEYS": f"tests:{KEY}", "EMULATOR_SERVICE_KEY": KEY}
    place = Town(Operator(tmp_path, {"DATABASE_URL": database_url, **keys}), command, free_port())
    with place.operator.started("emulator", *AT_ONCE, "--deliver-to", f"http://127.0.0.1:{place.port}/webhooks/scalekit"):
        yield place


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Operator]:
    """An operator whose emulator runs, and delivers to nobody."""
    operator = Operator(tmp_path)
    with operator.started("emulator", *AT_ONCE, "--deliver-to", f"http://127.0.0.1:{free_port()}/"):
        yield operator


@ON_SQLITE
def test_the_service_follows_the_directory(town: Town) -> None:
    """Fifty people at once, then one who is hired, whose role changes, who is suspended: the service says what the directory says.

    What happens while it is down `compare` finds, and it is made good when it is sent again.
    """
    with town.serving() as service:
        assert town.answer("sync --users 50")["state"] == "done"
        equal = town.drive("compare")
        assert (equal.code, equal.stdout) == (0, "Equal: the service says of 62 people what the directories say.\n")

        ada = town.answer("hire Ada Lovelace --email ada@example.com --department Sales --group Engineering")
        until(town.says(service, ada, roles=["admin"], active=True))
        assert town.answer("map-role Engineering --none")["role"] is None
        until(town.says(service, ada, roles=["member"]))
        assert town.answer("suspend ada@example.com")["state"] == "suspended"
        until(town.says(service, ada, active=False))
        until(lambda: not town.answer("status")["deliveries"]["waiting"])  # whose answer may come after what the service says

    town.answer("switches --retry-scale 0.000001")
    assert town.answer("restore ada@example.com")["state"] == "active"
    until(lambda: town.answer("status")["deliveries"]["given_up"])
    [lost] = town.answer("deliveries --progress given_up")["data"]
    assert town.drive(f"delivery {lost['id']}").stdout.count("ConnectError") == 8

    with town.serving() as service:
        different = town.drive("compare")
        assert different.code == 1
        assert "ada@example.com\tactive\tyes\tno\t" in different.stdout
        assert town.answer("resend")["deliveries"] == [lost["id"]]
        until(town.says(service, ada, active=True))
        assert town.answer("compare")["equal"]


@ON_SQLITE
def test_a_story_is_played_to_its_end(town: Town) -> None:
    """Its last step says what came of it, compared with the service."""
    with town.serving():
        done = town.drive("scenario leaver")
    assert (done.code, done.stderr) == (0, "")
    assert "the service says the same of all" in done.stdout


def test_a_shell_takes_the_settings_as_they_are_printed(alone: Operator) -> None:
    """`check` signs in at the emulator over TLS, with the settings that `env` prints and nothing else."""
    done = alone.shell('eval "$(provisioning emulator env)"; provisioning migrate; provisioning check')
    assert (done.returncode, done.stderr) == (0, "")
    assert f"signed in at {environment(alone)['SCALEKIT_ENVIRONMENT_URL']}" in done.stdout


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.proof)])
def test_a_signal_ends_it_cleanly(tmp_path: Path, command: Command, by: signal.Signals, code: int) -> None:
    """What it keeps is its user's alone, what says that it runs goes away, and the next start finds the same company."""
    operator, folder = Operator(tmp_path), tmp_path / FOLDER
    with operator.started("emulator", *AT_ONCE) as emulator:
        control = json.loads((folder / "control.json").read_text())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        people = answered(command, "people")
        assert emulator.end(by) == code
    assert modes.keys() >= {"ca.pem", "server.pem", "state.db", "token", "control.json"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not (folder / "control.json").exists()
    assert f"{emulator.url}/#token={control['token']}" in (tmp_path / "emulator.stdout").read_text()
    assert "Traceback" not in "".join(emulator.stderr)
    assert control["token"] not in "".join(emulator.stderr)
    with operator.started("emulator", *AT_ONCE):
        assert answered(command, "people") == people


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """However that process ends, the system closes the other end of this one's standard input."""
    command = [PROGRAM, "emulator", "--with-parent", "--port", "0", "--api-port", "0"]
    variables = Operator(tmp_path).environment()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=tmp_path, env=variables, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout
        assert process.stdin
        try:
            assert b"Page" in process.stdout.readline() + process.stdout.readline()
            process.stdin.close()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    assert not (tmp_path / FOLDER / "control.json").exists()


WRONG = {
    "another machine": (("--deliver-to", "https://example.com/hooks"), "--anywhere"),
    "no address": (("--deliver-to", "example"), "http://127.0.0.1:8000/webhooks/scalekit"),
    "no service": (("--service", "127.0.0.1:8000"), "http://127.0.0.1:8000"),
    "a folder that cannot be": (("--folder", "/dev/null/emulator"), "/dev/null/emulator"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_stops_the_start_with_one_line(tmp_path: Path, case: str) -> None:
    """It says what to do instead."""
    arguments, part = WRONG[case]
    done = Operator(tmp_path).run("emulator", "--port", "0", "--api-port", "0", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert part in done.stderr


def test_two_do_not_share_a_folder_or_a_port(alone: Operator, command: Command) -> None:
    """The second says so and ends; the first goes on."""
    folder = alone.run("emulator", "--port", "0", "--api-port", "0")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        port = alone.run("emulator", "--folder", "another", "--port", taken, "--api-port", "0")
    for done, part in ((folder, f"Another emulator runs in {FOLDER}"), (port, f"Port {taken} is taken")):
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert part in done.stderr
    assert answered(command, "status")["organizations"]


def test_without_an_emulator_a_command_says_what_to_start(tmp_path: Path) -> None:
    """Also when one was killed and could not clean up; whoever has its port by now does not get to see its token."""
    operator = Operator(tmp_path)
    never = operator.run("emulator", "people")
    with operator.started("emulator", *AT_ONCE) as emulator:
        emulator.end(signal.SIGKILL)
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        (tmp_path / FOLDER / "control.json").write_text(json.dumps({"url": url, "token": "x", "environment": {}}))
        killed = operator.run("emulator", "hire", "Ada", "Lovelace")
        with pytest.raises(BlockingIOError):
            other.accept()
    for done in (never, killed):
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert f"No emulator runs in {FOLDER}: start one with `provisioning emulator`" in done.stderr
    (tmp_path / "run").touch()
    assert "start one with `./run`" in operator.run("--local", "emulator", "people").stderr


def test_what_is_refused_is_said_in_one_line(alone: Operator, command: Command) -> None:
    """The control API's own sentence, without what would steer a terminal."""
    unknown = command("emulator suspend nobody\x9b31m@example.com")
    twice = [command("emulator add-group Engineering"), command("emulator scenario nonsense")]
    started = answered(command, "sync --users 50 --rate 0.1 --no-wait")
    busy = command("emulator sync --users 1")
    cancelled = answered(command, "cancel")
    file = alone.folder / FOLDER / "control.json"
    file.write_text(file.read_text().replace('"token": "', '"token": "x'))
    stranger = command("emulator status")
    for done in (unknown, *twice, busy, stranger):
        assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert "nobody\\x9b31m@example.com" in unknown.stderr
    assert (started["state"], cancelled["job"]["state"]) == ("running", "cancelled")
    assert "token" in stranger.stderr


@pytest.mark.usefixtures("alone")
def test_a_failed_sync_is_exit_code_1(command: Command) -> None:
    """Nobody takes its deliveries, so they are given up; with --no-wait nobody knows yet."""
    command("emulator switches --retry-scale 0.000001")
    failed = command("emulator sync --users 5")
    assert failed.code == 1
    assert "given up" in failed.stderr


def test_a_terminal_shows_how_far_it_is(alone: Operator) -> None:
    """Elsewhere there is but the last line."""
    line: list[str | Path] = [PROGRAM, "emulator", "sync", "--users", "20", "--rate", "40"]
    terminal, its_end = os.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        with os.fdopen(its_end, "wb") as stderr:
            process = subprocess.Popen(
                line, cwd=alone.folder, env=alone.environment({"TERM": "xterm"}), stdout=subprocess.DEVNULL, stderr=stderr
            )
        shown = b""
        with suppress(OSError):  # how Linux says that the other end was closed; elsewhere the read is empty
            while b"People are put into groups" not in shown and (read := screen.read(4096)):
                shown += read
        process.kill()
        process.wait()
    assert b"/20" in shown


PLAYED = {
    "env": "export SCALEKIT_ENVIRONMENT_URL=https://localhost:",
    "hire Grace Hopper --email grace@example.com --title Admiral --department Sales": "title            Admiral",
    "rename grace@example.com --given-name Amazing": "given_name       Amazing",
    "move grace@example.com Finance --title Banker": "groups           Finance",
    "regroup grace@example.com --add Engineering --remove Finance": "groups           Engineering",
    "suspend grace@example.com": "state            suspended",
    "restore grace@example.com": "state            active",
    "fire grace@example.com": "state            gone",
    "purge grace@example.com": "listed           no",
    "add-group Fleet": "name             Fleet",
    "rename-group Fleet Navy": "name             Navy",
    "map-role Navy captain": "role             captain",
    "map-role Navy --none --no-resend": "role             -",
    "delete-group Navy": "dirgroup_",
    "add-organization Harbour --external-id harbour": "external_id  harbour",
    "set-external-id Harbour tenant-42": "external_id  tenant-42",
    "set-external-id Harbour --none": "external_id  -",
    "add-directory google --organization Harbour": "provider         GOOGLE",
    "disable-directory {directory}": "enabled          no",
    "enable-directory {directory}": "enabled          yes",
    "delete-directory {directory}": "dir_",
    "delete-organization Harbour": "org_",
    "portal --dialect guide --embed https://app.example.com": "embedding_origins  https://app.example.com",
    "portal --embed-nowhere": "embedding_origins  -",
    "portal-link --organization Acme": "/magicLink/",
    "visitor-token --organization Acme --role member": "eyJ",
    "switches --duplicates 0.1 --reorder 1 --delay 2 --drop 0.3 --at-once 4": "drop         0.3",
    "reset": "drop         0.0",
    "fault api rate_limit": "fault  rate_limit",
    "status": "api: rate_limit",
    "fault api --none": "fault  -",
    "rotate-secret begin": "rotating  yes",
    "rotate-secret finish": "rotating  no",
    "sync --users 3 --silent": "A first sync of 3: done",
    "sync --users 1 --no-wait": "A first sync of 1: running",
    "cancel": "A first sync of 1: ",
    "scenario": "onboarding\t",
    "resend": "deliveries  ",
    "people --query ada --limit 5": "ada.lovelace",
    "groups": "Engineering\t",
    "deliveries --limit 3": "organization.directory.",
    "delivery {delivery}": "organization.directory.",
}
NOT_HERE = {"compare"}  # wants a service: test_the_service_follows_the_directory


def test_each_command_does_what_it_is_called(alone: Operator, command: Command) -> None:
    """Every command works, one after another; between them they do all that the control API can."""
    found = {"directory": "", "delivery": ""}
    for line, part in PLAYED.items():
        done = command(f"emulator {line.format(**found)}")
        assert (done.code, done.stderr) == (0, ""), line
        assert part in done.stdout, line
        if line.startswith("add-directory"):
            found["directory"] = done.stdout.split()[1]
        if line.startswith("deliveries"):
            found["delivery"] = done.rows[0][0]
    played = {line.split()[0] for line in PLAYED} | NOT_HERE
    assert played == set(declared())
    assert set(refusal(alone, "what", {}).partition("there are ")[2].rstrip(".").split(", ")) <= played


CHOICES: list[tuple[str, dict[str, object], str, object]] = [
    ("add-directory", {}, "provider", Provider),
    ("portal", {}, "dialect", Dialect),
    ("fault", {"fault": None}, "door", Door),
    ("fault", {"door": "api"}, "fault", Fault),
    ("rotate-secret", {}, "step", Step),
]


def test_the_commands_offer_what_the_api_takes(alone: Operator) -> None:
    """They do not import the emulator, and say again what there is to choose from."""
    for action, body, name, words in CHOICES:
        detail = refusal(alone, action, {**body, name: "nonsense"})
        assert tuple(re.findall("'(\\w+)'", detail)) == get_args(words), detail


def refusal(operator: Operator, action: str, body: dict[str, object]) -> str:
    """The control API's sentence about a request that cannot be."""
    control = json.loads((operator.folder / FOLDER / "control.json").read_text())
    headers = {"Authorization": f"Bearer {control['token']}"}
    answer = httpx.post(f"{control['url']}/control/{action}", json=body, headers=headers, trust_env=False)
    detail: str = answer.json()["detail"]
    return detail


def test_scripts_get_the_answer_of_the_api(alone: Operator, command: Command) -> None:
    """With --json each view is what the control API answers, parseable and whole."""
    state, people, groups, scenarios, deliveries = (
        json.loads(command(f"emulator {name} --json").stdout) for name in ("status", "people", "groups", "scenario", "deliveries")
    )
    one = json.loads(command(f"emulator delivery {deliveries['data'][0]['id']} --json").stdout)
    assert state["endpoint"]["rotating"] is False
    assert len(people["data"]) == people["total"] == 12
    assert {group["name"] for group in groups["data"]} >= {"Engineering", "Sales"}
    assert scenarios["data"] == state["scenarios"]
    assert one["body"]["type"] == one["type"]


@pytest.mark.parametrize("name", sorted(declared()))
def test_help_teaches_by_example(command: Command, name: str) -> None:
    """Every command shows how it is used."""
    done = command(f"emulator {name} --help")
    assert done.code == 0
    assert f"provisioning emulator {name}" in done.stdout[done.stdout.index("Examples:") :]


MISUSED = (
    "map-role Engineering",
    "map-role Engineering admin --none",
    "fault api",
    "fault nowhere hang",
    "--port 8100 people",
    "sync --users 0",
)


@pytest.mark.parametrize("line", MISUSED)
def test_wrong_usage_is_exit_code_2(command: Command, line: str) -> None:
    """Before anybody is asked."""
    assert command(f"emulator {line}").code == 2


def test_driving_is_cheap() -> None:
    """The commands that drive an emulator import neither it nor the SDK, the database or the HTTP edge."""
    heavy = ("alembic", "fastapi", "grpc", "provisioning.emulator", "scalekit", "sqlalchemy", "uvicorn")
    modules = "provisioning.cli.emulator.look, provisioning.cli.emulator.play"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
