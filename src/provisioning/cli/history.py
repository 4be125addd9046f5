"""What happened to a user or a group, newest first, in words."""

import json

import typer

from provisioning.api import words
from provisioning.api.history import group_history, user_history
from provisioning.cli import arguments, whom
from provisioning.cli.database import opened
from provisioning.cli.terminal import print_table
from provisioning.db.reading.users import User
from provisioning.settings import load_settings


def history(organization_id: str, given: str, *, limit: int, as_json: bool) -> None:
    """Print the last `limit` changes of a user or a group, newest first. Raises ConfigurationError, NotFound, Unavailable."""
    settings = load_settings()
    organization_id = arguments.organization_id(organization_id, settings)
    with opened(settings) as database, database.reading() as session:
        found = whom.user_or_group(session, organization_id, given)
        read = user_history if isinstance(found, User) else group_history
        page = read(session, organization_id, found.id, limit=limit)
        names = words.names_in(session, page.data)
    if as_json:
        typer.echo(json.dumps(page.model_dump(mode="json"), indent=2))
        return
    rows = []
    for change in page.data:
        what = words.change(change, names)
        if not isinstance(found, User):
            what = f"{names[change.user_id or found.id]} {what}"
        here = change.recorded_at.isoformat().replace("+00:00", "Z")
        rows.append((change.occurred_at, here, what, f"{change.cause.kind} {change.cause.id}"))
    print_table(("happened", "recorded", "what", "by"), rows)
    if page.next_cursor:
        typer.echo("provisioning: there is more; --limit says how much is shown, up to 200.", err=True)
