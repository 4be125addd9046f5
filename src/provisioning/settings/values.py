"""How each kind of setting is read: what a good value is, and the words for a bad one.

Each reader raises ValueError with what follows the variable's name in the line that stops the start; none quotes a secret.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from provisioning.settings import demo

_MIN_WEBHOOK_KEY_BYTES = 24  # as the standard asks; an empty key would verify whatever anybody signs
_PLACEHOLDER = re.compile(r"(?i)[<>*…]|\.\.\.|x{8}|your[_-]|placeholder|(?:change|replace)[_-]?me|(?:your|webhook)[_-]?secret")
_MIN_API_KEY_CHARACTERS = 32
_API_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}")  # shorter than any key: a swapped `key:name` puts no key into the logs
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f.]*:[0-9a-f:.]*")
_HOST_PATTERN = re.compile(r"\*|(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
# Printed by providers for other clients (Prisma, node-postgres, asyncpg); libpq refuses what it does not know.
_NOT_LIBPQ = {"pgbouncer", "connection_limit", "pool_timeout", "schema", "supa", "workaround", "uselibpqcompat", "statement_cache_size"}


class Scope(StrEnum):
    """What an API key may do."""

    READ = "read"
    PORTAL = "portal"
    OPERATE = "operate"


@dataclass(frozen=True)
class ApiKey:
    """A bearer key of a backend or an operator: its name for logs and audit, and its SHA-256, never the key itself; `demo`: demo.py."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes = field(repr=False)
    demo: str | None = None


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _refuse_quotes(text: str) -> None:
    """Shells take quotes away, `docker run --env-file` does not."""
    if text[:1] in {'"', "'"} or text[-1:] in {'"', "'"}:
        raise ValueError("has quotes around it; leave them out")


def _webhook_secret(secret: SecretStr) -> SecretStr:
    """The secret, when the library will decode it to the key that Scalekit meant (to it `whsec_...` is an empty key: scalekit.md)."""
    text = secret.get_secret_value()
    _refuse_quotes(text)
    encoded = text.removeprefix("whsec_")
    if text in {"v1", "v1a"}:
        raise ValueError("has the prefix `v1,`, which belongs to signatures; paste the part from `whsec_` on")
    if _PLACEHOLDER.search(encoded):
        raise ValueError("is a placeholder; copy the endpoint's signing secret from Scalekit's dashboard")
    if encoded == text:
        raise ValueError("does not start with `whsec_`")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64 after `whsec_`; copy the whole secret from Scalekit's dashboard") from None
    if len(key) < _MIN_WEBHOOK_KEY_BYTES:
        raise ValueError(f"is too short: it decodes to {len(key)} bytes, and {_MIN_WEBHOOK_KEY_BYTES} are the least; copy the whole secret")
    if len(set(key)) < 5:
        raise ValueError("is a placeholder of a few repeated bytes; copy the endpoint's signing secret from Scalekit's dashboard")
    return secret


def _api_key(entry: str, number: int) -> ApiKey:
    *labels, key = entry.split(":")
    if len(labels) > 2:
        raise ValueError(f"has an entry of more than three parts (entry {number}); a key contains no colon")
    if len(key) < _MIN_API_KEY_CHARACTERS:
        raise ValueError(f"has a key of fewer than {_MIN_API_KEY_CHARACTERS} characters (entry {number})")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"has a key with characters that no HTTP header carries (entry {number})")
    if _PLACEHOLDER.search(key) or len(set(key)) < 4:
        raise ValueError(f"has a placeholder for a key (entry {number})")
    _refuse_quotes(entry)
    name = labels[0] if labels else f"key{number}"
    if not _API_KEY_NAME.fullmatch(name):
        raise ValueError(f"has a name that is not 1 to 31 letters, digits, dots, dashes and underscores (entry {number})")
    try:
        scopes = frozenset(map(Scope, labels[1].split("+"))) if len(labels) == 2 else frozenset(Scope)
    except ValueError:
        raise ValueError(f"has a scope that is none of {', '.join(Scope)} (entry {number})") from None
    return ApiKey(name, scopes, hashlib.sha256(key.encode()).digest(), demo.why(key))


def _api_keys(value: object) -> object:
    if not isinstance(value, str):
        return value
    keys = [_api_key(entry, number) for number, entry in enumerate(value.replace(",", " ").split(), start=1)]
    for what, different in (("name", {key.name for key in keys}), ("key", {key.digest for key in keys})):
        if len(different) < len(keys):
            raise ValueError(f"has the same {what} twice")
    return keys


