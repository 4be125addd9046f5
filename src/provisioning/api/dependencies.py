"""What a route may ask for: the service's parts, and a caller with the right it needs. Without any caller configured nothing is open."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from fastapi import Depends, HTTPException, Path, Query, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import StringConstraints
from structlog.contextvars import bind_contextvars

from provisioning.api.attempts import Attempts
from provisioning.api.readiness import Readiness
from provisioning.api.scrapes import Scrapes
from provisioning.db.session import Database
from provisioning.errors import NotAllowed
from provisioning.feed import Feed
from provisioning.hooks import Hooks
from provisioning.inbox import Inbox
from provisioning.intake import Intake
from provisioning.logs import RefusalLog
from provisioning.metrics import Metrics
from provisioning.organizations import Organizations
from provisioning.portal import ANOTHERS, check_visitor
from provisioning.reconcile import Reconciler
from provisioning.refused import Refusals
from provisioning.roles import Roles
from provisioning.scalekit.client import ScalekitClient
from provisioning.scalekit.signature import Verifier
from provisioning.settings import ApiKey, Settings
from provisioning.tokens import TokenVerifier, Visitor
from provisioning.worker import Worker


@dataclass(frozen=True)
class Services:
    """The parts that routes work with, made once in app.py and kept at `app.state.services`."""

    settings: Settings
    database: Database
    inbox: Inbox
    intake: Intake
    feed: Feed
    scalekit: ScalekitClient
    organizations: Organizations
    reconciler: Reconciler
    roles: Roles
    hooks: Hooks
    worker: Worker
    runs_database: Database
    tokens: TokenVerifier
    verifier: Verifier
    refusals: RefusalLog
    refusals_kept: Refusals
    readiness: Readiness
    metrics: Metrics
    scrapes: Scrapes
    attempts: Attempts


async def services(request: Request) -> Services:
    """Return the parts that this application was wired with."""
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services)]

Caller = ApiKey | Visitor
"""Whoever asks; the `name` of either is fit for logs and audit."""

_api_key = HTTPBearer(scheme_name="API key", description="A key of `PROVISIONING_API_KEYS`.", auto_error=False)
_token = HTTPBearer(
    scheme_name="Visitor's token",
    bearerFormat="JWT",
    description="Of `PROVISIONING_JWT_ISSUER` for `PROVISIONING_JWT_AUDIENCE`, RS256 or ES256.",
    auto_error=False,
)


async def _key(request: Request) -> ApiKey:
    """Return the calling API key. Raises 401 without a known one, 503 when no caller is configured."""
    settings = (await services(request)).settings
    if not settings.api_keys:
        raise HTTPException(503, "No caller is configured: set PROVISIONING_API_KEYS.")
    credentials = await _api_key(request)
    key = settings.find_api_key(credentials.credentials) if credentials else None
    if key is None:
        raise HTTPException(401, "This needs a valid API key as bearer token.", {"WWW-Authenticate": "Bearer"})
    bind_contextvars(caller=key.name)
    return key


async def _key_or_visitor(request: Request) -> Caller:
    """Return the calling API key, or whoever the token is of.

    Raises 401 without a known key or a good token (TokenRefused), 503 when no caller is configured or tokens cannot be checked now.
    """
    parts = await services(request)
    if not parts.tokens.configured and parts.settings.api_keys:
        return await _key(request)
    if not parts.tokens.configured:
        words = "No caller is configured: set PROVISIONING_API_KEYS, or PROVISIONING_JWT_ISSUER and PROVISIONING_JWT_AUDIENCE."
        raise HTTPException(503, words)
    credentials = await _token(request)
    if credentials is None:
        raise HTTPException(401, "This needs an API key or a visitor's own token as bearer token.", {"WWW-Authenticate": "Bearer"})
    token = credentials.credentials
    caller = parts.settings.find_api_key(token) or await parts.tokens.verify(token)
    bind_contextvars(caller=caller.name)
    return caller


def requires(scope: Literal["read", "operate"]) -> Callable[..., Awaitable[ApiKey]]:
    """Return a dependency that gives the calling API key, if it has `scope`.

    Raises 401 without a known key, 403 for a known key without the scope, 503 when no caller is configured.
    """

    async def caller(request: Request, _: Annotated[object, Depends(_api_key)]) -> ApiKey:
        key = getattr(request.state, "caller", None) or await _key(request)
        _check_scope(key, scope)
        _check_parameters(request)
        return key

    return caller


_reader = requires("read")


async def scraper(request: Request, credentials: Annotated[object, Depends(_api_key)]) -> None:
    """Let everybody pass with PROVISIONING_METRICS_PUBLIC, else whoever may read. Raises as `requires` does."""
    if not (await services(request)).settings.metrics_public:
        await _reader(request, credentials)


async def portal_caller(request: Request, _: Annotated[object, Depends(_api_key)], __: Annotated[object, Depends(_token)]) -> Caller:
    """Return the caller of a PortalRoute."""
    _check_parameters(request)
    return cast(Caller, request.state.caller)


def _check_scope(key: ApiKey, scope: Literal["read", "portal", "operate"]) -> None:
    if scope not in key.scopes:
        raise HTTPException(403, f"This API key lacks the scope `{scope}`.")


def _check_parameters(request: Request) -> None:
    """Refuse what FastAPI would pass over: a misspelt filter must not answer with everybody. Raises RequestValidationError."""
    known = sorted(_query_parameters(request.scope["route"].dependant))
    given = [name for name, _ in request.query_params.multi_items()]
    if not set(given) <= set(known):
        words = f"Only these are known here: {', '.join(known)}" if known else "None are known here"
        raise RequestValidationError([{"loc": ("query",), "msg": words, "type": "unknown"}])
    if len(given) > len(set(given)):
        raise RequestValidationError([{"loc": ("query",), "msg": "Each may be given once", "type": "repeated"}])


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    """The names of those of a route, and of whatever it depends on."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for each in dependant.dependencies:
        yield from _query_parameters(each)


