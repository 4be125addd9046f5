"""Every environment variable of the service: typed, checked at the start, and no secret ever shown.

`load_settings()` reads the environment over `.env`; any variable may come from the file that `NAME_FILE` names, and an empty one counts as
unset. A value that cannot be right stops the start with one line: which variable, why, and what a good one looks like.
"""

import base64
import binascii
import difflib
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from provisioning.errors import ConfigurationError

LinkUsersByEmail = Literal["live", "always", "never"]

_MIN_WEBHOOK_KEY_BYTES = 24  # as the standard asks; an empty key would verify whatever anybody signs
_PLACEHOLDER = re.compile(r"(?i)[<>*…]|\.\.\.|xxxx|your[_-]|placeholder|(?:change|replace)[_-]?me|(?:your|webhook)[_-]?secret")
_MIN_API_KEY_CHARACTERS = 32
_API_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}")  # shorter than any key: a swapped `key:name` puts no key into the logs
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f.]*:[0-9a-f:.]*")
_HOST_PATTERN = re.compile(r"\*|(\*\.)?[A-Za-z0-9._-]+")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# Printed by providers for other clients (Prisma, node-postgres, asyncpg); libpq refuses what it does not know.
_NOT_LIBPQ = {"pgbouncer", "connection_limit", "pool_timeout", "schema", "supa", "workaround", "uselibpqcompat", "statement_cache_size"}
# What Kubernetes puts into every pod beside a Service named provisioning or provisioning-…: not ours, and no typing error.
_KUBERNETES = re.compile(r"PROVISIONING_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)?)")
_SHOWABLE = re.compile(r"[\w.,:/+*%-]{1,24}")  # a wrong value helps its owner; a longer one may be a secret in the wrong place


class Scope(StrEnum):
    """What an API key may do."""

    READ = "read"
    PORTAL = "portal"
    OPERATE = "operate"


