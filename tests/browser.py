"""A real browser for tests: Debian's chromium, a fresh profile a test, and no complaint of a page goes unheard.

Where there is no chromium these tests are skipped, and the last line of the run says so; with REQUIRE_BROWSER=1 they fail.
"""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = f"there is no {', '.join(NAMES[:-1])} or {NAMES[-1]} on PATH"
FLAGS = (
    "--no-sandbox",  # which chromium refuses to root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# What a policy stops inside a `try`, such as eval, is nowhere on the console.
TELL = """addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) =>
  console.error(`Content Security Policy: ${effectiveDirective} stops ${blockedURI}`));"""


class Complaints:
    """What pages complained of: errors on the console, violations of a content security policy among them, and uncaught exceptions."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._expected: list[str] = []

    def listen(self, context: BrowserContext) -> None:
        """To every page of `context`, and every frame in it."""
        context.add_init_script(TELL)
        context.on("console", self._console)
        context.on("weberror", self._uncaught)

    def expect(self, part: str) -> None:
        """Complaints with `part` in them are meant: at least one must come."""
        self._expected.append(part)

    def verdict(self) -> list[str]:
        """What was heard and not expected, and what was expected and not heard."""
        unexpected = [text for text in self._heard if not any(part in text for part in self._expected)]
        silent = [f"Expected, and not heard: {part}" for part in self._expected if not any(part in text for text in self._heard)]
        return unexpected + silent

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._heard.append(f"{message.text} ({message.location.get('url', '')})")

    def _uncaught(self, error: WebError) -> None:
        self._heard.append(f"Uncaught: {error.error}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser a module: while Playwright is there an event loop of its runs in this thread, and nobody else's asyncio.run works."""
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program(), args=list(FLAGS)) as browser:
        yield browser


@pytest.fixture
def complaints() -> Complaints:
    """What the pages of this test complained of."""
    return Complaints()


@pytest.fixture
def context(request: pytest.FixtureRequest, complaints: Complaints) -> Iterator[BrowserContext]:
    """A fresh profile. The test fails at its end over a complaint that it did not expect."""
    if program() is None:
        request.node.user_properties.append(("no browser", MISSING))
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip)(f"No browser: {MISSING}.")
    browser: Browser = request.getfixturevalue("chromium")
    with browser.new_context() as context:
        complaints.listen(context)
        yield context
    if verdict := complaints.verdict():
        pytest.fail("\n".join(["The browser complained.", *verdict]), pytrace=False)


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page in a fresh profile."""
    return context.new_page()


def program() -> str | None:
    """The browser's path, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)
