"""Every error as RFC 9457 `application/problem+json`: one table says which failure is which answer.

An answer never quotes a request, a payload or a driver: what a caller may read is the message of one of our own errors, or generic.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from provisioning import errors
from provisioning.api.shapes import Shape

MEDIA_TYPE = "application/problem+json"
SENDING = (408, 413)  # what may come of a body: it took too long, or is too large

_log = structlog.get_logger(__name__)


class Invalid(Shape):
    """One thing wrong with a request."""

    where: Annotated[str, Field(examples=["query.limit"])]
    message: Annotated[str, Field(examples=["Input should be less than or equal to 200"])]


class Problem(Shape):
    """What went wrong (RFC 9457)."""

    type: Annotated[str, Field(description="What kind of problem: `about:blank` says no more than the status.")]
    title: Annotated[str, Field(description="The kind in words; the same for every problem of this type.")]
    status: Annotated[int, Field(description="The HTTP status.")]
    detail: Annotated[str | None, Field(description="What happened this time, for people to read.")] = None
    request_id: Annotated[str, Field(description="Names this request in the service's log; also in `X-Request-ID`.")]
    errors: Annotated[list[Invalid] | None, Field(description="With 422: each thing wrong with the request.")] = None


@dataclass(frozen=True)
class Kind:
    """A problem's status, and what it is called."""

    status: HTTPStatus
    type: str
    title: str


# The most specific class decides. ConfigurationError, Unreadable and ClockOff are not here: at this edge they would be faults of ours, 500.
KINDS: dict[type[errors.ProvisioningError], Kind] = {
    errors.Refused: Kind(HTTPStatus.BAD_REQUEST, "webhook-refused", "The webhook could not be verified"),
    errors.Unavailable: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "database-unavailable", "The database is not available"),
    errors.TokenRefused: Kind(HTTPStatus.UNAUTHORIZED, "token-refused", "The token is not valid"),
    errors.KeysUnavailable: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "keys-unavailable", "Tokens cannot be checked now"),
    errors.NotAllowed: Kind(HTTPStatus.FORBIDDEN, "not-allowed", "The caller may not do this"),
    errors.NotFound: Kind(HTTPStatus.NOT_FOUND, "not-found", "No such record"),
    errors.Conflict: Kind(HTTPStatus.CONFLICT, "conflict", "It contradicts what is there"),
    errors.NotReplayable: Kind(HTTPStatus.CONFLICT, "not-replayable", "The delivery cannot be replayed"),
    errors.Forgotten: Kind(HTTPStatus.GONE, "forgotten", "The log cannot be read from there"),
    errors.InvalidCursor: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-cursor", "The cursor is not one of this list"),
    errors.ScalekitNotConfigured: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "scalekit-not-configured", "Scalekit's API is not configured"),
    errors.UnknownOrganization: Kind(HTTPStatus.NOT_FOUND, "unknown-organization", "Scalekit does not know this organization"),
    errors.ScalekitRefused: Kind(HTTPStatus.BAD_GATEWAY, "scalekit-refused", "Scalekit refused the call"),
    errors.ScalekitUnavailable: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "scalekit-unavailable", "Scalekit is not available"),
    errors.ScalekitTimeout: Kind(HTTPStatus.GATEWAY_TIMEOUT, "scalekit-timeout", "Scalekit did not answer in time"),
}


def install(app: FastAPI) -> None:
    """Answer every failure of our tree, of FastAPI and of its routing as a problem; what is left over is api/edge.py's."""
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, answer)


async def answered(request: Request, error: Exception) -> Response:
    """Return the answer to a failure. Raises it where it is one that nobody expected."""
    answer = next((answer for kind, answer in _ANSWERS.items() if isinstance(error, kind)), None)
    if answer is None:
        raise error
    return await answer(request, error)


def problem(
    request_id: str,
    status: int,
    *,
    slug: str | None = None,
    title: str | None = None,
    detail: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> JSONResponse:
    """Return the problem as a response; without a `slug` its type is `about:blank` and its title the status's phrase (RFC 9457, 4.2.1)."""
    content: dict[str, object] = {
        "type": f"urn:provisioning:problem:{slug}" if slug else "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "request_id": request_id,
        **more,
    }
    content = {key: value for key, value in content.items() if value is not None}
    return JSONResponse(content, int(status), headers=headers, media_type=MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Return the OpenAPI declaration of the problems with these statuses, for `responses=` of a route; 400 and 500 can come from any."""
    return {status: _declared(status) for status in sorted({400, *statuses, 500})}


def request_id(request: Request) -> str:
    """Return the id that api/edge.py gave this request."""
    return cast(str, request.state.request_id)


def kind_of(error: errors.ProvisioningError) -> tuple[Kind, dict[str, str]]:
    """Return what kind of problem a failure of ours is, and the headers that go with it. Raises the error where it is none at this edge."""
    kind = next((KINDS[each] for each in type(error).__mro__ if each in KINDS), None)
    if kind is None:
        raise error
    if isinstance(error, errors.ScalekitNotConfigured):
        _log.info("scalekit_not_configured")
    elif isinstance(error, errors.ScalekitError):
        _log.warning("scalekit_failed", error=type(error).__name__, vendor_message=error.vendor_message)
    retry_after = getattr(error, "retry_after", None)
    return kind, {"Retry-After": str(retry_after)} if retry_after is not None else {}


def _declared(status: int) -> dict[str, object]:
    phrase = HTTPStatus(status).phrase
    example = {"type": "about:blank", "title": phrase, "status": status, "request_id": "0b6f1c9a52f14a2f8f2f3f6c1f0a7e55"}
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {"description": phrase, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}


async def _ours(request: Request, error: Exception) -> Response:
    error = cast(errors.ProvisioningError, error)
    kind, headers = kind_of(error)
    if kind.status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(request_id(request), kind.status, slug=kind.type, title=kind.title, detail=str(error) or None, headers=headers)


async def _http(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else None
    headers = {"Allow": _allowed(request)} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return problem(request_id(request), error.status_code, detail=detail, headers=headers)


def _allowed(request: Request) -> str:
    """The methods of every route with this path: the routing knows of those of one."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    there = (each for each in iter_route_contexts(request.app.routes) if each.path_regex.match(path))
    return ", ".join(sorted({method for each in there for method in each.methods or ()}))


async def _invalid(request: Request, error: Exception) -> Response:
    found = [{"where": _where(each), "message": each["msg"]} for each in cast(RequestValidationError, error).errors()]
    return problem(request_id(request), 422, slug="invalid-request", title="The request is not valid", errors=found)


def _where(error: Mapping[str, object]) -> str:
    """Where in the request; an extra key's name is the caller's own text, and is left out."""
    place = cast(tuple[str | int, ...], error["loc"])
    return ".".join(str(each) for each in (place[:-1] if error["type"] == "extra_forbidden" else place))


async def _gone(request: Request, error: Exception) -> Response:
    """The client hung up while its body was read: nobody hears this answer, and it is no failure of ours."""
    return problem(request_id(request), 400, detail="The connection closed before the whole body had arrived.")


_ANSWERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    errors.ProvisioningError: _ours,
    HTTPException: _http,
    RequestValidationError: _invalid,
    ClientDisconnect: _gone,
}