@dataclass(frozen=True)
class ApiKey:
    """A bearer key of a backend or an operator: its name for logs and audit, and its SHA-256, never the key itself."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes = field(repr=False)


# How a value is read. Each raises ValueError with the words that follow the variable's name in the line that stops the start.


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _webhook_secret(secret: SecretStr) -> SecretStr:
    """The secret, when the library will decode it to the key that Scalekit meant (to it `whsec_...` is an empty key: scalekit.md)."""
    text = secret.get_secret_value()
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
    name = labels[0] if labels else f"key{number}"
    if not _API_KEY_NAME.fullmatch(name):
        raise ValueError(f"has a name that is not 1 to 31 letters, digits, dots, dashes and underscores (entry {number})")
    try:
        scopes = frozenset(map(Scope, labels[1].split("+"))) if len(labels) == 2 else frozenset(Scope)
    except ValueError:
        raise ValueError(f"has a scope that is none of {', '.join(Scope)} (entry {number})") from None
    return ApiKey(name, scopes, hashlib.sha256(key.encode()).digest())


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
    if query.pop("ssl", None) == "true":
        query.setdefault("sslmode", "require")
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
    if not host or not (url.scheme == "https" or (url.scheme == "http" and host in _LOOPBACK)):
        raise ValueError("is not an https:// URL, and keys fetched over plain HTTP are anybody's")
    return text


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


_WebhookSecrets = Annotated[tuple[Annotated[SecretStr, AfterValidator(_webhook_secret)], ...], BeforeValidator(_words)]
_Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
_Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_words)]
_Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host_pattern)], ...], BeforeValidator(_words)]
_Duration = Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(days=365)), BeforeValidator(_duration)]
_Interval = Annotated[Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(days=365))] | None, BeforeValidator(_interval)]


# The variables.--


def _variable(name: str, default: str | None, description: str, example: str, *, secret: bool = False, derive: Any = None) -> Any:
    """A field that is read from the variable `name`. Its default is written as in `.env`, and checked like any value.

    `derive` computes the default from the fields above; `default` then says how.
    """
    return Field(
        default_factory=derive or (lambda: default),
        validation_alias=name,
        description=description,
        examples=[example],
        json_schema_extra={"default": default, "secret": secret},
    )


def _portal_origins(above: dict[str, Any]) -> tuple[str, ...]:
    origin = above.get("scalekit_environment_url")
    return (origin,) if origin else ()


def _jwks_url(above: dict[str, Any]) -> str | None:
    origin = above.get("scalekit_environment_url")
    return f"{origin}/keys" if origin else None


class Settings(BaseSettings):
    """The settings of one process. A keyword argument, by attribute or variable name, wins over the environment, and that over `.env`."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_file=".env",
        env_file_encoding="utf-8",
        case_sensitive=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_by_alias=True,
        validate_by_name=True,
        validate_default=True,
    )

    scalekit_environment_url: Annotated[str, AfterValidator(_https_origin)] | None = _variable(
        "SCALEKIT_ENVIRONMENT_URL", None, "The environment's URL, as Scalekit's dashboard shows it.", "https://acme.scalekit.com"
    )
    scalekit_client_id: str | None = _variable(
        "SCALEKIT_CLIENT_ID", None, "API credentials; webhooks work without.", "skc_12345678901234567"
    )
    scalekit_client_secret: SecretStr | None = _variable(
        "SCALEKIT_CLIENT_SECRET", None, "API credentials; webhooks work without.", "the one that Scalekit's dashboard shows", secret=True
    )
    scalekit_webhook_secrets: _WebhookSecrets = _variable(
        "SCALEKIT_WEBHOOK_SECRET",
        "",
        "The endpoint's signing secret; several while one is rotated.",
        "whsec_ and 32 or more letters",
        secret=True,
    )
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = _variable(
        "DATABASE_URL",
        "sqlite:///provisioning.db",
        "SQLite, or PostgreSQL as every provider prints it.",
        "postgresql://user:password@host:5432/database or sqlite:///provisioning.db",
        secret=True,
    )
    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(_api_keys)] = _variable(
        "PROVISIONING_API_KEYS",
        "",
        "Bearer keys of backends and operators: key, name:key or name:scopes:key, scopes joined by + out of read, portal, operate.",
        "backend:read+portal:<32 or more random characters>",
        secret=True,
    )
    jwt_issuer: str | None = _variable(
        "PROVISIONING_JWT_ISSUER", None, "With the audience: browsers may call with their own token.", "https://acme.scalekit.com"
    )
    jwt_audience: str | None = _variable(
        "PROVISIONING_JWT_AUDIENCE", None, "What `aud` of such a token must name.", "skc_12345678901234567"
    )
    jwt_jwks_url: Annotated[str, AfterValidator(_key_set_url)] | None = _variable(
        "PROVISIONING_JWT_JWKS_URL",
        "Scalekit's /keys",
        "Where the keys of such tokens are.",
        "https://acme.scalekit.com/keys",
        derive=_jwks_url,
    )
    jwt_organization_claim: str = _variable("PROVISIONING_JWT_ORGANIZATION_CLAIM", "oid", "The claim that names the organization.", "oid")
    jwt_roles_claim: str = _variable("PROVISIONING_JWT_ROLES_CLAIM", "roles", "The claim that names the roles.", "roles")
    portal_roles: _Words = _variable("PROVISIONING_PORTAL_ROLES", "admin", "Any of these roles may open the portal.", "admin,it-admin")
    allowed_origins: _Origins = _variable("PROVISIONING_ALLOWED_ORIGINS", "", "Browser origins for CORS.", "https://app.example.com")
    portal_origins: _Origins = _variable(
        "PROVISIONING_PORTAL_ORIGINS",
        "the origin of SCALEKIT_ENVIRONMENT_URL",
        "Where the portal's pages come from; a custom domain goes here.",
        "https://auth.example.com",
        derive=_portal_origins,
    )
    link_users_by_email: LinkUsersByEmail = _variable(
        "PROVISIONING_LINK_USERS_BY_EMAIL",
        "live",
        "Whether a new directory user joins the user of the same e-mail: live, always or never.",
        "live",
    )
    environment_id: str | None = _variable(
        "PROVISIONING_ENVIRONMENT_ID", None, "When set, another environment's events are dead-lettered.", "env_123456"
    )
    max_body_bytes: Annotated[int, Field(ge=1)] = _variable(
        "PROVISIONING_MAX_BODY_BYTES", "1048576", "The longest webhook body.", "1048576"
    )
    max_deactivation_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = _variable(
        "PROVISIONING_MAX_DEACTIVATION_SHARE", "0.2", "A reconciliation that would deactivate more of an organization asks first.", "0.2"
    )
    reconcile_interval: _Interval = _variable("PROVISIONING_RECONCILE_INTERVAL", "off", "How often every organization is reconciled.", "6h")
    clock_margin: _Duration = _variable("PROVISIONING_CLOCK_MARGIN", "60s", "Subtracted from the start of a listing for its writes.", "60s")
    late_event_margin: _Duration = _variable(
        "PROVISIONING_LATE_EVENT_MARGIN", "15m", "Subtracted from the start of a listing for the mark.", "15m"
    )
    scalekit_calls_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = _variable(
        "PROVISIONING_SCALEKIT_CALLS_PER_SECOND", "20", "The most calls of one process to Scalekit's API.", "20"
    )
    max_waiting_deliveries: Annotated[int, Field(ge=1)] = _variable(
        "PROVISIONING_MAX_WAITING_DELIVERIES", "2000", "Beyond these a webhook is answered 503, and Scalekit sends it again.", "2000"
    )
    payload_retention_days: Annotated[int, Field(ge=1)] = _variable(
        "PROVISIONING_PAYLOAD_RETENTION_DAYS", "30", "How long payloads are kept.", "30"
    )
    allowed_hosts: _Hosts = _variable(
        "PROVISIONING_ALLOWED_HOSTS", "", "Host names that requests may be for; none: any.", "provisioning.example.com"
    )
    metrics_public: bool = _variable("PROVISIONING_METRICS_PUBLIC", "false", "Whether /metrics is open to everybody.", "false")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if bool(self.jwt_issuer) != bool(self.jwt_audience):
            one, other = ("ISSUER", "AUDIENCE") if self.jwt_issuer else ("AUDIENCE", "ISSUER")
            raise ValueError(
                f"PROVISIONING_JWT_{one} is set without PROVISIONING_JWT_{other}, and tokens are checked against both. Set both."
            )
        return self

    def require_webhook_secrets(self) -> tuple[SecretStr, ...]:
        """Return the webhook secrets, at least one. Raises ConfigurationError when there is none: whoever receives or sends needs it."""
        if not self.scalekit_webhook_secrets:
            raise ConfigurationError(
                "SCALEKIT_WEBHOOK_SECRET is not set, and no webhook can be verified without it. "
                "Copy the signing secret of your endpoint from Scalekit's dashboard; it looks like whsec_ and 32 or more letters."
            )
        return self.scalekit_webhook_secrets

    def find_api_key(self, token: str) -> ApiKey | None:
        """Return the API key that `token` is, if any. The time taken says nothing about how close it came, nor to which key."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        found = [key for key in self.api_keys if hmac.compare_digest(key.digest, digest)]
        return found[0] if found else None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then what is set: pydantic-settings' own sources know no `NAME_FILE`, and would read a list as JSON."""
        dotenv = dotenv_settings.env_vars if isinstance(dotenv_settings, DotEnvSettingsSource) else {}
        return init_settings, _Environment(settings_cls, {**_given(dotenv), **_given(os.environ)})


