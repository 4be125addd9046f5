"""The HTTP composition root: makes every part and wires them, decides nothing. Neither the database nor Scalekit is asked at the start."""

import gc
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from types import FrameType
from typing import get_args

import structlog
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from provisioning import logs, traces
from provisioning.api import (
    access,
    admin,
    application_ids,
    changes,
    cors,
    deliveries,
    directories,
    docs,
    embed,
    groups,
    health,
    history,
    metrics,
    organizations,
    portal,
    problems,
    reconciliations,
    roles,
    users,
    webhooks,
)
from provisioning.api.attempts import Attempts
from provisioning.api.cors import Cors
from provisioning.api.dependencies import Services
from provisioning.api.edge import Edge
from provisioning.api.limits import OTHER_REQUESTS, Limits
from provisioning.api.readiness import Readiness
from provisioning.api.scrapes import Scrapes
from provisioning.db.session import Database
from provisioning.errors import RefusalReason, Unavailable
from provisioning.events import Delivery, EventType
from provisioning.feed import Feed
from provisioning.hooks import Hooks
from provisioning.inbox import Inbox, Outcome, Receipt
from provisioning.intake import Intake
from provisioning.logs import RefusalLog
from provisioning.metrics import Metrics
from provisioning.organizations import Organizations
from provisioning.reconcile import Reconciler
from provisioning.refused import Refusals
from provisioning.retention import Retention
from provisioning.retrying import Retrying
from provisioning.roles import Roles
from provisioning.scalekit.client import ScalekitClient
from provisioning.scalekit.signature import Verifier
from provisioning.settings import Settings, load_settings
from provisioning.tokens import TokenVerifier
from provisioning.worker import AT_ONCE, Worker

log = structlog.get_logger(__name__)

STOP_WITHIN = 3.0  # seconds in which what the worker has under way is let go of
LAST_SPANS_WITHIN = 1.0  # seconds, for a collector that may be away


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the service as an ASGI application; without `settings` it reads the environment, as a worker process does.

    Raises ConfigurationError.
    """
    alone = settings is None  # nothing else lives in this process
    if settings is None:
        settings = load_settings()
        if not structlog.is_configured():
            logs.configure()
    chosen = settings
    traced = traces.configured()
    verifier = Verifier(secret.get_secret_value() for secret in settings.require_webhook_secrets())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = app.state.services = _services(chosen, verifier)
        services.intake.start()
        services.worker.start()
        services.hooks.start()
        if chosen.reconcile_interval and not services.scalekit.configured:
            log.warning("not_reconciling", reason="PROVISIONING_RECONCILE_INTERVAL is set, and SCALEKIT_… credentials are not.")
        if alone:
            _spare_the_collector()
        with _told_of_the_end(services.feed.stop, services.roles.stop):
            yield
        # The connections have drained: no delivery can come any more.
        await services.feed.close()
        await run_in_threadpool(_close, services)
        if traced:
            await run_in_threadpool(traced.close, LAST_SPANS_WITHIN)

    app = FastAPI(
        title="Provisioning",
        version=version("provisioning"),
        description=docs.DESCRIPTION,
        lifespan=lifespan,
        middleware=[
            Middleware(Cors, origins=settings.allowed_origins),  # around all that refuses
            Middleware(Edge),
            Middleware(
                Limits,
                max_body_bytes=settings.max_body_bytes,
                max_requests=settings.max_waiting_deliveries + OTHER_REQUESTS,
                allowed_hosts=settings.allowed_hosts,
            ),
            *([] if traced else [Middleware(webhooks.Straight)]),
        ],
        # Its metrics carry nothing that /metrics lacks; its logs carry what exceptions say.
        telemetry={
            "tracing": traced is not None,
            "tracer_provider": traced.provider if traced else None,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
        },
        openapi_url=None,  # api/docs.py serves it
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what a generated client calls the operation
    )
    problems.install(app)
    of_organizations = (organizations, users, access, groups, roles, application_ids, history, directories, reconciliations, portal)
    for part in (webhooks, *of_organizations, changes, cors, embed, deliveries, health, metrics, admin):
        app.include_router(part.router)
    docs.install(app)
    return app


def _spare_the_collector() -> None:
    """Have Python's cycle collector leave alone what lives as long as the process. It took a third of the time of every request: what a
    batch holds while it waits for its commit is enough to have all of it searched, again and again, and is no cycle. What is made by a
    batch or two is no reason to search either.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@contextmanager
def _told_of_the_end(*stops: Callable[[], None]) -> Iterator[None]:
    """Have these called when a signal ends the server: it answers what is under way first, and whoever takes long would keep it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal comes here
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, frame: FrameType | None) -> None:
        for stop in stops:
            stop()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler is signal.SIG_DFL:
            signal.signal(number, handler)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _services(settings: Settings, verifier: Verifier) -> Services:
    url = settings.database_url.get_secret_value()
    database = Database(url)
    counted = Metrics(EventType, Outcome, get_args(RefusalReason))
    scalekit = ScalekitClient(settings, tell=counted.called)
    inbox = Inbox.of(settings, database)
    # Connections of their own: runs, and roles that many have, keep no webhook waiting for one.
    runs_database = Database(url, writers=AT_ONCE + 3, readers=AT_ONCE + 1)
    reconciler = Reconciler(runs_database, scalekit, settings)
    given = Roles(runs_database)
    retrying = Retrying(runs_database, Inbox.of(settings, runs_database), counted.retried)
    hooks = Hooks(runs_database, changes.told, settings.hook_networks, counted.messaged)
    retention = Retention(runs_database, settings)
    refusals = RefusalLog()
    refusals_kept = Refusals(runs_database, refusals.counts)

    def receive(deliveries: Sequence[Delivery]) -> list[Receipt]:
        receipts = inbox.receive(deliveries)
        counted.received(receipts)
        hooks.wake()
        return receipts

    return Services(
        settings=settings,
        database=database,
        inbox=inbox,
        intake=Intake(receive, max_waiting=settings.max_waiting_deliveries, count_waiting=counted.waiting),
        feed=Feed(database),
        scalekit=scalekit,
        organizations=Organizations(database, scalekit),
        reconciler=reconciler,
        roles=given,
        hooks=hooks,
        worker=Worker(
            [reconciler.claim, given.claim, retrying.claim],
            [reconciler.stop, given.stop],
            [reconciler.keep_schedule, retention.tick, refusals_kept.tick],
        ),
        runs_database=runs_database,
        tokens=TokenVerifier(settings),
        verifier=verifier,
        refusals=refusals,
        refusals_kept=refusals_kept,
        readiness=Readiness(database),
        metrics=counted,
        scrapes=Scrapes(database, counted, settings.max_deactivation_share),
        attempts=Attempts(),
    )


def _close(services: Services) -> None:
    services.hooks.stop(STOP_WITHIN)
    services.worker.stop(STOP_WITHIN)
    services.intake.stop()
    services.refusals.flush()
    try:
        services.refusals_kept.flush()
    except Unavailable:
        log.warning("refusals_not_kept", reason="The database is away.")
    services.scalekit.close()
    services.runs_database.close()
    services.database.close()
