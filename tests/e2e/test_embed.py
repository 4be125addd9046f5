"""`<scalekit-admin-portal>` in a real browser, in an application with a strict policy, around the emulator's portal on another origin."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from playwright.sync_api import FrameLocator, Locator, Page, Route, expect

from browser import Complaints
from databases import Databases
from live import listening
from provisioning.api import embed
from provisioning.app import create_app
from provisioning.emulator.portal import Dialect
from service import settings

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

HTML = """<!doctype html><title>An application</title><script type=module src=/page.js></script>
<h1>Settings</h1><section></section><aside></aside>"""
POLICY = "default-src 'none'; script-src 'self' {service}; style-src 'self'; connect-src 'self' {service}; frame-src 'self' http:"
SCRIPT = """
import "/embed/admin-portal.js";
const names = ["portal-ready", "sso-enabled", "sso-disabled", "directory-enabled", "directory-disabled",
  "session-warning", "session-expired", "portal-error"];
window.heard = [];
for (const name of names) document.addEventListener(name, ({ type, detail }) => window.heard.push({ type, ...detail }));
window.element = document.createElement("scalekit-admin-portal");
for (const [name, value] of Object.entries(JSON.parse(decodeURIComponent(location.search.slice(1))))) element.setAttribute(name, value);
document.querySelector("section").append(element);
"""
FOREIGN = """<!doctype html><title>Not the portal</title><script>
  for (const event_type of ["PORTAL_LOAD_SUCCESS", "ORGANIZATION_SSO_ENABLED"]) parent.postMessage({ event_type }, "*");
</script>"""
# How many listeners for messages a page has.
LISTENERS = """
  window.listeners = 0;
  const add = window.addEventListener;
  window.addEventListener = function (type, listener, options) {
    if (type === "message") {
      window.listeners += 1;
      options.signal.addEventListener("abort", () => (window.listeners -= 1));
    }
    return add.call(this, type, listener, options);
  };
"""
# What the element is asked for tokens with, from its first moment on.
CREATED = """
  const create = document.createElement;
  document.createElement = (name) => {
    const element = create.call(document, name);
    if (name === "scalekit-admin-portal") element.getToken = %s;
    return element;
  };
"""
LOAD_WITHIN = 20_000  # milliseconds, as in the module
RETRIES = 4


@dataclass(frozen=True)
class Asked:
    """A request for a link."""

    organization_id: str
    authorization: str | None
    body: Any


@dataclass
class Application:
    """An application's page, and an endpoint that answers what is in `answers` before it makes links; `service`: one elsewhere."""

    emulator: Emulator
    organization_id: str
    origin: str = ""
    service: str = ""
    script: str = SCRIPT
    asked: list[Asked] = field(default_factory=list)
    answers: deque[Response] = field(default_factory=deque)

    def app(self) -> FastAPI:
        """It, to be served."""
        app = FastAPI()
        app.include_router(embed.router)

        @app.get("/")
        def page() -> Response:
            policy = POLICY.format(service=self.service)
            return Response(HTML, media_type="text/html", headers={"Content-Security-Policy": policy})

        @app.get("/page.js")
        def script() -> Response:
            return Response(self.script, media_type="text/javascript")

        @app.get("/favicon.ico")
        def icon() -> Response:
            return Response(status_code=204)

        @app.get("/silent")
        def silent() -> Response:
            return Response("<!doctype html><title>Silent</title><button>Save</button>", media_type="text/html")

        @app.get("/away")
        def away() -> Response:
            return RedirectResponse(self.elsewhere + "/foreign")

        @app.get("/foreign")
        def foreign() -> Response:
            return Response(FOREIGN, media_type="text/html")

        @app.post("/v1/organizations/{organization_id}/portal-links")
        async def portal_links(organization_id: str, request: Request) -> Response:
            self.asked.append(Asked(organization_id, request.headers.get("authorization"), await request.json()))
            return self.answers.popleft() if self.answers else link(self.location(organization_id))

        return app

    @property
    def elsewhere(self) -> str:
        """Another origin, of the same application."""
        return self.origin.replace("127.0.0.1", "localhost")

    def location(self, organization_id: str | None = None) -> str:
        """Where a new link leads."""
        return self.emulator.portal.location(self.emulator.portal.make_link(organization_id or self.organization_id, ()))

    def spent(self) -> str:
        """Where a link leads that was opened before."""
        location = self.location()
        self.emulator.portal.open(location.rpartition("/")[2])
        return location


