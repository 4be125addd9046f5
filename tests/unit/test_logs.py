"""What a log line says of a failure, and above all what it does not."""

import asyncio
import gc
import json
import logging
import re
import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from typing import Any

import psycopg
import pytest
import structlog
from pydantic import TypeAdapter
from sqlalchemy import create_engine, text

from provisioning import logs
from provisioning.errors import Refused, Unreadable
from provisioning.events import Delivery
from provisioning.logs import RefusalLog, describe
from provisioning.scalekit.signature import SignedHeaders, Verifier

CANARY = "canary-7f3a"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `configure` takes over is given back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for owner, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, hook, getattr(owner, hook))
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    logging.getLogger("uvicorn.access").disabled = False
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_what_others_say_is_one_line_of_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the terminal's encoding, and whatever it would do with a control character."""
    logs.configure(json=True)
    said = "José \x9b31m \u2028 \x7f \ud800 x"
    structlog.get_logger("provisioning.tests").warning("told", said=said, plain="x")
    line = capsys.readouterr().err
    assert line.isascii()
    assert line.rstrip("\n").isprintable()
    assert json.loads(line)["said"] == said


def test_what_an_object_hides_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(json=True)
    structlog.get_logger("provisioning.tests").warning("told", delivery=Delivery("msg_1", 0, datetime.now(UTC), CANARY.encode()))
    line = capsys.readouterr().err
    assert "msg_1" in line
    assert CANARY not in line


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """The records written since the last call; nothing went to stdout, nothing is anything but one JSON object a line."""

    def read() -> list[dict[str, Any]]:
        captured = capsys.readouterr()
        assert captured.out == ""
        assert CANARY not in captured.err
        return [json.loads(line) for line in captured.err.splitlines()]

    logs.configure(json=True)
    return read


def raised(function: Callable[[], object]) -> BaseException:
    """The exception that `function` raises."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def validation() -> None:
    """pydantic quotes its input."""
    TypeAdapter(int).validate_python(CANARY)


def unique_violation(url: str = "sqlite://") -> None:
    """SQLAlchemy and the driver quote statements and values."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE people (email TEXT UNIQUE)"))
            for _ in range(2):
                connection.execute(text("INSERT INTO people VALUES (:email)"), {"email": CANARY})
    finally:
        engine.dispose()


def chained() -> None:
    """An exception, the one it came from, and those in a group."""
    try:
        raise BaseExceptionGroup(CANARY, [KeyError(CANARY), raised(validation)])
    except BaseExceptionGroup as group:
        raise RuntimeError(CANARY) from group


leaky = pytest.mark.parametrize("fail", [validation, unique_violation, chained], ids=lambda fail: fail.__name__)


# A record.


def test_a_record_is_one_json_object_with_time_level_logger_and_request_id(lines: Lines) -> None:
    """Times are RFC 3339, UTC."""
    structlog.contextvars.bind_contextvars(request_id="req_1")
    structlog.get_logger("provisioning.inbox").info("delivery", webhook_id="msg_1")
    (record,) = lines()
    assert datetime.fromisoformat(record.pop("timestamp")).utcoffset() == timedelta(0)
    assert record == {"event": "delivery", "webhook_id": "msg_1", "request_id": "req_1", "level": "info", "logger": "provisioning.inbox"}


def test_a_library_s_record_looks_the_same(lines: Lines) -> None:
    """uvicorn, Alembic and SQLAlchemy log through the standard library."""
    structlog.contextvars.bind_contextvars(request_id="req_1")
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    logging.getLogger("alembic.runtime.migration").info("Running upgrade %(from)s", {"from": "base"})
    started, running = lines()
    assert started["event"] == "Started server process [7]"
    assert running["event"] == "Running upgrade base"
    assert {"timestamp", "level", "logger", "request_id"} < started.keys()


def test_libraries_are_heard_from_warning_on(lines: Lines) -> None:
    """At INFO, httpx logs URLs, SQLAlchemy statements, and uvicorn's access log query strings."""
    for name in ("httpx", "sqlalchemy.engine.Engine", "uvicorn.access", "anything"):
        logging.getLogger(name).info("GET /?email=%s", CANARY)
    assert lines() == []


def test_uvicorn_s_own_handlers_are_taken_over(lines: Lines) -> None:
    """It installs them when it is started with its default log configuration, before it loads the application."""
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler())
    logging.getLogger("uvicorn.access").addHandler(logging.StreamHandler())
    logs.configure(json=True)
    logging.getLogger("uvicorn.error").error("once")
    logging.getLogger("uvicorn.access").error(CANARY)
    assert [record["event"] for record in lines()] == ["once"]


