"""Scalekit's token endpoint and key set: client credentials in, a signed token out (RFC 6749 section 4.4, RFC 7517).

It also stands in for an application's login: `Tokens.for_visitor` makes what an application's own page would hold.
"""

import asyncio
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from provisioning.emulator.faults import Door, Fault, Faults
from provisioning.emulator.records import Record
from provisioning.emulator.store import Store

LIFETIME = timedelta(hours=1)
HANG_SECONDS = 0.05
VISITORS_AUDIENCE = "portal-demo"
VISITOR = "usr_100000000000000001"

_REFUSALS = {
    Fault.RATE_LIMIT: (429, "rate_limited"),
    Fault.AWAY: (503, "temporarily_unavailable"),
    Fault.REFUSE: (403, "access_denied"),
    Fault.MISSING: (404, "not_found"),
}


class _Client(Record):
    secret: str


class Tokens:
    """The tokens of one client, whose secret is kept, signed with a key that lives as long as this object; `issued` counts them."""

    def __init__(self, issuer: str, store: Store) -> None:
        kept = store.load(_Client)
        client = kept[0] if kept else _Client(id="skc_emulator", secret=secrets.token_urlsafe(32))
        store.save([client])
        self.client_id = client.id
        self.client_secret = client.secret
        self.issued = 0
        self._issuer = issuer
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._key_id = secrets.token_hex(8)

    def knows(self, client_id: str, client_secret: str) -> bool:
        """Whether these are the client's credentials."""
        return client_id == self.client_id and secrets.compare_digest(client_secret.encode(), self.client_secret.encode())

    def issue(self, lifetime: timedelta = LIFETIME) -> str:
        """A token that is accepted for `lifetime`."""
        self.issued += 1
        return self._signed({"sub": self.client_id}, lifetime)

    def for_visitor(self, organization_id: str, role: str) -> str:
        """What somebody of the organization with this role has after logging in: of no use as the client's, since it names an audience."""
        return self._signed({"aud": VISITORS_AUDIENCE, "sub": VISITOR, "oid": organization_id, "roles": [role]}, LIFETIME)

    def accepts(self, token: str) -> bool:
        """Whether this token is ours and has not expired."""
        try:
            jwt.decode(token, self._key.public_key(), algorithms=["RS256"], issuer=self._issuer)
        except jwt.InvalidTokenError:
            return False
        return True

    def _signed(self, claims: dict[str, object], lifetime: timedelta) -> str:
        now = datetime.now(UTC)
        dated = {"iss": self._issuer, "iat": now, "exp": now + lifetime, **claims}
        return jwt.encode(dated, self._key, algorithm="RS256", headers={"kid": self._key_id})

    def key_set(self) -> dict[str, list[dict[str, object]]]:
        """The public half of the key, as a JWKS."""
        key = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": self._key_id, "alg": "RS256", "use": "sig"}]}


def routes(tokens: Tokens, faults: Faults) -> Sequence[Route]:
    """POST /oauth/token and GET /keys."""

    async def token(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        while (fault := faults.current()[Door.OAUTH]) is Fault.HANG:  # noqa: ASYNC110  # changed on any thread, and none to spare for waiting
            await asyncio.sleep(HANG_SECONDS)
        if fault in _REFUSALS:
            status, error = _REFUSALS[fault]
            return _refusal(status, error, f"The emulator was told to misbehave: {fault}.")
        if fault is Fault.UNREADABLE:
            return HTMLResponse("<h1>The emulator was told to misbehave</h1>")
        if form.get("grant_type") != ["client_credentials"]:
            return _refusal(400, "unsupported_grant_type", "The emulator knows client_credentials only.")
        if not tokens.knows(*(form.get(name, [""])[0] for name in ("client_id", "client_secret"))):
            return _refusal(401, "invalid_client", "The emulator knows no client with these credentials.")
        lifetime = -LIFETIME if fault is Fault.EXPIRED else LIFETIME
        answer = {"access_token": tokens.issue(lifetime), "token_type": "Bearer", "expires_in": int(lifetime.total_seconds())}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def keys(request: Request) -> Response:
        return JSONResponse(tokens.key_set())

    return [Route("/oauth/token", token, methods=["POST"]), Route("/keys", keys)]


def _refusal(status: int, error: str, description: str) -> Response:
    return JSONResponse({"error": error, "error_description": description}, status)
