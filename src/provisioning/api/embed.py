"""`<scalekit-admin-portal>` for frontends: the module and its types, for pages of any origin to import. Nothing in them is a secret."""

from functools import cache
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

_WEB = files("provisioning") / "web"
_FILES = {"admin-portal.js": "text/javascript", "admin-portal.d.ts": "application/typescript; charset=utf-8"}
_HEADERS = {
    # An hour: pages may for so long use the module of the release before, whose requests this one answers.
    "Cache-Control": "public, max-age=3600",
    # A module of another origin is fetched with CORS, and credentials are of no use here.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(prefix="/embed", include_in_schema=False)


@router.get("/{name}")
def file(name: str, request: Request) -> Response:
    """One of the files, or 304 to whoever has it already (RFC 9110, section 13.1.2)."""
    if name not in _FILES:
        raise HTTPException(404)
    content, tag = _content(name)
    headers = {**_HEADERS, "ETag": tag}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_FILES[name], headers=headers)


@cache
def _content(name: str) -> tuple[bytes, str]:
    """The bytes and their entity tag."""
    content = (_WEB / name).read_bytes()
    return content, f'"{sha256(content).hexdigest()[:32]}"'
