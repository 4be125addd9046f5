"""Whatever is posted as a webhook: what is not signed changes nothing, and what is signed is taken or kept, can be looked at, and harms
nobody who came with it.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn
from urllib.parse import quote

import hypothesis
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import given
from hypothesis import strategies as st

from databases import Databases
from factories import ORGANIZATION, event, named, roles, state
from hostile import MEMBERS, NOT_AN_EVENT, NOT_JSON, PIECES, body, full
from operations import Visit
from operators import Command
from provisioning.api.problems import MEDIA_TYPE
from provisioning.db.session import Database
from provisioning.events import EventType
from rows import Row, all_rows
from service import OPERATE_KEY, WEBHOOK_SECRET, bearer, running, signed

Say = Callable[[str], None]

PATH = "/webhooks/scalekit"
EXAMPLES = hypothesis.settings().max_examples
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
ANYBODY = {"id", "organization_id", "email", "name", "given_name"}  # of what is said of a person, what is no attribute


@dataclass
class Post:
    """The service, somebody who sends to it, and somebody who looks at what came of it: over HTTP, and at its pages."""

    url: str
    database: Database
    client: TestClient
    visit: Visit
    answers: Counter[int] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    began: float = field(default_factory=time.monotonic)

    def figures(self) -> str:
        """What was asked since the last time, and how it was answered."""
        answers, seconds = Counter(self.answers), time.monotonic() - self.began
        self.answers.clear()
        self.began = time.monotonic()
        told = ", ".join(f"{number} × {status}" for status, number in sorted(answers.items()))
        return f"{answers.total()} requests in {seconds:.1f} s: {told}"

    def rows(self, *left_out: str) -> dict[str, list[Row]]:
        """Every row of every table but these."""
        return {table: rows for table, rows in all_rows(self.database).items() if table not in left_out}

    def send(self, content: bytes) -> Response:
        """Sign and send it, under an id of its own; again as Scalekit would, where a busy machine's database is not quick enough."""
        headers = signed(content, f"msg_{next(self.numbers)}")
        for _ in range(10):
            if (answer := self.client.post(PATH, content=content, headers=headers)).status_code != 503:
                break
            assert answer.json()["type"].endswith("database-unavailable")
        return answer

    def at_once(self, contents: list[bytes]) -> list[Response]:
        """All of them, several at a time."""
        with ThreadPoolExecutor(8) as senders:
            return list(senders.map(self.send, contents))

    def get(self, path: str) -> Any:
        """What is answered, which has to be JSON as the standard has it."""
        answer = self.client.get(path, headers=bearer(OPERATE_KEY))
        assert answer.status_code == 200, answer.text
        return strict(answer.content)

    def see(self, organization_id: str = ORGANIZATION) -> dict[str, Any]:
        """Look at everybody and everything in the organization, everywhere that it can be seen; returns its users, by directory user."""
        name = quote(organization_id, safe="")
        api, pages = f"/v1/organizations/{name}", f"/admin/organizations/{name}"
        people, there = self.get(f"{api}/users?limit=200")["data"], self.get(f"{api}/groups?limit=200")["data"]
        paths = [f"/users/{each['id']}" for each in people] + [f"/groups/{quote(each['id'], safe='')}" for each in there]
        for path in paths:
            self.get(f"{api}{path}")
            self.get(f"{api}{path}/history")
        for each in people:
            self.get(f"{api}/users/{each['id']}/access")
        for page in ("", "/groups", "/directories", *paths):
            answer = self.visit.get(f"{pages}{page}")
            assert answer.status_code == 200, answer.text
        self.get(f"{api}/directories")
        self.get(f"/v1/changes?limit=200&organization_id={name}")
        return {each["directory_users"][0]["id"]: each for each in people}

    def seen(self, answer: Response) -> dict[str, Any]:
        """The delivery that was answered so, as it is shown everywhere."""
        assert answer.status_code == 201, answer.text
        webhook_id = answer.request.headers["webhook-id"]
        shown: dict[str, Any] = self.get(f"/v1/deliveries/{webhook_id}")
        assert answer.json()["status"] in {shown["outcome"], "duplicate"}
        assert self.visit.get(f"/admin/deliveries/{webhook_id}").status_code == 200
        return shown

    def assert_kept(self, answer: Response) -> str:
        """It is a dead letter: shown with its reason, and replayed to no avail. Returns the reason."""
        shown = self.seen(answer)
        assert (shown["outcome"], shown["processed_at"], shown["changes"]) == ("dead_lettered", None, [])
        again = self.client.post(f"/v1/deliveries/{shown['webhook_id']}/replay", headers=bearer(OPERATE_KEY))
        assert (again.status_code, again.json()["outcome"], again.json()["error"]) == (200, "dead_lettered", shown["error"])
        assert shown["payload_encoding"] in {"json", "base64"}
        return str(shown["error"])


