"""What the environment says is checked at the start, in one line that helps, and no secret is ever shown."""

import base64
import hashlib
import hmac
import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url

from provisioning.errors import ConfigurationError
from provisioning.settings import VARIABLES, Scope, Settings, load_settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
    from scalekit import ScalekitClient

KEY = "k3y-" + "abcdefghijklmnopqrstuvwxyz0123456789"
OTHER_KEY = "0th3r-" + "abcdefghijklmnopqrstuvwxyz0123456789"
WEBHOOK_SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
OTHER_WEBHOOK_SECRET = f"whsec_{base64.b64encode(bytes(range(100, 124))).decode()}"

Load = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of this machine, no `.env` of this checkout."""
    for name in os.environ:
        if name.startswith(("SCALEKIT_", "DATABASE_URL", "PROVISIONING_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Settings of an environment that has these variables."""

    def with_variables(**variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return with_variables


@pytest.fixture
def line(load: Load) -> Callable[..., str]:
    """The one line that such an environment stops the start with."""

    def of_failure(**variables: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            load(**variables)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None, "what it came from holds the value"
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        return str(caught.value)

    return of_failure


# Defaults and documentation.


def test_without_any_variable_the_defaults_of_the_contract_hold(load: Load) -> None:
    """Nothing is required before something is received."""
    settings = load()
    assert settings.model_dump(exclude={"database_url"}) == {
        "scalekit_environment_url": None,
        "scalekit_client_id": None,
        "scalekit_client_secret": None,
        "scalekit_webhook_secrets": (),
        "api_keys": (),
        "jwt_issuer": None,
        "jwt_audience": None,
        "jwt_jwks_url": None,
        "jwt_organization_claim": "oid",
        "jwt_roles_claim": "roles",
        "portal_roles": ("admin",),
        "allowed_origins": (),
        "portal_origins": (),
        "link_users_by_email": "live",
        "environment_id": None,
        "max_body_bytes": 1048576,
        "max_deactivation_share": 0.2,
        "reconcile_interval": None,
        "clock_margin": timedelta(seconds=60),
        "late_event_margin": timedelta(minutes=15),
        "disabled_directory": None,
        "scalekit_calls_per_second": 20,
        "max_waiting_deliveries": 2000,
        "change_retention_days": 365,
        "payload_retention_days": 30,
        "allowed_hosts": (),
        "hook_networks": (),
        "metrics_public": False,
    }
    assert settings.database_url.get_secret_value() == "sqlite:///provisioning.db"


def test_every_setting_is_documented_under_its_variable() -> None:
    """README and .env.example are held to this list."""
    assert [variable.attribute for variable in VARIABLES.values()] == list(Settings.model_fields)
    for name, variable in VARIABLES.items():
        assert name == variable.name
        assert name == "DATABASE_URL" or name.startswith(("SCALEKIT_", "PROVISIONING_"))
        assert variable.description.endswith(".")
        assert variable.example


def test_every_secret_is_marked_as_one() -> None:
    """What may carry a credential is never quoted."""
    assert {name for name, variable in VARIABLES.items() if variable.secret} == {
        "SCALEKIT_CLIENT_SECRET",
        "SCALEKIT_WEBHOOK_SECRET",
        "DATABASE_URL",
        "PROVISIONING_API_KEYS",
    }


@pytest.mark.parametrize("name", [name for name, variable in VARIABLES.items() if variable.default and " " not in variable.default])
def test_a_documented_default_written_out_is_the_default(load: Load, name: str) -> None:
    """A line of `.env.example` that is uncommented changes nothing."""
    default = load()
    assert load(**{name: VARIABLES[name].default}) == default


def test_defaults_that_hang_on_the_environment_url(load: Load) -> None:
    """The portal's pages and the token keys come from there unless said otherwise."""
    settings = load(SCALEKIT_ENVIRONMENT_URL="https://acme.scalekit.com/")
    assert settings.scalekit_environment_url == "https://acme.scalekit.com"
    assert settings.portal_origins == ("https://acme.scalekit.com",)
    assert settings.jwt_jwks_url == "https://acme.scalekit.com/keys"
    settings = load(PROVISIONING_PORTAL_ORIGINS="https://auth.example.com", PROVISIONING_JWT_JWKS_URL="https://keys.example.com/k")
    assert (settings.portal_origins, settings.jwt_jwks_url) == (("https://auth.example.com",), "https://keys.example.com/k")


def test_settings_do_not_change(load: Load) -> None:
    """One process has one configuration."""
    with pytest.raises(ValidationError):
        load().max_body_bytes = 1


# Where values come from.


def test_the_environment_wins_over_the_env_file(load: Load) -> None:
    """As everywhere."""
    Path(".env").write_text("PROVISIONING_MAX_BODY_BYTES=1000\nPROVISIONING_PORTAL_ROLES='owner admin'\nUNRELATED=1\n")
    settings = load(PROVISIONING_MAX_BODY_BYTES="2000")
    assert (settings.max_body_bytes, settings.portal_roles) == (2000, ("owner", "admin"))


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_an_empty_variable_counts_as_unset(load: Load, empty: str) -> None:
    """Compose files and CI pass `NAME=` for what they do not know; then `.env` or the default holds."""
    default = load()
    assert load(**dict.fromkeys(VARIABLES, empty)) == default
    Path(".env").write_text("PROVISIONING_MAX_BODY_BYTES=1000\nDATABASE_URL=\n")
    assert load(**dict.fromkeys(VARIABLES, empty)).max_body_bytes == 1000


def test_an_env_file_that_is_no_text_is_named(line: Callable[..., str]) -> None:
    """Not a traceback."""
    Path(".env").write_bytes(b"A=\xff")
    assert line() == ".env cannot be read as UTF-8 text."


def test_lists_are_separated_by_commas_or_spaces(load: Load) -> None:
    """Or both, or lines."""
    assert load(PROVISIONING_PORTAL_ROLES="admin, owner\nit-admin ,,x").portal_roles == ("admin", "owner", "it-admin", "x")


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_may_come_from_a_file(load: Load, name: str) -> None:
    """As Docker and Kubernetes mount secrets, with the newline that editors add."""
    values = {
        "SCALEKIT_ENVIRONMENT_URL": "https://acme.scalekit.com",
        "SCALEKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "DATABASE_URL": "postgresql://user:password@host/database",
        "PROVISIONING_API_KEYS": KEY,
        "PROVISIONING_JWT_ISSUER": "https://acme.scalekit.com",
    }
    if name.startswith("PROVISIONING_JWT"):
        load(PROVISIONING_JWT_ISSUER="https://i", PROVISIONING_JWT_AUDIENCE="a")
        os.environ.pop(name, None)
    example = values.get(name, VARIABLES[name].example)
    Path("secret").write_text(f"{example}\r\n")
    from_file = load(**{f"{name}_FILE": "secret"})
    del os.environ[f"{name}_FILE"]
    assert from_file == load(**{name: example})


def test_a_variable_given_twice_stops_the_start(line: Callable[..., str]) -> None:
    """Which one was meant cannot be known."""
    said = line(SCALEKIT_WEBHOOK_SECRET=WEBHOOK_SECRET, SCALEKIT_WEBHOOK_SECRET_FILE="secret")
    assert said == "SCALEKIT_WEBHOOK_SECRET and SCALEKIT_WEBHOOK_SECRET_FILE are both set. Keep one."


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_file_that_gives_nothing_stops_the_start(line: Callable[..., str], content: bytes | None) -> None:
    """Absent, empty or no text. Its path is not quoted: many a secret was given as NAME_FILE by mistake."""
    path = Path("canary")
    if content is not None:
        path.write_bytes(content)
    said = line(SCALEKIT_CLIENT_SECRET_FILE=str(path))
    assert said.startswith("SCALEKIT_CLIENT_SECRET_FILE ")
    assert "canary" not in said


@pytest.mark.parametrize("path", [WEBHOOK_SECRET, "x" * 5000, "."])
def test_a_path_that_is_none_stops_the_start(line: Callable[..., str], path: str) -> None:
    """Too long, a directory, or the secret itself."""
    said = line(SCALEKIT_WEBHOOK_SECRET_FILE=path)
    assert said.startswith("SCALEKIT_WEBHOOK_SECRET_FILE cannot be read: ")
    assert WEBHOOK_SECRET not in said


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PROVISIONING_ALOWED_ORIGINS", "Did you mean PROVISIONING_ALLOWED_ORIGINS?"),
        ("PROVISIONING_API_KEY", "Did you mean PROVISIONING_API_KEYS?"),
        ("PROVISIONING_QQQQ", "The README lists them all."),
    ],
)
def test_a_name_of_ours_that_does_not_exist_stops_the_start(line: Callable[..., str], name: str, hint: str) -> None:
    """A typing error would silently leave the default, open or closed as it may be."""
    assert line(**{name: "x"}) == f"{name} is not a setting. {hint}"


