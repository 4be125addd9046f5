"""An organization's people, and one of them: what they may do, why, and what happened to them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from provisioning.api import words
from provisioning.api.admin.asked import PER_PAGE, Asked, AskedList, Maybe, Place, Text
from provisioning.api.admin.organizations import require_organization
from provisioning.api.admin.pages import ROOT, at, page, see
from provisioning.api.admin.route import OperatorPage
from provisioning.api.dependencies import OrganizationId, ServicesDep, UserId
from provisioning.api.history import user_history
from provisioning.api.paging import Found
from provisioning.api.users import page_of_users
from provisioning.db.deliveries import NEWEST, StoredDelivery, Wanted, page_of_deliveries
from provisioning.db.reading.access import access_of
from provisioning.db.reading.users import User, UserFilter, one_user, users_meant

router = APIRouter(prefix=f"{ROOT}/organizations/{{organization_id}}", route_class=OperatorPage)

DELIVERIES = 20  # about a person
BEHIND = 5  # directory users whose deliveries are looked for: one is usual, three a wonder


class AskedPeople(AskedList):
    """Which people: whoever is meant by an e-mail or an id, or all of them; active ones, inactive ones, or both."""

    who: Text = None
    active: Maybe[bool] = None


class AskedPerson(Asked):
    """One person, with the history from this place on."""

    history: Place = None


@router.get("")
def list_people(request: Request, parts: ServicesDep, organization_id: OrganizationId, asked: Annotated[AskedPeople, Query()]) -> Response:
    """Those that match; where one alone can be meant, that one."""
    with parts.database.reading() as session:
        require_organization(session, organization_id)
        people = _matching(session, organization_id, asked)
    if asked.who and len(people.data) == 1 and asked.active is None:
        return see(at("organizations", organization_id, "users", people.data[0].id))
    here = ("organizations", organization_id)
    following = people.next_cursor and at(*here, active=_said(asked.active), cursor=people.next_cursor)
    return page(request, "people.html", organization_id=organization_id, asked=asked, people=people.data, following=following)


@router.get("/users/{user_id}")
def show_person(
    request: Request, parts: ServicesDep, organization_id: OrganizationId, user_id: UserId, asked: Annotated[AskedPerson, Query()]
) -> Response:
    """The record, what the person may do and why, and the history."""
    with parts.database.reading() as session:
        person = one_user(session, organization_id, user_id)
        access = access_of(session, organization_id, user_id)
        history = user_history(session, organization_id, user_id, limit=PER_PAGE, cursor=asked.history)
        names = words.names_in(session, history.data)
        deliveries = _deliveries_about(session, person)
    here = ("organizations", organization_id, "users", user_id)
    earlier = history.next_cursor and at(*here, history=history.next_cursor)
    return page(
        request,
        "person.html",
        organization_id=organization_id,
        person=person,
        access=access,
        history=history.data,
        names=names,
        earlier=earlier,
        deliveries=deliveries,
    )


def _matching(session: Session, organization_id: str, asked: AskedPeople) -> Found[User]:
    if asked.who is None:
        return page_of_users(session, organization_id, UserFilter(active=asked.active), limit=PER_PAGE, cursor=asked.cursor)
    meant = users_meant(session, organization_id, asked.who, limit=PER_PAGE)
    return Found([user for user in meant if asked.active in {None, user.active}], None)


def _said(active: bool | None) -> str | None:
    return None if active is None else str(active).lower()


def _deliveries_about(session: Session, person: User) -> list[StoredDelivery]:
    """The last that were about whoever stands behind this person, newest first."""
    about = (Wanted(organization_id=person.organization_id, subject_id=each.id) for each in person.directory_users[:BEHIND])
    found = [row for wanted in about for row in page_of_deliveries(session, wanted, before=NEWEST, limit=DELIVERIES)]
    return sorted(found, key=lambda row: (row.received_at, row.webhook_id), reverse=True)[:DELIVERIES]
