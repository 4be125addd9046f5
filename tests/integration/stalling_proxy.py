"""A TCP path between a test and its server that can stall (everything stays open, nothing is handed on) or be cut (closed and refused)."""

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Self
from urllib.parse import urlsplit


class StallingProxy:
    """Stands at `url` before the server of another URL, and hands every byte on until it is told otherwise. Use it as a context."""

    def __init__(self, server_url: str) -> None:
        server = urlsplit(server_url)
        self._server = (server.hostname or "127.0.0.1", server.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = server._replace(netloc=f"{server.netloc.rpartition('@')[0]}@127.0.0.1:{self._port}").geturl()
        self.stalled = Event()
        self._flowing = Event()
        self._flowing.set()
        self._forgotten: list[Event] = []
        self._trigger = (b"", False)
        self._ends: list[socket.socket] = []
        self._threads: list[Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def stall(self) -> None:
        """Hand nothing on, in either direction, and close nothing."""
        self._flowing.clear()
        self.stalled.set()

    def stall_at(self, words: bytes, *, received: bool = False) -> None:
        """Stall when a client sends these words: before the server has them, or once it has `received` them."""
        self._trigger = (words, received)

    def resume(self) -> None:
        """Hand on what has waited, and what comes."""
        self._trigger = (b"", False)
        self.stalled.clear()
        self._flowing.set()

    def forget(self) -> None:
        """Stall the connections that are open, and hand on what comes by new ones: so a NAT does with connections idle for long."""
        self._flowing.clear()
        self._forgotten.append(self._flowing)
        self._flowing = Event()
        self.resume()

    def cut(self) -> None:
        """Close every connection and refuse new ones, as when the server is stopped."""
        for each in (self._listener, *self._ends):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.resume()
        for flowing in self._forgotten:
            flowing.set()

    def restore(self) -> None:
        """Listen again where it listened before the cut."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *parts: object) -> None:
        self._threads.append(Thread(target=work, args=parts, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # until it is cut
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._ends += [client, server]
                self._start(self._hand_on, client, server, self._flowing, True)
                self._start(self._hand_on, server, client, self._flowing, False)

    def _hand_on(self, source: socket.socket, target: socket.socket, flowing: Event, asks: bool) -> None:
        with suppress(OSError):  # until either end has gone
            while data := source.recv(65536):
                words, received = self._trigger
                if asks and words and words in data:
                    self.stall()
                    if received:
                        target.sendall(data)
                        continue
                flowing.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
