"""The figures for Prometheus, over HTTP."""

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from provisioning.api.dependencies import ServicesDep, scraper
from provisioning.api.problems import responses
from provisioning.metrics import CONTENT_TYPE

router = APIRouter(tags=["Health"], dependencies=[Depends(scraper)])


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    response_description="In Prometheus' text format.",
    responses={**responses(401, 403, 503), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(parts: ServicesDep) -> Response:
    """What the service counted, of all its processes on this machine, and how it stands by its database, as of 15 seconds ago at most.

    Open to everybody with `PROVISIONING_METRICS_PUBLIC`. While the database is away it is still a 200, and says so.
    """
    return Response(await parts.scrapes.text(), media_type=CONTENT_TYPE)
