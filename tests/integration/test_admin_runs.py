"""Runs on the operations page: asked for, followed, and approved by somebody who knows what that does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from operations import Visit, visiting
from provisioning.db.runs import Run, State
from reconciling import Reconciling, reaching


@pytest.fixture
def operator(reconciling: Reconciling, database_url: str) -> Iterator[Visit]:
    """An operator of the same service with credentials, which works on no runs: that is for the test to do."""
    with visiting(database_url, **reaching(reconciling.emulator)) as visit:
        assert isinstance(visit.client.app, FastAPI)
        visit.client.app.state.services.worker.stop(5)
        assert visit.log_in().status_code == 303
        yield visit


def path(of: Reconciling, run: Run | None = None) -> str:
    """The page of the runs, or of one."""
    return f"/admin/organizations/{of.organization_id}/runs{f'/{run.id}' if run else ''}"


def proposing(reconciling: Reconciling) -> Run:
    """A run that found five of six people gone, and asks."""
    people = reconciling.hire(6)
    reconciling.run()
    reconciling.purge(*people[1:])
    run = reconciling.run()
    assert run.state is State.NEEDS_APPROVAL
    return run


def test_who_approves_types_how_many_people_that_deactivates(reconciling: Reconciling, operator: Visit) -> None:
    """Any other number does nothing, and the page says so; the right one has the run go on, under the approver's name."""
    run = proposing(reconciling)
    page = operator.get(path(reconciling, run)).text
    assert "How many people would be deactivated?" in page
    assert 'http-equiv="refresh"' not in page
    for number in ("4", "", "05", "5.0", "all", "５"):
        refused = operator.do(f"{path(reconciling, run)}/approve", people=number)
        assert (refused.status_code, refused.headers["location"]) == (303, f"{path(reconciling, run)}?did=number-differs")
    assert "Nothing was approved" in operator.get(refused.headers["location"]).text
    assert reconciling.now(run) == run
    assert len([user for user in reconciling.users() if user["active"]]) == 6
    approved = operator.do(f"{path(reconciling, run)}/approve", people="5")
    assert approved.headers["location"] == f"{path(reconciling, run)}?did=run-approved"
    done = reconciling.work(reconciling.now(run))
    assert (done.state, done.approved_by) == (State.DONE, "operator")
    assert len([user for user in reconciling.users() if user["active"]]) == 1
    assert operator.do(f"{path(reconciling, run)}/approve", people="5").status_code == 409
    assert "Approved by</dt><dd>operator</dd>" in operator.get(path(reconciling, run)).text


def test_a_proposal_can_be_refused(reconciling: Reconciling, operator: Visit) -> None:
    """Cancelled by name; nothing is removed, and it cannot be approved any more."""
    run = proposing(reconciling)
    assert operator.do(f"{path(reconciling, run)}/cancel").headers["location"] == f"{path(reconciling, run)}?did=run-cancelled"
    assert reconciling.now(run).error == "Cancelled by operator."
    for action, fields in (("cancel", {}), ("approve", {"people": "5"})):
        assert operator.do(f"{path(reconciling, run)}/{action}", **fields).status_code == 409
    assert len([user for user in reconciling.users() if user["active"]]) == 6


def test_a_run_is_asked_for_and_followed(reconciling: Reconciling, operator: Visit) -> None:
    """Its page asks for itself again until it has ended, then tells what was found; a second request joins, one of the other kind waits."""
    person = reconciling.hire(1)[0]
    started = operator.do(f"{path(reconciling)}/start", kind="dry")
    where = re.fullmatch(rf"({path(reconciling)}/(run_\w+))\?did=run-started", started.headers["location"])
    assert where
    assert f'<meta http-equiv="refresh" content="3;url={where[1]}">' in operator.get(where[1]).text
    assert operator.do(f"{path(reconciling)}/start", kind="dry").headers["location"] == f"{where[1]}?did=run-joined"
    assert operator.do(f"{path(reconciling)}/start", kind="real").status_code == 409
    assert operator.do(f"{path(reconciling)}/start", kind="").status_code == 422
    assert operator.do(f"{path(reconciling)}/start").status_code == 422
    work = reconciling.reconciler.claim([where[2]])
    assert work
    work()
    page = operator.get(where[1]).text
    for said in ("1 users created", "missing here", person.id, "Would change"):
        assert said in page, said
    assert 'http-equiv="refresh"' not in page
    assert reconciling.users() == []
    assert where[1] in operator.get(path(reconciling)).text


def test_directories_say_how_far_behind_the_service_is(reconciling: Reconciling, operator: Visit) -> None:
    """Of each, when its newest event happened there and came here: a directory user's, once a run said whose that is."""
    reconciling.hire(2)
    reconciling.hear()
    reconciling.run()
    page = re.sub(r"\s+", " ", operator.get(f"/admin/organizations/{reconciling.organization_id}/directories").text)
    row = re.search(rf"<code>{reconciling.directory.id}</code>.*?</tr>", page)
    assert row
    assert row[0].count("<time ") == 2
    assert re.search(r'data-label="Lag">\d+ (s|min)<', row[0])
    assert "Complete as of <time" in page
