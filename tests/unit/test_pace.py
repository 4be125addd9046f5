"""How many calls a second: evenly, and nobody is put off without end."""

from provisioning.scalekit.pace import Pace


def test_calls_are_spread_evenly() -> None:
    """Each has a turn of its own, an interval after the one before."""
    pace, rests = Pace(10), list[float]()
    for _ in range(4):
        pace.wait(rests.append)
    assert [round(each, 1) for each in rests] == [0.1, 0.2, 0.3]


def test_who_waits_is_put_off_by_a_few_of_those_who_pass_by_and_not_by_all() -> None:
    """A crowd at the portal would else keep runs from going on for long after it has gone."""
    pace, rests = Pace(10), list[float]()
    for _ in range(10_000):
        pace.pass_by()
    pace.wait(rests.append)
    assert 0.5 < rests[0] <= 1
