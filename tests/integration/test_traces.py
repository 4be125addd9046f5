"""Traces: none unless asked for, and whoever collects them learns nothing of anybody."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from databases import Databases
from factories import event
from operators import SETTINGS
from provisioning import traces
from provisioning.app import create_app
from provisioning.cli.serve import serve
from provisioning.errors import ConfigurationError
from service import bearer, running, settings, signed

CANARY = "canary@example.com"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Something that takes OTLP over HTTP: where it is, and every body that was sent to it."""
    bodies: list[bytes] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def spans(bodies: list[bytes]) -> list[Span]:
    """The spans that were sent."""
    sent = (ExportTraceServiceRequest.FromString(body) for body in bodies)
    return [span for each in sent for resource in each.resource_spans for scope in resource.scope_spans for span in scope.spans]


def test_a_span_says_what_was_asked_and_never_by_whom_or_about_whom(sqlite_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a path, a query, a header, a body or an exception's message leaves with it."""
    hired = event("user_created", "du_1", email=CANARY)
    theirs = {"User-Agent": CANARY, "Host": "canary.example.com", "baggage": f"who={CANARY}"}
    theirs |= {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "canary=canary-example"}
    with collector() as (url, bodies), sqlite_databases.fresh(migrated=True) as database_url:
        monkeypatch.setenv(ENDPOINT, url)
        app = create_app(settings(database_url))

        @app.get("/broken/{what}")
        def broken(what: str) -> None:
            raise RuntimeError(what)

        with TestClient(app) as client:
            assert client.post("/webhooks/scalekit", content=hired, headers=signed(hired) | theirs).status_code == 201
            for path in (
                f"/v1/organizations/{CANARY}/users?email={CANARY}&canary=canary",
                f"/canary/{CANARY}",
                f"/v1/changes?after={CANARY}",
            ):
                client.get(path, headers=bearer() | theirs)
            assert client.get(f"/broken/{CANARY}").status_code == 500
            client.request("CANARY", f"/v1/deliveries/{CANARY}")
    assert b"canary" not in b"".join(bodies).lower()
    sent = {span.name: span for span in spans(bodies)}
    assert {"POST /webhooks/scalekit", "GET /v1/organizations/{organization_id}/users", "GET /broken/{what}"} <= sent.keys()
    told = sent["POST /webhooks/scalekit"]
    assert told.trace_id.hex() == "1" * 32
    assert {each.key for each in told.attributes} == {
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "network.protocol.version",
        "url.scheme",
    }


@pytest.mark.parametrize("more", [{}, {ENDPOINT: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}])
def test_there_are_none_unless_asked_for(sqlite_databases: Databases, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]) -> None:
    """Without an endpoint, or with the standard's own switch, nothing of a request is even begun to be traced."""
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    assert traces.configured() is None
    with sqlite_databases.fresh(migrated=True) as url, running(url) as client:
        assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_missing_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """An endpoint without the extra is a setting that cannot be right, however many would serve: even the port is not tried."""
    for name, value in {**SETTINGS, ENDPOINT: "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT .*provisioning\[telemetry\]"),
    ):
        serve("127.0.0.1", taken.getsockname()[1], workers)


@pytest.mark.parametrize(
    ("protocol", "of_traces", "wrong"),
    [
        ("", "", ""),
        ("http/protobuf", "", ""),
        ("grpc", "http/protobuf", ""),
        ("grpc", "", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ("http/protobuf", "http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
    ],
)
def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch, protocol: str, of_traces: str, wrong: str) -> None:
    """What is said of traces goes before what is said of everything; where none are asked for, neither matters."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", of_traces)
    assert not traces.wanted()
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=rf"^{wrong} ") if wrong else nullcontext():
        assert traces.wanted()


@pytest.mark.parametrize(
    ("name", "attributes", "expected"),
    [
        ("", "", "provisioning"),
        ("", "deployment.environment.name=eu", "provisioning"),
        ("", "service.name=theirs", "theirs"),
        ("ours", "service.name=theirs", "ours"),
    ],
)
def test_the_service_is_called_as_the_environment_says(monkeypatch: pytest.MonkeyPatch, name: str, attributes: str, expected: str) -> None:
    """By either of the standard's variables."""
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", name)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    traced = traces.configured()
    assert traced
    traced.close(1)
    assert traced.provider.resource.attributes["service.name"] == expected


def test_a_collector_that_is_away_delays_nobody(sqlite_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are answered, and the service ends in the time it gives to this."""
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    with sqlite_databases.fresh(migrated=True) as url:
        with running(url) as client:
            assert client.get("/health/ready").status_code == 200
            began = time.monotonic()
        assert time.monotonic() - began < 5
