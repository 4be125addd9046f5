"""What a reconcile costs beside listing the directory, which it cannot do without; and whether its memory grows with the directory.

    python benchmarks/reconcile.py [--people 20000] [--rounds 3] [--calls-per-second 20] [--database-url postgresql://…] [--memory]

Each round lists a directory of the local Scalekit, reconciles it into an empty organization (what the first import does), and reconciles
it again, when nothing has changed: two ratios, of medians. Calls are limited as they are by default; 1000 is as good as no limit.
With --memory, instead: the peak memory of the process that imports 2,000 and of the one that imports 50,000 people, as a ratio.

The local Scalekit and each measurement are processes of their own. The database is emptied: give one that holds nothing else (without, a
SQLite file is made).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

IMPORT_RATIO, NOTHING_NEW_RATIO, MEMORY_RATIO = 1.3, 1.1, 1.2
SMALL, LARGE = 2_000, 50_000
GROUPS = 20
NOWHERE = "http://127.0.0.1:1/"


def main() -> None:
    """Measure and print; leaves with 1 if a ratio is above what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database-url")
    parser.add_argument("--calls-per-second", type=float, default=20)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--emulate", metavar="FOLDER", help=argparse.SUPPRESS)  # what the other processes run
    parser.add_argument("--do", choices=["list", "reconcile", "empty"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.emulate:
        _emulate(Path(options.emulate), options.people)
    elif options.do:
        print(json.dumps(_measured(options.do)))
    elif options.memory:
        _compare_memory(options.database_url)
    else:
        _compare_times(options.people, options.rounds, options.calls_per_second, options.database_url)


def _compare_times(people: int, rounds: int, calls_per_second: float, database_url: str | None) -> None:
    times: dict[str, list[float]] = {"list": [], "import": [], "nothing new": []}
    with _scalekit(people) as environment, _database(database_url, environment):
        environment["PROVISIONING_SCALEKIT_CALLS_PER_SECOND"] = str(calls_per_second)
        for _ in range(rounds):
            _run("empty", environment)
            times["list"].append(_run("list", environment)["seconds"])
            times["import"].append(_run("reconcile", environment)["seconds"])
            times["nothing new"].append(_run("reconcile", environment)["seconds"])
    for name, each in times.items():
        print(f"{name:>12}: median {median(each):6.2f} s of {', '.join(f'{one:.2f}' for one in each)}")
    ratios = {name: median(times[name]) / median(times["list"]) for name in ("import", "nothing new")}
    wanted = {"import": IMPORT_RATIO, "nothing new": NOTHING_NEW_RATIO}
    for name, ratio in ratios.items():
        print(f"{name:>12}: {ratio:.2f} times the listing (at most {wanted[name]} is asked for)")
    raise SystemExit(any(ratio > wanted[name] for name, ratio in ratios.items()))


def _compare_memory(database_url: str | None) -> None:
    peaks = []
    for people in (SMALL, LARGE):
        with _scalekit(people) as environment, _database(database_url, environment):
            _run("empty", environment)
            peaks.append(_run("reconcile", environment)["peak"])
        print(f"{people:>6} people: {peaks[-1] / 1024:.0f} MiB at most")
    ratio = peaks[1] / peaks[0]
    print(f"ratio: {ratio:.2f} (at most {MEMORY_RATIO} is asked for)")
    raise SystemExit(ratio > MEMORY_RATIO)


@contextmanager
def _scalekit(people: int) -> Iterator[dict[str, str]]:
    """The environment of a process that reconciles a directory of so many people."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--emulate", folder, "--people", str(people)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            yield {**os.environ, **json.loads(process.stdout.readline()), "PROVISIONING_SCALEKIT_CALLS_PER_SECOND": "1000"}
            process.communicate("")  # the end of its input ends it


@contextmanager
def _database(url: str | None, environment: dict[str, str]) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        environment["DATABASE_URL"] = url or f"sqlite:///{folder}/benchmark.db"
        subprocess.run([sys.executable, "-m", "provisioning.cli", "migrate"], env=environment, check=True, capture_output=True)
        yield


def _run(what: str, environment: dict[str, str]) -> dict[str, float]:
    answer = subprocess.run([sys.executable, __file__, "--do", what], env=environment, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(answer.stdout)
    return measured


def _emulate(folder: Path, people: int) -> None:
    """Fill a directory silently, print how it is reached, and serve it until the standard input ends."""
    warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
    from provisioning.emulator.people import Newcomer  # noqa: PLC0415  # here and below: not for the other processes
    from provisioning.emulator.records import Provider  # noqa: PLC0415
    from provisioning.emulator.server import Emulator  # noqa: PLC0415
    from provisioning.emulator.switches import Switches  # noqa: PLC0415

    with Emulator(folder, deliver_to=NOWHERE, switches=Switches(paused=True)) as emulator:
        organization = emulator.structure.add_organization("Benchmark")
        directory = emulator.structure.add_directory(organization.id, Provider.OKTA)
        with emulator.company.silent():
            groups = [emulator.structure.add_group(f"Group {number}", directory.id) for number in range(GROUPS)]
            emulator.structure.map_role(groups[0].id, "admin")
            users = emulator.people.enrol((Newcomer("Nova", str(n), f"nova{n}@acme.example") for n in range(people)), directory.id)
            pairs = [(user.id, [groups[n % GROUPS].id, groups[(n + 1) % GROUPS].id]) for n, user in enumerate(users)]
            emulator.people.settle(pairs)
        given = {**emulator.environment(), "BENCHMARK_ORGANIZATION": organization.id, "BENCHMARK_DIRECTORY": directory.id}
        print(json.dumps(given), flush=True)
        sys.stdin.read()


def _measured(what: str) -> dict[str, float]:
    """The seconds that this takes, without the start of the process, and the process's peak memory in KiB."""
    warnings.simplefilter("ignore", DeprecationWarning)
    from sqlalchemy import delete  # noqa: PLC0415  # here and below: not for the local Scalekit

    from provisioning import logs  # noqa: PLC0415
    from provisioning.db import runs  # noqa: PLC0415
    from provisioning.db.models import metadata  # noqa: PLC0415
    from provisioning.db.session import Database  # noqa: PLC0415
    from provisioning.reconcile import Reconciler  # noqa: PLC0415
    from provisioning.scalekit.client import ScalekitClient  # noqa: PLC0415
    from provisioning.scalekit.directories import DirectoryReader  # noqa: PLC0415
    from provisioning.settings import load_settings  # noqa: PLC0415

    logs.configure()
    settings = load_settings()
    organization_id, directory_id = os.environ["BENCHMARK_ORGANIZATION"], os.environ["BENCHMARK_DIRECTORY"]
    with closing(ScalekitClient(settings)) as scalekit, closing(Database(settings.database_url.get_secret_value())) as database:
        reader = DirectoryReader(scalekit, organization_id, time.sleep)
        reader.directories()  # signed in
        began = time.perf_counter()
        if what == "empty":
            with database.engine.begin() as connection:
                for table in reversed(metadata.sorted_tables):
                    connection.execute(delete(table))
        elif what == "list":
            listed = sum(map(len, reader.groups(directory_id))) + sum(map(len, reader.users(directory_id)))
            assert listed > GROUPS
        else:
            reconciler = Reconciler(database, scalekit, settings)
            run, _ = reconciler.request(organization_id, dry_run=False, requested_by="benchmark")
            work = reconciler.claim([run.id])
            assert work
            work()
            with database.reading() as session:
                assert runs.by_id(session, run.id, run.requested_at).state is runs.State.DONE
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


if __name__ == "__main__":
    main()
