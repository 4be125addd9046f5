"""An organization's reconcile runs: starting one, following it, and deciding about what it holds back."""

from datetime import UTC, datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from provisioning.api.admin.asked import PER_PAGE, Asked, AskedList
from provisioning.api.admin.pages import ROOT, at, page, see
from provisioning.api.admin.route import FormDep, OperatorDep, OperatorPage
from provisioning.api.dependencies import OrganizationId, RunId, ScalekitOrganizationId, Services, ServicesDep
from provisioning.api.paging import found, place_of
from provisioning.api.reconciliations import BEYOND, shown
from provisioning.db import runs
from provisioning.db.runs import APPROVE_WITHIN, Run

router = APIRouter(prefix=f"{ROOT}/organizations/{{organization_id}}/runs", route_class=OperatorPage)

_log = structlog.get_logger(__name__)


@router.get("")
def list_runs(request: Request, parts: ServicesDep, organization_id: OrganizationId, asked: Annotated[AskedList, Query()]) -> Response:
    """Newest first."""
    before = place_of("reconciliations", asked.cursor) or BEYOND
    with parts.database.reading() as session:
        rows = runs.page(session, organization_id, before=before, limit=PER_PAGE + 1, now=datetime.now(UTC))
    listed = found("reconciliations", rows, PER_PAGE, lambda run: run.id)
    here = ("organizations", organization_id, "runs")
    following = listed.next_cursor and at(*here, cursor=listed.next_cursor)
    ready = parts.scalekit.configured
    return page(request, "runs.html", organization_id=organization_id, runs=listed.data, following=following, ready=ready)


@router.get("/{run_id}")
def show_run(
    request: Request, parts: ServicesDep, organization_id: OrganizationId, run_id: RunId, asked: Annotated[Asked, Query()]
) -> Response:
    """How far it is, what it found, and what it asks."""
    run = _run(parts, organization_id, run_id)
    lapses = run.finished_at + APPROVE_WITHIN if run.finished_at else None
    return page(request, "run.html", organization_id=organization_id, run=run, told=shown(run, drift=True), lapses=lapses)


@router.post("/start")
def start_run(parts: ServicesDep, organization_id: ScalekitOrganizationId, form: FormDep, operator: OperatorDep) -> Response:
    """Ask for a run; which kind, the button says."""
    kind = form.get("kind")
    if kind not in {"dry", "real"}:
        raise RequestValidationError([{"loc": ("body", "kind"), "msg": "Either dry or real", "type": "kind"}])
    run, new = parts.reconciler.request(organization_id, dry_run=kind == "dry", requested_by=operator.name)
    _log.info("run_requested", organization_id=organization_id, run_id=run.id, dry_run=run.dry_run, new=new)
    return _seen(run, "run-started" if new else "run-joined")


@router.post("/{run_id}/approve")
def approve_run(parts: ServicesDep, organization_id: OrganizationId, run_id: RunId, form: FormDep, operator: OperatorDep) -> Response:
    """Have it remove what it proposed, if the approver knows how many people that would deactivate."""
    run = _run(parts, organization_id, run_id)
    people = len(shown(run).proposed.users)
    if run.proposal is not None and form.get("people") != str(people):
        _log.info("run_not_approved", organization_id=organization_id, run_id=run_id)
        return _seen(run, "number-differs")
    parts.reconciler.approve(run, operator.name)
    _log.info("run_approved", organization_id=organization_id, run_id=run_id, people=people)
    return _seen(run, "run-approved")


@router.post("/{run_id}/cancel")
def cancel_run(parts: ServicesDep, organization_id: OrganizationId, run_id: RunId, operator: OperatorDep) -> Response:
    """End it."""
    run = parts.reconciler.cancel(_run(parts, organization_id, run_id), operator.name)
    _log.info("run_cancelled", organization_id=organization_id, run_id=run_id)
    return _seen(run, "run-cancelled")


def _run(parts: Services, organization_id: str, run_id: str) -> Run:
    with parts.database.reading() as session:
        return runs.one(session, organization_id, run_id, datetime.now(UTC))


def _seen(run: Run, did: str) -> Response:
    return see(at("organizations", run.organization_id, "runs", run.id, did=did))
