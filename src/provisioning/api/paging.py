"""Lists in pages. A cursor is a place in the order of the ids, so that a page neither skips nor repeats while rows come, go and change."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import Field

from provisioning.api.shapes import Shape
from provisioning.errors import InvalidCursor

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=200, description="At most this many.")]
Cursor = Annotated[str | None, Query(max_length=2048, description="The `next_cursor` of the page before.")]


class Page(Shape, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    next_cursor: Annotated[str | None, Field(description="For the next page; null on the last.", examples=["dXNlcnM6dXNyXzVkMWY3YzBh"])]


@dataclass(frozen=True, slots=True)
class Found(Generic[Item]):
    """A page of what was found, as `Page` says it outside."""

    data: Sequence[Item]
    next_cursor: str | None


def found(kind: str, items: Sequence[Item], limit: int, place: Callable[[Item], str]) -> Found[Item]:
    """Return the first `limit` of `items`, of which one more was asked for, with the cursor of the last one shown if more follow."""
    shown = items[:limit]
    return Found(shown, cursor(kind, place(shown[-1])) if len(items) > limit else None)


def cursor(kind: str, place: str) -> str:
    """Return the cursor of the item at `place` in lists of this kind."""
    return urlsafe_b64encode(f"{kind}:{place}".encode()).decode().rstrip("=")


def place_of(kind: str, given: str | None) -> str:
    """Return the place that a cursor names, "" without one. Raises InvalidCursor."""
    if given is None:
        return ""
    try:
        text = urlsafe_b64decode(given + "=" * (-len(given) % 4)).decode()
    except (binascii.Error, ValueError):
        raise InvalidCursor("The cursor is not one that this service gave.") from None
    found_kind, _, place = text.partition(":")
    if found_kind != kind or not place or "\x00" in place:
        raise InvalidCursor("The cursor is not one of this list.")
    return place
