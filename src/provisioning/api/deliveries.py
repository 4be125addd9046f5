"""The inbox over HTTP: what arrived, what became of it, and handling it once more."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter

from provisioning.api.dependencies import ServicesDep, WebhookId, requires
from provisioning.api.paging import Cursor, Limit, Page, found, place_of
from provisioning.api.problems import responses
from provisioning.api.shapes import Shape
from provisioning.db.deliveries import StoredDelivery, one_delivery, page_of_deliveries
from provisioning.errors import InvalidCursor
from provisioning.events import rfc3339
from provisioning.inbox import Outcome
from provisioning.settings import ApiKey, Scope

router = APIRouter(prefix="/v1/deliveries", tags=["Deliveries"])

Reader = Annotated[ApiKey, Depends(requires("read"))]
Operator = Annotated[ApiKey, Depends(requires("operate"))]

_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue, config=ConfigDict(hide_input_in_errors=True))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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


class DeliveryWithPayload(Delivery):
    """One delivery. Only a key with the scope `operate` is shown the payload: it holds people's data."""

    payload: Annotated[JsonValue, Field(description="The body, less what was named like a secret; null when it is no longer kept.")] = None
    payload_encoding: Annotated[
        Literal["json", "base64"] | None, Field(description="`base64`: the body is not JSON that could be shown here.")
    ] = None


@router.get("", summary="List deliveries", responses=responses(401, 403, 422, 503))
def list_deliveries(parts: ServicesDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Delivery]:
    """What was received, newest first."""
    before = _before(cursor)
    with parts.database.reading() as session:
        rows = page_of_deliveries(session, before=before, limit=limit + 1)
    page = found("deliveries", rows, limit, _place)
    return Page(data=[_shown(row) for row in page.data], next_cursor=page.next_cursor)


@router.get(
    "/{webhook_id}",
    summary="Get a delivery",
    responses=responses(401, 403, 404, 422, 503),
    response_model_exclude_unset=True,
)
def get_delivery(parts: ServicesDep, caller: Reader, webhook_id: WebhookId) -> DeliveryWithPayload:
    """One delivery; with the scope `operate` also its payload."""
    with parts.database.reading() as session:
        row = one_delivery(session, webhook_id)
    shown = _shown(row).model_dump()
    if Scope.OPERATE not in caller.scopes:
        return DeliveryWithPayload(**shown)
    payload, encoding = _payload(row.payload)
    return DeliveryWithPayload(**shown, payload=payload, payload_encoding=encoding)


@router.post("/{webhook_id}/replay", summary="Replay a delivery", responses=responses(401, 403, 404, 409, 422, 503))
def replay_delivery(parts: ServicesDep, caller: Operator, webhook_id: WebhookId) -> Delivery:
    """Handle a kept delivery once more, whatever became of it; the answer is what it is now. Needs the scope `operate`."""
    parts.inbox.replay([webhook_id])
    with parts.database.reading() as session:
        return _shown(one_delivery(session, webhook_id))


def _shown(row: StoredDelivery) -> Delivery:
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
    )


def _payload(body: bytes | None) -> tuple[JsonValue, Literal["json", "base64"] | None]:
    """The body as JSON if all of it can be said in JSON again: no NaN, no lone surrogate, no nesting beyond what a writer here takes."""
    if body is None:
        return None, None
    try:
        value = _JSON.validate_python(json.loads(body))
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return b64encode(body).decode(), "base64"
    return value, "json"


def _place(row: StoredDelivery) -> str:
    return f"{(row.received_at - _EPOCH) // _MICROSECOND}:{row.webhook_id}"


def _before(cursor: str | None) -> tuple[datetime, str]:
    """Where the page begins: the end of time without a cursor. Raises InvalidCursor."""
    place = place_of("deliveries", cursor)
    if not place:
        return datetime.max.replace(tzinfo=UTC), ""
    microseconds, _, webhook_id = place.partition(":")
    try:
        return _EPOCH + int(microseconds) * _MICROSECOND, webhook_id
    except (ValueError, OverflowError):
        raise InvalidCursor("The cursor is not one of this list.") from None
