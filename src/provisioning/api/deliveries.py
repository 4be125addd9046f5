"""The inbox over HTTP: what arrived, what became of it, and handling it once more."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, JsonValue, StringConstraints
from structlog import get_logger

from provisioning.api.changes import Change
from provisioning.api.changes import shown as shown_change
from provisioning.api.dependencies import (
    RESOLVING,
    AskedOrganizationId,
    OperatorRoute,
    QueryText,
    Services,
    ServicesDep,
    WebhookId,
    requires,
)
from provisioning.api.paging import Cursor, Found, Limit, Page, found, place_of
from provisioning.api.problems import SENDING, responses
from provisioning.api.shapes import Shape
from provisioning.bodies import shown as readable
from provisioning.db.deliveries import NEWEST, StoredDelivery, Wanted, changed_by, deliveries_of, one_delivery, page_of_deliveries
from provisioning.db.session import Database
from provisioning.errors import InvalidCursor
from provisioning.events import rfc3339
from provisioning.inbox import Outcome
from provisioning.settings import ApiKey, Scope

router = APIRouter(prefix="/v1/deliveries", tags=["Deliveries"], route_class=OperatorRoute)

Reader = Annotated[ApiKey, Depends(requires("read"))]
Operator = Annotated[ApiKey, Depends(requires("operate"))]

CHANGES_SHOWN = 200

_log = get_logger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATE = re.compile(r"[0-9]{4}-")


class Dismissal(Shape):
    """Why a delivery that failed or is dead-lettered concerns nobody any more."""

    at: Annotated[datetime, Field(examples=["2026-11-22T09:45:00Z"])]
    by: Annotated[str, Field(examples=["operator"])]
    reason: Annotated[str, Field(examples=["A test of the customer's; they know."])]


class Delivery(Shape):
    """A webhook that was received: an event under one `webhook-id`."""

    webhook_id: Annotated[str, Field(examples=["msg_2wJ8YzqVQf0uKfWm7nTf3sYcV1b"])]
    event_id: Annotated[str | None, Field(examples=["evt_70687244567806299"])]
    type: Annotated[str | None, Field(examples=["organization.directory.user_created"])]
    organization_id: Annotated[str | None, Field(examples=["org_83543878963298576"])]
    occurred_at: Annotated[
        str | None,
        Field(
            description="There, to the nanosecond.", examples=["2026-11-22T09:30:00.123456789Z"], json_schema_extra={"format": "date-time"}
        ),
    ]
    received_at: Annotated[datetime, Field(description="Here.", examples=["2026-11-22T09:30:01Z"])]
    processed_at: Annotated[datetime | None, Field(examples=["2026-11-22T09:30:01Z"])]
    outcome: Annotated[Outcome, Field(examples=[Outcome.PROCESSED])]
    attempts: Annotated[int, Field(description="How often it was handled; a duplicate is not.", examples=[1])]
    error: Annotated[str | None, Field(description="Why it is dead-lettered or failed.", examples=[None])]
    retry_at: Annotated[datetime | None, Field(description="When the service tries a failed one again.", examples=[None])]
    dismissed: Annotated[Dismissal | None, Field(description="Of one that failed or is dead-lettered.")]


def _line(characters: int) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=characters, pattern=r"^[^\x00-\x1f\x7f]+$")


class Dismissing(Shape):
    """What is said when a delivery is dismissed."""

    reason: Annotated[str, _line(500), Field(examples=["A test of the customer's; they know."])]
    name: Annotated[
        Annotated[str, _line(100)] | None,
        Field(description="Who says so; the API key's name stands beside it, or alone.", examples=["Ada"]),
    ] = None


class DeliveryInFull(Delivery):
    """One delivery. Only a key with the scope `operate` is shown the payload: it holds people's data."""

    changes: Annotated[
        list[Change],
        Field(
            description=f"What it changed, the first {CHANGES_SHOWN}. What several deliveries of one moment changed of one user is put "
            "down to the newest."
        ),
    ]
    payload: Annotated[JsonValue, Field(description="The body, less what was named like a secret; null when it is no longer kept.")] = None
    payload_encoding: Annotated[
        Literal["json", "base64"] | None, Field(description="`base64`: the body is not JSON that could be shown here.")
    ] = None


def _written(given: object) -> object:
    """What is no date is none: of a number pydantic would make a moment, so and so many seconds after 1970."""
    if isinstance(given, str) and not _DATE.match(given):
        raise ValueError("A time is written like 2026-11-22T09:30:00Z")
    return given


