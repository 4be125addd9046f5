"""Reconciling over HTTP: a run is asked for, followed, approved and cancelled by its organization's id and its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, text, update

from operators import until
from provisioning.api.problems import MEDIA_TYPE
from provisioning.api.reconciliations import Reconciliation, shown
from provisioning.db.models import reconcile_runs
from provisioning.db.runs import Run, State, claim
from provisioning.db.session import Database
from provisioning.drift import CHANGES
from provisioning.errors import Conflict
from reconciling import Reconciling, connected, reaching
from rows import NOW, put
from service import OPERATE_KEY, PORTAL_KEY, READ_KEY, bearer, running

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

# What HTTP makes of a run, and the application's own worker; how runs are decided about in SQL is tested on both.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)

NOTHING = dict.fromkeys(CHANGES, 0)
NO_PROPOSAL = {"users": [], "groups": [], "memberships_removed": 0, "roles_revoked": 0}
JSON = {"Content-Type": "application/json"}
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")


@pytest.fixture
def api(reconciling: Reconciling, database_url: str) -> Iterator[TestClient]:
    """An operator of the same service with credentials, which works on no runs: that is for the test to do."""
    with running(database_url, **reaching(reconciling.emulator)) as client:
        assert isinstance(client.app, FastAPI)
        client.app.state.services.worker.stop(5)
        client.headers.update(bearer(OPERATE_KEY))
        yield client


def path(organization: Reconciling | str, run: Run | dict[str, Any] | None = None, action: str = "") -> str:
    """Where the organization's runs are, or one of them, or what can be done with it."""
    organization_id = organization if isinstance(organization, str) else organization.organization_id
    run_id = run["id"] if isinstance(run, dict) else run.id if run else ""
    return "/".join(filter(None, [f"/v1/organizations/{organization_id}/reconciliations", run_id, action]))


def runs_of(api: TestClient, organization: Reconciling | str) -> list[dict[str, Any]]:
    """The organization's runs, in one page."""
    page = api.get(path(organization)).raise_for_status().json()
    assert page["next_cursor"] is None
    found: list[dict[str, Any]] = page["data"]
    return found


def same_run(run: dict[str, Any]) -> dict[str, Any]:
    """The run as a list shows it."""
    return {name: value for name, value in run.items() if name != "drift"}


# Starting one


def test_a_run_that_waits_shows_everything_and_nothing_yet(reconciling: Reconciling, api: TestClient) -> None:
    """contract.md's shape, with all changes as zeros; the same wherever it is shown, and what it found only where it is asked for."""
    answer = api.post(path(reconciling))
    assert answer.status_code == 202
    run = answer.json()
    assert run == {
        "id": run["id"],
        "organization_id": reconciling.organization_id,
        "state": "queued",
        "dry_run": False,
        "requested_by": "operator",
        "started_at": None,
        "finished_at": None,
        "listed": {"users": 0, "groups": 0},
        "expected_users": None,
        "changes": NOTHING,
        "drifted": 0,
        "proposed": NO_PROPOSAL,
        "held_back": [],
        "approved_by": None,
        "error": None,
    }
    assert runs_of(api, reconciling) == [run]
    assert api.get(path(reconciling, run)).json() == {**run, "drift": []}


def test_the_body_says_whether_it_only_looks(reconciling: Reconciling, api: TestClient) -> None:
    """Without one it does not only look."""
    bodies = {b"": False, b"null": False, b"{}": False, b'{"dry_run": false}': False, b'{"dry_run": true}': True}
    for body, dry_run in bodies.items():
        answer = api.post(path(reconciling), content=body, headers=JSON)
        assert (answer.status_code, answer.json()["dry_run"]) == (202, dry_run)
        api.post(path(reconciling, answer.json(), "cancel")).raise_for_status()
    assert api.post(path(reconciling)).json()["dry_run"] is False  # no body, and no word of what it is


