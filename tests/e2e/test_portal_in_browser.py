"""The admin portal in a real browser, in a frame of a page on another origin: who may show it, what that page hears, what it comes to."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import time_machine
from playwright.sync_api import FrameLocator, Page, expect

from browser import Complaints
from provisioning.emulator.portal import Dialect
from provisioning.emulator.records import Provider

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

HOST = b"""<!doctype html>
<title>An application</title>
<script>
  window.heard = [];
  addEventListener("message", ({ origin, data }) => window.heard.push({ origin, data }));
  addEventListener("DOMContentLoaded", () => {
    const frame = document.createElement("iframe");
    Object.assign(frame, { src: new URLSearchParams(location.search).get("link"), allow: "clipboard-write", width: "100%", height: 600 });
    document.body.append(frame);
  });
</script>
<body></body>
"""

# Notes whom a frame posts to, and posts it.
TARGETS = """
  const around = window.parent;
  window.targets = [];
  const postMessage = (data, target) => { window.targets.push(target); around.postMessage(data, target); };
  if (around !== window) Object.defineProperty(window, "parent", { value: { postMessage } });
"""


class Application(BaseHTTPRequestHandler):
    """A page that embeds the link it is given, and an endpoint that takes every webhook."""

    def do_GET(self) -> None:
        self._answer(200, HOST)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass
class Host:
    """The application around the portal, at `origin`, in a page of the browser."""

    emulator: Emulator
    page: Page
    origin: str

    def embed(self, location: str | None = None, *, origin: str | None = None) -> FrameLocator:
        """Open the application, with the portal of org_1 in it or whatever is at `location`; return the frame."""
        self.page.goto(f"{origin or self.origin}/?link={quote(location or self.link(), safe='')}")
        return self.page.frame_locator("iframe")

    def link(self, features: tuple[str, ...] = ()) -> str:
        """Where a new link leads."""
        return self.emulator.portal.location(self.emulator.portal.make_link("org_1", features))

    def hears(self, *events: str) -> list[dict[str, Any]]:
        """Wait until the application has heard as many messages; check that they are these, in order, and the portal's; return them."""
        self.page.wait_for_function("number => window.heard.length >= number", arg=len(events))
        heard = self.page.evaluate("window.heard")
        assert {message["origin"] for message in heard} == {self.emulator.portal_origin}
        assert [message["data"].get("event_type") or message["data"]["type"] for message in heard] == list(events)
        return [message["data"] for message in heard]


@contextmanager
def application() -> Iterator[int]:
    """Its port, on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def host(tmp_path: Path, page: Page) -> Iterator[Host]:
    """An application that may embed the portal, of an emulator that knows org_1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
        from provisioning.emulator.server import Emulator  # noqa: PLC0415  # 1.2 s, only for whoever asks for an emulator

    with application() as port:
        origin = f"http://127.0.0.1:{port}"
        with Emulator(tmp_path, deliver_to=f"{origin}/webhooks", embedding_origins=["https://app.example.com", origin]) as emulator:
            emulator.structure.add_organization("Acme", "org_1")
            yield Host(emulator, page, origin)


def test_the_page_around_hears_that_the_portal_is_there(host: Host) -> None:
    """And until when."""
    frame = host.embed()

    expect(frame.get_by_text("Acme")).to_be_visible()
    (loaded,) = host.hears("PORTAL_LOAD_SUCCESS")
    assert (loaded["organization_id"], loaded["object"]) == ("org_1", "session")
    assert loaded["data"]["expiry"].endswith("Z")


def test_only_the_page_around_is_spoken_to(host: Host) -> None:
    """By name: neither anybody, nor whoever else may embed the portal."""
    host.page.add_init_script(TARGETS)

    host.embed()

    host.hears("PORTAL_LOAD_SUCCESS")
    assert host.page.frames[1].evaluate("window.targets") == [host.origin]


def test_a_link_opens_once(host: Host, complaints: Complaints) -> None:
    """The second time a clear page is in the frame, and the page around hears of it."""
    complaints.expect("410")
    location = host.link()
    host.embed(location)

    frame = host.embed(location)

    expect(frame.get_by_role("heading")).to_have_text("This link does not open the portal")
    expect(frame.get_by_role("button")).to_have_count(0)
    (failed,) = host.hears("PORTAL_LOAD_FAILURE")
    assert failed["data"] == {"error_code": "SESSION_EXPIRED"}


def test_an_origin_that_is_not_allowed_shows_nothing_and_hears_nothing(host: Host, complaints: Complaints) -> None:
    """The same page under another name."""
    complaints.expect("frame-ancestors")

    frame = host.embed(origin=host.origin.replace("127.0.0.1", "localhost"))

    expect(frame.get_by_text("Acme")).to_have_count(0)
    assert host.page.evaluate("window.heard") == []


def test_without_an_embedding_origin_only_the_emulator_may_embed_it(host: Host, complaints: Complaints) -> None:
    """'self'."""
    complaints.expect("frame-ancestors")
    host.emulator.portal.embedding_origins = ()

    frame = host.embed()

    expect(frame.get_by_text("Acme")).to_have_count(0)


def test_a_directory_is_enabled_and_disabled(host: Host) -> None:
    """In the company, as webhooks that are delivered, and for the page around."""
    frame = host.embed()
    frame.get_by_label("Google Workspace").check()
    frame.get_by_role("button", name="Enable sync from Google Workspace").click()
    frame.get_by_role("button", name="Disable sync from Google Workspace").click()
    expect(frame.get_by_role("button", name="Enable sync from Google Workspace")).to_be_enabled()

    _, enabled, disabled = host.hears("PORTAL_LOAD_SUCCESS", "ORGANIZATION_DIRECTORY_ENABLED", "ORGANIZATION_DIRECTORY_DISABLED")
    (directory,) = host.emulator.company.directories("org_1")
    assert (directory.provider, directory.enabled) == (Provider.GOOGLE, False)
    for event, state in ((enabled, True), (disabled, False)):
        assert event["data"] == {"directory_type": "SCIM", "id": directory.id, "provider": "GOOGLE", "enabled": state}
    events = host.emulator.company.events()
    assert [event.type for event in events] == ["organization.directory_enabled", "organization.directory_disabled"]


