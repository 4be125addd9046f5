"""What fails costs nobody else anything: a failed commit leaves nothing behind, a failing event only itself, kept for a mend."""

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event as sent
from sqlalchemy import text
from structlog.testing import capture_logs

from factories import ORGANIZATION, START, delivery, delivery_rows, event, named, one_by_one, roles, state
from faults import AT_COMMIT, AT_EVERY_COMMIT, AT_STATEMENT, CANARY, failing
from provisioning import dispatcher
from provisioning.db.session import Database
from provisioning.errors import NotFound, NotReplayable
from provisioning.events import Delivery, Event, EventType
from provisioning.inbox import Inbox, Outcome, Receipt
from provisioning.merge import Write


def person(id_: str) -> Delivery:
    """The event that makes a person, under a webhook id named after them."""
    body = event("user_created", id_, email=CANARY if id_ == "bad" else f"{id_}@example.com", groups=named(f"of_{id_}"), roles=roles("r"))
    return delivery(body, f"msg_{id_}")


def outcomes(database: Database, *deliveries: Delivery) -> list[Outcome]:
    """What becomes of these, in one batch."""
    return [receipt.outcome for receipt in Inbox(database).receive(deliveries)]


def everything(database: Database) -> tuple[object, ...]:
    """All that is stored, times included; on PostgreSQL also which transaction wrote each delivery."""
    with database.reading() as session:
        writers = session.execute(text("SELECT xmin::text, ctid::text FROM deliveries")).all() if database.dialect == "postgresql" else []
    return state(database), delivery_rows(database), sorted(map(tuple, writers))


def known(database: Database) -> set[object]:
    """The ids of the directory users and groups that are stored."""
    found = state(database)
    return {id_ for table in ("directory_users", "groups") for _, id_, *_ in found[table]}


def test_a_commit_that_fails_leaves_nothing_half_written(database: Database) -> None:
    """The delivery is not taken for done: kept as `failed`, or raised, which the edge answers 5xx too; sent again, it is applied."""
    batch = [person("good"), person("bad"), person("better")]
    with failing(database, AT_COMMIT):
        assert outcomes(database, *batch) == ["processed", "failed", "processed"]
        assert known(database) == {"good", "of_good", "better", "of_better"}
    assert outcomes(database, *batch) == ["duplicate", "processed", "duplicate"]


def test_a_commit_that_fails_whatever_we_write_leaves_nothing(database: Database) -> None:
    """Not even that it failed could be kept: it raises."""
    before = everything(database)
    with failing(database, AT_EVERY_COMMIT):
        for _ in range(2):
            with pytest.raises(Exception, match=r"CheckViolation|FOREIGN KEY"):
                Inbox(database).receive([person("bad")])
            assert everything(database) == before
    assert outcomes(database, person("bad")) == ["processed"]


