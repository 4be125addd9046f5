"""The admin portal over HTTP: /magicLink/<id> spends a link and answers a page, whose script posts what is switched there.

The session's secret is in the page and in a header of each post; a page of another origin can neither read the one nor send the other.
"""

from collections.abc import Awaitable, Callable
from html import escape
from importlib.resources import files
from string import Template

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from provisioning.emulator.portal import Answer, Barred, LinkRefused, Portal
from provisioning.emulator.records import Provider
from provisioning.emulator.sessions import Session, SessionOver
from provisioning.errors import Conflict, NotFound, ProvisioningError

SECRET = "X-Portal-Session"  # noqa: S105  # the header's name
MAX_BODY_BYTES = 1_000

_WEB = files("provisioning") / "emulator" / "web"
_FILES = {"portal.css": "text/css", "portal.js": "text/javascript"}
_SELF = "'self'"
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
_STATUS: dict[type[ProvisioningError], int] = {Barred: 403, NotFound: 404}

Endpoint = Callable[[Request], Awaitable[Response]]
Act = Callable[[str, bytes], Answer]


class Switch(BaseModel):
    """Turn a provider's directory, or single sign-on, on or off."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    provider: Provider
    enabled: bool


def routes(portal: Portal) -> list[Route]:
    """The page, its files, and what its script posts."""
    pages = _Pages(portal)
    return [
        _route("GET", "/magicLink/{link_id}", pages.page),
        *(_route("GET", f"/portal/{name}", pages.file) for name in _FILES),
        _route("POST", "/portal/directory", pages.switching(portal.switch_directory)),
        _route("POST", "/portal/sso", pages.switching(portal.switch_sso)),
        _route("POST", "/portal/warning", pages.posted(lambda secret, _: portal.warn(portal.session(secret)))),
        _route("POST", "/portal/expiry", pages.posted(lambda secret, _: portal.expire(secret))),
    ]


def _route(method: str, path: str, endpoint: Endpoint) -> Route:
    route = Route(path, endpoint, methods=[method])
    route.methods = {method}  # Starlette adds HEAD to GET, which would spend a link on nobody
    return route


class _Pages:
    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    async def page(self, request: Request) -> Response:
        return await run_in_threadpool(self._open, request.path_params["link_id"])

    async def file(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return self._response(200, (_WEB / name).read_bytes(), _FILES[name])

    def posted(self, act: Act) -> Endpoint:
        """An endpoint that does `act` with the secret and the body that it is sent."""

        async def endpoint(request: Request) -> Response:
            body = b""
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    return self._json(413, None, f"The body is longer than {MAX_BODY_BYTES:,} bytes.")
            return await run_in_threadpool(self._answer, act, request.headers.get(SECRET, ""), body)

        return endpoint

    def switching(self, switch: Callable[[Session, Provider, bool], Answer]) -> Endpoint:
        """An endpoint that is sent a Switch."""

        def act(secret: str, body: bytes) -> Answer:
            session, wanted = self._portal.session(secret), Switch.model_validate_json(body)
            return switch(session, wanted.provider, wanted.enabled)

        return self.posted(act)

    def _open(self, link_id: str) -> Response:
        try:
            session = self._portal.open(link_id)
        except LinkRefused as refusal:
            answer = self._portal.refused(refusal)
            return self._page(410 if refusal.gone else 404, "This link does not open the portal", str(refusal), answer)
        return self._page(200, "Admin portal", "This page needs JavaScript.", self._portal.loaded(session), session.secret)

    def _answer(self, act: Act, secret: str, body: bytes) -> Response:
        try:
            return self._json(200, act(secret, body))
        except SessionOver as over:
            return self._json(401, self._portal.lost(secret), str(over))
        except ValidationError:
            return self._json(422, None, f'Send {{"provider": …, "enabled": …}}: one of {", ".join(Provider)}, and true or false.')
        except Conflict as conflict:
            return self._json(409, self._portal.look(secret), str(conflict))
        except ProvisioningError as error:
            return self._json(_STATUS[type(error)], None, str(error))

    def _page(self, status: int, heading: str, words: str, answer: Answer, secret: str = "") -> Response:
        filled = {
            "heading": heading,
            "words": words,
            "session": secret,
            "audience": " ".join(self._portal.embedding_origins),
            "answer": to_json(answer).decode(),
        }
        template = Template((_WEB / "portal.html").read_text("utf-8"))
        text = template.substitute({name: escape(value) for name, value in filled.items()})
        return self._response(status, text.encode(), "text/html")

    def _json(self, status: int, answer: Answer | None, detail: str | None = None) -> Response:
        said = answer or Answer([])
        return self._response(status, to_json({"detail": detail, "events": said.events, "state": said.state}), "application/json")

    def _response(self, status: int, content: bytes, media_type: str) -> Response:
        headers = {
            "Content-Security-Policy": f"{_POLICY}; frame-ancestors {' '.join(self._portal.embedding_origins) or _SELF}",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(content, status, headers, media_type=media_type)
