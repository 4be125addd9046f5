"""What needs attention, before anything else."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from provisioning.api.admin.asked import Asked
from provisioning.api.admin.organizations import some_organizations
from provisioning.api.admin.pages import ROOT, page
from provisioning.api.admin.route import OperatorPage
from provisioning.api.dependencies import ServicesDep
from provisioning.db.deliveries import NEWEST, Wanted, page_of_deliveries
from provisioning.db.reading.hooks import standings
from provisioning.db.standing import troubled_runs, waiting_deliveries
from provisioning.inbox import Outcome
from provisioning.refused import remedy_of, since_accepted

SHOWN = 5  # deliveries of an outcome
RUNS = 20
ORGANIZATIONS = 20

router = APIRouter(prefix=ROOT, route_class=OperatorPage)


@router.get("")
def overview(request: Request, parts: ServicesDep, asked: Annotated[Asked, Query()]) -> Response:
    """What failed, what was refused, which runs wait for somebody, whether the application is told, and how fresh what is known is."""
    now = datetime.now(UTC)
    with parts.database.reading() as session:
        waiting = waiting_deliveries(session)
        newest = {
            outcome: page_of_deliveries(session, Wanted(outcome=outcome, dismissed=False), before=NEWEST, limit=SHOWN)
            for outcome in (Outcome.FAILED, Outcome.DEAD_LETTERED)
            if outcome in waiting
        }
        accepted, refused = since_accepted(session)
        troubled = troubled_runs(session, now)
        hooks = standings(session, now)
        organizations = some_organizations(session, None, ORGANIZATIONS)
    remedies = [(remedy_of(reason), number) for reason, number in refused.items()]
    return page(
        request,
        "overview.html",
        waiting=waiting,
        newest=newest,
        refused=[each for each in remedies if not each[0].anybodys],
        also_refused=[each for each in remedies if each[0].anybodys],
        troubled=troubled[:RUNS],
        more_runs=len(troubled) - RUNS,
        hooks=hooks,
        troubled_hooks=[each for each in hooks if each.troubled(now)],
        last_accepted=accepted,
        organizations=organizations.data,
        more_organizations=organizations.next_cursor is not None,
    )
