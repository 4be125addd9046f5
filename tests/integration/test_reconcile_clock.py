"""A run stands and falls with Scalekit's clock."""

from __future__ import annotations

import pytest

from provisioning.db.runs import State
from provisioning.emulator.faults import Door, Fault
from reconciling import Reconciling


@pytest.mark.parametrize("fault", [Fault.BEHIND, Fault.AHEAD])
def test_a_clock_that_differs_by_minutes_fails_the_run_with_the_figure(reconciling: Reconciling, fault: Fault) -> None:
    """And nothing is written: neither would win over what it should, or both over what they should not."""
    reconciling.hire(3)
    with reconciling.emulator.faults.during(Door.CLOCK, fault):
        run = reconciling.run()
    assert run.state is State.FAILED
    assert run.error
    assert any(f"{seconds} s" in run.error for seconds in (599, 600, 601))
    assert (reconciling.users(), reconciling.mark()) == ([], None)
    assert reconciling.run().state is State.DONE
