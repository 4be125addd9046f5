"""A run stands and falls with Scalekit's clock, and refuses where this machine's is another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clocks import Clock
from provisioning.db.runs import State
from provisioning.emulator.faults import Door, Fault
from provisioning.reconcile.sweep import CLOCK_TOLERANCE
from reconciling import Reconciling

BUSY = 15  # seconds that a busy machine may lose between two looks at a clock
NEARLY = CLOCK_TOLERANCE - BUSY
OFF = st.integers(CLOCK_TOLERANCE + BUSY, 900).flatmap(lambda seconds: st.sampled_from([seconds, -seconds]))
NEAR = st.sampled_from([NEARLY, -NEARLY]) | st.integers(-NEARLY, NEARLY)

# Each is two runs over the wire: 2 for a change, 50 among the proofs.
examples = settings(max_examples=settings().max_examples // 20 + 1, suppress_health_check=[HealthCheck.function_scoped_fixture])


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


@examples
@given(seconds=OFF, dry_run=st.booleans())
def test_a_run_by_a_clock_that_is_off_writes_nothing(reconciling: Reconciling, clock: Clock, seconds: int, dry_run: bool) -> None:
    """Whatever there is to find: people who came, left or changed, and another name for the organization. Its own row says why."""
    desk, structure = reconciling, reconciling.emulator.structure
    structure.set_external_id(desk.organization_id, None)
    staying, leaving = desk.hire(2)
    desk.run()
    desk.hire(1)
    desk.emulator.people.rename(staying.id, given_name="Other")
    desk.purge(leaving)
    structure.set_external_id(desk.organization_id, f"called-{desk.organization_id}")
    before = written(desk)
    with clock.off_by(seconds):
        run = desk.run(dry_run=dry_run)
    assert run.state is State.FAILED
    assert run.error
    assert f"s {'ahead of' if seconds > 0 else 'behind'} Scalekit's: set it right" in run.error
    assert written(desk) == before


@examples
@given(seconds=NEAR)
def test_a_run_by_a_clock_that_is_nearly_right_is_right(
    reconciling: Reconciling, clock: Clock, exact_difference: None, seconds: int
) -> None:
    """The directory is what it finds, and the mark is by Scalekit's clock."""
    desk = reconciling
    [person] = desk.hire(1)
    with clock.off_by(seconds):
        run = desk.run()
        assert run.state is State.DONE
        desk.emulator.people.suspend(person.id)
        assert desk.run().state is State.DONE
    assert desk.differences() == []
    [user] = desk.users(directory_user_id=person.id)
    assert not user["active"]


def written(desk: Reconciling) -> dict[str, list[dict[str, Any]]]:
    """Every row but those of the runs themselves."""
    return {name: rows for name, rows in desk.dump().items() if name != "reconcile_runs"}
