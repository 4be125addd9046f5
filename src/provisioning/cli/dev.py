"""The service on a developer's machine: what it needs is made, what to try is printed. Nothing outside this machine reaches it."""

import os
import secrets
from base64 import b64encode
from pathlib import Path

import typer

from provisioning import logs
from provisioning.cli.migrate import migrated
from provisioning.cli.serve import listening, run
from provisioning.errors import ConfigurationError
from provisioning.settings import Settings, load_settings

ENV_FILE = Path(".env")
SAMPLE = Path("tests/payloads/organization.directory.user_created.okta.json")
SAMPLE_ORGANIZATION = "org_118460706403795901"


def dev(port: int) -> None:
    """Serve on 127.0.0.1 until a signal ends it. Raises ConfigurationError, Unavailable."""
    with listening("127.0.0.1", port) as listener:
        made = _missing(load_settings())
        if made:
            _append(ENV_FILE, made)
        settings = load_settings()
        settings.require_webhook_secrets()
        typer.echo(migrated(settings.database_url.get_secret_value()))
        if made:
            typer.echo(f"Wrote to {ENV_FILE}, for this machine: {' and '.join(line.split('=')[0] for line in made if '=' in line)}.")
        typer.echo(_guide(settings, port))
        logs.configure()
        run(listener, 1)


def _missing(settings: Settings) -> list[str]:
    """Lines of `.env` for the secrets without which there is nothing to try."""
    lines = []
    if not settings.scalekit_webhook_secrets:
        secret = b64encode(secrets.token_bytes(32)).decode()
        lines += ["# Made for this machine, to sign events with `provisioning send`; Scalekit's real signing secret replaces it."]
        lines += [f"SCALEKIT_WEBHOOK_SECRET=whsec_{secret}"]
    if not settings.api_keys:
        lines += ["# Made for this machine: the key named dev may read, make portal links and replay."]
        lines += [f"PROVISIONING_API_KEYS=dev:{secrets.token_urlsafe(32)}"]
    return lines


def _append(file: Path, lines: list[str]) -> None:
    """Add `lines` to the end of `file`, which only its owner may read if it is new. What is there already stays as it is."""
    try:
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+", encoding="utf-8", newline="") as stream:
            text = stream.read()
            stream.write("".join(["" if not text or text.endswith("\n") else "\n", *(f"{line}\n" for line in lines)]))
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write {file}: {error.strerror}. Set SCALEKIT_WEBHOOK_SECRET and PROVISIONING_API_KEYS."
        ) from error


def _guide(settings: Settings, port: int) -> str:
    here = f"http://127.0.0.1:{port}"
    command = "./run" if Path("run").exists() else "provisioning"
    send = f"{'' if port == 8000 else f'PORT={port} '}{command} send {SAMPLE if SAMPLE.exists() else 'EVENT.json'}"
    ours = any(key.name == "dev" for key in settings.api_keys)
    key = f"$(sed -n 's/^PROVISIONING_API_KEYS=dev://p' {ENV_FILE})" if ours else "$API_KEY"
    return f"""
  API docs   {here}/docs
  Health     {here}/health/ready

  To try it, in another terminal: send an event as Scalekit does, and read the person it is about.

    {send}
    curl -H "Authorization: Bearer {key}" {here}/v1/organizations/{SAMPLE_ORGANIZATION}/users

  Ctrl-C ends the service.
"""
