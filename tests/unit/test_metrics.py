"""What is counted when, and what several processes have of each other's counts."""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from provisioning.cli.serve import COUNTS, counting_together
from provisioning.errors import ConfigurationError
from provisioning.metrics import FOLDER, Metrics, gauge


@dataclass(frozen=True)
class Receipt:
    type: str | None = "known"
    outcome: str = "processed"
    occurred_at: int | None = 0


def series(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(text.decode())
    return {
        (each.name, tuple(value for _, value in sorted(each.labels.items()))): each.value for family in families for each in family.samples
    }


def test_only_what_was_told_has_a_delay() -> None:
    """A message that failed or was given up is counted as that; a clock that was set back makes no delay below nothing."""
    metrics = Metrics([], [], [])
    for result, age in (("failed", 9.0), ("given_up", 0.0), ("told", 2.5), ("told", -1.0)):
        metrics.messaged(result, age)
    found = series(metrics.text())
    counted = {labels[0]: value for (name, labels), value in found.items() if name == "provisioning_hook_messages_total"}
    assert counted == {"told": 2, "failed": 1, "given_up": 1}
    assert [found[f"provisioning_hook_delay_seconds_{each}", ()] for each in ("count", "sum")] == [2, 2.5]


def test_a_type_that_is_not_known_makes_no_series_of_its_own() -> None:
    """Nor does one that is missing: whoever sends made-up types makes no label of them."""
    metrics = Metrics(["known"], ["processed"], ["missing"])
    before = series(metrics.text()).keys()
    metrics.received([Receipt(), Receipt(type="canary"), Receipt(type=None)])
    found = series(metrics.text())
    assert found.keys() == before
    deliveries = {labels: value for (name, labels), value in found.items() if name == "provisioning_deliveries_total"}
    assert deliveries == {("processed", "known"): 1, ("processed", "other"): 2}


def test_what_is_tried_again_adds_its_lag_alone() -> None:
    """It came long ago, and was counted then; what still fails adds nothing."""
    metrics = Metrics(["known"], ["processed", "failed"], [])
    metrics.retried([Receipt(occurred_at=1), Receipt(outcome="failed", occurred_at=1), Receipt(occurred_at=None)])
    found = series(metrics.text())
    assert found["provisioning_lag_seconds_count", ()] == 1
    assert found["provisioning_deliveries_total", ("processed", "known")] == found["provisioning_batch_deliveries_count", ()] == 0


def test_everything_expected_is_there_from_the_start_at_0() -> None:
    """So that the first of a kind is a rise, which a rate shows."""
    found = series(Metrics(["known"], ["processed"], ["missing"]).text())
    assert found["provisioning_refusals_total", ("missing",)] == 0
    assert found["provisioning_deliveries_total", ("processed", "known")] == 0


def test_a_clock_behind_the_senders_makes_no_negative_lag() -> None:
    """The sum of a histogram must not fall."""
    metrics = Metrics([], ["processed"], [])
    metrics.received([Receipt(occurred_at=2**62)])
    assert series(metrics.text())["provisioning_lag_seconds_sum", ()] == 0


COUNTING = """
import sys
from provisioning.metrics import Metrics, gauge
metrics = Metrics(["known"], ["processed"], ["missing"])
for word in sys.argv[1:]:
    metrics.refused(word) if word == "missing" else metrics.waiting(int(word))
sys.stdout.buffer.write(metrics.text([gauge("given", "", 7)]))
"""


def test_processes_add_up_and_the_dead_wait_for_nothing(tmp_path: Path) -> None:
    """What a process counted stays when it ends, and what it had waiting goes with it."""

    def counted(*words: str) -> dict[tuple[str, tuple[str, ...]], float]:
        command = [sys.executable, "-c", COUNTING, *words]
        return series(subprocess.run(command, env={**os.environ, FOLDER: str(tmp_path)}, stdout=subprocess.PIPE, check=True).stdout)

    counted("missing", "missing", "5")
    found = counted("missing", "3")
    assert found["provisioning_refusals_total", ("missing",)] == 3
    assert found["provisioning_waiting_deliveries", ()] == 3
    assert found["provisioning_given", ()] == 7
    assert len([*tmp_path.glob("gauge_livesum_*.db")]) == 1


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    """Prometheus' library by itself would count into files of the folder it happens to be in."""
    command = [sys.executable, "-c", COUNTING, "missing"]
    counted = subprocess.run(command, cwd=tmp_path, env={**os.environ, FOLDER: ""}, stdout=subprocess.PIPE, check=True).stdout
    assert series(counted)["provisioning_refusals_total", ("missing",)] == 1
    assert [*tmp_path.iterdir()] == []


def test_the_given_folder_is_emptied_of_counts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the folder of SQLite's file as well."""
    counts, others = ["counter_12.db", "histogram_3.db", "gauge_livesum_4.db"], ["provisioning.db", "provisioning.db-wal", "counter.db"]
    folder = tmp_path / "made" / "for this"
    monkeypatch.setenv(COUNTS, str(folder))
    with counting_together(1):
        for name in (*counts, *others):
            (folder / name).touch()
    with counting_together(2):
        assert {file.name for file in folder.iterdir()} == {*others}
        assert os.environ[COUNTS] == str(folder)


def test_several_processes_get_a_private_folder_and_one_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset; the folder goes when the service ends."""
    assert COUNTS == FOLDER
    monkeypatch.setenv(COUNTS, "")
    with counting_together(1):
        assert COUNTS not in os.environ
    with counting_together(2):
        folder = Path(os.environ[COUNTS])
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


@pytest.mark.parametrize("wrong", ["a file", "a file/below"])
def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """With a line that says which variable, and why."""
    (tmp_path / "a file").touch()
    monkeypatch.setenv(COUNTS, str(tmp_path / wrong))
    with pytest.raises(ConfigurationError, match=rf"^{COUNTS} .*: (File exists|Not a directory)\."), counting_together(2):
        pass


def test_without_a_temporary_directory_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has set the variable that the folder would otherwise come from."""
    monkeypatch.delenv(COUNTS, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with (
        pytest.raises(ConfigurationError, match=r"no usable temporary directory .*: No such file .* TMPDIR") as wrong,
        counting_together(2),
    ):
        pass
    assert COUNTS not in str(wrong.value)


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    """A counter ends in _total, a histogram names its unit or what it counts, and everything begins with the service's name."""
    metrics = Metrics([], [], [])
    names = re.findall(rb"^# TYPE (\S+) (\S+)$", metrics.text([gauge("given", "", 1)]), re.MULTILINE)
    assert names
    for name, kind in names:
        assert name.startswith(b"provisioning_")
        assert name.endswith(b"_total") == (kind == b"counter")
        assert kind != b"histogram" or name.endswith((b"_seconds", b"_deliveries"))
