"""Ids as they are typed: what cannot be one is said before anything is asked."""

import asyncio
import getpass
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from provisioning.cli.database import opened
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError
from provisioning.events import is_id
from provisioning.organizations import Organizations, is_external
from provisioning.scalekit.client import ScalekitClient
from provisioning.settings import Settings

_ID = re.compile(r"[!-~]{1,255}")


def organization_ids(texts: Sequence[str], settings: Settings) -> list[str]:
    """Scalekit's ids of the organizations that are meant. Only for `ext:` anything is opened or asked, once for all of them.

    Raises ConfigurationError where one can be no id; for `ext:` also NotFound, a ScalekitError, Unavailable.
    """
    for text in texts:
        check_organization_id(text)
    return _resolved(texts, settings) if any(map(is_external, texts)) else list(texts)


def organization_id(text: str, settings: Settings) -> str:
    """The same of one."""
    return organization_ids([text], settings)[0]


def check_organization_id(text: str) -> None:
    """Pass what can be an organization's id. Raises ConfigurationError."""
    if not is_external(text) and not _ID.fullmatch(text):
        raise ConfigurationError("That is no organization's id: it looks like org_83543878963298576, or ext: and your own id of it.")


def filtered_organization_id(text: str | None, settings: Settings) -> str | None:
    """The same of an option that narrows something down: whatever else is stored as an id can be looked for."""
    if text is None or is_external(text):
        return text and organization_id(text, settings)
    if not is_id(text):
        raise ConfigurationError("That is no organization's id.")
    return text


@contextmanager
def resolving(database: Database, settings: Settings, *, keep: bool = True) -> Iterator[Callable[[str], str]]:
    """Gives what resolves one organization after another, as Organizations does; unless `keep`, nothing is written."""
    with closing(ScalekitClient(settings)) as scalekit, asyncio.Runner() as runner:
        organizations = Organizations(database, scalekit, keep=keep)
        yield lambda text: runner.run(organizations.resolve(text))


def _resolved(texts: Sequence[str], settings: Settings) -> list[str]:
    with opened(settings) as database, resolving(database, settings) as resolve:
        return [resolve(text) for text in texts]


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
