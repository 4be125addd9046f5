"""The README says what the code does: every list and table in it is held to the code that it speaks of."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from alembic.script import ScriptDirectory
from prometheus_client.parser import text_string_to_metric_families

from provisioning import cli
from provisioning.app import create_app
from provisioning.db import migrations
from provisioning.db.reading.access import Reason
from provisioning.db.reading.figures import Figures
from provisioning.dispatcher import HANDLERS
from provisioning.emulator.faults import KNOWN
from provisioning.emulator.scenarios import SCENARIOS
from provisioning.errors import RefusalReason
from provisioning.hooks.target import SECONDS
from provisioning.inbox import Outcome
from provisioning.metrics import Metrics
from provisioning.scalekit.client import RESULTS
from provisioning.settings import VARIABLES, Settings
from readme import README, ROOT, lines, rows, section

SOURCES = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py") if "settings" not in file.parts)


def test_the_events_to_select_are_those_that_are_handled() -> None:
    """The list to copy into Scalekit's dashboard, and the table of what each event does."""
    listed = re.search(r"```text\n(\s*organization\..*?)```", section("Connect Scalekit"), re.DOTALL)
    assert listed
    assert listed[1].split() == list(HANDLERS)
    assert [row[0] for row in rows(section("Events"))] == list(HANDLERS)


def test_every_outcome_is_explained() -> None:
    """With the status that it is answered with: only `failed` is sent again."""
    outcomes = rows(section("Events").split("outcome**", 1)[1])
    assert {row[0]: row[1] for row in outcomes} == {outcome: "500" if outcome is Outcome.FAILED else "201" for outcome in Outcome}


def test_every_reason_is_explained() -> None:
    """Why somebody is let in or not; of a user it is never its directory alone."""
    reasons = rows(section("Who has access, and why"))
    assert [row[0] for row in reasons] == list(Reason)
    assert [row[0] for row in reasons if not row[1]] == [Reason.DIRECTORY_DISABLED]


def test_the_settings_are_those_that_there_are() -> None:
    """Each variable once, with its default; and code uses it."""
    table = {row[0]: row[1] for row in rows(section("Settings"))}
    used = {name for name, variable in VARIABLES.items() if re.search(rf"\.{variable.attribute}\b", SOURCES)}
    assert set(table) == used == VARIABLES.keys()
    unset = {"PROVISIONING_ALLOWED_HOSTS": "any"}
    assert table == {name: VARIABLES[name].default or unset.get(name, "none") for name in table}


def test_every_secret_can_be_rotated() -> None:
    """The table says how, of each setting that is a secret."""
    listed = {row[0] for row in rows(section("Rotating secrets"))}
    assert listed & VARIABLES.keys() == {name for name, variable in VARIABLES.items() if variable.secret}


def test_what_each_migration_costs_is_said() -> None:
    """Of each that came after the first tables, in their order."""
    scripts = ScriptDirectory.from_config(migrations.config("sqlite://")).walk_revisions()
    later = [script.revision for script in scripts if script.down_revision]
    assert [row[0] for row in rows(section("Upgrading"))] == [re.sub(r"^[0-9_]*", "", revision) for revision in reversed(later)]


