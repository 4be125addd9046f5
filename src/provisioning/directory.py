"""Our language for what Scalekit's Directory API gives: the rest of the service never sees a vendor's type."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Feature(StrEnum):
    """What an organization's admin may configure in the portal, in Scalekit's own words."""

    DIRECTORY_SYNC = "dir_sync"
    SINGLE_SIGN_ON = "sso"


@dataclass(frozen=True, slots=True)
class PortalLink:
    """A link that opens an organization's admin portal, once, before `expires_at` (UTC).

    It is a credential. The location ends in the id, so neither is in the repr.
    """

    id: str = field(repr=False)
    location: str = field(repr=False)
    expires_at: datetime
