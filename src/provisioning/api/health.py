"""Whether the process lives, and whether it can do its work. Readiness answers within 5 s, whatever the database does."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from provisioning.api.dependencies import ServicesDep
from provisioning.api.problems import problem, request_id, responses
from provisioning.api.shapes import Shape

router = APIRouter(prefix="/health", tags=["Health"])


class Health(Shape):
    """All is well."""

    status: Annotated[Literal["ok"], Field(examples=["ok"])] = "ok"


@router.get("/live", summary="Is the process alive?", responses=responses())
async def live() -> Health:
    """Answers as long as the process does; says nothing about the database."""
    return Health()


@router.get("/ready", response_model=Health, summary="Can it work?", responses=responses(503))
async def ready(request: Request, parts: ServicesDep) -> Response:
    """Whether the database is reachable and migrated; if not, what is wrong."""
    wrong = await parts.readiness.wrong()
    if wrong is None:
        return JSONResponse({"status": "ok"})
    return problem(request_id(request), 503, slug="not-ready", title="The service is not ready", detail=wrong, headers={"Retry-After": "5"})
