"""A storm: fault after fault on a path, each for a while, by chance that repeats; and callers who ask a service all the while."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from threading import Event, Thread

import httpx

from factories import delivery_rows, event
from operators import NOBODY
from provisioning.db.session import Database
from service import bearer, signed
from stalling_proxy import StallingProxy

PATIENCE = 40.0  # seconds of a caller, more than any answer may take
LASTS = (1.5, 8.0)  # seconds of a fault
IN_A_ROW = 8  # answers, each over a connection of its own: by then each of a few workers has given one
AMID = 4_000  # bytes
TRIES = 300  # to deliver: a minute and more
CALLERS = "org_callers"


def _stall_anew(path: StallingProxy, chance: Random) -> None:
    path.drop()
    path.after(chance.randrange(1, AMID), path.stall)  # while somebody connects, say


FAULTS: Mapping[str, Callable[[StallingProxy, Random], None]] = {
    "cut": lambda path, _: path.cut(),
    "cut amid": lambda path, chance: path.after(chance.randrange(1, AMID), path.cut),
    "drop": lambda path, _: path.drop(),
    "stall": lambda path, _: path.stall(),
    "stall amid": lambda path, chance: path.after(chance.randrange(1, AMID), path.stall),
    "stall anew": _stall_anew,
    "stall asks": lambda path, _: path.stall(answers=False),
    "stall answers": lambda path, _: path.stall(asks=False),
    "slow": lambda path, chance: path.slow(chance.uniform(500, 10_000)),
    "forget": lambda path, _: path.forget(),
}


@dataclass(frozen=True)
class Fault:
    """What went wrong, from when to when (seconds since 1970), and how many seconds later the service was well."""

    kind: str
    began: float
    ended: float
    recovery: float

    def met(self, answer: "Answer") -> bool:
        """Whether the answer was waited for meanwhile."""
        return answer.sent < self.ended and self.began < answer.sent + answer.seconds


@dataclass(frozen=True)
class Answer:
    """What came of a request: a status or how it failed, when it was sent, how many seconds it took, whether it says when to come again."""

    what: str
    said: int | str
    sent: float
    seconds: float
    comes_again: bool


@dataclass
class Callers:
    """Who asks the service at `url` with this `key`, and what they are answered. Deliveries are signed with the `secret`."""

    url: str
    key: str
    secret: str
    answers: list[Answer] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)  # webhook ids
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def ask(
        self, client: httpx.Client, what: str, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bool:
        """Make a request, keep what is answered as that to `what`, and return whether that is a success."""
        sent, again = time.time(), False
        try:
            answer = client.request(method, path, content=content, headers={**bearer(self.key), **(headers or {})})
        except httpx.HTTPError as error:
            said: int | str = type(error).__name__
        else:
            said, again = answer.status_code, "Retry-After" in answer.headers
        self.answers.append(Answer(what, said, sent, time.time() - sent, again))
        return isinstance(said, int) and said < 300

    def deliver(self, client: httpx.Client) -> bool:
        """Send a delivery, again and again, until it is taken or nobody would believe that it ever is; whether it was taken at once."""
        number, tries = next(self._numbers), 1
        webhook_id, body = f"msg_u{number}", event("user_created", f"u{number}", organization_id=CALLERS, email=f"u{number}@x.example")
        while not self.ask(client, "webhook", "POST", "/webhooks/scalekit", body, signed(body, webhook_id, secret=self.secret)):
            tries += 1
            time.sleep(0.2)
            if tries > TRIES:
                return False
        self.taken.append(webhook_id)
        return tries == 1

    @contextmanager
    def at_work(self, *work: Callable[[httpx.Client], object], every: float = 0.02) -> Iterator[None]:
        """Everybody does their work again and again, so many seconds after it was done, each over a connection of their own, until the end
        of the block.
        """
        leaving = Event()

        def go_on(one: Callable[[httpx.Client], object]) -> None:
            with self.client() as client:
                while not leaving.wait(every):
                    one(client)

        threads = [Thread(target=go_on, args=(each,)) for each in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            leaving.set()
            for thread in threads:
                thread.join()

    def recovery(self, since: float, work: Callable[[httpx.Client], bool]) -> float:
        """How many seconds after that moment the service did this for the first time of many in a row."""
        row = list[float]()
        while len(row) < IN_A_ROW:
            with self.client() as client:
                row = [*row, time.time()] if work(client) else []
            assert time.time() - since < 3 * PATIENCE
        return row[0] - since

    def client(self) -> httpx.Client:
        """One with a connection of its own."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, verify=NOBODY)

    def said(self, what: str) -> set[int | str]:
        """All that was answered to that."""
        return {each.said for each in self.answers if each.what == what}

    def longest(self, *what: str) -> float:
        """How many seconds an answer took, at most, to any of these or to anything."""
        return max(each.seconds for each in self.answers if not what or each.what in what)

    def assert_all_was_taken_once(self, database: Database) -> None:
        """Whatever was answered 2xx is there, and was handled once."""
        rows = {id_: row for id_, row in delivery_rows(database).items() if row["organization_id"] == CALLERS}
        assert rows.keys() == {*self.taken}
        assert {(row["outcome"], row["attempts"]) for row in rows.values()} == {("processed", 1)}


def storm(path: StallingProxy, seed: int, times: int, recovery: Callable[[float], float]) -> list[Fault]:
    """Each kind of fault so many `times`, in any order; the next begins when the service has recovered from the one before."""
    chance, kinds, faults = Random(seed), [*FAULTS] * times, list[Fault]()  # noqa: S311  # chance, not secrecy
    chance.shuffle(kinds)
    for kind in kinds:
        began = time.time()
        FAULTS[kind](path, chance)
        time.sleep(chance.uniform(*LASTS))
        path.resume()
        path.restore()
        ended = time.time()
        faults.append(Fault(kind, began, ended, recovery(ended)))
    return faults


def harmful(faults: Sequence[Fault], answers: Collection[Answer]) -> Counter[str]:
    """How many answers were refusals, or took more than a second, while there was this kind of fault."""
    bad = [each for each in answers if not isinstance(each.said, int) or each.said >= 300 or each.seconds > 1]
    return Counter(fault.kind for fault in faults for answer in bad if fault.met(answer))
