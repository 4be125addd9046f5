"""Who is told: hooks are made, given other secrets, tried, and removed by operators."""

import asyncio
import ssl
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_hex

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.db import changes, hooks, lanes
from provisioning.db.hooks import Hook, Secret
from provisioning.db.reading.changes import last_place
from provisioning.db.session import Database
from provisioning.errors import Conflict, NotFound
from provisioning.hooks.message import TEST, body, headers, new_secret
from provisioning.hooks.target import Answer, Network, Target

_log = get_logger(__name__)


def add(
    database: Database,
    url: str,
    *,
    types: Sequence[str],
    organization_id: str | None,
    secret: str | None,
    from_start: bool,
    by: str,
) -> Hook:
    """A new hook: told what comes from now on, or all that is in the log. Without a `secret` it gets one.

    Raises Conflict where the log does not go back to the start; Unavailable.
    """
    now = datetime.now(UTC)
    with database.reading() as session:
        settled = changes.settled(session)
    with database.reading() as session:
        forgotten, latest = changes.forgotten(session), last_place(session, settled).position
    if from_start and forgotten:
        raise Conflict(
            "The change log does not go back to the start: it is younger than the database, or what was in it is not kept any more."
            " Leave out --from-start, and read everybody who is there from GET /v1/organizations/{organization_id}/users."
        )
    first = Secret(secret or new_secret())
    position = forgotten if from_start else max(latest, forgotten)
    hook = Hook(f"hook_{token_hex(8)}", url, organization_id, tuple(sorted(types)), (first,), position, by, now)
    database.write(lambda session: hooks.add(session, hook))
    _log.info("hook_added", hook_id=hook.id, types=list(hook.types), organization_id=organization_id, caller=by)
    return hook


def rotate(database: Database, hook_id: str, *, secret: str | None, keep: timedelta, by: str) -> Secret:
    """A new secret for the hook; those before sign beside it for so long. Raises NotFound, Unavailable."""
    now = datetime.now(UTC)
    new = Secret(secret or new_secret())

    def work(session: Session) -> None:
        hook = _locked(session, hook_id)
        kept = (replace(each, until=min(each.until or now + keep, now + keep)) for each in hook.secrets)
        hooks.set_secrets(session, hook_id, [new, *(each for each in kept if each.until and each.until > now)])

    database.write(work)
    _log.info("hook_secret_rotated", hook_id=hook_id, caller=by)
    return new


def remove(database: Database, hook_id: str, by: str) -> None:
    """Forget the hook and what it has not been told. Raises NotFound, Unavailable."""

    def work(session: Session) -> None:
        _locked(session, hook_id)
        hooks.remove(session, hook_id)

    database.write(work)
    _log.info("hook_removed", hook_id=hook_id, caller=by)


def retry(database: Database, hook_id: str, positions: Collection[int] | None, by: str) -> int:
    """Have told again what was given up, all of it or at these positions, and what followed of the same people; returns how many.

    Raises NotFound, Unavailable.
    """
    now = datetime.now(UTC)
    ended = database.write(lambda session: lanes.retry(session, _locked(session, hook_id), positions, now))
    _log.info("hook_retried", hook_id=hook_id, dead_letters=ended, caller=by)
    return ended


def try_out(hook: Hook, networks: Collection[Network]) -> Answer:
    """What a message of no consequence comes to now."""
    now = datetime.now(UTC)
    moment = now.isoformat().replace("+00:00", "Z")
    text = body(TEST, moment, {"hook_id": hook.id})

    async def send() -> Answer:
        target = Target(hook.url, networks, ssl.create_default_context(), 1)
        try:
            return await target.post(text.encode(), headers(f"test-{token_hex(8)}", text, hook.signs_with(now), now))
        finally:
            await target.close()

    return asyncio.run(send())


def _locked(session: Session, hook_id: str) -> Hook:
    found = hooks.lock(session, [hook_id])
    if hook_id not in found:
        raise NotFound("There is no such hook: `provisioning hooks list` shows them all.")
    return found[hook_id]
