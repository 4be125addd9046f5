"""Every organization is reconciled once an interval, each at a moment of its own."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from provisioning.reconcile.schedule import due

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
intervals = st.timedeltas(timedelta(minutes=1), timedelta(days=30))
times = st.datetimes(datetime(2026, 2, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # the strategy adds the zone


def test_those_that_never_had_a_run_come_first_then_those_that_wait_longest() -> None:
    """Whatever their moment is."""
    interval = timedelta(hours=1)
    asked = {"b": NOW - 3 * interval, "a": NOW - 2 * interval, "new": None}
    assert due(asked, interval, NOW) == ["new", "b", "a"]


@given(name=st.text(min_size=1), interval=intervals, now=times)
def test_within_an_interval_there_is_exactly_one_moment(name: str, interval: timedelta, now: datetime) -> None:
    """Whoever asked at a moment when it was due is not due again before the next one, which is an interval later at most."""
    assert due({name: now - interval - timedelta(milliseconds=1)}, interval, now) == [name]
    assert due({name: now}, interval, now) == []
    (waits,) = [seconds for seconds in (bisect(name, interval, now),) if seconds is not None]
    assert due({name: now}, interval, now + waits) == [name]
    assert waits <= interval + timedelta(milliseconds=1)
    asked = now + waits
    assert due({name: asked}, interval, asked + interval - timedelta(milliseconds=2)) == []


def bisect(name: str, interval: timedelta, now: datetime) -> timedelta:
    """How long after a request at `now` the next run is due, to a millisecond."""
    no, yes = timedelta(0), interval + timedelta(milliseconds=1)
    while yes - no > timedelta(milliseconds=1):
        middle = no + (yes - no) / 2
        no, yes = (no, middle) if due({name: now}, interval, now + middle) else (middle, yes)
    return yes


def test_organizations_are_spread_over_the_interval() -> None:
    """A thousand of them: in each tenth of it some hundred become due."""
    interval = timedelta(hours=10)
    asked = {f"org_{number}": NOW for number in range(1000)}
    found = [len(due(asked, interval, NOW + timedelta(hours=hour))) for hour in range(1, 11)]
    assert all(60 < later - earlier < 140 for earlier, later in zip([0, *found], found, strict=False))
