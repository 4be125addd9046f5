"""The emulator's company page in a real browser, before a real service: what is done on it arrives there, and it shows what arrived."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from browser import Complaints
from local_scalekit import NOWHERE
from operators import KEY, SETTINGS, Operator, Running
from provisioning.emulator.faults import KNOWN, Door
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Provider

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

VIEWS = ("people", "groups", "deliveries", "switches", "play", "portal")
MARKUP = "<img src=x onerror=alert(1)>"
SAME = "Same as the directory"
ON_ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the databases' differences are not the page's


class Desk:
    """Somebody at the page, and what the service says meanwhile over its own API."""

    def __init__(self, page: Page, emulator: Emulator, service: Running, organization: str) -> None:
        self.page = page
        self.emulator = emulator
        self.service = service
        self._organization = organization

    def open(self, view: str = "people") -> None:
        """Open the page as the link that ./run prints does."""
        self.page.goto(f"{self.emulator.portal_origin}/#token={self.emulator.control_token}&view={view}")
        expect(self.page.get_by_role("navigation", name="Views")).to_be_visible()

    def person(self, name: str) -> Locator:
        """The row of a person."""
        return self.page.get_by_role("list", name="People").get_by_role("listitem", name=name, exact=True)

    def press(self, label: str) -> None:
        """Press the button that is called exactly this."""
        self.page.get_by_role("button", name=label, exact=True).click()

    def fill(self, form: str, **fields: str) -> Locator:
        """Fill in the form that is called so, by its labels; returns it."""
        found = self.page.get_by_role("form", name=form)
        for label, text in fields.items():
            found.get_by_label(label.replace("_", " ")).fill(text)
        return found

    def equal(self, name: str) -> None:
        """The page shows that the service says the same of the person."""
        service = self.person(name).get_by_role("region", name="In the service")
        expect(service).to_have_attribute("data-verdict", "equal", timeout=15_000)
        expect(service).to_contain_text(SAME)

    def service_says(self, email: str) -> dict[str, Any]:
        """The service's one user of this address, without the ids of groups."""
        found = self.service.get(f"/v1/organizations/{self._organization}/users?{httpx.QueryParams(email=email)}").json()["data"]
        assert len(found) == 1, found
        return {**found[0], "groups": sorted(group["name"] for group in found[0]["groups"])}


def emulator_class() -> type[Emulator]:
    """The class, imported when it is needed: that takes 1.2 s, and warns of the SDK's models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from provisioning.emulator import server  # noqa: PLC0415
    return server.Emulator


@contextmanager
def company(folder: Path, database_url: str) -> Iterator[tuple[Emulator, Running]]:
    """An emulator with an Okta directory in Acme, which delivers to a service that accepts its signatures."""
    with emulator_class()(folder / "emulator", deliver_to=NOWHERE) as first:  # each side needs to know something of the other
        secrets = first.endpoint.secrets
    settings = {**SETTINGS, "SCALEKIT_WEBHOOK_SECRET": " ".join(secrets), "DATABASE_URL": database_url}
    with Operator(folder, settings).started("serve") as service:
        deliver_to = f"{service.url}/webhooks/scalekit"
        with emulator_class()(folder / "emulator", deliver_to=deliver_to, service_key=KEY) as emulator:
            organization = emulator.structure.add_organization("Acme")
            emulator.structure.add_directory(organization.id, Provider.OKTA)
            for name in ("Engineering", "Sales"):
                emulator.structure.add_group(name)
            yield emulator, service


@pytest.fixture
def desk(page: Page, tmp_path: Path, database_url: str) -> Iterator[Desk]:
    """Acme's page, not opened yet."""
    with company(tmp_path, database_url) as (emulator, service):
        yield Desk(page, emulator, service, emulator.company.organization("Acme").id)
        page.goto("about:blank")  # or its last requests meet nobody