def link(location: object) -> Response:
    """As the service answers."""
    body = json.dumps({"id": "1", "location": location, "expires_at": "2026-11-22T09:31:00Z"})
    return Response(body, 201, {"Cache-Control": "no-store"}, "application/json")


class Visitor:
    """Somebody who looks at the application's page."""

    def __init__(self, page: Page, application: Application) -> None:
        self.page = page
        self.application = application

    def open(self, **attributes: str) -> None:
        """Open the page, with the element in it."""
        given = {"organization-id": self.application.organization_id, "endpoint": self.application.origin, "token": "visitor"}
        given |= {name.replace("_", "-"): value for name, value in attributes.items()}
        self.page.goto(f"{self.application.origin}/?{quote(json.dumps(given))}")

    def stops_the_clock(self) -> None:
        """The page's time passes when told."""
        self.page.clock.install(time=0)
        self.page.clock.pause_at(1_000)

    @property
    def portal(self) -> FrameLocator:
        """What is in the frame."""
        return self.page.frame_locator("scalekit-admin-portal iframe")

    @property
    def frame(self) -> Locator:
        """The frame itself."""
        return self.page.locator("scalekit-admin-portal iframe")

    @property
    def retry(self) -> Locator:
        """The button of the error state."""
        return self.page.get_by_role("button", name="Try again")

    def hears(self, *types: str) -> list[dict[str, Any]]:
        """Wait until the page has heard as many events; check that they are these; return them."""
        self.page.wait_for_function("number => window.heard?.length >= number", arg=len(types))
        heard: list[dict[str, Any]] = self.page.evaluate("window.heard")
        assert [event["type"] for event in heard] == list(types)
        return heard

    def says(self, words: str) -> None:
        """Wait for the error state, with these words."""
        expect(self.page.get_by_role("alert")).to_contain_text(words)
        expect(self.retry).to_be_visible()
        expect(self.frame).to_have_count(0)

    def shows(self) -> None:
        """Wait for a portal that works."""
        expect(self.portal.get_by_role("button", name="Expire this session")).to_be_visible()
        expect(self.frame).to_be_visible()

    def fails(self, times: int) -> list[dict[str, Any]]:
        """Wait for so many failures in a row, skipping the pauses after them; return them."""
        for number in range(1, times):
            self.hears(*["portal-error"] * number)
            self.page.clock.run_for(1_000 * 2 ** (number - 1))
        return self.hears(*["portal-error"] * times)

    def asks_no_more(self) -> None:
        """However long."""
        asked = len(self.application.asked)
        self.page.clock.run_for(120_000)
        assert len(self.application.asked) == asked


@pytest.fixture
def application(emulator: Emulator, request: pytest.FixtureRequest) -> Iterator[Application]:
    """An application with an organization of its own, at an origin that may embed the portal."""
    organization = emulator.structure.add_organization(f"Acme {len(emulator.company.organizations())}")
    application = Application(emulator, organization.id)
    with listening(application.app()) as application.origin:
        emulator.portal.embedding_origins = [application.origin]
        yield application
    emulator.portal.embedding_origins = ()
    emulator.portal.dialect = Dialect.OFFICIAL


@pytest.fixture
def visitor(page: Page, application: Application) -> Iterator[Visitor]:
    """Somebody who has not opened the page yet, and leaves it in the end."""
    yield Visitor(page, application)
    page.goto("about:blank")


def test_the_portal_is_shown(visitor: Visitor) -> None:
    """In a frame that may write to the clipboard, as wide as its place and 600 px high; and the page hears of it."""
    visitor.open(features="dir_sync, sso")

    visitor.shows()
    (ready,) = visitor.hears("portal-ready")
    assert ready["organizationId"] == visitor.application.organization_id
    assert ready["expiresAt"]
    assert visitor.application.asked == [Asked(visitor.application.organization_id, "Bearer visitor", {"features": ["dir_sync", "sso"]})]
    frame = visitor.frame
    expect(frame).to_have_attribute("allow", "clipboard-write")
    expect(frame).to_have_attribute("title", "Single sign-on and directory sync")
    box = frame.bounding_box()
    around = visitor.page.locator("section").bounding_box()
    assert box
    assert around
    assert (box["height"], box["width"]) == (600, around["width"])


def test_each_load_has_a_link_of_its_own(visitor: Visitor) -> None:
    """They open once."""
    visitor.open()
    first = visitor.frame.get_attribute("src")
    visitor.open()
    visitor.shows()

    assert visitor.frame.get_attribute("src") != first


