"""What only a socket can say: broken framing, odd bytes in a head, bodies in pieces, cut, slow or not as long as they claim.

Whatever is stored in the end was signed, to the byte; each 201 is stored; and the service has failed at nothing.
"""

import gzip
import hmac
import json
import re
import socket
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from databases import Databases
from factories import delivery_rows, event
from operators import SECRET, SETTINGS, Operator, Running
from provisioning.db.session import Database

EXAMPLES = hypothesis.settings().max_examples
PATIENCE = 0.3  # seconds, in which who answers at all begins to
ANSWERS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LARGEST = 2**20
END = b"\r\n\r\n"
ODD = [b"\r\n", b"\n", b"\r", END, b"\x00", b"transfer-encoding: chunked\r\n", b"content-length: 0\r\n", b"POST / HTTP/1.1\r\n", b":", b" "]


@dataclass(frozen=True)
class Letter:
    """A signed event, as a request that can be taken apart."""

    webhook_id: str
    body: bytes
    headers: dict[bytes, bytes]

    def head(self, line: bytes = b"POST /webhooks/scalekit HTTP/1.1", /, **more: str) -> bytes:
        """The start of the request; `more` headers, `_` for `-`, in the place of those of this name."""
        said = {**self.headers, **{name.replace("_", "-").encode(): value.encode() for name, value in more.items()}}
        return b"\r\n".join([line, *(name + b": " + value for name, value in said.items() if value)]) + END

    def chunked(self, extension: bytes = b"", trailer: bytes = b"") -> bytes:
        """The whole request in chunks of ten bytes."""
        parts = [self.body[start : start + 10] for start in range(0, len(self.body), 10)]
        chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
        return self.head(content_length="", transfer_encoding="chunked") + chunks + b"0\r\n" + trailer + b"\r\n"

    @property
    def whole(self) -> bytes:
        return self.head() + self.body


@dataclass
class Door:
    """The service, and whoever comes to its port."""

    running: Running
    letters: dict[str, Letter] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def letter(self, content: bytes | None = None) -> Letter:
        """A new one."""
        number = next(self.numbers)
        webhook_id, at = f"msg_{number}", int(time.time())
        body = event("user_created", f"du_{number}") if content is None else content
        proof = hmac.digest(b64decode(SECRET.removeprefix("whsec_")), f"{webhook_id}.{at}.".encode() + body, "sha256")  # of any bytes
        proved = f"v1,{b64encode(proof).decode()}"
        headers = {"host": "localhost", "content-length": len(body), "webhook-id": webhook_id, "webhook-timestamp": at}
        said = {name.encode(): str(value).encode() for name, value in {**headers, "webhook-signature": proved}.items()}
        made = self.letters[webhook_id] = Letter(webhook_id, body, said)
        return made

    def say(self, *parts: bytes, answers: int = 1, pause: float = 0.0, patience: float = PATIENCE) -> list[int]:
        """Send these, one after another, and return the statuses of the answers: as many, unless fewer come within the patience."""
        place = urlsplit(self.running.url)
        heard = b""
        with socket.create_connection((place.hostname, place.port), timeout=patience) as connection:
            with suppress(TimeoutError, ConnectionError):  # refused before all of it was sent; the answer lies there
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            with suppress(TimeoutError, ConnectionError):
                while len(ANSWERS.findall(heard)) < answers and (more := connection.recv(65_536)):
                    heard += more
        statuses = [int(status) for status in ANSWERS.findall(heard)]
        self.answers.update(statuses or [0])
        return statuses


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A service in a process of its own; at the end it has failed at nothing, and has nothing that was not signed."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    folder: Path = tmp_path_factory.mktemp("door")
    with ExitStack() as stack:
        url = stack.enter_context(databases.fresh(migrated=True))
        running = stack.enter_context(Operator(folder, {**SETTINGS, "DATABASE_URL": url}).started("serve"))
        made = Door(running)
        yield made
        assert running.get("/health/ready").status_code == 200
        assert running.end() == 0
        lines = [json.loads(line) for line in running.stderr]
        assert [line for line in lines if line["level"] == "error"] == []
        with closing(Database(url)) as database:
            stored = delivery_rows(database)
        assert {id_: row["payload"] for id_, row in stored.items()} == {id_: made.letters[id_].body for id_ in stored}
        assert {row["outcome"] for row in stored.values()} <= {"processed"}
        assert made.answered <= stored.keys()


