"""Hooks are told every change, everybody's in order, whoever lost access first, and again while they do not take it."""

import socket
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Event, Lock

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from application import Told, add, added, application, telling, telling_by
from factories import ORGANIZATION, event, named, one_by_one, receive, roles, user_of
from following import everything
from operators import free_port, until
from provisioning import privacy
from provisioning.api.changes import change_id, place_of, told
from provisioning.bodies import Json
from provisioning.changes import ChangeType
from provisioning.db import changes as log
from provisioning.db import hooks, lanes, personal
from provisioning.db.hooks import Hook
from provisioning.db.models import changes, hook_lanes
from provisioning.db.reading.changes import StoredChange
from provisioning.db.reading.users import Summary
from provisioning.db.session import Database
from provisioning.errors import Conflict, NotFound
from provisioning.hooks import subscriptions
from provisioning.merge import Key
from stalling_proxy import StallingProxy

NOW = datetime.now(UTC)
# Where the database is the same to the law, the other one is asked among the proofs.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql", pytest.param("sqlite", marks=pytest.mark.proof)], indirect=True)


def changed(database: Database, type_: str | None = None) -> list[str]:
    """The ids of all changes, or of those of this type, as the feed says them."""
    return [change_id(each.place) for each in everything(database) if type_ in {None, each.type}]


def the_hook(database: Database) -> Hook:
    """The only one, as it stands."""
    with database.reading() as session:
        (hook,) = hooks.all_hooks(session)
        return hook


def people(number: int, **data: object) -> list[bytes]:
    """So many newcomers."""
    return [event("user_created", f"u{each}", email=f"u{each}@x.com", **data) for each in range(number)]  # type: ignore[arg-type]


def in_order(told: list[Told]) -> dict[str, list[str]]:
    """The messages that were taken, each once, about each user, group and directory in their order."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for each in told:
        found[each.about].setdefault(each.id)
    return {about: list(ids) for about, ids in found.items()}


def test_what_the_feed_says_hooks_are_told(database: Database) -> None:
    """Every change once, signed, under its own id: of users, groups and directories. With it goes the user as it is now."""
    with application() as app:
        add(database, app)
        with telling(database):
            receive(database, event("user_created", "u1", email="a@x.com", groups=named("g1", "g2"), roles=roles("admin")))
            receive(database, event("user_created", "u2", email="b@x.com"), event("directory_enabled", "d"))
            one_by_one(database, [event("user_deleted", "u1", at=5), event("group_deleted", "g1", at=6)])
            app.wait(lambda: {*app.ids()} == {*changed(database)})
    assert Counter(app.ids()) == Counter(changed(database))
    left = next(each.change for each in app.told if each.change["type"] == "user.deactivated")
    assert left["after"] == {"active": False}
    assert (left["user"]["email"], left["user"]["active"], left["user"]["roles"]) == ("a@x.com", False, [])


def test_a_hook_is_told_what_it_asks_for_from_when_it_asks(database: Database) -> None:
    """Nothing of before, of other types, of another organization; and what it leaves out keeps nothing waiting."""
    receive(database, event("user_created", "before"))
    with application() as app, telling(database):
        hook = add(database, app, ChangeType.USER_DEACTIVATED, organization_id=ORGANIZATION, from_start=False)
        receive(database, event("user_created", "u"), event("user_created", "other", organization_id="org_2"))
        receive(database, event("user_deleted", "u", at=1), event("user_deleted", "other", at=1, organization_id="org_2"))
        receive(database, event("user_deleted", "before", at=1))
        app.wait(lambda: len(app.told) == 2)
    wanted = {change_id(each.place) for each in everything(database) if each.type == "user.deactivated" and each.organization_id == "org_1"}
    assert {*app.ids()} == wanted
    with database.reading() as session:
        assert lanes.waiting(session) == {}
        assert hooks.all_hooks(session)[0].id == hook.id


@ON_POSTGRESQL
def test_everybodys_changes_come_in_order_whatever_fails(database: Database) -> None:
    """With three processes that share the telling and an application that refuses some of it: all of it in the end, one message of a
    person at a time, and nobody's out of order."""
    random, lock = Random(7), Lock()  # noqa: S311 (a test's)

    def moody(_: object) -> int:
        with lock:
            return random.choice([500, 503, 404, 302]) if random.random() < 0.1 else random.choice([204, 200, 201])

    with application(answers=moody, slow=0.005) as app, ExitStack() as tellers:
        add(database, app)
        for _ in range(3):
            tellers.enter_context(telling(database))
        for at in range(5):
            in_groups = [named(*random.sample(["g1", "g2", "g3"], random.randrange(3))) for _ in range(12)]
            receive(
                database,
                *(event("user_updated", f"u{n}", at=at, active=random.random() < 0.8, groups=each) for n, each in enumerate(in_groups)),
            )
        app.wait(lambda: {*app.ids()} == {*changed(database)})
    assert app.refused
    assert app.at_once > app.at_once_of_one == 1
    assert len(app.told) == len({*app.ids()})  # and nothing twice, where nobody dies
    assert all(ids == sorted(ids) for ids in in_order(app.told).values())


