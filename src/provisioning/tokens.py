"""Whose a visitor's token is: signed with a key that its issuer publishes, from that issuer, for us, and of this hour (RFC 7519, RFC 8725).

Keys are fetched when a token first needs one, again when they have aged, and when a token names one that is not among them: often enough
to follow a rotation or a revocation, too seldom for made-up tokens to become a flood. While they cannot be fetched, those known stay good,
for a day.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import structlog

from provisioning.errors import KeysUnavailable, TokenRefused
from provisioning.logs import describe
from provisioning.settings import Settings

if TYPE_CHECKING:
    from jwt import PyJWK

ALGORITHMS = {"RS256": None, "ES256": "P-256"}  # each with the curve of its keys
REQUIRED = ("exp", "iss", "aud")
LEEWAY = 10.0  # seconds that the issuer's clock may differ
MAX_TOKEN_CHARACTERS = 8192

FETCH_WITHIN = 3.0  # seconds, all of it
GONE_AFTER = 86_400.0  # seconds without an answer of the issuer's after which its keys are good no more
MAX_AGE = 600.0  # seconds after which a key that its issuer has withdrawn is good no more
PAUSE = 30.0  # seconds between two fetches for keys that are not there (contract.md)
FIRST_PAUSE = 5.0  # seconds, while no key is known at all: nobody gets in, so an outage should not last longer here than there
MAX_KEY_SET_BYTES = 256 * 1024

_DIRECT = ("all://localhost", "all://127.0.0.1", "all://[::1]")  # a proxy of the environment's is not for this machine
# An id as identity providers make them. Everything else may be a name or an address.
_ID = re.compile(r"[a-z]{2,12}_[0-9]{6,32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_NOT_OURS = "This needs a valid token."
_REASONS: Mapping[str, str] = {  # by PyJWT's names; none of these is found before the signature is good
    "ExpiredSignatureError": "The token has expired.",
    "ImmatureSignatureError": "The token is not valid yet.",
    "InvalidIssuerError": "The token is of another issuer.",
    "InvalidAudienceError": "The token is for another audience.",
    "MissingRequiredClaimError": f"The token lacks one of {', '.join(REQUIRED)}.",
}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who has a good token, as far as it says so; a claim of the wrong type says nothing.

    `name` is for logs and audit: the subject where that is an id, else the start of its SHA-256, since it may be an address.
    """

    name: str
    organization_id: str | None
    roles: frozenset[str]


class TokenVerifier:
    """The tokens of one issuer for one audience; without both configured, none is good."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._keys = _Keys(settings.jwt_jwks_url, clock)

    @property
    def configured(self) -> bool:
        """Whether there can be a good token."""
        return bool(self._settings.jwt_issuer and self._settings.jwt_audience)

    async def fetch(self) -> int:
        """Fetch the issuer's keys, and return how many are of use. Raises KeysUnavailable, which says why not."""
        return await self._keys.fetch()

    async def verify(self, token: str) -> Visitor:
        """Return whose it is. Raises TokenRefused, and KeysUnavailable when that cannot be said now."""
        if not self.configured or len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenRefused(_NOT_OURS)
        from jwt import decode  # noqa: PLC0415  # with cryptography 9 MB, which nobody needs before the first token

        key = await self._keys.find(_key_id(token))
        try:
            claims = decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # the key's own, whatever the token says: no public key is ever taken for a shared secret
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=LEEWAY,
                options={"require": list(REQUIRED)},
            )
        except Exception as error:  # broad: on hostile claims it raises what comes up, and each of these is one refusal
            raise TokenRefused(_REASONS.get(type(error).__name__, _NOT_OURS)) from None
        organization_id = claims.get(self._settings.jwt_organization_claim)
        return Visitor(
            name=_name(claims.get("sub")),
            organization_id=organization_id if isinstance(organization_id, str) else None,
            roles=_roles(claims.get(self._settings.jwt_roles_claim)),
        )


class _NoKeys(KeysUnavailable):
    """A key set without a key that is of use: the issuer has withdrawn what there was."""