@pytest.mark.parametrize(
    "name",
    [
        "PROVISIONING_SERVICE_HOST",
        "PROVISIONING_SERVICE_PORT_HTTP",
        "PROVISIONING_PORT",
        "PROVISIONING_PORT_8000_TCP_ADDR",
        "PROVISIONING_API_PORT_8000_TCP",
        "PROVISIONING_API_SERVICE_PORT",
    ],
)
def test_what_kubernetes_adds_for_a_service_of_our_name_is_not_ours(load: Load, name: str) -> None:
    """Every pod beside a Service called provisioning or provisioning-api gets these; refusing them would stop it there and only there."""
    load(**{name: "tcp://10.0.0.1:8000"})


# One line for a bad value.

BAD = [
    ("SCALEKIT_ENVIRONMENT_URL", "http://acme.scalekit.com", "does not start with https://"),
    ("SCALEKIT_ENVIRONMENT_URL", "acme.scalekit.com", "does not start with https://"),
    ("SCALEKIT_ENVIRONMENT_URL", "https://acme.scalekit.com/keys", "has more than a scheme, a host and a port"),
    ("SCALEKIT_ENVIRONMENT_URL", "https://user:pass@acme.scalekit.com", "has more than a scheme, a host and a port"),
    ("SCALEKIT_ENVIRONMENT_URL", "https://[", "is not a URL"),
    ("SCALEKIT_ENVIRONMENT_URL", "https://a b", "is no ASCII host name"),
    ("PROVISIONING_JWT_JWKS_URL", "http://keys.example.com", "is not an https:// URL"),
    ("PROVISIONING_JWT_JWKS_URL", "https://", "is not an https:// URL"),
    ("PROVISIONING_ALLOWED_ORIGINS", "*", "has a wildcard"),
    ("PROVISIONING_ALLOWED_ORIGINS", "https://*.example.com", "has a wildcard"),
    ("PROVISIONING_ALLOWED_ORIGINS", "app.example.com", "does not start with https://"),
    ("PROVISIONING_ALLOWED_ORIGINS", "null", "does not start with https://"),
    ("PROVISIONING_ALLOWED_ORIGINS", "https://app.example.com https://b.example.com/login", "(entry 2) has more than"),
    ("PROVISIONING_ALLOWED_ORIGINS", "https://app.example.com;script-src", "is no ASCII host name"),
    ("PROVISIONING_ALLOWED_ORIGINS", "https://müller.example", "xn--"),
    ("PROVISIONING_PORTAL_ORIGINS", "https://a.example.com:99999", "is not a URL"),
    ("PROVISIONING_ALLOWED_HOSTS", "https://example.com", "is not a host name"),
    ("PROVISIONING_LINK_USERS_BY_EMAIL", "sometimes", "should be 'live', 'always' or 'never'"),
    ("PROVISIONING_MAX_BODY_BYTES", "1MB", "should be a valid integer"),
    ("PROVISIONING_MAX_BODY_BYTES", "0", "should be greater than or equal to 1"),
    ("PROVISIONING_MAX_DEACTIVATION_SHARE", "20%", "should be a valid number"),
    ("PROVISIONING_MAX_DEACTIVATION_SHARE", "20", "should be less than or equal to 1"),
    ("PROVISIONING_MAX_DEACTIVATION_SHARE", "-0.1", "should be greater than or equal to 0"),
    ("PROVISIONING_MAX_DEACTIVATION_SHARE", "nan", "should be a finite number"),
    ("PROVISIONING_RECONCILE_INTERVAL", "6", "is not a duration"),
    ("PROVISIONING_RECONCILE_INTERVAL", "0s", "should be greater than 0 seconds"),
    ("PROVISIONING_CLOCK_MARGIN", "-5s", "is not a duration"),
    ("PROVISIONING_CLOCK_MARGIN", "off", "is not a duration"),
    ("PROVISIONING_CLOCK_MARGIN", "999999d", "should be less than or equal to 365 days"),
    ("PROVISIONING_LATE_EVENT_MARGIN", "٦٠s", "is not a duration"),
    ("PROVISIONING_SCALEKIT_CALLS_PER_SECOND", "0", "should be greater than or equal to 0.01"),
    ("PROVISIONING_MAX_WAITING_DELIVERIES", "many", "should be a valid integer"),
    ("PROVISIONING_PAYLOAD_RETENTION_DAYS", "0.5", "should be a valid integer"),
    ("PROVISIONING_METRICS_PUBLIC", "perhaps", "should be a valid boolean"),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD)