def strict(text: bytes) -> Any:
    """A document in which nothing is that JSON does not have, nor UTF-8."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(text.decode(), parse_constant=refuse)
    json.dumps(found, ensure_ascii=False).encode()
    return found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def post(request: pytest.FixtureRequest) -> Iterator[Post]:
    """With one person, in a group and with a role."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    with ExitStack() as stack:
        url = stack.enter_context(databases.fresh(migrated=True))
        database = stack.enter_context(closing(Database(url)))
        client = stack.enter_context(running(url))
        visit = Visit(TestClient(client.app))
        visit.log_in()
        made = Post(url, database, client, visit)
        for each in (client, visit.client):
            each.event_hooks = {"response": [lambda answer: made.answers.update([answer.status_code])]}
        assert made.seen(made.send(newcomer("du_1")))["outcome"] == "processed"
        yield made


def newcomer(id_: str, organization_id: str = ORGANIZATION) -> bytes:
    """Somebody of whom nothing is odd."""
    email = f"{id_}@example.com"
    return event("user_created", id_, organization_id=organization_id, email=email, groups=named(f"group_of_{id_}"), roles=roles("member"))


# What is not signed ----------------------------------------------------------------------------------------------------------------------

LEAVER = event("user_deleted", "du_1", at=1)
Headers = list[tuple[bytes, bytes]]


def forged(how: str, number: int, odd: bytes) -> tuple[Headers, bytes]:
    """A deletion of the one person there is that nobody signed, or not so, or not now; `number` and `odd` say where and with what."""
    good = signed(LEAVER, "msg_forged")
    content = LEAVER
    name = ("webhook-id", "webhook-timestamp", "webhook-signature")[number % 3]
    headers = {key.encode(): value.encode() for key, value in good.items()}
    match how:
        case "another secret":
            headers[b"webhook-signature"] = signed(LEAVER, "msg_forged", secret=f"{WEBHOOK_SECRET[:-5]}AAAA=")["webhook-signature"].encode()
        case "signed for something else":
            headers[name.encode()] = signed(LEAVER + b" ", "msg_other", at=time.time() - 1 - number % 200)[name].encode()
        case "too old" | "too new":
            at = time.time() + (400 + number) * (-1 if how == "too old" else 1)
            headers = {key.encode(): value.encode() for key, value in signed(LEAVER, "msg_forged", at=at).items()}
        case "another body":
            at = number % len(LEAVER)
            content = LEAVER[:at] + bytes([LEAVER[at] ^ 1 + number % 127]) + LEAVER[at + 1 :]
        case "a longer body":
            content = LEAVER + (odd or b" ")
        case "another signature":
            at = 3 + number % 40  # the last letters stand for fewer bits
            said = headers[b"webhook-signature"]
            headers[b"webhook-signature"] = said[:at] + (b"A" if said[at : at + 1] != b"A" else b"B") + said[at + 1 :]
        case "half a signature":
            headers[b"webhook-signature"] = headers[b"webhook-signature"][: number % 40]
        case "another version":
            headers[b"webhook-signature"] = b"v2," + headers[b"webhook-signature"][3:]
        case "something odd":
            headers[name.encode()] = odd
        case "nothing":
            del headers[name.encode()]
        case "twice":
            return [*headers.items(), (name.encode(), headers[name.encode()])], content
    return [*headers.items()], content


HOW = [
    *("another secret", "signed for something else", "too old", "too new", "another body", "a longer body", "another signature"),
    *("half a signature", "another version", "something odd", "nothing", "twice"),
]
BESIDE = [
    *((b"content-encoding", b"gzip"), (b"content-type", b"text/plain"), (b"x-forwarded-for", b"127.0.0.1"), (b"x-request-id", b"\xff")),
    *((b"authorization", f"Bearer {OPERATE_KEY}".encode()), (b"svix-id", b"msg_forged"), (b"x-http-method-override", b"PUT")),
]


def test_what_is_not_signed_changes_nothing_at_all(post: Post, say: Say) -> None:
    """400 as a problem, and every row of every table is as it was, but the count of refusals."""

    @hypothesis.settings(max_examples=5 * EXAMPLES)
    @given(st.sampled_from(HOW), st.integers(0, 10_000), st.binary(max_size=30), st.lists(st.sampled_from(BESIDE), max_size=3))
    def nobody_is_let_in(how: str, number: int, odd: bytes, beside: Headers) -> None:
        headers, content = forged(how, number, odd)
        answer = post.client.post(PATH, content=content, headers=[*headers, *beside])
        assert (answer.status_code, answer.headers["content-type"]) == (400, MEDIA_TYPE), answer.text

    before = post.rows("refusals")
    nobody_is_let_in()
    assert post.rows("refusals") == before
    assert post.client.post(PATH, content=LEAVER, headers=signed(LEAVER, "msg_forged")).json()["status"] == "processed"
    say(post.figures())


