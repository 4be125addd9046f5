"""What failed is tried again, looked at, replayed or dismissed; and never in anybody's way."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Barrier
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import delete, update

from factories import delivery, delivery_rows, event, one_by_one, state
from faults import AT_STATEMENT, failing, until
from following import everything
from provisioning.db.deliveries import NEWEST, Wanted, page_of_deliveries
from provisioning.db.models import deliveries
from provisioning.db.session import Database
from provisioning.errors import Conflict, NotFound, NotReplayable
from provisioning.events import Delivery
from provisioning.inbox import Inbox, Letter, Outcome, Receipt
from provisioning.retention import Retention
from provisioning.retrying import AT_ONCE, Retrying
from rows import NOW, put
from service import OPERATE_KEY, bearer, running, settings, signed

BAD = event("user_created", "bad", email="bad@example.com")


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """An operator."""
    with running(database_url) as client:
        client.headers.update(bearer(OPERATE_KEY))
        yield client


def failed(database: Database, webhook_id: str = "msg_bad") -> Delivery:
    """A delivery that has failed once."""
    bad = delivery(BAD, webhook_id)
    with failing(database, AT_STATEMENT):
        assert [receipt.outcome for receipt in Inbox(database).receive([bad])] == [Outcome.FAILED]
    return bad


def row(database: Database, webhook_id: str = "msg_bad") -> dict[str, Any]:
    """What is kept of it."""
    return delivery_rows(database)[webhook_id]


def make_due(database: Database) -> None:
    """Have the time come for everything that is to be tried again."""
    with database.writing() as session:
        session.execute(update(deliveries).where(deliveries.c.retry_at.is_not(None)).values(retry_at=NOW - timedelta(days=999)))


def try_again(database: Database) -> int:
    """Do the work there is; returns how many pieces it was."""
    retrying, pieces = Retrying(database, Inbox(database)), 0
    while work := retrying.claim():
        work()
        pieces += 1
    return pieces


def test_what_failed_is_tried_again_without_anybody(database: Database) -> None:
    """Not before its time; once mended it is processed, and no more is to be done. It ends where it would have ended at once."""
    failed(database)
    assert try_again(database) == 0
    make_due(database)
    assert try_again(database) == 1
    assert {name: row(database)[name] for name in ("outcome", "attempts", "error", "retry_at")} == {
        "outcome": "processed",
        "attempts": 2,
        "error": None,
        "retry_at": None,
    }
    assert try_again(database) == 0
    assert [change.cause_id for change in everything(database)] == ["msg_bad"]


def test_what_is_done_meanwhile_is_not_tried_again(database: Database) -> None:
    """Between the claim and the work it was sent again, and processed."""
    Inbox(database).receive([failed(database)])
    before = row(database)
    assert [receipt.outcome for receipt in Inbox(database).retry(["msg_bad"])] == [Outcome.DUPLICATE]
    assert (before["outcome"], row(database)) == ("processed", before)


def test_the_pauses_grow_to_some_hours(database: Database) -> None:
    """From half a minute, each time it is twice as old, up to six hours, however often anybody else tried it; with the newest error."""
    failed(database)
    minutes = (0, 1, 2, 4, 60, 359, 361, 9999)
    pauses = []
    with failing(database, AT_STATEMENT):
        for attempt, age in enumerate(minutes, start=2):
            make_due(database)
            with database.writing() as session:
                session.execute(update(deliveries).values(received_at=datetime.now(UTC) - timedelta(minutes=age)))
            assert try_again(database) == 1
            told = row(database)
            assert (told["outcome"], told["attempts"]) == ("failed", attempt)
            pauses.append(told["retry_at"] - datetime.now(UTC))
    expected = [timedelta(minutes=pause) for pause in (0.5, 1, 2, 4, 60, 359, 360, 360)]
    assert all(abs(pause - wanted) < timedelta(seconds=20) for pause, wanted in zip(pauses, expected, strict=True)), pauses


def test_a_poison_event_holds_up_nobody(database: Database) -> None:
    """Neither others of its organization, nor what it fails with when it is tried again together with them."""
    poison = [delivery(event("user_updated", "bad", at=at), f"msg_bad_{at}") for at in range(5)]
    good = [delivery(event("user_created", f"good_{number}"), f"msg_good_{number}") for number in range(20)]
    mixed = [*poison, *good]
    Random(7).shuffle(mixed)  # noqa: S311 (any order)
    with failing(database, AT_STATEMENT):
        Inbox(database).receive(mixed)
        make_due(database)
        try_again(database)
        Inbox(database).receive([delivery(event("user_updated", "good_0", at=9, name="Later"))])
    outcomes = Counter((str(told["webhook_id"])[:8], told["outcome"]) for told in delivery_rows(database).values())
    assert (outcomes["msg_bad_", "failed"], outcomes["msg_good", "processed"]) == (5, 20)
    assert sum("Later" in user for user in state(database)["users"]) == 1


def test_one_that_is_due_is_had_by_one(database: Database) -> None:
    """However many look at once: each failed delivery is handled once, and all of them are."""
    how_many = AT_ONCE + 12
    with failing(database, AT_STATEMENT):
        Inbox(database).receive([delivery(event("user_updated", "bad", at=at), f"msg_{at}") for at in range(how_many)])
    make_due(database)
    begin = Barrier(4)

    def work(_: int) -> int:
        with closing(Database(database.engine.url.render_as_string(hide_password=False))) as own:
            begin.wait(20)
            return try_again(own)

    with ThreadPoolExecutor(4) as threads:
        pieces = list(threads.map(work, range(4)))
    assert sum(pieces) >= 2
    assert Counter((told["attempts"], told["retry_at"]) for told in delivery_rows(database).values()) == {(2, None): how_many}


def test_what_is_dismissed_is_left_alone(database: Database) -> None:
    """With a name and a reason, the first ones said; neither we nor another failure bring it back."""
    bad = failed(database)
    inbox = Inbox(database)
    inbox.dismiss("msg_bad", by="Ada", reason="A test.")
    inbox.dismiss("msg_bad", by="Bob", reason="Again.")
    said = {"dismissed_by": "Ada", "dismissed_reason": "A test.", "retry_at": None}
    assert said.items() <= row(database).items()
    make_due(database)
    assert try_again(database) == 0
    with failing(database, AT_STATEMENT):
        inbox.receive([bad])
        inbox.retry(["msg_bad"])  # which had been claimed before
        assert {**said, "outcome": "failed", "attempts": 3}.items() <= row(database).items()
    assert [receipt.outcome for receipt in inbox.receive([bad])] == ["processed"]  # sent again, it is applied all the same


def test_a_replay_takes_a_dismissal_back(database: Database) -> None:
    """Whoever tries it again wants to know what becomes of it."""
    failed(database)
    inbox = Inbox(database)
    inbox.dismiss("msg_bad", by="Ada", reason="A test.")
    with failing(database, AT_STATEMENT):
        inbox.replay(["msg_bad"])
    told = row(database)
    assert (told["dismissed_at"], told["dismissed_by"], told["retry_at"] is not None) == (None, None, True)


@pytest.mark.parametrize("outcome", ["processed", "stale", "ignored"])
def test_what_is_done_cannot_be_dismissed(database: Database, outcome: str) -> None:
    """Nor what never came."""
    put(database, deliveries, {"webhook_id": "msg_1", "received_at": NOW, "outcome": outcome, "attempts": 1})
    with pytest.raises(Conflict, match=outcome):
        Inbox(database).dismiss("msg_1", by="Ada", reason="Why not?")
    with pytest.raises(NotFound):
        Inbox(database).dismiss("msg_2", by="Ada", reason="Why not?")
    assert row(database, "msg_1")["dismissed_at"] is None


def test_a_delivery_is_dismissed_over_http(client: TestClient, database: Database) -> None:
    """With the key's name, and a person's beside it; it is listed so."""
    put(database, deliveries, *({"webhook_id": f"msg_{n}", "received_at": NOW, "outcome": "dead_lettered", "attempts": 1} for n in (1, 2)))
    told = client.post("/v1/deliveries/msg_1/dismiss", json={"reason": " Known. ", "name": "Ada"}).json()
    assert (told["dismissed"]["by"], told["dismissed"]["reason"]) == ("Ada (operator)", "Known.")
    assert client.post("/v1/deliveries/msg_2/dismiss", json={"reason": "Known."}).json()["dismissed"]["by"] == "operator"
    for wrong in ({}, {"reason": " "}, {"reason": "x" * 501}, {"reason": "a\nb"}, {"reason": "x", "name": ""}):
        assert client.post("/v1/deliveries/msg_1/dismiss", json=wrong).status_code == 422
    assert client.post("/v1/deliveries/msg_3/dismiss", json={"reason": "x"}).status_code == 404
    listed = client.get("/v1/deliveries", params={"dismissed": True}).json()["data"]
    assert [each["webhook_id"] for each in listed] == ["msg_2", "msg_1"]


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "outcome": st.sampled_from(["processed", "stale", "failed", "dead_lettered", "ignored"]),
        "organization_id": st.sampled_from(["org_1", "org_2"]),
        "type": st.sampled_from(["t1", "t2"]),
        "directory_user_id": st.sampled_from(["u1", "u2"]),
        "received_after": st.integers(0, 4),
        "received_before": st.integers(0, 4),
        "dismissed": st.booleans(),
    },
)
KEPT = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from(["processed", "stale", "failed", "dead_lettered"]),
        "organization_id": st.sampled_from(["org_1", "org_2", None]),
        "type": st.sampled_from(["t1", "t2", None]),
        "subject_id": st.sampled_from(["u1", "u2", None]),
        "received_at": st.integers(0, 4).map(lambda hours: NOW + timedelta(hours=hours)),
        "dismissed_at": st.sampled_from([None, NOW]),
    }
)


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@given(kept=st.lists(KEPT, max_size=12), wanted=FILTERS, limit=st.integers(1, 5))
@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_filter_shows_what_is_so_in_every_respect(
    client: TestClient, database: Database, kept: list[dict[str, Any]], wanted: dict[str, Any], limit: int
) -> None:
    """And nothing else, over all pages, newest first."""
    with database.writing() as session:
        session.execute(delete(deliveries))
    put(database, deliveries, *({**each, "webhook_id": f"msg_{number}", "attempts": 1} for number, each in enumerate(kept)))
    asked = {name: NOW + timedelta(hours=value) if name.startswith("received") else value for name, value in wanted.items()}

    def matches(each: dict[str, Any]) -> bool:
        told = {**each, "directory_user_id": each["subject_id"], "dismissed": each["dismissed_at"] is not None}
        return (
            all(told[name] == value for name, value in asked.items() if not name.startswith("received"))
            and each["received_at"] >= asked.get("received_after", NOW)
            and each["received_at"] < asked.get("received_before", NEWEST[0])
        )

    expected = sorted(((each["received_at"], f"msg_{number}") for number, each in enumerate(kept) if matches(each)), reverse=True)
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        parameters = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asked.items()}
        page = client.get("/v1/deliveries", params={**parameters, **cursor, "limit": limit}).raise_for_status().json()
        found += [each["webhook_id"] for each in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == [webhook_id for _, webhook_id in expected]


def test_whatever_is_described_is_replayed_a_page_at_a_time(client: TestClient, database: Database) -> None:
    """Those that are done, too, and it changes nothing of them; without a filter nothing is; what was not kept is passed over."""
    for number in range(3):
        body = event("user_created", f"u{number}")
        client.post("/webhooks/scalekit", content=body, headers=signed(body, f"msg_{number}"))
    failed(database)
    put(database, deliveries, {"webhook_id": "old", "received_at": NOW - timedelta(9), "outcome": "failed", "attempts": 7, "type": "x"})
    before = state(database), len(everything(database))
    assert client.post("/v1/deliveries/replay").status_code == 422
    assert client.post("/v1/deliveries/replay", params={"outcome": "failed"}, headers=bearer()).status_code == 403
    first = client.post("/v1/deliveries/replay", params={"outcome": "processed", "limit": 2}).json()
    rest = client.post("/v1/deliveries/replay", params={"outcome": "processed", "limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["attempts"] for each in first["data"] + rest["data"]] == [2, 2, 2]
    assert (state(database), len(everything(database)), rest["next_cursor"]) == (*before, None)
    mended = client.post("/v1/deliveries/replay", params={"outcome": "failed"}).json()["data"]
    assert [(each["webhook_id"], each["outcome"], each["attempts"]) for each in mended] == [
        ("msg_bad", "processed", 2),
        ("old", "failed", 7),
    ]


def test_one_delivery_says_what_it_changed(client: TestClient, database: Database) -> None:
    """And nothing of what others did, before or after."""
    one_by_one(database, [event("user_created", "u", name="Ada")])
    body = event("user_updated", "u", at=5, name="Eve", active=False)
    client.post("/webhooks/scalekit", content=body, headers=signed(body, "msg_2"))
    one_by_one(database, [event("user_updated", "u", at=6, name="Ida")])
    changed = client.get("/v1/deliveries/msg_2", headers=bearer()).json()["changes"]
    assert [(each["type"], each["after"]) for each in changed] == [
        ("user.updated", {"name": "Eve"}),
        ("user.deactivated", {"active": False}),
    ]


def test_payloads_are_forgotten_after_their_days(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few at a time, from the oldest; ids, outcomes and changes stay, younger ones are whole, and what is gone is not tried again."""
    monkeypatch.setattr("provisioning.retention.AT_ONCE", 2)
    kept = settings("sqlite:///unused.db", payload_retention_days=30)
    one_by_one(database, [event("user_created", f"u{number}") for number in range(4)])
    failed(database)
    now = datetime.now(UTC)
    ages = dict(zip(["msg_bad", *delivery_rows(database).keys() - {"msg_bad"}], [40, 29, 31, 32, 33], strict=True))
    with database.writing() as session:
        for webhook_id, age in ages.items():
            session.execute(update(deliveries).where(deliveries.c.webhook_id == webhook_id).values(received_at=now - timedelta(days=age)))
    before, log = delivery_rows(database), everything(database)
    retention = Retention(database, kept, lambda: now)
    gone = {webhook_id for webhook_id, age in ages.items() if age > 30}
    left = []
    for _ in range(3):
        retention.tick()
        left.append(sum(told["payload"] is not None for told in delivery_rows(database).values()))
    assert left == [3, 1, 1]
    for webhook_id, told in delivery_rows(database).items():
        purged = {"payload": None, "retry_at": None} if webhook_id in gone else {}
        assert told == {**before[webhook_id], **purged}
    assert everything(database) == log
    make_due(database)
    assert try_again(database) == 0
    with pytest.raises(NotReplayable):
        Inbox(database).replay(["msg_bad"])


