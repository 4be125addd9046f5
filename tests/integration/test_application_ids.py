"""What the application calls a user: one id each, no two the same, shown and understood wherever a user is."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from test_convergence import Fact, facts

from factories import ORGANIZATION, event, receive, user_of
from faults import Gate, opened, until
from following import Copy, everything, original
from provisioning import application_ids, privacy
from provisioning.api.problems import MEDIA_TYPE
from provisioning.db import personal
from provisioning.db.reading.users import UserFilter, page_of_users, users_meant
from provisioning.db.session import Database
from provisioning.errors import Conflict
from provisioning.feed import Wanted
from provisioning.inbox import Inbox
from provisioning.merge import Key
from service import OPERATE_KEY, PORTAL_KEY, READ_KEY, bearer, running

USERS = "/v1/organizations/org_1/users"
JSON = {"Content-Type": "application/json"}
BY = "operator"
_numbers = count(1)


@pytest.fixture
def api(database_url: str) -> Iterator[TestClient]:
    """An operator of a service that knows two people, `a` and `b`."""
    with closing(Database(database_url)) as database:
        receive(database, event("user_created", "a", email="a@x.com"), event("user_created", "b", email="b@x.com"))
    with running(database_url) as client:
        client.headers.update(bearer(OPERATE_KEY))
        yield client


def user(api: TestClient, **wanted: str) -> dict[str, Any]:
    """The one user who is so."""
    (found,) = api.get(USERS, params=wanted).raise_for_status().json()["data"]
    assert isinstance(found, dict)
    return found


def own(api: TestClient, directory_user_id: str) -> str:
    """Where its user's application id is set."""
    return f"{USERS}/{user(api, directory_user_id=directory_user_id)['id']}/application-id"


def test_what_is_set_is_shown_wherever_the_user_is(api: TestClient) -> None:
    """In the user, in lists, in its access and in the feed; it is found by it, and the change says by whom."""
    before = user(api, directory_user_id="a")
    assert before["application_id"] is None
    for wanted in ("42", "Ö wie Öl", "r" * 255, "é" * 127):
        answer = api.put(own(api, "a"), json={"application_id": wanted})
        assert (answer.status_code, answer.json()) == (200, {"application_id": wanted})
        found = user(api, application_id=wanted)
        assert found == {**before, "application_id": wanted, "updated_at": found["updated_at"]}
        assert found["updated_at"] > before["updated_at"]
        assert api.get(f"{USERS}/{found['id']}").json() == user(api, email="A@X.com") == found
        assert api.get(f"{USERS}/{found['id']}/access").json()["application_id"] == wanted
    change = api.get("/v1/changes").json()["data"][-1]
    assert (change["type"], change["before"], change["after"]) == (
        "user.updated",
        {"application_id": "r" * 255},
        {"application_id": "é" * 127},
    )
    assert (change["cause"], change["occurred_at"]) == ({"kind": "operator", "id": "operator"}, None)
    assert change["user"]["application_id"] == "é" * 127
    assert api.get(USERS, params={"application_id": "42"}).json()["data"] == []


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_null_takes_it_away_and_the_same_again_changes_nothing(api: TestClient) -> None:
    """No change, no time moved, no word in the log; which has no more than who it was about."""
    path = own(api, "a")
    for wanted, changes in (("42", 1), ("42", 0), (None, 1), (None, 0)):
        before, after = user(api, directory_user_id="a"), api.get("/v1/changes?after=latest").json()["next_cursor"]
        with capture_logs() as entries:
            assert api.put(path, json={"application_id": wanted}).json() == {"application_id": wanted}
        said = [entry for entry in entries if entry["event"] != "request"]
        assert len(said) == len(api.get("/v1/changes", params={"after": after}).json()["data"]) == changes
        assert (user(api, directory_user_id="a") == before) == (not changes)
        assert user(api, directory_user_id="a")["application_id"] == wanted
        if said:
            user_id = before["id"]
            line = {"log_level": "info", "event": "application_id_set", "organization_id": "org_1", "user_id": user_id}
            assert said == [{**line, "caller": "operator"}]


def test_an_id_is_one_users(api: TestClient, database_url: str) -> None:
    """409 that names who has it, until it is free; another organization's users are called as they like."""
    first, second = own(api, "a"), own(api, "b")
    api.put(first, json={"application_id": "42"}).raise_for_status()
    answer = api.put(second, json={"application_id": "42"})
    assert (answer.status_code, answer.headers["content-type"]) == (409, MEDIA_TYPE)
    assert answer.json()["type"] == "urn:provisioning:problem:conflict"
    assert first.split("/")[-2] in answer.json()["detail"]
    assert user(api, directory_user_id="b")["application_id"] is None
    with closing(Database(database_url)) as database:
        receive(database, event("user_created", "a", organization_id="org_2"))
        application_ids.call(database, Key("org_2", user_of(database, "a", "org_2")), "42", BY)
    api.put(first, json={"application_id": "43"}).raise_for_status()
    api.put(second, json={"application_id": "42"}).raise_for_status()
    assert [user(api, application_id=each)["email"] for each in ("42", "43")] == ["b@x.com", "a@x.com"]


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_what_is_no_id_is_refused_unquoted(api: TestClient) -> None:
    """422 with a word that says why; nothing is changed."""
    path = own(api, "a")
    api.put(path, json={"application_id": "42"}).raise_for_status()
    bad = ['""', '" "', '" secret"', '"secret\\n"', '"sec\\u0000ret"', '"sec\\u2028ret"', '"sec\\ud800ret"', "1", "true", '["secret"]']
    bad += [f'"{"secret" * 43}"', f'"{"é" * 128}"']
    bodies = [f'{{"application_id": {each}}}' for each in bad]
    for body in (*bodies, "{}", '"secret"', '{"application_id": null, "secret": 1}', "{secret", "", "null"):
        answer = api.put(path, content=body, headers=JSON)
        assert (answer.status_code, answer.headers["content-type"]) == (422, MEDIA_TYPE), body
        assert "secret" not in answer.text
    assert api.put(path, content=b"[" * (2**20 + 1), headers=JSON).status_code == 413
    assert user(api, directory_user_id="a")["application_id"] == "42"


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_who_is_not_here_is_not_found_and_who_may_not_is_told_first(api: TestClient) -> None:
    """A user of another organization is not here; a body is not read for who may only read."""
    path = own(api, "a")
    for elsewhere in (path.replace("org_1", "org_2"), f"{USERS}/nobody/application-id"):
        assert api.put(elsewhere, json={"application_id": "42"}).status_code == 404
    statuses = [api.put(path, content=b"{", headers=bearer(key) | JSON).status_code for key in (READ_KEY, PORTAL_KEY, OPERATE_KEY)]
    assert statuses == [403, 403, 422]