def _in_utc(moment: datetime) -> datetime:
    """As both databases compare it. Raises ValueError for one that UTC has no year for."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("There is no such time in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_in_utc)]


def _wanted(
    organization_id: AskedOrganizationId,
    outcome: Annotated[Outcome | None, Query()] = None,
    type_: Annotated[QueryText | None, Query(alias="type")] = None,
    directory_user_id: Annotated[QueryText | None, Query(description="About this person.")] = None,
    received_after: Annotated[Moment | None, Query(description="From this moment on, in RFC 3339.")] = None,
    received_before: Annotated[Moment | None, Query(description="Until just before.")] = None,
    dismissed: Annotated[bool | None, Query(description="Only those that are, or are not.")] = None,
) -> Wanted:
    return Wanted(outcome, organization_id, type_, directory_user_id, received_after, received_before, dismissed)


WantedDep = Annotated[Wanted, Depends(_wanted)]


@router.get("", summary="List deliveries", responses=responses(401, 403, 422, *RESOLVING))
def list_deliveries(parts: ServicesDep, caller: Reader, wanted: WantedDep, limit: Limit = 50, cursor: Cursor = None) -> Page[Delivery]:
    """What was received, newest first: of all, or of those that are so in every respect asked for."""
    page = deliveries(parts.database, wanted, limit, cursor)
    return Page(data=[shown(row) for row in page.data], next_cursor=page.next_cursor)


def deliveries(database: Database, wanted: Wanted, limit: int, cursor: str | None) -> Found[StoredDelivery]:
    """Return a page of the deliveries. Raises InvalidCursor, Unavailable."""
    before = _before(cursor)
    with database.reading() as session:
        rows = page_of_deliveries(session, wanted, before=before, limit=limit + 1)
    return found("deliveries", rows, limit, _place)


@router.get(
    "/{webhook_id}",
    summary="Get a delivery",
    responses=responses(401, 403, 404, 422, 503),
    response_model_exclude_unset=True,
)
def get_delivery(parts: ServicesDep, caller: Reader, webhook_id: WebhookId) -> DeliveryInFull:
    """One delivery and what it changed; with the scope `operate` also its payload."""
    with parts.database.reading() as session:
        row = one_delivery(session, webhook_id)
        changes = [shown_change(change) for change in changed_by(session, row, limit=CHANGES_SHOWN)]
    known = {**dict(shown(row)), "changes": changes}
    if Scope.OPERATE not in caller.scopes:
        return DeliveryInFull(**known)
    payload, encoding = payload_of(row.payload)
    return DeliveryInFull(**known, payload=payload, payload_encoding=encoding)


@router.post("/replay", summary="Replay deliveries", responses=responses(401, 403, 422, *RESOLVING))
def replay_deliveries(parts: ServicesDep, caller: Operator, wanted: WantedDep, limit: Limit = 50, cursor: Cursor = None) -> Page[Delivery]:
    """The same page as of the list, each one handled once more as far as its payload is kept; the answer is what they are now.

    What was dismissed is left out unless `dismissed` says otherwise. Go on with `next_cursor` until it is null. Needs the scope `operate`,
    and at least one filter.
    """
    if not wanted.given():
        raise RequestValidationError([{"loc": ("query",), "msg": "Say which: by outcome, organization_id, type …", "type": "missing"}])
    if wanted.dismissed is None:
        wanted = replace(wanted, dismissed=False)
    page = deliveries(parts.database, wanted, limit, cursor)
    parts.inbox.replay_kept([row.webhook_id for row in page.data])
    _log.info("deliveries_replayed", deliveries=len(page.data), filters=sorted(wanted.given()))
    with parts.database.reading() as session:
        now = deliveries_of(session, [row.webhook_id for row in page.data])
    return Page(data=[shown(now[row.webhook_id]) for row in page.data if row.webhook_id in now], next_cursor=page.next_cursor)


@router.post("/{webhook_id}/replay", summary="Replay a delivery", responses=responses(401, 403, 404, 409, 422, 503))
def replay_delivery(parts: ServicesDep, caller: Operator, webhook_id: WebhookId) -> Delivery:
    """Handle a kept delivery once more, whatever became of it; the answer is what it is now. Needs the scope `operate`."""
    parts.inbox.replay([webhook_id])
    return _one(parts, webhook_id)


@router.post("/{webhook_id}/dismiss", summary="Dismiss a delivery", responses=responses(401, 403, 404, 409, 422, 503, *SENDING))
def dismiss_delivery(parts: ServicesDep, caller: Operator, webhook_id: WebhookId, said: Dismissing) -> Delivery:
    """Say of a delivery that failed or is dead-lettered that it concerns nobody any more: it raises no alarm, and is not tried again.

    One that was dismissed already stays so, with its first reason; a replay takes it back. Needs the scope `operate`.
    """
    parts.inbox.dismiss(webhook_id, by=f"{said.name} ({caller.name})" if said.name else caller.name, reason=said.reason)
    return _one(parts, webhook_id)


def _one(parts: Services, webhook_id: str) -> Delivery:
    with parts.database.reading() as session:
        return shown(one_delivery(session, webhook_id))


def shown(row: StoredDelivery) -> Delivery:
    """Return the delivery as it goes over HTTP."""
    dismissed = None
    if row.dismissed_at is not None:
        dismissed = Dismissal(at=row.dismissed_at, by=row.dismissed_by or "", reason=row.dismissed_reason or "")
    return Delivery(
        webhook_id=row.webhook_id,
        event_id=row.event_id,
        type=row.type,
        organization_id=row.organization_id,
        occurred_at=rfc3339(row.occurred_at) if row.occurred_at is not None else None,
        received_at=row.received_at,
        processed_at=row.processed_at,
        outcome=Outcome(row.outcome),
        attempts=row.attempts,
        error=row.error,
        retry_at=row.retry_at,
        dismissed=dismissed,
    )


def payload_of(body: bytes | None) -> tuple[JsonValue, Literal["json", "base64"] | None]:
    """Return the payload as it goes over HTTP, and how that is written; nothing of one that is not kept."""
    return (None, None) if body is None else readable(body)


def _place(row: StoredDelivery) -> str:
    return f"{(row.received_at - _EPOCH) // _MICROSECOND}:{row.webhook_id}"


def _before(cursor: str | None) -> tuple[datetime, str]:
    """Where the page begins: the end of time without a cursor. Raises InvalidCursor."""
    place = place_of("deliveries", cursor)
    if not place:
        return NEWEST
    microseconds, _, webhook_id = place.partition(":")
    try:
        return _EPOCH + int(microseconds) * _MICROSECOND, webhook_id
    except (ValueError, OverflowError):
        raise InvalidCursor("The cursor is not one of this list.") from None
