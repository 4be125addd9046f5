"""Runs `provisioning` as an operator does: real processes, in a folder and an environment of their own.

They are forked, where that is known to work, which saves them their imports; what is about a program's start has it executed.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import httpx

from forkserver import Forked

PROGRAM = Path(sysconfig.get_path("scripts"), "provisioning")
PAYLOADS = Path(__file__).parent / "payloads"
SECRET = "whsec_bm90IGEgcmVhbCBzZWNyZXQsIGp1c3QgdGVzdHMh"
KEY = "operator-key-for-tests-0123456789abcdef"
SECONDS = 60
SETTINGS = {"SCALEKIT_WEBHOOK_SECRET": SECRET, "PROVISIONING_API_KEYS": f"tests:{KEY}"}
# For requests without TLS: to load the authorities that httpx trusts takes 30 ms, each time somebody looks whether it is so far.
NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
OURS = ("PROVISIONING_", "SCALEKIT_", "EMULATOR_", "DATABASE_URL", "PORT", "FORWARDED_")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def rows(self) -> list[list[str]]:
        """What a table says below its header."""
        return [line.split("\t") for line in self.stdout.splitlines()[1:]]


Command = Callable[..., Done]
Process = subprocess.Popen[bytes] | Forked

T = TypeVar("T")


@dataclass
class Running:
    """A started service: where it is, and what it has said so far."""

    process: Process
    url: str
    says: IO[str]
    stderr: list[str] = field(default_factory=list)
    listens: threading.Event = field(default_factory=threading.Event)

    def get(self, path: str, key: str = KEY) -> httpx.Response:
        """GET `path` with an API key."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=SECONDS, trust_env=False, verify=NOBODY)

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(by)
        return self.process.wait(SECONDS)

    def read(self) -> None:
        """Keep what the service says, until it ends."""
        for line in self.says:
            self.stderr.append(line)
            if '"listening"' in line:
                self.listens.set()
        self.listens.set()


@dataclass(frozen=True)
class Operator:
    """Somebody at a shell in `folder`, with `settings` in the environment and none of ours beside them; `executes`: never forks."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    executes: bool = False

    def run(self, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `more` is added to the environment."""
        with ExitStack() as stack:
            given, stdout, stderr = streams = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3)]
            given.write(stdin)
            given.seek(0)
            process = self.start(arguments, streams, **more)
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
                code = process.wait()
            for stream in streams:
                stream.seek(0)
            return subprocess.CompletedProcess(arguments, code, stdout.read(), stderr.read())

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell with `provisioning` on the path, as if pasted into a terminal."""
        environment = self.environment({"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"})
        return subprocess.run(
            ["sh", "-c", line], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    @contextmanager
    def started(self, command: str, *arguments: str, port: int | None = None, **more: str) -> Iterator[Running]:
        """Start what listens, on a free port unless told, and yield it when it does; what runs at the end is killed, workers and all."""
        port = port or free_port()
        reading, writing = os.pipe()
        with open(reading, encoding="utf-8") as says:
            with (
                open(os.devnull) as nothing,
                (self.folder / f"{command}.stdout").open("w") as stdout,
                open(writing, "w", encoding="utf-8") as stderr,
            ):
                process = self.start([command, "--port", str(port), *arguments], [nothing, stdout, stderr], **more)
            running = Running(process, f"http://127.0.0.1:{port}", says)
            reader = threading.Thread(target=running.read)
            reader.start()
            try:
                assert running.listens.wait(SECONDS), running.stderr
                assert process.poll() is None, running.stderr
                yield running
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                reader.join()

    def start(self, arguments: Sequence[str | Path], streams: Sequence[IO[str]], **more: str) -> Process:
        """Start a command with these standard streams, in a session of its own."""
        environment = self.environment(more)
        if self.executes or sys.platform != "linux":
            stdin, stdout, stderr = streams
            return subprocess.Popen(
                [PROGRAM, *arguments], cwd=self.folder, env=environment, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
            )
        return Forked(arguments, cwd=self.folder, env=environment, streams=streams, start_new_session=True)

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """Return what a command sees: the variables around, less ours, with the settings and `more`."""
        around = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return {**around, **self.settings, **(more or {})}


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def until(claim: Callable[[], T | None]) -> T:
    """What `claim` returns, once that is something."""
    limit = time.monotonic() + SECONDS
    while not (found := claim()):
        assert time.monotonic() < limit
        time.sleep(0.05)
    return found
