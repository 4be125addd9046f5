"""Scalekit's clock, by the `Date` of an HTTPS answer, which every one has (RFC 9110, section 6.6.1)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from provisioning.errors import ScalekitRefused, ScalekitTimeout
from provisioning.scalekit.client import DEADLINE


def read_clock(url: str) -> tuple[int, float]:
    """Scalekit's time (nanoseconds since 1970, whole seconds), and by how many seconds ours is ahead of it. Raises a ScalekitError."""
    try:
        answer = httpx.get(f"{url}/keys", headers={"Cache-Control": "no-cache"}, timeout=DEADLINE)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        again = error.response.status_code >= 500 or error.response.status_code == 429
        raise ScalekitRefused("Scalekit's clock cannot be read.", f"HTTP {error.response.status_code}", passing=again) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ScalekitTimeout("Scalekit cannot be reached.", type(error).__name__, passing=True) from error
    ours = datetime.now(UTC).timestamp() - answer.elapsed.total_seconds()
    try:
        # Of a stored answer, its age added.
        theirs = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp() + int(answer.headers.get("Age") or 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise ScalekitRefused("Scalekit's clock cannot be read.", "an answer without a Date") from error
    return int(theirs) * 10**9, ours - theirs
