"""Logs: ids yes, personal data no. JSON unless a person reads along.

What an exception says is never written, neither ours nor a library's record of it: drivers, pydantic and httpx put values into their
messages. What is written is its class, its SQLSTATE or constraint, and where it happened.
"""

import logging
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePath
from traceback import walk_tb
from types import CodeType

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from provisioning import jsons
from provisioning.errors import ProvisioningError, Refused

_PACKAGE = str(PurePath(__file__).parent)
_FRAMES = 40
_CHAIN = 10
_LEADING_WORDS = re.compile(r"[^\n<({\['\":=]*")
_INFORMATIVE = (
    "provisioning",
    "uvicorn",
    "alembic",
)  # everybody else speaks from WARNING on: httpx says each URL, SQLAlchemy each statement

_LEVELS = logging.getLevelNamesMapping()

_log = structlog.stdlib.get_logger(__name__)


def configure(*, json: bool | None = None) -> None:
    """Send every log of this process to stderr, each record on a line: JSON, or for a terminal's reader (`json=None`: whether it is one).

    Takes over the loggers of libraries, Python's warnings, and whatever exception ends a thread or the process. Call it once, at the start.
    """
    terminal = sys.stderr.isatty()
    renderer: Processor = structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
    if not terminal if json is None else json:
        renderer = structlog.processors.JSONRenderer(jsons.dumps_any)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_trace),
        _without_messages,
    ]
    structlog.configure(
        processors=[_told_from_here, *shared, _Whatever(renderer)],
        logger_factory=_Lines,  # past `logging`: our own lines are many
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_foreign_words, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            use_get_message=False,
            pass_foreign_args=True,
        )
    )
    _route(handler)
    sys.excepthook = lambda _, error, __: _uncaught(error)
    threading.excepthook = lambda args: _uncaught(args.exc_value)
    sys.unraisablehook = lambda args: _uncaught(args.exc_value)


def _route(handler: logging.Handler) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _INFORMATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # its lines carry query strings, and those carry e-mails
    logging.captureWarnings(True)