def test_operators_mean_a_user_by_it(database: Database) -> None:
    """After our id, a directory user's and an e-mail: what is somebody's address is nobody else's name."""
    receive(database, event("user_created", "a", email="a@x.com"), event("user_created", "b", email="b@x.com"))
    first, second = user_of(database, "a"), user_of(database, "b")
    application_ids.call(database, Key(ORGANIZATION, first), "42", BY)
    application_ids.call(database, Key(ORGANIZATION, second), "a@x.com", BY)
    with database.reading() as session:
        meant = {each: [found.id for found in users_meant(session, ORGANIZATION, each, limit=9)] for each in ("42", "a@x.com", "4")}
    assert meant == {"42": [first], "a@x.com": [first], "4": []}


def test_who_is_erased_leaves_the_id_to_others(database: Database) -> None:
    """Nothing of it stays."""
    receive(database, event("user_created", "a"), event("user_created", "b"))
    application_ids.call(database, Key(ORGANIZATION, user_of(database, "a")), "42", BY)
    with database.reading() as session:
        (whom,) = personal.find(session, "a", None)
    assert privacy.erase(database, whom, BY).removed["application_ids"] == 1
    application_ids.call(database, Key(ORGANIZATION, user_of(database, "b")), "42", BY)


def test_of_two_who_are_to_get_one_id_at_once_one_does(database: Database) -> None:
    """Whoever comes second is told who has it."""
    people = [f"u{number}" for number in range(4)]
    receive(database, *(event("user_created", each) for each in people))
    keys = [Key(ORGANIZATION, user_of(database, each)) for each in people]
    begin = Barrier(len(keys))

    def call(user: Key, application_id: str) -> str | None:
        begin.wait(20)
        try:
            application_ids.call(database, user, application_id, BY)
        except Conflict as refused:
            return str(refused)
        return None

    with ThreadPoolExecutor(len(keys)) as threads:
        for round_ in range(5):
            told = list(threads.map(call, keys, [f"id_{round_}"] * len(keys)))
            with database.reading() as session:
                (winner,) = page_of_users(session, ORGANIZATION, UserFilter(application_id=f"id_{round_}"), after="", limit=9)
            assert [refused is None for refused in told] == [user.id == winner.id for user in keys]
            assert all(winner.id in refused for refused in told if refused)


def test_whoever_comes_second_waits_for_the_first(postgres_url: str) -> None:
    """Also where the first is about to commit: it is a 409, and no failure."""
    with opened(postgres_url) as database:
        receive(database, event("user_created", "a"), event("user_created", "b"))
        first, second = (Key(ORGANIZATION, user_of(database, each)) for each in "ab")
        with Gate.before_commits(postgres_url, "application_ids") as gate, ThreadPoolExecutor(2) as threads:
            one = threads.submit(application_ids.call, database, first, "42", BY)
            until(lambda: gate.waiting() == 1)
            other = threads.submit(application_ids.call, database, second, "42", BY)
            until(lambda: gate.waiting() == 2)
            gate.open()
            one.result(20)
            with pytest.raises(Conflict, match=first.id):
                other.result(20)


Called = tuple[int, str | None]
_calls = st.tuples(st.integers(0, 3), st.sampled_from(["1", "2", None]))
_histories = st.lists(st.one_of(st.lists(facts(shared=True), min_size=1, max_size=4), _calls), min_size=4, max_size=12)


@settings(max_examples=settings().max_examples // 5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=_histories)
def test_a_copy_made_of_the_feed_has_the_same_ids(database: Database, history: list[list[Fact] | Called]) -> None:
    """Whatever the directories say, whoever is given an id keeps it until it is taken away; followers end where the service is."""
    organization_id = f"org_{next(_numbers)}"
    due: dict[str, str] = {}
    for step in history:
        if isinstance(step, list):
            Inbox(database).receive([fact.delivery(organization_id) for fact in step])
            continue
        number, application_id = step
        present = sorted(key.id for key in original(database, organization_id).users)
        if present:
            user_id = present[number % len(present)]
            try:
                application_ids.call(database, Key(organization_id, user_id), application_id, BY)
            except Conflict:
                assert application_id in {called for other, called in due.items() if other != user_id}
            else:
                due = {other: called for other, called in due.items() if other != user_id}
                due |= {user_id: application_id} if application_id else {}
    copy, ours = Copy().follow(everything(database, wanted=Wanted(organization_id), limit=200)), original(database, organization_id)
    assert copy.users == ours.users
    assert {key.id: user["application_id"] for key, user in ours.users.items() if user["application_id"]} == due
