"""Ids as they are typed: what cannot be one is said before anything is asked."""

import getpass
import re

from provisioning.errors import ConfigurationError

_ID = re.compile(r"[!-~]{1,255}")


def organization_id(text: str) -> str:
    """`text`, if it can be an organization's id. Raises ConfigurationError."""
    if not _ID.fullmatch(text):
        raise ConfigurationError("That is no organization's id: it looks like org_83543878963298576.")
    return text


def run_id(text: str) -> str:
    """`text`, if it can be a run's id. Raises ConfigurationError."""
    if not _ID.fullmatch(text):
        raise ConfigurationError("That is no run's id: it looks like run_019aab6c2f405f2d8a1b9c3e.")
    return text


def name(given: str | None) -> str:
    """Who says so: the name given, or who types. Raises ConfigurationError."""
    if given is None:
        return operator()
    if not given.strip() or len(given.strip()) > 100 or not given.isprintable():
        raise ConfigurationError("--by is a name, of up to 100 characters.")
    return given.strip()


def operator() -> str:
    """Who types, as rows and other operators are told; no API key can be called that."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return "command line"
