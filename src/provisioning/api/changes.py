"""The change log over HTTP: the feed, and the shape of a change."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import Field, JsonValue
from starlette.concurrency import run_in_threadpool

from provisioning.api.dependencies import RESOLVING, AskedOrganizationId, QueryText, ServicesDep, requires
from provisioning.api.paging import Limit
from provisioning.api.problems import responses
from provisioning.api.shapes import Shape
from provisioning.api.users import GroupOfUser
from provisioning.changes import CauseKind, ChangeType
from provisioning.db.reading.changes import Place, StoredChange
from provisioning.db.reading.users import Summary
from provisioning.errors import InvalidCursor
from provisioning.events import rfc3339
from provisioning.feed import Wanted
from provisioning.merge import Key

router = APIRouter(prefix="/v1/changes", tags=["Changes"], dependencies=[Depends(requires("read"))])

_ID = re.compile(r"chg_([0-9]{16,18})-([0-9a-f]{6})", re.ASCII)


class CauseOfChange(Shape):
    """What changed it."""

    kind: CauseKind
    id: Annotated[
        str,
        Field(
            description="The delivery's `webhook-id`, the run's id, or the operator's name.", examples=["msg_2wJ8YzqVQf0uKfWm7nTf3sYcV1b"]
        ),
    ]


class Change(Shape):
    """Something that is different now."""

    id: Annotated[str, Field(description="Rises; a place in the feed to go on from.", examples=["chg_0000000000004711-3fa2c1"])]
    type: ChangeType
    organization_id: Annotated[str, Field(examples=["org_83543878963298576"])]
    user_id: Annotated[str | None, Field(examples=["usr_5d1f7c0a9b3e4f60"])]
    group_id: Annotated[str | None, Field(examples=[None])]
    directory_id: Annotated[str | None, Field(examples=[None])]
    role: Annotated[str | None, Field(examples=[None])]
    before: Annotated[
        dict[str, JsonValue] | None, Field(description="What differs, as it was; null: it was not there.", examples=[{"active": True}])
    ]
    after: Annotated[dict[str, JsonValue] | None, Field(description="The same now; null: it is gone.", examples=[{"active": False}])]
    cause: CauseOfChange
    occurred_at: Annotated[
        str | None,
        Field(
            description="When it happened, as the directory says; null of what an operator did.",
            examples=["2026-11-22T09:29:58.123Z"],
            json_schema_extra={"format": "date-time"},
        ),
    ]
    recorded_at: Annotated[datetime, Field(description="When it became true here.", examples=["2026-11-22T09:30:00Z"])]


class UserNow(Shape):
    """The user whom a change is about, as it is at this moment."""

    id: Annotated[str, Field(examples=["usr_5d1f7c0a9b3e4f60"])]
    email: Annotated[str | None, Field(examples=["ada@example.com"])]
    name: Annotated[str | None, Field(examples=["Ada Lovelace"])]
    active: bool
    application_id: Annotated[str | None, Field(description="What the application calls this user.", examples=["42"])]
    groups: Annotated[list[GroupOfUser], Field(description="Sorted by id; empty while inactive.")]
    roles: Annotated[list[str], Field(description="Sorted; empty while inactive.", examples=[["admin", "member"]])]


class ChangeInFeed(Change):
    """A change, and the user now."""

    user: Annotated[
        UserNow | None,
        Field(description="As it is at this moment, which may be later than the change; null: no user's, or somebody who was erased."),
    ]


class FeedPage(Shape):
    """A part of the feed."""

    data: list[ChangeInFeed]
    next_cursor: Annotated[str, Field(description="For `after`; keep it when this is done.", examples=["chg_0000000000004711-3fa2c1"])]


@router.get("", response_model=FeedPage, summary="Follow the changes", responses=responses(401, 403, 410, 422, *RESOLVING))
async def follow_changes(
    parts: ServicesDep,
    organization_id: AskedOrganizationId,
    after: Annotated[
        str | None,
        Query(
            description="The `next_cursor` before, or the `id` of a change. Without: from the first change; `latest`: only what comes now."
        ),
    ] = None,
    type_: Annotated[QueryText | None, Query(alias="type", description="Of these types only, separated by commas.")] = None,
    limit: Limit = 50,
    wait: Annotated[int, Query(ge=0, le=30, description="Where there is nothing yet: wait so many seconds for it.")] = 0,
) -> FeedPage:
    """Every change once, in their order; whoever keeps the cursor misses none, whatever is committed late.

    No data says that nothing has come yet, not that nothing will. 410: what follows this place is not kept any more, so begin with
    `after=latest`, read users and groups, and go on from that cursor.
    """
    wanted = Wanted(organization_id, _types(type_))
    if after == "latest":
        return FeedPage(data=[], next_cursor=change_id(await run_in_threadpool(parts.feed.latest)))
    part = await parts.feed.follow(place_of(after) if after else Place(), wanted, limit, wait)
    data = [in_feed(change, part.users) for change in part.changes]
    return FeedPage(data=data, next_cursor=change_id(part.place))


def _types(given: str | None) -> list[str]:
    """The types, each once. Raises RequestValidationError."""
    names = [] if given is None else sorted({name.strip() for name in given.split(",")})
    if set(names) <= set(ChangeType):
        return names
    known = ", ".join(sorted(ChangeType))
    raise RequestValidationError([{"loc": ("query", "type"), "msg": f"Only these are known here: {known}", "type": "unknown"}])


def in_feed(change: StoredChange, users: Mapping[Key, Summary]) -> ChangeInFeed:
    """Return the change as followers are told it, with the user now."""
    user = users.get(Key(change.organization_id, change.user_id)) if change.user_id is not None else None
    now = UserNow.model_validate(user, from_attributes=True) if user else None
    return ChangeInFeed(**dict(shown(change)), user=now)


def told(change: StoredChange, users: Mapping[Key, Summary]) -> dict[str, JsonValue]:
    """Return the same as JSON."""
    return in_feed(change, users).model_dump(mode="json")


def shown(change: StoredChange) -> Change:
    """Return the change as it goes over HTTP. Of a membership or a role, before and after say what was or is had."""
    before, after = change.before, change.after
    had: dict[str, JsonValue] = {"role": change.role} if change.role is not None else {"group_id": change.group_id}
    if change.type in {ChangeType.MEMBERSHIP_ADDED, ChangeType.ROLE_GRANTED}:
        after = had
    elif change.type in {ChangeType.MEMBERSHIP_REMOVED, ChangeType.ROLE_REVOKED}:
        before = had
    return Change(
        id=change_id(change.place),
        type=ChangeType(change.type),
        organization_id=change.organization_id,
        user_id=change.user_id,
        group_id=change.group_id,
        directory_id=change.directory_id,
        role=change.role,
        before=before,
        after=after,
        cause=CauseOfChange(kind=CauseKind(change.cause), id=change.cause_id),
        occurred_at=None if change.occurred_at is None else rfc3339(change.occurred_at),
        recorded_at=change.recorded_at,
    )


def change_id(place: Place) -> str:
    """Return the id of the change at this place."""
    return f"chg_{place.position:016}-{place.mark:06x}"


def place_of(given: str) -> Place:
    """Return the place of the change of this id. Raises InvalidCursor."""
    if match := _ID.fullmatch(given):
        return Place(int(match[1]), int(match[2], 16))
    raise InvalidCursor("That is no change's id: it looks like chg_0000000000004711-3fa2c1.")
