"""`dev`, which ./run starts: a service with a local Scalekit beside it and a company in both, from nothing; and all of it ends together."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

import provisioning
from operators import KEY, PAYLOADS, SECONDS, SECRET, Operator, Running, free_port, until

ROOT = Path(__file__).parents[2]
SAMPLE_PEOPLE = 12
REAL = {
    "SCALEKIT_ENVIRONMENT_URL": "https://acme.scalekit.invalid",
    "SCALEKIT_CLIENT_ID": "skc_12345678901234567",
    "SCALEKIT_CLIENT_SECRET": "not-really-a-secret-but-long-enough",
}


def key(folder: Path) -> str:
    """The API key that `dev` made."""
    return (folder / ".provisioning/api-key").read_text().strip()


def everybody(running: Running, api_key: str) -> list[dict[str, Any]]:
    """The active users of every organization, as the service answers."""
    organizations = running.get("/v1/organizations", api_key).json()["data"]
    pages = [running.get(f"/v1/organizations/{each['id']}/users?active=true&limit=200", api_key).json() for each in organizations]
    return [user for page in pages for user in page["data"]]


def synced(running: Running, api_key: str) -> list[dict[str, Any]] | None:
    """The sample company, once all of it has arrived, roles included."""
    users = everybody(running, api_key)
    return users if len(users) == SAMPLE_PEOPLE and any("admin" in user["roles"] for user in users) else None


def listens(url: str) -> bool:
    """Whether anybody does."""
    parts = urlsplit(url)
    with socket.socket() as plain:
        return plain.connect_ex((parts.hostname, parts.port)) == 0


def links(folder: Path) -> dict[str, str]:
    """The links that `dev` printed, by name."""
    return dict(re.findall(r"^  (\w[\w ]*?) +(http\S+)$", (folder / "dev.stdout").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path]]:
    """One that was started in an empty folder, synced."""
    folder = tmp_path_factory.mktemp("dev")
    with Operator(folder).started("dev") as running:
        until(lambda: synced(running, key(folder)))
        yield running, folder


def test_an_empty_folder_becomes_a_company_in_both_and_a_signal_ends_it(tmp_path: Path) -> None:
    """Made once, readable by its owner alone, and there again after a restart. The commands it prints work as printed."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/payloads").symlink_to(PAYLOADS)
    operator, folder = Operator(tmp_path), tmp_path / ".provisioning"
    with operator.started("dev") as running:
        before = until(lambda: synced(running, key(tmp_path)))
        hire, sample, curl = [line for line in (tmp_path / "dev.stdout").read_text().splitlines() if line.startswith("    ")]
        assert "jane.doe" in operator.shell(hire).stdout
        sent = operator.shell(sample)
        assert "processed" in sent.stdout, sent.stderr
        # What the shell makes of the line; not every machine has curl.
        _, authorization, url = operator.shell(curl.replace("curl", "printf '%s\\n'", 1)).stdout.splitlines()
        answer = httpx.get(url, headers={"Authorization": authorization.removeprefix("Authorization: ")}, trust_env=False)
        assert "jane.doe@example.com" in answer.text
        company = links(tmp_path)["Company"]
        assert listens(company)
        assert running.end() == 0
    assert not listens(company)
    assert not (folder / "emulator/control.json").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*") if file.is_file()} == {0o600}
    assert key(tmp_path) not in (tmp_path / "dev.stdout").read_text() + "".join(running.stderr)
    assert not (tmp_path / ".env").exists()

    with operator.started("dev") as running:
        after = everybody(running, key(tmp_path))
        assert len(after) == SAMPLE_PEOPLE + 2
        assert {user["id"] for user in before} < {user["id"] for user in after}
        assert links(tmp_path)["Company"].partition("#")[2] == company.partition("#")[2]

    # Its process group was killed just now; the emulator, which is in another, has to notice.
    until(lambda: not listens(company))
    with operator.started("dev", "--fresh") as running:
        fresh = until(lambda: synced(running, key(tmp_path)))
    assert {user["id"] for user in before}.isdisjoint(user["id"] for user in fresh)
    assert links(tmp_path)["Company"].partition("#")[2] != company.partition("#")[2]


