"""The service over HTTP, for tests: the whole application on a real database, and requests as its callers make them."""

import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.testclient import TestClient

from provisioning.app import create_app
from provisioning.scalekit.signature import sign
from provisioning.settings import Settings

WEBHOOK_SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
READ_KEY, PORTAL_KEY, OPERATE_KEY = (name.ljust(32, "0") for name in ("read", "portal", "operate"))
API_KEYS = f"reader:read:{READ_KEY} frontend:portal:{PORTAL_KEY} operator:read+operate:{OPERATE_KEY}"


def settings(database_url: str, **more: Any) -> Settings:
    """Settings on this database, whatever the environment says; `more` by attribute."""
    given = {"_env_file": None, "database_url": database_url, "scalekit_webhook_secrets": WEBHOOK_SECRET, "api_keys": API_KEYS, **more}
    return Settings(**given)


@contextmanager
def running(database_url: str, **more: Any) -> Iterator[TestClient]:
    """A client of the service, started, whose requests carry no key."""
    with TestClient(create_app(settings(database_url, **more))) as client:
        yield client


def bearer(key: str = READ_KEY) -> dict[str, str]:
    """The header of a caller with this key."""
    return {"Authorization": f"Bearer {key}"}


def signed(body: bytes, webhook_id: str = "msg_1", *, at: float | None = None, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    """The headers of a webhook with this body, sent now or `at` (seconds since 1970)."""
    timestamp = int(time.time() if at is None else at)
    signature = sign(secret, webhook_id, timestamp, body)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
        "content-type": "application/json",
    }
