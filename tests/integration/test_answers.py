"""What a target does to whoever tells it: nothing that it answers, or does not, takes long, leads elsewhere or is kept."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from application import Application, application
from live import listening
from provisioning.emulator.certificates import certificates
from provisioning.hooks import target as targets
from provisioning.hooks.message import headers, new_secret
from provisioning.hooks.target import Answer, Network, Target

SECRET = new_secret()
LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


def post(*urls: str, tls: ssl.SSLContext | None = None, networks: Sequence[Network] = ()) -> list[Answer]:
    """What messages to these URLs come to, one after another."""

    async def send(url: str) -> Answer:
        target = Target(url, networks, tls or ssl.create_default_context(), 1)
        try:
            text = '{"data":{"user_id":"u","group_id":null,"directory_id":null}}'
            return await target.post(text.encode(), headers("chg_1", text, [SECRET], datetime.now(UTC)))
        finally:
            await target.close()

    return [asyncio.run(send(url)) for url in urls]


@contextmanager
def saying(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of few words, for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    speak(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with application() as inside, application(answers=lambda _: status) as app:
        app.headers = [(b"location", inside.url.encode())]
        assert post(app.url) == [Answer(f"HTTP {status}, and redirects are not followed")]
        assert not inside.told


def test_a_busy_target_may_ask_to_be_left_alone() -> None:
    with application(answers=lambda _: 503) as app:
        app.headers = [(b"retry-after", b"7")]
        assert post(app.url)[0].retry_after.total_seconds() == 7
        app.headers = [(b"retry-after", b"Wed, 21 Oct 2099 07:28:00 GMT")]
        assert post(app.url)[0].retry_after.total_seconds() == 0


def drip(connection: socket.socket) -> None:
    """A header that never ends, a byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        if connection.recv(1) == b"":
            return


def hang(connection: socket.socket) -> None:
    """Nothing at all."""
    while connection.recv(65_536):
        pass


def endless(connection: socket.socket) -> None:
    """More than anybody wants to read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65_536)


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"\x00\xff not HTTP\r\n\r\n")


def cut(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")


@pytest.mark.parametrize(
    ("speak", "words"),
    [
        (drip, "no answer within"),
        (hang, "no answer within"),
        (endless, None),
        (garbage, "the connection broke"),
        (cut, "the connection broke"),
    ],
)
def test_no_answer_takes_long_or_much_room(
    speak: Callable[[socket.socket], None], words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it has one deadline; what is beyond 64 KiB is not read."""
    monkeypatch.setattr(targets, "SECONDS", 0.5)
    with saying(speak) as url:
        (answer,) = post(url)
    assert (answer.error is None) if words is None else (words in str(answer.error))


def test_tls_is_checked_by_name(tmp_path: Path) -> None:
    """The certificate has to be of the name in the URL and of an authority that is trusted, though the connection goes to an address."""
    made = certificates(tmp_path)
    trusting = ssl.create_default_context(cafile=made.authority)
    app = Application(secrets=[SECRET])
    with listening(app, lifespan="off", ssl_certfile=made.server) as url:
        port = url.rpartition(":")[2]
        good, ours = f"https://localhost:{port}/", f"https://2130706433:{port}/"
        assert post(good, tls=trusting) == [Answer()]
        assert len(app.told) == 1
        (unknown,) = post(good)
        assert "its certificate is not good" in str(unknown.error)
        (other,) = post(ours, tls=trusting, networks=LOOPBACK)
        assert "its certificate is not good" in str(other.error)
        (refused,) = post(ours, tls=trusting)
        assert "no public address" in str(refused.error)
    assert len(app.told) == 1


def test_a_target_keeps_nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cookie of its own comes back, and no proxy of the environment is asked where it is."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    seen: list[dict[bytes, bytes]] = []

    class Keeping(Application):
        async def __call__(self, scope, receive, send):  # type: ignore[no-untyped-def]
            seen.append(dict(scope["headers"]))
            await super().__call__(scope, receive, send)

    app = Keeping(headers=[(b"set-cookie", b"a=b; Path=/")])

    async def twice(url: str) -> None:
        target = Target(url, [], ssl.create_default_context(), 1)
        for _ in range(2):
            assert await target.post(b'{"data":{"user_id":"u"}}', {"webhook-id": "chg_1"}) == Answer()
        await target.close()

    with listening(app, lifespan="off") as url:
        asyncio.run(twice(url))
    assert len(seen) == 2
    assert not any(b"cookie" in each for each in seen)
    assert seen[0][b"host"] == url.removeprefix("http://").encode()
