"""What is believed of absence: small numbers, never more than half."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.reconcile.guard import ALWAYS, Amount

numbers = st.integers(0, 1000)


@pytest.mark.parametrize(
    ("going", "gone", "present", "goes"),
    [
        (5, 0, 10, True),
        (5, 0, 9, False),
        (6, 0, 29, False),
        (6, 0, 30, True),
        (1, 0, 1, False),
        (1, 0, 2, True),
        (3, 3, 20, False),
        (3, 3, 27, True),
        (0, 400, 600, True),
        (600, 0, 1000, False),
    ],
)
def test_up_to_five_or_a_fifth_go_and_never_more_than_half(going: int, gone: int, present: int, goes: bool) -> None:
    """Of those who were there before anybody went that day."""
    assert (Amount("people", going, gone, present).why_not(0.2) is None) == goes


@given(going=numbers, gone=numbers, stay=numbers, share=st.floats(0, 1))
def test_a_larger_share_lets_no_fewer_go_and_who_went_today_lets_no_more(going: int, gone: int, stay: int, share: float) -> None:
    """And with any share, more than half is never a small number."""
    amount = Amount("groups", going, gone, going + stay)
    if amount.why_not(share) is None:
        assert amount.why_not(1) is None
        assert Amount("groups", going, 0, going + gone + stay).why_not(share) is None
        assert going == 0 or 2 * (going + gone) <= going + gone + stay
    else:
        assert going > 0
        assert going + gone > min(ALWAYS, (going + gone + stay) / 2)


def test_the_reason_gives_the_figures() -> None:
    """For whoever is to decide."""
    assert Amount("people", 30, 0, 100).why_not(0.2) == "30 of 100 people were not listed."
    assert Amount("people", 12, 9, 91).why_not(0.2) == "12 of 91 people were not listed, and 9 have gone within a day."
