"""The operations page for tests: somebody logged in to it, and a database in which every text that others choose is markup."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

from fastapi.testclient import TestClient
from httpx2 import Response

from provisioning.db.models import (
    application_ids,
    changes,
    deliveries,
    directories,
    directory_users,
    group_roles,
    groups,
    hook_dead_letters,
    hook_lanes,
    hooks,
    local_roles,
    memberships,
    organizations,
    reconcile_runs,
    refusals,
    role_grants,
    users,
)
from provisioning.db.session import Database
from rows import NOW, Row, put_all
from service import OPERATE_KEY, running

HERE = "https://testserver"
MARKUP = "<img src=x onerror=alert(1)>"
QUOTED = quote(MARKUP, safe="")
ORGANIZATION = f"/admin/organizations/{QUOTED}"
PERSON, INACTIVE, GROUP, RUN = (f"{ORGANIZATION}/{kind}/{QUOTED}" for kind in ("users", "users", "groups", "runs"))
# With the markup of everything in each.
PAGES = (
    "/admin",
    "/admin/deliveries",
    f"/admin/deliveries?organization_id={QUOTED}&type={QUOTED}&person={QUOTED}",
    f"/admin/deliveries/{QUOTED}",
    "/admin/organizations",
    ORGANIZATION,
    f"{ORGANIZATION}?who={QUOTED}&active=true",
    f"{ORGANIZATION}/users/{QUOTED}",
    f"{ORGANIZATION}/users/left",
    f"{ORGANIZATION}/groups",
    f"{ORGANIZATION}/groups/{QUOTED}",
    f"{ORGANIZATION}/directories",
    f"{ORGANIZATION}/runs",
    f"{ORGANIZATION}/runs/{QUOTED}",
    f"{ORGANIZATION}/runs/under-way",
    "/admin/hooks",
    f"/admin/deliveries?{QUOTED}=1",
    f"/admin/nothing/{QUOTED}",
)


class Visit:
    """A browser at the operations page, without one: it keeps cookies, names its origin and follows no redirect."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        client.base_url = HERE
        client.follow_redirects = False

    def log_in(self, key: str = OPERATE_KEY, wanted: str = "/admin", **headers: str) -> Response:
        """Send the login form."""
        return self.client.post("/admin/login", data={"key": key, "next": wanted}, headers={"Origin": HERE, **headers})

    def get(self, path: str) -> Response:
        """Ask for a page."""
        return self.client.get(path)

    def token(self) -> str:
        """What the forms of this login carry."""
        found = re.search(r'name="token" value="([0-9a-f]+)"', self.get("/admin/organizations").text)
        assert found
        return found[1]

    def do(self, path: str, **fields: str) -> Response:
        """Send a form from one of the pages."""
        return self.client.post(path, data={"token": self.token(), **fields}, headers={"Origin": HERE})

    def heading(self, path: str) -> str:
        """The title of a page as it is read."""
        return heading(self.get(path))


def heading(answer: Response) -> str:
    """The one heading of a page."""
    found = re.findall(r"<h1>(.*?)</h1>", answer.text, re.DOTALL)
    assert len(found) == 1, answer.text
    return unescape(re.sub(r"<.*?>", "", found[0]))


@contextmanager
def visiting(database_url: str, **more: Any) -> Iterator[Visit]:
    """Somebody at the page of a service on this database, not logged in."""
    with running(database_url, **more) as client:
        yield Visit(client)


