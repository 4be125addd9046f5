"""One person's data: all of it handed over, or all of it erased, and nothing late brings it back."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import event as sent
from sqlalchemy import select, update
from test_convergence import EXAMPLES, GROUPS, PEOPLE, Fact, facts

from factories import ORGANIZATION, delivery, delivery_rows, event, named, receive, roles, state, user_of
from following import Copy, everything, original
from provisioning import application_ids, privacy
from provisioning.db import erased as erased_rows
from provisioning.db import organizations, personal, runs
from provisioning.db.models import BLANK, changes, deliveries, erased, hook_dead_letters, hook_lanes, metadata, reconcile_runs
from provisioning.db.personal import Person
from provisioning.db.session import Database
from provisioning.drift import ERASED
from provisioning.errors import NotFound
from provisioning.feed import Wanted
from provisioning.inbox import Inbox, Outcome
from provisioning.merge import Key
from provisioning.reconcile.applying import Applying
from provisioning.roles import Roles
from reconciling import Reconciling
from rows import NOW, put
from service import bearer, running

CANARY = "Zyxwvut"
ADDRESS = f"{CANARY}@example.com"


def person(database: Database, given: str, organization_id: str | None = None) -> Person:
    """Whom that means."""
    with database.reading() as session:
        (found,) = personal.find(session, given, organization_id)
    return found


def erase(database: Database, given: str) -> Person:
    """Erase somebody; returns who it was."""
    whom = person(database, given)
    privacy.erase(database, whom, "Ada")
    return whom


def lift(database: Database, whom: Person) -> None:
    """Take that back."""
    privacy.lift(database, whom.keys, "Ada")


def everywhere(database: Database, needle: str) -> list[str]:
    """The columns of all tables in which the text stands, whatever their kind."""
    found = []
    with database.reading() as session:
        for table in metadata.sorted_tables:
            for row in session.execute(select(table)).mappings():
                for name, value in row.items():
                    text = value.decode(errors="replace") if isinstance(value, bytes) else json.dumps(value, default=str)
                    if needle.lower() in text.lower():
                        found.append(f"{table.name}.{name}")
    return sorted(set(found))


def known_well(database: Database) -> str:
    """A person of whom something stands everywhere: returns our id."""
    common: dict[str, Any] = {"email": ADDRESS, "dp_id": f"up-{CANARY}", "groups": named("g1"), "roles": roles("r1")}
    receive(database, event("user_created", "u1", at=-1, **{**common, "email": f"Early.{ADDRESS}"}))
    receive(database, event("user_created", "u1", name=CANARY, department=CANARY, **common))
    receive(database, event("user_created", "u2", at=1, **common), event("user_updated", "u1", at=2, name=f"{CANARY} the Second"))
    receive(database, event("user_created", "other", email="other@example.com", groups=named("g1"), roles=roles("r1")))
    user_id = user_of(database, "u1")
    Roles(database).grant(ORGANIZATION, user_id, ["here"], "ops")
    application_ids.call(database, Key(ORGANIZATION, user_id), f"{CANARY}-42", "ops")
    for whom in (user_id, user_of(database, "other")):
        put(database, hook_lanes, {"hook_id": "hook_1", "subject_id": whom})
        put(database, hook_dead_letters, {"hook_id": "hook_1", "subject_id": whom, "position": int(whom == user_id)})
    for text in (ADDRESS, f"early.{ADDRESS.upper()}", f"\\u005ayxwvut@example.com, {CANARY}", f"x{ADDRESS.lower()}", "other@example.com"):
        Inbox(database).receive([delivery(f'{{"about": "{text}"}}'.encode(), f"dead_{text[0]}_{text[1]}")])
    with database.writing() as session:
        session.execute(update(deliveries).where(deliveries.c.subject_id == "u2").values(dismissed_reason=f"{CANARY} asked for it"))
    finding = {"what": "changed", "type": "user", "id": "u1", "fields": {"email": {"before": ADDRESS, "after": None}}}
    run = {
        "id": "run_1",
        "state": "done",
        "dry_run": False,
        "requested_by": "x",
        "requested_at": NOW,
        "due_at": NOW,
        "changes": {},
        "removed": {},
    }
    put(
        database,
        reconcile_runs,
        {**run, "listed_users": 1, "listed_groups": 1, "held_back": [], "saw_active": True, "saw_totals": True, "drifted": 2}
        | {
            "proposal": {
                "people": ["u1", "other"],
                "users": [user_id],
                "groups": [],
                "memberships": {"u1": [CANARY]},
                "roles": {"u1": [CANARY]},
            }
        }
        | {"drift": [finding, {**finding, "id": "other", "fields": {}}]},
    )
    return user_id


def test_everything_is_handed_over(database: Database) -> None:
    """From each table that has anything, by whichever id or address one asks; and nothing of anybody else."""
    user_id = known_well(database)
    for given_ in (user_id, "u1", "u2", ADDRESS.upper()):
        with database.reading() as session:
            (whom,) = personal.find(session, given_, None)
            told = privacy.export(session, whom)
        text = json.dumps(told)
        assert "other" not in text
        counts = {name: len(rows) for name, rows in told.items() if isinstance(rows, list)}
        assert counts == {
            "users": 1,
            "directory_users": 2,
            "memberships": 2,
            "role_grants": 3,
            "local_roles": 1,
            "application_ids": 1,
            "hook_lanes": 1,
            "hook_dead_letters": 1,
            "changes": 7,
            "deliveries": 7,
            "findings": 1,
        }
        assert f"{CANARY} the Second" in text
    assert {each["payload"]["json"]["data"]["id"] for each in json.loads(text)["deliveries"] if each["subject_id"]} == {"u1", "u2"}


def test_whoever_is_erased_is_nowhere(database: Database, database_url: str) -> None:
    """Not by name, address or attribute, in no table, and on SQLite in no byte of the files; others keep everything."""
    user_id = known_well(database)
    before = {name: rows for name, rows in state(database).items() if name in {"groups", "directories"}}
    assert len(everywhere(database, CANARY)) >= 6
    privacy.erase(database, person(database, user_id), "Ada")
    assert everywhere(database, CANARY) == ["deliveries.payload"]  # another's address, that only ends like this one
    with database.writing() as session:
        session.execute(update(deliveries).where(deliveries.c.webhook_id == "dead_x_z").values(payload=None))
    personal.flush_traces(database)
    assert everywhere(database, CANARY) == []
    if database.dialect == "sqlite":
        path = Path(database_url.removeprefix("sqlite:///"))
        assert [file.name for file in path.parent.glob(f"{path.name}*") if CANARY.encode() in file.read_bytes()] == []
    with database.reading() as session:
        assert session.scalars(select(hook_dead_letters.c.subject_id)).all() == [user_of(database, "other")]
    after = state(database)
    assert before == {name: after[name] for name in before}
    assert [row[1] for row in after["directory_users"]] == ["other"]
    assert [len(after[name]) for name in ("users", "memberships", "role_grants")] == [1, 1, 1]
    told = delivery_rows(database)
    assert {webhook_id for webhook_id, row in told.items() if row["payload"] is not None} - {"dead_o_t"} == {
        webhook_id for webhook_id, row in told.items() if row["subject_id"] == "other"
    }
    assert {row["subject_id"] for row in told.values()} == {"u1", "u2", "other", None}
    with database.reading() as session:
        assert session.execute(select(reconcile_runs.c.drift, reconcile_runs.c.proposal)).all() == [
            (
                [{"what": "changed", "type": "user", "id": "other", "fields": {}}],
                {"people": ["other"], "users": [], "groups": [], "memberships": {}, "roles": {}},
            )
        ]
        tombstones = session.execute(select(erased.c.directory_user_id, erased.c.user_id, erased.c.erased_by)).all()
    assert sorted(tombstones) == [("u1", user_id, "Ada"), ("u2", user_id, "Ada")]


def test_nothing_late_brings_anybody_back(database: Database) -> None:
    """Whatever is said of them is ignored, and kept without its payload; a colleague in the same batch is not. Lifted, they come again."""
    known_well(database)
    whom = erase(database, "u1")
    late = [
        event(kind, "u1", at=99, name=CANARY, email=ADDRESS, groups=named("gx"))
        for kind in ("user_created", "user_updated", "user_deleted")
    ]
    future = event("user_updated", "u2", at=10**9, name=CANARY)
    receipts = receive(database, *late, future, event("user_updated", "other", at=99, name="Bo"))
    assert [each.outcome for each in receipts] == ["ignored", "ignored", "ignored", "dead_lettered", "processed"]
    assert {row["payload"] for row in delivery_rows(database).values() if row["subject_id"] in {"u1", "u2"}} == {None}
    assert "gx" not in json.dumps(state(database), default=str)
    lift(database, whom)
    assert [each.outcome for each in receive(database, event("user_updated", "u1", at=100, email=ADDRESS))] == ["processed"]
    assert user_of(database, "u1") != whom.user_id


def test_another_organizations_person_of_the_same_id_is_another(database: Database) -> None:
    """An id means nothing outside its organization, and who is meant has to be said."""
    for organization_id in (ORGANIZATION, "org_2"):
        receive(database, event("user_created", "u1", email=ADDRESS, organization_id=organization_id))
    with database.reading() as session:
        assert len(personal.find(session, "u1", None)) == len(personal.find(session, ADDRESS, None)) == 2
    before = state(database, "org_2")
    privacy.erase(database, person(database, "u1", ORGANIZATION), "Ada")
    assert (state(database, "org_2"), state(database, ORGANIZATION)["users"]) == (before, [])
    assert [each.outcome for each in receive(database, event("user_updated", "u1", at=3, name="N", organization_id="org_2"))] == [
        "processed"
    ]


def test_one_whom_only_a_deletion_ever_named_can_be_erased(database: Database) -> None:
    """A record without an account: nothing of anybody else's goes with it."""
    receive(database, event("user_deleted", "u1", email=ADDRESS), event("user_created", "other", groups=named("g1")))
    before = [change.type for change in everything(database)]
    with database.reading() as session:
        (whom,) = personal.find(session, "u1", None)
        assert "other" not in json.dumps(privacy.export(session, whom))
    erase(database, "u1")
    assert everywhere(database, CANARY) == []
    assert [change.type for change in everything(database)] == before
    assert [each.outcome for each in receive(database, event("user_created", "u1", at=-1))] == ["ignored"]