def test_the_page_begins_with_the_directory_that_is_there(host: Host) -> None:
    """Chosen, and with what can be done about it."""
    host.emulator.structure.add_directory("org_1", Provider.JUMPCLOUD)

    frame = host.embed()

    expect(frame.get_by_label("JumpCloud")).to_be_checked()
    expect(frame.get_by_role("button", name="Disable sync from JumpCloud")).to_be_visible()


def test_single_sign_on_is_switched(host: Host) -> None:
    """With the provider that is chosen."""
    frame = host.embed(host.link(("sso",)))
    expect(frame.get_by_text("Directory sync")).to_be_hidden()
    frame.get_by_label("Entra ID").check()
    frame.get_by_role("button", name="Enable SSO with Entra ID").click()

    _, enabled = host.hears("PORTAL_LOAD_SUCCESS", "ORGANIZATION_SSO_ENABLED")
    assert enabled["data"]["provider"] == "MICROSOFT_AD"
    assert host.emulator.company.organization("org_1").sso

    frame.get_by_role("button", name="Disable SSO").click()
    host.hears("PORTAL_LOAD_SUCCESS", "ORGANIZATION_SSO_ENABLED", "ORGANIZATION_SSO_DISABLED")
    assert not host.emulator.company.organization("org_1").sso


def test_what_another_page_did_meanwhile_is_said(host: Host, complaints: Complaints) -> None:
    """Instead of doing it twice."""
    complaints.expect("409")
    frame = host.embed()
    host.emulator.structure.add_directory("org_1", Provider.OKTA)

    frame.get_by_role("button", name="Enable sync from Okta").click()

    expect(frame.get_by_text("Directory sync is enabled already.")).to_be_visible()
    expect(frame.get_by_role("button", name="Disable sync from Okta")).to_be_enabled()
    host.hears("PORTAL_LOAD_SUCCESS")


def test_a_session_is_warned_and_ends(host: Host) -> None:
    """By its buttons: what happens by itself after six hours."""
    frame = host.embed()
    frame.get_by_role("button", name="Warn").click()
    expect(frame.get_by_text("This session ends soon")).to_be_visible()
    frame.get_by_role("button", name="Expire").click()

    expect(frame.get_by_role("heading", name="This session has ended")).to_be_visible()
    expect(frame.get_by_role("button")).to_have_count(0)
    loaded, warned, ended = host.hears("PORTAL_LOAD_SUCCESS", "PORTAL_SESSION_WARNING", "PORTAL_SESSION_EXPIRY")
    assert ended["data"]["expiry"] < warned["data"]["expiry"] < loaded["data"]["expiry"]


def test_a_session_is_warned_and_ends_by_itself(host: Host) -> None:
    """Five minutes before its time, and at it, whatever the machine did in between."""
    host.page.clock.install()
    host.embed()
    events, began = ["PORTAL_LOAD_SUCCESS", "PORTAL_SESSION_WARNING", "PORTAL_SESSION_EXPIRY"], datetime.now(UTC)

    for hours, heard in ((5.9, 1), (5.95, 2), (6.05, 3)):
        with time_machine.travel(began + timedelta(hours=hours)):  # the emulator's clock, and then the page's
            host.page.clock.set_system_time(datetime.now(UTC))
            host.page.clock.run_for(2000)
            host.hears(*events[:heard])


def test_a_session_that_ended_elsewhere_does_nothing_more(host: Host, complaints: Complaints) -> None:
    """The page says so when something is pressed."""
    complaints.expect("401")
    session = host.emulator.portal.open(host.emulator.portal.make_link("org_1", ()).id)
    frame = host.embed()
    host.page.context.route(
        "**/portal/directory", lambda route: route.continue_(headers={**route.request.headers, "x-portal-session": session.secret})
    )
    host.emulator.portal.expire(session.secret)

    frame.get_by_role("button", name="Enable sync").click()

    expect(frame.get_by_role("heading", name="This session has ended")).to_be_visible()
    host.hears("PORTAL_LOAD_SUCCESS", "PORTAL_SESSION_EXPIRY")
    assert host.emulator.company.directories("org_1") == []


def test_the_guides_dialect(host: Host) -> None:
    """By a switch; for loading and disabling it has no word."""
    host.emulator.portal.dialect = Dialect.GUIDE
    frame = host.embed()
    frame.get_by_role("button", name="Enable sync").click()
    frame.get_by_role("button", name="Enable SSO").click()
    frame.get_by_role("button", name="Disable SSO").click()
    frame.get_by_role("button", name="Expire").click()

    events = host.hears("SCIM_CONFIGURED", "SSO_CONFIGURED", "SESSION_EXPIRED")
    assert all(list(event) == ["type"] for event in events)


@pytest.mark.parametrize("width", [320, 600])
def test_a_narrow_frame_shows_everything(host: Host, width: int) -> None:
    """Without scrolling sideways; 600 px high is Scalekit's least, and enough from a tablet's width on."""
    host.page.goto(host.link())
    host.page.set_viewport_size({"width": width, "height": 600})

    root = host.page.evaluate("({ width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight })")

    assert root["width"] <= width
    assert width < 600 or root["height"] <= 600
