"""What happened to a user or a group, newest first, in words."""

import json
from collections.abc import Iterator, Mapping, Sequence

import typer
from sqlalchemy.orm import Session

from provisioning.api.changes import Change
from provisioning.api.history import group_history, user_history
from provisioning.bodies import Json
from provisioning.changes import ChangeType
from provisioning.cli import arguments, whom
from provisioning.cli.database import opened
from provisioning.cli.terminal import print_table, short
from provisioning.db.reading.users import User
from provisioning.db.records import REPOSITORIES
from provisioning.db.users import USERS
from provisioning.merge import Kind
from provisioning.settings import load_settings

_WORDS: Mapping[ChangeType, str] = {
    ChangeType.USER_CREATED: "came, {standing}",
    ChangeType.USER_UPDATED: "changed: {values}",
    ChangeType.USER_ACTIVATED: "got access",
    ChangeType.USER_DEACTIVATED: "lost access",
    ChangeType.MEMBERSHIP_ADDED: "entered {group}",
    ChangeType.MEMBERSHIP_REMOVED: "left {group}",
    ChangeType.ROLE_GRANTED: "got the role {role}",
    ChangeType.ROLE_REVOKED: "lost the role {role}",
    ChangeType.GROUP_CREATED: "came",
    ChangeType.GROUP_UPDATED: "changed: {values}",
    ChangeType.GROUP_DELETED: "was deleted",
    ChangeType.DIRECTORY_ENABLED: "was enabled",
    ChangeType.DIRECTORY_DISABLED: "was disabled",
}


def history(organization_id: str, given: str, *, limit: int, as_json: bool) -> None:
    """Print the last `limit` changes of a user or a group, newest first. Raises ConfigurationError, NotFound, Unavailable."""
    arguments.organization_id(organization_id)
    with opened(load_settings()) as database, database.reading() as session:
        found = whom.user_or_group(session, organization_id, given)
        read = user_history if isinstance(found, User) else group_history
        page = read(session, organization_id, found.id, limit=limit)
        names = _names(session, page.data)
    if as_json:
        typer.echo(json.dumps(page.model_dump(mode="json"), indent=2))
        return
    rows = []
    for change in page.data:
        words = _words(change, names)
        if not isinstance(found, User):
            words = f"{names[change.user_id or found.id]} {words}"
        here = change.recorded_at.isoformat().replace("+00:00", "Z")
        rows.append((change.occurred_at, here, words, f"{change.cause.kind} {change.cause.id}"))
    print_table(("happened", "recorded", "what", "by"), rows)
    if page.next_cursor:
        typer.echo("provisioning: there is more; --limit says how much is shown, up to 200.", err=True)


def _words(change: Change, names: Mapping[str, str]) -> str:
    before, after = change.before or {}, change.after or {}
    return _WORDS[change.type].format(
        standing="with access" if after.get("active") else "without access",
        values="; ".join(_values(before, after)),
        group=names.get(change.group_id or ""),
        role=change.role,
    )


def _values(before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[str]:
    """What differs; attributes one by one."""
    for name, is_ in after.items():
        was = before.get(name)
        if name == "attributes" and isinstance(was, dict) and isinstance(is_, dict):
            yield from _values(was, is_)
        else:
            yield f"{name}: {short(was)} → {short(is_)}"


def _names(session: Session, changes: Sequence[Change]) -> dict[str, str]:
    """The users and groups that are spoken of, in words, by id."""
    users = USERS.read(session, {(change.organization_id, change.user_id) for change in changes if change.user_id})
    groups = REPOSITORIES[Kind.GROUP].read(session, {(change.organization_id, change.group_id) for change in changes if change.group_id})
    named = {id_: whom.described(row["name"], row["email"], id_) for (_, id_), row in users.items()}
    return named | {id_: whom.described(row["name"], None, id_) for (_, id_), row in groups.items()}
