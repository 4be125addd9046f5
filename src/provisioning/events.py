"""What Scalekit sends: the envelope, the event types we understand, and `parse`, which turns a signed body into an event or says why not.

Nothing here trusts the sender to be tidy, and no error quotes the body: it holds people's data.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from provisioning import bodies
from provisioning.bodies import Json, digest
from provisioning.errors import Unreadable

MAX_ID_BYTES = 512  # PostgreSQL indexes nothing longer than 2,704 bytes, and a key has up to three ids
MAX_AHEAD_SECONDS = 300


class EventType(StrEnum):
    """The directory events that change something here."""

    DIRECTORY_ENABLED = "organization.directory_enabled"
    DIRECTORY_DISABLED = "organization.directory_disabled"
    USER_CREATED = "organization.directory.user_created"
    USER_UPDATED = "organization.directory.user_updated"
    USER_DELETED = "organization.directory.user_deleted"
    GROUP_CREATED = "organization.directory.group_created"
    GROUP_UPDATED = "organization.directory.group_updated"
    GROUP_DELETED = "organization.directory.group_deleted"

    @classmethod
    def named(cls, text: str) -> str:
        """The type that is meant, of these by its last word, too: `user_deleted`."""
        return next((kind.value for kind in cls if kind.rpartition(".")[2] == text), text)

    @property
    def rank(self) -> int:
        """Which of two events of one instant wins: created, then updated, then what takes access away."""
        return 0 if self.endswith("created") else 2 if self.endswith(("deleted", "disabled")) else 1


class Version(NamedTuple):
    """When something was said, as a total order that does not depend on arrival."""

    grade: int  # 1: a statement; 0: a hint, which any statement beats
    occurred_at: int  # nanoseconds since 1970
    event: int  # the digits of the event's id, which rise with time: a tie-breaker
    rank: int
    digest: str  # of the data, so that two different events never tie


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified request: `sent_at` is its webhook-timestamp (unix seconds), `received_at` our own clock."""

    webhook_id: str
    sent_at: int
    received_at: datetime
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a body says about itself, as far as it could be read."""

    event_id: str | None = None
    type: str | None = None
    organization_id: str | None = None
    subject_id: str | None = None
    occurred_at: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A fact from a directory, checked: of whom or what (`subject_id`), in which organization, and its data without secrets.

    Only what a listing made of it (`listed`) has `hints`, data that any statement beats, or is `inferred` from absence: nobody said it,
    so it yields to anything newer that was said of the same record.
    """

    type: EventType
    organization_id: str
    subject_id: str
    version: Version
    data: dict[str, Json] = field(repr=False)
    hints: dict[str, Json] = field(default_factory=dict, repr=False)
    inferred: bool = False


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of a body: an `event`; or an `error` that says why it is none; or neither, when its type is not one of ours.

    `payload` is what may be kept of it: as it came, byte for byte, less the members named like a secret. (What is not JSON has none.)
    """

    envelope: Envelope
    payload: bytes = field(repr=False)
    event: Event | None = None
    error: str | None = None


def parse(delivery: Delivery, environment_id: str | None = None) -> Parsed:
    """Read a verified body; `environment_id`, when given, is the only environment whose events are accepted. Never raises."""
    body = bodies.read(delivery.body)
    if not isinstance(body.document, dict):
        return Parsed(Envelope(), body.payload, error=body.error or "The body is not a JSON object.")
    envelope = _envelope(body.document)
    try:
        event = _event(body.document, envelope, delivery.sent_at, environment_id, odd=body.odd)
    except Unreadable as error:
        return Parsed(envelope, body.payload, error=str(error))
    return Parsed(envelope, body.payload, event)


_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt]((?:[01]\d|2[0-3]):[0-5]\d:)([0-5]\d|60)(?:\.(\d+))?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(text: str) -> int:
    """The RFC 3339 time `text` in nanoseconds since 1970, exactly (datetime would cut it to microseconds). Raises ValueError.

    A leap second (RFC 3339, section 5.6) is the first second of the next day, as in POSIX time.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time")
    date, clock, second, fraction, zone = match.groups()
    leap = second == "60"
    moment = datetime.fromisoformat(f"{date}T{clock}{'59' if leap else second}{zone.upper()}")
    seconds = (moment - _EPOCH) // timedelta(seconds=1) + leap
    if leap and seconds % 86_400:
        raise ValueError("a leap second within a day")
    result = seconds * 10**9 + int((fraction or "").ljust(9, "0")[:9])
    if abs(result) >= 2**63:
        raise ValueError("a time outside the years 1678 to 2262")
    return result


def rfc3339(occurred_at: int) -> str:
    """`occurred_at` (nanoseconds since 1970) as an RFC 3339 time in UTC, with as many digits as it needs."""
    seconds, fraction = divmod(occurred_at, 10**9)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')}{digits}Z"


def _envelope(document: dict[str, Json]) -> Envelope:
    data = document.get("data")
    inner = data if isinstance(data, dict) else {}
    occurred_at = document.get("occurred_at")
    try:
        time = nanoseconds(occurred_at) if isinstance(occurred_at, str) else None
    except ValueError:
        time = None
    return Envelope(
        event_id=_id(document.get("id")),
        type=_id(document.get("type")),
        organization_id=_id(inner.get("organization_id") if document.get("organization_id") in (None, "") else document["organization_id"]),
        subject_id=_id(inner.get("id")),
        occurred_at=time,
    )