def test_an_interrupt_ends_both(tmp_path: Path) -> None:
    """Ctrl-C, as a terminal sends it, and once more from somebody impatient. Other files in the folder stay, whatever is forgotten."""
    (tmp_path / ".local/share").mkdir(parents=True)
    (tmp_path / ".local/share/precious").touch()
    with Operator(tmp_path).started("dev", "--fresh") as running:
        company = links(tmp_path)["Company"]
        until(lambda: any("startup complete" in line for line in running.stderr))
        running.process.send_signal(signal.SIGINT)
        until(lambda: any("Finished server process" in line for line in running.stderr))
        assert running.end(signal.SIGINT) == 130
    assert not listens(company)
    assert (tmp_path / ".local/share/precious").exists()


@pytest.mark.proof
def test_what_is_configured_is_kept(tmp_path: Path) -> None:
    """A secret and keys of one's own hold, the emulator's beside them; .env stays as it is."""
    mine = f"PROVISIONING_API_KEYS=mine:{KEY}\nSCALEKIT_WEBHOOK_SECRET={SECRET}"
    (tmp_path / ".env").write_text(mine)
    with Operator(tmp_path).started("dev") as running:
        until(lambda: synced(running, KEY))
        sample = str(PAYLOADS / "organization.directory.user_created.okta.json")
        sent = Operator(tmp_path).run("--local", "send", "--url", f"{running.url}/webhooks/scalekit", sample)
        assert sent.returncode == 0, sent.stderr
        # The emulator asks with a key of its own what the service says.
        compared = Operator(tmp_path).run("emulator", "compare")
        assert compared.returncode == 0, compared.stdout
    assert (tmp_path / ".env").read_text() == mine
    assert not {"SCALEKIT_WEBHOOK_SECRET", "PROVISIONING_API_KEYS"} & {
        line.split("=")[0] for line in (tmp_path / ".provisioning/env").read_text().splitlines()
    }


def test_with_credentials_of_a_real_scalekit_there_is_no_local_one(tmp_path: Path) -> None:
    """Nor anything of an earlier one in the commands: its database neither."""
    operator = Operator(tmp_path, REAL)
    with operator.started("dev") as running:
        assert running.get("/health/ready").status_code == 200
        assert links(tmp_path).keys() == {"Start", "API docs", "Health"}
        page = httpx.get(running.url, trust_env=False).text
    assert 'data-emulator=""' in page
    assert not (tmp_path / ".provisioning/emulator").exists()
    assert (tmp_path / "provisioning.db").exists()


