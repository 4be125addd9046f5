"""`/portal-demo` of `dev`: a settings page with the admin portal in it, from the login to what the service knows afterwards."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import FrameLocator, Page, expect

from browser import Complaints
from operators import SECONDS, SECRET, Operator, Running, until

REAL = {
    "SCALEKIT_ENVIRONMENT_URL": "https://acme.scalekit.invalid",
    "SCALEKIT_CLIENT_ID": "skc_12345678901234567",
    "SCALEKIT_CLIENT_SECRET": "not-really-a-secret-but-long-enough",
    "PROVISIONING_PORTAL_ORIGINS": "https://auth.example.com",
}
WITHIN = 15_000  # milliseconds: webhook and all


@dataclass(frozen=True)
class Local:
    """What runs after `dev` in an empty folder: the service, and the local Scalekit at `emulator`, which `token` drives."""

    service: Running
    emulator: str
    token: str
    environment: dict[str, str]

    def control(self, action: str, **body: object) -> Any:
        """Do it to the emulator."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.post(f"{self.emulator}/control/{action}", json=body, headers=headers, timeout=SECONDS, trust_env=False)
        return answer.raise_for_status().json()

    def request(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        """Ask the service."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.request(method, f"{self.service.url}{path}", headers=headers, timeout=SECONDS, trust_env=False, **more)

    def organizations(self) -> dict[str, str]:
        """Ids by name."""
        return {each["name"]: each["id"] for each in self.request("GET", "/portal-demo/organizations", self.token).json()}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """One with two organizations."""
    folder = tmp_path_factory.mktemp("demo")
    with Operator(folder).started("dev") as service:
        facts = json.loads((folder / ".provisioning/emulator/control.json").read_text())
        local = Local(service, facts["url"], facts["token"], facts["environment"])
        local.control("add-organization", name="Globex")
        yield local


@pytest.fixture
def settings(page: Page, local: Local) -> Iterator[Page]:
    """The page, opened as the start page leads to it, and left in the end. Its clock can be moved."""
    page.clock.install()
    page.goto(f"{local.service.url}/#token={local.token}")
    page.get_by_role("link", name="A settings page").click()
    yield page
    page.goto("about:blank")


def portal(page: Page) -> FrameLocator:
    """What is in the frame."""
    return page.frame_locator("scalekit-admin-portal iframe")


def known(page: Page, text: str) -> None:
    """Wait for the service to say so."""
    expect(page.get_by_role("region", name="What the service knows")).to_contain_text(text, timeout=WITHIN)


def test_what_is_done_in_the_portal_is_known_to_the_service(settings: Page, local: Local) -> None:
    """The event makes the page look, and the webhook makes it so; neither the page's source nor a log has the link or the secret."""
    known(settings, "OKTA is enabled")
    portal(settings).get_by_role("button", name="Disable sync from Okta").click()
    known(settings, "OKTA is disabled")
    portal(settings).get_by_role("button", name="Enable sync from Okta").click()
    known(settings, "OKTA is enabled")

    log = settings.get_by_role("log")
    expect(log.get_by_role("listitem")).to_have_count(3)
    expect(log).to_contain_text(re.compile("Directory sync was enabled.*Directory sync was disabled.*The portal is there", re.DOTALL))
    identity = (settings.locator("scalekit-admin-portal iframe").get_attribute("src") or "").rpartition("/")[2]
    until(lambda: "portal_link_made" in "".join(local.service.stderr))
    for kept in (settings.content(), "".join(local.service.stderr)):
        assert identity not in kept
        assert local.environment["SCALEKIT_CLIENT_SECRET"] not in kept


def test_the_page_looks_when_the_portal_says_so_and_then_again(settings: Page, local: Local) -> None:
    """The event comes before the webhook; otherwise nobody looks."""
    looks: list[str] = []
    settings.on("response", lambda response: looks.append(response.url) if "/directories?" in response.url else None)
    settings.reload()
    expect(portal(settings).get_by_role("button", name="Disable sync from Okta")).to_be_visible()  # else its time to load runs out, too
    while len(looks) < 4:  # as often as it looks by itself
        settings.clock.run_for(1_000)
    known(settings, "OKTA is enabled")
    local.control("switches", paused=True)
    try:
        with settings.expect_response("**/portal-demo/directories?*"):
            portal(settings).get_by_role("button", name="Disable sync from Okta").click()
        known(settings, "OKTA is enabled")
    finally:
        local.control("switches", paused=False)
    known(settings, "OKTA is disabled")

    portal(settings).get_by_role("button", name="Enable sync from Okta").click()
    known(settings, "OKTA is enabled")


def test_another_organization_is_chosen(settings: Page, local: Local) -> None:
    """Its portal, its directories, and a log of its own."""
    expect(portal(settings).get_by_text("Acme", exact=True)).to_be_visible()
    settings.get_by_label("You are an administrator of").select_option("Globex")

    expect(portal(settings).get_by_text("Globex", exact=True)).to_be_visible()
    known(settings, "The service has not heard of any directory")
    expect(settings.get_by_role("log").get_by_role("listitem")).to_have_count(1)


def test_a_session_ends_and_the_page_goes_on(settings: Page) -> None:
    """With a token and a link of their own."""
    portal(settings).get_by_role("button", name="Expire this session").click()

    expect(settings.get_by_role("log")).to_contain_text("The session has ended")
    expect(portal(settings).get_by_role("button", name="Expire this session")).to_be_visible()
    expect(settings.get_by_role("log").get_by_role("listitem")).to_have_count(3)


def test_a_narrow_page_shows_everything(settings: Page) -> None:
    """Without scrolling sideways."""
    settings.set_viewport_size({"width": 400, "height": 800})
    expect(portal(settings).get_by_text("Acme", exact=True)).to_be_visible()

    assert settings.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_the_emulators_token_it_says_what_to_do(page: Page, local: Local) -> None:
    """Instead of showing nothing."""
    page.goto(f"{local.service.url}/portal-demo")

    expect(page.get_by_role("alert").filter(has_text="Open the link that ./run printed")).to_be_visible()
    expect(page.get_by_label("You are an administrator of")).to_be_disabled()


def test_with_a_wrong_token_it_says_so(page: Page, local: Local, complaints: Complaints) -> None:
    """One of an emulator that is gone."""
    complaints.expect("401")
    page.goto(f"{local.service.url}/#token=wrong")
    page.goto(f"{local.service.url}/portal-demo")

    expect(page.get_by_role("alert").filter(has_text="The organizations cannot be listed")).to_be_visible()


def test_the_page_is_strict(local: Local) -> None:
    """It frames the portal alone, asks this service alone, and tells others its origin alone."""
    answer = local.request("GET", "/portal-demo")

    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "frame-src": local.emulator,
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    for path in ("/portal-demo", "/portal-demo/portal-demo.js", "/portal-demo/portal-demo.css"):
        headers = local.request("GET", path).headers
        assert headers["Referrer-Policy"] == "strict-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
    assert local.request("GET", "/portal-demo/start.html").status_code == 404


def test_the_login_is_the_emulators_owners(local: Local) -> None:
    """Whoever cannot drive the emulator gets no token of its, and no list of its organizations."""
    body = {"organization_id": local.organizations()["Acme"]}
    for token in (None, "wrong", local.control("visitor-token", organization="Acme")["token"]):
        assert local.request("GET", "/portal-demo/organizations", token).status_code == 401
        assert local.request("POST", "/portal-demo/token", token, json=body).status_code == 401
    assert local.request("POST", "/portal-demo/token", local.token, json=body).json()["expires_in"] == 3600
    assert local.request("POST", "/portal-demo/token", local.token, json={"organization_id": "org_nobody"}).status_code == 404
    for wrong in ({}, {"organization_id": ""}, {"organization_id": "a\nb"}):
        assert local.request("POST", "/portal-demo/token", local.token, json=wrong).status_code == 422


def test_directories_are_shown_to_administrators_of_the_organization(local: Local) -> None:
    """As a portal link would be given to them."""
    acme, globex = (f"/portal-demo/directories?organization_id={local.organizations()[name]}" for name in ("Acme", "Globex"))
    token = local.control("visitor-token", organization="Acme")["token"]
    member = local.control("visitor-token", organization="Acme", role="member")["token"]

    (directory,) = local.request("GET", acme, token).json()["data"]
    assert directory["provider"] == "OKTA"
    assert local.request("GET", globex, token).status_code == 403
    assert local.request("GET", acme, member).status_code == 403
    for wrong in (None, "wrong", local.token):
        assert local.request("GET", acme, wrong).status_code == 401


def test_with_a_real_scalekit_the_visitors_own_token_is_asked_for(tmp_path: Path, page: Page, complaints: Complaints) -> None:
    """Kept in the page alone; here it is wrong, which is said. Nobody logs anybody in."""
    complaints.expect("401")
    with Operator(tmp_path, REAL).started("dev") as service:
        answer = httpx.get(f"{service.url}/portal-demo", trust_env=False)
        assert "frame-src https://auth.example.com;" in answer.headers["Content-Security-Policy"]
        for method, path in (("GET", "/portal-demo/organizations"), ("POST", "/portal-demo/token")):
            assert httpx.request(method, f"{service.url}{path}", trust_env=False).status_code in {404, 405}

        page.goto(f"{service.url}/portal-demo")
        expect(page.get_by_label("You are an administrator of")).to_be_hidden()
        page.get_by_label("Organization", exact=True).fill("org_123")
        field = page.get_by_label("The visitor's own token")
        assert field.get_attribute("type") == "password"
        field.fill("a.visitors.token")
        with page.expect_request("**/v1/organizations/org_123/portal-links") as asked:
            page.get_by_role("button", name="Open the settings").click()

        expect(page.get_by_role("alert").filter(has_text="Sign in again")).to_be_visible()
        assert asked.value.headers["authorization"] == "Bearer a.visitors.token"
        expect(field).to_have_value("")
        assert page.evaluate("JSON.stringify({ ...localStorage, ...sessionStorage })") == "{}"
        assert "a.visitors.token" not in page.content() + page.url + "".join(service.stderr)
        page.goto("about:blank")


def test_serve_has_none_of_it(tmp_path: Path) -> None:
    """Whatever is configured."""
    with Operator(tmp_path, {**REAL, "SCALEKIT_WEBHOOK_SECRET": SECRET}).started("serve") as running:
        for path in ("", "/portal-demo.js", "/organizations", "/directories?organization_id=org_1"):
            assert httpx.get(f"{running.url}/portal-demo{path}", trust_env=False).status_code == 404
        assert httpx.post(f"{running.url}/portal-demo/token", trust_env=False).status_code == 404
        assert httpx.get(f"{running.url}/embed/admin-portal.js", trust_env=False).status_code == 200
