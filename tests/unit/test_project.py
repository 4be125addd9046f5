"""The files around the code say what the code does, and name what it needs."""

import ast
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from provisioning.settings import VARIABLES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
RUNTIME = [Requirement(line) for line in (*PROJECT["project"]["dependencies"], *EXTRAS["telemetry"])]
TOOLS = [Requirement(line) for line in (*EXTRAS["dev"], *PROJECT["build-system"]["requires"]) if line != "provisioning[telemetry]"]
NEEDS = [*RUNTIME, *TOOLS]
LOCKED = re.compile(r"([a-z0-9][a-z0-9.-]*)==(\S+)(?: ; [^\\\n]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+")
PARTS_OF = {
    "fastapi": {"starlette", "anyio"},
    "scalekit-sdk-python": {"grpcio", "protobuf"},
    "pydantic": {"pydantic-core"},
    "jinja2": {"markupsafe"},
}


def _locked() -> dict[str, set[str]]:
    """The versions that the lock names: more than one for a package that not every Python gets alike."""
    versions: dict[str, set[str]] = {}
    for name, version in LOCKED.findall((ROOT / "requirements.lock").read_text()):
        versions.setdefault(name, set()).add(version)
    return versions


def test_the_lock_holds_what_the_project_asks_for() -> None:
    """Each direct dependency is pinned, to a version that pyproject.toml allows; so are the tools and what builds the package."""
    locked = _locked()
    wrong = [str(need) for need in NEEDS if not any(map(need.specifier.contains, locked.get(canonicalize_name(need.name), ())))]
    assert wrong == []


def test_the_lock_holds_pinned_and_hashed_packages_alone() -> None:
    """Not where the machine that made it found them: whoever installs uses an index of their own."""
    rest = LOCKED.sub("", (ROOT / "requirements.lock").read_text())
    assert [line for line in rest.splitlines() if not line.lstrip().startswith("#")] == []


def test_what_the_code_imports_is_asked_for() -> None:
    """A package that merely comes with another one may leave with it."""
    files = (ROOT / "src").rglob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    imported = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"provisioning"}
    asked_for: set[str] = {canonicalize_name(need.name) for need in RUNTIME}
    asked_for |= {part for name in asked_for for part in PARTS_OF.get(name, ())}
    providers = packages_distributions()
    assert {name for name in imported if asked_for.isdisjoint(map(canonicalize_name, providers[name]))} == set()


def test_the_example_settings_are_all_there_with_their_defaults() -> None:
    """A line of .env.example that is switched on as it stands changes nothing. One whose default depends on others is empty there."""
    ours, compose = (ROOT / ".env.example").read_text().split("# --- Only for docker compose ---")
    shown = re.findall(r"^#([A-Z_]+)=(.*)$", ours, re.MULTILINE)
    defaults = {name: variable.default for name, variable in VARIABLES.items()}
    assert len(shown) == len(dict(shown))
    assert dict(shown) == {name: "" if " " in default else default for name, default in defaults.items()}
    used = re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text())
    assert set(re.findall(r"^#([A-Z_]+)=", compose, re.MULTILINE)) == set(used) - VARIABLES.keys()


def test_a_container_that_cannot_be_written_to_has_a_temporary_directory() -> None:
    """Several processes of one service count together there."""
    common = (ROOT / "docker-compose.yml").read_text().split("\nservices:\n")[0]
    assert ("read_only: true" in common) == ("tmpfs: [/tmp]" in common)


def test_the_example_settings_are_all_off() -> None:
    """Copied to .env as it is, .env.example sets nothing, so no placeholder is ever taken for a secret."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


@pytest.mark.parametrize("name", ["run", ".ci/run"])
def test_the_commands_can_be_run(name: str) -> None:
    """A commit that loses the run bit would break every fresh clone."""
    assert os.access(ROOT / name, os.X_OK)
