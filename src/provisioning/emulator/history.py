"""scalekit.v1.events.EventsService: what was ever said about the directories, newest first, for whoever missed a webhook."""

from bisect import bisect_left, bisect_right

import grpc
from google.protobuf.json_format import Parse
from google.protobuf.timestamp_pb2 import Timestamp
from scalekit.v1.events.events_pb2 import (
    DIR_SYNC,
    SOURCE_UNSPECIFIED,
    EventFilter,
    ListEventsPaginatedRequest,
    ListEventsPaginatedResponse,
    ScalekitEvent,
)
from scalekit.v1.events.events_pb2_grpc import EventsServiceServicer

from provisioning.emulator.company import Company
from provisioning.emulator.paging import Listing, refuse
from provisioning.emulator.records import Event

EVENTS = Listing("evt", default=10, most=100, newest_first=True, clamps=True)

# What a filter may ask of a directory's events; by anything else (a connection, a sign-in) none is found.
_ASKED = {"event_types", "start_time", "end_time", "organization_id", "source"}


class History(EventsServiceServicer):  # type: ignore[misc]  # the SDK ships no types
    """What is not overridden here answers UNIMPLEMENTED. Pages lead forward only: into the past."""

    def __init__(self, company: Company) -> None:
        self._company = company

    def ListEventsPaginated(  # noqa: N802  # gRPC's name
        self, request: ListEventsPaginatedRequest, context: grpc.ServicerContext
    ) -> ListEventsPaginatedResponse:
        """Events of any organization, from start_time to end_time, both included."""
        asked = request.filter
        types = frozenset(asked.event_types)

        def wanted(event: Event) -> bool:
            return (not types or event.type in types) and asked.organization_id in ("", event.organization_id)

        events, token = EVENTS.page(self._within(asked, context)[::-1], request, context, wanted)
        return ListEventsPaginatedResponse(events=map(message, events), next_page_token=token)

    def _within(self, asked: EventFilter, context: grpc.ServicerContext) -> list[Event]:
        start = nanoseconds(asked.start_time) if asked.HasField("start_time") else None
        end = nanoseconds(asked.end_time) if asked.HasField("end_time") else None
        if start is not None and end is not None and start > end:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "start_time is after end_time.")
        if asked.source not in (SOURCE_UNSPECIFIED, DIR_SYNC) or any(field.name not in _ASKED for field, _ in asked.ListFields()):
            return []
        events = self._company.events()
        first = 0 if start is None else bisect_left(events, start, key=_occurred_at)
        return events[first : None if end is None else bisect_right(events, end, key=_occurred_at)]


def message(event: Event) -> ScalekitEvent:
    """The event as the API gives it: the webhook's envelope, its numbers floats."""
    return Parse(event.body, ScalekitEvent())


def timestamp(since_1970: int) -> Timestamp:
    """`since_1970` nanoseconds, none of them lost."""
    return Timestamp(seconds=since_1970 // 10**9, nanos=since_1970 % 10**9)


def nanoseconds(moment: Timestamp) -> int:
    """Since 1970, also of a timestamp that is out of protobuf's range."""
    return int(moment.seconds * 10**9 + moment.nanos)


def _occurred_at(event: Event) -> int:
    return event.occurred_at
