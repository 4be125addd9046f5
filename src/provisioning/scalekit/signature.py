"""Whether Scalekit sent a webhook: its Standard Webhooks signature, judged in two steps and offline.

`SignedHeaders.parse` judges the headers before the body is read, `Verifier.verify` the body. A webhook is accepted exactly when one
well-formed `v1` entry verifies under one of our secrets, whatever stands beside it. Everything else is `Refused`; nothing else is raised.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from standardwebhooks import Webhook

from provisioning.errors import Refused

TOLERANCE = 300
"""Seconds that `webhook-timestamp` may lie before or after our clock, both included: the library's own bound."""

MAX_SIGNATURE_CHARACTERS = 8192

_ID = re.compile(r"[!-~]{1,255}")
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}")  # the signed text: `1.7e9`, ` 17…` or `0017…` is another one than the number it reads as
_ENTRY = re.compile(r"v1,[A-Za-z0-9+/]{43}=")  # the base64 of 32 bytes, and nothing that a lenient decoder would skip


@dataclass(frozen=True)
class SignedHeaders:
    """The three headers of a webhook, well-formed and recent. Of the signatures only well-formed `v1` entries are kept, each once."""

    webhook_id: str
    timestamp: int
    """Seconds since 1970, by the sender's clock."""
    signatures: tuple[str, ...]

    @classmethod
    def parse(cls, headers: Mapping[str, str], now: float) -> Self:
        """Return the headers' content; `now` is in seconds since 1970. Of a header sent twice the mapping decides which one counts.

        Raises Refused: `missing` (one absent or empty), `malformed`, or `expired` (more than TOLERANCE from `now`).
        """
        webhook_id, timestamp, signature = (headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature"))
        if not (webhook_id and timestamp and signature):
            raise Refused("missing", "The headers webhook-id, webhook-timestamp and webhook-signature are all needed.")
        if not _ID.fullmatch(webhook_id):
            raise Refused("malformed", "webhook-id is not 1 to 255 visible ASCII characters.")
        if not _TIMESTAMP.fullmatch(timestamp):
            raise Refused("malformed", "webhook-timestamp is not a whole number of seconds.")
        if abs(now - int(timestamp)) > TOLERANCE:
            raise Refused("expired", f"webhook-timestamp is more than {TOLERANCE} seconds from this service's clock.")
        if len(signature) > MAX_SIGNATURE_CHARACTERS:
            raise Refused("malformed", f"webhook-signature is longer than {MAX_SIGNATURE_CHARACTERS} characters.")
        signatures = tuple(dict.fromkeys(filter(_ENTRY.fullmatch, signature.split(" "))))
        if not signatures:
            raise Refused("malformed", "webhook-signature has no entry of the form v1,<base64 of 32 bytes>.")
        return cls(webhook_id, int(timestamp), signatures)


class Verifier:
    """Verifies under any of the secrets, at the price of one HMAC for each, however many signatures a request brings."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._webhooks = tuple(Webhook(secret) for secret in secrets)

    def verify(self, signed: SignedHeaders, body: bytes) -> None:
        """Return when a signature is that of these very bytes. Raises Refused: `encoding` (the body is not UTF-8) or `signature`."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise Refused("encoding", "The body is not UTF-8.") from None
        headers = {
            "webhook-id": signed.webhook_id,
            "webhook-timestamp": str(signed.timestamp),
            "webhook-signature": " ".join(signed.signatures),
        }
        if not any(_verifies(webhook, text, headers) for webhook in self._webhooks):
            raise Refused("signature", "No signature verifies under a secret of this service.")


def _verifies(webhook: Webhook, text: str, headers: dict[str, str]) -> bool:
    try:
        webhook.verify(text, headers, json_parse=False)
    except Exception:  # broad: the library also raises ValueError and binascii.Error on hostile input, and each of them is a refusal
        return False
    return True


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a body that is UTF-8; `timestamp` is in seconds since 1970."""
    return Webhook(secret).sign(webhook_id, datetime.fromtimestamp(timestamp, UTC), body.decode())