def test_a_good_delivery_is_received_however_it_comes(door: Door) -> None:
    """In chunks, piece by piece, after a 100, behind another, by an absolute target, or said to be compressed though it is not."""
    ways: dict[str, Callable[[Letter], bytes]] = {
        "whole": lambda letter: letter.whole,
        "chunks": Letter.chunked,
        "chunks with extensions and a trailer": lambda letter: letter.chunked(b";a=b", b"x-more: 1\r\n"),
        "an absolute target": lambda letter: letter.head(b"POST http://evil.example/webhooks/scalekit HTTP/1.1") + letter.body,
        "another type": lambda letter: letter.head(content_type="text/plain; charset=utf-16") + letter.body,
        "said to be compressed": lambda letter: letter.head(content_encoding="gzip") + letter.body,
        "many headers": lambda letter: letter.head(**{f"x_{number}": "x" for number in range(100)}) + letter.body,
        "odd bytes in another header": lambda letter: letter.head(x_odd="\u00ff\t\u20ac") + letter.body,
    }
    for way, written in ways.items():
        letter = door.letter()
        assert door.say(written(letter), patience=10) == [201], way
        door.answered.add(letter.webhook_id)
    slow, asks, *behind = [door.letter() for _ in range(5)]
    assert door.say(*(slow.whole[at : at + 20] for at in range(0, len(slow.whole), 20)), pause=0.005, patience=10) == [201]
    assert door.say(asks.head(expect="100-continue"), asks.body, answers=2, pause=0.2, patience=10) == [100, 201]
    forged = door.letter(b"{}").head(webhook_id="msg_forged") + b"{}"
    assert door.say(behind[0].whole + forged + behind[1].whole, behind[2].whole, answers=4, patience=10) == [201, 400, 201, 201]
    door.answered |= {each.webhook_id for each in (slow, asks, *behind)}


