"""The API's description: OpenAPI with every error declared, and a page to read it on that asks no other origin for anything."""

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from provisioning.api.problems import Problem

DESCRIPTION = """
Keeps an application's users, groups, memberships and roles exactly as its customers' directories say.

Scalekit posts events to `/webhooks/scalekit`. Backends and operators read, and act, with an API key (`Authorization: Bearer …`) of the
scope that they need. Every error is an RFC 9457 problem. Times are RFC 3339 in UTC. Lists come in pages: follow `next_cursor`.
"""

# As strict as Swagger UI allows. It sets styles from scripts, which is no inline style to a browser, and its icons are data: URLs.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_OURS = files("provisioning") / "web"
_SWAGGER = files("fastapi_swagger") / "resources"
_ASSETS = {
    "swagger-ui-bundle.js": (_SWAGGER / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (_SWAGGER / "swagger-ui.css", "text/css"),
    "favicon-32x32.png": (_SWAGGER / "favicon-32x32.png", "image/png"),
    "start.js": (_OURS / "docs.js", "text/javascript"),
}

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    """The description, for the page and for whoever makes a client from it."""
    app: FastAPI = request.app
    return JSONResponse(app.openapi())


@router.get("/docs")
def page() -> Response:
    """The page."""
    return Response((_OURS / "docs.html").read_bytes(), media_type="text/html", headers=_HEADERS)


@router.get("/docs/{name}")
def asset(name: str) -> Response:
    """What the page loads."""
    if name not in _ASSETS:
        raise HTTPException(404)
    file, media_type = _ASSETS[name]
    return Response(file.read_bytes(), media_type=media_type, headers={**_HEADERS, "Cache-Control": "max-age=3600"})


def install(app: FastAPI) -> None:
    """Serve the page, and complete the description with the shape of problems, to which `problems.responses` refers."""
    app.include_router(router)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        _, problems = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
        schema["components"]["schemas"].update(problems["$defs"])
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does it
