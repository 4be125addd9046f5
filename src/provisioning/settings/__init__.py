"""Every environment variable of the service: typed, checked at the start, and no secret ever shown.

`load_settings()` reads the environment over `.env`; any variable may come from the file that `NAME_FILE` names, and an empty one counts as
unset. A value that cannot be right stops the start with one line: which variable, why, and what a good one looks like.
"""

import difflib
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from provisioning.errors import ConfigurationError
from provisioning.settings.values import (
    ApiKey,
    ApiKeys,
    DatabaseUrl,
    Duration,
    Hosts,
    HttpsOrigin,
    Interval,
    KeySetUrl,
    Networks,
    Origins,
    Patience,
    Scope,
    WebhookSecrets,
    Words,
)

__all__ = ["VARIABLES", "ApiKey", "LinkUsersByEmail", "Scope", "Settings", "Variable", "load_settings"]

LinkUsersByEmail = Literal["live", "always", "never"]

# What Kubernetes puts into every pod beside a Service named provisioning or provisioning-…: not ours, and no typing error.
_KUBERNETES = re.compile(r"PROVISIONING_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)?)")
_SHOWABLE = re.compile(r"[\w.,:/+*%-]{1,24}")  # a wrong value helps its owner; a longer one may be a secret in the wrong place


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

    scalekit_environment_url: HttpsOrigin | None = _variable(
        "SCALEKIT_ENVIRONMENT_URL", None, "The environment's URL, as Scalekit's dashboard shows it.", "https://acme.scalekit.com"
    )
    scalekit_client_id: str | None = _variable(
        "SCALEKIT_CLIENT_ID", None, "API credentials; webhooks work without.", "skc_12345678901234567"
    )
    scalekit_client_secret: SecretStr | None = _variable(
        "SCALEKIT_CLIENT_SECRET", None, "API credentials; webhooks work without.", "the one that Scalekit's dashboard shows", secret=True
    )
    scalekit_webhook_secrets: WebhookSecrets = _variable(
        "SCALEKIT_WEBHOOK_SECRET",
        "",
        "The endpoint's signing secret; several while one is rotated.",
        "whsec_ and 32 or more letters",
        secret=True,
    )
    database_url: DatabaseUrl = _variable(
        "DATABASE_URL",
        "sqlite:///provisioning.db",
        "SQLite, or PostgreSQL as every provider prints it.",
        "postgresql://user:password@host:5432/database or sqlite:///provisioning.db",
        secret=True,
    )
    api_keys: ApiKeys = _variable(
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
    jwt_jwks_url: KeySetUrl | None = _variable(
        "PROVISIONING_JWT_JWKS_URL",
        "Scalekit's /keys",
        "Where the keys of such tokens are.",
        "https://acme.scalekit.com/keys",
        derive=_jwks_url,
    )
    jwt_organization_claim: str = _variable("PROVISIONING_JWT_ORGANIZATION_CLAIM", "oid", "The claim that names the organization.", "oid")
    jwt_roles_claim: str = _variable("PROVISIONING_JWT_ROLES_CLAIM", "roles", "The claim that names the roles.", "roles")
    portal_roles: Words = _variable("PROVISIONING_PORTAL_ROLES", "admin", "Any of these roles may open the portal.", "admin,it-admin")
    allowed_origins: Origins = _variable("PROVISIONING_ALLOWED_ORIGINS", "", "Browser origins for CORS.", "https://app.example.com")
    portal_origins: Origins = _variable(
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
    max_body_bytes: Annotated[int, Field(ge=1000, le=64 * 2**20)] = _variable(
        "PROVISIONING_MAX_BODY_BYTES", "1048576", "The longest webhook body.", "1048576"
    )
    max_deactivation_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = _variable(
        "PROVISIONING_MAX_DEACTIVATION_SHARE", "0.2", "A reconciliation that would deactivate more of an organization asks first.", "0.2"
    )
    reconcile_interval: Interval = _variable("PROVISIONING_RECONCILE_INTERVAL", "off", "How often every organization is reconciled.", "6h")
    clock_margin: Duration = _variable("PROVISIONING_CLOCK_MARGIN", "60s", "Subtracted from the start of a listing for its writes.", "60s")
    late_event_margin: Duration = _variable(
        "PROVISIONING_LATE_EVENT_MARGIN", "15m", "Subtracted from the start of a listing for the mark.", "15m"
    )
    disabled_directory: Patience = _variable(
        "PROVISIONING_DISABLED_DIRECTORY",
        "freeze",
        "The people of a disabled directory stay as they are: freeze, or deactivate-after:<days>.",
        "deactivate-after:30",
    )
    scalekit_calls_per_second: Annotated[float, Field(ge=0.01, le=1000)] = _variable(
        "PROVISIONING_SCALEKIT_CALLS_PER_SECOND",
        "20",
        "The most calls of a process to Scalekit's API; portal links go first.",
        "20",
    )
    max_waiting_deliveries: Annotated[int, Field(ge=1, le=1_000_000)] = _variable(
        "PROVISIONING_MAX_WAITING_DELIVERIES", "2000", "Beyond these a webhook is answered 503, and Scalekit sends it again.", "2000"
    )
    change_retention_days: Annotated[int, Field(ge=1, le=36_500)] = _variable(
        "PROVISIONING_CHANGE_RETENTION_DAYS", "365", "How long changes of users, groups and roles stay in the log.", "730"
    )
    payload_retention_days: Annotated[int, Field(ge=1, le=36_500)] = _variable(
        "PROVISIONING_PAYLOAD_RETENTION_DAYS", "30", "How long payloads are kept.", "30"
    )
    allowed_hosts: Hosts = _variable(
        "PROVISIONING_ALLOWED_HOSTS", "", "Host names that requests may be for; none: any.", "provisioning.example.com"
    )
    hook_networks: Networks = _variable(
        "PROVISIONING_HOOK_NETWORKS", "", "Private networks that hooks may lead to; none: public addresses only.", "10.0.0.0/8"
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

    @property
    def has_credentials(self) -> bool:
        """Whether Scalekit's API can be called."""
        return bool(self.scalekit_environment_url and self.scalekit_client_id and self.scalekit_client_secret)

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
        text = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigurationError(f"{name}_FILE cannot be read: {reason}. A good one: /run/secrets/{name.lower()}") from None
    if not text:
        raise ConfigurationError(f"{name}_FILE names an empty file, which should hold {name}.")
    return text
