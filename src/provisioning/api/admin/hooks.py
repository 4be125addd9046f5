"""Whom the application wants told: how each hook stands, and what was given up, to be told again. Making one is for the command line."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from provisioning.api.admin.asked import Asked
from provisioning.api.admin.pages import ROOT, at, page, see
from provisioning.api.admin.route import FormDep, OperatorDep, OperatorPage
from provisioning.api.changes import change_id, place_of
from provisioning.api.dependencies import ServicesDep
from provisioning.db.lanes import dead_letters
from provisioning.db.reading.changes import Place
from provisioning.db.reading.hooks import standings
from provisioning.hooks import subscriptions

SHOWN = 20  # dead letters of a hook

router = APIRouter(prefix=f"{ROOT}/hooks", route_class=OperatorPage)


@router.get("")
def list_hooks(request: Request, parts: ServicesDep, asked: Annotated[Asked, Query()]) -> Response:
    """The oldest first, each with the first of its dead letters."""
    with parts.database.reading() as session:
        hooks = standings(session, datetime.now(UTC))
        letters = {
            each.hook.id: [(letter, change_id(Place(letter.position, letter.mark))) for letter in found]
            for each in hooks
            if each.dead_letters and (found := dead_letters(session, each.hook.id, limit=SHOWN))
        }
    return page(request, "hooks.html", hooks=hooks, letters=letters)


@router.post("/retry")
def retry(parts: ServicesDep, form: FormDep, operator: OperatorDep) -> Response:
    """Have a hook told again what was given up: this change, or without one all of it."""
    hook_id, change = form.get("hook_id"), form.get("change_id")
    if not hook_id:
        raise RequestValidationError([{"loc": ("body", "hook_id"), "msg": "It is missing", "type": "missing"}])
    positions = [place_of(change).position] if change else None
    ended = subscriptions.retry(parts.database, hook_id, positions, operator.name)
    return see(at("hooks", did="retried" if ended else "nothing-retried"))
