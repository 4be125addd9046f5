"""What was received: found by what it is about, looked into, replayed and dismissed."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BeforeValidator, ValidationError
from structlog import get_logger

from provisioning.api import deliveries as inbox
from provisioning.api import words
from provisioning.api.admin.asked import PER_PAGE, Asked, AskedList, Maybe, Text
from provisioning.api.admin.pages import ROOT, at, page, see
from provisioning.api.admin.route import FormDep, OperatorDep, OperatorPage
from provisioning.api.changes import shown as shown_change
from provisioning.api.dependencies import ServicesDep, WebhookId
from provisioning.db.deliveries import Wanted, changed_by, one_delivery
from provisioning.events import EventType
from provisioning.inbox import MENDABLE, Outcome

router = APIRouter(prefix=f"{ROOT}/deliveries", route_class=OperatorPage)

_log = get_logger(__name__)


def _moment(given: object) -> object:
    """A time as a form or an API writes it; without a zone it is UTC, as everything is that these pages show."""
    if not isinstance(given, str) or not given.strip():
        return None
    try:
        moment = datetime.fromisoformat(given.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("a time is written like 2026-11-22 09:30, in UTC") from None


Moment = Annotated[datetime | None, BeforeValidator(_moment)]


class AskedDeliveries(AskedList):
    """Which deliveries; all that is given has to be so."""

    outcome: Maybe[Outcome] = None
    organization_id: Text = None
    type: Text = None
    person: Text = None
    received_after: Moment = None
    received_before: Moment = None
    dismissed: Maybe[bool] = None

    def wanted(self) -> Wanted:
        """Return the same for the database."""
        return Wanted(
            self.outcome,
            self.organization_id,
            self.type and EventType.named(self.type),
            self.person,
            self.received_after,
            self.received_before,
            self.dismissed,
        )

    def again(self) -> dict[str, object]:
        """Return the same for the address of another page."""
        given = self.model_dump(mode="json", exclude_none=True, exclude={"cursor", "did"})
        return {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}


@dataclass(frozen=True, slots=True)
class _Listing:
    """A list as it was asked for, and what that means."""

    asked: AskedDeliveries
    wanted: Wanted


async def _listing(parts: ServicesDep, asked: Annotated[AskedDeliveries, Query()]) -> _Listing:
    wanted = asked.wanted()
    organization_id = wanted.organization_id and await parts.organizations.resolve(wanted.organization_id)
    return _Listing(asked, replace(wanted, organization_id=organization_id))


@router.get("")
def list_deliveries(request: Request, parts: ServicesDep, listing: Annotated[_Listing, Depends(_listing)]) -> Response:
    """Newest first."""
    asked = listing.asked
    listed = inbox.deliveries(parts.database, listing.wanted, PER_PAGE, asked.cursor)
    following = listed.next_cursor and at("deliveries", **asked.again(), cursor=listed.next_cursor)
    outcomes = [outcome for outcome in Outcome if outcome is not Outcome.DUPLICATE]  # of which nothing is kept
    return page(request, "deliveries.html", asked=asked, deliveries=listed.data, following=following, outcomes=outcomes)


@router.get("/{webhook_id}")
def show_delivery(request: Request, parts: ServicesDep, webhook_id: WebhookId, asked: Annotated[Asked, Query()]) -> Response:
    """What came, what became of it, and what it changed."""
    with parts.database.reading() as session:
        delivery = one_delivery(session, webhook_id)
        changes = [shown_change(change) for change in changed_by(session, delivery, limit=inbox.CHANGES_SHOWN)]
        sentences = words.sentences(session, changes)
    payload, encoding = inbox.payload_of(delivery.payload)
    return page(
        request,
        "delivery.html",
        delivery=delivery,
        changes=list(zip(changes, sentences, strict=True)),
        shown=inbox.CHANGES_SHOWN,
        payload=payload,
        encoding=encoding,
        mendable=delivery.outcome in MENDABLE,
    )


@router.post("/{webhook_id}/replay")
def replay_delivery(parts: ServicesDep, webhook_id: WebhookId, form: FormDep) -> Response:
    """Handle it once more."""
    receipt, *_ = parts.inbox.replay([webhook_id])
    _log.info("delivery_replayed", webhook_id=webhook_id, outcome=receipt.outcome.value)
    return see(at("deliveries", webhook_id, did="replayed"))


@router.post("/{webhook_id}/dismiss")
def dismiss_delivery(parts: ServicesDep, webhook_id: WebhookId, form: FormDep, operator: OperatorDep) -> Response:
    """Have it concern nobody any more."""
    try:
        said = inbox.Dismissing(reason=form.get("reason", ""))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None
    parts.inbox.dismiss(webhook_id, by=operator.name, reason=said.reason)
    return see(at("deliveries", webhook_id, did="dismissed"))
