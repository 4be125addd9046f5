"""Reconciling over HTTP: asking for a run, following it, and deciding about what it holds back."""

from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field, JsonValue, StrictBool

from provisioning.api.dependencies import (
    RESOLVING,
    OperatorRoute,
    OrganizationId,
    RunId,
    ScalekitOrganizationId,
    Services,
    ServicesDep,
    requires,
)
from provisioning.api.paging import Cursor, Limit, Page, found, place_of
from provisioning.api.problems import SENDING, responses
from provisioning.api.shapes import Shape
from provisioning.db import runs
from provisioning.db.runs import Run, State
from provisioning.settings import ApiKey

router = APIRouter(
    prefix="/v1/organizations/{organization_id}/reconciliations",
    tags=["Reconciling"],
    route_class=OperatorRoute,
    responses=responses(*RESOLVING),
)

Reader = Annotated[ApiKey, Depends(requires("read"))]
Operator = Annotated[ApiKey, Depends(requires("operate"))]

BEYOND = "~"  # after the id of every run

_Count = Annotated[int, Field(examples=[3])]


class Listed(Shape):
    """How many the directories listed so far."""

    users: Annotated[int, Field(examples=[412])]
    groups: Annotated[int, Field(examples=[17])]


class Changes(Shape):
    """What the run has changed so far; of a dry run, what it would change."""

    users_created: _Count = 0
    users_updated: _Count = 0
    users_deactivated: _Count = 0
    users_reactivated: _Count = 0
    groups_created: _Count = 0
    groups_updated: _Count = 0
    groups_deleted: _Count = 0
    memberships_added: _Count = 0
    memberships_removed: _Count = 0
    roles_granted: _Count = 0
    roles_revoked: _Count = 0


class Proposed(Shape):
    """What was not listed, and is removed only when somebody approves it."""

    users: Annotated[list[str], Field(description="Ids of users.", examples=[["usr_5d1f7c0a9b3e4f60"]])]
    groups: Annotated[list[str], Field(description="Ids of groups.", examples=[["dirgroup_91263908563290112"]])]
    memberships_removed: _Count
    roles_revoked: _Count


class Difference(Shape):
    """What a field says here, and what the directory says."""

    before: JsonValue
    after: JsonValue


class Finding(Shape):
    """A record that the directory and the database disagreed on."""

    what: Annotated[
        str,
        Field(
            description="`missing_here`, `changed` or `gone_there`; left as it is: `unsettled` (something newer was said of it),"
            " `active_unsaid` (the directory does not say whether the person is active), `unreadable`; `erased` here, and still there.",
            examples=["changed"],
        ),
    ]
    type: Annotated[str, Field(description="`user`, `group` or `directory`: the record there.", examples=["user"])]
    id: Annotated[str, Field(description="Scalekit's id of it.", examples=["diruser_70687244567806212"])]
    fields: Annotated[
        dict[str, Difference],
        Field(default_factory=dict, examples=[{"email": {"before": "ada@example.com", "after": "ada.l@example.com"}}]),
    ]
    reason: Annotated[str | None, Field(examples=["held back"])] = None


class Reconciliation(Shape):
    """A run: one reading of an organization's directories, and what came of it."""

    id: Annotated[str, Field(examples=["run_019aab6c2f405f2d8a1b9c3e"])]
    organization_id: Annotated[str, Field(examples=["org_83543878963298576"])]
    state: Annotated[State, Field(examples=[State.DONE])]
    dry_run: Annotated[bool, Field(description="Whether it only looks.")]
    requested_by: Annotated[str, Field(description="An API key's name, or what else asked for it.", examples=["backend"])]
    started_at: Annotated[datetime | None, Field(description="Null while it waits.", examples=["2026-11-22T09:30:00Z"])]
    finished_at: Annotated[datetime | None, Field(examples=["2026-11-22T09:30:20Z"])]
    listed: Listed
    expected_users: Annotated[int | None, Field(description="How many people the directories say they have.", examples=[412])]
    changes: Changes
    drifted: Annotated[int, Field(description="How many records differed, whatever became of them.", examples=[3])]
    proposed: Proposed
    held_back: Annotated[list[str], Field(description="Why.", examples=[["40 of 90 people were not listed."]])]
    approved_by: Annotated[str | None, Field(description="Who let it remove what it had proposed.", examples=["operator"])]
    error: Annotated[str | None, Field(description="Why it failed or was cancelled.", examples=[None])]


class ReconciliationWithDrift(Reconciliation):
    """One run, with what it found."""

    drift: Annotated[list[Finding], Field(description="The first 200 of those that differed.")]


