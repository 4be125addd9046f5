"""What the container image relies on, held without Docker."""

import json
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from operators import SECRET, Operator, free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def _health_check(port: int) -> int:
    """Run the image's health check against `port`; return its exit code."""
    [command] = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    _, *arguments = json.loads(command)
    return subprocess.run([sys.executable, *arguments], env={"PORT": str(port)}, stderr=subprocess.DEVNULL, check=False).returncode


def test_the_health_check_tells_a_live_service_from_none(tmp_path: Path) -> None:
    """Docker restarts by it. A list of allowed hosts, on which it is not, does not mislead it."""
    operator = Operator(tmp_path, {"SCALEKIT_WEBHOOK_SECRET": SECRET, "PROVISIONING_ALLOWED_HOSTS": "provisioning.example.com"})
    with operator.started("serve") as running:
        assert _health_check(int(running.url.rpartition(":")[2])) == 0
    assert _health_check(free_port()) != 0


def test_what_is_pulled_is_pinned() -> None:
    """By digest, so that the same sources make the same image until somebody renews it; both stages are of the same one."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    pulled = re.findall(r"^ +image: (\S+:\S+)$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert [each for each in (*bases, *pulled) if not re.fullmatch(r"[a-z]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}", each)] == []
    assert len(pulled) == 1


def test_the_image_holds_no_tool_of_the_developers() -> None:
    """It takes what pyproject.toml asks for without extras, and nothing that the lock did not check."""
    [install] = re.findall(r"pip install.*|pip --python.* install .*", DOCKERFILE)
    assert install.endswith("--no-index --find-links wheels .")


def test_what_the_image_copies_is_there_and_let_in() -> None:
    """.dockerignore keeps everything out but what it names, .env above all."""
    sources = re.findall(r"^COPY ((?!--from)[^\n]+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {name for line in sources for name in line.split()}
    let_in = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == let_in
    assert {name for name in copied if not (ROOT / name).exists()} == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of what a wheel of this folder holds."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    return set(ZipFile(file).namelist())


@pytest.mark.parametrize(("source", "target"), [("src/provisioning", "provisioning"), ("migrations", "provisioning/migrations")])
def test_the_wheel_holds_the_code_its_files_and_the_migrations(wheel: set[str], source: str, target: str) -> None:
    """An installed service has no checkout beside it to fall back on."""
    relative = [path.relative_to(ROOT / source) for path in (ROOT / source).rglob("*") if path.is_file()]
    files = [path for path in relative if not any(part.startswith((".", "__pycache__")) for part in path.parts)]
    assert files
    assert {f"{target}/{path.as_posix()}" for path in files} - wheel == set()