def test_the_link_is_in_the_frame_alone(visitor: Visitor) -> None:
    """Neither elsewhere in the page, nor in what the page hears, nor in the browser's history."""
    visitor.open()
    visitor.shows()
    visitor.portal.get_by_role("button", name="Enable SSO").click()
    heard = visitor.hears("portal-ready", "sso-enabled")

    source = visitor.frame.get_attribute("src") or ""
    identity = source.rpartition("/")[2]
    shadow = visitor.page.evaluate("element.shadowRoot.innerHTML")
    assert len(identity) > 30
    assert shadow.count(identity) == 1
    assert identity not in visitor.page.content() + json.dumps(heard, default=str) + visitor.page.url
    assert visitor.page.evaluate("history.length") == 2  # about:blank, and the page


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        (Dialect.OFFICIAL, ["sso-enabled", "sso-disabled", "directory-enabled", "directory-disabled"]),
        (Dialect.GUIDE, ["sso-enabled", "directory-enabled"]),
    ],
)
def test_both_dialects_come_to_the_same_events(visitor: Visitor, dialect: Dialect, events: list[str]) -> None:
    """As far as a dialect has words for them: in the guides' one the first word says that the portal is there."""
    visitor.application.emulator.portal.dialect = dialect
    visitor.open()
    for name in ("Enable SSO", "Disable SSO", "Enable sync", "Disable sync"):
        visitor.portal.get_by_role("button", name=name).click()

    heard = visitor.hears("portal-ready", *events)
    assert {event["organizationId"] for event in heard} == {visitor.application.organization_id}
    if dialect is Dialect.OFFICIAL:
        assert heard[3]["provider"] == "OKTA"
        assert heard[3]["id"] == visitor.application.emulator.company.directories(visitor.application.organization_id)[0].id


@pytest.mark.parametrize("dialect", Dialect)
def test_a_session_that_ends_is_followed_by_another(visitor: Visitor, dialect: Dialect) -> None:
    """With a new link, in the same page; whoever worked in the frame works in the next one. Nobody listens to the last one any more."""
    visitor.application.emulator.portal.dialect = dialect
    visitor.page.add_init_script(LISTENERS)
    visitor.open()
    visitor.shows()
    visitor.page.evaluate("window.samePage = true")
    first = visitor.frame.get_attribute("src")

    visitor.portal.get_by_role("button", name="Expire this session").click()

    expect(visitor.page.get_by_role("status")).to_have_text("The session has ended. Opening a new one …")
    expect(visitor.frame).not_to_have_attribute("src", first or "")
    visitor.shows()
    visitor.portal.get_by_role("button", name="Enable SSO").click()
    visitor.hears("portal-ready", "session-expired", "portal-ready", "sso-enabled")
    assert visitor.page.evaluate("window.samePage")
    assert visitor.page.evaluate("element.shadowRoot.activeElement?.tagName") == "IFRAME"
    assert visitor.page.evaluate("listeners") == 1
    assert len(visitor.application.asked) == 2


def test_sessions_that_end_at_once_are_not_renewed_for_ever(visitor: Visitor) -> None:
    """After a few a person is asked."""
    visitor.page.clock.install()
    visitor.open()
    for number in range(1, RETRIES + 2):
        visitor.hears(*["portal-ready", "session-expired"] * (number - 1), "portal-ready")
        visitor.portal.get_by_role("button", name="Expire this session").click()
        visitor.page.wait_for_function("number => heard.filter(({ type }) => type === 'session-expired').length === number", arg=number)
        visitor.page.clock.run_for(1_000 * 2 ** (number - 1))

    visitor.says("no new one could be opened")
    assert visitor.page.evaluate("heard.at(-1)")["reason"] == "session-expired"
    visitor.asks_no_more()


def test_a_warning_is_shown_and_told(visitor: Visitor) -> None:
    """Politely, while the portal stays."""
    visitor.open()
    visitor.portal.get_by_role("button", name="Warn").click()

    expect(visitor.page.get_by_role("status")).to_contain_text("This session ends at ")
    visitor.shows()
    _, warning = visitor.hears("portal-ready", "session-warning")
    assert warning["expiresAt"]


