"""What every request passes first and last: its id, its line in the log, its answer's headers, and the one answer for what nobody expected.

Pure ASGI, outside FastAPI's own layers, so that no exception's text gets past it to the server's log.
"""

import re
from secrets import token_hex
from time import perf_counter

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from provisioning.api.problems import problem
from provisioning.logs import describe

# Health checks say nothing, and a webhook has its own line; its refusals come from anybody, so they are logged at a bounded rate.
_UNLOGGED = {"/health/live", "/health/ready", "/webhooks/scalekit"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # no e-mail address can be one: it goes into the log
# For whatever a page does not know better: what is served here is for those who asked, and is no page, frame or script of anybody's.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # frame-ancestors, to browsers that do not know it
}
# To who came over TLS, by the word of a proxy that is believed. Of this host alone: others below its name are not ours to speak for.
_TLS = {"Strict-Transport-Security": "max-age=31536000"}
_ALWAYS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_OVER_TLS = [(name.lower().encode(), value.encode()) for name, value in {**HEADERS, **_TLS}.items()]

_log = structlog.get_logger(__name__)


class Edge:
    """Names the request, answers HEAD as GET, and turns whatever gets this far into a 500 that tells nothing.

    The body of an answer to HEAD is for the server to leave out, as ASGI servers do.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        clear_contextvars()
        bind_contextvars(request_id=exchange.request_id)
        try:
            await self._app(exchange.scope, receive, exchange.send)
        except Exception as error:  # the only broad one at this edge: its text may hold anything, so only its class and place are logged
            _log.error("request_failed", error=describe(error))
            if not exchange.status:
                response = problem(exchange.request_id, 500, detail="Something unexpected failed; the log knows this request id.")
                await response(scope, receive, exchange.send)
        exchange.log()


class _Exchange:
    """One request and what is known of its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else token_hex(16)
        self.status = 0
        scope.setdefault("state", {})["request_id"] = self.request_id
        self._method = scope["method"]
        self._headers = _OVER_TLS if scope.get("scheme") == "https" else _ALWAYS
        self.scope = {**scope, "method": "GET"} if self._method == "HEAD" else scope
        self._send = send
        self._began = perf_counter()

    async def send(self, message: Message) -> None:
        """Send on, with the id and what is said of every answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = [each for each in message.get("headers", ()) if each[0].lower() != b"x-request-id"]
            named = {name.lower() for name, _ in given}
            mine = ((b"x-request-id", self.request_id.encode()), *(each for each in self._headers if each[0] not in named))
            message["headers"] = [*given, *mine]
        await self._send(message)

    def log(self) -> None:
        """Write the access line: the route's template, since a path and a query can hold personal data."""
        route = getattr(self.scope.get("route"), "path", None)
        if route not in _UNLOGGED:
            duration_ms = round((perf_counter() - self._began) * 1000, 1)
            _log.info("request", method=self._method, route=route, status=self.status, duration_ms=duration_ms)
