"""The company page: files of ours, under a policy that lets nothing else in. What it shows and does goes through the control API."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_WEB = files("provisioning") / "emulator" / "web"
_MODULES = ("elements", "control", "desk", "service", "directories", "people", "groups", "deliveries", "switches", "play", "portal")
_FILES = {
    "/": ("company.html", "text/html"),
    "/web/company.css": ("company.css", "text/css"),
    "/web/company.js": ("company.js", "text/javascript"),
    **{f"/web/company/{name}.js": (f"company/{name}.js", "text/javascript") for name in _MODULES},
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",  # the next release's page must not run this one's modules
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def routes() -> list[Route]:
    """One for each file, and none for anything else. They need no token: the page has nothing in it."""
    return [Route(path, _serving(_WEB / name, media_type)) for path, (name, media_type) in _FILES.items()]


def _serving(file: Traversable, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_: Request) -> Response:
        return Response(file.read_bytes(), media_type=media_type, headers=_HEADERS)

    return serve
