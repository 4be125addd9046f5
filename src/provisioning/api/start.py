"""The start page of a developer's machine: what is running, and where to look. Only `dev` has it."""

from collections.abc import Callable
from html import escape
from importlib.resources import files
from string import Template

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from starlette.exceptions import HTTPException

_WEB = files("provisioning") / "web"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_ASSETS = {"start.css": "text/css", "start.js": "text/javascript"}


def install(app: FastAPI, emulator: str | None, runs: Callable[[], bool]) -> None:
    """Serve the page at `/`. `emulator`: the origin of the local Scalekit's pages, if there is one; `runs`: whether it still does."""
    template = Template((_WEB / "start.html").read_text(encoding="utf-8"))
    page = template.substitute(emulator=escape(emulator or "", quote=True), local="" if emulator else "hidden")
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def start() -> Response:
        return Response(page, media_type="text/html", headers=_HEADERS)

    @router.get("/start/state")
    def state() -> dict[str, bool]:
        return {"emulator": runs()}

    @router.get("/start/{name}")
    def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(404)
        return Response((_WEB / name).read_bytes(), media_type=_ASSETS[name], headers=_HEADERS)

    app.include_router(router)