def _database_url(secret: SecretStr) -> SecretStr:
    """The URL as SQLAlchemy takes it: psycopg named, and without the parameters that providers print for other clients."""
    try:
        url = make_url(secret.get_secret_value())
    except (ArgumentError, ValueError):  # its message may quote the URL, password and all
        raise ValueError("is not a database URL") from None
    if url.drivername in {"sqlite", "sqlite+pysqlite"}:
        if url.host:
            raise ValueError("has two slashes where SQLite needs three (four for an absolute path)")
        if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
            raise ValueError("is an in-memory SQLite database, of which every connection would see another one")
        return secret
    if url.drivername not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ValueError("asks for a driver other than PostgreSQL's psycopg or SQLite; name no driver")
    query = {name: value for name, value in url.query.items() if name not in _NOT_LIBPQ}
    if query.pop("ssl", None) == "true" or query.get("sslmode") == "no-verify":  # in the words of node-postgres
        query["sslmode"] = "require"
    if url.port is not None and not 0 < url.port < 65_536:
        raise ValueError("has a port that is none")
    return SecretStr(url.set(drivername="postgresql+psycopg", query=query).render_as_string(hide_password=False))


def _url(text: str) -> tuple[SplitResult, str, int | None]:
    try:
        url = urlsplit(text)
        return url, url.hostname or "", url.port
    except ValueError:  # its message quotes the text
        raise ValueError("is not a URL") from None


def _origin(text: str) -> str:
    """`scheme://host[:port]` as a browser writes it in `Origin`: lower case, no default port, no slash (RFC 6454, section 6.2)."""
    url, host, port = _url(text)
    if "*" in text:
        raise ValueError("has a wildcard; name each origin")
    if url.scheme not in {"https", "http"} or not host:
        raise ValueError("does not start with https:// (or http:// for development)")
    if url.path not in {"", "/"} or url.query or url.fragment or "@" in url.netloc:
        raise ValueError("has more than a scheme, a host and a port")
    if not _HOST.fullmatch(host):
        raise ValueError("has a host that is no ASCII host name (an international one is written in its xn-- form)")
    default_port = {"https": 443, "http": 80}[url.scheme]
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}{'' if port in {None, default_port} else f':{port}'}"


def _https_origin(text: str) -> str:
    if not text.lower().startswith("https://"):
        raise ValueError("does not start with https://")
    return _origin(text)


def _key_set_url(text: str) -> str:
    url, host, _ = _url(text)
    if not host or not (url.scheme == "https" or (url.scheme == "http" and is_loopback(host))):
        raise ValueError("is not an https:// URL, and keys fetched over plain HTTP are anybody's")
    return text


def is_loopback(host: str | None) -> bool:
    """Whether whoever calls this host calls the machine that it is on."""
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _network(text: object) -> object:
    try:
        return ip_network(text) if isinstance(text, str) else text
    except ValueError:
        raise ValueError("is not a network: an address, a slash and a number of bits, such as 10.0.0.0/8") from None


def _host_pattern(text: str) -> str:
    if not _HOST_PATTERN.fullmatch(text):
        raise ValueError("is not a host name without scheme and port (`*.` may stand before it)")
    return text.lower()


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", value)
    if not match:
        raise ValueError("is not a duration: a whole number and s, m, h or d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _interval(value: object) -> object:
    return None if value == "off" else _duration(value)


def _patience(value: object) -> object:
    """How long the people of a disabled directory stay as they are: None for ever."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"freeze|deactivate-after:([1-9][0-9]{0,3})", value)
    if not match:
        raise ValueError("is neither freeze nor deactivate-after: and a number of days, at least one")
    return None if match[1] is None else timedelta(days=int(match[1]))


WebhookSecrets = Annotated[tuple[Annotated[SecretStr, AfterValidator(_webhook_secret)], ...], BeforeValidator(_words)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_words)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host_pattern)], ...], BeforeValidator(_words)]
Networks = Annotated[tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)], ...], BeforeValidator(_words)]
Duration = Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(days=365)), BeforeValidator(_duration)]
Interval = Annotated[Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(days=365))] | None, BeforeValidator(_interval)]
Patience = Annotated[Annotated[timedelta, Field(ge=timedelta(0))] | None, BeforeValidator(_patience)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
HttpsOrigin = Annotated[str, AfterValidator(_https_origin)]
KeySetUrl = Annotated[str, AfterValidator(_key_set_url)]
ApiKeys = Annotated[tuple[ApiKey, ...], BeforeValidator(_api_keys)]
