"""What `check` says of Scalekit: whether the credentials are good, the clocks agree, and visitors' tokens can be checked."""

import asyncio
from collections.abc import Iterator
from contextlib import closing

from provisioning.cli.check.finding import Finding, note, ok, warn, wrong
from provisioning.errors import KeysUnavailable, ScalekitError, ScalekitNotConfigured
from provisioning.scalekit.client import ScalekitClient
from provisioning.scalekit.clock import read_clock
from provisioning.scalekit.signature import TOLERANCE
from provisioning.settings import Settings
from provisioning.tokens import TokenVerifier

CREDENTIALS_HINT = "Are SCALEKIT_ENVIRONMENT_URL, SCALEKIT_CLIENT_ID and SCALEKIT_CLIENT_SECRET right?"
CLOCK_IS_OFF_BY = 60.0  # seconds, of which whoever keeps the time by NTP is far


def of_scalekit(settings: Settings) -> Iterator[Finding]:
    """A line for each of them."""
    yield _of_clock(settings.scalekit_environment_url)
    yield _of_credentials(settings)
    if settings.jwt_issuer:
        yield _of_keys(settings)


def of_clock(seconds_ahead: float) -> Finding:
    """Of how far this machine's clock is ahead of Scalekit's."""
    off = abs(seconds_ahead)
    words = f"this machine's clock is {off:.0f} s {'ahead of' if seconds_ahead > 0 else 'behind'} Scalekit's"
    if off > TOLERANCE:
        return wrong("clock", f"{words}, and webhooks that are more than {TOLERANCE} s away are refused: set it right, by NTP.")
    if off > CLOCK_IS_OFF_BY:
        return warn("clock", f"{words}: set it right, by NTP. Beyond {TOLERANCE} s webhooks are refused.")
    return ok("clock", f"within {off:.0f} s of Scalekit's")


def _of_clock(url: str | None) -> Finding:
    if url is None:
        return note("clock", "Not compared with Scalekit's: SCALEKIT_ENVIRONMENT_URL is not set.")
    try:
        return of_clock(read_clock(url)[1])
    except ScalekitError as error:
        return note("clock", f"Not compared with Scalekit's: {error}")


def _of_credentials(settings: Settings) -> Finding:
    try:
        with closing(ScalekitClient(settings)) as client:
            asyncio.run(client.sign_in())
    except ScalekitNotConfigured as error:
        return note("scalekit", f"{error} Webhooks work without; reconciling and portal links do not.")
    except ScalekitError as error:
        return wrong("scalekit", str(error) if error.passing else f"{error} {CREDENTIALS_HINT}")
    return ok("scalekit", f"signed in at {settings.scalekit_environment_url} (`check --live ORG` calls the rest of its API)")


def _of_keys(settings: Settings) -> Finding:
    try:
        number = asyncio.run(TokenVerifier(settings).fetch())
    except KeysUnavailable as error:
        return wrong("tokens", f"{error} Until that is right, no visitor's token is good: is PROVISIONING_JWT_JWKS_URL where its keys are?")
    return ok("tokens", f"{number} {'key' if number == 1 else 'keys'} of the issuer to check visitors' tokens with")
