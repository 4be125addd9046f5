"""The way to every page: who asks and from where is settled before anything is read or done, and what goes wrong is a page too."""

import re
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Annotated, Any, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from structlog.contextvars import bind_contextvars

from provisioning.api.admin.origins import is_from_here
from provisioning.api.admin.pages import ROOT, at, page, see
from provisioning.api.admin.sessions import Operator, operator_of
from provisioning.api.dependencies import services
from provisioning.api.problems import kind_of
from provisioning.errors import ProvisioningError

MAX_FIELDS = 20
_FORM = "application/x-www-form-urlencoded"
_OURS = re.compile(rf"{ROOT}(?:[/?][!-\[\]-~]*)?")

Form = Mapping[str, str]


class OpenPage(APIRoute):
    """A page for everybody. What changes anything is heard from this site's own pages alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind what keeps others out, with a page for each failure that has a name."""
        handler = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await self.instead(request) or await handler(request)
            except (ProvisioningError, HTTPException, RequestValidationError, ClientDisconnect) as error:
                return _problem(request, error)

        return shown

    async def instead(self, request: Request) -> Response | None:
        """Return the answer to somebody who is led elsewhere; reads the form of everybody else.

        Raises HTTPException where it was not sent from here, or cannot be read.
        """
        if request.method != "GET":
            if not is_from_here(request):
                raise HTTPException(403, "This was not sent from a page of this service: open the page here, and do it there.")
            request.state.form = await _form(request)
        return None


class OperatorPage(OpenPage):
    """A page for operators: everybody else is led to the login, and from there to the page asked for."""

    async def instead(self, request: Request) -> Response | None:
        """Return the way to the login to whoever needs it. Raises HTTPException besides where a form lacks the session's token."""
        operator = await run_in_threadpool(operator_of, await services(request), request)
        if operator is None:
            return see(at("login", next=_asked_for(request)))
        bind_contextvars(caller=operator.name)
        request.state.operator = operator
        elsewhere = await super().instead(request)
        if request.method != "GET" and not operator.owns(request.state.form):
            raise HTTPException(403, "This form is not of this login: open the page again, and do it there.")
        return elsewhere


def way_back(text: str) -> str:
    """The page to go to after a login: `text` where that is the address of one of ours, else the first."""
    inside = _OURS.fullmatch(text) and not {".", ".."} & set(unquote(urlsplit(text).path).split("/"))
    return text if inside else ROOT


async def _form_of(request: Request) -> Form:
    return cast(Form, request.state.form)


async def _operator(request: Request) -> Operator:
    return cast(Operator, request.state.operator)


FormDep = Annotated[Form, Depends(_form_of)]
OperatorDep = Annotated[Operator, Depends(_operator)]


async def _form(request: Request) -> Form:
    """The fields of a form, each once. Raises HTTPException."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise HTTPException(415, f"A form is sent as {_FORM}.")
    try:
        text = (await request.body()).decode("ascii")
        fields = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None
    form = {name: value.strip() for name, value in fields}
    if len(form) < len(fields) or "\x00" in text or any("\x00" in value for value in form.values()):
        raise HTTPException(400, "The form cannot be read.")
    return form


def _asked_for(request: Request) -> str | None:
    """Where to go on after the login; of something to be done, the page that it is done on."""
    path, query = quote(request.scope["path"], errors="surrogatepass"), request.url.query
    if request.method != "GET":
        path, query = path.rpartition("/")[0], ""
    asked = way_back(f"{path}?{query}" if query else path)
    return asked if asked != ROOT else None


def _problem(request: Request, error: Exception) -> Response:
    """The page about a failure, with the status that the API gives it."""
    headers: Mapping[str, str] | None = None
    if isinstance(error, ProvisioningError):
        kind, headers = kind_of(error)
        status, title, detail = int(kind.status), kind.title, str(error)
    elif isinstance(error, HTTPException):
        status, detail, headers = error.status_code, error.detail, error.headers
        title = HTTPStatus(status).phrase
    elif isinstance(error, RequestValidationError):
        status, title, detail = 422, "What was asked for is not valid", "; ".join(map(_said, error.errors()))
    else:
        status, title, detail = 400, "It did not arrive whole", ""
    return page(request, "problem.html", status=status, headers=headers, title=title, detail=detail)


def _said(invalid: Mapping[str, Any]) -> str:
    words = _WORDS.get(invalid["type"])
    what = words.format(**invalid.get("ctx", {})) if words else invalid["msg"].removeprefix("Value error, ")
    return f"{str(invalid['loc'][-1]).replace('_', ' ')}: {what}"


_WORDS = {
    "bool_parsing": "it is neither true nor false",
    "enum": "it is none of {expected}",
    "extra_forbidden": "nothing of this name is known here",
    "missing": "it is missing",
    "string_pattern_mismatch": "it holds characters that cannot be in it",
    "string_too_long": "it is longer than {max_length} characters",
    "string_too_short": "it is missing",
}
