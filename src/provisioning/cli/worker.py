"""Works on what waits in the database, beside any number of services and other workers, until a signal ends it."""

import signal
from contextlib import closing
from queue import SimpleQueue

import structlog

from provisioning import logs
from provisioning.api.changes import told
from provisioning.cli.database import warn_unless_migrated
from provisioning.db.session import Database
from provisioning.hooks import Hooks
from provisioning.inbox import Inbox
from provisioning.reconcile import Reconciler
from provisioning.retention import Retention
from provisioning.retrying import Retrying
from provisioning.roles import Roles
from provisioning.scalekit.client import ScalekitClient
from provisioning.settings import load_settings
from provisioning.worker import AT_ONCE, Worker

STOP_WITHIN = 3.0  # seconds in which what is under way is let go of

_log = structlog.get_logger(__name__)


def work() -> None:
    """Work until SIGTERM or SIGINT; without credentials, on no runs. Raises ConfigurationError."""
    settings = load_settings()
    signals = SimpleQueue[int]()
    # Also where a shell's `&` had the interrupt ignored.
    signal.signal(signal.SIGINT, lambda number, _: signals.put(number))
    signal.signal(signal.SIGTERM, lambda number, _: signals.put(number))
    url = settings.database_url.get_secret_value()
    with closing(ScalekitClient(settings)) as scalekit, closing(Database(url, writers=AT_ONCE + 3, readers=AT_ONCE + 1)) as database:
        logs.configure()
        warn_unless_migrated(settings)
        reconciler = Reconciler(database, scalekit, settings)
        roles = Roles(database)
        retrying = Retrying(database, Inbox.of(settings, database))
        retention = Retention(database, settings)
        hooks = Hooks(database, told, settings.hook_networks)
        claims = [reconciler.claim, roles.claim, retrying.claim]
        worker = Worker(claims, [reconciler.stop, roles.stop], [reconciler.keep_schedule, retention.tick])
        _log.info("working", runs_at_once=AT_ONCE, reconcile_interval=str(settings.reconcile_interval or "off"))
        if not scalekit.configured:
            _log.warning("not_reconciling", reason="SCALEKIT_… credentials are not set.")
        worker.start()
        hooks.start()
        signals.get()
        hooks.stop(STOP_WITHIN)
        worker.stop(STOP_WITHIN)
    _log.info("stopped")
