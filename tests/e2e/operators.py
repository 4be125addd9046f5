"""Runs `provisioning` as an operator does: real processes, in a folder and an environment of their own."""

import os
import signal
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

PROGRAM = Path(sysconfig.get_path("scripts"), "provisioning")
PAYLOADS = Path(__file__).parents[1] / "payloads"
SECRET = "whsec_" + "bm90IGEgcmVhbCBzZWNyZXQsIGp1c3QgdGVzdHMh"
KEY = "operator-key-for-tests-0123456789abcdef"
SECONDS = 60
_OURS = ("PROVISIONING_", "SCALEKIT_", "DATABASE_URL", "PORT", "FORWARDED_")


@dataclass
class Running:
    """A started service: where it is, and what it has written to stderr so far."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    def get(self, path: str, key: str = KEY) -> httpx.Response:
        """GET `path` with an API key."""
        return httpx.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS)

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(by)
        return self.process.wait(SECONDS)


@dataclass(frozen=True)
class Operator:
    """Somebody at a shell in `folder`, with `settings` in the environment and no other of ours."""

    folder: Path
    settings: dict[str, str]

    def run(self, *arguments: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `more` is added to the environment."""
        done = subprocess.run([PROGRAM, *arguments], input=stdin, cwd=self.folder, env=self._environment(more), capture_output=True, timeout=SECONDS, check=False)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextmanager
    def started(self, command: str, *arguments: str, **more: str) -> Iterator[Running]:
        """Start `serve` or `dev` on a free port, and yield it once it listens; it is killed at the end if it still runs."""
        port = free_port()
        process = subprocess.Popen(
            [PROGRAM, command, "--port", str(port), *arguments],
            cwd=self.folder,
            env=self._environment(more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running = Running(process, f"http://127.0.0.1:{port}")
        try:
            _await_listening(running)
            yield running
        finally:
            process.kill()
            process.communicate()

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        around = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return {**around, **self.settings, **more}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