def test_an_event_that_fails_leaves_only_itself(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Its delivery is kept as `failed`, with what a mender needs and no values; the others of its batch are processed."""
    first, bad, last = person("first"), person("bad"), person("last")
    with failing(database, AT_STATEMENT):
        receipts = Inbox(database).receive([first, bad, last])
        assert [receipt.outcome for receipt in receipts] == ["processed", "failed", "processed"]
        row = delivery_rows(database)["msg_bad"]
        assert (row["outcome"], row["attempts"], row["processed_at"], row["payload"]) == ("failed", 1, None, bad.body)
        assert row["error"] == receipts[1].error
        assert re.fullmatch(
            r"sqlalchemy\.exc\.IntegrityError \((23514|SQLITE_CONSTRAINT_TRIGGER)\) at [\w/]*provisioning/db/\w+\.py:\d+", str(row["error"])
        )
    assert CANARY not in "".join(capsys.readouterr())
    assert known(database) == {"first", "of_first", "last", "of_last"}
    assert outcomes(database, bad) == ["processed"]


def test_an_event_that_fails_costs_its_neighbours_one_retry(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are, each is applied with it and then alone, and itself no oftener."""
    applied: Counter[str] = Counter()

    def handle(event: Event) -> list[Write]:
        applied[event.subject_id] += 1
        return working(event)

    working = dispatcher.HANDLERS[EventType.USER_CREATED]
    monkeypatch.setitem(dispatcher.HANDLERS, EventType.USER_CREATED, handle)
    people = [f"u{number}" for number in range(15)]
    people.insert(10, "bad")
    with failing(database, AT_STATEMENT):
        assert outcomes(database, *map(person, people)) == ["failed" if id_ == "bad" else "processed" for id_ in people]
    assert applied == dict.fromkeys(people, 2)


def test_a_failed_delivery_is_tried_again_until_it_is_done(database: Database) -> None:
    """By the sender's retry or by a replay; each handling is an attempt, and the first one's arrival stays."""
    bad = person("bad")
    again = replace(bad, received_at=bad.received_at + timedelta(hours=28))
    with failing(database, AT_STATEMENT):
        assert outcomes(database, bad, again) == ["failed", "failed"]
        assert [receipt.outcome for receipt in Inbox(database).replay(["msg_bad"])] == ["failed"]
        assert delivery_rows(database)["msg_bad"]["attempts"] == 3
    assert outcomes(database, again) == ["processed"]
    row = delivery_rows(database)["msg_bad"]
    assert (row["attempts"], row["error"], row["received_at"]) == (4, None, bad.received_at)
    assert row["processed_at"] is not None
    before = everything(database)
    assert outcomes(database, bad) == ["duplicate"]
    assert everything(database) == before


@pytest.mark.parametrize("by_replay", [False, True])
def test_a_handler_with_a_fault_is_no_different(database: Database, monkeypatch: pytest.MonkeyPatch, by_replay: bool) -> None:
    """What our own code raises is kept as its class and place: its message may quote the event."""

    def handle(event: Event) -> list[Write]:
        if event.subject_id == "bad":
            raise ValueError(event.data["email"])
        return working(event)

    working = dispatcher.HANDLERS[EventType.USER_CREATED]
    bad, good = person("bad"), person("good")
    with monkeypatch.context() as patch:
        patch.setitem(dispatcher.HANDLERS, EventType.USER_CREATED, handle)
        assert outcomes(database, bad, good) == ["failed", "processed"]
    error = delivery_rows(database)["msg_bad"]["error"]
    assert re.fullmatch(r"ValueError at [\w/]*dispatcher\.py:\d+", str(error))
    (again,) = Inbox(database).replay(["msg_bad"]) if by_replay else Inbox(database).receive([bad])
    assert again.outcome == "processed"
    row = delivery_rows(database)["msg_bad"]
    assert (row["outcome"], row["attempts"], row["error"]) == ("processed", 2, None)


def test_a_dead_letter_is_kept_and_tried_again(database: Database) -> None:
    """Of another environment, by our settings: when these are mended, the same delivery is applied."""
    letter = person("u")
    elsewhere, here = Inbox(database, environment_id="env_2"), Inbox(database, environment_id="env_1")
    assert [receipt.outcome for inbox in (elsewhere, elsewhere) for receipt in inbox.receive([letter])] == ["dead_lettered"] * 2
    row = delivery_rows(database)["msg_u"]
    assert (row["attempts"], row["payload"], row["processed_at"]) == (2, letter.body, None)
    assert "PROVISIONING_ENVIRONMENT_ID" in str(row["error"])
    assert [receipt.outcome for receipt in here.receive([letter])] == ["processed"]
    row = delivery_rows(database)["msg_u"]
    assert (row["attempts"], row["error"]) == (3, None)
    assert [receipt.outcome for receipt in elsewhere.receive([letter])] == ["duplicate"]


def test_of_an_ignored_event_only_the_envelope_is_kept(database: Database) -> None:
    document = {"id": "evt_7", "type": "organization.renamed", "organization_id": "org_1", "data": {"id": "org_1", "name": CANARY}}
    letter = delivery(json.dumps(document).encode(), "msg_7")
    assert outcomes(database, letter) == ["ignored"]
    row = delivery_rows(database)["msg_7"]
    assert (row["event_id"], row["type"], row["organization_id"], row["subject_id"]) == ("evt_7", "organization.renamed", "org_1", "org_1")
    assert row["payload"] is None
    assert CANARY not in str(row)
    assert outcomes(database, letter) == ["duplicate"]


def test_a_delivery_is_written_once(database: Database) -> None:
    """With all others of its batch, whatever it is and however little of it can be read; one that changes nothing costs nothing else."""
    statements: list[str] = []
    sent.listen(database.engine, "before_cursor_execute", lambda *heard: statements.append(heard[2]))
    told: list[object] = [{"type": "other", "organization_id": "org_1"}, {"data": {"id": "v"}}, {"organization_id": "org_1"}]
    ignored, nobodys, nobody = (json.dumps(each).encode() for each in told)
    batch = [person("u"), *map(delivery, (ignored, b"{", nobodys, nobody, event("user_created", "v", at=10**9)))]
    with capture_logs() as logs:
        assert outcomes(database, *batch) == ["processed", "ignored", *["dead_lettered"] * 4]
    assert (sum("INTO deliveries" in each for each in statements), logs) == (1, [])
    statements.clear()
    Inbox(database).replay(["msg_u"])
    assert sum("INTO deliveries" in each for each in statements) == 1
    statements.clear()
    assert outcomes(database, delivery(ignored)) == ["ignored"]
    _begin, insert = statements
    assert "INTO deliveries" in insert
    statements.clear()
    assert (Inbox(database).replay_kept([]), statements) == ([], [])


def test_a_duplicate_writes_nothing(database: Database) -> None:
    """Whatever its body, and whatever became of the first."""
    done = [person("u"), delivery(event("user_created", "u", at=-1, email="u@example.com", groups=named("of_u")), "msg_stale")]
    assert outcomes(database, *done) == ["processed", "stale"]
    before = everything(database)
    assert outcomes(database, *done) == ["duplicate", "duplicate"]
    assert outcomes(database, delivery(event("user_deleted", "u", at=9), "msg_u"), delivery(b"{", "msg_stale")) == ["duplicate"] * 2
    assert everything(database) == before


def test_one_webhook_id_several_times_in_a_batch(database: Database) -> None:
    """Each is handled after the one before it, as if it had come alone."""
    broken, whole = delivery(b"{", "msg_v"), person("v")
    batch = [person("u"), broken, person("u"), whole, person("u"), whole]
    assert outcomes(database, *batch) == ["processed", "dead_lettered", "duplicate", "processed", "duplicate", "duplicate"]
    rows = delivery_rows(database)
    assert {id_: (row["outcome"], row["attempts"]) for id_, row in rows.items()} == {"msg_u": ("processed", 1), "msg_v": ("processed", 2)}
    assert (rows["msg_v"]["payload"], rows["msg_v"]["error"], rows["msg_v"]["subject_id"]) == (whole.body, None, "v")
    assert len(state(database)["users"]) == 2


def test_events_under_their_own_ids_are_applied_however_often_the_same_is_said(database: Database) -> None:
    """Not the event's id but the delivery's makes a duplicate; what says nothing new is stale."""
    body = event("user_created", "u", groups=named("g"))
    assert one_by_one(database, [body, body]) == ["processed", "stale"]
    assert len(delivery_rows(database)) == 2


def test_a_receipt_tells_what_it_was_about(database: Database) -> None:
    """As its row does; also of what failed, or could not be read."""
    made = delivery(event("user_created", "bad", number=7, at=1), "msg_bad")
    with failing(database, AT_STATEMENT), capture_logs() as logs:
        assert outcomes(database, person("good"), made) == ["processed", "failed"]
    (apart,) = (log for log in logs if log["event"] == "batch_taken_apart")
    assert (apart["error"], apart["size"]) == (delivery_rows(database)["msg_bad"]["error"], 2)
    about = ("evt_7", "organization.directory.user_created", ORGANIZATION, "bad")
    assert Inbox(database).receive([made]) == [Receipt("msg_bad", Outcome.PROCESSED, *about, None, (START + 1) * 10**9)]
    kept = delivery_rows(database)["msg_bad"]
    assert tuple(kept[name] for name in ("event_id", "type", "organization_id", "subject_id")) == about
    assert kept["occurred_at"] == (START + 1) * 10**9
    (refused,) = Inbox(database, environment_id="env_2").receive([replace(made, webhook_id="msg_2")])
    why = "The event is of another environment than PROVISIONING_ENVIRONMENT_ID."
    assert refused == Receipt("msg_2", Outcome.DEAD_LETTERED, *about, why, (START + 1) * 10**9)


def test_a_replay_of_what_is_done_leaves_it_as_it_was(database: Database) -> None:
    """It was processed, and when; another attempt was made."""
    outcomes(database, person("ann"))
    (before,) = delivery_rows(database).values()
    assert [receipt.outcome for receipt in Inbox(database).replay(["msg_ann"])] == ["processed"]
    assert delivery_rows(database) == {"msg_ann": {**before, "attempts": 2}}


def test_a_replay_refuses_what_a_delivery_would_be_refused_for(database: Database) -> None:
    """Of another environment, also when it was done; an inbox of that environment takes it."""
    here, there = Inbox(database, environment_id="env_2"), Inbox(database, environment_id="env_1")
    here.receive([person("ann")])
    assert [inbox.replay(["msg_ann"])[0].outcome for inbox in (here, there, here)] == ["dead_lettered", "processed", "dead_lettered"]


def test_what_is_too_much_for_one_batch_is_handled_in_several(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delivery has its receipt, in order, however many batches it takes."""
    names = [f"msg_{name}" for name in ("ann", "bea", "cid", "dan", "eve")]
    outcomes(database, *(person(name.removeprefix("msg_")) for name in names))
    monkeypatch.setattr("provisioning.inbox.MAX_BATCH_BYTES", 2 * len(person("ann").body))
    assert [(receipt.webhook_id, receipt.outcome) for receipt in Inbox(database).replay(names)] == [(name, "processed") for name in names]


def test_whoever_dismisses_is_told_whether_they_did(database: Database) -> None:
    """And logged, once, by name."""
    Inbox(database).receive([delivery(b"no JSON", "msg_1")])
    with capture_logs() as logs:
        assert [Inbox(database).dismiss("msg_1", by=who, reason="old") for who in ("ann", "bea")] == [True, False]
    said = {"event": "delivery_dismissed", "log_level": "info", "webhook_id": "msg_1", "by": "ann"}
    assert [log for log in logs if log["event"] == "delivery_dismissed"] == [said]
    with pytest.raises(NotFound, match=r"^There is no delivery msg_2\.$"):
        Inbox(database).dismiss("msg_2", by="ann", reason="old")
    with pytest.raises(NotFound, match=r"^There is no delivery msg_2; nothing was replayed\.$"):
        Inbox(database).replay(["msg_1", "msg_2"])
    assert Inbox(database).replay_kept(["msg_2"]) == []
    Inbox(database).receive([delivery(b'{"type": "another"}', "msg_3")])
    with pytest.raises(NotReplayable, match=r"^The payload of this delivery was not kept, so that it cannot be replayed\.$"):
        Inbox(database).replay(["msg_3"])