def test_a_bad_value_stops_the_start_with_which_why_and_a_good_one(line: Callable[..., str], name: str, value: str, why: str) -> None:
    """In one line."""
    said = line(**{name: value})
    assert said.startswith(name)
    assert why in said
    assert said.endswith(f". A good one: {VARIABLES[name].example}")


def test_several_bad_values_have_a_line_each(load: Load) -> None:
    """So that one start shows them all; what merely follows from one of them is not said."""
    with pytest.raises(ConfigurationError) as caught:
        load(SCALEKIT_ENVIRONMENT_URL="nonsense", PROVISIONING_MAX_BODY_BYTES="x", PROVISIONING_ALLOWED_ORIGINS="x,y")
    assert [said.split("=")[0].split(" ")[0] for said in str(caught.value).splitlines()] == [
        "SCALEKIT_ENVIRONMENT_URL",
        "PROVISIONING_ALLOWED_ORIGINS",
        "PROVISIONING_MAX_BODY_BYTES",
    ]


@pytest.mark.parametrize(("one", "other"), [("ISSUER", "AUDIENCE"), ("AUDIENCE", "ISSUER")])
def test_half_of_the_token_settings_stops_the_start(line: Callable[..., str], load: Load, one: str, other: str) -> None:
    """A token that is checked against one of them alone is anybody's."""
    said = line(**{f"PROVISIONING_JWT_{one}": "x"})
    assert said.startswith(f"PROVISIONING_JWT_{one} is set without PROVISIONING_JWT_{other}")
    load(**{f"PROVISIONING_JWT_{other}": "x"})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://App.Example.com", "https://app.example.com"),
        ("https://app.example.com:443/", "https://app.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_an_origin_is_kept_as_a_browser_sends_it(load: Load, written: str, meant: str) -> None:
    """Compared as text with the `Origin` header: RFC 6454."""
    assert load(PROVISIONING_ALLOWED_ORIGINS=written).allowed_origins == (meant,)


def test_keys_over_plain_http_may_come_from_this_machine_only(load: Load) -> None:
    """For development."""
    assert load(PROVISIONING_JWT_JWKS_URL="http://127.0.0.1:8001/keys").jwt_jwks_url == "http://127.0.0.1:8001/keys"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("45s", timedelta(seconds=45)), ("15m", timedelta(minutes=15)), ("6h", timedelta(hours=6)), ("1d", timedelta(days=1)), ("off", None)],
)
def test_a_duration_is_a_number_and_a_unit(load: Load, written: str, meant: timedelta | None) -> None:
    """`off` where there may be none."""
    assert load(PROVISIONING_RECONCILE_INTERVAL=written).reconcile_interval == meant


