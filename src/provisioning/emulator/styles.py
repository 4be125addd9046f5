"""How providers differ in what reaches Scalekit from them: somebody leaves, groups arrive, several things change at once."""

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from provisioning.emulator.records import Provider


class Leaving(Enum):
    """What is sent when somebody is fired."""

    DEACTIVATED = "user_updated with active: false, for good: there is never a delete"
    RENAMED = "the same, with 32 hex digits before the address: deleted softly, to be purged or restored"
    DELETED = "user_deleted"
    DEACTIVATED_AND_DELETED = "user_updated with active: false and user_deleted, one right after the other"


@dataclass(frozen=True, slots=True)
class Style:
    """`groups_at_once`: somebody new arrives with groups; else with none, and an update follows. `piecemeal`: an event for each
    attribute that changes, else one for all of them. `upstream_id`: a new id of the provider's own."""

    leaving: Leaving
    groups_at_once: bool
    piecemeal: bool
    upstream_id: Callable[[], str]


def _okta() -> str:
    return f"00u{secrets.token_hex(9)[:17]}"


def _google() -> str:
    return str(10**20 + secrets.randbelow(10**20))


STYLES = {
    Provider.OKTA: Style(Leaving.DEACTIVATED, groups_at_once=False, piecemeal=False, upstream_id=_okta),
    Provider.ENTRA_ID: Style(Leaving.RENAMED, groups_at_once=False, piecemeal=True, upstream_id=lambda: str(uuid.uuid4())),
    Provider.GOOGLE: Style(Leaving.DELETED, groups_at_once=True, piecemeal=False, upstream_id=_google),
    Provider.JUMPCLOUD: Style(
        Leaving.DEACTIVATED_AND_DELETED, groups_at_once=False, piecemeal=True, upstream_id=lambda: secrets.token_hex(12)
    ),
}