def test_the_endpoints_are_those_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of the OpenAPI description, and the page that shows it."""
    monkeypatch.chdir(tmp_path)  # away from a developer's own .env
    settings = Settings(scalekit_webhook_secrets="whsec_bm90IGEgcmVhbCBzZWNyZXQsIGp1c3QgdGVzdHMh")  # type: ignore[arg-type]
    described = {f"{method.upper()} {path}" for path, methods in create_app(settings).openapi()["paths"].items() for method in methods}
    listed = [endpoint for row in rows(section("HTTP endpoints")) for endpoint in row[0].split(", ")]
    assert sorted(listed) == sorted({*described, "GET /docs"})


def metrics() -> dict[str, tuple[str, ...]]:
    """Return the names that /metrics tells of, with their labels."""
    counted = Metrics(["type"], ["outcome"], ["reason"])
    counted.called("call", "ok", 1)
    found = {}
    for family in text_string_to_metric_families(counted.text().decode()):
        name = f"{family.name}{'_total' if family.type == 'counter' else ''}"
        found[name] = tuple(label for label in family.samples[0].labels if label != "le")
    return {**found, "provisioning_database_up": (), **{f"provisioning_{each.name}": () for each in fields(Figures)}}


def test_the_metrics_are_those_that_there_are() -> None:
    """Each with its labels, and each word that a label can be."""
    table = section("Metrics")
    assert {row[0]: row[1] for row in rows(table)} == {name: ", ".join(labels) for name, labels in metrics().items()}
    words = {row[0]: set(re.findall(r"`(\w+)`", line)) for row, line in zip(rows(table), lines(table), strict=True)}
    assert words["provisioning_refusals_total"] >= {*get_args(RefusalReason)}
    assert words["provisioning_hook_messages_total"] >= {"told", "failed", "given_up"}
    assert words["provisioning_scalekit_call_duration_seconds"] >= {"ok", *RESULTS.values()}


def test_the_alerts_are_those_that_there_are() -> None:
    """Each with what to do, which is where its runbook leads."""
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    assert [row[0] for row in rows(section("Alerts"))] == re.findall(r"alert: (\w+)", rules)
    assert re.findall(r"runbook: (.*)", rules) == ["README.md#alerts"] * len(rows(section("Alerts")))


def test_the_dashboard_and_the_alerts_show_what_there_is() -> None:
    """Every metric they name exists; on the dashboard is each, and no organization."""
    dashboard, rules = ((ROOT / "deploy" / file).read_text() for file in ("grafana/provisioning.json", "prometheus/alerts.yml"))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"provisioning_\w+", dashboard)}
    assert shown == metrics().keys()
    assert {*re.findall(r"provisioning_\w+", rules)} <= metrics().keys()
    assert "organization_id" not in dashboard + rules
    panels = json.loads(dashboard)["panels"]
    assert all(panel["targets"] and panel["title"] and panel["description"] for panel in panels if panel["type"] != "row")


def test_the_errors_of_hooks_are_those_that_there_are() -> None:
    """Each that the runbook says what to do about, but for the target's own status, is one that a message comes to."""
    words = (ROOT / "src/provisioning/hooks/target.py").read_text(encoding="utf-8").replace("{SECONDS:.0f}", f"{SECONDS:.0f}")
    told = re.findall(r"^   \| (`.*?) \|", section("Runbooks"), re.MULTILINE)
    named = [each.strip("… ") for row in told for each in re.findall(r"`(.*?)`", row)]
    assert "cannot be reached" in named
    assert [each for each in named if each not in words and not each.startswith("HTTP")] == []


def commands(group: Any = None, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the commands that the program has, each by its words."""
    group = group or typer.main.get_command(cli.app)
    found: dict[str, Any] = {" ".join(path): group} if group.invoke_without_command else {}
    for name, command in group.commands.items():
        found |= commands(command, (*path, name)) if hasattr(command, "commands") else {" ".join((*path, name)): command}
    return found


def test_the_commands_are_those_that_there_are() -> None:
    """The table has a row for each; those of the emulator are in one of their own."""
    listed = [re.split(r" \[| [A-Z]", row[0])[0] for row in rows(section("Commands"))]
    listed += [f"provisioning emulator {name}" for row in rows(section("A local Scalekit")) for name in row[0].split(", ")]
    assert sorted(listed) == sorted(f"provisioning {name}" for name in commands())


def test_the_scenarios_are_those_that_there_are() -> None:
    """The table names each."""
    [row] = [row[1] for row in rows(section("A local Scalekit")) if "scenario" in row[0]]
    assert row.split("stories: ")[1].split(", ") == list(SCENARIOS)


def test_the_faults_are_those_that_there_are() -> None:
    """The emulator's second table has a row for each door, with every fault that is known there."""
    doors = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", section("A local Scalekit"), re.MULTILINE)
    assert {door: re.findall(r"`(\w+)`", faults) for door, faults in doors} == {door: list(faults) for door, faults in KNOWN.items()}


def shown() -> list[str]:
    """Return every command line of the README: those in its blocks of shell, and those in its text."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    in_blocks = re.findall(r"^(?:provisioning|\./run)\b[^#\n]*", blocks, re.MULTILINE)
    return sorted(
        {line.strip() for line in [*in_blocks, *re.findall(r"`((?:provisioning|\./run|deliveries)(?: [^`]+)?)`", README)]}
        - {"deliveries", "provisioning", "provisioning …"}
    )


@pytest.mark.parametrize("line", shown())
def test_every_command_shown_exists(line: str) -> None:
    """Its words are a command, and its options are that command's."""
    words = re.sub(r"[\[\]]", " ", line.removeprefix("provisioning ").removeprefix("./run")).split()
    name = max((name for name in commands() if words[: len(name.split())] == name.split()), key=len, default=None)
    if name is None:
        assert line.startswith("./run")
        assert not words or f"./run {words[0]}" in (ROOT / "run").read_text(encoding="utf-8")
        return
    options = {option for parameter in commands()[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= options


def test_every_link_within_leads_somewhere() -> None:
    """An anchor is a heading's words, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", README)) <= anchors
