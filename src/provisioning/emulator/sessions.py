"""Sessions of the admin portal: each begins with a link, lasts six hours, and is kept in memory alone."""

import secrets
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from provisioning.errors import ProvisioningError

LIFETIME = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Session:
    """What a link was opened to: an organization, and what may be done there."""

    organization_id: str
    features: tuple[str, ...]
    expires_at: datetime
    secret: str = field(repr=False)

    @property
    def over(self) -> bool:
        """Whether nothing may be done any more."""
        return datetime.now(UTC) >= self.expires_at


class SessionOver(ProvisioningError):
    """There is no such session, or no more."""


class Sessions:
    """Those that were begun, by their secrets. Whoever has the secret has the session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def begin(self, organization_id: str, features: tuple[str, ...]) -> Session:
        """A new one."""
        session = Session(organization_id, features, datetime.now(UTC) + LIFETIME, secrets.token_urlsafe(32))
        with self._lock:
            self._sessions[session.secret] = session
        return session

    def find(self, secret: str) -> Session:
        """The session of this secret, also when it is over. Raises SessionOver, when there is none."""
        with self._lock:
            return self._found(secret)

    def shorten(self, secret: str, ends: datetime) -> Session:
        """The session, which lasts to `ends` at the longest. Raises SessionOver, when there is none."""
        with self._lock:
            session = self._found(secret)
            self._sessions[secret] = replace(session, expires_at=min(session.expires_at, ends))
            return self._sessions[secret]

    def _found(self, secret: str) -> Session:
        if secret not in self._sessions:
            raise SessionOver("There is no such session: sessions end with the emulator.")
        return self._sessions[secret]