@ON_ONE
def test_what_is_done_to_a_person_arrives(desk: Desk) -> None:
    """Hired, mapped, renamed, moved, regrouped, suspended, restored, fired and purged: each as the service itself says it afterwards."""
    desk.open()
    desk.page.get_by_text("Hire somebody").click()
    hire = desk.fill("Hire", Given_name="Ada", Family_name="Lovelace", Title="Analyst", Department="Engineering")
    hire.get_by_label("Engineering").check()
    hire.get_by_role("button", name="Hire").click()
    desk.equal("Ada Lovelace")
    ada = desk.service_says("ada.lovelace@acme.example")
    assert (ada["active"], ada["groups"], ada["roles"]) == (True, ["Engineering"], ["member"])
    expect(hire.get_by_label("Given name")).to_have_value("")

    desk.page.get_by_role("link", name="Groups").click()
    desk.press("Map Engineering to a role")
    desk.fill("Save role Engineering", Role="admin").get_by_role("button", name="Save role").click()
    expect(desk.page.get_by_role("listitem", name="Engineering")).to_contain_text("admin")
    desk.page.get_by_role("link", name="People").click()
    expect(desk.person("Ada Lovelace").get_by_role("region", name="In the service")).to_contain_text("admin")
    desk.equal("Ada Lovelace")
    assert desk.service_says("ada.lovelace@acme.example")["roles"] == ["admin"]

    desk.press("Rename Ada Lovelace")
    desk.fill("rename Ada Lovelace", Family_name="King", **{"E-mail": "ada.king@acme.example"}).get_by_role("button", name="Rename").click()
    desk.equal("Ada King")
    assert desk.service_says("ada.king@acme.example")["id"] == ada["id"]

    desk.press("Move Ada King")
    desk.fill("move Ada King", Department="Sales").get_by_role("button", name="Move").click()
    expect(desk.person("Ada King")).to_contain_text("Analyst · Sales")
    desk.equal("Ada King")
    assert desk.service_says("ada.king@acme.example")["groups"] == ["Sales"]

    desk.press("Groups Ada King")
    choices = desk.page.get_by_role("form", name="regroup Ada King")
    choices.get_by_label("Engineering").check()
    choices.get_by_label("Sales").uncheck()
    choices.get_by_role("button", name="Save groups").click()
    expect(desk.person("Ada King").get_by_role("region", name="In the directory")).not_to_contain_text("Sales")
    desk.equal("Ada King")
    assert desk.service_says("ada.king@acme.example")["groups"] == ["Engineering"]

    for action, active in (("Suspend", False), ("Restore", True), ("Fire", False), ("Restore", True)):
        desk.press(f"{action} Ada King")
        state = "active" if active else "inactive"
        shown = desk.person("Ada King").get_by_role("region", name="In the service").get_by_text(state, exact=True)
        expect(shown).to_be_visible(timeout=15_000)
        desk.equal("Ada King")
        assert desk.service_says("ada.king@acme.example")["active"] is active, action

    desk.press("Purge Ada King")
    desk.press("Purge for good")
    expect(desk.person("Ada King")).to_have_count(0)
    assert desk.emulator.deliveries.settled(15)
    assert desk.service_says("ada.king@acme.example")["active"] is False


@ON_ONE
def test_a_difference_and_a_silent_service_are_shown(desk: Desk) -> None:
    """What has not arrived is a difference; what cannot be asked is neither equal nor different; both pass when things are well again."""
    desk.emulator.people.hire(Newcomer("Grace", "Hopper", "grace@acme.example"))
    desk.open()
    desk.equal("Grace Hopper")
    desk.emulator.deliveries.switch({"delay": 3600})

    desk.press("Suspend Grace Hopper")

    verdict = desk.person("Grace Hopper").get_by_role("region", name="In the service")
    expect(verdict).to_have_attribute("data-verdict", "differs")
    expect(verdict).to_contain_text("Differs: state")
    assert desk.service_says("grace@acme.example")["active"] is True
    assert desk.service.end() == 0
    expect(verdict).to_have_attribute("data-verdict", "away", timeout=15_000)