class _Keys:
    """The issuer's keys by their ids. Whoever needs a fetch while one is under way waits for that one; nobody else waits."""

    def __init__(self, url: str | None, clock: Callable[[], float]) -> None:
        self._url = url
        self._clock = clock
        self._keys: Mapping[str, PyJWK] = {}
        self._old_at = self._gone_at = self._may_fetch_at = clock()
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> "PyJWK":
        """Return the key. Raises TokenRefused when the issuer has no such key, KeysUnavailable when it cannot be asked."""
        now = self._clock()
        if now >= self._gone_at:
            self._keys = {}
        known = key_id in self._keys
        if (not known or now >= self._old_at) and (self._fetching or now >= self._may_fetch_at):
            fetching = self._fetching = self._fetching or asyncio.create_task(self._fetch())
            if not (known and self._failed):  # during an outage nobody waits for what they have
                await asyncio.shield(fetching)  # whoever hangs up does not end it for the others
        if key := self._keys.get(key_id):
            return key
        raise KeysUnavailable if self._failed else TokenRefused(_NOT_OURS)

    async def fetch(self) -> int:
        """How many there are now. Raises KeysUnavailable."""
        try:
            async with asyncio.timeout(FETCH_WITHIN):
                return len(_parsed(await self._download()))
        except KeysUnavailable:
            raise
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            raise KeysUnavailable("PROVISIONING_JWT_JWKS_URL cannot be reached.") from None
        except Exception:  # broad: whatever its parsers come up with
            raise KeysUnavailable("PROVISIONING_JWT_JWKS_URL answers no key set.") from None

    async def _fetch(self) -> None:
        first = not self._keys
        try:
            async with asyncio.timeout(FETCH_WITHIN):
                self._keys = _parsed(await self._download())
        except Exception as error:  # broad: whatever network, endpoint and parsers come up with; those who wait are told below
            if isinstance(error, _NoKeys):
                self._keys = {}
            self._failed = True
            self._may_fetch_at = self._clock() + (FIRST_PAUSE if first else PAUSE)
            _log.warning("token_keys_unavailable", error=describe(error))
        else:
            self._failed = False
            now = self._clock()
            self._old_at, self._gone_at = now + MAX_AGE, now + GONE_AFTER
            self._may_fetch_at = now if first else now + PAUSE  # the first fetch was for no unknown key: one directly after it is
        finally:
            self._fetching = None

    async def _download(self) -> bytes:
        if self._url is None:
            raise KeysUnavailable("PROVISIONING_JWT_JWKS_URL is not set.")
        context = await asyncio.to_thread(httpx.create_ssl_context)  # reads a file of certificates
        transports = dict.fromkeys(_DIRECT)
        async with httpx.AsyncClient(verify=context, mounts=transports) as client, client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                raise KeysUnavailable(f"PROVISIONING_JWT_JWKS_URL answers {response.status_code}.")
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_KEY_SET_BYTES:
                    raise KeysUnavailable(f"PROVISIONING_JWT_JWKS_URL answers more than {MAX_KEY_SET_BYTES} bytes.")
            return body


def _parsed(key_set: bytes) -> "dict[str, PyJWK]":
    """The keys that may sign tokens; others in the set (of other algorithms, for encryption, without an id) are none of our business.

    Raises whatever a body that is no key set leads to, and KeysUnavailable for one without such a key.
    """
    from jwt import PyJWK  # noqa: PLC0415  # as above

    keys: dict[str, PyJWK] = {}
    for entry in json.loads(key_set)["keys"]:
        with suppress(Exception):  # broad: PyJWT and cryptography say in many ways that they do not know a key
            key = PyJWK(entry)
            too_short = key.Algorithm.check_key_length(key.key)
            fits = entry.get("crv") == ALGORITHMS[key.algorithm_name] and key.public_key_use in {None, "sig"}
            if fits and key.key_id and not too_short:
                keys[key.key_id] = key
    if not keys:
        raise _NoKeys("PROVISIONING_JWT_JWKS_URL answers no key set with a key for RS256 or ES256.")
    return keys


def _key_id(token: str) -> str:
    """Which key the token says it is signed with. Raises TokenRefused."""
    from jwt import get_unverified_header  # noqa: PLC0415  # as above

    try:
        header = get_unverified_header(token)
        key_id = header["kid"]
    except Exception:  # broad: hostile input, before any signature
        raise TokenRefused(_NOT_OURS) from None
    if header.get("alg") not in ALGORITHMS or not isinstance(key_id, str):
        raise TokenRefused(_NOT_OURS)
    return key_id


def _roles(claim: Any) -> frozenset[str]:
    """A list of texts, or a text with commas or spaces between (contract.md)."""
    if isinstance(claim, str):
        claim = claim.replace(",", " ").split()
    if not isinstance(claim, list) or not all(isinstance(each, str) for each in claim):
        return frozenset()
    return frozenset(claim)


def _name(subject: Any) -> str:
    if not isinstance(subject, str):
        return "jwt:unknown"
    digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()
    return f"jwt:{subject if _ID.fullmatch(subject) else f'sha256:{digest[:16]}'}"