# The webhook secret.


def test_several_webhook_secrets_count_while_one_is_rotated(load: Load) -> None:
    """In the order given: the first one signs."""
    secrets = load(SCALEKIT_WEBHOOK_SECRET=f"{WEBHOOK_SECRET}, {OTHER_WEBHOOK_SECRET}").require_webhook_secrets()
    assert [secret.get_secret_value() for secret in secrets] == [WEBHOOK_SECRET, OTHER_WEBHOOK_SECRET]


def test_whoever_receives_needs_a_webhook_secret_and_others_do_not(load: Load) -> None:
    """`migrate` needs the database alone."""
    settings = load()
    with pytest.raises(ConfigurationError, match=r"^SCALEKIT_WEBHOOK_SECRET is not set.*whsec_[^\n]*$"):
        settings.require_webhook_secrets()


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (f"v1,{WEBHOOK_SECRET}", "has the prefix `v1,`"),
        (f"v1, {WEBHOOK_SECRET}", "has the prefix `v1,`"),
        ("whsec_", "is too short: it decodes to 0 bytes"),
        (f"whsec_{base64.b64encode(bytes(range(23))).decode()}", "is too short: it decodes to 23 bytes"),
        ("whsec_...", "is a placeholder"),
        ("whsec_…", "is a placeholder"),
        ("whsec_<>", "is a placeholder"),
        ("whsec_<your-secret>", "is a placeholder"),
        ("<your_webhook_secret>", "is a placeholder"),
        ("whsec_your_secret", "is a placeholder"),
        ("whsec_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "is a placeholder"),
        ("whsec_REPLACEMEREPLACEMEREPLACEMEREPLACEME", "is a placeholder"),
        ("whsec_PLACEHOLDERPLACEHOLDERPLACEHOLDER000", "is a placeholder"),
        ("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "is a placeholder of a few repeated bytes"),
        (f"whsec_{base64.b64encode(b'k' * 32).decode()}", "is a placeholder of a few repeated bytes"),
        (WEBHOOK_SECRET.removeprefix("whsec_"), "does not start with `whsec_`"),
        ("skc_12345678901234567890", "does not start with `whsec_`"),
        (WEBHOOK_SECRET.replace("A", "-"), "is not base64"),
        (WEBHOOK_SECRET + "=", "is not base64"),
        (WEBHOOK_SECRET[:20] + "!" + WEBHOOK_SECRET[21:], "is not base64"),
        (WEBHOOK_SECRET[:20] + "é" + WEBHOOK_SECRET[21:], "is not base64"),
        (WEBHOOK_SECRET.rstrip("=")[:-2], "is not base64"),
    ],
)
def test_a_webhook_secret_that_cannot_be_right_stops_the_start(line: Callable[..., str], secret: str, why: str) -> None:
    """One clear line for each mistake, and nothing of the secret in it."""
    said = line(SCALEKIT_WEBHOOK_SECRET=secret)
    assert said.startswith("SCALEKIT_WEBHOOK_SECRET (entry 1) ")
    assert why in said
    assert WEBHOOK_SECRET[6:20] not in said