@pytest.fixture
def quiet(page: Page, tmp_path: Path) -> Iterator[Emulator]:
    """An emulator with Acme that delivers to nobody and asks nobody."""
    with emulator_class()(tmp_path / "emulator", deliver_to="http://127.0.0.1:9/") as emulator:
        emulator.structure.add_organization("Acme")
        emulator.structure.add_directory("Acme", Provider.OKTA)
        yield emulator
        page.goto("about:blank")


def opened(page: Page, emulator: Emulator, view: str = "people") -> None:
    """Open a view with the token, and wait until the emulator has answered."""
    page.goto(f"{emulator.portal_origin}/#token={emulator.control_token}&view={view}")
    expect(page.get_by_role("heading", level=2)).to_have_text(view.title())


def test_names_are_text(page: Page, quiet: Emulator) -> None:
    """Markup in what anybody may call himself, or a group, or a company, is shown as it is written."""
    quiet.structure.add_organization(f"Co {MARKUP}")
    quiet.structure.add_group(f"Group {MARKUP}")
    quiet.people.hire(Newcomer(MARKUP, "Tables", "x@acme.example", f"Title {MARKUP}", MARKUP, [f"Group {MARKUP}"]))
    quiet.structure.map_role(f"Group {MARKUP}", f"role {MARKUP}")
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))

    opened(page, quiet)
    expect(page.get_by_role("heading", level=3)).to_have_text(f"{MARKUP} Tables")
    expect(page.get_by_role("listitem", name="Tables")).to_contain_text(f"Title {MARKUP}")
    opened(page, quiet, "groups")
    expect(page.get_by_role("listitem", name=f"Group {MARKUP}")).to_contain_text(f"role {MARKUP}")
    opened(page, quiet, "deliveries")
    page.get_by_text("Attempts and body").first.click()
    expect(page.get_by_label("Body of the event")).to_contain_text("<img")

    assert page.locator("img").count() == 0


def test_without_the_token_nothing_can_be_done(page: Page, complaints: Complaints, quiet: Emulator) -> None:
    """No token shows the way to it; a wrong one is refused in words; the right one is let in, kept, and never in the address."""
    complaints.expect("401")
    page.goto(quiet.portal_origin)
    expect(page.get_by_text(".provisioning/emulator/token")).to_be_visible()
    assert page.get_by_role("button").all_text_contents() == ["Open"]

    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.locator(".note.error")).to_contain_text("The token is missing or wrong")
    assert page.get_by_role("button").all_text_contents() == ["Open"]

    page.get_by_label("Token").fill(quiet.control_token)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("combobox", name="Organization")).to_be_visible()
    page.reload()
    expect(page.get_by_role("combobox", name="Organization")).to_be_visible()

    page.evaluate("sessionStorage.clear()")
    page.goto(f"{quiet.portal_origin}/?again#token={quiet.control_token}&view=play")
    expect(page.get_by_role("heading", level=2)).to_have_text("Play")
    assert quiet.control_token not in page.url


def test_a_narrow_window_shows_everything(page: Page, quiet: Emulator) -> None:
    """In every view, without scrolling sideways, with long names and everything that folds out folded out."""
    long = "Verylongnamewithoutanyplacetobreakit" * 3
    quiet.structure.add_group(long)
    quiet.people.hire(Newcomer(long, long, f"{long}@acme.example", long, long, [long]))
    page.set_viewport_size({"width": 380, "height": 800})
    for view in VIEWS:
        opened(page, quiet, view)

        for summary in page.locator("summary").all():
            summary.click()
        for expander in page.locator("main [aria-expanded=false]").all()[:1]:
            expander.click()

        assert page.evaluate("document.documentElement.scrollWidth") == 380, view


