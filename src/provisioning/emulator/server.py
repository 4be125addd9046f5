"""The emulator as a whole: start it, point a client at it, stop it. It listens on 127.0.0.1 alone."""

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import uvicorn
from scalekit.v1.directories.directories_pb2_grpc import add_DirectoryServiceServicer_to_server
from scalekit.v1.events.events_pb2_grpc import add_EventsServiceServicer_to_server
from scalekit.v1.organizations.organizations_pb2_grpc import add_OrganizationServiceServicer_to_server
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from provisioning.emulator import control, oauth, pages, portal_pages, scenarios
from provisioning.emulator.certificates import certificates
from provisioning.emulator.clock import Clock
from provisioning.emulator.company import Company
from provisioning.emulator.deliveries import Deliveries
from provisioning.emulator.directories import Directories
from provisioning.emulator.endpoint import Endpoint
from provisioning.emulator.faults import Faults
from provisioning.emulator.folder import Folder
from provisioning.emulator.front import front
from provisioning.emulator.gate import Gate
from provisioning.emulator.history import History
from provisioning.emulator.jobs import Jobs
from provisioning.emulator.oauth import Tokens
from provisioning.emulator.organizations import Organizations
from provisioning.emulator.parts import Parts
from provisioning.emulator.people import People
from provisioning.emulator.portal import Portal
from provisioning.emulator.service import Service
from provisioning.emulator.store import Store
from provisioning.emulator.structure import Structure
from provisioning.emulator.switches import Switches
from provisioning.errors import ConfigurationError

CALLS_AT_ONCE = 64
START_WITHIN = 10  # seconds
STOP_WITHIN = 2  # seconds


class Emulator:
    """A context manager: it runs inside the `with`.

    `folder` keeps its certificates, its token and its companies, so that whoever knew one emulator of that folder knows the next.
    `deliver_to` is the service's webhook address, of this machine unless `anywhere`. What the service says is asked at `service_url`, else
    at the same origin, with `service_key`, else with a key that `environment` gives the service.
    `embedding_origins` may show the admin portal in a frame; `switches` are those at the start. A port of 0 is a free one.
    A wrong argument is a ConfigurationError.
    """

    def __init__(
        self,
        folder: Path,
        *,
        deliver_to: str,
        port: int = 0,
        api_port: int = 0,
        anywhere: bool = False,
        service_url: str | None = None,
        service_key: str | None = None,
        embedding_origins: Collection[str] = (),
        switches: Switches | None = None,
    ) -> None:
        self._folder = Folder(folder)
        self._certificates = certificates(folder)
        self._http, self._tls = _listen(port), _listen(api_port)
        self.url = f"https://localhost:{_port(self._tls)}"
        self.portal_origin = f"http://127.0.0.1:{_port(self._http)}"
        self.control_token = self._folder.token()
        self._store = Store(self._folder.state)
        self.company = Company(self._store)
        self.people, self.structure = People(self.company), Structure(self.company)
        self.endpoint = Endpoint(self._store, deliver_to, anywhere=anywhere)
        self.deliveries = Deliveries(self._store, self.company, self.endpoint, switches)
        self.faults = Faults()
        self.portal = Portal(self.company, self.structure, self.portal_origin, embedding_origins)
        self.links = self.portal.links
        self.tokens = Tokens(self.url, self._store)
        self.service = Service(service_url or self.endpoint.origin, service_key or self._folder.service_key())
        self.jobs = Jobs()
        self.parts = Parts(
            self.company,
            self.people,
            self.structure,
            self.deliveries,
            self.endpoint,
            self.faults,
            self.portal,
            self.tokens,
            self.jobs,
            self.service,
        )
        self._web = uvicorn.Server(
            uvicorn.Config(
                Clock(self._pages(), self.faults),
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
                date_header=False,
                timeout_graceful_shutdown=STOP_WITHIN,
            )
        )
        self._api = grpc.server(ThreadPoolExecutor(CALLS_AT_ONCE, "emulator"), interceptors=[Gate(self.tokens, self.faults)])
        self._api_port: int = self._api.add_insecure_port("127.0.0.1:0")
        add_OrganizationServiceServicer_to_server(Organizations(self.company, self.portal, self.faults), self._api)
        add_DirectoryServiceServicer_to_server(Directories(self.company, self.faults), self._api)
        add_EventsServiceServicer_to_server(History(self.company), self._api)
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="emulator")

    def settings(self) -> dict[str, str]:
        """The variables that point a service at this emulator."""
        return {
            "SCALEKIT_ENVIRONMENT_URL": self.url,
            "SCALEKIT_CLIENT_ID": self.tokens.client_id,
            "SCALEKIT_CLIENT_SECRET": self.tokens.client_secret,
            "SCALEKIT_WEBHOOK_SECRET": " ".join(self.endpoint.secrets),
            "PROVISIONING_PORTAL_ORIGINS": self.portal_origin,
        }

    def trust(self) -> dict[str, str]:
        """The variables that make a process trust it. gRPC reads its own once, when the process opens its first channel."""
        authority = str(self._certificates.authority.resolve())
        names = ("REQUESTS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE")
        return dict.fromkeys(names, authority)

    def environment(self) -> dict[str, str]:
        """All variables of a process that is to be a service of this emulator, which may ask it what it says."""
        return {**self.settings(), **self.trust(), "PROVISIONING_API_KEYS": f"emulator:read:{self._folder.service_key()}"}

    def add_sample(self) -> None:
        """A small company, unless there is one already."""
        if not self.company.organizations():
            scenarios.sample(self.parts)

    def __enter__(self) -> Self:
        self._api.start()
        self._thread.start()
        self._started.result(START_WITHIN)
        self.deliveries.start()
        facts = {"pid": os.getpid(), "url": self.portal_origin, "token": self.control_token, "environment": self.environment()}
        self._folder.announce(facts)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.service.close()  # a job that asks it ends
        self.jobs.cancel()
        self.deliveries.stop()
        self.faults.clear()  # nobody hangs any more: the servers below wait for their calls
        self._web.should_exit = True
        self._thread.join()
        self._api.stop(grace=STOP_WITHIN).wait()
        self._store.close()
        self._folder.close()

    def _pages(self) -> Starlette:
        origins = (self.portal_origin, f"http://localhost:{_port(self._http)}", self.url)
        routes = [
            *oauth.routes(self.tokens, self.faults),
            *control.routes(self.parts, self.control_token, origins),
            *portal_pages.routes(self.portal),
            *pages.routes(),
        ]
        # A name that somebody else made point to this machine is not answered.
        return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])])

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # whoever waits for the start gets it
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        async with front(self._tls, self._certificates.server, http_port=_port(self._http), grpc_port=self._api_port):
            self._started.set_result(None)  # both sockets listen already: an early request waits in the backlog
            await self._web.serve([self._http])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"Port {port} is taken by another program: end that one, or choose another port.") from error
        raise ConfigurationError(f"Cannot listen on port {port}: {error.strerror}.") from error


def _port(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port
