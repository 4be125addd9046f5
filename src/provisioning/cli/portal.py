"""A portal link for a call: made here, handed over by voice or chat, and opened at once."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC

import typer

from provisioning import logs
from provisioning.cli import arguments
from provisioning.cli.terminal import plain
from provisioning.directory import Feature, PortalLink
from provisioning.portal import make_link
from provisioning.scalekit.client import ScalekitClient
from provisioning.settings import Settings, load_settings

CALLER = "command line"  # in the audit; no key can be called that


def portal_link(organization_id: str, features: Sequence[Feature], *, as_json: bool) -> None:
    """Print a new link with its expiry, and write the line of audit to stderr. Raises ConfigurationError, ScalekitError."""
    settings = load_settings()
    logs.configure()
    organization_id = arguments.organization_id(organization_id, settings)
    link = asyncio.run(_made(settings, organization_id, features))
    expires_at = link.expires_at.astimezone(UTC)
    if as_json:
        shown = {"id": link.id, "location": link.location, "expires_at": expires_at.isoformat().replace("+00:00", "Z")}
        typer.echo(json.dumps(shown, indent=2))
        return
    typer.echo(plain(link.location))
    typer.echo(f"It opens once, within 60 s: until {expires_at:%Y-%m-%d %H:%M:%S} UTC. Whoever has it can change the organization's login.")
    typer.echo("To send a link by mail, make a shareable one in Scalekit's dashboard: that lives 7 days, and can be revoked.")


async def _made(settings: Settings, organization_id: str, features: Sequence[Feature]) -> PortalLink:
    with closing(ScalekitClient(settings)) as scalekit:
        return await make_link(scalekit, origins=settings.portal_origins, caller=CALLER, organization_id=organization_id, features=features)
