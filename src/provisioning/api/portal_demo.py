"""The admin portal in an application's settings page, to try and to copy from. Only `dev` has it.

The local Scalekit stands in for the application's login; with a real one the page asks for the visitor's own token.
"""

from html import escape
from importlib.resources import files
from string import Template
from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import StringConstraints
from starlette.exceptions import HTTPException

from provisioning.api import directories
from provisioning.api.dependencies import ServicesDep
from provisioning.api.paging import Found, Page
from provisioning.api.shapes import Shape
from provisioning.db.reading.directories import Directory
from provisioning.portal import check_visitor
from provisioning.settings import Settings

EMULATOR_WITHIN = 10.0  # seconds

_WEB = files("provisioning") / "web"
_ASSETS = {"portal-demo.css": "text/css", "portal-demo.js": "text/javascript"}
_PASSED_ON = {401, 404, 422}  # what the emulator refuses is for whoever asked

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
Bearer = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


class Login(Shape):
    """Of which organization the visitor is to be an administrator."""

    organization_id: Identifier


class Organization(Shape):
    """One to choose."""

    id: str
    name: str


class Organizations(Shape):
    """Those that the local Scalekit has."""

    organizations: list[Organization]


class Token(Shape):
    """What an application has of its visitor after the login."""

    token: str
    expires_in: int


def install(app: FastAPI, settings: Settings, emulator: str | None) -> None:
    """Serve the page at `/portal-demo`. `emulator`: the origin of the local Scalekit's pages, if one runs."""
    router = APIRouter(prefix="/portal-demo", include_in_schema=False)
    if emulator:
        _add_login(router, emulator)
    _add_directories(router)
    _add_page(router, settings.portal_origins, local=emulator is not None)
    app.include_router(router)


def _add_login(router: APIRouter, emulator: str) -> None:
    """What an application's own backend would do. It acts with the caller's right to the emulator, and has none itself."""

    @router.get("/organizations")
    def organizations(bearer: Bearer) -> list[Organization]:
        return Organizations.model_validate_json(_asked(emulator, "GET", "state", bearer)).organizations

    @router.post("/token")
    def token(login: Login, bearer: Bearer) -> Token:
        asked = {"organization": login.organization_id}
        return Token.model_validate_json(_asked(emulator, "POST", "visitor-token", bearer, asked))


def _add_directories(router: APIRouter) -> None:
    """What the application would read with its API key, for the administrators of the organization themselves."""

    async def administered(organization_id: Annotated[Identifier, Query()], bearer: Bearer, parts: ServicesDep) -> str:
        visitor = await parts.tokens.verify(bearer.credentials)
        check_visitor(visitor, organization_id=organization_id, roles=parts.settings.portal_roles)
        return organization_id

    @router.get("/directories", response_model=Page[directories.Directory])
    def known(organization_id: Annotated[str, Depends(administered)], parts: ServicesDep) -> Found[Directory]:
        return directories.list_directories(organization_id, parts)


def _add_page(router: APIRouter, origins: tuple[str, ...], *, local: bool) -> None:
    frames = " ".join(origins) or "'none'"
    headers = {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
            f" frame-src {frames}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "strict-origin",  # the portal asks who is around it
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    template = Template((_WEB / "portal-demo.html").read_text(encoding="utf-8"))
    here, elsewhere = ("", "hidden") if local else ("hidden", "")
    page = template.substitute(origins=escape(" ".join(origins), quote=True), local=here, real=elsewhere)

    @router.get("")
    async def demo() -> Response:
        return Response(page, media_type="text/html", headers=headers)

    @router.get("/{name}")
    def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(404)
        return Response((_WEB / name).read_bytes(), media_type=_ASSETS[name], headers=headers)


def _asked(emulator: str, method: str, name: str, bearer: HTTPAuthorizationCredentials, body: dict[str, str] | None = None) -> bytes:
    """What its control API answers. Raises HTTPException."""
    headers = {"Authorization": f"Bearer {bearer.credentials}"}
    try:
        answer = httpx.request(method, f"{emulator}/control/{name}", headers=headers, json=body, timeout=EMULATOR_WITHIN, trust_env=False)
    except (httpx.HTTPError, UnicodeEncodeError):  # the latter: no header carries such a token
        raise HTTPException(502, "The local Scalekit does not answer.") from None
    if answer.is_success:
        return answer.content
    if answer.status_code in _PASSED_ON:
        raise HTTPException(answer.status_code, "The local Scalekit refuses: its token is wrong, or there is no such organization.")
    raise HTTPException(502, f"The local Scalekit answers {answer.status_code}.")
