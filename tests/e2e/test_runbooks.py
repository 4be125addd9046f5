"""From what an operator sees to the mend, as the README's runbooks say: with nothing but the page, the commands and the metrics."""

import json
import re
import signal
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update

from delivering import Delivering, delivering
from factories import event
from faults import AT_STATEMENT, failing
from operators import KEY, Running, until
from provisioning.db.models import reconcile_runs
from provisioning.db.session import Database
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Provider, User

# What is shown is the same on both; which database it is kept in makes a difference elsewhere.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
pytestmark = ON_SQLITE


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Iterator[Delivering]:
    with delivering(tmp_path, database_url) as place:
        yield place


def metric(service: Running, series: str) -> float:
    """The value of one series."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", service.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0


def check(place: Delivering, subject: str) -> str:
    """What `provisioning check` says of it."""
    findings = json.loads(place.operator.run("check", "--json").stdout)["findings"]
    return "\n".join(f"{each['state']} {each['words']}" for each in findings if each["subject"] == subject)


def open_page(page: Page, service: Running, path: str) -> None:
    """Go to a page of the operations page, logging in where that is asked for."""
    page.goto(f"{service.url}{path}")
    if (field := page.get_by_label("API key")).is_visible():
        field.fill(KEY)
        page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{service.url}{path}")


def customer(place: Delivering) -> tuple[str, str]:
    """An organization and its directory, by id."""
    organization = place.emulator.structure.add_organization("Acme")
    return organization.id, place.emulator.structure.add_directory(organization.id, Provider.OKTA).id


def hire(place: Delivering, directory_id: str, name: str) -> User:
    """Somebody new, of whom Scalekit tells."""
    return place.emulator.people.hire(Newcomer("Nova", name, f"{name}@acme.example"), directory_id)


def test_a_wrong_secret(place: Delivering, page: Page) -> None:
    """Nothing is accepted: metric, `check` and page say which setting to compare. With the right one all that was refused arrives."""
    organization_id, directory_id = customer(place)
    wrong = f"whsec_{b64encode(bytes(range(100, 132))).decode()}"
    with place.serving(SCALEKIT_WEBHOOK_SECRET=wrong) as service:
        hire(place, directory_id, "early")
        until(lambda: metric(service, 'provisioning_refusals_total{reason="signature"}') > 0)
        until(lambda: "Compare SCALEKIT_WEBHOOK_SECRET" in check(place, "webhooks"))
        assert "none accepted yet" in check(place, "webhooks")
        open_page(page, service, "/admin")
        expect(page.get_by_role("main")).to_contain_text("Compare SCALEKIT_WEBHOOK_SECRET")
        assert service.end() == 0
    with place.serving() as service:
        assert place.settled()
        assert place.differences(organization_id) == []
        assert "none refused since" in check(place, "webhooks")
        assert metric(service, "provisioning_last_accepted_timestamp_seconds") > 0


def test_a_poison_event(place: Delivering, page: Page, tmp_path: Path) -> None:
    """It fails, and others go on. It is found by what became of it, mended after the fix by a replay; one that needs none is dismissed."""
    operator = place.operator
    (tmp_path / "bad.json").write_bytes(event("user_created", "bad", email="bad@acme.example"))
    (tmp_path / "good.json").write_bytes(event("user_created", "good", email="good@acme.example"))
    (tmp_path / "broken.json").write_text('{"id": "evt_1"}')
    with place.serving() as service, closing(Database(operator.settings["DATABASE_URL"])) as database:
        send = ("send", "--url", f"{service.url}/webhooks/scalekit")
        with failing(database, AT_STATEMENT):
            assert operator.run(*send, "bad.json").returncode == 1
            assert operator.run(*send, "good.json", "broken.json").returncode == 0
            assert metric(service, "provisioning_failed_deliveries") == 1
            assert metric(service, "provisioning_dead_lettered_deliveries") == 1
            assert re.search(r"1 failed, .* next tried again in", check(place, "queue"))
            [failed] = json.loads(operator.run("deliveries", "list", "--outcome", "failed", "--json").stdout)["data"]
            assert "IntegrityError" in failed["error"]
            open_page(page, service, "/admin")
            expect(page.get_by_role("main")).to_contain_text("1 delivery failed")
        open_page(page, service, f"/admin/deliveries/{failed['webhook_id']}")
        page.get_by_role("button", name="Replay").click()
        expect(page.get_by_role("region", name="What it changed")).to_contain_text("came, with access")
        [dead] = json.loads(operator.run("deliveries", "list", "--outcome", "dead_lettered", "--json").stdout)["data"]
        open_page(page, service, f"/admin/deliveries/{dead['webhook_id']}")
        page.get_by_label("Why").fill("A test of ours.")
        page.get_by_role("button", name="Dismiss").click()
        expect(page.get_by_role("main")).to_contain_text("A test of ours.")
        assert "nothing failed or dead-lettered" in check(place, "queue")


def test_a_stuck_run(place: Delivering, page: Page) -> None:
    """Its process is gone, and nobody else has credentials: metric, `check` and page say so. Whoever has them goes on with it."""
    organization_id, directory_id = customer(place)
    hire(place, directory_id, "here")
    with place.serving(PROVISIONING_SCALEKIT_CALLS_PER_SECOND="0.05") as service:  # so slow that it is still at it
        open_page(page, service, f"/admin/organizations/{organization_id}/runs")
        page.get_by_role("button", name="Start a run").click()
        expect(page.get_by_role("main")).to_contain_text("running")
        service.end(signal.SIGKILL)
    with closing(Database(place.operator.settings["DATABASE_URL"])) as database, database.writing() as session:
        session.execute(update(reconcile_runs).values(leased_until=datetime.now(UTC) - timedelta(minutes=5)))  # so long ago
    with place.serving(SCALEKIT_CLIENT_SECRET="") as service:
        assert metric(service, "provisioning_stuck_runs") == 1
        assert "nobody works on it" in check(place, "runs")
        open_page(page, service, "/admin")
        expect(page.get_by_role("main")).to_contain_text("stuck")
        done = place.operator.run("reconcile", organization_id)
        assert (done.returncode, "done" in done.stdout) == (0, True)
        assert "nobody works on it" not in check(place, "runs")
        assert place.differences(organization_id) == []


def test_has_the_leaver_still_access(place: Delivering, page: Page) -> None:
    """Of one whose webhook was lost: yes, and why; a dry run finds it, a run mends it, and then everything says since when, and by what."""
    organization_id, directory_id = customer(place)
    leaver, asked = hire(place, directory_id, "leaver"), "leaver@acme.example"
    with place.serving() as service:
        assert place.settled()
        assert place.operator.run("reconcile", organization_id).returncode == 0
        place.emulator.deliveries.switch({"paused": True})  # or lost, which would take it as long as Scalekit's retries
        place.emulator.people.suspend(leaver.id)
        assert "has access" in place.operator.run("explain", organization_id, asked).stdout
        dry = place.operator.run("reconcile", organization_id, "--dry-run")
        assert (dry.returncode, "active: true → false" in dry.stdout) == (2, True)
        mended = place.operator.run("reconcile", organization_id)
        assert (mended.returncode, "1 users deactivated" in mended.stdout) == (0, True)
        explained = place.operator.run("explain", organization_id, asked).stdout
        assert re.search(r"has no access, since \d{4}-", explained), explained
        assert "lost access" in place.operator.run("history", organization_id, asked).stdout
        open_page(page, service, f"/admin/organizations/{organization_id}")
        page.goto(f"{service.url}/admin/organizations/{organization_id}?who={asked}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Nova leaver")
        expect(page.get_by_role("region", name="History")).to_contain_text("lost access")
        expect(page.get_by_role("region", name="History")).to_contain_text("a run")