def is_id(text: str) -> bool:
    """Whether `text` can be stored and indexed as an id."""
    return _id(text) is not None


def _id(value: Json) -> str | None:
    """`value` if it can be stored and indexed as an id."""
    if isinstance(value, str) and value and "\x00" not in value and bodies.encodes(value) and len(value.encode()) <= MAX_ID_BYTES:
        return value
    return None


def _event(document: dict[str, Json], envelope: Envelope, sent_at: int, environment_id: str | None, *, odd: bool) -> Event | None:
    type_ = _required("type", envelope.type)
    if type_ not in _DATA:
        return None
    if odd and (problem := bodies.problem(document)):
        raise Unreadable(problem)
    kind = EventType(type_)
    event_id = _required("id", envelope.event_id)
    organization_id = _required("organization_id", envelope.organization_id)
    subject_id = _required("data.id", envelope.subject_id)
    if envelope.occurred_at is None:
        raise Unreadable("occurred_at is missing, or is not an RFC 3339 time of the years 1678 to 2262.")
    if envelope.occurred_at > (sent_at + MAX_AHEAD_SECONDS) * 10**9:
        raise Unreadable("occurred_at lies more than 5 minutes in the future.")
    if environment_id is not None and document.get("environment_id") != environment_id:
        raise Unreadable("The event is of another environment than PROVISIONING_ENVIRONMENT_ID.")
    data = document["data"]
    assert isinstance(data, dict)  # noqa: S101 (its id was read above)
    _check(kind, data)
    digits = re.fullmatch(r"evt_([0-9]+)", event_id)
    version = Version(1, envelope.occurred_at, int(digits[1]) if digits else 0, kind.rank, digest(data))
    return Event(kind, organization_id, subject_id, version, data)


def listed(
    kind: EventType,
    organization_id: str,
    subject_id: str,
    occurred_at: int,
    data: dict[str, Json],
    *,
    hints: dict[str, Json] | None = None,
    inferred: bool = False,
) -> Event:
    """The event that a listing of a directory at `occurred_at` (nanoseconds since 1970) amounts to. Nobody sent it, so it has no id.

    Of one listing, what is inferred wins over what is stated. Raises Unreadable where no webhook could say this.
    """
    text = bodies.canonical(data)
    deep = text.count("{") + text.count("[") > bodies.MAX_DEPTH
    if (deep or _SUSPECT.search(text)) and (problem := bodies.problem(data)):  # which takes longer
        raise Unreadable(problem)
    if not (is_id(organization_id) and is_id(subject_id)):
        raise Unreadable(f"An id is not a text of at most {MAX_ID_BYTES} bytes.")
    _check(kind, data)
    return Event(
        kind, organization_id, subject_id, Version(1, occurred_at, int(inferred), kind.rank, digest(data)), data, hints or {}, inferred
    )


_SUSPECT = re.compile(r"\\u0000|[\ud800-\udfff]|[0-9]{300}")  # characters and numbers that `bodies.problem` might object to


def _check(kind: EventType, data: dict[str, Json]) -> None:
    try:
        _DATA[kind].model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        words = _WORDS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        raise Unreadable(f"data.{'.'.join(str(part) for part in first['loc'])}: {words}.") from None


def _required(field: str, value: str | None) -> str:
    if value is None:
        raise Unreadable(f"{field} is missing, or is not a text of at most {MAX_ID_BYTES} bytes.")
    return value


_WORDS = {
    "string_type": "should be a text",
    "bool_type": "should be true or false",
    "list_type": "should be a list",
    "model_type": "should be an object",
}


def _short(text: str) -> str:
    if len(text.encode()) > MAX_ID_BYTES:
        raise ValueError(f"longer than {MAX_ID_BYTES} bytes")
    return text


_Short = Annotated[str, AfterValidator(_short)]


class _Data(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


class _GroupRef(_Data):
    id: _Short | None = None
    name: str | None = None


class _RoleRef(_Data):
    role_name: _Short | None = None


class _UserData(_Data):
    email: _Short | None = None
    dp_id: _Short | None = None
    directory_id: _Short | None = None
    preferred_username: str | None = None
    name: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    active: bool | None = None
    groups: list[_GroupRef | None] | None = None
    roles: list[_RoleRef | None] | None = None


class _GoneData(_Data):
    """Of a leaver only what is kept as a hint: nothing else in it may keep somebody's access."""

    email: _Short | None = None
    dp_id: _Short | None = None
    directory_id: _Short | None = None


class _GroupData(_Data):
    directory_id: _Short | None = None
    external_id: _Short | None = None
    dp_id: _Short | None = None
    display_name: str | None = None
    name: str | None = None


class _DirectoryData(_Data):
    provider: str | None = None
    directory_type: str | None = None


_DATA: dict[str, type[_Data]] = {
    kind: _UserData if ".user_" in kind else _GroupData if ".group_" in kind else _DirectoryData for kind in EventType
} | {EventType.USER_DELETED: _GoneData}