@ON_SQLITE
def test_a_body_that_says_something_else_starts_nothing(reconciling: Reconciling, api: TestClient) -> None:
    """Whoever misspells `dry_run` gets no run that changes something."""
    members = ['"dry_run": "true"', '"dry_run": 1', '"dry_run": null', '"dry-run": true', '"dry_run": true, "all": true']
    bodies = [*(f"{{{each}}}".encode() for each in members), b'["dry_run"]', b'"dry_run"', b"true", b"{"]
    answers = [api.post(path(reconciling), content=body, headers=JSON) for body in bodies]
    answers += [api.post(path(reconciling), data={"dry_run": "true"}), api.post(f"{path(reconciling)}?dry_run=true")]
    assert [answer.status_code for answer in answers] == [422] * len(answers)
    answers += [api.post(path(reconciling), content=body, headers=JSON) for body in (b"\xff", b"[" * (2**20 + 1))]
    assert [answer.status_code for answer in answers[-2:]] == [400, 413]
    assert {answer.headers["content-type"] for answer in answers} == {MEDIA_TYPE}
    assert runs_of(api, reconciling) == []


@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_run_of_the_same_kind_is_joined_and_of_the_other_in_the_way(
    reconciling: Reconciling, api: TestClient, dry_run: bool, under_way: bool
) -> None:
    """Whether it waits or runs. The joined one is still who asked first; the problem names the one that is in the way."""
    run, _ = reconciling.reconciler.request(reconciling.organization_id, dry_run=dry_run, requested_by="first")
    if under_way:
        assert reconciling.reconciler.claim([run.id])

    joined = api.post(path(reconciling), json={"dry_run": dry_run})
    assert (joined.status_code, joined.json()["id"], joined.json()["requested_by"]) == (202, run.id, "first")
    assert joined.json()["state"] == ("running" if under_way else "queued")

    refused = api.post(path(reconciling), json={"dry_run": not dry_run})
    assert (refused.status_code, refused.headers["content-type"]) == (409, MEDIA_TYPE)
    assert run.id in refused.json()["detail"]
    assert len(runs_of(api, reconciling)) == 1


def test_many_who_ask_at_once_get_one_run(reconciling: Reconciling, api: TestClient) -> None:
    """And each of them an answer."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post(path(reconciling)), range(24)))
    assert [answer.status_code for answer in answers] == [202] * 24
    assert {answer.json()["id"] for answer in answers} == {run["id"] for run in runs_of(api, reconciling)}
    assert len(runs_of(api, reconciling)) == 1


# Following one


def ended(client: TestClient, organization: Reconciling, run: dict[str, Any]) -> dict[str, Any]:
    """The run at its end, asked for again and again."""

    def now() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(path(organization, run)).raise_for_status().json()
        return found if State(found["state"]).ended else None

    return until(now)


@ON_SQLITE
def test_a_run_can_be_followed_to_its_end(reconciling: Reconciling, database_url: str) -> None:
    """By the application's own worker: a dry run changes nothing, and the run after it what the dry one said."""
    sales = reconciling.group("Sales")
    reconciling.hire(6, "Sales")
    reconciling.emulator.structure.map_role(sales.id, "seller")
    missing = {("missing_here", "directory"): 1, ("missing_here", "group"): 1, ("missing_here", "user"): 6}
    changes = {**NOTHING, "users_created": 6, "groups_created": 1, "memberships_added": 6, "roles_granted": 6}
    with running(database_url, **reaching(reconciling.emulator)) as client:
        client.headers.update(bearer(OPERATE_KEY))
        for dry_run, users in ((True, 0), (False, 6)):
            run = ended(client, reconciling, client.post(path(reconciling), json={"dry_run": dry_run}).json())
            assert (run["state"], run["error"], run["dry_run"], run["changes"]) == ("done", None, dry_run, changes)
            assert (run["listed"], run["expected_users"]) == ({"users": 6, "groups": 1}, 6)
            assert run["drifted"] == len(run["drift"])
            assert Counter((found["what"], found["type"]) for found in run["drift"]) == missing
            assert all(TIME.fullmatch(run[name]) for name in ("started_at", "finished_at"))
            assert run["started_at"] <= run["finished_at"]
            assert len(reconciling.users()) == users
            assert runs_of(client, reconciling)[0] == same_run(run)
        again = ended(client, reconciling, client.post(path(reconciling)).json())
        assert (again["changes"], again["drift"], again["drifted"]) == (NOTHING, [], 0)


