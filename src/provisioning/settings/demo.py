"""Keys and secrets that keep nobody out: those that anybody can read somewhere, and those made up for one developer's machine.

The latter say so themselves, wherever they are copied to.
"""

import hashlib
import secrets
from base64 import b64encode

_LOCAL_KEY = "provisioning-local-"  # which nobody calls a real one
_LOCAL_SECRET = b"for this machine only"  # of a length that base64 has no remainder of: every secret that begins so is written alike
# The SHA-256 of each, so that none is printed once more.
_PUBLISHED = frozenset(
    {
        # Of the documentation of Standard Webhooks and Svix.
        "96ad2ccd81462a766178ae09a71df55f548a3f66da11606f9cdf40b391e22dd0",
        "2dd745ff991276aed56826de4e41d9d81b006c671a1491c08e9fc74e9362d95a",
        # Of this repository.
        "c6827db526ec52af00fd37816a6eeeadef0f9ac32a70708d77cc19fd8d882584",
        "5036e1435aa9756cfa1bb5563e8723c91bb2273537d8b6e73f3d1f9dddd9d1e2",
        "746f58bc25c65f272833c1ed9e9d4f572a707e8a1229bcf65a71ac0cd8fb2177",
        "d05766b69854f9b56537092f3725dbcee3a642f770af8ca36f19b92894b1ea5d",
        "562ceb102a0cfcbba4041342d708310acdfd2d2fe4b39cd2004337868c86a10b",
        "6da0fa54a4f7033197b012a41d2a0e88343fcf46156bf556ba593867b94b4907",
        "50975a091267bbca96d62a17548c8f357f615d6c087ac4ac922525d7c5e982e8",
        "edb54697c6228d20c365fc0f2193f2a0c2df3eb32400f9afddef3b761392d5c4",
        "a0f8ad9cf6e2e1e9af1a16dd86cd857a7c501375d327a2370eb37b3b2370539a",
    }
)


def new_key() -> str:
    """An API key for this machine."""
    return _LOCAL_KEY + secrets.token_urlsafe(32)


def new_webhook_secret() -> str:
    """A signing secret for this machine."""
    return _written(_LOCAL_SECRET + secrets.token_bytes(32))


def why(secret: str) -> str | None:
    """Why an API key or a webhook secret keeps nobody out; None when it may be a real one."""
    if hashlib.sha256(secret.encode()).hexdigest() in _PUBLISHED:
        return "is printed where anybody can read it"
    if secret.startswith((_LOCAL_KEY, _written(_LOCAL_SECRET))):
        return "was made up for trying things on one machine"
    return None


def _written(key: bytes) -> str:
    return f"whsec_{b64encode(key).decode()}"
