"""The API's organizations: portal links, for those that there are."""

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from scalekit.v1.organizations.organizations_pb2 import Feature, GeneratePortalLinkRequest, GeneratePortalLinkResponse, Link
from scalekit.v1.organizations.organizations_pb2_grpc import OrganizationServiceServicer

from provisioning.emulator.faults import Door, Fault, Faults
from provisioning.emulator.portal import Portal
from provisioning.errors import NotFound


class Organizations(OrganizationServiceServicer):  # type: ignore[misc]  # the SDK ships no types
    """scalekit.v1.organizations.OrganizationService; what is not overridden here answers UNIMPLEMENTED."""

    def __init__(self, portal: Portal, faults: Faults) -> None:
        self._portal = portal
        self._faults = faults

    def GeneratePortalLink(  # noqa: N802  # gRPC's name
        self, request: GeneratePortalLinkRequest, context: grpc.ServicerContext
    ) -> GeneratePortalLinkResponse:
        """A link, or NOT_FOUND."""
        try:
            made = self._portal.make_link(request.id, tuple(Feature.Name(feature) for feature in request.features))
        except NotFound:
            context.abort(grpc.StatusCode.NOT_FOUND, "The emulator knows no such organization.")
        expires_at = Timestamp()
        expires_at.FromDatetime(made.expires_at)
        link = Link(id=made.id, location=self._portal.location(made), expire_time=expires_at)
        match self._faults.at(Door.API):
            case Fault.LINK_EMPTY:
                link.ClearField("location")
            case Fault.LINK_WITHOUT_EXPIRY:
                link.ClearField("expire_time")
            case Fault.LINK_ELSEWHERE:
                link.location = f"https://elsewhere.example/magicLink/{made.id}"
        return GeneratePortalLinkResponse(link=link)
