"""Pages out of templates. Whatever comes into one is escaped, and no page may load, frame or run anything but its own style sheet."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import RedirectResponse

from provisioning.api import words
from provisioning.api.admin.notices import NOTICES
from provisioning.bodies import Json
from provisioning.events import rfc3339

ROOT = "/admin"
HEADERS = {  # in place of the usual ones
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "same-origin",  # with none, a browser says `Origin: null` of a form, and nothing could be told from that
}
STYLE = (files("provisioning") / "web" / "admin" / "admin.css").read_bytes()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def page(request: Request, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
    """The page of this template, with these values, for whoever is logged in."""
    operator = getattr(request.state, "operator", None)
    notice = NOTICES.get(request.query_params.get("did", ""))
    html = _TEMPLATES.get_template(template).render(values, operator=operator, notice=notice, now=datetime.now(UTC))
    return Response(html, status, media_type="text/html", headers={**HEADERS, **(headers or {})})


def see(path: str) -> Response:
    """Go on to this page, by GET."""
    return RedirectResponse(path, 303, headers=HEADERS)


def at(*segments: str, **query: object) -> str:
    """The address of a page; what is None is not asked for."""
    path = "".join(f"/{quote(segment, safe='', errors='surrogatepass')}" for segment in segments)
    asked = {name: value for name, value in query.items() if value is not None}
    return f"{ROOT}{path}{'?' if asked else ''}{urlencode(asked)}"


def _time(moment: datetime | int | None) -> str:
    """A moment, to the second, for people and programs; `moment` may be in nanoseconds since 1970."""
    if moment is None:
        return Markup('<span class="quiet">–</span>')
    if isinstance(moment, int):
        exact, shown = rfc3339(moment), f"{rfc3339(moment)[:19].replace('T', ' ')} UTC"
    else:
        exact, shown = moment.astimezone(UTC).isoformat().replace("+00:00", "Z"), words.at(moment)
    return Markup('<time datetime="{}">{}</time>').format(exact, shown)


def _ago(moment: datetime | int | None, now: datetime) -> str:
    """How long ago or how soon that is; `moment` may be in nanoseconds since 1970."""
    if moment is None:
        return "never"
    return words.ago(_EPOCH + timedelta(microseconds=moment // 1000) if isinstance(moment, int) else moment, now)


def _lasting(seconds: float) -> str:
    return words.span(timedelta(seconds=seconds))


def _spaced(word: object) -> str:
    return str(word).replace("_", " ")


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


_TEMPLATES = Environment(
    loader=PackageLoader("provisioning", "web/admin"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.globals.update(at=at, words=words)
_TEMPLATES.filters.update(time=_time, ago=_ago, lasting=_lasting, spaced=_spaced, json=_json)
