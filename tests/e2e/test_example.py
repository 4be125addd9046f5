"""The example application beside the service and a local Scalekit, three real processes: who loses access there has no session here."""

import importlib.util
import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivering import Delivering, delivering
from factories import event, receive, user_of
from live import listening
from operators import KEY, NOBODY, SECONDS, SECRET, Running, free_port, until
from provisioning.app import create_app
from provisioning.db import changes as log
from provisioning.db.session import Database
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Provider, User
from service import READ_KEY, settings, signed

EXAMPLES = Path(__file__).parents[2] / "examples"
# What is applied to whom, one after another, as the example's own database sees it.
WITNESS = """
    CREATE TABLE IF NOT EXISTS applied (user_id, change);
    CREATE TRIGGER IF NOT EXISTS applied_new AFTER INSERT ON users BEGIN INSERT INTO applied VALUES (NEW.id, NEW.change); END;
    CREATE TRIGGER IF NOT EXISTS applied_newer AFTER UPDATE ON users BEGIN INSERT INTO applied VALUES (NEW.id, NEW.change); END;
"""


@dataclass
class Example:
    """The example, as its visitors meet it, and its database."""

    url: str
    secret: str
    database: Path

    def __post_init__(self) -> None:
        own = {"Connection": "close"}  # the application ends idle ones, perhaps just when one is used again
        self.client = httpx.Client(base_url=self.url, headers=own, timeout=SECONDS, trust_env=False, verify=NOBODY)

    def log_in(self, email: str, organization_id: str = "") -> str | None:
        """The new session's token, if there is one."""
        answer = self.client.post("/login", data={"organization": organization_id, "email": email})
        self.client.cookies.clear()
        assert answer.status_code == 303 or (answer.status_code == 403 and "<form" in answer.text), answer.text
        return answer.cookies.get("session")

    def page(self, token: str | None) -> str:
        """What the session's browser shows."""
        return self.client.get("/", headers={"Cookie": f"session={token}"} if token else {}).text

    def is_alive(self, token: str) -> bool:
        """Whether the session is."""
        status = self.client.get("/", headers={"Cookie": f"session={token}"}).status_code
        assert status in {200, 401}
        return status == 200

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What its database says."""
        with closing(sqlite3.connect(self.database, timeout=SECONDS)) as database:
            return database.execute(query).fetchall()

    def sessions(self) -> set[str]:
        """The tokens of those that live."""
        return {token for (token,) in self.rows("SELECT token FROM sessions")}


@dataclass
class Scene:
    """A customer's directory at a local Scalekit, the service, and the example with a hook to it, which comes and goes."""

    place: Delivering
    service: Running
    example: Example
    directory_id: str

    @contextmanager
    def running(self) -> Iterator[Example]:
        """The example, up."""
        options = ("--app-dir", str(EXAMPLES), "--port", self.example.url.rpartition(":")[2], "--log-level", "warning")
        with (self.place.operator.folder / "example.log").open("ab") as log:
            more = {"SERVICE_URL": self.service.url, "SERVICE_KEY": KEY, "HOOK_SECRET": self.example.secret, "NO_PROXY": "*"}
            environment = {**os.environ, **more, "DATABASE": str(self.example.database)}
            process = subprocess.Popen([sys.executable, "-m", "uvicorn", "app:app", *options], env=environment, stdout=log, stderr=log)
        try:
            until(lambda: process.poll() is not None or self._answers())
            with closing(sqlite3.connect(self.example.database, timeout=SECONDS)) as database:
                database.executescript(WITNESS)
            yield self.example
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) in {0, -signal.SIGTERM}
        finally:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            return self.example.client.get("/").status_code == 401
        except httpx.TransportError:
            return False

    def hire(self, number: int) -> list[User]:
        """So many people, once the example knows them."""
        newcomers = [Newcomer("Nova", str(n), f"nova{n}@acme.example", groups=["Sales"]) for n in range(number)]
        hired = [self.place.emulator.people.hire(each, self.directory_id) for each in newcomers]
        until(lambda: self.example.rows("SELECT count(*) FROM users WHERE active") == [(number,)])
        return hired

    def let_go(self, leavers: Sequence[User], pause: float = 0) -> list[float]:
        """Suspend one half and fire the other, `pause` seconds apart; returns when each was (monotonic)."""
        began = []
        for number, user in enumerate(leavers):
            began.append(time.monotonic())
            (self.place.emulator.people.fire if number % 2 else self.place.emulator.people.suspend)(user.id)
            time.sleep(pause)
        return began

    def feed(self) -> list[dict[str, Any]]:
        """All changes, in order."""
        found: list[dict[str, Any]] = []
        after = ""
        while (part := self.service.get(f"/v1/changes?limit=200{after}").json())["data"]:
            found += part["data"]
            after = f"&after={part['next_cursor']}"
        return found

    def assert_equal(self) -> None:
        """The example ended where the feed did, and nobody's changes were applied out of their order."""
        assert self.place.settled()
        newest = {each["user_id"]: each for each in self.feed() if each["user_id"]}
        expected = {(id_, each["id"], each["user"]["active"]) for id_, each in newest.items()}
        until(lambda: {*self.example.rows("SELECT id, change, active FROM users")} == expected)
        in_order: defaultdict[str, list[str]] = defaultdict(list)
        for user_id, change in self.example.rows("SELECT * FROM applied ORDER BY rowid"):
            in_order[user_id] = [*in_order[user_id], change] if change else []  # it began anew: a hook had come before the feed
        assert in_order.keys() == newest.keys()
        assert all(changes == sorted({*changes}) for changes in in_order.values())