def test_followers_are_told(database: Database) -> None:
    """That access is lost, and who was erased, without a word of who that was; whoever stands at what was emptied reads on."""
    user_id = known_well(database)
    copy = Copy().follow(everything(database))
    places = [change.position for change in everything(database)]
    erase(database, user_id)
    told = everything(database, after=places[-1])
    kinds = ["user.deactivated", "user.erased"]
    assert [change.type for change in told] == kinds
    assert {(change.user_id, change.cause, change.cause_id) for change in told} == {(user_id, "operator", "Ada")}
    copy.follow(told)
    ours = original(database, ORGANIZATION)
    assert (copy.users, copy.memberships, copy.roles) == (ours.users, ours.memberships, ours.roles)
    for place in places:
        assert [change.type for change in everything(database, after=place)][-2:] == kinds
    assert BLANK not in {change.type for change in everything(database)}
    assert user_id not in {change.user_id for change in everything(database)[:-2]}
    with database.reading() as session:
        assert set(places) <= set(session.scalars(select(changes.c.position)))


HISTORY = st.lists(facts(shared=False), min_size=1, max_size=20)


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@given(before=HISTORY, after=HISTORY, again=st.booleans())
@examples(max_examples=EXAMPLES // 2, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_it_is_as_if_they_had_never_been(database: Database, before: list[Fact], after: list[Fact], again: bool) -> None:
    """Whatever was told before and comes after: to the others it makes no difference, and a follower ends where the service is."""
    gone, organization_id, other = PEOPLE[0], f"org_{next(NUMBERS)}", f"org_{next(NUMBERS)}"
    inbox = Inbox(database)
    # Every group is told of anyway: one that only an erased person was in is there still.
    groups = [Fact("group_created", id_, -1, 0, (("display_name", "a"),)) for id_ in GROUPS]
    inbox.receive([fact.delivery(organization_id) for fact in (*groups, *before)])
    ours = Wanted(organization_id)
    heard = everything(database, wanted=ours, limit=200)
    copy = Copy().follow(heard)
    with database.reading() as session:
        found = personal.find(session, gone, organization_id)
    for whom in found:
        privacy.erase(database, whom, "Ada")
    rest = [fact for fact in after if found or fact.id != gone]
    told = rest + before * again
    outcomes = [each.outcome for each in inbox.receive([fact.delivery(organization_id) for fact in told])]
    if found:
        assert all(outcome is Outcome.IGNORED for fact, outcome in zip(told, outcomes, strict=True) if fact.id == gone)
    inbox.receive([fact.delivery(other) for fact in (*groups, *before, *rest) if fact.id != gone])
    assert state(database, organization_id) == state(database, other)
    copy.follow(everything(database, after=heard[-1].position, wanted=ours, limit=200))
    end = original(database, organization_id)
    assert (copy.users, copy.memberships, copy.roles) == (end.users, end.memberships, end.roles)


NUMBERS = iter(range(10**9))


def test_nobody_slips_through_while_they_are_erased(database: Database) -> None:
    """Events about them that are being handled at that very moment end before it, or are ignored: nothing is left of them."""
    for round_ in range(6):
        id_ = f"u_{round_}"
        receive(database, event("user_created", id_, email=ADDRESS, name=CANARY, groups=named("g")))
        begin = Barrier(4)

        def tell(number: int, id_: str = id_, begin: Barrier = begin) -> None:
            begin.wait(20)
            for at in range(number, 30, 3):
                receive(database, event("user_updated", id_, at=at, number=at, name=f"{CANARY} {at}", groups=named(f"g{at}")))

        with ThreadPoolExecutor(4) as threads:
            told = [threads.submit(tell, number) for number in range(3)]
            begin.wait(20)
            erase(database, id_)
            for each in told:
                each.result()
        assert everywhere(database, CANARY) == []
        assert {row["outcome"] for row in delivery_rows(database).values() if row["payload"] is None} <= {"processed", "stale", "ignored"}


def test_nothing_is_given_to_somebody_who_was_erased(database: Database) -> None:
    """A role that is granted while they go is granted to nobody."""
    user_id = known_well(database)
    erase(database, user_id)
    with pytest.raises(NotFound):
        Roles(database).grant(ORGANIZATION, user_id, ["late"], "ops")


def test_a_run_that_ends_afterwards_keeps_nothing_of_them(database: Database) -> None:
    """What it had found by then is left out when its row is written."""
    receive(database, event("user_created", "u1", email=ADDRESS))
    now = datetime.now(UTC)
    with database.writing() as session:
        run, _ = runs.request(session, ORGANIZATION, dry_run=False, requested_by="x", now=now)
    with database.writing() as session:
        runs.claim(session, owner="me", now=now, lease=runs.FINDINGS_LIVE, only=[run.id])
    erase(database, "u1")
    finding = {"what": "changed", "type": "user", "id": "u1", "fields": {"email": {"before": ADDRESS, "after": "x"}}}
    kept = [{"what": ERASED, "type": "user", "id": "u1"}, {"what": "changed", "type": "group", "id": "u1"}]
    with database.writing() as session:
        runs.end(session, run, owner="me", state=runs.State.DONE, now=now, drift=[finding, *kept])
    with database.reading() as session:
        assert runs.one(session, ORGANIZATION, run.id, now).drift == kept


def test_a_reconcile_says_who_was_erased_and_leaves_them_out(reconciling: Reconciling) -> None:
    """Run after run, also a dry one, and it is no drift; once they leave the directory nothing more is said. Lifted, they are brought."""
    gone, *rest = reconciling.hire(5)
    reconciling.run()
    whom = erase(reconciling.database, gone.id)
    for dry in (True, False, False):
        run = reconciling.run(dry_run=dry)
        assert (run.state, run.drifted, {name: number for name, number in run.changes.items() if number}) == ("done", 0, {})
        assert [(each["what"], each["id"], each["reason"]) for each in run.drift] == [("erased", gone.id, "erased, still in the directory")]
    reconciling.hear()
    assert len(reconciling.users()) == len(rest)
    assert everywhere(reconciling.database, gone.email) == []
    lift(reconciling.database, whom)
    run = reconciling.run()
    assert run.changes["users_created"] == 1
    assert {each.field for each in reconciling.differences()} == {"user's roles"}  # the directory's default role, which no listing says


def test_a_reconcile_under_way_does_not_bring_them_back(reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared before, applied after: it is ignored, and neither fails nor is found out about."""
    gone, *_ = reconciling.hire(5)
    reconciling.run()
    reconciling.emulator.people.rename(gone.id, family_name=CANARY)
    bring, once = Applying.bring, iter([True])

    def late(self: Applying, drifts: Any) -> Any:
        waiting = list(drifts)
        if any(each.event and each.event.subject_id == gone.id for each in waiting) and next(once, False):
            erase(reconciling.database, gone.id)
        return bring(self, waiting)

    monkeypatch.setattr(Applying, "bring", late)
    run = reconciling.run()
    assert next(once, None) is None
    assert (run.state, run.error) == ("done", None)
    assert everywhere(reconciling.database, CANARY) == []


def test_over_http_they_are_not_there(database: Database, database_url: str) -> None:
    """404, as for anybody who never was."""
    user_id = known_well(database)
    erase(database, user_id)
    with running(database_url) as client:
        client.headers.update(bearer())
        for path in ("", "/access", "/history"):
            assert client.get(f"/v1/organizations/{ORGANIZATION}/users/{user_id}{path}").status_code == 404
        assert client.get("/v1/changes").status_code == 200


def test_what_failed_of_them_is_not_tried_again(database: Database) -> None:
    """Its payload is gone."""
    receive(database, event("user_created", "u1"))
    with database.writing() as session:
        session.execute(update(deliveries).values(outcome="failed", retry_at=NOW))
    erase(database, "u1")
    (row,) = delivery_rows(database).values()
    assert (row["payload"], row["retry_at"]) == (None, None)


def test_a_batch_asks_who_was_erased_only_where_somebody_was(database: Database) -> None:
    """The mark on the organization says so, and goes with the last one who is lifted."""
    statements: list[str] = []
    sent.listen(database.engine, "before_cursor_execute", lambda *heard: statements.append(heard[2]))
    receive(database, event("user_created", "u1"), event("user_created", "u2"))
    assert statements
    assert not any("FROM erased" in each for each in statements)
    first, second = erase(database, "u1"), erase(database, "u2")

    def marked() -> Iterator[object]:
        with database.reading() as session:
            yield session.scalar(select(metadata.tables["organizations"].c.has_erased))

    assert next(marked())
    lift(database, first)
    assert next(marked())
    lift(database, second)
    assert not next(marked())
    assert [key for key in second.keys if key == Key(ORGANIZATION, "u2")]


def test_whoever_gets_an_account_meanwhile_is_erased_with_it(database: Database) -> None:
    """Between the question and the answer somebody is provisioned: it is looked at again."""
    receive(database, event("user_deleted", "u1", email=ADDRESS))
    whom = person(database, "u1")
    receive(database, event("user_created", "u1", at=2, email=ADDRESS, name=CANARY))
    assert privacy.erase(database, whom, "Ada").person.user_id
    assert everywhere(database, CANARY) == []


@pytest.mark.parametrize("how", [Inbox.replay, Inbox.replay_kept, Inbox.retry])
def test_a_replay_under_way_brings_nothing_back(database: Database, monkeypatch: pytest.MonkeyPatch, how: Callable[..., Any]) -> None:
    """What was read before somebody was erased is not written after it, neither applied nor kept."""
    Inbox(database).receive([delivery(f'{{"about": "{ADDRESS}"}}'.encode(), "msg_dead")])
    receive(database, event("user_created", "u1", email=ADDRESS))
    (told,) = (webhook_id for webhook_id in delivery_rows(database) if webhook_id != "msg_dead")
    read = Inbox._stored

    def late(self: Inbox, webhook_ids: Sequence[str]) -> Any:
        found = read(self, webhook_ids)
        erase(database, "u1")
        return found

    monkeypatch.setattr(Inbox, "_stored", late)
    assert {each.outcome for each in how(Inbox(database), [told, "msg_dead"])} == {Outcome.DUPLICATE}
    assert everywhere(database, CANARY) == []


def test_a_dead_letter_waits_for_whoever_is_erasing(database: Database) -> None:
    """What cannot be read is kept, but not of somebody who is erased at that moment."""
    receive(database, event("user_created", "u1", email=ADDRESS))
    dead = delivery(event("user_updated", "u1", at=10**9, name=CANARY), "msg_dead")
    with ThreadPoolExecutor(1) as threads:
        with database.writing() as session:
            organizations.enter(session, {ORGANIZATION: True}, NOW)
            erased_rows.put(session, [Key(ORGANIZATION, "u1")], None, by="Ada", now=NOW)
            told = threads.submit(Inbox(database).receive, [dead])
            with suppress(TimeoutError):
                told.result(0.3)  # it waits, or finds nobody erased yet
        assert [each.outcome for each in told.result(20)] == [Outcome.DEAD_LETTERED]
    assert delivery_rows(database)["msg_dead"]["payload"] is None


def test_whatever_was_sent_can_be_handed_over(database: Database) -> None:
    """Also what is no JSON that could be said again."""
    receive(database, event("user_created", "u1"))
    Inbox(database).receive([delivery(event("user_updated", "u1", at=1, name="NAME").replace(b"NAME", rb"\ud800"), "msg_dead")])
    with database.reading() as session:
        told = privacy.export(session, personal.find(session, "u1", None)[0])
    payloads = [each["payload"] for each in json.loads(json.dumps(told, ensure_ascii=False).encode())["deliveries"]]
    assert sorted(next(iter(each)) for each in payloads) == ["base64", "json"]


def test_somebody_of_whom_nothing_could_be_read_is_found(database: Database) -> None:
    """Whoever is in the inbox only has data there, too; and is kept out like everybody who was erased."""
    Inbox(database).receive([delivery(event("user_created", "u1", at=10**9, name=CANARY), "msg_dead")])
    with database.reading() as session:
        (whom,) = personal.find(session, "u1", None)
        assert CANARY in json.dumps(privacy.export(session, whom))
    erase(database, "u1")
    assert everywhere(database, CANARY) == []
    (receipt,) = receive(database, event("user_created", "u1", name=CANARY))
    assert (receipt.outcome, receipt.error) == ("ignored", "It is about somebody who was erased here.")
