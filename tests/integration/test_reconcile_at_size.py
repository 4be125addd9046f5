"""Reconciling a directory of the size of a company: everybody, once, and nothing twice."""

from __future__ import annotations

import pytest

from provisioning.db.runs import State
from reconciling import Reconciling

PEOPLE = 5000


@pytest.mark.proof
def test_an_empty_database_becomes_a_directory_of_5000(reconciling: Reconciling) -> None:
    """All of it by listing alone; a second run then writes nothing but its own row and the mark."""
    emulator = reconciling.emulator
    with emulator.company.silent():
        groups = [reconciling.group(f"Group {number}") for number in range(20)]
        emulator.structure.map_role(groups[0].id, "admin")
        people = reconciling.hire(PEOPLE)
        emulator.people.settle((user.id, [groups[n % 20].id, groups[n % 7].id]) for n, user in enumerate(people))

    run = reconciling.run()

    assert (run.state, run.changes["users_created"], run.changes["groups_created"]) == (State.DONE, PEOPLE, 20)
    assert [each for each in reconciling.differences() if each.field != "user's roles"] == []
    assert len(reconciling.users(role="admin")) == len({user.id for n, user in enumerate(people) if 0 in {n % 20, n % 7}})
    before = reconciling.dump()
    again = reconciling.run()
    assert (again.state, again.drifted) == (State.DONE, 0)
    assert not any(again.changes.values())
    after = reconciling.dump()
    assert {name for name in before if before[name] != after[name]} <= {"reconcile_runs", "organizations"}
