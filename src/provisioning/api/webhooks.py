"""Scalekit's door: headers judged before the body is read, the body before it is understood, and 201 only after the commit."""

import time
from datetime import UTC, datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from provisioning.api.dependencies import Services, services
from provisioning.api.problems import SENDING, answered, problem, request_id, responses
from provisioning.api.shapes import Shape
from provisioning.errors import RefusalReason, Refused, Unavailable
from provisioning.events import Delivery
from provisioning.inbox import Outcome, Receipt
from provisioning.scalekit.signature import SignedHeaders

PATH = "/webhooks/scalekit"

router = APIRouter(tags=["Webhooks"])

_log = structlog.get_logger(__name__)
_UNREAD: dict[int, RefusalReason] = {413: "too_large", 408: "too_slow"}
_SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Received(Shape):
    """What became of a delivery."""

    status: Annotated[Outcome, Field(examples=[Outcome.PROCESSED])]
    event_id: Annotated[str | None, Field(description="Null when the body does not say.", examples=["evt_70687244567806299"])]


@router.post(
    PATH,
    status_code=201,
    response_model=Received,
    summary="Receive a webhook",
    response_description="The event is stored, and its effects with it.",
    responses=responses(503, *SENDING),
    openapi_extra={
        "parameters": [{"name": name, "in": "header", "required": True, "schema": {"type": "string"}} for name in _SIGNED],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
    },
)
async def receive_webhook(request: Request) -> Response:
    """For Scalekit: a directory event, signed as Standard Webhooks says. Whatever is not answered 2xx is sent again."""
    parts = await services(request)
    began = time.perf_counter()
    signed, body = await _verified(request, parts)
    try:
        receipt = await parts.intake.submit(Delivery(signed.webhook_id, signed.timestamp, datetime.now(UTC), body))
    except Exception as error:  # broad: whatever it is, the delivery has its line
        outcome = "unavailable" if isinstance(error, Unavailable) else "lost"
        parts.metrics.not_received(outcome)
        _log.warning("delivery", webhook_id=signed.webhook_id, outcome=outcome, **_measures(body, began))
        raise
    finally:
        parts.metrics.answered(time.perf_counter() - began)
    _tell(receipt, **_measures(body, began))
    if receipt.outcome is Outcome.FAILED:
        detail = "Handling the event failed; it is kept, and handled again when it is sent again or replayed."
        return problem(request_id(request), 500, slug="event-failed", title="The event was not applied", detail=detail)
    return JSONResponse({"status": receipt.outcome, "event_id": receipt.event_id}, 201)


class Straight:
    """Takes webhooks past FastAPI's routing, dependencies and exception stacks, which cost as much as all that is done with a delivery
    before it is committed. What is answered is the same, and OpenAPI knows of the route. Spans are made on the way that this leaves out.
    """

    path = PATH

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is no webhook."""
        if scope["type"] != "http" or scope["path"] != self.path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["route"] = self  # whose `path` api/edge.py asks for
        request = Request(scope, receive, send)
        try:
            response = await receive_webhook(request)
        except Exception as error:  # raised again, unless it is one of the table's
            response = await answered(request, error)
        await response(scope, receive, send)


async def _verified(request: Request, parts: Services) -> tuple[SignedHeaders, bytes]:
    """The headers and the body, proved to be Scalekit's. Raises Refused, and HTTPException for a body too large or slow: these are counted;
    and HTTPException for one that there is no room for now.
    """
    try:
        if any(len(request.headers.getlist(name)) > 1 for name in _SIGNED):
            raise Refused("malformed", "A webhook header is there more than once.")
        signed = SignedHeaders.parse(request.headers, time.time())
        body = await request.body()
        parts.verifier.verify(signed, body)
    except Refused as refused:
        _count(refused, parts)
        raise
    except HTTPException as error:
        if reason := _UNREAD.get(error.status_code):
            _count(Refused(reason, error.detail), parts)
        raise
    return signed, body


def _count(refused: Refused, parts: Services) -> None:
    parts.refusals.record(refused)
    parts.metrics.refused(refused.reason)


def _measures(body: bytes, began: float) -> dict[str, float]:
    return {"size": len(body), "duration_ms": round((time.perf_counter() - began) * 1000, 1)}


def _tell(receipt: Receipt, **measures: float) -> None:
    """The one line about a delivery: ids, never what is in it."""
    tell = _log.error if receipt.outcome is Outcome.FAILED else _log.warning if receipt.outcome is Outcome.DEAD_LETTERED else _log.info
    tell(
        "delivery",
        webhook_id=receipt.webhook_id,
        event_id=receipt.event_id,
        type=receipt.type,
        organization_id=receipt.organization_id,
        outcome=receipt.outcome.value,
        **({"error": receipt.error} if receipt.error else {}),
        **measures,
    )
