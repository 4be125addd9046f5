"""Who is logged in: a random token in a cookie, of which the database keeps a digest, for as long as the API key behind it may operate."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from secrets import token_urlsafe

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from provisioning.api.dependencies import Services
from provisioning.db import operator_sessions
from provisioning.settings import ApiKey, Scope

COOKIE = "__Host-provisioning"  # the prefix: no other host, no sub-domain and no plain HTTP can set it
LASTS = timedelta(hours=8)


@dataclass(frozen=True, slots=True)
class Operator:
    """Whoever is logged in: the name of the API key, for logs and audit, and the token of the session."""

    name: str
    token: str = field(repr=False)

    @property
    def form_token(self) -> str:
        """What each of the session's forms has to carry; no other site can know it."""
        return _keyed(self.token, b"form")

    def owns(self, form: Mapping[str, str]) -> bool:
        """Whether the form is one of the session's."""
        return hmac.compare_digest(form.get("token", "").encode(), self.form_token.encode())


def begin(parts: Services, request: Request, key: ApiKey, response: Response) -> None:
    """Log in with this key, and have the browser keep it; the session that it had ends. Raises Unavailable."""
    earlier, token, now = request.cookies.get(COOKIE), token_urlsafe(32), datetime.now(UTC)

    def work(session: Session) -> None:
        if earlier:
            operator_sessions.end(session, _id(earlier))
        operator_sessions.begin(session, _id(token), key.name, _fingerprint(token, key), now=now, expires_at=now + LASTS)

    parts.database.write(work)
    response.set_cookie(COOKIE, token, max_age=int(LASTS.total_seconds()), path="/", secure=True, httponly=True, samesite="strict")


def end(parts: Services, operator: Operator, response: Response) -> None:
    """Log out, here and in the browser. Raises Unavailable."""
    parts.database.write(lambda session: operator_sessions.end(session, _id(operator.token)))
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")


def operator_of(parts: Services, request: Request) -> Operator | None:
    """Whose session the request's cookie names: None unless it lasts, and its key is still there, the same, and may operate.

    Raises Unavailable.
    """
    token = request.cookies.get(COOKIE)
    if not token:
        return None
    with parts.database.reading() as session:
        found = operator_sessions.find(session, _id(token), datetime.now(UTC))
    key = next((key for key in parts.settings.api_keys if found and key.name == found.key_name), None)
    if found is None or key is None or Scope.OPERATE not in key.scopes:
        return None
    return Operator(key.name, token) if hmac.compare_digest(found.key_fingerprint, _fingerprint(token, key)) else None


def _id(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _fingerprint(token: str, key: ApiKey) -> str:
    """By what the browser keeps: from the table alone nobody can try keys."""
    return _keyed(token, key.digest)


def _keyed(token: str, message: bytes) -> str:
    return hmac.new(token.encode(), message, hashlib.sha256).hexdigest()
