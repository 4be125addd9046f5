"""Which pages of other origins may call from a browser, and what: portal links, which are all that a browser has business with.

Cross-origin resource sharing by the Fetch standard (section 3.2). Callers say who they are in a header that no browser adds by itself, so
there is no `Access-Control-Allow-Credentials`; and origins are named one by one, so there is no wildcard. (The module that frontends import
is public, and says so itself: api/embed.py.)
"""

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provisioning.api import portal

_PATH = compile_path(portal.PATH)[0]
_ANSWERED = {"Access-Control-Expose-Headers": "Retry-After, X-Request-ID"}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",  # seconds
}

router = APIRouter(include_in_schema=False)


class Cors:
    """Says on every answer to a page of `origins` that it may read it, refusals of the layers within included.

    To any other page nothing is said, which is what makes its browser refuse.
    """

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on."""
        if scope["type"] != "http" or not self._origins or not _PATH.match(scope["path"]):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).getlist("origin")
        origin = given[0] if len(given) == 1 and given[0] in self._origins else None

        async def said(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")  # whoever asked: a cache must not answer one origin with what another was told
                if origin:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers.update(_PREFLIGHT if scope["method"] == "OPTIONS" else _ANSWERED)
            await send(message)

        await self._app(scope, receive, said)


@router.options(portal.PATH)
async def preflight() -> Response:
    """What a browser asks first; the answer is in the headers that Cors adds."""
    return Response(status_code=204)
