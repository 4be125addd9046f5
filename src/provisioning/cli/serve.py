"""Starting the service: what can be refused is refused before a worker starts, and SIGTERM ends it cleanly with exit code 0."""

import errno
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import structlog
from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from provisioning import logs, traces
from provisioning.cli.connections import MOST, Connection, allow_many
from provisioning.cli.database import warn_unless_migrated
from provisioning.cli.production import refuse_demo
from provisioning.errors import ConfigurationError
from provisioning.settings import load_settings

GRACE_SECONDS = 8  # `docker stop` and most supervisors kill after 10
COUNTS = "PROMETHEUS_MULTIPROC_DIR"  # metrics.py, which must not be imported before this is set
_COUNT = re.compile(r"(counter|histogram|gauge_[a-z]+)_[0-9]+\.db")

_log = structlog.get_logger(__name__)


def serve(host: str, port: int, workers: int) -> None:
    """Serve until a signal ends it. Raises ConfigurationError, also when the address cannot be had."""
    settings = load_settings()
    settings.require_webhook_secrets()
    refuse_demo(settings, host)
    traces.wanted()  # a worker that cannot have what it wants would be started again for ever
    logs.configure()
    with listening(host, port) as listener, counting_together(workers):
        warn_unless_migrated(settings)  # /health/ready keeps saying it
        run(listener, workers)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens on the address; connections wait in its queue until the service accepts them. Raises ConfigurationError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=MOST)  # as far as the system lets it (net.core.somaxconn)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Port {port} is taken by another program: end that one, or choose another port with --port."
            ) from error
        raise ConfigurationError(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Choose others with --host and --port."
        ) from error
    with listener:
        yield listener


@contextmanager
def counting_together(workers: int) -> Iterator[None]:
    """A folder for what several processes count: the one of PROMETHEUS_MULTIPROC_DIR, emptied of earlier counts, or a private one.

    Raises ConfigurationError when it cannot be used.
    """
    given = os.environ.pop(COUNTS, None)
    if not given and workers == 1:
        yield
        return
    try:
        folder = _emptied(Path(given)) if given else TemporaryDirectory(prefix="provisioning-counts-")
    except OSError as error:
        wrong = (
            f"{COUNTS} names no folder that can be used"
            if given
            else "There is no usable temporary directory for what several workers count"
        )
        good = "a folder of its own that this user may write to" if given else "TMPDIR=… with a folder that this user may write to"
        raise ConfigurationError(f"{wrong}: {error.strerror}. A good one: {good}.") from error
    with folder as os.environ[COUNTS]:
        yield


def _emptied(folder: Path) -> nullcontext[str]:
    """The folder, made if need be, without what an earlier start counted. Only that, by its name: SQLite's own files end in `.db`, too."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if _COUNT.fullmatch(file.name):
            file.unlink()
    with TemporaryFile(dir=folder):
        return nullcontext(str(folder))


def run(listener: socket.socket, workers: int, app: Callable[..., Any] | None = None, *, at_end: Callable[[], None] = lambda: None) -> None:
    """Serve on `listener` until a signal ends it: in this process, or with more than one worker, and without an `app`, in as many others.

    `at_end` is called when one process has served, before it leaves.
    """
    allow_many()
    config = Config(
        app or "provisioning.app:create_app",
        factory=app is None,
        workers=workers,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # its lines carry query strings, and those carry e-mails
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=20,  # a worker imports for seconds on a busy machine before it can answer
    )
    # Before anybody hears that it listens: whoever ends it at once is heard, also where a shell's `&` had it ignore the interrupt.
    if workers == 1:
        signal.signal(signal.SIGINT, partial(_leave, at_end))
        signal.signal(signal.SIGTERM, partial(_leave, at_end))
    host, port, *_ = listener.getsockname()
    _log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", workers=workers)
    if workers > 1:
        supervisor = Multiprocess(config, [listener])
        supervisor.run()
        raise SystemExit(any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes))
    try:
        Server(config).run([listener])
    except SystemExit as leaving:
        raise SystemExit(bool(leaving.code)) from leaving


def _leave(at_end: Callable[[], None], number: int, _: object) -> None:
    """End at once: nothing is under way before uvicorn takes the signals over, nor when it raises them again after it has shut down.

    Not by an exception: raised while a destructor runs, it is passed over, and the service would go on.
    """
    for again in (signal.SIGINT, signal.SIGTERM):  # whoever is impatient does not interrupt the end
        signal.signal(again, signal.SIG_IGN)
    at_end()
    os._exit(130 if number == signal.SIGINT else 0)