def test_what_is_forgotten_meanwhile_is_passed_over(database: Database) -> None:
    """One whose payload goes between the claim and the work costs the others nothing."""
    for webhook_id in ("msg_1", "msg_2"):
        failed(database, webhook_id)
    make_due(database)
    work = Retrying(database, Inbox(database)).claim()
    with database.writing() as session:
        session.execute(update(deliveries).where(deliveries.c.webhook_id == "msg_1").values(payload=None))
    assert work
    work()
    assert {webhook_id: told["outcome"] for webhook_id, told in delivery_rows(database).items()} == {
        "msg_1": "failed",
        "msg_2": "processed",
    }


def test_the_service_tries_again_by_itself(client: TestClient, database: Database) -> None:
    """Its worker does, without a command."""
    failed(database)
    make_due(database)
    until(lambda: client.get("/v1/deliveries/msg_bad").json()["outcome"] == "processed")
    assert row(database)["attempts"] == 2


def test_every_filter_together_finds_the_one(database: Database) -> None:
    """Which is so in every respect, among others that are not in one each."""
    one = {"outcome": "failed", "organization_id": "org_1", "type": "t", "subject_id": "u", "received_at": NOW, "attempts": 1}
    others: list[dict[str, Any]] = [
        {"outcome": "stale"},
        {"organization_id": "org_2"},
        {"type": "s"},
        {"subject_id": "v"},
        {"dismissed_at": NOW},
    ]
    others += [{"received_at": NOW + timedelta(hours=hours)} for hours in (-2, 2)]
    put(database, deliveries, *({**one, **other, "webhook_id": f"msg_{number}"} for number, other in enumerate([{}, *others])))
    hour = timedelta(hours=1)
    wanted = Wanted("failed", "org_1", "t", "u", NOW - hour, NOW + hour, dismissed=False)
    with database.reading() as session:
        assert [each.webhook_id for each in page_of_deliveries(session, wanted, before=NEWEST, limit=9)] == ["msg_0"]


