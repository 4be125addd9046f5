"""Whether the service could do its work, and whether it does: a line for each part, fine or with what to do. It only reads."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime

import typer

from provisioning.cli.check.database import DATABASE_HINT, of_database, of_sqlite
from provisioning.cli.check.deliveries import of_deliveries
from provisioning.cli.check.finding import Finding, State, note, ok, warn, wrong
from provisioning.cli.check.hooks import of_hooks
from provisioning.cli.check.runs import of_runs
from provisioning.cli.check.scalekit import of_scalekit
from provisioning.cli.production import demo_secrets
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError, Unavailable
from provisioning.settings import Settings, load_settings

_COLORS = {State.OK: typer.colors.GREEN, State.NOTE: typer.colors.CYAN, State.WARN: typer.colors.YELLOW, State.WRONG: typer.colors.RED}


def check(*, as_json: bool = False) -> None:
    """Print the findings. Leaves with 1 if something is wrong."""
    failed = False
    found: list[Finding] = []
    for each in _findings():
        failed = failed or each.state is State.WRONG
        if as_json:
            found.append(each)
        else:
            typer.echo(f"{typer.style(f'{each.state:<5}', fg=_COLORS[each.state])}  {each.subject:<13}  {each.words}")
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(each) for each in found]}, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)


def _findings() -> Iterator[Finding]:
    try:
        settings = load_settings()
        settings.require_webhook_secrets()
    except ConfigurationError as error:
        for line in str(error).splitlines():
            yield wrong("configuration", line)
        return
    yield from _of_configuration(settings)
    yield from _of_database(settings)
    yield from of_scalekit(settings)


def _of_configuration(settings: Settings) -> Iterator[Finding]:
    if settings.api_keys:
        names = ", ".join(key.name for key in settings.api_keys)
        yield ok("configuration", f"{len(settings.scalekit_webhook_secrets)} webhook secret(s), API keys of {names}")
    else:
        words = "No PROVISIONING_API_KEYS: webhooks are received, but nobody may read the result over HTTP."
        yield note("configuration", words)
    for words in demo_secrets(settings):
        yield warn("configuration", f"{words}; it is for this machine alone.")


def _of_database(settings: Settings) -> Iterator[Finding]:
    url = settings.database_url.get_secret_value()
    now = datetime.now(UTC)
    for each in of_sqlite(url):
        yield each
        if each.state is State.WRONG:
            return
    try:
        with closing(Database(url, writers=1, readers=1)) as database, database.reading() as session:
            found = [*of_database(session)]
            if not any(each.state is State.WRONG for each in found):  # without its tables there is nothing to ask
                found += [*of_deliveries(session, now), *of_runs(session, now, settings.reconcile_interval), *of_hooks(session, now)]
        yield from found
    except Unavailable as error:
        yield wrong("database", f"{error}{DATABASE_HINT if str(error) == str(Unavailable()) else ''}")
