"""What the admin portal posts to the page around it: Scalekit's official UI events (scalekit.md, Admin portal), or the guides' dialect."""

from datetime import datetime, timedelta

from provisioning.emulator.records import Directory, Provider

WARNED_BEFORE = timedelta(minutes=5)

UiEvent = dict[str, object]


def loaded(organization_id: str, expires_at: datetime) -> UiEvent:
    """The portal is there, until `expires_at`."""
    return _session("PORTAL_LOAD_SUCCESS", "The admin portal loaded successfully", organization_id, expires_at)


def not_loaded(error_code: str) -> UiEvent:
    """It is not. Of the codes only SESSION_EXPIRED is documented."""
    return {
        "event_type": "PORTAL_LOAD_FAILURE",
        "object": "session",
        "message": "The admin portal failed to load",
        "data": {"error_code": error_code},
    }


def ends_soon(organization_id: str, expires_at: datetime) -> UiEvent:
    """About five minutes are left."""
    return _session("PORTAL_SESSION_WARNING", "The admin portal session will expire in 5 minutes", organization_id, expires_at)


def ended(organization_id: str, expires_at: datetime) -> UiEvent:
    """None is left."""
    return _session("PORTAL_SESSION_EXPIRY", "The admin portal session has expired", organization_id, expires_at)


def directory_switched(directory: Directory) -> UiEvent:
    """A directory was enabled or disabled."""
    word = _word(directory.enabled)
    return {
        "event_type": f"ORGANIZATION_DIRECTORY_{word.upper()}",
        "object": "directory",
        "organization_id": directory.organization_id,
        "message": f"SCIM Provisioning {word} successfully",
        "data": {"directory_type": "SCIM", "id": directory.id, "provider": directory.provider.value, "enabled": directory.enabled},
    }


def sso_switched(organization_id: str, provider: Provider, *, enabled: bool) -> UiEvent:
    """Single sign-on was. An organization has one connection here, with the organization's number."""
    word, connection = _word(enabled), f"conn_{organization_id.removeprefix('org_')}"
    return {
        "event_type": f"ORGANIZATION_SSO_{word.upper()}",
        "object": "connection",
        "organization_id": organization_id,
        "message": f"Single sign-on connection {word} successfully",
        "data": {"connection_type": "SSO", "id": connection, "type": "OIDC", "provider": provider.value, "enabled": enabled},
    }


_GUIDES = {
    "ORGANIZATION_DIRECTORY_ENABLED": "SCIM_CONFIGURED",
    "ORGANIZATION_SSO_ENABLED": "SSO_CONFIGURED",
    "PORTAL_LOAD_FAILURE": "SESSION_EXPIRED",
    "PORTAL_SESSION_EXPIRY": "SESSION_EXPIRED",
}


def as_in_the_guides(event: UiEvent) -> list[UiEvent]:
    """The same in the other dialect, which has no word for most."""
    word = _GUIDES.get(str(event["event_type"]))
    return [{"type": word}] if word else []


def _session(event_type: str, message: str, organization_id: str, expires_at: datetime) -> UiEvent:
    expiry = expires_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "event_type": event_type,
        "object": "session",
        "message": message,
        "organization_id": organization_id,
        "data": {"expiry": expiry},
    }


def _word(enabled: bool) -> str:
    return "enabled" if enabled else "disabled"
