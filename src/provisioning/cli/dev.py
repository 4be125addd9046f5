"""The service on a developer's machine, with a local Scalekit where no real one is configured. Nothing outside this machine reaches it."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import typer
from pydantic import SecretStr, TypeAdapter

from provisioning import logs
from provisioning.api import portal_demo, start
from provisioning.app import create_app
from provisioning.cli import local
from provisioning.cli.migrate import migrated
from provisioning.cli.serve import counting_together, listening, run
from provisioning.errors import ConfigurationError
from provisioning.settings import Settings, load_settings
from provisioning.settings.values import ApiKeys

SAMPLE = Path("tests/payloads/organization.directory.user_created.okta.json")
SAMPLE_ORGANIZATION = "org_118460706403795901"
LOG = local.FOLDER / "emulator.log"
VISITORS_AUDIENCE = "portal-demo"  # whom the emulator's visitor tokens are for
EMULATOR_ENDS_WITHIN = 15.0  # seconds
EMULATOR_WITHIN = 60.0  # seconds: its imports take two, on a machine that does nothing else


@dataclass(frozen=True)
class Emulator:
    """One that runs: its pages' `url`, the `token` that drives it, the `environment` of a service that uses it, whether it `runs`,
    and how to `end` it."""

    url: str
    token: str
    environment: dict[str, str]
    runs: Callable[[], bool]
    end: Callable[[], None]


def dev(port: int, *, fresh: bool) -> None:
    """Serve on 127.0.0.1 until a signal ends it. Raises ConfigurationError, Unavailable."""
    with listening("127.0.0.1", port) as listener, counting_together(workers=1):
        if fresh:
            local.clear()
        if local.has_scalekit(load_settings()):
            _serve(listener, None)
        else:
            with _emulator(port) as emulator:
                _serve(listener, emulator)


def _serve(listener: socket.socket, emulator: Emulator | None) -> None:
    local.use(local.unset(load_settings(), _environment(emulator)))
    settings = load_settings()
    port = listener.getsockname()[1]
    typer.echo(migrated(settings.database_url.get_secret_value()))
    typer.echo(_guide(port, emulator))
    logs.configure()
    settings = _with_emulator(settings, emulator) if emulator else settings
    app, pages = create_app(settings), emulator.url if emulator else None
    start.install(app, pages, emulator.runs if emulator else lambda: False)
    portal_demo.install(app, settings, pages)
    run(listener, 1, app, at_end=emulator.end if emulator else lambda: None)


def _environment(emulator: Emulator | None) -> dict[str, str]:
    """What is needed to try everything, where nobody says otherwise."""
    key = {"PROVISIONING_API_KEYS": f"dev:{local.api_key()}"}
    if emulator is None:
        return {**key, "SCALEKIT_WEBHOOK_SECRET": local.webhook_secret()}
    database = {"DATABASE_URL": f"sqlite:///{local.FOLDER.resolve() / 'provisioning.db'}"}
    issuer = emulator.environment["SCALEKIT_ENVIRONMENT_URL"]
    visitors = {"PROVISIONING_JWT_ISSUER": issuer, "PROVISIONING_JWT_AUDIENCE": VISITORS_AUDIENCE}
    return {**emulator.environment, **key, **database, **visitors}


def _with_emulator(settings: Settings, emulator: Emulator) -> Settings:
    """Beside whatever secrets and keys there are, those of the emulator: it signs with its own, and asks what the service says."""
    key = TypeAdapter(ApiKeys).validate_python(emulator.environment["PROVISIONING_API_KEYS"])
    secrets = map(SecretStr, emulator.environment["SCALEKIT_WEBHOOK_SECRET"].split())
    both = dict.fromkeys((*settings.scalekit_webhook_secrets, *secrets))
    return settings.model_copy(update={"scalekit_webhook_secrets": tuple(both), "api_keys": (*settings.api_keys, *key)})


@contextmanager
def _emulator(port: int) -> Iterator[Emulator]:
    """A process of its own, which ends when this one does, however it does: it hears the end of its standard input."""
    service = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "provisioning.cli", "emulator", "--folder", str(local.EMULATOR), "--with-parent"]
    command += ["--port", str(_free(port + 100)), "--api-port", str(_free(port + 143)), "--deliver-to", f"{service}/webhooks/scalekit"]
    command += ["--embed", service, "--embed", f"http://localhost:{port}"]
    with local.opened(LOG) as log:
        # In a session of its own, so that a terminal's Ctrl-C ends the service first.
        process = subprocess.Popen(  # noqa: S603  # our own program
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )

    def end() -> None:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(EMULATOR_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    try:
        yield _announced(process, end)
    finally:
        end()


def _announced(process: subprocess.Popen[bytes], end: Callable[[], None]) -> Emulator:
    """Where it is, once it runs. Raises ConfigurationError, with what it said last, when it does not come to that."""
    announcement = local.EMULATOR / "control.json"
    for _ in range(int(EMULATOR_WITHIN / 0.05)):
        with suppress(FileNotFoundError, ValueError, KeyError):  # of an earlier one, perhaps torn
            facts = json.loads(announcement.read_text(encoding="utf-8"))
            if facts["pid"] == process.pid:  # and not of another, in whose folder this one has no place
                return Emulator(facts["url"], facts["token"], facts["environment"], lambda: process.poll() is None, end)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    said = LOG.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise ConfigurationError(f"The local Scalekit did not start. {said[-1] if said else 'It said nothing.'}")


def _free(port: int) -> int:
    """`port`, or 0, for any, when it is taken."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError):
        return 0
    return port


def _guide(port: int, emulator: Emulator | None) -> str:
    here = f"http://127.0.0.1:{port}"
    command = "./run" if Path("run").exists() else "provisioning --local"
    send = f"{'' if port == 8000 else f'PORT={port} '}{command} send {SAMPLE if SAMPLE.exists() else 'EVENT.json'}"
    token = f"/#token={emulator.token}" if emulator else ""
    company = f"  Company    {emulator.url}{token}\n" if emulator else ""
    fresh = "./run --fresh" if command == "./run" else "provisioning dev --fresh"
    hire = f"    {command} emulator hire Jane Doe\n" if emulator else ""
    return f"""
  Start      {here}{token}
{company}  Operations {here}/admin  (the key is in {local.FOLDER}/api-key)
  API docs   {here}/docs
  Health     {here}/health/ready

  To try it, in another terminal: send an event as Scalekit does, and read the person it is about.

{hire}    {send}
    curl -H "Authorization: Bearer $(cat {local.FOLDER}/api-key)" {here}/v1/organizations/{SAMPLE_ORGANIZATION}/users

  Ctrl-C ends all of it. What it knows stays in {local.FOLDER}; {fresh} starts over.
"""
