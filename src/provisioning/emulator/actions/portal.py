"""The admin portal."""

from provisioning.emulator import shapes
from provisioning.emulator.actions.action import Action, Json, Reference, Text
from provisioning.emulator.oauth import LIFETIME
from provisioning.emulator.parts import Parts
from provisioning.emulator.portal import Dialect
from provisioning.settings.values import Origins


class PortalLink(Action):
    """A link to the admin portal, as the API makes them."""

    organization: Reference | None = None

    def do(self, parts: Parts) -> Json:
        link = parts.portal.make_link(parts.company.organization(self.organization).id, ())
        return {"location": parts.portal.location(link), "expires_at": link.expires_at}


class VisitorToken(Action):
    """What an application's login would give somebody of the organization, good for an hour."""

    organization: Reference | None = None
    role: Text = "admin"

    def do(self, parts: Parts) -> Json:
        token = parts.tokens.for_visitor(parts.company.organization(self.organization).id, self.role)
        return {"token": token, "expires_in": int(LIFETIME.total_seconds())}


class Portal(Action):
    """Which dialect of UI events the portal speaks, and which origins may embed it."""

    dialect: Dialect | None = None
    embedding_origins: Origins | None = None

    def do(self, parts: Parts) -> Json:
        if self.dialect is not None:
            parts.portal.dialect = self.dialect
        if self.embedding_origins is not None:
            parts.portal.embedding_origins = self.embedding_origins
        return shapes.portal(parts)
