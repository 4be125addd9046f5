"""Ids as they are typed: what cannot be one is said before anything is asked."""

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
