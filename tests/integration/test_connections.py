"""Whoever holds connections open without asking anything keeps nobody out."""

import asyncio
import resource
import socket
import threading
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from starlette.types import Receive, Scope, Send

from live import listening
from provisioning.cli import connections
from provisioning.cli.connections import RESERVED, Connection, allow_many, most

MOST = 5
ASKED = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Application:
    """Answers at once, but to those that ask for `/slow`: to them when they are let go."""

    def __init__(self) -> None:
        self.asked, self.let_go = threading.Event(), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/slow":
            self.asked.set()
            await asyncio.to_thread(self.let_go.wait)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def status(connection: socket.socket) -> int:
    """Of the answer that comes."""
    return int(connection.recv(1000).split()[1])


def test_a_crowd_that_says_nothing_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent connections, half a request, and those that have had their answer are ended for new ones; a request under way never is."""
    monkeypatch.setattr(connections, "most", lambda: MOST)
    application = Application()
    with listening(application, http=Connection) as url, ExitStack() as stack:
        stack.callback(application.let_go.set)
        address = urlsplit(url).hostname, urlsplit(url).port

        def connect(says: bytes = b"") -> socket.socket:
            made = stack.enter_context(socket.create_connection(address, timeout=10))
            made.sendall(says)
            return made

        slow = connect(ASKED % b"slow")
        assert application.asked.wait(10)
        answered = connect(ASKED % b"")
        assert status(answered) == 204
        silent = [connect(b"GET / HTTP/1.1\r\nHost:" if number % 2 else b"") for number in range(4 * MOST)]
        for _ in range(MOST):  # each of them on a connection of its own, one after another
            assert status(connect(ASKED % b"")) == 204
        ended = 0
        for each in (answered, *silent):
            each.setblocking(False)
            try:
                ended += each.recv(1) == b""
            except ConnectionResetError:
                ended += 1
            except BlockingIOError:
                pass
        assert ended >= len(silent) + 1 - MOST
        application.let_go.set()
        assert status(slow) == 204


def test_as_many_descriptors_are_asked_for_as_there_may_be() -> None:
    """And some are left for the database, however few there are."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most.cache_clear()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
        allow_many()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert soft == min(hard, connections.MOST + RESERVED) if hard != resource.RLIM_INFINITY else soft > 1024
        assert most() == soft - RESERVED
        most.cache_clear()
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        assert most() == 150
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        most.cache_clear()
