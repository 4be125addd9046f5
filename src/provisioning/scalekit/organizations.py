"""What Scalekit says of an organization itself, in our own words."""

from typing import Any, Literal

from provisioning.directory import Organization
from provisioning.errors import ScalekitRefused
from provisioning.events import is_id

By = Literal["id", "external_id"]


def get_organization(vendor: Any, by: By, text: str) -> Organization:
    """The one organization that is called so: asked once, and once more with a new token. Raises what the vendor's client raises."""
    from scalekit.v1.organizations import organizations_pb2 as api  # noqa: PLC0415  # the vendor's client has imported it by now

    function = vendor.organization.organization_service.GetOrganization.with_call
    answer, _ = vendor.core_client.grpc_exec(function, api.GetOrganizationRequest(**{by: text}), retry=1, retry_on_unavailable=False)
    said = answer.organization
    if getattr(said, by) != text or not is_id(said.id):
        raise ScalekitRefused("Scalekit gave an answer that cannot be used.", "GetOrganization: not the organization that was asked for")
    return Organization(said.id, said.external_id if is_id(said.external_id) else None)