def test_another_frame_is_not_heard(visitor: Visitor) -> None:
    """Though it is the portal's, and of its origin."""
    visitor.open()
    visitor.hears("portal-ready")
    visitor.page.evaluate("addEventListener('message', ({ data }) => (window.last = data.event_type))")
    visitor.page.evaluate(
        "src => document.querySelector('aside').append(Object.assign(document.createElement('iframe'), { src }))",
        visitor.application.location(),
    )
    visitor.page.frame_locator("aside iframe").get_by_role("button", name="Expire this session").click()
    visitor.page.wait_for_function("() => window.last === 'PORTAL_SESSION_EXPIRY'")

    visitor.shows()
    visitor.hears("portal-ready")
    assert len(visitor.application.asked) == 1


@pytest.mark.parametrize("listed", [False, True])
def test_another_origin_is_not_heard(visitor: Visitor, listed: bool) -> None:
    """Though it is in the frame; but one of `origins` is."""
    application = visitor.application
    application.answers.append(link(f"{application.origin}/away"))
    visitor.page.add_init_script("addEventListener('message', ({ data }) => (window.last = data.event_type))")

    visitor.open(**({"origins": f"{application.origin} {application.elsewhere}/"} if listed else {}))

    visitor.page.wait_for_function("() => window.last === 'ORGANIZATION_SSO_ENABLED'")
    visitor.hears(*(["portal-ready", "sso-enabled"] if listed else []))


def test_a_refused_link_is_replaced_then_a_person_is_asked(visitor: Visitor, complaints: Complaints) -> None:
    """Each pause is longer; the button, pressed by keyboard, leads into the portal."""
    complaints.expect("410")
    visitor.application.answers.extend(link(visitor.application.spent()) for _ in range(RETRIES + 1))
    visitor.page.clock.install()
    visitor.open()
    errors = visitor.fails(RETRIES + 1)

    visitor.says("The settings did not open.")
    visitor.asks_no_more()
    assert [(error["reason"], error["retrying"]) for error in errors] == [("load-failed", True)] * RETRIES + [("load-failed", False)]

    visitor.page.keyboard.press("Tab")
    expect(visitor.retry).to_be_focused()
    visitor.page.keyboard.press("Enter")
    visitor.shows()
    visitor.page.wait_for_function("() => element.shadowRoot.activeElement?.tagName === 'IFRAME'")


def test_pauses_grow(visitor: Visitor, complaints: Complaints) -> None:
    """Twice as long each, of which chance takes away half at the most."""
    complaints.expect("410")
    visitor.application.answers.extend(link(visitor.application.spent()) for _ in range(RETRIES + 1))
    visitor.stops_the_clock()
    visitor.open()
    for failures in range(1, RETRIES + 1):
        visitor.hears(*["portal-error"] * failures)
        least = 500 * 2 ** (failures - 1)
        visitor.page.clock.run_for(least - 10)
        assert len(visitor.application.asked) == failures
        visitor.page.clock.run_for(least + 10)
    visitor.says("The settings did not open.")


REFUSALS = [
    (400, None, "asked for something that the service does not know", "invalid-request"),
    (401, None, "Sign in again", "unauthenticated"),
    (403, None, "You may not change these settings", "forbidden"),
    (404, None, "no settings for this organization", "unknown-organization"),
    (422, None, "asked for something that the service does not know", "invalid-request"),
    (429, "45", "Try again in 45 seconds", "busy"),
    (503, "600", "Try again in 10 minutes", "busy"),
    (503, None, "not available at the moment", "busy"),
    (502, None, "could not open the settings", "unavailable"),
]


def test_a_refusal_is_said_in_words(visitor: Visitor, complaints: Complaints, subtests: pytest.Subtests) -> None:
    """And told to the page; the button asks again."""
    for status, retry_after, words, reason in REFUSALS:
        with subtests.test(status=status, retry_after=retry_after):
            complaints.expect(str(status))
            headers = {"Retry-After": retry_after} if retry_after else None
            visitor.application.answers.append(Response('{"detail": "internal"}', status, headers, "application/problem+json"))
            visitor.open()

            visitor.says(words)
            (error,) = visitor.hears("portal-error")
            assert (error["reason"], error["status"], error["retrying"]) == (reason, status, False)
            assert words in error["message"]
            assert "internal" not in json.dumps(error)

            visitor.retry.click()
            visitor.shows()


def test_a_busy_service_gets_the_time_that_it_asks_for(visitor: Visitor, complaints: Complaints) -> None:
    """If that is not long."""
    complaints.expect("503")
    visitor.application.answers.append(Response(status_code=503, headers={"Retry-After": "5"}))
    visitor.stops_the_clock()
    visitor.open()
    visitor.hears("portal-error")
    visitor.page.clock.run_for(4_990)
    assert len(visitor.application.asked) == 1

    visitor.page.clock.run_for(10)

    visitor.shows()
    (error, _) = visitor.hears("portal-error", "portal-ready")
    assert error["retrying"]


