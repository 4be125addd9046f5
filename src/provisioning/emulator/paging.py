"""One page of a list, and the token that leads to the next. It names the last id shown, so what comes and goes meanwhile moves nothing."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn, Protocol, TypeVar

import grpc

from provisioning.emulator.records import Record

R = TypeVar("R", bound=Record)


class PageRequest(Protocol):
    """What every request for a page carries; 0 and an empty string when it says nothing."""

    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A list by id. `kind`: what its ids begin with. A page has `default` entries, or as many as are asked for, at `most` so many.

    Who asks for more is refused or, where the list `clamps`, gets so many.
    """

    kind: str
    default: int
    most: int
    newest_first: bool = False
    clamps: bool = False

    @property
    def first_page(self) -> str:
        """A token that leads to the first page, which this list does not give out; of one that is oldest first."""
        return _token(f"{self.kind}_0")

    def page(
        self, rows: Sequence[R], request: PageRequest, context: grpc.ServicerContext, wanted: Callable[[R], bool] | None = None
    ) -> tuple[list[R], str]:
        """What `request` asks for out of `rows`, which are in the list's order, and the token of the next page.

        The token is empty after the last page. `wanted` leaves rows out; it is asked about no more of them than the page takes.
        Ends the call with INVALID_ARGUMENT for a size that is refused, and for a token that no list of this kind gives out.
        """
        if request.page_size > self.most and not self.clamps:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"page_size is {request.page_size} and may be {self.most} at most.")
        size = min(request.page_size or self.default, self.most)
        first = 0
        if request.page_token:
            last = self._place(self._shown(request.page_token, context))
            first = bisect_right(rows, last, key=lambda row: self._place(row.id))
        ahead = (rows[place] for place in range(first, len(rows)))  # a slice would copy all of them for one page
        found = list(islice(ahead if wanted is None else filter(wanted, ahead), size + 1))
        return found[:size], _token(found[size - 1].id) if len(found) > size else ""

    def _place(self, record_id: str) -> int:
        number = int(record_id.rpartition("_")[2])
        return -number if self.newest_first else number

    def _shown(self, token: str, context: grpc.ServicerContext) -> str:
        """The id that `token` names."""
        try:
            said = urlsafe_b64decode(token.removeprefix(">:")).decode()
        except ValueError:
            said = ""
        match = re.fullmatch(rf'\["({self.kind}_[0-9]{{1,20}})"\]', said)
        if not match or token != _token(match[1]):
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "page_token is not one that this list has given out.")
        return match[1]


def refuse(context: grpc.ServicerContext, status: grpc.StatusCode, why: str) -> NoReturn:
    """End the call with `status`."""
    context.abort(status, why)
    raise AssertionError  # abort() has raised already, but nothing says so to the type checker


def _token(record_id: str) -> str:
    """In the shape of the examples in the SDK's events.proto: `>:WyJldnRfMTAwNCJd`."""
    said = f'["{record_id}"]'
    return f">:{urlsafe_b64encode(said.encode()).decode()}"