def test_what_differed_is_shown_field_by_field(reconciling: Reconciling, api: TestClient) -> None:
    """Before and after, in the one run that is asked for."""
    [person] = reconciling.hire(1)
    reconciling.run()
    reconciling.emulator.people.rename(person.id, given_name="Nelly")
    run = reconciling.run()
    found = api.get(path(reconciling, run)).json()
    [drift] = found["drift"]
    assert (drift["what"], drift["type"], drift["id"], drift["reason"]) == ("changed", "user", person.id, None)
    assert drift["fields"]["given_name"] == {"before": "Nova", "after": "Nelly"}
    assert found["changes"] == {**NOTHING, "users_updated": 1}


@given(ages=st.lists(st.integers(0, 50), max_size=9, unique=True), limit=st.integers(1, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_pages_go_from_the_newest_to_the_oldest(client: TestClient, database: Database, ages: list[int], limit: int) -> None:
    """Each once, though newer ones are asked for meanwhile; and no other organization's."""
    with database.writing() as session:
        session.execute(delete(reconcile_runs))
    put(database, reconcile_runs, *(a_run(f"run_{100 - age:012x}") for age in ages))
    found: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = client.get(path("org_1"), params={"limit": limit, **after}).raise_for_status().json()
        found += [run["id"] for run in page["data"]]
        if page["next_cursor"] is None:
            break
        put(database, reconcile_runs, a_run(f"run_{100 + len(found):012x}"), {**a_run("run_1"), "organization_id": f"org_2{len(found)}"})
        after = {"cursor": page["next_cursor"]}
    assert found == [f"run_{100 - age:012x}" for age in sorted(ages)]


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """An operator of a service without Scalekit's credentials."""
    with running(database_url) as client:
        client.headers.update(bearer(OPERATE_KEY))
        yield client


def a_run(run_id: str) -> dict[str, Any]:
    """A row that says no more than it has to."""
    numbers = dict.fromkeys(("listed_users", "listed_groups", "drifted"), 0)
    lists: dict[str, Any] = {"drift": [], "held_back": [], "changes": {}, "removed": {}}
    flags = dict.fromkeys(("dry_run", "saw_active", "saw_totals"), False)
    return {"id": run_id, "state": "done", "requested_by": "x", "requested_at": NOW, "due_at": NOW, **numbers, **lists, **flags}


# Deciding


def test_a_proposal_names_what_its_approval_removes(reconciling: Reconciling, api: TestClient) -> None:
    """Of each kind: users by our own ids, groups by Scalekit's; who approved is on the run, which then removes them."""
    groups = [reconciling.group(f"Group {number}") for number in range(8)]
    sales = reconciling.group("Sales")
    reconciling.group("Staff")
    people, sellers = reconciling.hire(8), reconciling.hire(10, "Sales", "Staff")
    reconciling.emulator.structure.map_role(sales.id, "seller")
    reconciling.run()
    ids = {user["directory_users"][0]["id"]: user["id"] for user in reconciling.users()}
    reconciling.purge(*people)
    for group in groups:
        reconciling.emulator.structure.delete_group(group.id)
    for seller in sellers:
        reconciling.emulator.people.regroup(seller.id, remove=["Sales", "Staff"])

    run = reconciling.run()
    proposing = api.get(path(reconciling, run)).json()
    assert (proposing["state"], proposing["error"], proposing["changes"]) == ("needs_approval", None, NOTHING)
    assert proposing["proposed"] == {
        "users": sorted(ids[person.id] for person in people),
        "groups": sorted(group.id for group in groups),
        "memberships_removed": 20,
        "roles_revoked": 10,
    }
    assert len(proposing["held_back"]) == 4
    assert {found["reason"] for found in proposing["drift"]} == {"held back"}

    answer = api.post(path(reconciling, run, "approve"))
    assert (answer.status_code, answer.json()["state"], answer.json()["approved_by"]) == (202, "queued", "operator")
    assert (answer.json()["id"], answer.json()["proposed"]) == (run.id, proposing["proposed"])
    reconciling.work(run)
    done = api.get(path(reconciling, run)).json()
    assert (done["state"], done["approved_by"], done["proposed"], done["held_back"]) == ("done", "operator", NO_PROPOSAL, [])
    removed = {"users_deactivated": 8, "groups_deleted": 8, "memberships_removed": 20, "roles_revoked": 10}
    assert done["changes"] == {**NOTHING, **removed}


def queued(desk: Reconciling) -> Run:
    return desk.reconciler.request(desk.organization_id, dry_run=False, requested_by="test")[0]


def under_way(desk: Reconciling) -> Run:
    run = queued(desk)
    assert desk.reconciler.claim([run.id])
    return run


def done(desk: Reconciling) -> Run:
    return desk.run()


def failed(desk: Reconciling) -> Run:
    return desk.run("org_nowhere")


def cancelled(desk: Reconciling) -> Run:
    return desk.reconciler.cancel(queued(desk), "test")


def needing_approval(desk: Reconciling) -> Run:
    people = desk.hire(6)
    desk.run()
    desk.purge(*people)
    return desk.run()


def lapsed(desk: Reconciling) -> Run:
    run = needing_approval(desk)
    with desk.database.writing() as session:
        session.execute(update(reconcile_runs).where(reconcile_runs.c.id == run.id).values(finished_at=NOW - timedelta(days=9)))
    return run


def superseded(desk: Reconciling) -> Run:
    run = needing_approval(desk)
    desk.run()
    return run


STATES: dict[Callable[[Reconciling], Run], str] = {
    queued: "queued",
    under_way: "running",
    done: "done",
    failed: "failed",
    cancelled: "cancelled",
    needing_approval: "needs_approval",
    lapsed: "cancelled",
    superseded: "cancelled",
}


@ON_SQLITE
@pytest.mark.parametrize("reach", STATES)
def test_only_what_needs_approval_can_be_approved(reconciling: Reconciling, api: TestClient, reach: Callable[[Reconciling], Run]) -> None:
    """Anything else is a conflict that says how the run stands, and changes nothing."""
    run = reach(reconciling)
    before = api.get(path(run.organization_id, run)).json()
    assert before["state"] == STATES[reach]
    answer = api.post(path(run.organization_id, run, "approve"))
    if reach is needing_approval:
        assert (answer.status_code, answer.json()["state"], answer.json()["finished_at"]) == (202, "queued", None)
        return
    assert (answer.status_code, answer.headers["content-type"]) == (409, MEDIA_TYPE)
    assert before["state"] in answer.json()["detail"]
    assert (before["error"] or "") in answer.json()["detail"]
    assert api.get(path(run.organization_id, run)).json() == before


@ON_SQLITE
@pytest.mark.parametrize("reach", STATES)
def test_only_what_has_not_ended_can_be_cancelled(reconciling: Reconciling, api: TestClient, reach: Callable[[Reconciling], Run]) -> None:
    """What waits ends at once, saying by whom; what runs is told to end; what has ended stays as it is."""
    run = reach(reconciling)
    before = api.get(path(run.organization_id, run)).json()
    answer = api.post(path(run.organization_id, run, "cancel"))
    if reach is under_way:
        assert (answer.status_code, same_run(answer.json())) == (202, same_run(before))
    elif reach in {queued, needing_approval}:
        assert (answer.status_code, answer.json()["state"], answer.json()["error"]) == (202, "cancelled", "Cancelled by operator.")
        assert TIME.fullmatch(answer.json()["finished_at"])
    else:
        assert (answer.status_code, answer.headers["content-type"]) == (409, MEDIA_TYPE)
        assert before["state"] in answer.json()["detail"]
        assert api.get(path(run.organization_id, run)).json() == before


@pytest.mark.parametrize("people", [0, 3])
def test_a_run_under_way_that_is_cancelled_changes_nothing_more(reconciling: Reconciling, api: TestClient, people: int) -> None:
    """From the moment that the caller was answered; it ends and says by whom, also where there was nothing left to do."""
    reconciling.run()
    reconciling.hire(people)
    run = queued(reconciling)
    work = reconciling.reconciler.claim([run.id])
    assert work
    api.post(path(reconciling, run, "cancel")).raise_for_status()
    work()
    after = api.get(path(reconciling, run)).json()
    assert (after["state"], after["error"], after["changes"]) == ("cancelled", "Cancelled by operator.", NOTHING)
    assert reconciling.users() == []


def test_an_approval_can_be_taken_back_while_the_run_is_under_way(reconciling: Reconciling, api: TestClient) -> None:
    """Nobody is removed then."""
    run = needing_approval(reconciling)
    api.post(path(reconciling, run, "approve")).raise_for_status()
    work = reconciling.reconciler.claim([run.id])
    assert work
    api.post(path(reconciling, run, "cancel")).raise_for_status()
    work()
    assert api.get(path(reconciling, run)).json()["state"] == "cancelled"
    assert len(reconciling.users(active="true")) == 6


def test_a_decision_is_about_the_run_as_it_is_by_then(reconciling: Reconciling) -> None:
    """Whoever read it a moment ago, and decides when somebody else has, is told how it stands."""
    run = needing_approval(reconciling)
    reconciling.reconciler.approve(run, "somebody")
    with pytest.raises(Conflict, match="This run is queued"):
        reconciling.reconciler.approve(run, "else")
    reconciling.work(run)
    with pytest.raises(Conflict, match="This run is done"):
        reconciling.reconciler.cancel(run, "else")


def test_a_run_that_begins_while_it_is_cancelled_is_told_to_end(emulator: Emulator, postgres_url: str) -> None:
    """It waited when the statement looked, and runs when the statement gets its row: what was answered 202 is heard nevertheless."""
    with connected(emulator, postgres_url, "begins") as desk, ThreadPoolExecutor(1) as pool:
        run = queued(desk)
        with desk.database.writing() as session:
            now = datetime.now(UTC)
            assert claim(session, owner="another process", now=now, lease=timedelta(minutes=1), only=[run.id])
            answer = pool.submit(desk.client.post, path(desk, run, "cancel"), headers=bearer(OPERATE_KEY))
            until(lambda: answer.done() or blocked(desk.database))
        assert (answer.result().status_code, answer.result().json()["state"]) == (202, "running")
        assert desk.now(run).cancel_wanted_by == "operator"


def blocked(database: Database) -> bool:
    """Whether a transaction waits for another one's lock."""
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    with database.reading() as session:
        return bool(session.execute(waiting).scalar_one())


def test_why_a_proposal_is_void_is_its_error(reconciling: Reconciling, api: TestClient) -> None:
    """Nobody approved it in time, or another run began."""
    late = api.get(path(reconciling, lapsed(reconciling))).json()
    assert (late["state"], late["error"]) == ("cancelled", "Lapsed: nobody approved it within 24 hours.")
    run = reconciling.run()
    newer = reconciling.run()
    assert api.get(path(reconciling, run)).json()["error"] == f"Superseded by the run {newer.id}."


def test_why_a_run_failed_is_its_error(reconciling: Reconciling, api: TestClient) -> None:
    """As for an organization that Scalekit does not know; the vendor's own words are not in it."""
    run = api.post(path("org_nowhere")).raise_for_status().json()
    work = reconciling.reconciler.claim([run["id"]])
    assert work
    work()
    after = api.get(path("org_nowhere", run)).json()
    assert (after["state"], after["changes"]) == ("failed", NOTHING)
    assert "Scalekit does not know this organization" in after["error"]


# Who may, and of which organization


@ON_SQLITE
def test_reading_needs_read_and_everything_else_operate(reconciling: Reconciling, api: TestClient) -> None:
    """A 403 before the body is looked at, which starts, approves and cancels nothing."""
    run = needing_approval(reconciling)
    paths = {path(reconciling): "GET", path(reconciling, run): "GET"}
    for where, method in paths.items():
        assert api.request(method, where, headers=bearer(READ_KEY)).status_code == 200
        assert api.request(method, where, headers=bearer(PORTAL_KEY)).status_code == 403
    for where in (path(reconciling), path(reconciling, run, "approve"), path(reconciling, run, "cancel")):
        for key in (READ_KEY, PORTAL_KEY):
            for body in (b"", b"{", b'{"dry_run": 1}'):
                answer = api.post(where, content=body, headers={**bearer(key), **JSON})
                assert (answer.status_code, answer.headers["content-type"]) == (403, MEDIA_TYPE)
        assert api.post(where, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert runs_of(api, reconciling)[0] == same_run(api.get(path(reconciling, run)).json())
    assert [each["state"] for each in runs_of(api, reconciling)] == ["needs_approval", "done"]


@ON_SQLITE
def test_without_credentials_nothing_can_be_started(reconciling: Reconciling, client: TestClient) -> None:
    """503, and which of them are missing. What there is can be read, and be cancelled."""
    run = needing_approval(reconciling)
    for where in (path(reconciling), path(reconciling, run, "approve")):
        answer = client.post(where)
        assert (answer.status_code, answer.headers["content-type"]) == (503, MEDIA_TYPE)
        for name in ("SCALEKIT_ENVIRONMENT_URL", "SCALEKIT_CLIENT_ID", "SCALEKIT_CLIENT_SECRET"):
            assert name in answer.json()["detail"]
    assert [each["state"] for each in runs_of(client, reconciling)] == ["needs_approval", "done"]
    assert client.get(path(reconciling, run)).json()["state"] == "needs_approval"
    assert client.post(path(reconciling, run, "cancel")).json()["state"] == "cancelled"


def test_a_run_is_its_organizations_alone(reconciling: Reconciling, api: TestClient, database_url: str, emulator: Emulator) -> None:
    """By another organization's path it is not found, and nothing is done to it; nor is one in the way of another organization's."""
    run = needing_approval(reconciling)
    with connected(emulator, database_url, "another") as other:
        for found in (api.get(path(other, run)), api.post(path(other, run, "approve")), api.post(path(other, run, "cancel"))):
            assert (found.status_code, found.headers["content-type"]) == (404, MEDIA_TYPE)
        assert runs_of(api, other) == []
        assert api.get(path(reconciling, run)).json()["state"] == "needs_approval"
        under_way(reconciling)
        assert api.post(path(other), json={"dry_run": True}).status_code == 202


@ON_SQLITE
def test_no_run_begins_of_what_can_be_no_organization(api: TestClient) -> None:
    """Its id goes to Scalekit, and is kept."""
    for organization_id in ("org 1", "org_1\0", "ä", "\u202e", "\n", "\ud800", "o" * 256):
        answer = api.post(path(quote(organization_id.encode("utf-8", "surrogatepass"))))
        assert (answer.status_code, answer.headers["content-type"]) == (422, MEDIA_TYPE)


def test_a_run_of_an_odd_organization_fails_and_says_why(reconciling: Reconciling, api: TestClient) -> None:
    """Whatever its id looks like, it is an organization that nobody knows."""
    for organization_id in ("'--", "100%", "{}", "..", "org_1?x=1", "$(id)", "<b>", "null", "o" * 255):
        where = path(quote(organization_id, safe="").replace(".", "%2E"))
        run = api.post(where).raise_for_status().json()
        assert run["organization_id"] == organization_id
        work = reconciling.reconciler.claim([run["id"]])
        assert work
        work()
        after = api.get(f"{where}/{run['id']}").raise_for_status().json()
        assert (after["state"], after["changes"]) == ("failed", NOTHING)


@given(
    parts=st.tuples(*[st.binary(min_size=1, max_size=20).map(quote) | st.text(max_size=20).map(quote)] * 2),
    action=st.sampled_from(["", "approve", "cancel"]),
    body=st.binary(max_size=30) | st.sampled_from([b'{"dry_run": 1e999}', b'{"dry_run": NaN}', b"[" * 9999, b'{"\\ud800": 1}']),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_nothing_that_is_asked_makes_the_service_fail(api: TestClient, parts: tuple[str, str], action: str, body: bytes) -> None:
    """Whatever stands in the path and in the body."""
    where = path(parts[0], {"id": parts[1]} if action else None, action)
    answer = api.post(where, content=body, headers=JSON)
    assert answer.status_code < 500, answer.text
    assert answer.status_code < 400 or answer.headers["content-type"] == MEDIA_TYPE


# What it is for tools


@ON_SQLITE
def test_the_description_knows_every_field(api: TestClient) -> None:
    """A generated client needs no more than it: every change a run counts, every state."""
    described = api.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert list(schemas["Changes"]["properties"]) == list(CHANGES)
    assert schemas["State"]["enum"] == list(State)
    assert set(schemas["Reconciliation"]["required"]) == set(schemas["Reconciliation"]["properties"])
    for where, method in ((path("{organization_id}"), "post"), (path("{organization_id}", {"id": "{run_id}"}, "approve"), "post")):
        answers = described["paths"][where][method]["responses"]
        assert answers["202"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Reconciliation"}
        assert {"401", "403", "409", "422", "503"} <= answers.keys()


def test_a_run_is_said_elsewhere_as_it_is_here(reconciling: Reconciling, api: TestClient) -> None:
    """What prints runs without HTTP says of them, to the letter, what the API does."""
    run = needing_approval(reconciling)
    said: Reconciliation = shown(run, drift=True)
    assert said.model_dump(mode="json") == api.get(path(reconciling, run)).json()
    assert shown(run).model_dump(mode="json") == runs_of(api, reconciling)[0]