@pytest.mark.parametrize("secret", ["whsec_", "whsec_...", "whsec_<>"])
def test_a_secret_under_which_forgeries_pass_stops_the_start(line: Callable[..., str], secret: str) -> None:
    """The attack of scalekit.md: such a secret decodes to an empty key, and the SDK accepts what anybody signs with nothing."""
    timestamp, body = "1790000000", b"{}"
    digest = hmac.new(b"", b"msg_1." + timestamp.encode() + b"." + body, hashlib.sha256).digest()
    forged = {
        "webhook-id": "msg_1",
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    with time_machine.travel(int(timestamp)):
        assert ScalekitClient.__new__(ScalekitClient).verify_webhook_payload(secret, forged, body)
    line(SCALEKIT_WEBHOOK_SECRET=secret)


def test_a_webhook_secret_without_its_padding_is_the_same_one(load: Load) -> None:
    """The library adds it."""
    assert load(SCALEKIT_WEBHOOK_SECRET=WEBHOOK_SECRET.rstrip("=")).require_webhook_secrets()


@given(st.binary(min_size=24, max_size=64).filter(lambda key: len(set(key)) > 4))
def test_a_random_webhook_secret_is_no_placeholder(key: bytes) -> None:
    """Nor is any other key that is long enough and not a few bytes repeated."""
    Settings(scalekit_webhook_secrets=(SecretStr(f"whsec_{base64.b64encode(key).decode()}"),))


# API keys.


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (KEY, [("key1", set(Scope))]),
        (f"backend:{KEY}", [("backend", set(Scope))]),
        (f"backend:read:{KEY}", [("backend", {Scope.READ})]),
        (f"ops:operate+read:{KEY}, {OTHER_KEY}", [("ops", {Scope.READ, Scope.OPERATE}), ("key2", set(Scope))]),
    ],
)
def test_an_api_key_has_a_name_and_scopes(load: Load, written: str, meant: list[tuple[str, set[Scope]]]) -> None:
    """`key`, `name:key` or `name:scopes:key`; a nameless one is named after its place."""
    assert [(key.name, set(key.scopes)) for key in load(PROVISIONING_API_KEYS=written).api_keys] == meant


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (KEY[:31], "fewer than 32 characters (entry 1)"),
        (f"backend:{KEY},ops:{OTHER_KEY[:31]}", "fewer than 32 characters (entry 2)"),
        (f"{KEY}:backend", "fewer than 32 characters (entry 1)"),
        (f"backend:read:extra:{KEY}", "more than three parts (entry 1)"),
        (f"backend:write:{KEY}", "a scope that is none of read, portal, operate (entry 1)"),
        (f"backend::{KEY}", "a scope that is none of"),
        (f"{KEY}:{OTHER_KEY}", "a name that is not 1 to 31"),
        (f":{KEY}", "a name that is not 1 to 31"),
        (f"{KEY}é", "characters that no HTTP header carries (entry 1)"),
        (f"backend:{KEY},backend:{OTHER_KEY}", "the same name twice"),
        (f"backend:{KEY},ops:{KEY}", "the same key twice"),
    ],
)
def test_an_api_key_that_cannot_be_right_stops_the_start(line: Callable[..., str], keys: str, why: str) -> None:
    """Which entry, and never the entry itself: name and key may have been swapped."""
    said = line(PROVISIONING_API_KEYS=keys)
    assert said.startswith("PROVISIONING_API_KEYS has ")
    assert why in said
    assert KEY[:8] not in said
    assert OTHER_KEY[:8] not in said