def test_what_is_broken_is_refused(door: Door) -> None:
    """400, 404, 405 or 413, or no answer where there is nobody to be understood; nothing of it is stored."""
    other = door.letter()
    door.letters.pop(other.webhook_id)  # of all of these none may be stored
    body, head, chunked = other.body, other.head, other.head(content_length="", transfer_encoding="chunked")
    compressed = door.letter(gzip.compress(body))
    door.letters.pop(compressed.webhook_id)
    large = f"{LARGEST + 1}"
    broken = {
        "compressed": (compressed.whole, {400}),
        "an upgrade": (head(connection="upgrade", upgrade="h2c") + body, {400}),
        "two lengths": (other.whole.replace(b"host:", b"content-length: 5\r\nhost:"), {400}),
        "a length and chunks": (head(transfer_encoding="chunked") + body, {400}),
        "no length": (head(content_length="0") + body, {400}),
        "a length below nothing": (head(content_length="-1") + body, {400}),
        "a length with a sign": (head(content_length=f"+{len(body)}") + body, {400}),
        "a length in hexadecimal": (head(content_length=hex(len(body))) + body, {400}),
        "a length of 40 digits": (head(content_length="9" * 40) + body, {400, 413}),
        "a length that is too short": (head(content_length=f"{len(body) - 1}") + body, {400}),
        "a length that is too large": (head(content_length=large), {413}),
        "a body that is too large": (head(content_length=large) + b"x" * (LARGEST + 1), {413}),
        "chunks that are too large": (chunked + b"110000\r\n" + b"x" * 0x110000, {413}),
        "a chunk of a lying size": (chunked + b"ffffffffffffffffff\r\nx", {400}),
        "a chunk of no size": (chunked + b"x\r\n" + body, {400}),
        "a chunk of less than no size": (chunked + b"-1\r\n" + body, {400}),
        "another coding": (head(content_length="", transfer_encoding="gzip") + body, {400}),
        "NUL in a header": (head(x_more="a\x00b") + body, {400}),
        "a header without a name": (other.whole.replace(b"host:", b":"), {400}),
        "a header with a space in it": (other.whole.replace(b"host:", b"ho st:"), {400}),
        "a folded header": (other.whole.replace(b"webhook-signature: ", b"webhook-signature:\r\n "), {400}),
        "a header twice": (other.whole.replace(END, b"\r\nwebhook-id: msg_2" + END, 1), {400}),
        "a large head": (head(x_more="x" * 100_000, webhook_id="") + body, {400, 431}),
        "letters that are none": (head(webhook_id="msg_\u00ff\u20ac") + body, {400}),
        "another method": (other.whole.replace(b"POST", b"PUT"), {405}),
        "no method": (other.whole.replace(b"POST", b"post"), {400, 405}),
        "another version": (other.whole.replace(b"HTTP/1.1", b"HTTP/9.9"), {400}),
        "another path": (other.whole.replace(b"POST /", b"POST //"), {404}),
        "what is no path": (other.whole.replace(b"/webhooks", b"webhooks"), {400, 404}),
        "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
        "TLS": (bytes.fromhex("16030100c8010000c40303") + bytes(200), {400}),
        "nothing": (b"\r\n\r\n", set()),
        "HTTP/0.9": (b"GET /\r\n", set()),
        "half a head": (head()[:-10], set()),
        "half a body": (other.whole[:-10], set()),
        "half the chunks": (other.chunked()[:-30], set()),
    }
    found = {name: {*door.say(sent, patience=10 if expected else PATIENCE)} for name, (sent, expected) in broken.items()}
    assert {name: heard for name, heard in found.items() if not heard <= broken[name][1] or bool(heard) != bool(broken[name][1])} == {}


@pytest.mark.proof
def test_a_body_that_does_not_come_is_given_up(door: Door) -> None:
    """408 after ten seconds, whether nothing comes any more or a byte now and then; meanwhile others are answered."""
    for pieces, pause in ((1, 0), (18, 0.5)):
        letter = door.letter()
        began = time.monotonic()
        trickle = [letter.body[at : at + 1] for at in range(pieces)]
        assert door.say(letter.head(), *trickle, pause=pause, patience=20) == [408]
        assert 9 < time.monotonic() - began < 15


def test_no_byte_that_is_changed_makes_the_service_fail(door: Door, say: Callable[[str], None]) -> None:
    """Changed, left out, doubled or put in, anywhere in the request: an answer below 500, or none."""
    pieces = st.binary(max_size=12) | st.sampled_from(ODD)
    before = Counter(door.answers)
    began = time.monotonic()

    @hypothesis.settings(max_examples=2 * EXAMPLES)
    @given(st.lists(st.tuples(st.integers(0, 650), st.integers(0, 12), pieces), min_size=1, max_size=3))
    def it_answers(edits: list[tuple[int, int, bytes]]) -> None:
        letter = door.letter()
        request = letter.whole
        for at, length, put in edits:
            request = request[:at] + put + request[at + length :]
        statuses = door.say(request)
        assert max(statuses, default=0) < 500
        if 201 in statuses:
            door.answered.add(letter.webhook_id)

    it_answers()
    answers = door.answers - before
    assert answers[400] > answers.total() / 4
    told = ", ".join(f"{number} × {status or 'no answer'}" for status, number in sorted(answers.items()))
    say(f"{answers.total()} requests in {time.monotonic() - began:.0f} s: {told}")
