"""The admin portal as Scalekit has it: a link for a known organization is opened once, within a minute, and makes a session of six hours.

Whoever holds a session's secret switches that one organization's directories and single sign-on.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from provisioning.emulator import ui_events
from provisioning.emulator.company import Company
from provisioning.emulator.links import Links, MadeLink
from provisioning.emulator.records import Directory, Provider
from provisioning.emulator.sessions import Session, SessionOver, Sessions
from provisioning.emulator.structure import Structure
from provisioning.emulator.ui_events import UiEvent
from provisioning.errors import ConfigurationError, Conflict, NotFound, ProvisioningError
from provisioning.settings.values import Origins

DIRECTORY_SYNC, SINGLE_SIGN_ON = FEATURES = ("dir_sync", "sso")

_ORIGINS: TypeAdapter[tuple[str, ...]] = TypeAdapter(Origins)


class Dialect(StrEnum):
    """How UI events are worded."""

    OFFICIAL = "official"
    GUIDE = "guide"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an act comes to: what the page around the portal hears of it, and what the portal shows now; None: the session is over."""

    events: list[UiEvent]
    state: dict[str, object] | None = None


class LinkRefused(ProvisioningError):
    """No such link, or one that is used or too old (`gone`)."""

    def __init__(self, message: str, *, gone: bool) -> None:
        super().__init__(message)
        self.gone = gone


class Barred(ProvisioningError):
    """The link was made for something else."""


