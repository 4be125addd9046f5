"""Whether the process lives, and whether it can do its work. Readiness answers within 5 s, whatever the database does."""

from typing import Annotated, Literal

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from provisioning.api.dependencies import ServicesDep
from provisioning.api.problems import problem, request_id, responses
from provisioning.api.shapes import Shape
from provisioning.db import migrations
from provisioning.db.session import Database
from provisioning.errors import Unavailable

READY_SECONDS = 4.5

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
    wrong = await _wrong(parts.database)
    if wrong is None:
        return JSONResponse({"status": "ok"})
    return problem(request_id(request), 503, slug="not-ready", title="The service is not ready", detail=wrong, headers={"Retry-After": "5"})


async def _wrong(database: Database) -> str | None:
    """What keeps the service from working. A look that takes too long is left behind in its own thread, and ends by itself."""
    with anyio.move_on_after(READY_SECONDS):
        # Its own limiter: requests that wait for the database fill the shared pool, and readiness must be able to say so.
        return await run_sync(_look, database, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
    return "The database did not answer in time."


def _look(database: Database) -> str | None:
    try:
        with database.reading() as session:
            return migrations.state(session)
    except Unavailable as error:
        return str(error)