@dataclass(frozen=True)
class Variable:
    """What the documentation says of one variable; `default` is written as in `.env`, or says where it comes from."""

    name: str
    attribute: str
    default: str
    description: str
    example: str
    secret: bool


def _documented(attribute: str, info: FieldInfo) -> Variable:
    extra = cast(dict[str, Any], info.json_schema_extra)
    example = (info.examples or [""])[0]
    return Variable(str(info.validation_alias), attribute, extra["default"] or "", info.description or "", example, extra["secret"])


VARIABLES = {variable.name: variable for variable in (_documented(*item) for item in Settings.model_fields.items())}
"""Every variable that the service reads, by name, in the order of the documentation."""


# Reading them.


def load_settings() -> Settings:
    """Return the settings of the environment and `.env`.

    Raises ConfigurationError, one line for each variable that cannot be right; a value is quoted only where it can be no secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines: dict[object, str] = {}  # the first of each variable
        for details in error.errors():
            if details["type"] != "default_factory_not_called":  # a default that hangs on a variable which has a line of its own
                lines.setdefault(details["loc"][:1], _line(details))
        raise ConfigurationError("\n".join(lines.values())) from None
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(".env cannot be read as UTF-8 text.") from None


def _line(error: ErrorDetails) -> str:
    why = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"].replace("Input ", "", 1).split(", unable")[0]
    if not error["loc"]:
        return why
    name, *entry = error["loc"]
    variable = next(variable for variable in VARIABLES.values() if name in {variable.name, variable.attribute})
    value = error["input"]
    shown = f"={value}" if isinstance(value, str) and _SHOWABLE.fullmatch(value) and not variable.secret else ""
    where = f" (entry {entry[0] + 1})" if entry and isinstance(entry[0], int) else ""
    return f"{variable.name}{shown}{where} {why}. A good one: {variable.example}"


def _given(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value.strip() for name, value in variables.items() if value and value.strip()}


class _Environment(PydanticBaseSettingsSource):
    """What is set, whether as NAME or through NAME_FILE. A name of ours that does not exist would be a setting silently not made."""

    def __init__(self, settings_cls: type[BaseSettings], given: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._given = given

    def __call__(self) -> dict[str, Any]:
        for name in self._given:
            if name.startswith("PROVISIONING_") and name.removesuffix("_FILE") not in VARIABLES and not _KUBERNETES.fullmatch(name):
                near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.8)
                raise ConfigurationError(f"{name} is not a setting. {f'Did you mean {near[0]}?' if near else 'The README lists them all.'}")
        found = [self.get_field_value(info, attribute) for attribute, info in Settings.model_fields.items()]
        return {name: value for value, name, _ in found if value is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = str(field.validation_alias)
        path = self._given.get(f"{name}_FILE")
        if path is None:
            return self._given.get(name), name, False
        if name in self._given:
            raise ConfigurationError(f"{name} and {name}_FILE are both set. Keep one.")
        return _content(name, path), name, False


def _content(name: str, path: str) -> str:
    """The file's text. A path is not quoted: it may be the secret itself, given under the wrong name."""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigurationError(f"{name}_FILE cannot be read: {reason}. A good one: /run/secrets/{name.lower()}") from None
    if not text:
        raise ConfigurationError(f"{name}_FILE names an empty file, which should hold {name}.")
    return text