def test_a_python_warning_is_a_record(lines: Lines) -> None:
    """SQLAlchemy warns through them."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)  # what the fixture took over, pytest has taken back since
        logs.configure(json=True)
        warnings.warn("watch out", UserWarning, stacklevel=1)
    assert "UserWarning: watch out" in lines()[0]["event"]


def test_configuring_twice_writes_once(lines: Lines) -> None:
    """A worker process may inherit a configured parent."""
    logs.configure(json=True)
    structlog.get_logger("provisioning.x").info("once")
    assert len(lines()) == 1


def test_json_is_for_machines_and_text_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    """By default whether stderr is a terminal decides; under a test it is none."""
    logs.configure()
    structlog.get_logger("provisioning.x").info("hello")
    assert json.loads(capsys.readouterr().err)["event"] == "hello"
    logs.configure(json=False)
    structlog.get_logger("provisioning.x").info("hello")
    assert "hello" in (line := capsys.readouterr().err)
    assert not line.startswith("{")


# What must not be said.


@leaky
def test_an_exception_is_written_without_its_words(lines: Lines, fail: Callable[[], object]) -> None:
    """Its class and its frames are, whoever logs it and however."""
    error = raised(fail)
    logger, library = structlog.get_logger("provisioning.x"), logging.getLogger("library")
    logger.error("failed", exc_info=error)
    logger.error("failed", error=error)
    logger.error(error)
    library.error("failed", exc_info=error)
    library.error("failed: %s", error)
    library.error("failed: %(error)s", {"error": error})
    library.error("failed: %s", CANARY, exc_info=error)
    library.error(error)
    library.error(f"failed: {error}", exc_info=error)
    for record in lines():
        assert type(error).__name__ in json.dumps(record)
        assert f"in {fail.__name__}" in record.get("exception", f"in {fail.__name__}")


@leaky
def test_a_terminal_shows_no_more(capsys: pytest.CaptureFixture[str], fail: Callable[[], object]) -> None:
    """No locals, no source lines, no messages there either."""
    logs.configure(json=False)
    structlog.get_logger("provisioning.x").error("failed", exc_info=raised(fail))
    logging.getLogger("library").error("failed", exc_info=raised(fail))
    written = capsys.readouterr().err
    assert CANARY not in written
    assert f"in {fail.__name__}" in written


def test_a_library_s_message_written_while_an_exception_is_handled_keeps_only_its_first_words(lines: Lines) -> None:
    """Composed beforehand, it may hold the exception's text with nothing to tell it by."""
    try:
        validation()
    except ValueError as error:
        logging.getLogger("library").error(f"giving up: {error}")
    assert lines()[0]["event"] == "giving up"


def test_what_asyncio_says_of_a_lost_exception_quotes_nothing(lines: Lines) -> None:
    """It prints the task or the callback, and with it the exception and the arguments."""

    async def fail() -> None:
        raise ValueError(CANARY)

    async def lose() -> None:
        task = asyncio.create_task(fail())
        asyncio.get_running_loop().call_soon(int, CANARY)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    asyncio.run(lose())
    assert sorted(record["event"] for record in lines()) == ["Exception in callback int", "Task exception was never retrieved"]


def test_an_exception_that_ends_a_thread_is_a_record(lines: Lines) -> None:
    """Python itself would print its message."""
    thread = threading.Thread(target=validation)
    thread.start()
    thread.join()
    (record,) = lines()
    assert record["event"] == "uncaught_exception"
    assert "in validation" in record["exception"]


def test_an_exception_that_ends_the_process_or_a_finalizer_is_a_record(lines: Lines) -> None:
    """The other two places where Python prints messages."""

    class Lossy:
        def __del__(self) -> None:
            raise ValueError(CANARY)

    error = raised(validation)
    sys.excepthook(type(error), error, error.__traceback__)
    Lossy()
    assert [record["event"] for record in lines()] == ["uncaught_exception", "uncaught_exception"]


def test_a_line_that_cannot_be_written_is_named(lines: Lines) -> None:
    """logging's own handlers print the message and its arguments then."""
    logs.configure(json=True)  # again: pytest's own handler, which stands beside ours by now, raises
    logging.getLogger("library").error("%d", CANARY)
    structlog.get_logger("provisioning.x").error("failed", reasons={(1, 2): CANARY})
    for logger, record in zip(["library", "provisioning.x"], lines(), strict=True):
        assert record["logger"] == logger
        assert record["event"].startswith("a log line could not be written: TypeError at ")