@ON_SQLITE
def test_who_lost_access_goes_first(database: Database) -> None:
    """A first sync of hundreds keeps no leaver's message waiting, nor what was to be told of the leaver before."""
    receive(database, event("user_created", "leaver", email="l@x.com", roles=roles("admin")))
    leaver = user_of(database, "leaver")
    with application(slow=0.05) as app:
        add(database, app)
        receive(database, *people(150))
        with telling(database) as hooks_:
            app.wait(lambda: len(app.told) > 20)
            receive(database, event("user_deleted", "leaver", at=1))
            hooks_.wake()
            app.wait(lambda: any(each.change["type"] == "user.deactivated" for each in app.told))
            assert len(app.told) < 150  # of the others' messages some are still to come
    about = [each.change["type"] for each in app.told if each.user_id == leaver]
    assert about == ["user.created", "role.granted", "role.revoked", "user.deactivated"]


@ON_POSTGRESQL
def test_a_slow_target_slows_no_other(database: Database) -> None:
    with application(slow=8) as slow, application() as quick:
        for app in (slow, quick):
            add(database, app)
        receive(database, *people(40))
        with telling(database):
            began = time.monotonic()
            quick.wait(lambda: len(quick.told) == 40)
            assert time.monotonic() - began < 8
        assert len(slow.told) < 40


