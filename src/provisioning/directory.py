"""Our language for what Scalekit's Directory API gives: the rest of the service never sees a vendor's type."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from provisioning.bodies import Json


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


@dataclass(frozen=True, slots=True)
class Organization:
    """A customer, as Scalekit has it. `external_id`: what the application calls it, if it told Scalekit."""

    id: str
    external_id: str | None


@dataclass(frozen=True, slots=True)
class Directory:
    """A customer's directory, as Scalekit shows it now. `total_users`: how many Scalekit itself counts in it.

    `roles`: by the id of a group, the roles that the customer's mapping gives to who is in it.
    """

    id: str
    provider: str
    type: str
    enabled: bool
    total_users: int
    roles: Mapping[str, frozenset[str]]

    @property
    def role_names(self) -> list[str]:
        """The roles that its mapping gives to anybody."""
        return sorted(frozenset[str]().union(*self.roles.values()))


@dataclass(frozen=True, slots=True)
class ListedUser:
    """A person as a directory lists them: the `data` of a webhook about them, less roles, which no list shows. `groups`: names by id."""

    id: str
    groups: Mapping[str, str]
    data: Mapping[str, Json] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group as a directory lists it: the `data` of a webhook about it. Its members are said by themselves."""

    id: str
    data: Mapping[str, Json] = field(repr=False)
