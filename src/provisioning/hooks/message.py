"""A message: one change, as JSON, signed as the Standard Webhooks specification has it (https://www.standardwebhooks.com)."""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime
from secrets import token_bytes
from typing import Any

from standardwebhooks import Webhook

TEST = "hook.test"
_KEY_BYTES = 32


def new_secret() -> str:
    """A secret for a hook: `whsec_` and 32 random bytes in base64."""
    return f"whsec_{b64encode(token_bytes(_KEY_BYTES)).decode()}"


def body(type_: str, timestamp: str, data: Mapping[str, Any]) -> str:
    """The text that is signed and sent; `timestamp`: when it happened, in RFC 3339."""
    return json.dumps({"type": type_, "timestamp": timestamp, "data": data}, ensure_ascii=False, separators=(",", ":"))


def headers(message_id: str, text: str, secrets: Iterable[str], now: datetime) -> dict[str, str]:
    """The headers of one attempt, with a signature by each of the secrets; `message_id` is the same for every attempt."""
    signatures = (Webhook(secret).sign(message_id, now, text) for secret in secrets)
    return {
        "Content-Type": "application/json",
        "User-Agent": "provisioning",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
