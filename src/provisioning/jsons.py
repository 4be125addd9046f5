"""JSON that is exact and quick: orjson reads and writes it where it can, Python's own module where a number is too long for that."""

from collections.abc import Callable
from json import JSONDecodeError, JSONEncoder
from json import dumps as slow_dumps
from json import loads as slow_loads
from typing import Any

import orjson


def loads(text: str | bytes) -> Any:
    """The document, with integers of any length. Raises ValueError."""
    try:
        return quick(text)
    except ValueError:
        return slow_loads(text)


def quick(text: str | bytes) -> Any:
    """The same, where orjson reads it exactly. Raises ValueError, also for what is JSON to others: an integer of more than 64 bits, of
    which it would make a double, a number that no double can hold, a lone surrogate.
    """
    digits = (text.encode("utf-8", "replace") if isinstance(text, str) else text).translate(_DIGITS)
    if _LONG in digits or _LONG_NEGATIVE in digits:
        raise JSONDecodeError("a long number", "", 0)
    return orjson.loads(text)


def dumps(value: object) -> str:
    """Its text, without white space. Raises TypeError for what is not JSON; but NaN and Infinity become null."""
    return dumped(value).decode()


def dumped(value: object) -> bytes:
    """The same in UTF-8."""
    try:
        return orjson.dumps(value, option=_AS_THEY_ARE)
    except TypeError:
        return _encode(value).encode()


def dumps_any(value: object, default: Callable[[Any], Any]) -> str:
    """A text of ASCII that can be printed, whatever the value holds: `default` makes something else of what is not JSON."""
    try:
        text = orjson.dumps(value, default, _AS_THEY_ARE)
    except TypeError:
        text = b"\x7f"
    return text.decode() if text.isascii() and b"\x7f" not in text else slow_dumps(value, default=default, separators=(",", ":"))


_AS_THEY_ARE = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME  # a dataclass may hide some of its fields
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG, _LONG_NEGATIVE = b"0" * 20, b"-" + b"0" * 19
_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