@ON_SQLITE
def test_a_name_that_is_looked_up_for_long_slows_no_other(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it keep whoever tells from ending."""
    looked_up, ended = [], Event()

    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        looked_up.append(host)
        ended.wait(60)
        return []

    with application() as quick:
        added(database, "https://slow.example/hook")
        add(database, quick)
        receive(database, *people(20))
        try:
            with monkeypatch.context() as patched, telling(database):
                patched.setattr(socket, "getaddrinfo", getaddrinfo)
                quick.wait(lambda: len(quick.told) == 20, within=8)
                began = time.monotonic()
            assert time.monotonic() - began < 8
        finally:
            ended.set()
    assert looked_up == ["slow.example"]  # one look-up, for whoever waits


@pytest.mark.proof
def test_many_who_are_refused_keep_no_leaver_waiting(database: Database) -> None:
    """Nor are they forgotten: each is tried again beside the others."""
    victims: set[str] = set()
    tries: Counter[str] = Counter()

    def picky(change: dict[str, object]) -> int:
        if change["user_id"] in victims:
            tries[str(change["user_id"])] += 1
        return 404 if change["user_id"] in victims else 204

    receive(database, *people(40), event("user_created", "leaver"))
    victims |= {user_of(database, f"u{number}") for number in range(40)}
    with application(answers=picky) as app, telling(database) as hooks_:
        add(database, app, from_start=False)
        receive(database, *(event("user_deleted", f"u{number}", at=1) for number in range(40)))
        hooks_.wake()
        app.wait(lambda: len(tries) == 40)
        began = time.monotonic()
        receive(database, event("user_deleted", "leaver", at=1))
        hooks_.wake()
        app.wait(lambda: bool(app.told))
        assert time.monotonic() - began < 5
        app.wait(lambda: tries.total() > 45)
        victims.clear()
        app.wait(lambda: {*app.ids("user.deactivated")} == {*changed(database, "user.deactivated")})


@ON_SQLITE
def test_what_cannot_be_said_keeps_back_its_own_lane_alone(database: Database) -> None:
    """As a change of a newer release's type."""

    def describe(change: StoredChange, users: Mapping[Key, Summary]) -> Mapping[str, Json]:
        if change.user_id == odd:
            raise ValueError("ada@x.com")
        return told(change, users)

    receive(database, event("user_created", "odd"), event("user_created", "even"))
    odd = user_of(database, "odd")
    with capture_logs() as said, application() as app, telling(database, describe):
        add(database, app)
        app.wait(lambda: bool(app.told))
        until(lambda: [each for each in said if each["event"] == "message_failed"])
    assert {each.user_id for each in app.told} == {user_of(database, "even")}
    assert "ada@" not in str(said)


def test_an_end_while_the_database_is_away_is_quiet(postgres_url: str) -> None:
    """What came of messages is kept for as long as may be, and nothing spins."""
    with (
        StallingProxy(postgres_url) as proxy,
        capture_logs() as said,
        application(slow=2) as app,
        closing(Database(postgres_url)) as database,
        telling_by(proxy.url),
    ):
        add(database, app)
        receive(database, event("user_created", "u"))
        until(lambda: app.at_once)
        proxy.cut()
    assert len([each for each in said if each["event"] == "database_unavailable"]) < 20


@ON_POSTGRESQL
def test_what_was_away_is_told_soon_after_its_return(database: Database) -> None:
    """Nothing is lost, little is asked of it meanwhile, and the hook says why it fails."""
    port = free_port()
    with telling(database) as hooks_:
        hook = added(database, f"http://127.0.0.1:{port}/hook")
        with capture_logs() as said:
            receive(database, *people(30))
            until(lambda: len(said) > 1)
            time.sleep(1)  # of an outage
            tries = sum(each["event"] == "message_not_told" for each in said)
        assert tries <= 20
        assert the_hook(database).error == "cannot be reached"
        hooks_.wake()
        with application(port, secrets=[hook.secrets[0].text]) as app:
            began = time.monotonic()
            app.wait(lambda: len(app.told) == 30)
            assert time.monotonic() - began < 5
        assert app.at_once_of_one == 1
    assert the_hook(database).failing_since is None


@ON_SQLITE
def test_one_message_that_is_refused_keeps_back_its_own_person_alone(database: Database) -> None:
    """It is tried again and again; a day later it is given up, and what follows is told. A retry tells from there on again, in order."""
    bad = True

    def picky(change: dict[str, object]) -> int:
        return 500 if bad and change["type"] == "user.created" and change["user_id"] == victim else 204

    receive(database, event("user_created", "u", email="u@x.com", groups=named("g")))
    victim = user_of(database, "u")
    with application(answers=picky) as app, telling(database):
        hook = add(database, app)
        app.wait(lambda: bool(app.refused))
        receive(database, *people(20))
        app.wait(lambda: len({each.user_id for each in app.told} - {None}) == 20)
        assert victim not in in_order(app.told)
        for _ in range(6):  # again, where a message was under way, whose end says since when it fails
            with database.writing() as session:  # a day goes by
                session.execute(update(hook_lanes).values(failing_since=NOW - timedelta(days=2), due_at=NOW))
                session.execute(update(changes).values(recorded_at=NOW - timedelta(days=2)))
            with suppress(AssertionError):
                app.wait(lambda: victim in in_order(app.told), within=5)
                break
        with database.reading() as session:
            (dead,) = lanes.dead_letters(session, hook.id, limit=9)
            assert lanes.given_up(session) == {hook.id: 1}
        assert (dead.type, dead.subject_id, dead.error) == ("user.created", victim, "HTTP 500")
        assert [each.change["type"] for each in app.told if each.user_id == victim] == ["membership.added"]
        bad, before = False, len(app.told)
        assert subscriptions.retry(database, hook.id, None, "tests") == 1
        app.wait(lambda: len(app.told) == before + 2)
        assert [each.change["type"] for each in app.told[before:]] == ["user.created", "membership.added"]
        assert place_of(app.told[before].id).position == dead.position
    with database.reading() as session:
        assert lanes.waiting(session) == lanes.given_up(session) == {}


@ON_POSTGRESQL
def test_an_end_in_the_middle_loses_nothing(database: Database) -> None:
    """What is not answered when the telling ends is told by whoever is next, at once."""
    with application(slow=0.1) as app:
        add(database, app)
        receive(database, *people(40))
        for _ in range(3):
            with telling(database):
                seen = len(app.told)
                app.wait(lambda seen=seen: len(app.told) > seen)  # type: ignore[misc]
        app.slow = 0
        with telling(database):
            app.wait(lambda: {*app.ids()} == {*changed(database)}, within=10)


@ON_SQLITE
def test_both_secrets_sign_while_one_is_rotated(database: Database) -> None:
    with application() as app, telling(database):
        hook = add(database, app)
        old = app.secrets[0]
        new = subscriptions.rotate(database, hook.id, secret=None, keep=timedelta(hours=1), by="tests").text
        app.secrets = [old, new]  # it wants both
        receive(database, event("user_created", "u"))
        app.wait(lambda: len(app.told) == 1)
        subscriptions.rotate(database, hook.id, secret=new, keep=timedelta(0), by="tests")
    assert the_hook(database).signs_with(datetime.now(UTC)) == [new]


def test_of_who_is_erased_only_that_is_told(database: Database) -> None:
    """And that access is lost: what they were called is in no message any more."""
    receive(database, event("user_created", "u", email="zoe@x.com", name="Zoe", groups=named("g")))
    user_id = user_of(database, "u")
    with database.reading() as session:
        (person,) = personal.find(session, "u", None)
    with application() as app:
        add(database, app)
        privacy.erase(database, person, "tests")
        with telling(database):
            app.wait(lambda: any(each.change["type"] == "user.erased" for each in app.told))
    assert [each.change["type"] for each in app.told if each.user_id == user_id] == ["user.deactivated", "user.erased"]
    assert "zoe" not in str(app.told).lower()  # which no hexadecimal id can hold


@ON_SQLITE
def test_what_the_log_does_not_go_back_to_is_not_promised(database: Database) -> None:
    """A hook from the start of a log whose start is forgotten is refused: half would look like all."""
    receive(database, event("user_created", "u"))
    with database.writing() as session:
        log.forget(session, datetime.now(UTC), at_most=10)
    with pytest.raises(Conflict, match="--from-start"):
        added(database, "http://127.0.0.1:1/hook")
    added(database, "http://127.0.0.1:1/hook", from_start=False)


@ON_POSTGRESQL
def test_a_hook_that_is_removed_leaves_nothing(database: Database) -> None:
    """Also while it is being told."""
    with application(slow=0.05) as app, telling(database):
        hook = add(database, app)
        receive(database, *people(50))
        app.wait(lambda: len(app.told) > 4)
        subscriptions.remove(database, hook.id, "tests")
        with pytest.raises(NotFound):
            subscriptions.remove(database, hook.id, "tests")
    with database.reading() as session:
        assert lanes.waiting(session) == {}


@ON_SQLITE
def test_logs_say_ids_alone(database: Database) -> None:
    """No address, name, secret, body or URL."""
    with capture_logs() as said, application(answers=lambda _: 500) as app, telling(database):
        hook = add(database, app)
        subscriptions.rotate(database, hook.id, secret=None, keep=timedelta(hours=1), by="tests")
        receive(database, event("user_created", "u", email="ada@x.com", name="Lovelace"))
        app.wait(lambda: bool(app.refused))
        app.answers = lambda _: 204
        app.wait(lambda: bool(app.told))
    text = str(said).lower()
    assert {"message_told", "message_not_told"} <= {each["event"] for each in said}
    assert not [word for word in ("ada@", "lovelace", "whsec", app.secrets[0].lower(), "127.0.0.1") if word in text]
