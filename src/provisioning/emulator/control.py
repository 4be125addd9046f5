"""The control API: everything that the page and the commands do, for the one person whose emulator this is.

GET /control/<view> looks, POST /control/<action> does. A web page of another origin must not get that far, nor another user of this
machine: loopback `Host`, own or no `Origin`, JSON, and the token of a file that only its user can read.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from provisioning.emulator import actions, views
from provisioning.emulator.parts import Parts
from provisioning.emulator.service import ServiceSilent
from provisioning.errors import Conflict, NotFound, ProvisioningError

MAX_BODY_BYTES = 1_000_000

_STATUS: dict[type[ProvisioningError], int] = {NotFound: 404, Conflict: 409, ServiceSilent: 502}


class Barred(ProvisioningError):
    """The request does not get in; `status` says why to a program."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def routes(parts: Parts, token: str, origins: Sequence[str]) -> list[Route]:
    """The two routes; `origins` are the emulator's own."""

    async def look(request: Request) -> Response:
        _bar(request, token, origins)
        query = {name: request.query_params.getlist(name) for name in request.query_params}
        view = views.parse(request.path_params["view"], query, request.path_params.get("reference"))
        return _answer(200, await run_in_threadpool(view.show, parts))

    async def act(request: Request) -> Response:
        _bar(request, token, origins)
        action = actions.parse(request.path_params["action"], await _body(request))
        return _answer(200, await run_in_threadpool(action.do, parts))

    return [
        Route("/control/{view}", _guarded(look), methods=["GET"]),
        Route("/control/{view}/{reference:path}", _guarded(look), methods=["GET"]),
        Route("/control/{action}", _guarded(act), methods=["POST"]),
    ]


def _guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Barred as error:
            return _answer(error.status, {"detail": str(error)})
        except ValidationError as error:
            return _answer(422, {"detail": _sentence(error)})
        except ProvisioningError as error:
            return _answer(_STATUS.get(type(error), 400), {"detail": str(error)})

    return guarded


def _bar(request: Request, token: str, origins: Sequence[str]) -> None:
    origin = request.headers.get("origin")
    if origin is not None and origin not in origins:
        raise Barred(403, "Pages of another origin may not drive the emulator.")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), token.encode()):
        raise Barred(401, "The token is missing or wrong: it is in the file `token` of the emulator's folder.")
    if request.method == "POST" and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Barred(415, "Send JSON, with Content-Type: application/json.")


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise Barred(413, f"The body is longer than {MAX_BODY_BYTES:,} bytes.")
    return body


def _sentence(error: ValidationError) -> str:
    """The first thing wrong, in words."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}." if where else f"{what}."


def _answer(status: int, content: object) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(to_json(content), status, headers, media_type="application/json")