def test_a_sweep_leaves_dismissals_as_they_are(client: TestClient, database: Database) -> None:
    """They are not among what is described unless they are asked for, and even then stay dismissed if they fail again."""
    Inbox(database).receive([delivery(b"{", f"msg_{number}") for number in range(2)])
    Inbox(database).dismiss("msg_0", by="Ada", reason="A test.")
    for asked, replayed in (({}, ["msg_1"]), ({"dismissed": True}, ["msg_0"])):
        told = client.post("/v1/deliveries/replay", params={"outcome": "dead_lettered", **asked}).json()["data"]
        assert [each["webhook_id"] for each in told] == replayed
    assert (row(database, "msg_0")["dismissed_by"], row(database, "msg_0")["attempts"]) == ("Ada", 2)


def test_a_replay_is_cut_into_what_one_transaction_may_hold(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many bodies at once as a batch of webhooks may have."""
    bodies = [event("user_created", f"u{number}", number=number, name="x" * 1000) for number in range(7)]
    Inbox(database).receive([delivery(body, f"msg_{number}") for number, body in enumerate(bodies)])
    monkeypatch.setattr("provisioning.inbox.MAX_BATCH_BYTES", 3 * len(bodies[0]))
    sizes, commit = list[int](), Inbox._commit

    def counted(self: Inbox, letters: Sequence[Letter], *rest: Any, **more: Any) -> list[Receipt]:
        sizes.append(len(letters))
        return commit(self, letters, *rest, **more)

    monkeypatch.setattr(Inbox, "_commit", counted)
    assert len(Inbox(database).replay([f"msg_{number}" for number in range(7)])) == 7
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@pytest.mark.parametrize(
    "moment", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-11-22T09:30:00", "20261122", "0.5", "-1e3"]
)
def test_a_time_that_there_is_not_is_refused(client: TestClient, moment: str) -> None:
    """In UTC there is no such year; without an offset nobody knows when it is; and nobody who writes a number means seconds after 1970."""
    assert client.get("/v1/deliveries", params={"received_after": moment}).status_code == 422
