"""A file of the application's accounts, as spreadsheets and databases save them: CSV in UTF-8, with a header."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

from provisioning import names
from provisioning.errors import ConfigurationError
from provisioning.imports import Account

REQUIRED = ("organization", "email", "application_id")
OPTIONAL = ("name", "active")
DELIMITERS = ",;"
_EMAIL = re.compile(r"""[^\s@<>;"]+@[^\s@<>;"]+""")


@dataclass(frozen=True, slots=True)
class Unread:
    """A line that tells of no account, and why, without quoting it."""

    line: int
    why: str


def read(raw: bytes, organization_id: Callable[[str], str]) -> Iterator[Account | Unread]:
    """What each line below the header tells; `organization_id` gives the id that is meant there, or raises ConfigurationError.

    Raises ConfigurationError where it is no such file. No value has a line break, so a quote left open costs its own line and no other.
    """
    try:
        lines = StringIO(raw.decode("utf-8-sig"), newline=None)
    except UnicodeDecodeError as error:
        raise ConfigurationError("The file is not UTF-8: save it as `CSV UTF-8`.") from error
    columns, delimiter = _header(lines.readline())
    for line, text in enumerate(lines, 2):
        if text.strip():
            try:
                yield _account(line, _row(columns, text, delimiter), organization_id)
            except (_Wrong, ConfigurationError) as error:
                yield Unread(line, str(error))


class _Wrong(Exception):
    """What stands in a line cannot be."""


def _header(text: str) -> tuple[list[str], str]:
    """The columns, and what stands between them: that which makes the most columns of it that are known. Raises ConfigurationError."""
    columns, delimiter = max((_columns(text, each) for each in DELIMITERS), key=lambda read: len({*read[0]}.intersection(REQUIRED)))
    if missing := [name for name in REQUIRED if name not in columns]:
        raise ConfigurationError(f"The file's header lacks {', '.join(missing)}. Its first line names the columns, with , or ; between.")
    if wrong := [name for name, count in Counter(columns).items() if count > 1 or name not in (*REQUIRED, *OPTIONAL)]:
        known = f"{', '.join(REQUIRED)}, and if you like {' and '.join(OPTIONAL)}"
        raise ConfigurationError(f"The file's header has {', '.join(map(ascii, wrong))}: the columns are {known}, each once.")
    return columns, delimiter


def _columns(text: str, delimiter: str) -> tuple[list[str], str]:
    try:
        return [cell.lower() for cell in _cells(text, delimiter)], delimiter
    except _Wrong:
        return [], delimiter


def _row(columns: Sequence[str], text: str, delimiter: str) -> Mapping[str, str]:
    cells = _cells(text, delimiter)
    if len(cells) != len(columns):
        raise _Wrong(f"It has not {len(columns)} values, as the header has.")
    return dict(zip(columns, cells, strict=True))


def _cells(text: str, delimiter: str) -> list[str]:
    try:
        (cells,) = csv.reader([text.rstrip("\n")], delimiter=delimiter, strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):  # the second: an empty line has none
        raise _Wrong("It cannot be read: a quote is left open or misplaced, or a value is far too long.") from None
    return [cell.strip(" ") for cell in cells]


def _account(line: int, row: Mapping[str, str], organization_id: Callable[[str], str]) -> Account:
    email = _name("An e-mail", row["email"])
    if not _EMAIL.fullmatch(email):
        raise _Wrong("An e-mail is one address alone: with an @ inside, and without white space, quotes, <, > or ;.")
    name, active = row.get("name"), row.get("active", "").lower()
    if active not in {"", "true", "false"}:
        raise _Wrong("What is active is true or false.")
    return Account(
        line,
        organization_id(row["organization"]),
        email,
        _name("An application id", row["application_id"]),
        _name("A name", name) if name else None,
        active != "false",
    )


def _name(what: str, text: str) -> str:
    if fault := names.fault(text):
        raise _Wrong(f"{what} {fault}.")
    return text
