"""Portal links as Scalekit makes them: for a known organization, opened once, within a minute."""

import threading
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from scalekit.v1.organizations.organizations_pb2 import Feature, GeneratePortalLinkRequest, GeneratePortalLinkResponse, Link
from scalekit.v1.organizations.organizations_pb2_grpc import OrganizationServiceServicer

from provisioning.emulator.faults import Door, Fault, Faults

LIFETIME = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class MadeLink:
    """What a link stands for."""

    id: str
    organization_id: str
    features: tuple[str, ...]
    expires_at: datetime


class Links:
    """The links that wait to be opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, MadeLink] = {}

    def make(self, organization_id: str, features: tuple[str, ...]) -> MadeLink:
        """A new link, different from every other."""
        link = MadeLink(str(uuid.uuid4()), organization_id, features, datetime.now(UTC) + LIFETIME)
        with self._lock:
            self._waiting[link.id] = link
        return link

    def open(self, link_id: str) -> MadeLink | None:
        """The link, the first time it is asked for and before it expires; else None."""
        with self._lock:
            link = self._waiting.pop(link_id, None)
        return link if link and datetime.now(UTC) < link.expires_at else None


class Organizations(OrganizationServiceServicer):  # type: ignore[misc]  # the SDK ships no types
    """scalekit.v1.organizations.OrganizationService; what is not overridden here answers UNIMPLEMENTED."""

    def __init__(self, organizations: Collection[str], links: Links, portal_origin: str, faults: Faults) -> None:
        self._organizations = frozenset(organizations)
        self._links = links
        self._portal_origin = portal_origin
        self._faults = faults

    def GeneratePortalLink(  # noqa: N802  # gRPC's name
        self, request: GeneratePortalLinkRequest, context: grpc.ServicerContext
    ) -> GeneratePortalLinkResponse:
        """A link, or NOT_FOUND."""
        if request.id not in self._organizations:
            context.abort(grpc.StatusCode.NOT_FOUND, "The emulator knows no such organization.")
        made = self._links.make(request.id, tuple(Feature.Name(feature) for feature in request.features))
        expires_at = Timestamp()
        expires_at.FromDatetime(made.expires_at)
        link = Link(id=made.id, location=f"{self._portal_origin}/magicLink/{made.id}", expire_time=expires_at)
        match self._faults.at(Door.API):
            case Fault.LINK_EMPTY:
                link.ClearField("location")
            case Fault.LINK_WITHOUT_EXPIRY:
                link.ClearField("expire_time")
            case Fault.LINK_ELSEWHERE:
                link.location = f"https://elsewhere.example/magicLink/{made.id}"
        return GeneratePortalLinkResponse(link=link)