def test_a_closed_stderr_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log line is worth no request."""
    logs.configure(json=True)
    closed = StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger("provisioning.x").info("into the void")


def test_text_that_is_no_unicode_is_written(lines: Lines) -> None:
    """Ids come from outside; a lone surrogate has no UTF-8."""
    structlog.get_logger("provisioning.x").info("delivery", webhook_id="\ud800")
    assert lines()[0]["webhook_id"] == "\ud800"


# What is said in one line, and stored.


def test_a_driver_s_error_is_described_by_its_code_its_constraint_and_no_value(empty_database_url: str) -> None:
    """Both drivers put the value or the statement into their messages; psycopg's details hold the row."""
    said = describe(raised(partial(unique_violation, empty_database_url)))
    facts = "SQLITE_CONSTRAINT_UNIQUE" if empty_database_url.startswith("sqlite") else "23505, people_email_key"
    assert said.startswith(f"sqlalchemy.exc.IntegrityError ({facts}) at ")
    assert CANARY not in said


def test_a_driver_s_error_without_a_wrapper_is_described_alike() -> None:
    """As the watchdog and the migrations see it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        assert describe(raised(lambda: connection.execute(f"SELECT {CANARY}"))).startswith("sqlite3.OperationalError (SQLITE_ERROR) at ")
    assert describe(psycopg.errors.DeadlockDetected(CANARY)) == "psycopg.errors.DeadlockDetected (40P01)"


def test_the_place_is_the_innermost_one_in_this_service() -> None:
    """Where a library failed says little; where we called it says which of our lines to read."""
    said = describe(raised(lambda: Verifier(["whsec_"])))
    assert re.fullmatch(r"standardwebhooks\.webhooks\.EmptyWebhookSecretError at (src/)?provisioning/scalekit/signature\.py:\d+", said)


def test_what_this_service_says_itself_is_kept() -> None:
    """Its messages are safe to show (errors.py), and say what a class cannot."""
    assert describe(Unreadable("The body is not JSON.")) == "provisioning.errors.Unreadable: The body is not JSON."


@leaky
def test_a_description_never_quotes(fail: Callable[[], object]) -> None:
    """It is stored with a delivery, and shown."""
    said = describe(raised(fail))
    assert CANARY not in said
    assert re.search(r" at \S+:\d+$", said)


def test_a_long_or_circular_chain_has_an_end(lines: Lines) -> None:
    """Neither a thousand frames nor an exception that caused itself makes a line without end."""

    def deeper() -> None:
        deeper()

    gc.disable()  # what is thrown away down there has no room to say so
    try:
        error, other = raised(deeper), ValueError(CANARY)
    finally:
        gc.enable()
    error.__cause__, other.__cause__ = other, error
    structlog.get_logger("provisioning.x").error("failed", exc_info=error)
    trace = lines()[0]["exception"].splitlines()
    assert len(trace) < 60
    assert [line for line in trace if not line.startswith(" ")] == ["RecursionError", "from ValueError"]


# Refusals.


class Clock:
    """A monotonic clock that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_few_refusals_are_logged_one_by_one(lines: Lines) -> None:
    """By reason, and in our words only."""
    refusals = RefusalLog(clock=Clock())
    refused = raised(lambda: SignedHeaders.parse({"webhook-id": CANARY}, 0))
    assert isinstance(refused, Refused)
    refusals.record(refused)
    (record,) = lines()
    assert (record["event"], record["reason"], record["detail"]) == ("webhook_refused", "missing", str(refused))


def test_a_flood_of_refusals_writes_a_bounded_number_of_lines_and_loses_no_count(lines: Lines) -> None:
    """So many a second, and one line that sums up the rest once a later second comes."""
    clock = Clock()
    refusals = RefusalLog(lines_per_second=3, clock=clock)
    for number in range(1000):
        refusals.record(Refused("signature" if number % 4 else "expired", "No."))
    assert [record["event"] for record in lines()] == ["webhook_refused"] * 3
    clock.now += 1
    refusals.record(Refused("missing", "No."))
    summary, last = lines()
    assert (summary["event"], summary["count"], last["reason"]) == ("webhook_refusals_not_logged", 997, "missing")
    assert summary["reasons"] == {"signature": 748, "expired": 249}
    assert refusals.counts() == {"signature": 750, "expired": 250, "missing": 1}


def test_the_end_of_the_process_loses_no_summary(lines: Lines) -> None:
    """`flush` writes it; twice writes it once."""
    refusals = RefusalLog(lines_per_second=1, clock=Clock())
    for _ in range(3):
        refusals.record(Refused("missing", "No."))
    refusals.flush()
    refusals.flush()
    assert [record["event"] for record in lines()] == ["webhook_refused", "webhook_refusals_not_logged"]


def test_threads_may_share_it(lines: Lines) -> None:
    """Every refusal is counted, and logged or summed up, exactly once."""
    refusals = RefusalLog(lines_per_second=5, clock=Clock())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: refusals.record(Refused("missing", "No.")), range(2000)))
    refusals.flush()
    *single, summary = lines()
    assert (len(single), summary["count"], refusals.counts()) == (5, 1995, {"missing": 2000})