def test_typing_survives_what_happens_meanwhile(page: Page, quiet: Emulator) -> None:
    """Somebody else hires, and renames the very person: what is half typed stays, in the field that has the focus."""
    ada = quiet.people.hire(Newcomer("Ada", "Lovelace", "ada@acme.example"))
    opened(page, quiet)
    page.get_by_role("button", name="Rename Ada Lovelace").click()
    field = page.get_by_role("form", name="rename").get_by_label("Family name")
    field.fill("Kin")

    quiet.people.hire(Newcomer("Grace", "Hopper", "grace@acme.example"))
    quiet.people.rename(ada.id, given_name="Augusta")
    expect(page.get_by_role("heading", level=3)).to_have_text(["Grace Hopper", "Augusta Lovelace"])

    expect(field).to_be_focused()
    field.press_sequentially("g")
    expect(field).to_have_value("King")


def test_a_refusal_is_said_where_it_happened(page: Page, complaints: Complaints, quiet: Emulator) -> None:
    """In the API's words, in the form, with what was typed still in it."""
    complaints.expect("409")
    quiet.people.hire(Newcomer("Ada", "Lovelace", "ada@acme.example"))
    opened(page, quiet)
    page.get_by_text("Hire somebody").click()
    form = page.get_by_role("form", name="Hire")
    for label, text in {"Given name": "Another", "Family name": "Ada", "E-mail": "ada@acme.example"}.items():
        form.get_by_label(label).fill(text)

    form.get_by_role("button", name="Hire").click()

    expect(form.locator(".note.error")).to_contain_text("has the address ada@acme.example already")
    expect(form.get_by_label("Given name")).to_have_value("Another")
    expect(page.get_by_role("status")).to_contain_text("has the address ada@acme.example already")


def test_switches_faults_and_rotation(page: Page, quiet: Emulator) -> None:
    """Each takes effect at once, and one button takes all of them back."""
    opened(page, quiet, "switches")
    page.get_by_label("Duplicates").fill("0.5")
    page.get_by_label("Duplicates").press("Enter")
    page.get_by_label("Directory API").select_option("away")
    expect(page.locator(".switch.changed .note.done")).to_have_count(2)
    assert (quiet.deliveries.switches.duplicates, quiet.faults.current()[Door.API]) == (0.5, "away")

    page.get_by_role("button", name="Begin a rotation").click()
    expect(page.get_by_role("button", name="Finish the rotation")).to_be_visible()
    assert quiet.endpoint.rotating

    page.get_by_role("button", name="All back to normal").click()
    expect(page.get_by_text("Everything is back to normal.").first).to_be_visible()
    expect(page.locator(".switch.changed")).to_have_count(0)
    assert (quiet.deliveries.switches.duplicates, quiet.faults.current()[Door.API]) == (0, None)


def test_every_fault_that_there_is_can_be_chosen(page: Page, quiet: Emulator) -> None:
    """At each door those that are known there, in their order."""
    opened(page, quiet, "switches")
    labels = {
        "Tokens": Door.OAUTH,
        "Directory API": Door.API,
        "Directories": Door.DIRECTORIES,
        "List of users": Door.USERS,
        "List of groups": Door.GROUPS,
        "Clock": Door.CLOCK,
    }
    for label, door in labels.items():
        offered = page.get_by_label(re.compile(rf"^{label}")).locator("option")
        expect(offered).to_have_count(1 + len(KNOWN[door]))
        assert offered.evaluate_all("all => all.map(({ value }) => value)") == ["", *KNOWN[door]]
    assert set(labels.values()) == set(KNOWN)


@ON_ONE
def test_a_delivery_given_up_is_sent_again(desk: Desk) -> None:
    """It is found by the filter, with why each attempt failed; sent again, it arrives, and the service's word stands beside it."""
    url, desk.emulator.endpoint.url = desk.emulator.endpoint.url, "http://127.0.0.1:9/"
    desk.emulator.deliveries.switch({"retry_scale": 1e-9})
    desk.emulator.people.hire(Newcomer("Ada", "Lovelace", "ada@acme.example"))
    assert desk.emulator.deliveries.settled(15)
    desk.emulator.endpoint.url = url
    desk.open("deliveries")
    desk.page.get_by_label("Show").select_option("given_up")
    row = desk.page.get_by_role("listitem", name="user_created ada@acme.example")
    expect(row).to_contain_text("ConnectError")

    row.get_by_role("button", name="Send again").click()

    expect(row).to_have_count(0)
    desk.page.get_by_label("Show").select_option("")
    expect(row).to_contain_text("201 processed")
    expect(row.get_by_role("region", name="In the service")).to_contain_text("active")
    assert desk.service_says("ada@acme.example")["active"] is True