def test_a_service_that_cannot_be_reached(visitor: Visitor, complaints: Complaints) -> None:
    """Is tried a few times, and then said to be away."""
    complaints.expect("ERR_FAILED")
    tried: list[str] = []

    def cut(route: Route) -> None:
        tried.append(route.request.url)
        route.abort()

    visitor.page.route("**/portal-links", cut)
    visitor.page.clock.install()
    visitor.open()
    visitor.fails(RETRIES + 1)

    visitor.says("cannot be reached")
    assert len(tried) == RETRIES + 1


def test_a_service_that_does_not_answer(visitor: Visitor) -> None:
    """Is not waited for any longer than half a minute."""
    visitor.page.route("**/portal-links", lambda route: None)
    visitor.page.clock.install()
    with visitor.page.expect_request("**/portal-links"):
        visitor.open()
    with visitor.page.expect_event("requestfailed"):
        visitor.page.clock.run_for(30_000)
    assert visitor.hears("portal-error")[0]["reason"] == "unreachable"


NOT_FRAMED = [
    "http://portal.example.com/magicLink/1",
    "http://127.0.0.1.example.com/magicLink/1",
    "http://localhost@portal.example.com/magicLink/1",
    "javascript:alert(1)",
    "data:text/html,<h1>Hello</h1>",
    "blob:https://portal.example.com/1",
    "/magicLink/1",
    "//127.0.0.1/magicLink/1",
    "https:",
    " ",
]


def test_an_address_where_somebody_might_read_along_is_not_framed(visitor: Visitor, subtests: pytest.Subtests) -> None:
    """Https, or this machine itself."""
    for location in NOT_FRAMED:
        with subtests.test(location):
            visitor.application.answers.append(link(location))
            visitor.open()

            visitor.says("at an address that this page does not trust")
            assert visitor.hears("portal-error")[0]["reason"] == "refused-location"
            assert len(visitor.page.frames) == 1


def test_an_origin_that_is_not_listed_is_not_framed(visitor: Visitor, subtests: pytest.Subtests) -> None:
    """When any are."""
    listed = ("https://portal.example.com", f"https://portal.example.com,{visitor.application.emulator.portal_origin}0")
    for origins in (*listed, "null", "nonsense", "data:,"):
        with subtests.test(origins):
            visitor.open(origins=origins)

            visitor.says("at an address that this page does not trust")
            assert len(visitor.page.frames) == 1


def test_a_listed_origin_is_framed(visitor: Visitor) -> None:
    """In whatever way it is written."""
    visitor.open(origins=f"https://portal.example.com/, {visitor.application.emulator.portal_origin.upper()}/")

    visitor.shows()


def test_an_answer_without_a_link(visitor: Visitor, subtests: pytest.Subtests) -> None:
    """Is a failure of the service."""
    for answer in ("{}", "[]", "null", "no JSON", '{"location": 7}'):
        with subtests.test(answer):
            visitor.application.answers.append(Response(answer, 201))
            visitor.open()

            visitor.says("could not open the settings")
            assert visitor.hears("portal-error")[0]["reason"] == "unavailable"


def silent(visitor: Visitor) -> None:
    """Open a portal that says nothing, for longer than one may."""
    visitor.application.answers.append(link(f"{visitor.application.origin}/silent"))
    visitor.page.clock.install()
    visitor.open()
    expect(visitor.portal.get_by_role("button", name="Save")).to_be_attached()
    visitor.page.clock.run_for(LOAD_WITHIN)


def test_a_silent_portal_is_left_standing(visitor: Visitor) -> None:
    """With a note: it may be blank, since the origin is not registered, or merely say nothing, as all do in the guides' words."""
    silent(visitor)

    expect(visitor.page.get_by_role("status")).to_contain_text("did not say that they are ready")
    expect(visitor.retry).to_be_visible()
    expect(visitor.frame).to_be_visible()
    [error] = visitor.hears("portal-error")
    assert (error["reason"], error["retrying"]) == ("silent", False)
    visitor.asks_no_more()

    visitor.page.frames[1].evaluate("parent.postMessage({ type: 'SCIM_CONFIGURED' }, '*')")
    visitor.hears("portal-error", "portal-ready", "directory-enabled")
    expect(visitor.retry).to_be_hidden()
    expect(visitor.frame).to_be_visible()