@pytest.fixture
def scene(tmp_path: Path, database_url: str) -> Iterator[Scene]:
    with delivering(tmp_path, database_url) as place:
        structure, port = place.emulator.structure, free_port()
        organization = structure.add_organization("Acme")
        directory = structure.add_directory(organization.id, Provider.OKTA)
        for name in ("Sales", "Engineering"):
            structure.map_role(structure.add_group(name, directory.id).id, name.lower())
        with place.serving() as service:
            added = place.operator.run("hooks", "add", f"http://127.0.0.1:{port}/hooks/provisioning")
            secret = re.search(r"^secret +(whsec_\S+)$", added.stdout, re.MULTILINE)
            assert secret, added.stderr
            example = Example(f"http://127.0.0.1:{port}", secret[1], tmp_path / "application.db")
            with closing(example.client):
                yield Scene(place, service, example, directory.id)
        assert "Traceback" not in (tmp_path / "example.log").read_text()


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_people_come_and_go_as_their_directory_says(scene: Scene) -> None:
    """Hired: may log in. Suspended: the session is dead. Restored: may log in, and the old session stays dead. Moved. Fired: dead.

    What is not signed changes nothing.
    """
    people = scene.place.emulator.people
    with scene.running() as example:
        jane = people.hire(Newcomer("<b>Jane", "Doe", "jane@acme.example", groups=["Sales"]), scene.directory_id)
        assert example.log_in("nobody@acme.example") is None
        first = until(lambda: example.log_in("Jane@Acme.example"))
        until(lambda: "sales" in example.page(first))
        assert "&lt;b&gt;Jane" in example.page(first)

        people.suspend(jane.id)
        until(lambda: not example.is_alive(first))
        assert "Your session has ended." in example.page(first)
        assert "Your session has ended." not in example.page(None)
        assert example.log_in(jane.email) is None

        people.restore(jane.id)
        second = until(lambda: example.log_in(jane.email))
        assert not example.is_alive(first)

        people.regroup(jane.id, add=["Engineering"], remove=["Sales"])
        until(lambda: "engineering" in example.page(second))
        assert "sales" not in example.page(second)

        scene.assert_equal()
        before = example.rows("SELECT * FROM users")
        body = json.dumps({"type": "user.deactivated", "data": {**scene.feed()[-1], "id": "chg_9", "user": None}}).encode()
        for headers in ({}, signed(body, secret=SECRET), {**signed(body, secret=example.secret), "webhook-signature": "v1,é"}):
            said = {name.encode(): value.encode() for name, value in headers.items()}
            assert example.client.post("/hooks/provisioning", content=body, headers=said).status_code == 400
        assert (example.rows("SELECT * FROM users"), example.is_alive(second)) == (before, True)

        people.fire(jane.id)
        until(lambda: not example.is_alive(second))
        assert example.log_in(jane.email) is None
        scene.assert_equal()


@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_no_leavers_session_outlives_an_outage(scene: Scene) -> None:
    """Whether they left while the application was there, or while it was not."""
    with scene.running() as example:
        users = scene.hire(20)
        tokens = [until(lambda user=user: example.log_in(user.email)) for user in users]  # type: ignore[misc]
        scene.let_go(users[:8])
        until(lambda: example.sessions() == {*tokens[8:]})
    scene.let_go(users[8:18])
    assert scene.place.settled()
    time.sleep(3)  # of an outage
    with scene.running():
        until(lambda: example.sessions() == {*tokens[18:]})
        assert [example.is_alive(token) for token in tokens] == [False] * 18 + [True] * 2
        scene.assert_equal()


