"""What the service counts, for Prometheus. No label carries an organization or a person, and none is free text.

Where several processes serve, each counts into files of its own in the folder of PROMETHEUS_MULTIPROC_DIR, and whichever is asked adds
them up. Prometheus' library looks for that variable when it is imported: it has to be there before this module is, which alone imports it.
"""
# ruff: noqa: E402

import os
import re
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Protocol

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
if not os.environ.get(FOLDER):
    os.environ.pop(FOLDER, None)  # an empty variable counts as unset; to the library it is a folder

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["CONTENT_TYPE", "FOLDER", "Metric", "Metrics", "gauge"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# Scalekit's own retries go on for 27.6 hours.
_LAGS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY)
_ANSWERS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_AGES = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, _MINUTE, 5 * _MINUTE, _HOUR, 6 * _HOUR, _DAY)
_CALLS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_LIVE = re.compile(r"gauge_live[a-z]+_([0-9]+)\.db")

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, of no use


class Told(Protocol):
    """What is asked of a receipt. `occurred_at` is in nanoseconds since 1970."""

    @property
    def type(self) -> str | None:
        """The event's type."""

    @property
    def outcome(self) -> str:
        """What became of it."""

    @property
    def occurred_at(self) -> int | None:
        """When it happened there."""


class Metrics:
    """One process's counters. Threads may share it."""

    def __init__(self, types: Iterable[str], outcomes: Iterable[str], reasons: Iterable[str]) -> None:
        """`types` of events that are counted as such, `outcomes` of deliveries and `reasons` of refusals: each counts from 0."""
        self._types = frozenset(types)
        own = self._registry = CollectorRegistry()
        self._deliveries = Counter(
            "provisioning_deliveries",
            "Verified deliveries; `unavailable` ones were answered 503, `lost` ones 500, and both are sent again.",
            ["type", "outcome"],
            registry=own,
        )
        self._refusals = Counter("provisioning_refusals", "Requests that were not provably Scalekit's.", ["reason"], registry=own)
        self._answers = Histogram(
            "provisioning_webhook_duration_seconds", "From a verified delivery's arrival to its answer.", buckets=_ANSWERS, registry=own
        )
        self._batches = Histogram(
            "provisioning_batch_deliveries", "How many deliveries were committed together.", buckets=_BATCHES, registry=own
        )
        self._lag = Histogram(
            "provisioning_lag_seconds", "From an event there to its commit here, of processed deliveries.", buckets=_LAGS, registry=own
        )
        self._waiting = Gauge(
            "provisioning_waiting_deliveries", "Deliveries that wait for their commit.", multiprocess_mode="livesum", registry=own
        )
        self._calls = Histogram(
            "provisioning_scalekit_call_duration_seconds",
            "Calls to Scalekit's API: which, how each ended, and how long it took.",
            ["call", "result"],
            buckets=_CALLS,
            registry=own,
        )
        self._messages = Counter(
            "provisioning_hook_messages", "Messages to hooks: told, failed (and tried again), given up.", ["result"], registry=own
        )
        self._message_ages = Histogram(
            "provisioning_hook_delay_seconds", "From a change to when a hook was told of it.", buckets=_AGES, registry=own
        )
        for result in ("told", "failed", "given_up"):
            self._messages.labels(result)
        for outcome in outcomes:
            for kind in (*sorted(self._types), OTHER):
                self._deliveries.labels(kind, outcome)
        for reason in reasons:
            self._refusals.labels(reason)

    def received(self, receipts: Sequence[Told]) -> None:
        """Count a batch that came, and was committed now."""
        self._batches.observe(len(receipts))
        for (kind, outcome), number in Tally((self._kind(each.type), each.outcome) for each in receipts).items():
            self._deliveries.labels(kind, outcome).inc(number)
        self.retried(receipts)

    def retried(self, receipts: Sequence[Told]) -> None:
        """Those that had come before have been handled again: what is processed now adds its lag."""
        now = time()
        for each in receipts:
            if each.outcome == "processed" and each.occurred_at is not None:
                self._lag.observe(max(now - each.occurred_at / 1e9, 0))

    def not_received(self, outcome: str) -> None:
        """Count a delivery that was not committed in time; what it was nobody has read."""
        self._deliveries.labels(OTHER, outcome).inc()

    def refused(self, reason: str) -> None:
        """Count a request that was refused."""
        self._refusals.labels(reason).inc()

    def answered(self, seconds: float) -> None:
        """A verified delivery has its answer, after so long."""
        self._answers.observe(seconds)

    def waiting(self, number: int) -> None:
        """So many wait now."""
        self._waiting.set(number)

    def called(self, call: str, result: str, seconds: float) -> None:
        """A call to Scalekit has ended."""
        self._calls.labels(call, result).observe(seconds)

    def messaged(self, result: str, age: float) -> None:
        """A message to a hook came to this, so long after its change."""
        self._messages.labels(result).inc()
        if result == "told":
            self._message_ages.observe(max(age, 0))

    def text(self, more: Iterable[Metric] = ()) -> bytes:
        """All of it in Prometheus' text format, of all processes together, and `more`."""
        registry = CollectorRegistry()
        if folder := os.environ.get(FOLDER):
            _forget_dead(Path(folder))
            MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # the library has no types for it
        else:
            registry.register(self._registry)
        registry.register(_Given(more))
        return generate_latest(registry)

    def _kind(self, type_: str | None) -> str:
        return type_ if type_ in self._types else OTHER


def gauge(name: str, help_: str, value: float) -> Metric:
    """A figure that was taken from elsewhere, to be shown beside the others."""
    return GaugeMetricFamily(f"provisioning_{name}", help_, value)


class _Given:
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _forget_dead(folder: Path) -> None:
    """Remove what processes that are gone said of themselves; what they counted stays counted.

    Here, and not by whoever starts processes: none of them hears of every end.
    """
    for file in folder.iterdir():
        if (match := _LIVE.fullmatch(file.name)) and not _lives(int(match[1])):
            file.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    with suppress(PermissionError):  # somebody else's: it lives
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