def test_the_button_beside_a_silent_portal(visitor: Visitor) -> None:
    """Opens another one."""
    silent(visitor)

    visitor.retry.click()

    visitor.shows()
    expect(visitor.retry).to_be_hidden()


def test_a_silent_portal_that_was_used_is_ready(visitor: Visitor) -> None:
    """Also when the visitor is back in the page around it by the time that one would wonder."""
    visitor.application.answers.append(link(f"{visitor.application.origin}/silent"))
    visitor.page.clock.install()
    visitor.open()
    expect(visitor.portal.get_by_role("button", name="Save")).to_be_attached()
    visitor.page.clock.run_for(2_000)
    visitor.portal.get_by_role("button", name="Save").click()
    visitor.hears("portal-ready")
    visitor.page.locator("h1").click()
    visitor.page.clock.run_for(LOAD_WITHIN)

    visitor.hears("portal-ready")
    expect(visitor.portal.get_by_role("button", name="Save")).to_be_visible()
    visitor.asks_no_more()


def test_another_token_leaves_a_working_portal_alone(visitor: Visitor) -> None:
    """It is used for the next link."""
    visitor.open()
    visitor.hears("portal-ready")
    visitor.page.evaluate("element.setAttribute('token', 'next')")
    visitor.portal.get_by_role("button", name="Expire this session").click()
    visitor.hears("portal-ready", "session-expired", "portal-ready")

    assert [each.authorization for each in visitor.application.asked] == ["Bearer visitor", "Bearer next"]


def test_a_page_that_removes_it_for_an_error_is_rid_of_it(visitor: Visitor, complaints: Complaints) -> None:
    """At once: nothing of it goes on."""
    complaints.expect("401")
    visitor.application.answers.append(Response(status_code=401))
    visitor.page.add_init_script("addEventListener('portal-error', ({ target }) => target.remove())")
    visitor.open()
    visitor.hears("portal-error")

    assert visitor.page.evaluate("element.shadowRoot.querySelector('.stage').dataset.state") == "idle"


@pytest.mark.parametrize("change", ["element.setAttribute('token', 'next')", "element.getToken = () => 'next'"])
def test_another_token_opens_what_the_last_one_did_not(visitor: Visitor, complaints: Complaints, change: str) -> None:
    """Without anybody's pressing a button."""
    complaints.expect("401")
    visitor.application.answers.append(Response(status_code=401))
    visitor.open()
    visitor.says("Sign in again")

    visitor.page.evaluate(change)

    visitor.shows()
    assert visitor.application.asked[1].authorization == "Bearer next"


def test_a_token_that_came_while_the_last_one_was_refused(visitor: Visitor, complaints: Complaints) -> None:
    """Is tried at once."""
    complaints.expect("401")
    visitor.application.answers.append(Response(status_code=401))

    def meanwhile(route: Route) -> None:
        visitor.page.evaluate("element.setAttribute('token', 'next')")
        route.continue_()

    visitor.page.route("**/portal-links", meanwhile, times=1)
    visitor.open()

    visitor.shows()
    visitor.hears("portal-error", "portal-ready")
    assert [each.authorization for each in visitor.application.asked] == ["Bearer visitor", "Bearer next"]


def test_a_page_that_answers_each_refusal_with_a_token_is_stopped(visitor: Visitor, complaints: Complaints) -> None:
    """It would go on for ever when the service takes none of them; from then on a person decides."""
    complaints.expect("401")
    visitor.application.answers.extend(Response(status_code=401) for _ in range(20))
    visitor.page.clock.install()
    visitor.page.add_init_script("addEventListener('portal-error', ({ target }) => target.setAttribute('token', String(Math.random())))")
    visitor.open()
    visitor.fails(RETRIES + 1)

    visitor.says("Sign in again")
    visitor.asks_no_more()


def test_a_callback_is_asked_for_each_token(visitor: Visitor) -> None:
    """It may take its time, comes before the attribute, and may have been there before the element."""
    visitor.page.add_init_script("window.count = 0;" + CREATED % "async () => `token-${++window.count}`")
    visitor.open()
    visitor.hears("portal-ready")
    visitor.page.evaluate("element.reload()")
    visitor.hears("portal-ready", "portal-ready")

    assert [each.authorization for each in visitor.application.asked] == ["Bearer token-1", "Bearer token-2"]