def test_a_token_is_looked_up_among_the_digests(load: Load) -> None:
    """Only the whole key finds itself; anything that a header can hold is a fair question."""
    settings = load(PROVISIONING_API_KEYS=f"a:{KEY} b:read:{OTHER_KEY}")
    assert [key.name if (key := settings.find_api_key(token)) else None for token in (KEY, OTHER_KEY)] == ["a", "b"]
    for token in ("", KEY[:-1], KEY + "x", KEY.upper(), "a", f"a:{KEY}", "é" * 40, "\ud800", settings.api_keys[0].digest.hex()):
        assert settings.find_api_key(token) is None


def test_a_look_up_compares_with_every_key_in_constant_time(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the right one was found: the time it takes names no key."""
    compared = []
    real = hmac.compare_digest

    def watched(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return real(a, b)

    settings = load(PROVISIONING_API_KEYS=f"a:{KEY} b:{OTHER_KEY}")
    monkeypatch.setattr(hmac, "compare_digest", watched)
    for token in (KEY, OTHER_KEY, "neither"):
        compared.clear()
        settings.find_api_key(token)
        assert compared == [key.digest for key in settings.api_keys]


# The database.


@pytest.mark.parametrize(
    ("printed", "meant"),
    [
        ("postgresql://u:p@host:5432/db", "postgresql+psycopg://u:p@host:5432/db"),
        ("postgres://u:p@host/db?sslmode=require", "postgresql+psycopg://u:p@host/db?sslmode=require"),
        ("postgresql+psycopg://u:p@host/db", "postgresql+psycopg://u:p@host/db"),
        (
            "postgresql://u.ref:p@pooler.supabase.com:6543/db?pgbouncer=true&connection_limit=1",
            "postgresql+psycopg://u.ref:p@pooler.supabase.com:6543/db",
        ),
        ("postgres://u:p@host/db?ssl=true", "postgresql+psycopg://u:p@host/db?sslmode=require"),
        (
            "postgresql://u:p@ep-x.neon.tech/db?sslmode=require&channel_binding=require",
            "postgresql+psycopg://u:p@ep-x.neon.tech/db?channel_binding=require&sslmode=require",
        ),
        ("postgresql://u:p%40%2F%25@host/db", "postgresql+psycopg://u:p%40%2F%25@host/db"),
        ("postgresql:///db?host=/run/postgresql", "postgresql+psycopg:///db?host=/run/postgresql"),
        ("sqlite:///provisioning.db", "sqlite:///provisioning.db"),
        ("sqlite:////var/lib/provisioning/my file.db", "sqlite:////var/lib/provisioning/my file.db"),
    ],
)
def test_a_database_url_is_taken_as_every_provider_prints_it(load: Load, printed: str, meant: str) -> None:
    """The driver is named, and what libpq would refuse is left out."""
    assert make_url(load(DATABASE_URL=printed).database_url.get_secret_value()) == make_url(meant)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite://", "in-memory"),
        ("sqlite:///", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "in-memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in-memory"),
        ("sqlite://provisioning.db", "two slashes"),
        ("sqlite+aiosqlite:///provisioning.db", "driver"),
        ("postgresql+asyncpg://u:canary@host/db", "driver"),
        ("postgresql+psycopg2://u:canary@host/db", "driver"),
        ("mysql://u:canary@host/db", "driver"),
        ("postgresql://u:canary@host:port/db", "is not a database URL"),
        ("canary", "is not a database URL"),
        ('"postgresql://u:canary@host/db"', "is not a database URL"),
    ],
)
def test_a_database_that_cannot_serve_stops_the_start(line: Callable[..., str], url: str, why: str) -> None:
    """The line never quotes the URL, which holds a password."""
    said = line(DATABASE_URL=url)
    assert said.startswith("DATABASE_URL ")
    assert why in said
    assert "canary" not in said


# Secrets.


def test_no_secret_is_shown_by_what_holds_it(load: Load) -> None:
    """Not by repr, str, a dump or JSON: a settings object ends up in a debugger's, a framework's or a test's output."""
    settings = load(
        SCALEKIT_CLIENT_SECRET="canary-client",
        SCALEKIT_WEBHOOK_SECRET=WEBHOOK_SECRET,
        DATABASE_URL="postgresql://u:canary-password@host/db",
        PROVISIONING_API_KEYS=f"backend:{KEY}",
    )
    digests = [key.digest for key in settings.api_keys]
    for shown in (repr(settings), str(settings), str(settings.model_dump()), repr(settings.api_keys[0])):
        assert "canary" not in shown
        assert WEBHOOK_SECRET[6:] not in shown
        assert KEY not in shown
    assert str(digests[0]) not in repr(settings)
    assert settings.scalekit_client_secret is not None
    assert settings.scalekit_client_secret.get_secret_value() == "canary-client"


def test_arguments_that_are_wrong_are_not_quoted() -> None:
    """Whoever builds settings by hand sees pydantic's own error."""
    with pytest.raises(ValidationError) as caught:
        Settings(scalekit_webhook_secrets=(SecretStr("whsec_canary"),), environment_id=7, max_body_bytes="canary")  # type: ignore[arg-type]  # wrong
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_secret_under_the_wrong_name_is_not_quoted(load: Load, name: str) -> None:
    """It happens when a line of `.env` slips."""
    for secret in (WEBHOOK_SECRET, KEY, "postgresql://u:canary@host/db", f"https://user:{KEY}@host"):
        said = failure(load, **{name: secret})
        assert secret[-20:] not in said
        assert "canary" not in said


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.sampled_from(list(VARIABLES)))
def test_whatever_a_variable_holds_is_a_setting_or_one_line(value: str, name: str) -> None:
    """Nothing but ConfigurationError ever comes out, and no line break gets in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        assert len(failure(load_settings).splitlines()) <= 1


def failure(load: Load, **variables: str) -> str:
    """What stops the start; empty when nothing does. Whatever else is raised is an error of the test."""
    try:
        load(**variables)
    except ConfigurationError as error:
        return str(error)
    return ""
