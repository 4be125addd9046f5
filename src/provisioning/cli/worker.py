"""Works on what waits in the database, beside any number of services and other workers, until a signal ends it."""

import signal
from contextlib import closing
from queue import SimpleQueue

import structlog

from provisioning import logs
from provisioning.cli.database import warn_unless_migrated
from provisioning.db.session import Database
from provisioning.reconcile import Reconciler
from provisioning.scalekit.client import ScalekitClient
from provisioning.settings import load_settings
from provisioning.worker import AT_ONCE, Worker

STOP_WITHIN = 3.0  # seconds in which the runs under way are let go of

_log = structlog.get_logger(__name__)


def work() -> None:
    """Work until SIGTERM or SIGINT. Raises ConfigurationError, ScalekitNotConfigured: without credentials there is nothing to work with."""
    settings = load_settings()
    signals = SimpleQueue[int]()
    # Also where a shell's `&` had the interrupt ignored.
    signal.signal(signal.SIGINT, lambda number, _: signals.put(number))
    signal.signal(signal.SIGTERM, lambda number, _: signals.put(number))
    url = settings.database_url.get_secret_value()
    with closing(ScalekitClient(settings)) as scalekit, closing(Database(url, writers=AT_ONCE + 2, readers=AT_ONCE)) as database:
        scalekit.require_credentials()
        logs.configure()
        warn_unless_migrated(settings)
        reconciler = Reconciler(database, scalekit, settings)
        worker = Worker(reconciler.claim, reconciler.stop, reconciler.keep_schedule)
        _log.info("working", runs_at_once=AT_ONCE, reconcile_interval=str(settings.reconcile_interval or "off"))
        worker.start()
        signals.get()
        worker.stop(STOP_WITHIN)
    _log.info("stopped")
