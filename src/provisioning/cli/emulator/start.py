"""The local Scalekit on this machine, until a signal ends it."""

import os
import shlex
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlsplit

import structlog
import typer

from provisioning import logs
from provisioning.emulator.server import Emulator
from provisioning.emulator.switches import Switches
from provisioning.errors import ConfigurationError

SERVICE_KEY = "EMULATOR_SERVICE_KEY"

_log = structlog.get_logger(__name__)


def start(
    folder: Path,
    *,
    port: int,
    api_port: int,
    deliver_to: str,
    anywhere: bool,
    service: str | None,
    embedding_origins: Sequence[str],
    retry_scale: float,
    with_parent: bool,
) -> None:
    """Run the emulator, and leave with 0 when SIGTERM or the parent's end ends it, with 130 for SIGINT. Raises ConfigurationError."""
    endings = _endings(with_parent=with_parent)
    logs.configure()
    emulator = Emulator(
        folder,
        port=port,
        api_port=api_port,
        deliver_to=deliver_to,
        anywhere=anywhere,
        service_url=_origin(service) if service else None,
        service_key=os.environ.get(SERVICE_KEY) or None,
        embedding_origins=embedding_origins,
        switches=Switches(retry_scale=retry_scale),
    )
    with emulator:
        emulator.add_sample()
        typer.echo(_guide(emulator, folder, deliver_to))
        _log.info("listening", url=emulator.portal_origin, api=emulator.url)
        code = endings.get()
    raise typer.Exit(code)


def _endings(*, with_parent: bool) -> SimpleQueue[int]:
    """Where the exit code comes from. A signal handler may put into it at any moment: SimpleQueue is made for that."""
    endings = SimpleQueue[int]()
    # Also where a shell's `&` had the interrupt ignored.
    signal.signal(signal.SIGINT, lambda *_: endings.put(130))
    signal.signal(signal.SIGTERM, lambda *_: endings.put(0))
    if with_parent:
        threading.Thread(target=_outlived, args=(endings,), daemon=True, name="emulator-parent").start()
    return endings


def _outlived(endings: SimpleQueue[int]) -> None:
    """Whoever started this holds the other end of standard input; however they end, the system closes it."""
    try:
        while os.read(0, 1024):
            pass
    except OSError:
        pass
    endings.put(0)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError("--service should look like http://127.0.0.1:8000.")
    return f"{parts.scheme}://{parts.netloc}"


def _guide(emulator: Emulator, folder: Path, deliver_to: str) -> str:
    program = "./run" if Path("run").exists() else "provisioning"
    command = f"{program} emulator{'' if folder == Path('.provisioning/emulator') else f' --folder {shlex.quote(str(folder))}'}"
    return f"""
  Page         {emulator.portal_origin}/#token={emulator.control_token}
  API          {emulator.url}
  Webhooks to  {deliver_to}

  For a service to use it, in another terminal:

    (eval "$({command} env)"; {program} migrate && {program} serve)

  And to play:

    {command} hire Jane Doe
    {command} --help

  Ctrl-C ends it; what it knows stays in {folder}.
"""
