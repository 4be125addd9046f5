"""How much anybody may ask of one process: for which hosts, how large a body, how long it may take to arrive, and how many at once."""

import asyncio
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provisioning.api.problems import problem

BODY_SECONDS = 10.0  # as long as Scalekit waits for an answer
ALL_BODIES_BYTES = 128 * 2**20  # of the requests under way: a body has to be read before anybody knows whose it is
OTHER_REQUESTS = 1000  # besides the deliveries that may wait for the database
SHED_RETRY_AFTER = 1  # seconds

_LATER = {"Retry-After": str(SHED_RETRY_AFTER), "Connection": "close"}  # the body is not read, so the connection is of no more use
_HEALTH = {"/health/live", "/health/ready"}  # asked by address, by load balancers, who have to be answered when nobody else is
_DIGITS = re.compile(r"[0-9]{1,18}")
# uri-host and port (RFC 9110, section 7.2), of names without what only userinfo and escapes would bring in.
_HOST = re.compile(r"([a-z0-9_][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::[0-9]*)?", re.IGNORECASE)


@dataclass(slots=True)
class _Body:
    """A request's, as far as it has come."""

    received: int = 0  # bytes


class Limits:
    """Refuses a host that is not one of `allowed_hosts` (none: any), a body of more than `max_body_bytes`, declared or not, one that takes
    longer than BODY_SECONDS, one with which all that are under way would take more than ALL_BODIES_BYTES, and while `max_requests` are
    under way every request but a health check.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, max_requests: int, allowed_hosts: tuple[str, ...]) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_requests = max_requests
        self._under_way = 0
        self._bytes = 0  # of their bodies
        self._hosts = frozenset(host for host in allowed_hosts if not host.startswith("*"))
        self._domains = tuple(host[1:] for host in allowed_hosts if host.startswith("*."))
        self._any_host = not allowed_hosts or "*" in allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["path"] not in _HEALTH and (refusal := self._refusal(scope, headers)):
            await refusal(scope, receive, send)
            return
        self._under_way += 1
        body = _Body()
        try:
            await self._app(scope, self._limited(receive, headers.get("content-length"), body), send)
        finally:
            self._under_way -= 1
            self._bytes -= body.received

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        request_id = scope["state"]["request_id"]
        if not self._any_host and not self._allowed(headers.getlist("host")):
            return problem(request_id, 400, detail="This host is not one of PROVISIONING_ALLOWED_HOSTS.")
        if self._under_way >= self._max_requests:
            detail = "Too many requests are under way."
            return problem(request_id, 503, detail=detail, headers=_LATER)
        return None

    def _allowed(self, given: list[str]) -> bool:
        """Whether there is one `Host`, of a name that is allowed, at whatever port. Two are nobody's (RFC 9112, section 3.2)."""
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        host = match[1].lower() if match else ""
        return host in self._hosts or host.endswith(self._domains)

    def _limited(self, receive: Receive, content_length: str | None, body: "_Body") -> Receive:
        """`receive`, raising 413 as soon as the body is asked for or has grown beyond the limit, 408 when it has not come in time, and
        503 when there is no room for it beside the others.

        Starlette's own limit answers plain text, and instead of any answer that was given before the body was read.
        """
        declared = int(content_length) if content_length and _DIGITS.fullmatch(content_length) else 0
        due: float | None = None  # from when the body is first asked for
        complete = False  # what is waited for then is the end of the connection

        async def limited() -> Message:
            nonlocal due, complete
            if complete:
                return await receive()
            if declared > self._max_body_bytes:
                raise HTTPException(413, self._too_large)
            due = due or asyncio.get_running_loop().time() + BODY_SECONDS
            try:
                async with asyncio.timeout_at(due):
                    message = await receive()
            except TimeoutError:
                # What is left of the body could come as the next request.
                raise HTTPException(408, f"The body took longer than {BODY_SECONDS:g} s to arrive.", {"Connection": "close"}) from None
            size = len(message.get("body", b""))
            body.received += size
            self._bytes += size
            if body.received > self._max_body_bytes:
                raise HTTPException(413, self._too_large)
            if size and self._bytes > ALL_BODIES_BYTES:
                raise HTTPException(503, "Too much is under way.", _LATER)
            complete = not message.get("more_body", False)
            return message

        return limited

    @property
    def _too_large(self) -> str:
        return f"The body is larger than {self._max_body_bytes} bytes."
