"""The operations page at /admin: what API and commands tell and do, as pages of plain HTML for an operator in a browser."""

from fastapi import APIRouter

from provisioning.api.admin import deliveries, directories, elsewhere, groups, hooks, login, organizations, overview, people, runs

router = APIRouter(include_in_schema=False)
for part in (login, overview, deliveries, organizations, people, groups, directories, runs, hooks, elsewhere):
    router.include_router(part.router)