def _told_from_here(logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
    """As `logging` has it: from which level on this module speaks."""
    if not logger.level.isEnabledFor(_LEVELS.get(method.upper(), logging.ERROR)):
        raise structlog.DropEvent
    return event_dict


class _Whatever:
    """Renders a line. One that cannot be written is named: a log line must not end what it tells about."""

    def __init__(self, renderer: Processor) -> None:
        self._renderer = renderer

    def __call__(self, logger: WrappedLogger, method: str, event_dict: EventDict) -> str:
        try:
            return str(self._renderer(logger, method, event_dict))
        except Exception as error:  # broad: it may hold anything
            unwritten = f"a log line could not be written: {describe(error)}"
            known = {key: event_dict[key] for key in ("logger", "timestamp") if key in event_dict}
            return str(self._renderer(logger, method, {"event": unwritten, "level": "error", **known}))


class _Lines:
    """What structlog writes the lines of one of our modules to."""

    def __init__(self, name: str) -> None:
        self.name, self.level = name, logging.getLogger(name)

    def write(self, line: str) -> None:
        _write(line)

    debug = info = warning = error = critical = exception = write


class _Stderr(logging.Handler):
    """Where the libraries' records go, in the same form. One that cannot be written is named, not printed as logging's own handlers do."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # broad: a log line must not end what it tells about
            failure = {"name": record.name, "levelname": "ERROR", "msg": "a log line could not be written: %s", "args": (error,)}
            line = self.format(logging.makeLogRecord(failure))
        _write(line)


_one_at_a_time = threading.RLock()  # while a line is written the collector may run, and find what has to be told of


def _write(line: str) -> None:
    """To the stderr of the moment."""
    with _one_at_a_time, suppress(OSError, ValueError):  # stderr is gone or closed: there is nobody left to tell
        sys.stderr.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
        sys.stderr.flush()


def _uncaught(error: BaseException | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("Interrupted.\n")
    elif error is not None and not isinstance(error, SystemExit):
        _log.critical("uncaught_exception", exc_info=error)


def _without_messages(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    return {key: _described(value) for key, value in event_dict.items()}


def _foreign_words(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    """A library's message. Beside an exception it may quote it (asyncio prints the task): then only its leading words are kept."""
    message, args = event_dict["_record"].msg, event_dict.pop("positional_args")
    if isinstance(message, BaseException):
        event_dict["event"] = describe(message)
    elif event_dict.get("exc_info") or (sys.exc_info()[1] and not args):
        words = _LEADING_WORDS.match(event_dict["event"])
        event_dict["event"] = words[0].strip() if words else ""
    elif isinstance(args, Mapping):
        event_dict["event"] %= {key: _described(value) for key, value in args.items()}
    elif args:
        event_dict["event"] %= tuple(map(_described, args))
    return event_dict


def _described(value: object) -> object:
    return describe(value) if isinstance(value, BaseException) else value


def describe(error: BaseException) -> str:
    """Return an exception's class, its SQLSTATE, constraint or SQLite error name, and the innermost place of it in this package.

    Fit to be stored and shown: never what a driver says, which carries values. Only what this service itself says is kept (errors.py).
    """
    places = [(code, line) for code, line in _places(error) if code.co_filename.startswith(_PACKAGE)] or list(_places(error))
    where = f" at {_place(*places[-1])}" if places else ""
    return f"{_what(error)}{where}"


def _what(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, ProvisioningError):
        return f"{name}: {error}"
    facts = ", ".join(_driver_facts(getattr(error, "orig", None) or error))
    return f"{name} ({facts})" if facts else name


def _driver_facts(error: object) -> Iterator[str]:
    """What psycopg and sqlite3 say in fixed words, or in the schema's own."""
    for fact in (
        getattr(error, "sqlstate", None),
        getattr(getattr(error, "diag", None), "constraint_name", None),
        getattr(error, "sqlite_errorname", None),
    ):
        if isinstance(fact, str) and fact:
            yield fact


def _places(error: BaseException) -> Iterator[tuple[CodeType, int]]:
    for frame, line in walk_tb(error.__traceback__):
        yield frame.f_code, line


def _place(code: CodeType, line: int) -> str:
    return f"{'/'.join(PurePath(code.co_filename).parts[-3:]).lstrip('/')}:{line}"


def _trace(exc_info: ExcInfo) -> str:
    """A traceback without messages, source lines or locals: the exception, what it came from, and the frames of each."""
    lines: list[str] = []
    for error in _chain(exc_info[1]):
        frames = [f"  {_place(code, line)} in {code.co_qualname}" for code, line in _places(error)]
        lines += [f"from {_what(error)}" if lines else _what(error), *frames[-_FRAMES:]]
    return "\n".join(lines)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, those it groups, and those it came from, each once."""
    seen: dict[int, BaseException] = {}
    waiting = [error]
    while waiting and len(seen) < _CHAIN:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen[id(current)] = current
        yield current
        waiting += current.exceptions if isinstance(current, BaseExceptionGroup) else ()
        came_from = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        waiting += [came_from] if came_from else []


class RefusalLog:
    """Counts refusals by reason and logs at most `lines_per_second` of them, so that a flood costs no disk.

    What was not logged is summed up in one line, with the first refusal of a later second or by `flush`. Threads may share it.
    """

    def __init__(self, lines_per_second: int = 5, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines_per_second = lines_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._suppressed: Counter[str] = Counter()
        self._second = 0
        self._lines = 0

    def record(self, refused: Refused) -> None:
        """Count a refusal, and log it unless this second has had its lines."""
        with self._lock:
            self._counts[refused.reason] += 1
            second = int(self._clock())
            if second != self._second:
                self._second, self._lines = second, 0
            logs = self._lines < self._lines_per_second
            self._lines += 1
            suppressed = self._taken() if logs else {}
            if not logs:
                self._suppressed[refused.reason] += 1
        self._sum_up(suppressed)
        if logs:
            _log.warning("webhook_refused", reason=refused.reason, detail=str(refused))

    def flush(self) -> None:
        """Log what was suppressed and not summed up yet: for the end of the process."""
        with self._lock:
            suppressed = self._taken()
        self._sum_up(suppressed)

    def counts(self) -> dict[str, int]:
        """Return how many were refused since the start, by reason."""
        with self._lock:
            return dict(self._counts)

    def _taken(self) -> dict[str, int]:
        suppressed, self._suppressed = self._suppressed, Counter()
        return dict(suppressed)

    def _sum_up(self, suppressed: dict[str, int]) -> None:
        if suppressed:
            _log.warning("webhook_refusals_not_logged", count=sum(suppressed.values()), reasons=suppressed)
