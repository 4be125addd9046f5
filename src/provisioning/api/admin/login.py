"""Logging in with an API key that may operate, and out again."""

from collections.abc import Mapping

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from structlog.contextvars import bind_contextvars

from provisioning.api.admin import sessions
from provisioning.api.admin.pages import HEADERS, ROOT, STYLE, at, page, see
from provisioning.api.admin.route import FormDep, OpenPage, OperatorDep, OperatorPage, way_back
from provisioning.api.attempts import FAILURES
from provisioning.api.dependencies import Services, ServicesDep
from provisioning.settings import ApiKey, Scope

router = APIRouter()
_open = APIRouter(prefix=ROOT, route_class=OpenPage)
_closed = APIRouter(prefix=ROOT, route_class=OperatorPage)

_log = structlog.get_logger(__name__)


@_open.get("/admin.css")
async def style() -> Response:
    """How every page looks."""
    return Response(STYLE, media_type="text/css", headers=HEADERS)


@_open.get("/login")
def login_page(request: Request, parts: ServicesDep) -> Response:
    """The form; who is logged in goes on at once.

    Whoever follows a link from another site comes without the cookie: the page then asks for itself again, from here.
    """
    wanted = request.query_params.get("next", "")
    if sessions.operator_of(parts, request):
        return see(way_back(wanted))
    from_elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
    return _form(request, parts, wanted, again=from_elsewhere)


@_open.post("/login")
def log_in(request: Request, parts: ServicesDep, form: FormDep) -> Response:
    """Begin a session, with a key that may operate; the one that the browser had ends."""
    wanted, address = form.get("next", ""), request.client.host if request.client else ""
    if wait := parts.attempts.begin(address):
        _log.warning("operator_login_refused", reason="too many failures")
        error = f"{FAILURES} logins from your address failed within a minute. Come again in {wait} seconds."
        return _form(request, parts, wanted, status=429, error=error, headers={"Retry-After": str(wait)})
    key = parts.settings.find_api_key(form.get("key", ""))
    if key is None or Scope.OPERATE not in key.scopes:
        _log.warning("operator_login_refused", reason="unknown key" if key is None else "lacks operate")
        return _form(request, parts, wanted, status=403, error=_refusal(key))
    parts.attempts.forgive(address)
    bind_contextvars(caller=key.name)
    answer = see(at("login", did="not-kept", next=way_back(wanted)))  # which goes on there, if the browser keeps cookies of here
    sessions.begin(parts, request, key, answer)
    _log.info("operator_logged_in")
    return answer


@_closed.post("/logout")
def log_out(parts: ServicesDep, operator: OperatorDep) -> Response:
    """End the session."""
    answer = see(at("login", did="logged-out"))
    sessions.end(parts, operator, answer)
    _log.info("operator_logged_out")
    return answer


def _form(
    request: Request,
    parts: Services,
    wanted: str,
    *,
    status: int = 200,
    error: str | None = None,
    again: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Response:
    if not any(Scope.OPERATE in key.scopes for key in parts.settings.api_keys):
        raise HTTPException(503, _NO_KEY)
    return page(request, "login.html", status=status, headers=headers, wanted=way_back(wanted), error=error, again=again)


_NO_KEY = (
    "No API key with the scope operate is configured, so that nobody can log in."
    " Add one to PROVISIONING_API_KEYS, such as ops:read+operate:<32 or more random characters>, and restart the service."
)


def _refusal(key: ApiKey | None) -> str:
    if key is None:
        return "This is not an API key of this service."
    return f"The key {key.name} lacks the scope operate, which this page needs."


router.include_router(_open)
router.include_router(_closed)
