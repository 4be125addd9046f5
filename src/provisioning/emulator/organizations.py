"""The API's organizations: what they are called, and portal links, for those that there are."""

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from scalekit.v1.organizations.organizations_pb2 import (
    Feature,
    GeneratePortalLinkRequest,
    GeneratePortalLinkResponse,
    GetOrganizationRequest,
    GetOrganizationResponse,
    Link,
    Organization,
)
from scalekit.v1.organizations.organizations_pb2_grpc import OrganizationServiceServicer

from provisioning.emulator.company import Company
from provisioning.emulator.faults import Door, Fault, Faults
from provisioning.emulator.portal import Portal
from provisioning.errors import NotFound

MAX_ID = 32  # characters


class Organizations(OrganizationServiceServicer):  # type: ignore[misc]  # the SDK ships no types
    """scalekit.v1.organizations.OrganizationService; what is not overridden here answers UNIMPLEMENTED."""

    def __init__(self, company: Company, portal: Portal, faults: Faults) -> None:
        self._company = company
        self._portal = portal
        self._faults = faults

    def GetOrganization(  # noqa: N802  # gRPC's name
        self, request: GetOrganizationRequest, context: grpc.ServicerContext
    ) -> GetOrganizationResponse:
        """The organization of this id, or of this external id; NOT_FOUND, or INVALID_ARGUMENT by the rules in the SDK's descriptors."""
        by = request.WhichOneof("identities")
        called = getattr(request, by) if by else ""
        if not called or (by == "id" and len(called) > MAX_ID):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"An id has 1 to {MAX_ID} characters, an external id at least one.")
        found = [each for each in self._company.organizations() if called == getattr(each, str(by))]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, "The emulator knows no such organization.")
        said = found[0]
        return GetOrganizationResponse(organization=Organization(id=said.id, display_name=said.name, external_id=said.external_id))

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
