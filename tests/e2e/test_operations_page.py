"""The operations page in a real browser: by keyboard alone, on a phone, and with markup wherever somebody else chooses a text."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Page, ViewportSize, expect

from browser import Complaints
from databases import Databases
from factories import event
from operations import MARKUP, PAGES, fill
from operators import KEY, SETTINGS, Operator, Running
from provisioning.db.models import deliveries
from provisioning.db.session import Database
from rows import NOW, put

PHONE, DESK = ViewportSize(width=375, height=700), ViewportSize(width=1280, height=900)
BODY = event("user_created", "diruser_1", email="ada@example.com", name="Ada Lovelace")
# Where the focus is: what it is called, and whether that can be seen.
FOCUS = """() => {
  const { activeElement: here } = document;
  const name = (here.labels?.[0] ?? here).textContent.trim().replace(/\\s+/g, " ");
  return [name, getComputedStyle(here).outlineStyle !== "none"];
}"""
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def service(sqlite_databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that holds markup, and a delivery that failed, has a payload, and would not be tried again for long."""
    with sqlite_databases.fresh(migrated=True) as url:
        with closing(Database(url)) as database:
            fill(database)
            here = {"organization_id": "org_1", "type": "organization.directory.user_created", "attempts": 1, "outcome": "failed"}
            put(database, deliveries, {**here, "webhook_id": "msg_failed", "received_at": NOW.replace(day=23), "payload": BODY})
        with Operator(Path(tmp_path_factory.mktemp("operations")), {**SETTINGS, "DATABASE_URL": url}).started("serve") as service:
            yield service


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what is called so has the focus; wherever that goes on the way, it can be seen."""
    for _ in range(80):
        page.keyboard.press("Tab")
        called, visible = page.evaluate(FOCUS)
        assert visible or called == "", called
        if called == name:
            return
    pytest.fail(f"No Tab leads to {name}.")


def log_in(page: Page, service: Running, wanted: str = "/admin") -> None:
    """Go to a page, and log in on the way."""
    page.goto(f"{service.url}{wanted}")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{service.url}{wanted}")


def test_a_failed_delivery_is_mended_by_keyboard_alone(page: Page, service: Running) -> None:
    """From the login over the overview to the replay, with the focus in sight; the session's cookie is kept at http://127.0.0.1."""
    page.goto(f"{service.url}/admin")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page).to_have_title("Overview · Provisioning operations")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUS) == ["Skip to the content", True]
    page.keyboard.press("Enter")
    tab_to(page, "2026-11-23 09:30:00 UTC")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("msg_failed")
    tab_to(page, "Replay")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Replayed")
    expect(page.get_by_role("region", name="processed")).to_be_visible()
    expect(page.get_by_role("region", name="What it changed")).to_contain_text("Ada Lovelace")
    (cookie,) = page.context.cookies()
    assert (cookie.get("name"), cookie.get("httpOnly"), cookie.get("secure"), cookie.get("sameSite"), cookie.get("path")) == (
        "__Host-provisioning",
        True,
        True,
        "Strict",
        "/",
    )
    tab_to(page, "Log out")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("You are logged out.")
    page.go_back()
    expect(page.get_by_label("API key")).to_be_visible()


def test_markup_is_text_and_every_page_fits_a_phone(page: Page, service: Running, complaints: Complaints) -> None:
    """No page runs, loads or asks anything of its own, and none scrolls sideways: in the dark at 375 pixels, by day at 1280."""
    asked: list[str] = []
    dialogs: list[str] = []

    def close(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.context.on("request", lambda request: asked.append(request.url))
    page.on("dialog", close)
    for status in ("404", "422"):
        complaints.expect(f"status of {status}")
    log_in(page, service)
    for dark, size in ((True, PHONE), (False, DESK)):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme="dark" if dark else "light")
        for path in PAGES:
            page.goto(f"{service.url}{path}")
            assert page.evaluate(WIDER) is False, (path, size)
            assert page.locator("img, script").count() == 0
            expect(page.get_by_role("main")).to_contain_text(MARKUP if "nothing" not in path else "no such page")
    assert dialogs == []
    assert {url for url in asked if not url.startswith(f"{service.url}/")} == set()


def test_a_link_from_elsewhere_finds_whoever_is_logged_in(page: Page, service: Running) -> None:
    """The cookie does not come with it, so the login asks for itself again, from here, and leads on."""
    log_in(page, service)
    page.goto(f"{service.url.replace('127.0.0.1', 'localhost')}/health/live")
    page.evaluate("address => { location.href = address }", f"{service.url}/admin/organizations")
    expect(page).to_have_url(f"{service.url}/admin/organizations")
    expect(page.get_by_role("heading", level=1)).to_have_text("Organizations")


def test_no_other_site_logs_a_browser_in(page: Page, service: Running, complaints: Complaints) -> None:
    """A form elsewhere with a key in it is refused."""
    complaints.expect("status of 403")
    elsewhere = f"{service.url.replace('127.0.0.1', 'localhost')}/elsewhere"
    form = f'<form method="post" action="{service.url}/admin/login"><input name="key" value="{KEY}"><button>Win</button></form>'
    page.route(elsewhere, lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto(elsewhere)
    page.get_by_role("button", name="Win").click()
    expect(page.get_by_role("main")).to_contain_text("not sent from a page of this service")
    assert page.context.cookies() == []
