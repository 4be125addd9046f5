"""Whatever else is asked for under /admin: a page that says so."""

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from provisioning.api.admin.pages import ROOT, at, see
from provisioning.api.admin.route import OperatorPage

router = APIRouter(prefix=ROOT, route_class=OperatorPage)


class _Anything(PathConvertor):
    """A path, line breaks and all, which Starlette's own leaves to nobody."""

    regex = "(?s:.*)"


register_url_convertor("anything", _Anything())
_OTHERS = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@router.get("/")
def overview() -> Response:
    """The way that a browser remembers it by."""
    return see(at())


@router.api_route("", methods=_OTHERS)
@router.api_route("/{path:anything}", methods=["GET", *_OTHERS])
def nothing() -> Response:
    """There is none of these."""
    raise HTTPException(404, "There is no such page, or it does not do that.")
