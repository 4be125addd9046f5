"""Portal links as Scalekit makes them: opened once, within a minute."""

import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LIFETIME = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class MadeLink:
    """What a link stands for."""

    id: str
    organization_id: str
    features: tuple[str, ...]
    expires_at: datetime


class Links:
    """The links that wait to be opened, and the ids of those that were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, MadeLink] = {}
        self._past: set[str] = set()

    def make(self, organization_id: str, features: tuple[str, ...]) -> MadeLink:
        """A new link, different from every other."""
        link = MadeLink(str(uuid.uuid4()), organization_id, features, datetime.now(UTC) + LIFETIME)
        with self._lock:
            self._waiting[link.id] = link
        return link

    def open(self, link_id: str) -> MadeLink | None:
        """The link, the first time it is asked for and before it expires; else None."""
        with self._lock:
            link = self._waiting.pop(link_id, None)
            if link:
                self._past.add(link_id)
        return link if link and datetime.now(UTC) < link.expires_at else None

    def is_past(self, link_id: str) -> bool:
        """Whether there was such a link, and opening it was tried."""
        with self._lock:
            return link_id in self._past