# What is signed --------------------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_kept_and_changes_nothing(post: Post, command: Command, say: Say) -> None:
    """Each of the corpus, in one crowd; operators are told why, over HTTP, at the page and in a terminal."""
    unreadable = NOT_JSON | NOT_AN_EVENT
    before = post.rows("deliveries", "refusals")
    answers = post.at_once([content for content, _ in unreadable.values()])
    for (name, (_, why)), answer in zip(unreadable.items(), answers, strict=True):
        assert why in post.assert_kept(answer), name
    assert post.rows("deliveries", "refusals") == before
    listed = post.get("/v1/deliveries?outcome=dead_lettered&limit=200")["data"]
    kept = [answer.request.headers["webhook-id"] for answer in answers]
    assert {*kept} <= {each["webhook_id"] for each in listed}  # the newest; earlier tests sent such, too
    done = command("deliveries list --outcome dead_lettered --limit 200", DATABASE_URL=post.url)
    assert done.code == 0
    assert {*kept} <= {cell for row in done.rows for cell in row}
    for answer in answers[::15]:
        assert command(f"deliveries show {answer.request.headers['webhook-id']}", DATABASE_URL=post.url).code == 0
    say(post.figures())


def test_what_is_odd_and_can_be_read_is_shown_as_it_was_said(post: Post, command: Command, say: Say) -> None:
    """Each of the corpus, about a person of its own, in one crowd with what cannot be read."""
    odd = {f"odd_{number}": body(member, subject=f"odd_{number}") for number, member in enumerate(MEMBERS.values())}
    odd["as_large_as_may_be"] = full('"x": "FILL"', subject="as_large_as_may_be")
    crowd = [each for pair in zip(odd.values(), [content for content, _ in NOT_AN_EVENT.values()], strict=False) for each in pair]
    answers = post.at_once(crowd)[::2]
    people = post.see()
    for (id_, content), answer in zip(odd.items(), answers, strict=True):
        shown = post.seen(answer)
        assert (shown["outcome"], shown["error"]) == ("processed", None), content[:500]
        said = json.loads(content)["data"]
        assert people[id_]["attributes"] == {name: value for name, value in said.items() if name not in ANYBODY and value is not None}
        assert (people[id_]["name"], people[id_]["given_name"]) == (said.get("name"), said.get("given_name"))
    for answer in answers[::15]:
        assert command(f"deliveries show {answer.request.headers['webhook-id']}", DATABASE_URL=post.url).code == 0
    say(post.figures())


def test_whatever_is_signed_is_taken_or_kept(post: Post, say: Say) -> None:
    """201; kept, it has changed nobody; and either way all is shown, and who comes with it is received."""
    outcomes: Counter[str] = Counter()

    @hypothesis.settings(max_examples=EXAMPLES // 4)
    @given(
        kind=st.sampled_from([*EventType, "organization.directory.something"]),
        data=st.dictionaries(st.text(max_size=10), JSON, max_size=3),
        edits=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 8), st.sampled_from(PIECES)), max_size=2),
        escaped=st.booleans(),
    )
    def it_is(kind: str, data: dict[str, Any], edits: list[tuple[int, int, str]], *, escaped: bool) -> None:
        organization_id = f"org_{next(post.numbers)}"
        post.send(newcomer("du_1", organization_id))
        before = state(post.database, organization_id)
        members = ", ".join(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=escaped)}" for name, value in data.items())
        text = body(members, kind=kind, organization_id=json.dumps(organization_id)).decode()
        for at, length, piece in edits:
            text = text[:at] + piece + text[at + length :]
        answer, neighbour = post.at_once([text.encode(), newcomer("du_2", organization_id)])
        assert post.seen(neighbour)["outcome"] == "processed"
        outcome = post.seen(answer)["outcome"]
        if outcome == "dead_lettered":
            post.assert_kept(answer)
            after = state(post.database, organization_id)
            assert {table: [row for row in rows if "du_2" not in repr(row)] for table, rows in after.items()} == before
        post.see(organization_id)
        outcomes[outcome] += 1

    it_is()
    assert outcomes.keys() <= {"processed", "stale", "ignored", "dead_lettered"}
    assert min(outcomes["processed"], outcomes["dead_lettered"]) > 0 or EXAMPLES < 1000
    say(f"{post.figures()}; {', '.join(f'{number} {outcome}' for outcome, number in outcomes.items())}")