class Portal:
    """The portal at `origin`. `embedding_origins` may show it in a frame and hear what happens in it, worded in `dialect`."""

    def __init__(self, company: Company, structure: Structure, origin: str, embedding_origins: Collection[str] = ()) -> None:
        self.links = Links()
        self.dialect = Dialect.OFFICIAL
        self.embedding_origins = embedding_origins
        self._company = company
        self._structure = structure
        self._origin = origin
        self._sessions = Sessions()
        self._switching = threading.Lock()  # two who add a directory at once would otherwise add two

    @property
    def embedding_origins(self) -> tuple[str, ...]:
        """Each as a browser writes it. To set others: whatever else raises ConfigurationError."""
        return self._embedding_origins

    @embedding_origins.setter
    def embedding_origins(self, origins: Collection[str]) -> None:
        try:
            self._embedding_origins = _ORIGINS.validate_python(tuple(origins))  # they go into a header
        except ValidationError as error:
            raise ConfigurationError("An origin that embeds the portal should look like https://app.example.com.") from error

    def make_link(self, organization_id: str, features: tuple[str, ...]) -> MadeLink:
        """A link to some of FEATURES, or to all of them when none is named. Raises NotFound."""
        if organization_id not in {each.id for each in self._company.organizations()}:
            raise NotFound("There is no such organization.")
        return self.links.make(organization_id, features)

    def location(self, link: MadeLink) -> str:
        """Where a browser opens the link."""
        return f"{self._origin}/magicLink/{link.id}"

    def open(self, link_id: str) -> Session:
        """A new session. Raises LinkRefused."""
        link = self.links.open(link_id)
        if not link:
            if self.links.is_past(link_id):
                raise LinkRefused("It was used before, or not within a minute. Reload the page around it for a new one.", gone=True)
            raise LinkRefused("It is not one that this emulator made since it was started.", gone=False)
        features = tuple(feature for feature in FEATURES if feature in link.features) or FEATURES
        return self._sessions.begin(link.organization_id, features)

    def session(self, secret: str) -> Session:
        """The session of this secret. Raises SessionOver."""
        session = self._sessions.find(secret)
        if session.over:
            raise SessionOver("This session has ended.")
        return session

    def loaded(self, session: Session) -> Answer:
        """What the page starts with. Raises NotFound."""
        return self._answer(session, ui_events.loaded)

    def look(self, secret: str) -> Answer:
        """How things are. Raises NotFound, SessionOver."""
        return Answer([], self._state(self._sessions.find(secret)))

    def refused(self, refusal: LinkRefused) -> Answer:
        """What the page of a refused link tells the page around it."""
        return Answer(self._worded([ui_events.not_loaded("SESSION_EXPIRED" if refusal.gone else "INVALID_LINK")]))

    def lost(self, secret: str) -> Answer:
        """What somebody gets whose session is over."""
        try:
            return self.expire(secret)
        except SessionOver:
            return Answer(self._worded([ui_events.not_loaded("SESSION_EXPIRED")]))

    def switch_directory(self, session: Session, provider: Provider, enabled: bool) -> Answer:
        """Enable a provider's directory, adding it when there is none, or disable it. Raises Barred, Conflict, NotFound."""
        self._check(session, DIRECTORY_SYNC)
        with self._switching:
            switched = self._switched(session.organization_id, provider, enabled)
        return Answer(self._worded([ui_events.directory_switched(each) for each in switched]), self._state(session))

    def switch_sso(self, session: Session, provider: Provider, enabled: bool) -> Answer:
        """Enable or disable single sign-on. Raises Barred, Conflict, NotFound."""
        self._check(session, SINGLE_SIGN_ON)
        with self._switching:
            if self._company.organization(session.organization_id).sso is enabled:
                raise Conflict(f"Single sign-on is {'enabled' if enabled else 'disabled'} already.")
            self._structure.set_sso(session.organization_id, on=enabled)
        event = ui_events.sso_switched(session.organization_id, provider, enabled=enabled)
        return Answer(self._worded([event]), self._state(session))

    def warn(self, session: Session) -> Answer:
        """Say that five minutes are left, and make that true. Raises NotFound."""
        warned = self._sessions.shorten(session.secret, datetime.now(UTC) + ui_events.WARNED_BEFORE)
        return self._answer(warned, ui_events.ends_soon)

    def expire(self, secret: str) -> Answer:
        """End the session, unless its time has done so. Raises SessionOver, when there is none of this secret."""
        ended = self._sessions.shorten(secret, datetime.now(UTC))
        return Answer(self._worded([ui_events.ended(ended.organization_id, ended.expires_at)]))

    def _switched(self, organization_id: str, provider: Provider, enabled: bool) -> list[Directory]:
        here = [each for each in self._company.directories(organization_id) if each.provider is provider]
        used = [each for each in here if each.enabled]
        if bool(used) is enabled:
            raise Conflict(f"Directory sync is {'enabled' if enabled else 'disabled'} already.")
        if not enabled:
            return [self._structure.disable_directory(each.id) for each in used]
        return [self._structure.enable_directory(here[-1].id) if here else self._structure.add_directory(organization_id, provider)]

    def _check(self, session: Session, feature: str) -> None:
        if feature not in session.features:
            raise Barred(f"The link was made without the feature {feature}.")

    def _answer(self, session: Session, event: Callable[[str, datetime], UiEvent]) -> Answer:
        return Answer(self._worded([event(session.organization_id, session.expires_at)]), self._state(session))

    def _worded(self, events: Sequence[UiEvent]) -> list[UiEvent]:
        if self.dialect is Dialect.OFFICIAL:
            return list(events)
        return [worded for event in events for worded in ui_events.as_in_the_guides(event)]

    def _state(self, session: Session) -> dict[str, object]:
        organization = self._company.organization(session.organization_id)
        directories = self._company.directories(organization.id)
        return {
            "organization": organization.name,
            "features": session.features,
            "expires_at": session.expires_at,
            "sso": organization.sso,
            "providers": {
                provider.value: self._provider([each for each in directories if each.provider is provider]) for provider in Provider
            },
        }

    def _provider(self, directories: Sequence[Directory]) -> dict[str, object]:
        users = sum(user.active for each in directories for user in self._company.users(each.id))
        return {"set_up": bool(directories), "enabled": any(each.enabled for each in directories), "users": users}
