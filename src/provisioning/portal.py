"""Who may have a portal link, where it may lead, and the one line of audit that says who has it.

A link is a credential for an organization's whole login (scalekit.md, Admin portal): it goes to the caller and nowhere else.
"""

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

import structlog

from provisioning.directory import Feature, PortalLink
from provisioning.errors import NotAllowed, ScalekitRefused
from provisioning.scalekit.client import ScalekitClient
from provisioning.tokens import Visitor

ANOTHERS = "This token does not name this organization."
LOOPBACK = {"localhost", "127.0.0.1", "::1"}

_log = structlog.get_logger(__name__)


def check_visitor(visitor: Visitor, *, organization_id: str, roles: Collection[str]) -> None:
    """Pass somebody of this organization who has one of `roles`. Raises NotAllowed for everybody else."""
    if visitor.organization_id != organization_id:
        raise NotAllowed(ANOTHERS)
    if visitor.roles.isdisjoint(roles):
        raise NotAllowed("None of this token's roles may open the admin portal.")


async def make_link(
    scalekit: ScalekitClient, *, origins: Collection[str], caller: str, organization_id: str, features: Sequence[Feature]
) -> PortalLink:
    """A new link for `caller`, whose right to it has been checked; it leads to one of `origins`. Raises a ScalekitError."""
    link = await scalekit.portal_link(organization_id, features)
    if not leads_to(origins, link.location):
        where = _host(link.location)
        raise ScalekitRefused("Scalekit's portal link leads to an origin that PROVISIONING_PORTAL_ORIGINS does not name.", where)
    _log.info("portal_link_made", caller=caller, organization_id=organization_id, features=[feature.value for feature in features])
    return link


def leads_to(origins: Collection[str], location: str) -> bool:
    """Whether `location` is on one of `origins`, over https or, on loopback, http.

    Decided by the location's first characters: parsers read the rest of a hostile URL differently from browsers.
    """
    return location.startswith(tuple(f"{origin}/" for origin in origins if _is_private(origin)))


def _is_private(origin: str) -> bool:
    """Nobody between browser and portal reads along."""
    parts = urlsplit(origin)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _host(location: str) -> str:
    """The host alone, for the log: everything else of a link may be the credential."""
    try:
        return f"host {urlsplit(location).hostname}"
    except ValueError:
        return "no host"
