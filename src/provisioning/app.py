"""The HTTP composition root: makes every part and wires them, decides nothing. Neither the database nor Scalekit is asked at the start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from provisioning import logs
from provisioning.api import (
    cors,
    deliveries,
    directories,
    docs,
    embed,
    groups,
    health,
    organizations,
    portal,
    problems,
    reconciliations,
    users,
    webhooks,
)
from provisioning.api.cors import Cors
from provisioning.api.dependencies import Services
from provisioning.api.edge import Edge, Limits
from provisioning.api.readiness import Readiness
from provisioning.db.session import Database
from provisioning.inbox import Inbox
from provisioning.intake import Intake
from provisioning.logs import RefusalLog
from provisioning.reconcile import Reconciler
from provisioning.scalekit.client import ScalekitClient
from provisioning.scalekit.signature import Verifier
from provisioning.settings import Settings, load_settings
from provisioning.tokens import TokenVerifier
from provisioning.worker import AT_ONCE, Worker

log = structlog.get_logger(__name__)

STOP_WITHIN = 3.0  # seconds in which the runs under way are let go of


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the service as an ASGI application; without `settings` it reads the environment, as a worker process does.

    Raises ConfigurationError.
    """
    if settings is None:
        settings = load_settings()
        if not structlog.is_configured():
            logs.configure()
    chosen = settings
    verifier = Verifier(secret.get_secret_value() for secret in settings.require_webhook_secrets())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = app.state.services = _services(chosen, verifier)
        services.intake.start()
        if services.scalekit.configured:
            services.worker.start()
        elif chosen.reconcile_interval:
            log.warning("not_reconciling", reason="PROVISIONING_RECONCILE_INTERVAL is set, and SCALEKIT_… credentials are not.")
        yield
        # The connections have drained: no delivery can come any more.
        await run_in_threadpool(_close, services)

    app = FastAPI(
        title="Provisioning",
        version=version("provisioning"),
        description=docs.DESCRIPTION,
        lifespan=lifespan,
        middleware=[
            Middleware(Cors, origins=settings.allowed_origins),  # around all that refuses
            Middleware(Edge),
            Middleware(Limits, max_body_bytes=settings.max_body_bytes, allowed_hosts=settings.allowed_hosts),
        ],
        openapi_url=None,  # api/docs.py serves it
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what a generated client calls the operation
    )
    problems.install(app)
    docs.install(app)
    for part in (webhooks, organizations, users, groups, directories, reconciliations, portal, cors, embed, deliveries, health):
        app.include_router(part.router)
    return app


def _services(settings: Settings, verifier: Verifier) -> Services:
    url = settings.database_url.get_secret_value()
    database = Database(url)
    scalekit = ScalekitClient(settings)
    inbox = Inbox(
        database,
        link_users_by_email=settings.link_users_by_email,
        environment_id=settings.environment_id,
        import_directories=scalekit.configured,
    )
    # Connections of their own: runs keep no webhook waiting for one.
    runs_database = Database(url, writers=AT_ONCE + 2, readers=AT_ONCE)
    reconciler = Reconciler(runs_database, scalekit, settings)
    return Services(
        settings=settings,
        database=database,
        inbox=inbox,
        intake=Intake(inbox.receive, max_waiting=settings.max_waiting_deliveries),
        scalekit=scalekit,
        reconciler=reconciler,
        worker=Worker(reconciler.claim, reconciler.stop, reconciler.keep_schedule),
        runs_database=runs_database,
        tokens=TokenVerifier(settings),
        verifier=verifier,
        refusals=RefusalLog(),
        readiness=Readiness(database),
    )


def _close(services: Services) -> None:
    services.worker.stop(STOP_WITHIN)
    services.intake.stop()
    services.refusals.flush()
    services.scalekit.close()
    services.runs_database.close()
    services.database.close()
