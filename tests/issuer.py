"""An identity provider for tests: it signs tokens, good ones and others, and publishes its keys at an address that can misbehave."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

ISSUER, AUDIENCE = "https://login.example", "settings-page"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Answer = Callable[[Request], Awaitable[Response]]


def new_key(kind: str = "RS256") -> PrivateKey:
    """One that nobody has seen."""
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ES256" else rsa.generate_private_key(public_exponent=65537, key_size=2048)


RSA_KEY, EC_KEY, STRANGERS_KEY = new_key(), new_key("ES256"), new_key()


def published(key_id: str | None, key: PrivateKey, **more: object) -> dict[str, Any]:
    """The public half as a key set has it."""
    public = key.public_key()
    shown = RSAAlgorithm.to_jwk(public, as_dict=True) if isinstance(public, rsa.RSAPublicKey) else ECAlgorithm.to_jwk(public, as_dict=True)
    return {**shown, "use": "sig", **({} if key_id is None else {"kid": key_id}), **more}


async def hang(request: Request) -> Response:
    """Silence, until the other side gives up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()


async def drip(_: Request) -> Response:
    """The keys, after three seconds in which there is always a little more to hear."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            await asyncio.sleep(0.1)
            yield b" "
        yield json.dumps({"keys": Issuer().keys}).encode()

    return StreamingResponse(pieces())


class Issuer:
    """An ASGI application that answers every request with `keys`, or as `misbehaves` does; `fetches` counts them."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [published("rsa-1", RSA_KEY), published("ec-1", EC_KEY)]
        self.misbehaves: Answer | None = None
        self.fetches = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # its lifespan, which it does without
            raise NotImplementedError
        self.fetches += 1
        answer = await self.misbehaves(Request(scope, receive)) if self.misbehaves else JSONResponse({"keys": self.keys})
        await answer(scope, receive, send)


def token(key: PrivateKey = RSA_KEY, key_id: str | None = "rsa-1", algorithm: str = "RS256", **claims: Any) -> str:
    """A token that is good but for what `claims` change: None leaves one out."""
    # Not jwt.encode: it makes no claim that cannot be.
    return jwt.PyJWS().encode(json.dumps(filled(claims)).encode(), key, algorithm, {} if key_id is None else {"kid": key_id})


def unsigned(algorithm: str = "none", **header: object) -> str:
    """A good token without a signature."""
    return f"{_part({'alg': algorithm, 'typ': 'JWT', 'kid': 'rsa-1', **header})}.{_part(filled({}))}."


def signed_with_the_public_key(public: bytes | None = None) -> str:
    """A good token under HS256, its secret what everybody can fetch: as PEM unless told otherwise."""
    secret = public or RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing_input = unsigned("HS256")[:-1]
    return f"{signing_input}.{_base64(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"


def filled(claims: dict[str, object]) -> dict[str, object]:
    """The claims of a good token, with these changed."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "usr_12345678", "iat": now, "exp": now + 600, "oid": "org_1", "roles": ["admin"]}
    return {name: value for name, value in {**good, **claims}.items() if value is not None}


def _part(content: dict[str, object]) -> str:
    return _base64(json.dumps(content).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
