"""What `check` says of hooks: whether everything could be told, what was given up, and whether anybody tells it."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy.orm import Session

from provisioning.api.words import host, span, subjects
from provisioning.cli import local
from provisioning.cli.check.finding import Finding, note, ok, warn
from provisioning.db.reading.hooks import Standing, standings


def of_hooks(session: Session, now: datetime) -> Iterator[Finding]:
    """A line for each that fails, if only just now, or has dead letters; where nobody does the telling, one for all."""
    found = standings(session, now)
    troubled = [*_of_telling(found, now), *(finding for each in found for finding in _of_one(each, now))]
    yield from troubled or [_of_all(found)]


def _of_all(found: list[Standing]) -> Finding:
    if not found:
        return ok("hooks", "none: no application is told of changes")
    waiting = sum(each.waiting for each in found)
    return ok("hooks", f"{len(found)}, told of everything" if not waiting else f"{len(found)}, yet to be told of {subjects(waiting)}")


def _of_telling(found: list[Standing], now: datetime) -> Iterator[Finding]:
    if untold := [each.untold_since for each in found if each.untold_since]:
        words = f"there is something to tell, and nobody has tried for {span(now - min(untold))}"
        yield warn("hooks", f"{words}: does serve run, or {local.program()} worker?")


def _of_one(each: Standing, now: datetime) -> Iterator[Finding]:
    hook, program = each.hook, local.program()
    name = f"{hook.id} ({host(hook.url)})"
    if hook.failing_since and each.fails(now):
        words = f"{name} has been failing for {span(now - hook.failing_since)}: {hook.error}"
        untold = f", and has yet to be told of {subjects(each.waiting)}" if each.waiting else ""
        yield warn("hooks", f"{words}{untold}. It is tried again; to try it now: {program} hooks test {hook.id}")
    elif hook.failing_since:
        yield note("hooks", f"{name} fails just now: {hook.error}. It is tried again")
    elif each.refused_since and each.refuses(now):
        words = (
            f"{name} has not taken what concerns {subjects(each.refused)} for {span(now - each.refused_since)}, though it takes the rest"
        )
        yield warn("hooks", f"{words}: message_not_told in the log says which and why")
    if each.dead_letters:
        words = f"{each.dead_letters} {'message' if each.dead_letters == 1 else 'messages'} to {name} given up after a day"
        yield warn("hooks", f"{words}: {program} hooks dead-letters {hook.id}, then {program} hooks retry {hook.id} --all")