def test_the_other_commands_find_what_dev_made(running: tuple[Running, Path]) -> None:
    """With --local, as ./run calls them: database, secret and the emulator's API; what is set since then comes first."""
    _, folder = running
    checked = Operator(folder).run("--local", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "signed in at https://localhost" in checked.stdout
    assert len(Operator(folder).run("--local", "deliveries", "list").stdout.splitlines()) > SAMPLE_PEOPLE
    elsewhere = Operator(folder, {"DATABASE_URL": f"sqlite:///{folder}/other.db"})
    assert "other.db" in elsewhere.run("--local", "migrate").stdout + str(list(folder.glob("*.db")))
    with_real = Operator(folder, REAL).run("--local", "check")
    assert with_real.returncode == 1
    assert "localhost" not in with_real.stdout
    without = Operator(folder).run("check")
    assert without.returncode == 1


@pytest.mark.proof
def test_a_second_one_in_the_same_folder_is_refused_in_words(running: tuple[Running, Path]) -> None:
    """And the first goes on."""
    first, folder = running
    for arguments in ([], ["--fresh"]):
        done = Operator(folder).run("dev", "--port", str(free_port()), *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert ".provisioning/emulator" in done.stderr
    assert synced(first, key(folder))


def test_the_start_page_leads_everywhere(running: tuple[Running, Path], page: Page) -> None:
    """The token that drives the emulator goes from the printed link into those of the page, and out of the address bar."""
    _, folder = running
    printed = links(folder)
    page.goto(printed["Start"])
    expect(page.get_by_text("The service is ready.")).to_be_visible()
    assert "token" not in page.url
    assert not page.get_by_text("answers only who knows its token").is_visible()
    for name in ("API docs", "Operations", "Health"):
        answer = page.request.get(page.get_by_role("link", name=name).evaluate("link => link.href"))
        assert answer.ok
    expect(page.get_by_text("A local Scalekit runs beside it")).to_be_visible()
    page.get_by_role("link", name="The company").click()
    expect(page.get_by_text("ada.lovelace@acme.example")).to_be_visible()
    assert page.url.startswith(printed["Company"].split("#")[0])
    assert "token" not in page.url


@pytest.mark.proof
def test_an_emulator_that_has_ended_is_said_to(tmp_path: Path, page: Page) -> None:
    """The start page asks, again and again."""
    with Operator(tmp_path).started("dev") as running:
        page.goto(running.url)
        expect(page.get_by_text("A local Scalekit runs beside it")).to_be_visible()
        [child] = [int(file.parent.name) for file in Path("/proc").glob("[0-9]*/stat") if parent(file) == running.process.pid]
        os.kill(child, signal.SIGKILL)
        expect(page.get_by_text("The local Scalekit has ended")).to_be_visible(timeout=SECONDS * 1000)


def parent(stat_file: Path) -> int | None:
    """The parent of a process, by its /proc/…/stat."""
    try:
        return int(stat_file.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_without_the_token_the_start_page_says_where_it_is(running: tuple[Running, Path], page: Page) -> None:
    """Whoever opens it otherwise is not left with a page that does nothing."""
    page.goto(running[0].url)
    expect(page.get_by_text("answers only who knows its token")).to_be_visible()
    page.set_viewport_size({"width": 380, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_serve_has_no_start_page(tmp_path: Path) -> None:
    """Nor anything of the emulator."""
    with Operator(tmp_path, {"SCALEKIT_WEBHOOK_SECRET": SECRET}).started("serve") as running:
        for path in ("/", "/start/start.js", "/control/state", "/portal-demo"):
            assert httpx.get(f"{running.url}{path}", trust_env=False).status_code == 404
    assert not (tmp_path / ".provisioning").exists()


def test_the_service_loads_nothing_of_the_emulator() -> None:
    """Neither the application nor the command."""
    code = "import sys; import provisioning.app, provisioning.cli.serve; provisioning.app.create_app(); print(*sys.modules, sep='\\n')"
    environment = {**os.environ, "SCALEKIT_WEBHOOK_SECRET": SECRET}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert "provisioning.app" in loaded
    assert [
        name for name in loaded if name.startswith(("provisioning.emulator", "provisioning.cli.emulator.start", "scalekit", "grpc"))
    ] == []


def test_the_service_starts_without_the_emulator_being_there(tmp_path: Path) -> None:
    """As an image may be built."""
    package = Path(provisioning.__path__[0])
    copytree(package, tmp_path / "provisioning", ignore=ignore_patterns("__pycache__"))
    copytree(ROOT / "migrations", tmp_path / "provisioning/migrations")
    for file in sorted((tmp_path / "provisioning/emulator").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (tmp_path / "provisioning/emulator").rmdir()
    port = free_port()
    environment = {**Operator(tmp_path).environment(), "PYTHONPATH": str(tmp_path), "SCALEKIT_WEBHOOK_SECRET": SECRET}
    command = [sys.executable, "-m", "provisioning.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: process.poll() is not None or listens(f"http://127.0.0.1:{port}"))
            assert httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=SECONDS, trust_env=False).status_code == 200
        finally:
            process.terminate()
        assert process.wait(SECONDS) == 0
