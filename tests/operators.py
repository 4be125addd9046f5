"""Runs `provisioning` as an operator does: real processes, in a folder and an environment of their own."""

import os
import signal
import socket
import ssl
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

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


T = TypeVar("T")


@dataclass
class Running:
    """A started service: where it is, and what it has said so far."""

    process: subprocess.Popen[str]
    url: str
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
        assert self.process.stderr
        for line in self.process.stderr:
            self.stderr.append(line)
            if '"listening"' in line:
                self.listens.set()
        self.listens.set()


@dataclass(frozen=True)
class Operator:
    """Somebody at a shell in `folder`, with `settings` in the environment and none of ours beside them."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `more` is added to the environment."""
        environment = self.environment(more)
        return subprocess.run(
            [PROGRAM, *arguments],
            input=stdin,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

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
        with (self.folder / f"{command}.stdout").open("w") as stdout:
            process = subprocess.Popen(
                [PROGRAM, command, "--port", str(port), *arguments],
                cwd=self.folder,
                env=self.environment(more),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        running = Running(process, f"http://127.0.0.1:{port}")
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
            process.stderr.close() if process.stderr else None

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
