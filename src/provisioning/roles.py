"""Roles that are given here, beside those of the directories: to one user, or to whoever is in a group.

A group's roles are decided in one transaction and brought to its members in many, so that no webhook waits for all of them. What a process
leaves undone in between another one finishes.
"""

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event
from time import monotonic

from sqlalchemy.orm import Session
from structlog import get_logger

from provisioning.changes import Cause, CauseKind
from provisioning.db import changes, roles
from provisioning.db.repository import Writes
from provisioning.db.roles import Unapplied
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.merge import Key
from provisioning.showing import show_anew

LEASE = timedelta(seconds=60)  # nobody is expected to bring roles to this many members for so long without a word
USERS_AT_ONCE = 250  # what a webhook waits for at most

log = get_logger(__name__)


class Roles:
    """Gives roles in one database, from any number of threads and processes at once."""

    def __init__(self, database: Database, users_at_once: int = USERS_AT_ONCE) -> None:
        self._database = database
        self._users_at_once = users_at_once
        self._stopping = Event()

    def grant(self, organization_id: str, user_id: str, wanted: Collection[str], by: str) -> None:
        """Have the user granted exactly these roles from now on, to be shown while it is active. Raises NotFound, Unavailable."""
        user = Key(organization_id, user_id)

        def change(session: Session) -> bool:
            now = datetime.now(UTC)
            changed = roles.grant(session, user, wanted, by, now)
            if changed:
                _show(session, [user], by, now)
            return changed

        if self._database.write(change):
            log.info("user_granted_roles", organization_id=organization_id, user_id=user_id, roles=sorted(wanted), caller=by)

    def map_group(self, organization_id: str, group_id: str, wanted: Collection[str], by: str) -> None:
        """Have whoever is in the group, and active, given exactly these roles by it from now on; returns when everybody who is has them.

        Raises NotFound, and Unavailable: decided or not, whatever was is finished by itself, and may be asked for again. Where somebody
        else decides meanwhile, that one's call brings it to everybody.
        """
        group = Key(organization_id, group_id)

        def change(session: Session) -> tuple[bool, Unapplied | None]:
            now = datetime.now(UTC)
            changed = roles.map_group(session, group, wanted, by, now)
            unfinished = changed or roles.is_unapplied(session, group)
            return changed, roles.take(session, group, by, now + LEASE) if unfinished else None

        changed, taken = self._database.write(change)
        if changed:
            log.info("group_mapped_to_roles", organization_id=organization_id, group_id=group_id, roles=sorted(wanted), caller=by)
        if taken and not self._bring(taken):
            raise Unavailable("The service is stopping; another process goes on with it.")

    def claim(self) -> Callable[[], object] | None:
        """The work on the next group that somebody began with and let lie, ours from now on, or None. Raises Unavailable."""
        taken = self._take_over()
        if taken is None:
            return None
        log.info("roles_taken_over", organization_id=taken.group.organization_id, group_id=taken.group.id, caller=taken.changed_by)
        return partial(self._bring, taken)

    def stop(self) -> None:
        """Have what is under way let go of, for others to take over."""
        self._stopping.set()

    def _take_over(self) -> Unapplied | None:
        now = datetime.now(UTC)
        with self._database.reading() as session:
            if self._stopping.is_set() or not roles.anything_overdue(session, now):
                return None
        return self._database.write(lambda session: roles.take_over(session, now, now + LEASE))

    def _bring(self, taken: Unapplied) -> bool:
        """Bring the group's roles to its members, some at a time; returns whether that is done, here or by who took it from us."""
        reached: str | None = ""
        while reached is not None and not self._stopping.is_set():
            began = monotonic()
            reached = self._database.write(partial(self._bring_to_some, taken, reached))
            if reached is not None and self._database.dialect == "sqlite":
                self._stopping.wait(monotonic() - began)  # its lock is not fair: the webhooks' turn is as long as ours
        return reached is None

    def _bring_to_some(self, taken: Unapplied, reached: str, session: Session) -> str | None:
        """Bring them to the next members, after the one `reached`; returns the last, or None when there is nothing more for us to do."""
        now = datetime.now(UTC)
        if not roles.keep(session, taken, now + LEASE):
            return None
        members = roles.members(session, taken.group, reached, self._users_at_once)
        _show(session, members, taken.changed_by, now)
        if len(members) == self._users_at_once:
            return members[-1].id
        roles.settle(session, taken)
        return None


def _show(session: Session, users: Collection[Key], by: str, now: datetime) -> None:
    cause = Cause(CauseKind.OPERATOR, by)
    writes = Writes()
    changes.record(session, show_anew(session, dict.fromkeys(users, cause), now, regrouped=users, writes=writes), now, writes)
