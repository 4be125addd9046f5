"""Lanes, step by step: who has claimed one, how far it came, and what a failing hook is left alone for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, select, update

from application import added
from factories import event, one_by_one, receive
from faults import opened
from provisioning.db import changes as log
from provisioning.db import hooks, lanes
from provisioning.db.hooks import FIRST_PAUSE, LAST_PAUSE, Hook
from provisioning.db.lanes import Lane, Progress
from provisioning.db.models import changes
from provisioning.db.session import Database

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SOON = timedelta(seconds=60)
URL = "http://127.0.0.1:1/hook"


def the_hook(database: Database) -> Hook:
    """The only one, as it stands."""
    with database.reading() as session:
        (hook,) = hooks.all_hooks(session)
        return hook


def spread(database: Database) -> None:
    """Put all that has settled into lanes."""
    with database.reading() as session:
        end = log.settled(session)
    with database.writing() as session:
        lanes.spread(session, the_hook(database), end, NOW)


def claim(database: Database, now: datetime = NOW) -> list[Lane]:
    """Claim what is due then, for a minute."""
    with database.writing() as session:
        return lanes.claim(session, the_hook(database), fresh=9, retried=9, now=now, until=now + SOON)


def settle(database: Database, progress: Progress, now: datetime = NOW) -> list[lanes.DeadLetter]:
    """Write how far a lane came."""
    with database.writing() as session:
        return lanes.settle(session, [progress], now)


def told(lane: Lane) -> Progress:
    """All of it."""
    return Progress(lane, lane.last, told=True)


def failed(lane: Lane) -> Progress:
    """The first of it."""
    return Progress(lane, lane.position, failed=lane.pending[0], error="HTTP 500")


def test_what_comes_while_a_lane_is_told_is_told_next(database: Database) -> None:
    """It is neither told beside, nor lost with what ends."""
    added(database, URL)
    receive(database, event("user_created", "u"))
    spread(database)
    (first,) = claim(database)
    receive(database, event("user_updated", "u", at=1, name="Ada"))
    spread(database)
    assert claim(database) == []
    settle(database, told(first))
    (second,) = claim(database)
    assert [each.type for each in (*first.pending, *second.pending)] == ["user.created", "user.updated"]
    settle(database, told(second))
    with database.reading() as session:
        assert lanes.waiting(session) == {}


def test_a_claim_that_is_over_is_the_next_ones(database: Database) -> None:
    """And what the first one says of it then counts for nothing."""
    added(database, URL)
    receive(database, event("user_created", "u"))
    spread(database)
    (first,) = claim(database)
    assert claim(database, NOW + SOON / 2) == []
    (second,) = claim(database, NOW + SOON)
    assert second.pending == first.pending
    settle(database, told(first))
    with database.reading() as session:
        assert lanes.waiting(session) == {second.hook_id: 1}
    settle(database, told(second))
    with database.reading() as session:
        assert lanes.waiting(session) == {}


def test_pauses_grow_with_the_time_and_end_with_it(database: Database) -> None:
    """A quarter of a second, a hundredth of the time, five minutes; after a day it is given up, and what follows has its turn at once."""
    added(database, URL)
    receive(database, event("user_created", "u"))
    receive(database, event("user_updated", "u", at=1, name="Ada"))
    spread(database)
    now = NOW
    for after, pause in ((0, 0.25), (10, 0.25), (100, 1), (3600, 36), (30_000, 300), (86_399, 300)):
        now = NOW + timedelta(seconds=after)
        (lane,) = claim(database, now)
        assert settle(database, failed(lane), now) == []
        assert claim(database, now + timedelta(seconds=pause * 0.99)) == []
    now = NOW + timedelta(days=1, minutes=5)
    (lane,) = claim(database, now)
    (dead,) = settle(database, failed(lane), now)
    assert (dead.type, dead.attempts) == ("user.created", 7)
    (lane,) = claim(database, now)
    assert [each.type for each in lane.pending] == ["user.updated"]
    settle(database, told(lane), now)


def test_what_follows_a_dead_letter_has_a_day_of_its_own(database: Database) -> None:
    """Above all that somebody lost access, of which nobody was told yet."""
    added(database, URL)
    receive(database, event("user_created", "u"))
    spread(database)
    (lane,) = claim(database)
    settle(database, failed(lane))
    receive(database, event("user_deleted", "u", at=1))
    spread(database)
    with database.writing() as session:  # it happened a moment ago, by the clock of this test
        session.execute(update(changes).where(changes.c.type == "user.deactivated").values(recorded_at=NOW + timedelta(days=1)))
    for now, dead in ((NOW + timedelta(days=1), 1), (NOW + timedelta(days=1, hours=23), 0), (NOW + timedelta(days=2), 1)):
        (lane,) = claim(database, now)
        assert len(settle(database, failed(lane), now)) == dead


def test_what_is_refused_keeps_no_newcomer_waiting(database: Database) -> None:
    """A hook that is there, and takes some messages and not others, is told of others as ever; what it refused is tried again beside."""
    added(database, URL)
    receive(database, *(event("user_created", f"u{number}") for number in range(5)))
    spread(database)
    with database.writing() as session:
        hooks.set_state(session, hooks.after(the_hook(database), told=False, error="HTTP 404", away=False, retry_after=SOON, now=NOW))
    refused = claim(database)
    assert len(refused) == 5
    for each in refused:
        settle(database, failed(each))
    receive(database, event("user_created", "new"))
    spread(database)
    found = claim(database, NOW + timedelta(minutes=6))
    assert sorted(lane.failing_since is not None for lane in found) == [False, True]  # one of those refused: it takes nothing yet


def test_what_failed_while_nobody_was_there_is_due_at_the_return(database: Database) -> None:
    added(database, URL)
    receive(database, event("user_created", "u"))
    spread(database)
    (lane,) = claim(database)
    settle(database, failed(lane), NOW)
    assert claim(database, NOW) == []
    with database.writing() as session:
        lanes.recover(session, the_hook(database), NOW, NOW)
    assert len(claim(database, NOW)) == 1


def test_a_place_never_moves_back(database: Database) -> None:
    """Whoever looked before somebody else spread the log further leaves it there: nothing is told again."""
    added(database, URL)
    receive(database, event("user_created", "u"))
    with database.reading() as session:
        early = log.settled(session)
    receive(database, event("user_updated", "u", at=1, name="Ada"))
    spread(database)
    before = the_hook(database)
    with database.writing() as session:
        assert lanes.spread(session, before, early, NOW) == before.position
    assert the_hook(database) == before


def test_lanes_with_nothing_to_tell_cost_nobody_time(database: Database) -> None:
    """What was forgotten since is skipped, and the next that has something is claimed; also of a hook that fails."""
    added(database, URL)
    receive(database, *(event("user_created", f"u{number}") for number in range(30)))
    spread(database)
    with database.writing() as session:
        session.execute(delete(changes).where(changes.c.position < select(func.max(changes.c.position)).scalar_subquery()))
        hooks.set_state(session, hooks.after(the_hook(database), told=False, error="away", away=True, retry_after=timedelta(0), now=NOW))
    (lane,) = claim(database, NOW + SOON)
    assert len(lane.pending) == 1


def test_a_retry_while_somebody_is_at_work_comes_after(database: Database) -> None:
    """Two messages about one person are never under way; and whoever lost access goes first again."""
    added(database, URL)
    receive(database, event("user_created", "u"))
    one_by_one(database, [event("user_deleted", "u", at=1), event("user_updated", "u", at=2, name="Ada")])
    spread(database)
    (lane,) = claim(database)
    settle(database, failed(lane))
    later = NOW + timedelta(days=9)
    (lane,) = claim(database, later)
    (dead,) = settle(database, failed(lane), later)
    (lane,) = claim(database, later)
    with database.writing() as session:
        assert lanes.retry(session, the_hook(database), None, later) == 1
    assert claim(database, later) == []
    settle(database, told(lane), later)
    (again,) = claim(database, later)
    assert again.pending[0].position == dead.position
    assert again.urgent


def test_a_success_begins_the_time_anew(database: Database) -> None:
    """One message that fails after others were told has failed for no time yet."""
    added(database, URL)
    receive(database, event("user_created", "u"))
    receive(database, event("user_updated", "u", at=1, name="Ada"))
    spread(database)
    (lane,) = claim(database)
    settle(database, failed(lane))
    later = NOW + timedelta(days=2)
    (lane,) = claim(database, later)
    half = Progress(lane, lane.pending[0].position, told=True, failed=lane.pending[1], error="HTTP 500")
    assert settle(database, half, later) == []
    (lane,) = claim(database, later + timedelta(seconds=1))
    assert ([each.type for each in lane.pending], lane.attempts) == (["user.updated"], 1)


def test_a_failing_hook_is_asked_once_in_a_while(database: Database) -> None:
    """What was tried waits for its time, one lane at a time; what never was need not, but for a moment."""
    added(database, URL)
    receive(database, *(event("user_created", f"u{number}") for number in range(4)))
    spread(database)
    lane, *others = claim(database)
    for each in others:
        settle(database, Progress(each, each.position))  # let go of
    settle(database, failed(lane))
    since = NOW - timedelta(hours=1)
    with database.writing() as session:
        before = replace(the_hook(database), failing_since=since)
        hooks.set_state(session, hooks.after(before, told=False, error="cannot be reached", away=True, retry_after=timedelta(0), now=NOW))
    hook = the_hook(database)
    assert (hook.retry_at, hook.fresh_at) == (NOW + timedelta(seconds=36), NOW + FIRST_PAUSE)
    assert claim(database, NOW + FIRST_PAUSE / 2) == []
    (fresh,) = claim(database, NOW + FIRST_PAUSE)
    assert fresh.failing_since is None
    assert claim(database, NOW + timedelta(seconds=5)) == []  # one at a time, of all processes


@pytest.mark.parametrize(
    ("asked", "alone"), [(timedelta(0), FIRST_PAUSE), (timedelta(seconds=9), timedelta(seconds=9)), (timedelta(days=9), LAST_PAUSE)]
)
def test_a_target_may_ask_to_be_left_alone_for_minutes(database: Database, asked: timedelta, alone: timedelta) -> None:
    """But not for days: whoever loses access has to be told."""
    added(database, URL)
    hook = hooks.after(the_hook(database), told=False, error="HTTP 503", away=True, retry_after=asked, now=NOW)
    assert hook.retry_at == hook.fresh_at == NOW + alone
    assert hooks.after(hook, told=True, error=None, away=False, retry_after=timedelta(0), now=NOW).retry_at is None


def test_whoever_claims_waits_for_nobody(postgres_url: str) -> None:
    """What somebody else is claiming at this moment is left to them."""
    with opened(postgres_url) as database:
        added(database, URL)
        receive(database, event("user_created", "u1"), event("user_created", "u2"))
        spread(database)
        with database.writing() as session:
            (one,) = lanes.claim(session, the_hook(database), fresh=1, retried=0, now=NOW, until=NOW + SOON)
            (other,) = claim(database)
        assert one.subject_id != other.subject_id