def test_a_property_of_before_the_element_was_known_is_kept(visitor: Visitor) -> None:
    """As a framework sets it, that does not wait for the module."""
    visitor.application.script = """
      window.heard = [];
      document.addEventListener("portal-ready", ({ type }) => heard.push({ type }));
      const early = document.createElement("scalekit-admin-portal");
      early.getToken = () => "early";
      for (const [name, value] of Object.entries(JSON.parse(decodeURIComponent(location.search.slice(1))))) early.setAttribute(name, value);
      document.querySelector("section").append(early);
      await import("/embed/admin-portal.js");
    """
    visitor.open()

    visitor.hears("portal-ready")
    assert [each.authorization for each in visitor.application.asked] == ["Bearer early"]


@pytest.mark.parametrize(
    "callback", ["() => { throw new Error('secret') }", "async () => { throw new Error('secret') }", "() => 'no\\nheader'"]
)
def test_a_callback_that_fails(visitor: Visitor, callback: str) -> None:
    """Is nobody signed in; what it threw is not shown."""
    visitor.page.add_init_script(CREATED % callback)
    visitor.open()

    visitor.says("Sign in again")
    visitor.hears("portal-error")
    assert visitor.application.asked == []


def test_without_a_token_none_is_sent(visitor: Visitor) -> None:
    """An endpoint of the application's own may know its visitors otherwise."""
    visitor.open(token="")
    visitor.shows()

    assert visitor.application.asked[0].authorization is None


def test_another_organization_is_another_portal(visitor: Visitor) -> None:
    """Asked for once, whatever else changes at the same time; the same value again changes nothing."""
    other = visitor.application.emulator.structure.add_organization("Globex")
    visitor.open()
    visitor.hears("portal-ready")
    visitor.page.evaluate(
        """id => {
          element.setAttribute("organization-id", "nobody");
          element.setAttribute("features", "sso");
          element.setAttribute("organization-id", id);
        }""",
        other.id,
    )
    _, ready = visitor.hears("portal-ready", "portal-ready")
    visitor.page.evaluate("id => element.setAttribute('organization-id', id)", other.id)

    assert ready["organizationId"] == other.id
    expect(visitor.portal.get_by_text("Globex")).to_be_visible()
    assert [(each.organization_id, each.body) for each in visitor.application.asked] == [
        (visitor.application.organization_id, {}),
        (other.id, {"features": ["sso"]}),
    ]


def test_without_an_organization_there_is_nothing(visitor: Visitor) -> None:
    """Until there is one."""
    visitor.open(organization_id="")
    visitor.page.wait_for_function("() => window.element")
    assert visitor.page.locator("scalekit-admin-portal").bounding_box()["height"] == 0  # type: ignore[index]

    visitor.page.evaluate("id => element.setAttribute('organization-id', id)", visitor.application.organization_id)

    visitor.shows()
    assert len(visitor.application.asked) == 1


def test_without_a_good_endpoint_it_says_so(visitor: Visitor, subtests: pytest.Subtests) -> None:
    """To people and to the page. In clear, whoever is on the way would have the visitor's token, and the link."""
    for endpoint in ("", "https://", "http://provisioning.example.com", "javascript:alert(1)"):
        with subtests.test(endpoint):
            visitor.open(endpoint=endpoint)

            visitor.says("does not say where to find them")
            assert visitor.hears("portal-error")[0]["reason"] == "configuration"


def test_an_endpoint_may_have_a_path(visitor: Visitor) -> None:
    """As behind a proxy; a slash at its end does not matter."""
    with visitor.page.expect_request("**/portal-links") as asked:
        visitor.page.route(
            "**/portal-links", lambda route: route.fulfill(status=201, body=json.dumps({"location": visitor.application.location()}))
        )
        visitor.open(endpoint="/behind/proxy//")
    visitor.shows()

    assert (
        asked.value.url == f"{visitor.application.origin}/behind/proxy/v1/organizations/{visitor.application.organization_id}/portal-links"
    )


def test_removed_while_it_shows_the_portal(visitor: Visitor) -> None:
    """It asks for nothing and hears nothing more, however long."""
    visitor.page.add_init_script(LISTENERS)
    visitor.page.clock.install()
    visitor.open()
    visitor.hears("portal-ready")
    assert visitor.page.evaluate("listeners") == 1

    visitor.page.evaluate("element.remove()")
    visitor.page.clock.run_for(120_000)

    assert visitor.page.evaluate("listeners") == 0
    assert len(visitor.page.frames) == 1
    assert visitor.page.evaluate("element.shadowRoot.querySelectorAll('iframe').length") == 0
    visitor.hears("portal-ready")
    assert len(visitor.application.asked) == 1


