"""Processes of `provisioning` that are forked from one that has imported everything, and are then as if executed.

The imports take more than a second, and the tests start hundreds of processes. As a program it listens on the Unix socket that it is
told, until its standard input ends. A connection asks for a process, hands over its standard streams, and hears its id and its end.
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

# What commands import when they run. Not provisioning.cli: that looks at the terminal and the environment while it is imported.
IMPORTED = (
    "alembic.command",
    "alembic.config",
    "psycopg",
    "scalekit",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "typer.main",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.supervisors",
    "provisioning.app",
    "provisioning.emulator.server",
)
NUMBER = struct.Struct("i")


class Forked:
    """A process, with as much of subprocess.Popen as tests need."""

    def __init__(
        self, arguments: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], streams: Sequence[IO[str]], start_new_session: bool
    ) -> None:
        self.returncode: int | None = None
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(_address())
        asked = json.dumps([[str(each) for each in arguments], str(cwd), dict(env), start_new_session]).encode()
        socket.send_fds(self._line, [NUMBER.pack(len(asked))], [stream.fileno() for stream in streams])
        self._line.sendall(asked)
        self.pid = self._hear()

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal, once it has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                self.returncode = self._hear()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("provisioning", timeout or 0) from None
            self._line.close()
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send it, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _hear(self) -> int:
        number: int = NUMBER.unpack(self._line.recv(NUMBER.size))[0]
        return number


@cache
def _address() -> str:
    """Where this process's own server listens; it is started when first asked for, and ends with this process."""
    ending = ExitStack()
    atexit.register(ending.close)
    address = f"{ending.enter_context(tempfile.TemporaryDirectory(prefix='forkserver-'))}/socket"
    server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdin
    assert server.stdout
    ending.callback(server.wait)
    ending.callback(server.stdin.close)
    with server.stdout as ready:
        assert ready.readline() == b"ready\n"
    return address


def main(address: str) -> None:
    """Serve, and return; in each forked process be the program, and do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models
        for name in IMPORTED:
            import_module(name)
    gc.collect()
    gc.freeze()  # a collection would write to all of it, and so copy it
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    os.write(1, b"ready\n")
    while listener.fileno() in select.select([0, listener.fileno()], [], [])[0]:
        line, _ = listener.accept()
        _bury()
        header, streams, _, _ = socket.recv_fds(line, NUMBER.size, 3)
        asked = line.recv(NUMBER.unpack(header)[0], socket.MSG_WAITALL)
        if os.fork() == 0:
            listener.close()
            if (process := os.fork()) == 0:
                line.close()
                _become(streams, *json.loads(asked))
            _watch(process, line, streams)
        _close(streams)
        line.close()
    _bury()


def _become(streams: Sequence[int], arguments: list[str], folder: str, environment: dict[str, str], new_session: bool) -> None:
    if new_session:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    _close(streams)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["provisioning", *arguments]
    from provisioning.cli import main  # noqa: PLC0415  # see IMPORTED

    main()


def _watch(process: int, line: socket.socket, streams: Sequence[int]) -> None:
    _close(streams)  # whoever reads hears their end when the process ends
    line.sendall(NUMBER.pack(process))
    _, status = os.waitpid(process, 0)
    line.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _bury() -> None:
    """The watchers that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _close(streams: Sequence[int]) -> None:
    for stream in streams:
        os.close(stream)


if __name__ == "__main__":
    main(sys.argv[1])
