"""The emulator as a whole: start it, point a client at it, stop it. It listens on 127.0.0.1 alone."""

import asyncio
import socket
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import uvicorn
from scalekit.v1.organizations.organizations_pb2_grpc import add_OrganizationServiceServicer_to_server
from starlette.applications import Starlette

from provisioning.emulator.certificates import certificates
from provisioning.emulator.faults import Faults
from provisioning.emulator.front import front
from provisioning.emulator.gate import Gate
from provisioning.emulator.oauth import Tokens, routes
from provisioning.emulator.portal import Links, Organizations

CALLS_AT_ONCE = 64
START_WITHIN = 10  # seconds
STOP_WITHIN = 2  # seconds


class Emulator:
    """A context manager: it runs inside the `with`.

    `folder` keeps its certificates, so that whoever trusted one emulator of that folder trusts the next.
    `faults` makes it misbehave; `tokens` and `links` are what it has given out.
    """

    def __init__(self, folder: Path, *, organizations: Collection[str] = ()) -> None:
        self.faults = Faults()
        self.links = Links()
        self._certificates = certificates(folder)
        self._tls, self._http = _listen(), _listen()
        self.url = f"https://localhost:{_port(self._tls)}"
        self.portal_origin = f"http://127.0.0.1:{_port(self._http)}"
        self.tokens = Tokens(self.url)
        self._web = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=routes(self.tokens, self.faults)),
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=STOP_WITHIN,
            )
        )
        self._api = grpc.server(ThreadPoolExecutor(CALLS_AT_ONCE, "emulator"), interceptors=[Gate(self.tokens, self.faults)])
        self._api_port: int = self._api.add_insecure_port("127.0.0.1:0")
        servicer = Organizations(organizations, self.links, self.portal_origin, self.faults)
        add_OrganizationServiceServicer_to_server(servicer, self._api)
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="emulator")

    def settings(self) -> dict[str, str]:
        """The variables that point a service at this emulator."""
        return {
            "SCALEKIT_ENVIRONMENT_URL": self.url,
            "SCALEKIT_CLIENT_ID": self.tokens.client_id,
            "SCALEKIT_CLIENT_SECRET": self.tokens.client_secret,
            "PROVISIONING_PORTAL_ORIGINS": self.portal_origin,
        }

    def trust(self) -> dict[str, str]:
        """The variables that make a process trust it. gRPC reads its own once, when the process opens its first channel."""
        authority = str(self._certificates.authority)
        return {"REQUESTS_CA_BUNDLE": authority, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": authority}

    def __enter__(self) -> Self:
        self._api.start()
        self._thread.start()
        self._started.result(START_WITHIN)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.faults.clear()  # nobody hangs any more: the servers below wait for their calls
        self._web.should_exit = True
        self._thread.join()
        self._api.stop(grace=STOP_WITHIN).wait()

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


def _listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def _port(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port