def test_removed_while_it_asks(visitor: Visitor) -> None:
    """The request is given up."""
    visitor.page.route("**/portal-links", lambda route: None)
    visitor.page.clock.install()
    with visitor.page.expect_request("**/portal-links"):
        visitor.open()
    with visitor.page.expect_event("requestfailed"):
        visitor.page.evaluate("element.remove()")
    visitor.page.clock.run_for(120_000)

    visitor.hears()


def test_removed_while_it_waits(visitor: Visitor, complaints: Complaints) -> None:
    """It does not try again."""
    complaints.expect("503")
    visitor.application.answers.append(Response(status_code=503, headers={"Retry-After": "5"}))
    visitor.page.clock.install()
    visitor.open()
    visitor.hears("portal-error")
    visitor.page.evaluate("element.remove()")
    visitor.asks_no_more()


def test_moved_it_has_a_new_link_and_works(visitor: Visitor) -> None:
    """A browser would load the old one again, which opens once."""
    visitor.page.add_init_script(LISTENERS)
    visitor.open()
    visitor.hears("portal-ready")
    visitor.page.evaluate("document.querySelector('aside').append(element)")
    visitor.hears("portal-ready", "portal-ready")

    visitor.shows()
    assert len(visitor.application.asked) == 2
    assert visitor.page.evaluate("listeners") == 1


def test_moved_without_a_break_it_stays_as_it_is(visitor: Visitor) -> None:
    """Where a browser can do that."""
    visitor.open()
    visitor.hears("portal-ready")
    visitor.page.evaluate("document.querySelector('aside').moveBefore(element, null)")
    visitor.portal.get_by_role("button", name="Enable SSO").click()

    visitor.hears("portal-ready", "sso-enabled")
    assert len(visitor.application.asked) == 1


def test_a_page_that_nobody_looks_at_asks_for_no_link(visitor: Visitor) -> None:
    """A tab that was left open for days makes no credentials."""
    visitor.page.add_init_script("""
      window.away = true;
      Object.defineProperty(document, "hidden", { get: () => window.away });
    """)
    visitor.page.clock.install()
    visitor.open()
    expect(visitor.page.get_by_role("status")).to_have_text("Opening the settings …")
    visitor.page.clock.run_for(60_000)
    assert visitor.application.asked == []

    visitor.page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")

    visitor.shows()


def test_other_words_may_be_said(visitor: Visitor, complaints: Complaints) -> None:
    """In the visitor's language."""
    complaints.expect("503")
    visitor.application.answers.append(Response(status_code=503, headers={"Retry-After": "45"}))
    words = '{ language: "de", retry: "Noch einmal", busyFor: "Gerade geht es nicht. Wieder in {wait}." }'
    visitor.application.script = f'import {{ words }} from "/embed/admin-portal.js"; Object.assign(words, {words}); {SCRIPT}'
    visitor.open()

    expect(visitor.page.get_by_role("alert")).to_have_text("Gerade geht es nicht. Wieder in 45 Sekunden.")
    expect(visitor.page.get_by_role("button", name="Noch einmal")).to_be_visible()


def test_a_page_of_another_origin_uses_the_service_itself(visitor: Visitor, sqlite_databases: Databases, complaints: Complaints) -> None:
    """It imports the module and asks for links from there; a token that is another organization's is refused."""
    complaints.expect("403")
    application, emulator = visitor.application, visitor.application.emulator
    configured = {
        "scalekit_environment_url": emulator.url,
        "scalekit_client_id": emulator.tokens.client_id,
        "scalekit_client_secret": emulator.tokens.client_secret,
        "portal_origins": emulator.portal_origin,
        "allowed_origins": application.origin,
        "jwt_issuer": emulator.url,
        "jwt_audience": "portal-demo",
    }
    with sqlite_databases.fresh(migrated=True) as url, listening(create_app(settings(url, **configured))) as application.service:
        application.script = SCRIPT.replace("/embed/", f"{application.service}/embed/")
        visitor.open(endpoint=application.service, token=emulator.tokens.for_visitor("org_1", "admin"))
        visitor.says("You may not change these settings")

        visitor.page.evaluate(
            "token => element.setAttribute('token', token)", emulator.tokens.for_visitor(application.organization_id, "admin")
        )

        visitor.shows()
        visitor.page.goto("about:blank")
    assert application.asked == []
