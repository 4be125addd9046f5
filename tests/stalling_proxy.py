"""A TCP path between a client and its server that can stall (everything stays open, nothing is handed on), be slow, or be cut (closed and
refused): at once, at a client's words, or in the middle of whatever goes through.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, RLock, Thread
from time import sleep
from typing import Self
from urllib.parse import urlsplit

TICK = 0.05  # seconds between two parts of what goes slowly


class StallingProxy:
    """Stands at `url` before the server of another URL, and hands every byte on until it is told otherwise. Use it as a context."""

    def __init__(self, server_url: str, host: str = "127.0.0.1") -> None:
        """`host`: what `url` calls this machine, where certificates do."""
        server = urlsplit(server_url)
        self._server = (server.hostname or "127.0.0.1", server.port or 5432)
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        user, at, _ = server.netloc.rpartition("@")
        self.url = server._replace(netloc=f"{user}{at}{host}:{self._port}").geturl()
        self.stalled = Event()
        self._asks, self._answers = _open(), _open()
        self._forgotten: list[Event] = []
        self._trigger = (b"", False)
        self._pace = 0.0
        self._left, self._then = 0, _nothing
        self._lock = RLock()
        self._ends: set[socket.socket] = set()
        self._threads: list[Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept, self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join()

    def stall(self, *, asks: bool = True, answers: bool = True) -> None:
        """Hand nothing on, of what the client `asks` or of what the server `answers`, and close nothing."""
        if asks:
            self._asks.clear()
        if answers:
            self._answers.clear()
        self.stalled.set()

    def stall_at(self, words: bytes, *, received: bool = False) -> None:
        """Stall when a client sends these words: before the server has them, or once it has `received` them."""
        self._trigger = (words, received)

    def slow(self, bytes_per_second: float) -> None:
        """Hand on so much of each connection, each way."""
        self._pace = bytes_per_second

    def after(self, octets: int, do: Callable[[], None]) -> None:
        """Do that (`cut`, say) when so many more have been handed on, by whichever connection and in the middle of whatever it is."""
        with self._lock:
            self._left, self._then = octets, do

    def resume(self) -> None:
        """Hand on what has waited, and what comes."""
        self._trigger = (b"", False)
        self._pace = 0.0
        with self._lock:
            self._left, self._then = 0, _nothing
        self.stalled.clear()
        self._asks.set()
        self._answers.set()

    def forget(self) -> None:
        """Stall the connections that are open, and hand on what comes by new ones: so a NAT does with connections idle for long."""
        self.stall()
        self._forgotten += [self._asks, self._answers]
        self._asks, self._answers = _open(), _open()
        self.resume()

    def drop(self) -> None:
        """Close every connection."""
        _close(*self._ends)
        self.resume()
        for flowing in self._forgotten:
            flowing.set()

    def cut(self) -> None:
        """Close every connection and refuse new ones, as when the server is stopped."""
        if self._listener:
            _close(self._listener)
            self._listener.close()
            self._listener = None
        self.drop()

    def restore(self) -> None:
        """Listen again where it listened before the cut, if there was one."""
        if not self._listener:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._start(self._accept, self._listener)

    def _start(self, work: Callable[..., None], *parts: object) -> Thread:
        thread = Thread(target=work, args=parts, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # until it is cut
            while True:
                client, _ = listener.accept()
                self._ends.add(client)
                self._start(self._connect, client, listener)

    def _connect(self, client: socket.socket, listener: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._server) as server:
            self._ends.add(server)
            if listener is not self._listener:  # cut meanwhile
                _close(client, server)
            asking = self._start(self._hand_on, client, server, self._asks, True)
            self._hand_on(server, client, self._answers, False)
            asking.join()
            self._ends -= {client, server}

    def _hand_on(self, source: socket.socket, target: socket.socket, flowing: Event, asks: bool) -> None:
        with suppress(OSError):  # until either end has gone
            while data := source.recv(65536):
                words, received = self._trigger
                if asks and words and words in data:
                    self.stall()
                    if received:
                        target.sendall(data)
                        continue
                for part in self._parts(data):
                    flowing.wait()
                    target.sendall(part)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _parts(self, data: bytes) -> Iterator[bytes]:
        with self._lock:
            left = self._left
            self._left -= len(data)
        if 0 < left <= len(data):
            yield data[:left]
            data = data[left:]
            with self._lock:
                self._then()
        while data:
            size = max(1, int(self._pace * TICK)) if self._pace else len(data)
            if self._pace:
                sleep(TICK)
            yield data[:size]
            data = data[size:]


def _nothing() -> None:
    pass


def _open() -> Event:
    flowing = Event()
    flowing.set()
    return flowing


def _close(*ends: socket.socket) -> None:
    for each in ends:
        with suppress(OSError):  # it is closed already
            each.shutdown(socket.SHUT_RDWR)
