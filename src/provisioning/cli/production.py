"""What is for trying things on one machine is refused where others are in reach of it."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from sqlalchemy.engine import URL, make_url

from provisioning.errors import ConfigurationError
from provisioning.settings import Settings, demo
from provisioning.settings.values import is_loopback


def refuse_demo(settings: Settings, host: str) -> None:
    """Raises ConfigurationError, a line for each, where what keeps nobody out would be used beyond this machine: by a service that listens
    on another address than loopback's, or whose PostgreSQL is elsewhere.
    """
    if (beyond := _beyond(settings, host)) and (lines := [f"{each}, and {beyond}." for each in demo_secrets(settings)]):
        raise ConfigurationError("\n".join(lines))


def demo_secrets(settings: Settings) -> Iterator[str]:
    """What is only good for trying things, in words, with what to do instead; without the values."""
    for number, secret in enumerate(settings.scalekit_webhook_secrets, start=1):
        if why := demo.why(secret.get_secret_value()):
            yield f"SCALEKIT_WEBHOOK_SECRET (entry {number}) {why}: copy the endpoint's from Scalekit's dashboard"
    for key in settings.api_keys:
        if key.demo:
            yield f"PROVISIONING_API_KEYS has {key.name}, which {key.demo}: make another, `secrets.token_urlsafe(32)` in Python does"
    url = settings.scalekit_environment_url
    if url and is_loopback(urlsplit(url).hostname):
        yield "SCALEKIT_ENVIRONMENT_URL is a local Scalekit's: take the one that Scalekit's dashboard shows"


def _beyond(settings: Settings, host: str) -> str | None:
    """Why others are in reach, if they are."""
    if not is_loopback(host):
        return f"this service would listen on {host}, for other machines"
    url = make_url(settings.database_url.get_secret_value())
    if url.get_backend_name() != "sqlite" and _leads_elsewhere(url):
        return "its PostgreSQL is on another machine"
    return None


def _leads_elsewhere(url: URL) -> bool:
    """Whether libpq would try another machine. A host that is a folder, or none, is a socket of this one; a service may be anywhere."""
    hosts = _given(url, "host", "PGHOST") + _given(url, "hostaddr", "PGHOSTADDR")
    return bool(_given(url, "service", "PGSERVICE")) or not all(is_loopback(each) for each in hosts if not each.startswith(("/", "@")))


def _given(url: URL, option: str, variable: str) -> list[str]:
    """What the URL says of this option of libpq's, or else the environment."""
    said = url.query.get(option, ())
    named = [said] if isinstance(said, str) else [*said]
    if option == "host" and url.host:
        named.append(url.host)
    return [each for name in named or [os.environ.get(variable, "")] for each in name.split(",") if each]
