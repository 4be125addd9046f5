"""The figures of a service of several processes, one of which is killed."""

import os
import signal
from pathlib import Path

import httpx

from databases import Databases
from factories import event
from operators import NOBODY, SECRET, SETTINGS, Operator, Running, until
from service import signed

DELIVERIES = 24


def figures(running: Running, name: str) -> float:
    """The sum of a metric's series, whichever process answers."""
    lines = running.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def workers(folder: Path) -> set[int]:
    """The processes whose counts are here."""
    return {int(file.stem.rsplit("_", 1)[1]) for file in folder.glob("gauge_livesum_*.db")}


def test_all_processes_are_one_service_and_what_a_killed_one_counted_stays(tmp_path: Path, sqlite_databases: Databases) -> None:
    """Every scrape says the same, whichever process takes it; the killed one's gauge is gone, and counts of an earlier start never were."""
    folder = tmp_path / "counts"
    folder.mkdir()
    (folder / "counter_1.db").write_bytes(b"of an earlier start")
    with (
        sqlite_databases.fresh(migrated=True) as url,
        Operator(tmp_path, {**SETTINGS, "DATABASE_URL": url, "PROMETHEUS_MULTIPROC_DIR": str(folder)}).started(
            "serve", "--workers", "2"
        ) as running,
    ):
        until(lambda: len(workers(folder)) == 2)
        for number in range(DELIVERIES):
            body = event("user_created", f"du_{number}")
            headers = signed(body, f"msg_{number}", secret=SECRET)
            answer = httpx.post(
                f"{running.url}/webhooks/scalekit", content=body, headers=headers, timeout=60, trust_env=False, verify=NOBODY
            )
            assert answer.status_code == 201
        for _ in range(6):
            assert figures(running, "provisioning_deliveries_total") == DELIVERIES
            assert figures(running, "provisioning_lag_seconds_count") == DELIVERIES
        before = workers(folder)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        until(lambda: figures(running, "provisioning_waiting_deliveries") == 0 and len(workers(folder) - before) == 1)
        until(lambda: running.get("/metrics") and killed not in workers(folder))
        assert figures(running, "provisioning_deliveries_total") == DELIVERIES
        assert running.end() == 0
