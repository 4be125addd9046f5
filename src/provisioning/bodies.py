"""A body as it may be kept and read: JSON, less whatever is named like a secret, and nothing that a database or a reader cannot take."""

import re
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, pairwise
from json import JSONDecoder, JSONEncoder, dumps, loads
from math import isinf
from sys import float_info
from typing import Literal, TypeAlias

from provisioning import jsons

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

SECRET_KEYS = frozenset({"password", "secret", "token"})
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent: the `document`, unless an `error` says why it is none, and the `payload` that may be kept of it. Only of an `odd`
    one `problem` may have something to say.
    """

    document: Json
    payload: bytes
    error: str | None = None
    odd: bool = False


def read(raw: bytes) -> Body:
    """Read bytes that anything may be in. Never raises; where nothing is dropped, the payload is what came, to the byte."""
    try:
        text = raw.decode()
        document, odd = _load(text)
    except RecursionError:  # a reader's own limit, far beyond ours
        return Body(None, _scrubbed(text).encode(), _TOO_DEEP)
    except ValueError:
        return Body(None, raw, "The body is not JSON.")
    scrubbed = _scrubbed(text)
    return Body(document, raw, odd=odd) if scrubbed == text else Body(_load(scrubbed)[0], scrubbed.encode(), odd=odd)


def canonical(value: Json) -> str:
    """One text for every way to write the same JSON value: keys sorted, no white space."""
    return _canonical(value)


def digest(data: Json) -> str:
    """A short fingerprint of the canonical `data`, for `Version`."""
    return blake2b(canonical(data).encode(), digest_size=8).hexdigest()


_TOO_DEEP = f"The body is nested more than {MAX_DEPTH} levels deep."


def _load(text: str) -> tuple[Json, bool]:
    """The document, and whether it is odd: no other can hold a NUL, a lone surrogate, a number that is too large, or too many levels."""
    odd = "\\u" in text or text.count("{") + text.count("[") > MAX_DEPTH
    if not odd:
        with suppress(ValueError):
            return jsons.quick(text), False
    try:
        return _USUAL.decode(text), odd
    except _TooLarge:
        return _ANY.decode(text), True


class _TooLarge(Exception):
    """A number that no double can hold."""


def _double(text: str) -> float:
    if isinf(value := float(text)):
        raise _TooLarge
    return value


def _small_integer(text: str) -> int:
    if len(text) > 300:
        raise _TooLarge
    return int(text)


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 400 else float(text)  # longer ones are beyond every double, and `int` refuses the longest


def _refuse(_: str) -> Json:
    raise ValueError("NaN and Infinity are not JSON")


_canonical = JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode
_USUAL = JSONDecoder(parse_int=_small_integer, parse_float=_double, parse_constant=_refuse)
_ANY = JSONDecoder(parse_int=_integer, parse_constant=_refuse)

_NAMES = [f'"{key}"' for key in SECRET_KEYS]
_TOKEN = re.compile(r'\s*(?:"(?:[^"\\]++|\\.?)*+"?|[^\s"\[\]{}:,]++|.)', re.DOTALL)  # with the white space before it; every text has them
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def _scrubbed(text: str) -> str:
    """`text`, which is JSON, without the members named like a secret. What stays keeps its spelling: duplicate keys, huge numbers.

    It works on tokens and counts brackets, so that it also sees what no reader gets to.
    """
    if "\\u" not in text:
        lowered = text.lower()
        if not any(name in lowered for name in _NAMES):
            return text
    kept: list[str] = []
    dropping, depth = False, 0  # `depth` within what is dropped
    for token, following in pairwise([*_TOKEN.findall(text), ""]):
        mark = token.lstrip()
        if dropping and depth == 0 and mark in {",", "}"}:
            dropping = False
            if mark == ",":
                continue  # it goes with the member
            if kept[-1].lstrip() == ",":
                kept.pop()  # the member was the last one
        elif following.lstrip() == ":" and _ESCAPE.sub(_character, mark)[1:-1].lower() in SECRET_KEYS:
            dropping = True
        if dropping:
            depth += (mark in {"{", "["}) - (mark in {"}", "]"})
        else:
            kept.append(token)
    return "".join(kept)


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))


def problem(document: Json) -> str | None:
    """What a database or a reader downstream could not take of `document`. Without recursion: the sender chooses the depth."""
    waiting = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                return _TOO_DEEP
            items = chain(value, value.values()) if isinstance(value, dict) else value
            waiting.extend((item, depth + 1) for item in items)
        elif isinstance(value, str):
            if "\x00" in value:
                return "The body holds a NUL character."
            if not encodes(value):
                return "The body holds a lone surrogate."
        elif value is not None and abs(value) > float_info.max:
            return "The body holds a number that no double can hold."
    return None


def shown(raw: bytes) -> tuple[Json, Literal["json", "base64"]]:
    """What is kept of a body, as JSON if all of it can be said in JSON again: no NaN, no lone surrogate, no absurd nesting."""
    try:
        document: Json = loads(raw)
        dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return b64encode(raw).decode(), "base64"
    return (document, "json") if problem(document) != _TOO_DEEP else (b64encode(raw).decode(), "base64")


def words(raw: bytes) -> str:
    """Return what is kept of a body to look for words in, whatever it is: with JSON's escapes undone, and case folded."""
    return _ESCAPE.sub(_character, raw.decode(errors="replace")).casefold()


def encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