@pytest.mark.proof
@pytest.mark.alone
def test_a_leavers_session_dies_within_two_seconds(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 200, ten a second, those of 99 in a hundred; and of 100 who leave while the application is down for a minute, after its return."""
    with scene.running() as example:
        users = scene.hire(310)
        tokens = [until(lambda user=user: example.log_in(user.email)) for user in users]  # type: ignore[misc]
        scene.assert_equal()
        with watching(example) as died:
            began = scene.let_go(users[:200], pause=0.1)
            until(lambda: len(died) == 200)
        seconds = sorted(died[token] - start for token, start in zip(tokens, began, strict=False))
    down = time.monotonic()
    scene.let_go(users[200:300], pause=0.5)
    time.sleep(max(0, down + 60 - time.monotonic()))
    with watching(example) as died, scene.running():
        back = time.monotonic()
        until(lambda: len(died) == 100)
        after = max(died.values()) - back
        assert [example.is_alive(token) for token in tokens] == [False] * 300 + [True] * 10
        scene.assert_equal()
    p50, p99 = statistics.median(seconds), seconds[197]
    with capsys.disabled():
        sys.stdout.write(f"\n200 leavers: p50 {p50:.3f} s, p99 {p99:.3f} s, max {seconds[-1]:.3f} s; after an outage: {after:.3f} s\n")
    assert p99 < 2
    assert after < 2


@contextmanager
def watching(example: Example) -> Iterator[dict[str, float]]:
    """When each session that lives now died (monotonic), to within some milliseconds."""
    died: dict[str, float] = {}
    alive, ended = example.sessions(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            now_alive = example.sessions()
            died.update(dict.fromkeys(alive - died.keys() - now_alive, time.monotonic()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield died
    finally:
        ended.set()
        watcher.join()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The example's own code, in this process."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "app.py")
    assert spec
    assert spec.loader
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SERVICE_KEY": KEY, "HOOK_SECRET": SECRET, "DATABASE": str(tmp_path_factory.mktemp("app") / "app.db")}.items():
            patch.setenv(name, value)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def change(number: int, user: dict[str, Any] | None, user_id: str = "usr_1") -> dict[str, Any]:
    """A change as hook and feed tell it, at this place of the log."""
    return {"id": f"chg_{number:016}-{number * 7919 % 4096:06x}", "organization_id": "org_1", "user_id": user_id, "user": user}


STATES = [{"email": f"e{n}@x.com", "name": f"N{n}", "roles": [f"r{n}"], "active": n % 3 != 2} for n in range(12)]
# Of each message: the change it tells of, and as of which one it has the user, which may be a later one.
MESSAGES = st.lists(st.integers(0, 11).flatmap(lambda told: st.tuples(st.just(told), st.integers(told, 11))), min_size=1, max_size=40)


def told(message: tuple[int, int], erased: bool) -> dict[str, Any]:
    """What hook or feed say of it; `erased`: the last change is that nothing is known any more of the person."""
    number, as_of = message
    return change(8 * number, None if erased and as_of == 11 else STATES[as_of])


@given(MESSAGES, st.booleans())
def test_the_newest_change_wins_in_any_order(app: ModuleType, messages: list[tuple[int, int]], erased: bool) -> None:
    """Whichever changes of a person come, in whatever order and however often, each with the user as of then or later: it ends as the
    newest of them says, at no time has anybody a session who is not active, and nothing gives one back.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(app.TABLES)
        for message in messages:
            app.apply(database, told(message, erased))
            active, sessions = database.execute("SELECT active, (SELECT count(*) FROM sessions) FROM users").fetchone()
            assert active or not sessions
            if active:
                database.execute("REPLACE INTO sessions VALUES ('token', 'org_1', 'usr_1')")
        newest = next(each for each in messages if each[0] == max(messages)[0])
        expected = told(newest, erased)
        user = expected["user"] or {"email": None, "name": None, "roles": [], "active": False}
        row = ("org_1", "usr_1", user["email"], user["name"], json.dumps(user["roles"]), user["active"], expected["id"])
        assert database.execute("SELECT * FROM users").fetchall() == [row]
        # A repetition of all of it is nothing.
        before = database.total_changes
        for message in messages:
            app.apply(database, told(message, erased))
        assert database.total_changes == before


def test_hook_and_feed_may_be_at_the_same_person_at_once(app: ModuleType) -> None:
    """Eight that apply the same changes, each in an order of its own, end in the newest state of everybody."""
    with closing(sqlite3.connect(app.DATABASE)) as database:
        database.executescript(app.TABLES)
    changes = [change(number, STATES[number], f"usr_{who}") for number in range(12) for who in range(3)]

    def apply_all(seed: int) -> None:
        for each in Random(seed).sample(changes, len(changes)):  # noqa: S311 (a test's)
            with app.transaction() as database:
                app.apply(database, each)

    with ThreadPoolExecutor(8) as at_once:
        list(at_once.map(apply_all, range(8)))
    with app.transaction() as database:
        found = database.execute("SELECT id, email, active, change FROM users ORDER BY id").fetchall()
        assert found == [(f"usr_{who}", "e11@x.com", False, changes[-1]["id"]) for who in range(3)]


@pytest.mark.parametrize(
    "message", [{"hook_id": "hook_1"}, change(1, None) | {"user_id": None}, {"id": "chg_1", "user_id": "usr_1", "news": "of another kind"}]
)
def test_what_is_about_nobody_changes_nothing(app: ModuleType, message: dict[str, Any]) -> None:
    """A test of the hook, a group's change, and what a later release may tell."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(app.TABLES)
        before = database.total_changes
        app.apply(database, message)
        assert database.total_changes == before


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_whoever_was_away_too_long_begins_anew(
    app: ModuleType, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everybody as they are now: also where the service's log is another one, in which the places begin again."""

    def alive() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "app.db")) as here:
            return [user_id for (user_id,) in here.execute("SELECT user_id FROM sessions ORDER BY 1")]

    url = database.engine.url.render_as_string(hide_password=False)
    with listening(create_app(settings(url))) as service_url:
        for name, value in {"SERVICE_URL": service_url, "SERVICE_KEY": READ_KEY, "DATABASE": str(tmp_path / "app.db")}.items():
            monkeypatch.setattr(app, name, value)
        with closing(sqlite3.connect(app.DATABASE)) as here:
            here.executescript(app.TABLES)
        receive(database, *(event("user_created", f"u{each}", email=f"u{each}@x.com", organization_id=f"org_{each}") for each in range(4)))
        users = [user_of(database, f"u{each}", f"org_{each}") for each in range(4)]
        app.catch_up()
        with app.transaction() as here:
            here.execute("INSERT INTO users VALUES ('org_9', 'usr_unheard_of', 'a@x.com', 'A', '[]', 1, 'chg_1')")
            here.execute("INSERT INTO sessions SELECT id, organization_id, id FROM users")
            here.execute("UPDATE users SET change = 'chg_9'")  # a place that this log has not come to

        receive(database, *(event("user_deleted", f"u{each}", at=1, organization_id=f"org_{each}") for each in range(2)))
        with database.writing() as session:
            log.forget(session, datetime.now(UTC), at_most=100)
        app.catch_up()
        assert alive() == sorted(users[2:])
        receive(database, event("user_deleted", "u2", at=2, organization_id="org_2"))
        app.catch_up()
        assert alive() == users[3:]


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_what_a_hook_tells_while_everybody_is_listed_stays(
    app: ModuleType, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was let go after having been listed is not let in again by the list; nor is lost who came."""
    lists = app.listed

    def listed(service: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
        yield from lists(service, path)
        if path.endswith("/users"):
            receive(database, event("user_deleted", "u1", at=1), event("user_created", "u2", email="new@x.com"))
            for each in service.get("/v1/changes", params={"after": place}).json()["data"]:
                with app.transaction() as here:
                    app.apply(here, each)

    url = database.engine.url.render_as_string(hide_password=False)
    with listening(create_app(settings(url))) as service_url, httpx.Client(base_url=service_url) as service:
        service.headers["Authorization"] = f"Bearer {READ_KEY}"
        monkeypatch.setattr(app, "DATABASE", str(tmp_path / "app.db"))
        with closing(sqlite3.connect(app.DATABASE)) as here:
            here.executescript(app.TABLES)
        receive(database, event("user_created", "u1", email="leaver@x.com"))
        place = app.begin(service)
        monkeypatch.setattr(app, "listed", listed)
        assert app.begin(service) == place
    with app.transaction() as here:
        assert here.execute("SELECT id FROM users WHERE active").fetchall() == [(user_of(database, "u2"),)]


def test_an_address_that_two_organizations_have_needs_the_organization(
    app: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the address is enough; whoever cannot be let in gets the form again."""
    monkeypatch.setattr(app, "DATABASE", str(tmp_path / "app.db"))
    with closing(sqlite3.connect(app.DATABASE)) as here:
        here.executescript(app.TABLES)
    monkeypatch.setattr(app, "SERVICE_URL", f"http://127.0.0.1:{free_port()}")
    for number, (organization, email) in enumerate([("org_1", "both@x.com"), ("org_2", "both@x.com"), ("org_2", "one@x.com")]):
        with app.transaction() as here:
            app.apply(here, change(1, {**STATES[0], "email": email}, f"usr_{number}") | {"organization_id": organization})
    with listening(app.app) as url:
        example = Example(url, SECRET, tmp_path / "app.db")
        assert "org_2" in example.page(example.log_in("One@x.com"))
        assert [example.log_in(*given) for given in (("both@x.com",), ("one@x.com", "org_1"), ("",))] == [None] * 3
        assert "org_1" in example.page(example.log_in("both@x.com", "org_1"))
