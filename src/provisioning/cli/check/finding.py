"""One line of `check`."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it stands. Only what is wrong makes the command fail."""

    OK = "ok"
    NOTE = "note"  # as it may be meant, and somebody may want to know
    WARN = "warn"  # it works, and somebody should do something
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What was found of a subject: that it is fine, or what to do. Without anybody's name or address, and without a secret."""

    subject: str
    state: State
    words: str


def ok(subject: str, words: str) -> Finding:
    """It is fine."""
    return Finding(subject, State.OK, words)


def note(subject: str, words: str) -> Finding:
    """It may be meant so."""
    return Finding(subject, State.NOTE, words)


def warn(subject: str, words: str) -> Finding:
    """Something should be done about it."""
    return Finding(subject, State.WARN, words)


def wrong(subject: str, words: str) -> Finding:
    """It does not work."""
    return Finding(subject, State.WRONG, words)
