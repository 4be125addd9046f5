"""What the emulator keeps: companies, their directories, the people and groups in them, what it sent. A change is a new record."""

import re
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

_SOFT_DELETED = re.compile(r"^[0-9a-f]{32}(?=.+@)")


class Record(BaseModel):
    """Something with an id that is kept between two starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str


class Provider(StrEnum):
    """Whose directory it is, in Scalekit's words."""

    OKTA = "OKTA"
    ENTRA_ID = "MICROSOFT_AD"
    GOOGLE = "GOOGLE"
    JUMPCLOUD = "JUMPCLOUD"


class State(StrEnum):
    """What has become of a person, whichever way the provider says it."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    GONE = "gone"


class Organization(Record):
    """A customer; `external_id` is what the application calls it, `sso` whether its connection is on."""

    name: str
    external_id: str | None = None
    sso: bool = False


class Directory(Record):
    """Where a company keeps its people. `roles`: group id to role. Times, here and below, are nanoseconds since 1970."""

    organization_id: str
    provider: Provider
    enabled: bool = True
    roles: dict[str, str] = {}
    default_role: str = "member"
    updated_at: int


class Group(Record):
    """A directory group; `external_id` is the provider's own id."""

    organization_id: str
    directory_id: str
    name: str
    external_id: str
    updated_at: int


class User(Record):
    """A directory user; `dp_id` is the provider's own id.

    `listed`: whether Scalekit still has the person. Somebody gone may be listed (as inactive) or not; both can come back.
    """

    organization_id: str
    directory_id: str
    dp_id: str
    email: str
    given_name: str
    family_name: str
    title: str = ""
    department: str = ""
    state: State = State.ACTIVE
    listed: bool = True
    groups: tuple[str, ...] = ()
    updated_at: int

    @property
    def active(self) -> bool:
        """What the directory says of the person."""
        return self.state is State.ACTIVE

    @property
    def address(self) -> str:
        """The e-mail without what Entra ID puts before a leaver's."""
        return _SOFT_DELETED.sub("", self.email) if self.state is State.GONE else self.email

    @property
    def name(self) -> str:
        """The name to show."""
        return f"{self.given_name} {self.family_name}".strip()


class Event(Record):
    """A fact, with the body that every delivery of it carries, byte for byte."""

    type: str
    organization_id: str
    subject_id: str
    occurred_at: int
    body: str


class Progress(StrEnum):
    """What has become of a delivery."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class Attempt(BaseModel):
    """One request: its `status` and the service's word for the `outcome`, or the `error` for which there is neither."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    milliseconds: int
    status: int | None = None
    outcome: str | None = None
    error: str | None = None


class Delivery(Record):
    """An event under one webhook-id, which is the delivery's own id."""

    event_id: str
    type: str
    organization_id: str
    subject_id: str
    progress: Progress = Progress.WAITING
    attempts: tuple[Attempt, ...] = ()
    round: int = 0  # attempts since it was last asked for, on the schedule


def moment(nanoseconds: int) -> datetime:
    """`nanoseconds` since 1970 as a time, cut to microseconds."""
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(microsecond=nanoseconds % 10**9 // 1000)
