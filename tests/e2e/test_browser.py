"""The browser that tests look through hears every complaint of a page, and its absence is said aloud."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page

from browser import NAMES, Complaints

TESTS = Path(__file__).parents[1]

STRICT = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; script-src 'nonce-1'; frame-src 'none'\">"
COMPLAINTS = {
    "console": "<script>console.error('told so')</script>",
    "exception": "<script>throw new Error('told so')</script>",
    "rejection": "<script>Promise.reject(new Error('told so'))</script>",
    "frame": "<iframe srcdoc=\"<script>console.error('told so')</script>\"></iframe>",
    "inline script": f"{STRICT}<script>1</script>",
    "inline style": f"{STRICT}<p style='color: red'>red</p>",
    "other origin": f"{STRICT}<img src='http://127.0.0.1:9/'>",
    "forbidden frame": f"{STRICT}<iframe src='http://127.0.0.1:9/'></iframe>",
    "eval": f"{STRICT}<script nonce=1>try {{ eval('1') }} catch {{}}</script>",
}


def inner_run(folder: Path, test: str, plugin: str = "browser", **environment: str) -> tuple[int, str]:
    """The exit code and the output of a run of its own, of the tests in `folder` and of one more file."""
    (folder / "test_inner.py").write_text(test)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "xdist.plugin",
        "-p",
        plugin,
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-W",
        "error",
        str(folder),
    ]
    given = {**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=folder, env=given)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_a_complaint_is_heard_and_can_be_expected(page: Page, complaints: Complaints, complaint: str) -> None:
    """From the page, a frame in it, or the browser over its policy."""
    page.goto(f"data:text/html,{quote(COMPLAINTS[complaint])}")
    page.evaluate("new Promise(requestAnimationFrame)")

    heard = complaints.verdict()

    assert heard
    complaints.expect("Content Security Policy" if STRICT in COMPLAINTS[complaint] else "told so")
    assert complaints.verdict() == []


def test_a_complaint_that_nobody_expected_fails_the_test(page: Page, tmp_path: Path) -> None:
    """And so does an expected one that does not come; a page without any is fine."""
    tests = """
def test_loud(page): page.set_content("<script>console.error('told so')</script>")
def test_disappointed(page, complaints): complaints.expect("told so")
def test_quiet(page): page.set_content("<script>console.warn('told so')</script>")
"""
    code, output = inner_run(tmp_path, tests)

    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert set(re.findall(r"ERROR at teardown of (\w+)", output)) == {"test_loud", "test_disappointed"}, output
    assert "told so" in output


def test_each_test_has_a_profile_of_its_own(context: BrowserContext, page: Page) -> None:
    """What one test kept, no other one meets."""
    assert (context.cookies(), len(context.pages)) == ([], 1)


def test_a_browser_is_in_nobodys_way(page: Page, tmp_path: Path) -> None:
    """The modules before and after one with a browser in it may run event loops, in the same process."""
    (tmp_path / "test_1_before.py").write_text(looping := "import asyncio\n\ndef test_loops(): asyncio.run(asyncio.sleep(0))\n")
    (tmp_path / "test_zz_after.py").write_text(looping)

    code, output = inner_run(tmp_path, "def test_browser(page): pass")

    assert code == pytest.ExitCode.OK, output
    assert "3 passed" in output


@pytest.mark.parametrize(("required", "code"), [("", pytest.ExitCode.OK), ("1", pytest.ExitCode.TESTS_FAILED)])
@pytest.mark.proof
def test_a_missing_browser_is_said_in_the_last_line(tmp_path: Path, required: str, code: int) -> None:
    """With the reason; where one is required it is a failure."""
    tests = "def test_a(page): pass\n\ndef test_b(page): pass"

    found, output = inner_run(tmp_path, tests, "conftest", PATH=str(tmp_path), REQUIRE_BROWSER=required)

    assert found == code, output
    last = output.splitlines()[-1]
    assert all(name in last for name in NAMES)
    assert f"2 {'failed' if required else 'skipped'}" in last