@ON_ONE
def test_a_first_sync_is_played_and_compared(desk: Desk) -> None:
    """With its progress; and afterwards the service is found to be equal."""
    desk.open("play")
    sync = desk.fill("First sync", Users="60", Per_second="1000")
    sync.get_by_role("button", name="Start the sync").click()
    expect(desk.page.get_by_role("region", name="Job")).to_contain_text("done", timeout=30_000)
    assert desk.emulator.deliveries.settled(30)

    desk.press("Compare with the service")

    expect(desk.page.locator(".note.equal")).to_have_text("60 people compared: everything is equal.")
    desk.page.get_by_role("link", name="People").click()
    expect(desk.page.get_by_text("1–50 of 60")).to_be_visible()
    desk.press("Next")
    expect(desk.page.get_by_text("51–60 of 60")).to_be_visible()


def test_a_long_job_can_be_cancelled(page: Page, quiet: Emulator) -> None:
    """And says so."""
    opened(page, quiet, "play")
    page.get_by_label("Per second").fill("1")
    page.get_by_role("button", name="Start the sync").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("region", name="Job")).to_contain_text("cancelled")


def test_the_portal_opens_with_a_fresh_link(page: Page, context: BrowserContext, quiet: Emulator) -> None:
    """In a tab of its own, which cannot reach back."""
    opened(page, quiet, "portal")
    with context.expect_page() as opening:
        page.get_by_role("button", name="Open in a new tab").click()
    portal = opening.value
    portal.wait_for_url(re.compile("/magicLink/|/portal"))
    assert portal.evaluate("window.opener") is None
    page.get_by_label("Dialect").select_option("guide")
    expect(page.locator(".note.done")).to_have_text("The portal speaks it from now on.")
    assert quiet.portal.dialect == "guide"
    portal.close()


def test_a_lost_connection_is_said_and_passes(page: Page, context: BrowserContext, complaints: Complaints, quiet: Emulator) -> None:
    """By itself, as soon as the emulator answers again."""
    complaints.expect("ERR_INTERNET_DISCONNECTED")
    opened(page, quiet)
    context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("The connection to the emulator is lost")
    context.set_offline(False)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_directory_is_added_disabled_and_deleted(page: Page, quiet: Emulator) -> None:
    """Each after its own button, and the last one only when confirmed."""
    opened(page, quiet)
    page.get_by_text("Add …").click()
    page.get_by_label("Provider").select_option("GOOGLE")
    page.get_by_role("button", name="Add directory").click()
    google = page.get_by_role("listitem", name="Google")
    expect(google.get_by_role("button", name="Google")).to_have_attribute("aria-pressed", "true")

    google.get_by_role("button", name="Disable").click()
    expect(google).to_contain_text("disabled")
    google.get_by_role("button", name="Delete", exact=True).click()
    google.get_by_role("button", name="Delete for good").click()
    expect(google).to_have_count(0)

    assert [each.provider for each in quiet.company.directories(quiet.company.organization("Acme").id)] == [Provider.OKTA]


def test_only_the_pages_files_are_served_and_under_its_policy(quiet: Emulator) -> None:
    """Nothing is inline, nothing comes from elsewhere, nobody may frame it."""
    with httpx.Client(base_url=quiet.portal_origin, trust_env=False) as client:
        answer = client.get("/")
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert client.get("/web/company/people.js").headers["content-type"].startswith("text/javascript")
        for path in ("/web/company.html", "/web/company/none.js", "/web/..%2fserver.py", "/web/company/"):
            assert client.get(path).status_code == 404, path