class ReconciliationRequest(Shape):
    """What kind of run."""

    model_config = ConfigDict(extra="forbid")

    dry_run: Annotated[StrictBool, Field(description="Only look, and change nothing.")] = False


@router.post("", status_code=202, summary="Start a reconciliation", responses=responses(401, 403, 409, 422, 503, *SENDING))
def start_reconciliation(
    organization_id: ScalekitOrganizationId, parts: ServicesDep, caller: Operator, asked: ReconciliationRequest | None = None
) -> Reconciliation:
    """Have the organization's directories read whole, and brought here what they say: the answer is a run, to be followed by its id.

    One of the same kind that waits or runs already is joined; one of the other kind is a conflict. Needs the scope `operate`.
    """
    run, _ = parts.reconciler.request(organization_id, dry_run=asked is not None and asked.dry_run, requested_by=caller.name)
    return shown(run)


@router.get("", summary="List reconciliations", responses=responses(401, 403, 422, 503))
def list_reconciliations(
    organization_id: OrganizationId, parts: ServicesDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None
) -> Page[Reconciliation]:
    """The organization's runs, newest first."""
    before = place_of("reconciliations", cursor) or BEYOND
    with parts.database.reading() as session:
        rows = runs.page(session, organization_id, before=before, limit=limit + 1, now=datetime.now(UTC))
    page = found("reconciliations", rows, limit, lambda run: run.id)
    return Page(data=[shown(run) for run in page.data], next_cursor=page.next_cursor)


@router.get(
    "/{run_id}",
    response_model=ReconciliationWithDrift,
    summary="Get a reconciliation",
    responses=responses(401, 403, 404, 422, 503),
)
def get_reconciliation(organization_id: OrganizationId, run_id: RunId, parts: ServicesDep, caller: Reader) -> Reconciliation:
    """One run as it is now, with what it found."""
    return shown(_run(parts, organization_id, run_id), drift=True)


@router.post("/{run_id}/approve", status_code=202, summary="Approve a reconciliation", responses=responses(401, 403, 404, 409, 422, 503))
def approve_reconciliation(organization_id: OrganizationId, run_id: RunId, parts: ServicesDep, caller: Operator) -> Reconciliation:
    """Have the run list again, and remove what it proposed as far as it is still gone. Needs the scope `operate`.

    Only a run that needs approval can be approved: within 24 hours, and until the next one begins.
    """
    return shown(parts.reconciler.approve(_run(parts, organization_id, run_id), caller.name))


@router.post("/{run_id}/cancel", status_code=202, summary="Cancel a reconciliation", responses=responses(401, 403, 404, 409, 422, 503))
def cancel_reconciliation(organization_id: OrganizationId, run_id: RunId, parts: ServicesDep, caller: Operator) -> Reconciliation:
    """End the run, in a moment when it is under way; what it changed by now stays. Needs the scope `operate`."""
    return shown(parts.reconciler.cancel(_run(parts, organization_id, run_id), caller.name))


def shown(run: Run, *, drift: bool = False) -> Reconciliation:
    """The run as it is said outside; with `drift` it is a ReconciliationWithDrift."""
    answer = Reconciliation(
        id=run.id,
        organization_id=run.organization_id,
        state=run.state,
        dry_run=run.dry_run,
        requested_by=run.requested_by,
        started_at=run.started_at,
        finished_at=run.finished_at,
        listed=Listed(users=run.listed_users, groups=run.listed_groups),
        expected_users=run.expected_users,
        changes=Changes(**run.changes),
        drifted=run.drifted,
        proposed=_proposed(run),
        held_back=run.held_back,
        approved_by=run.approved_by,
        error=run.error,
    )
    if not drift:
        return answer
    return ReconciliationWithDrift(**dict(answer), drift=[Finding.model_validate(each) for each in run.drift])


def _run(parts: Services, organization_id: str, run_id: str) -> Run:
    with parts.database.reading() as session:
        return runs.one(session, organization_id, run_id, datetime.now(UTC))


def _proposed(run: Run) -> Proposed:
    if run.proposal is None:
        return Proposed(users=[], groups=[], memberships_removed=0, roles_revoked=0)
    lists = cast("dict[str, list[str]]", run.proposal)
    by_person = cast("dict[str, dict[str, list[str]]]", run.proposal)
    return Proposed(
        users=lists["users"],
        groups=lists["groups"],
        memberships_removed=sum(map(len, by_person["memberships"].values())),
        roles_revoked=sum(map(len, by_person["roles"].values())),
    )
