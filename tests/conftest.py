"""What every test shares: fresh databases on both kinds of server, the long tests' switch, and last lines that say what really ran."""

import fcntl
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Protocol

import hypothesis
import pytest

import postgres
from databases import Databases, PostgresDatabases, SqliteDatabases
from provisioning.db.session import Database

pytest_plugins = ["local_scalekit", "browser", "clocks", "command_line", "reconciling"]

BOTH = ("sqlite", "postgresql")

ending_key = pytest.StashKey[ExitStack]()
server_key = pytest.StashKey[postgres.Server]()

# A run for a change repeats its examples, so that it fails for what the change did; with --proofs Hypothesis goes on looking.
hypothesis.settings.register_profile("change", max_examples=20, deadline=None, print_blob=True, derandomize=True, database=None)
hypothesis.settings.register_profile("proofs", deadline=None, print_blob=True, max_examples=1000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--proofs", action="store_true", help="also run the tests marked `proof`; Hypothesis tries more and other examples")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proof: takes long; runs only with --proofs")
    config.addinivalue_line("markers", "alone: measures; no other test runs meanwhile")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's `&`; what the tests start would ignore it as well
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.load_profile("proofs" if config.getoption("proofs") else "change")
    config.stash[ending_key] = ExitStack()
    if (told := getattr(config, "workerinput", None)) is None:
        config.pluginmanager.register(LastLines(config))
    else:
        config.stash[server_key] = postgres.Server(**told["postgres"])


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[ending_key].close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long = [] if config.getoption("proofs") else [item for item in items if item.get_closest_marker("proof")]
    if long:
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)  # they wait until the others are over


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What measures waits until no other worker has a test left, nor another that measures."""
    with open(__file__) as turn:
        fcntl.flock(turn, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


class Worker(Protocol):
    """What is used of an xdist worker as its controller sees it; xdist has no types."""

    config: pytest.Config
    workerinput: dict[str, object]


def pytest_configure_node(node: Worker) -> None:
    """Under xdist, start the server before the first worker and tell each of them where it is."""
    try:
        node.workerinput["postgres"] = asdict(server_of(node.config))
    except postgres.NoPostgres as failure:
        pytest.exit(str(failure), returncode=pytest.ExitCode.TESTS_FAILED)


def pytest_xdist_auto_num_workers() -> int:
    """Six for two processors: many tests wait for processes, browsers and clocks."""
    return 3 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def server_of(config: pytest.Config) -> postgres.Server:
    """Return the session's one PostgreSQL, started when first asked for. Raises NoPostgres."""
    if server_key not in config.stash:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends the tests ends their server
        config.stash[server_key] = config.stash[ending_key].enter_context(postgres.running())
    return config.stash[server_key]


class LastLines:
    """What came of each proof, and how many tests ran on each database or wanted a browser in vain: said below everything else."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._tests: Counter[str] = Counter()
        self._without_browser: Counter[str] = Counter()
        self._proofs: list[tuple[str, str, str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._tests.update(str(value) for name, value in report.user_properties if name == "database")
        figures = [str(value) for name, value in report.user_properties if name == "proof" and report.when == "call"]
        if "proof" in report.keywords and (figures or report.failed):
            name = report.location[2].removeprefix("test_").replace("_", " ")
            self._proofs.append((name, report.outcome, f"{report.duration:.0f} s", "; ".join(figures)))
        if report.when == "setup":
            found = (value for name, value in report.user_properties if name == "no browser")
            self._without_browser.update(f"{report.outcome}, because {why}" for why in found)

    def pytest_unconfigure(self) -> None:
        names = {"sqlite": f"SQLite {sqlite3.sqlite_version}"}
        if server := self._config.stash.get(server_key, None):
            names["postgresql"] = server.description
        parts = [f"{self._tests[kind]} on {name}" for kind, name in names.items() if self._tests[kind]]
        said = f"Tests by database: {', '.join(parts) or 'none used one'}."
        for outcome, tests in self._without_browser.items():
            said += f" Browser tests: {tests} {outcome}."
        widths = [max(map(len, column)) for column in zip(*self._proofs, strict=True)]
        table = ["  ".join(map(str.ljust, proof, widths)).rstrip() for proof in sorted(self._proofs)]
        for line in [*table, said]:
            self._config.get_terminal_writer().line(line)


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have figures said in the table at the end: what a proof took on, and what it measured."""
    return lambda figures: request.node.user_properties.append(("proof", figures))


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    return SqliteDatabases(tmp_path_factory.mktemp("databases"))


@pytest.fixture(scope="session")
def postgresql_databases(pytestconfig: pytest.Config) -> Iterator[Databases]:
    with PostgresDatabases(server_of(pytestconfig).url) as databases:
        yield databases


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh, migrated database; the test runs once on each kind."""
    yield from _fresh(request, request.param, migrated=True)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database, open."""
    with closing(Database(database_url)) as opened:
        yield opened


@pytest.fixture(params=BOTH)
def empty_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh database without a table; the test runs once on each kind."""
    yield from _fresh(request, request.param, migrated=False)


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh, migrated PostgreSQL database, for laws that are PostgreSQL's alone."""
    yield from _fresh(request, "postgresql", migrated=True)


def _fresh(request: pytest.FixtureRequest, kind: str, *, migrated: bool) -> Iterator[str]:
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    request.node.user_properties.append(("database", kind))
    with databases.fresh(migrated=migrated) as url:
        yield url