def fill(database: Database, text: str = MARKUP) -> None:
    """Put one of everything into the database, with `text` wherever others say what is there."""
    here: Row = {"organization_id": text}
    cause: Row = {"cause": "delivery", "cause_id": text, "occurred_at": 1_700_000_000 * 10**9, "recorded_at": NOW}
    run: Row = {**here, "dry_run": False, "requested_by": text, "requested_at": NOW, "due_at": NOW, "listed_users": 1, "listed_groups": 1}
    run |= {"changes": {"users_deactivated": 1}, "removed": {}, "drifted": 1, "saw_active": True, "saw_totals": True, "started_at": NOW}
    found = {"what": text, "type": text, "id": text, "fields": {text: {"before": text, "after": text}}, "reason": text}
    run |= {"held_back": [text], "drift": [found]}
    proposal: Row = {"users": [text], "groups": [text], "memberships": {text: [text]}, "roles": {text: [text]}}
    delivery: Row = {**here, "type": text, "event_id": text, "subject_id": text, "received_at": NOW, "attempts": 1, "error": text}
    # The log is in its lanes, and what waits in them is not due: nobody is told.
    hook: Row = {**here, "id": text, "url": text, "types": [text], "position": 10**9, "created_by": text, "failing_since": NOW}
    lane: Row = {**here, "hook_id": text, "subject_id": text, "due_at": NOW + timedelta(days=999), "error": text}
    payload = f'{{"{text}": "{text}"}}'.encode()
    put_all(
        database,
        {
            organizations: [{"id": text, "created_at": NOW, "complete_as_of": 1_700_000_000 * 10**9}],
            directories: [{**here, "id": text, "provider": text, "type": text}],
            users: [
                {**here, "id": text, **_person(text)},
                {**here, "id": "left", **_person(text), "active": False, "deactivated_at": NOW},
            ],
            directory_users: [
                {**here, "id": text, "user_id": text, "directory_id": text, "external_id": text, "email": text},
                {**here, "id": "left", "user_id": "left", "directory_id": text, "email": text, "active": False},
            ],
            groups: [{**here, "id": text, "name": text, "directory_id": text, "external_id": text}],
            memberships: [{**here, "directory_user_id": text, "group_id": text, "user_id": text, "since": NOW}],
            group_roles: [{**here, "group_id": text, "role": text, "mapped_by": text, "mapped_at": NOW}],
            role_grants: [
                {**here, "user_id": text, "role": text, "source": source, "since": NOW} for source in (text, f"group:{text}", "local")
            ],
            local_roles: [{**here, "user_id": user, "role": text, "granted_by": text, "granted_at": NOW} for user in (text, "left")],
            application_ids: [{**here, "user_id": text, "application_id": text, "set_by": text, "set_at": NOW}],
            deliveries: [
                {**delivery, "webhook_id": text, "outcome": "failed", "payload": payload, "retry_at": NOW + timedelta(days=1)},
                {**delivery, "webhook_id": "dismissed", "outcome": "dead_lettered", "payload": text.encode(), **_dismissed(text)},
                {**delivery, "webhook_id": "dead", "outcome": "dead_lettered"},
            ],
            changes: [
                {**here, **cause, "position": 2, "type": "user.created", "user_id": text, "after": {"active": True, "name": text}},
                {**here, **cause, "position": 3, "type": "user.updated", "user_id": text, **_update(text)},
                {**here, **cause, "position": 4, "type": "membership.added", "user_id": text, "group_id": text},
                {**here, **cause, "position": 5, "type": "role.granted", "user_id": text, "role": text, "cause": "operator"},
                {**here, **cause, "position": 6, "type": "group.updated", "group_id": text, **_update(text), "cause": "run"},
                {**here, **cause, "position": 7, "type": "user.deactivated", "user_id": "left"},
            ],
            reconcile_runs: [
                {
                    **run,
                    "id": text,
                    "state": "needs_approval",
                    "finished_at": NOW,
                    "error": text,
                    "proposal": proposal,
                },
                {**run, "id": "under-way", "state": "running", "leased_until": NOW, "drift": []},
            ],
            hooks: [{**hook, "error": text, "retry_at": NOW + timedelta(days=999)}],
            hook_lanes: [lane],
            hook_dead_letters: [
                {**here, "hook_id": text, "position": position, "type": text, "kind": kind, "subject_id": text, "error": text}
                for position, kind in enumerate(("user", "group", "directory"))
            ],
            refusals: [
                {"minute": NOW + timedelta(minutes=1), "reason": reason, "count": count}
                for reason, count in ((text, 214), ("signature", 3), ("malformed", 2))
            ],
        },
    )


def _person(text: str) -> Row:
    profile = dict.fromkeys(("email", "email_key", "name", "given_name", "family_name", "preferred_username"), text)
    return {**profile, "attributes": {text: text, "nested": {text: [text]}}}


def _dismissed(text: str) -> Row:
    return {"dismissed_at": NOW, "dismissed_by": text, "dismissed_reason": text}


def _update(text: str) -> Row:
    return {"before": {"name": "before", "attributes": {text: None}}, "after": {"name": text, "attributes": {text: text}}}
