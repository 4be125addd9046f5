"""Where webhooks go, and the secrets they are signed with."""

from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from provisioning.emulator.records import Record
from provisioning.emulator.store import Store
from provisioning.errors import ConfigurationError, Conflict
from provisioning.settings import demo


class _Secrets(Record):
    current: str
    coming: str
    rotating: bool = False


class Endpoint:
    """One URL and two secrets, of which one signs. A rotation brings the other, so a service that was given both goes through every one."""

    def __init__(self, store: Store, url: str, *, anywhere: bool = False) -> None:
        """Raises ConfigurationError when `url` is no web address, or none of this machine's and not `anywhere`."""
        self.url = checked(url, anywhere=anywhere)
        self._store = store
        kept = store.load(_Secrets)
        self._secrets = kept[0] if kept else _Secrets(id="secrets", current=demo.new_webhook_secret(), coming=demo.new_webhook_secret())
        self._store.save([self._secrets])

    @property
    def origin(self) -> str:
        """Of the service that gets them."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def secrets(self) -> tuple[str, str]:
        """What a service should accept: the current secret, and the one after it."""
        return self._secrets.current, self._secrets.coming

    @property
    def signing(self) -> tuple[str, ...]:
        """What deliveries are signed with: during a rotation, both."""
        return self.secrets if self.rotating else (self._secrets.current,)

    @property
    def rotating(self) -> bool:
        """Whether a rotation has begun and not ended."""
        return self._secrets.rotating

    def begin_rotation(self) -> None:
        """Sign with both. Raises Conflict."""
        if self.rotating:
            raise Conflict("A rotation has begun already: finish it.")
        self._keep(self._secrets.model_copy(update={"rotating": True}))

    def finish_rotation(self) -> None:
        """Sign with the new one only; the next rotation goes back to the old one. Raises Conflict."""
        if not self.rotating:
            raise Conflict("No rotation has begun: start one first.")
        self._keep(_Secrets(id="secrets", current=self._secrets.coming, coming=self._secrets.current))

    def _keep(self, kept: _Secrets) -> None:
        self._store.save([kept])
        self._secrets = kept


def checked(url: str, *, anywhere: bool) -> str:
    """`url`, if webhooks may be sent there. Raises ConfigurationError."""
    try:
        httpx.URL(url)
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except (ValueError, httpx.InvalidURL):
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigurationError("The address to deliver to should look like http://127.0.0.1:8000/webhooks/scalekit.")
    if not anywhere and not _is_loopback(host):
        raise ConfigurationError(f"{host} is not this machine. To send made-up people there nevertheless, add --anywhere.")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
