"""Traces for whoever asks for them by OpenTelemetry's own variables; without these there are none, and nothing of its SDK is loaded.

A span says which route was asked, and what came of it. What callers send is in none: not the path, whose parts are ids and addresses, nor
the query, the headers, or what an exception says.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from threading import Thread
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from provisioning.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

# Of each, the first that is set holds.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
# Of what a span begins with. Later FastAPI adds the route's template, the status, and an error's class.
_KEPT = frozenset({"code.function.name", "http.request.method", "network.protocol.version", "url.scheme"})


@dataclass(frozen=True)
class Traces:
    """Where spans are made, and what sends them."""

    provider: "TracerProvider"
    exporter: "SpanExporter"

    def close(self, within: float) -> None:
        """Send what is left. What nobody takes `within` so many seconds is lost: the process ends all the same."""
        last = Thread(target=self.provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(within)
        if last.is_alive():
            self.exporter.shutdown()  # it would try again for half a minute
            last.join(within)


def wanted() -> bool:
    """Whether the environment says where to send spans. Raises ConfigurationError when they cannot be sent so, or not at all."""
    endpoint, protocol = (next(filter(os.environ.get, names), None) for names in (_ENDPOINTS, _PROTOCOLS))
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none"
    if endpoint is None or off:
        return False
    if protocol and os.environ[protocol] != _PROTOCOL:
        raise ConfigurationError(f"{protocol} asks for a protocol in which no traces are sent. The one there is: {_PROTOCOL}")
    if not _is_installed(_EXPORTER):
        words = f"{endpoint} is set, and what sends traces is not installed. Install it: pip install 'provisioning[telemetry]'"
        raise ConfigurationError(words)
    return True


def configured() -> Traces | None:
    """What sends spans where the environment says, by OTLP over HTTP; None where it says nothing. Raises ConfigurationError."""
    if not wanted():
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # an extra
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415  # as above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # as above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # as above

    name = OTELResourceDetector().detect().attributes.get("service.name") or "provisioning"
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.sampler = cast("Sampler", _Discreet(provider.sampler))
    exporter = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(provider, exporter)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is a package around it
        return False


class _Discreet:
    """Samples as another sampler does. It also decides what a new span says at first, and what of the caller's `tracestate` it keeps."""

    def __init__(self, sampler: "Sampler") -> None:
        self._sampler = sampler

    def should_sample(self, *args: Any, **kwargs: Any) -> "SamplingResult":
        """The other's decision, without what the caller sent."""
        result = self._sampler.should_sample(*args, **kwargs)
        result.attributes = MappingProxyType({name: value for name, value in result.attributes.items() if name in _KEPT})
        result.trace_state = None
        return result

    def get_description(self) -> str:
        """For people."""
        return f"Discreet({self._sampler.get_description()})"