class CallerFirst(APIRoute):
    """A route that asks who is calling before it reads what they send: FastAPI by itself tells anybody what is wrong with their body."""

    async def who(self, request: Request) -> Caller:
        """Return the caller. Raises what keeps everybody else out."""
        return await _key(request)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, behind the question."""
        handler = super().get_route_handler()

        async def known(request: Request) -> Response:
            request.state.caller = await self.who(request)
            return await handler(request)

        return known


class OperatorRoute(CallerFirst):
    """The same where only an operator changes anything: who may not is told so before what they send is read, or anything is looked up."""

    async def who(self, request: Request) -> Caller:
        """Return the API key, with the scope `operate` where it is to change something, else `read`. Raises 401, 403, 503."""
        key = await _key(request)
        _check_scope(key, "read" if request.method == "GET" else "operate")
        return key


class PortalRoute(CallerFirst):
    """The same for an organization's admin portal: it also asks, as early, whether the portal is the caller's to open."""

    async def who(self, request: Request) -> Caller:
        """Return an API key with the scope `portal`, or a visitor of the path's organization with one of PROVISIONING_PORTAL_ROLES.

        Raises 401 (TokenRefused) for the unknown, 403 (NotAllowed) for the known, 503 (KeysUnavailable) when that cannot be said.
        """
        caller = await _key_or_visitor(request)
        if isinstance(caller, Visitor):
            parts, path = await services(request), request.path_params
            own = caller.organization_id
            if own is None:
                raise NotAllowed(ANOTHERS)
            check_visitor(caller, organization_id=own, roles=parts.settings.portal_roles)
            if not await parts.organizations.is_meant(own, path["organization_id"]):  # last: Scalekit may be asked
                raise NotAllowed(ANOTHERS)
            path["organization_id"] = own  # settled: whatever becomes of an external id meanwhile, the link is for this one
        else:
            _check_scope(caller, "portal")
        return caller


# NUL is in no id: PostgreSQL cannot even be asked for it.
_Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]+$")]
_ORGANIZATION = "The customer's organization, by Scalekit's id, or `ext:` and your own."
_ORGANIZATION_EXAMPLES = ["org_83543878963298576", "ext:acme"]


async def _organization_id(
    request: Request, organization_id: Annotated[_Text, Path(description=_ORGANIZATION, examples=_ORGANIZATION_EXAMPLES)]
) -> str:
    return await (await services(request)).organizations.resolve(organization_id)


async def _scalekit_organization_id(
    request: Request,
    organization_id: Annotated[
        str, Path(max_length=255, pattern=r"^([!-~]+|ext:[^\x00]+)$", description=_ORGANIZATION, examples=_ORGANIZATION_EXAMPLES)
    ],
) -> str:
    return await (await services(request)).organizations.resolve(organization_id)


async def _asked_organization_id(
    request: Request,
    organization_id: Annotated[_Text | None, Query(description=f"Of this only. {_ORGANIZATION}", examples=_ORGANIZATION_EXAMPLES)] = None,
) -> str | None:
    return None if organization_id is None else await (await services(request)).organizations.resolve(organization_id)


# All of them are Scalekit's id by the time that a route has them. Who may ask is settled before: by a CallerFirst, or by what the router
# depends on.
OrganizationId = Annotated[str, Depends(_organization_id)]
# Narrower than elsewhere, where an id is only looked up: this one goes into calls to Scalekit, and into what is kept.
ScalekitOrganizationId = Annotated[str, Depends(_scalekit_organization_id)]
AskedOrganizationId = Annotated[str | None, Depends(_asked_organization_id)]
RESOLVING = (404, 502, 503, 504)  # what may come of it, since Scalekit may be asked
UserId = Annotated[_Text, Path(description="Our id of the user.", examples=["usr_5d1f7c0a9b3e4f60"])]
GroupId = Annotated[_Text, Path(description="Scalekit's id of the group.", examples=["dirgroup_91263908563290112"])]
RunId = Annotated[_Text, Path(description="The run.", examples=["run_019aab6c2f405f2d8a1b9c3e"])]
WebhookId = Annotated[_Text, Path(description="The delivery's `webhook-id`.", examples=["msg_2wJ8YzqVQf0uKfWm7nTf3sYcV1b"])]
QueryText = Annotated[_Text, Query()]
