"""Which organization is meant: by Scalekit's id, or as `ext:` and what the application calls it, its `external_id` at Scalekit.

What Scalekit has said is kept, and answers alone from then on; reconcile runs follow what changes there.
"""

import asyncio
from datetime import UTC, datetime
from math import inf
from time import monotonic
from typing import Literal

import structlog

from provisioning.db import organizations
from provisioning.db.session import Database
from provisioning.directory import Organization
from provisioning.errors import NotFound, ScalekitError, ScalekitNotConfigured, UnknownOrganization
from provisioning.events import is_id
from provisioning.scalekit.client import ScalekitClient

PREFIX = "ext:"
REMEMBERED = 30.0  # seconds, in which Scalekit is not asked again about what it did not know
MOST = 10_000  # remembered

_log = structlog.get_logger(__name__)


class Organizations:
    """Asks the database, and Scalekit about what is not known here. For one event loop."""

    def __init__(self, database: Database, scalekit: ScalekitClient, *, keep: bool = True) -> None:
        """Unless `keep`, nothing is written."""
        self._database = database
        self._scalekit = scalekit
        self._keep = keep
        self._asking: dict[tuple[str, str], asyncio.Task[Organization]] = {}
        self._unknown = _Lately()
        self._heard = _Lately()  # organizations of which Scalekit was asked what they are called

    async def resolve(self, given: str) -> str:
        """Scalekit's id of the organization that is meant. Whatever has no `ext:` before it is one, and nothing is asked.

        Raises NotFound where Scalekit would have to be asked and there are no credentials, a ScalekitError (UnknownOrganization also for
        what cannot be an id), Unavailable.
        """
        if not is_external(given):
            return given
        external_id = given.removeprefix(PREFIX)
        if not is_id(external_id):
            raise UnknownOrganization("No organization can have this external id.")
        return await asyncio.to_thread(self._known, external_id) or await self._asked(external_id)

    async def is_meant(self, organization_id: str, given: str) -> bool:
        """Whether `given` means this organization. Nothing is looked up of any other: whoever asks learns nothing of those.

        Raises Unavailable; where Scalekit does not answer, it is not meant.
        """
        external_id = given.removeprefix(PREFIX)
        if not is_external(given) or not is_id(external_id) or not is_id(organization_id):
            return given == organization_id
        if await asyncio.to_thread(self._known, external_id) == organization_id:
            return True
        if organization_id in self._heard:
            return False
        try:
            await self._said("id", organization_id)
        except ScalekitError as error:
            _log.warning("scalekit_failed", error=type(error).__name__, vendor_message=error.vendor_message)
            return False
        finally:
            self._heard.add(organization_id)
        return await asyncio.to_thread(self._known, external_id) == organization_id

    async def _asked(self, external_id: str) -> str:
        if external_id in self._unknown:
            raise UnknownOrganization("Scalekit does not know this organization.")
        try:
            said = await self._said("external_id", external_id)
        except ScalekitNotConfigured as error:
            raise NotFound(f"No organization with this external id is known here, and Scalekit cannot be asked. {error}") from error
        if found := await asyncio.to_thread(self._known, external_id) if self._keep else said.id:
            return found
        self._unknown.add(external_id)
        raise UnknownOrganization("Scalekit does not know this organization.")  # as somebody who asked later was told

    async def _said(self, by: Literal["id", "external_id"], id_: str) -> Organization:
        """What Scalekit says, and it is kept. Whoever asks while another does shares the call."""
        asking = self._asking.get((by, id_))
        if asking is None:
            asking = self._asking[by, id_] = asyncio.create_task(self._ask(by, id_))
            asking.add_done_callback(lambda _: self._asking.pop((by, id_)))
        return await asyncio.shield(asking)

    async def _ask(self, by: Literal["id", "external_id"], id_: str) -> Organization:
        asked_at = datetime.now(UTC)
        try:
            said = await self._scalekit.organization(by, id_)
        except UnknownOrganization:
            if by == "external_id":
                self._unknown.add(id_)  # before anybody can ask anew
            raise
        if self._keep:
            await asyncio.to_thread(self._store, said, asked_at)
        return said

    def _known(self, external_id: str) -> str | None:
        with self._database.reading() as session:
            return organizations.by_external_id(session, external_id)

    def _store(self, said: Organization, at: datetime) -> None:
        """Keep it, where it is new."""
        with self._database.reading() as session:
            is_new = organizations.external_id(session, said.id) != said.external_id
        if is_new:
            self._database.write(lambda session: organizations.set_external_id(session, said.id, said.external_id, at))


def is_external(given: str) -> bool:
    """Whether it is what the application calls an organization, with `ext:` before it."""
    return given.startswith(PREFIX)


class _Lately:
    """What was added in the last REMEMBERED seconds; of very many, the newest."""

    def __init__(self) -> None:
        self._added: dict[str, float] = {}

    def __contains__(self, text: str) -> bool:
        return monotonic() - self._added.get(text, -inf) < REMEMBERED

    def add(self, text: str) -> None:
        """From now on, it is among them."""
        self._added.pop(text, None)
        self._added[text] = monotonic()
        if len(self._added) > MOST:
            del self._added[next(iter(self._added))]
