"""One TLS port for two protocols: after the handshake the bytes are piped to the plain server that speaks what ALPN chose."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from socket import socket

LINGER = 1  # second


@contextlib.asynccontextmanager
async def front(listening: socket, certificate: Path, *, http_port: int, grpc_port: int) -> AsyncIterator[None]:
    """Serves on `listening` inside the `async with`; what is open at its end is cut."""
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        port = grpc_port if tls.selected_alpn_protocol() == "h2" else http_port
        connection = asyncio.create_task(_pipe(reader, writer, port))
        connections.add(connection)
        connection.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, sock=listening, ssl=_context(certificate))
    try:
        yield
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate)
    # gRPC offers h2 alone; a browser offers both and must get HTTP/1.1, which is all that the plain server speaks.
    context.set_alpn_protocols(["http/1.1", "h2"])
    return context


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Both ways, until either side ends; then what is still on its way may arrive."""
    with _connection(writer), contextlib.suppress(OSError):
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        with _connection(upstream_writer):
            ways = [asyncio.create_task(_copy(reader, upstream_writer)), asyncio.create_task(_copy(upstream_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
            for end in (upstream_writer, writer):
                end.close()
            async with asyncio.timeout(LINGER):
                await asyncio.gather(upstream_writer.wait_closed(), writer.wait_closed())


@contextlib.contextmanager
def _connection(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Cut at the end, if it is not closed by then: a close of TLS waits for a peer that may have gone."""
    try:
        yield
    finally:
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
