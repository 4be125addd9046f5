"""What happened to a user or a group, as it is asked for: newest first, page by page, and by what."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from factories import delivery, event, named, roles, user_of
from provisioning.db.session import Database
from provisioning.events import Delivery
from provisioning.inbox import Inbox
from rows import ORGANIZATION
from service import bearer, running

HERE = f"/v1/organizations/{ORGANIZATION}"


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """A caller that may read."""
    with running(database_url) as client:
        client.headers.update(bearer())
        yield client


@pytest.fixture
def user_id(database: Database) -> str:
    """A user who came, was renamed, left its group and was let go; another came to the group, and someone elsewhere has the same ids."""
    told: list[Delivery] = [
        delivery(event("user_created", "du_1", name="Ann", groups=named("grp_1"), roles=roles("admin")), "msg_came"),
        delivery(event("user_created", "du_2", at=1, groups=named("grp_1")), "msg_other"),
        delivery(event("user_updated", "du_1", at=2, name="Anna", groups=[]), "msg_renamed"),
        delivery(event("user_deleted", "du_1", at=3), "msg_gone"),
        delivery(event("user_created", "du_1", organization_id="org_2", groups=named("grp_1")), "msg_elsewhere"),
    ]
    for each in told:
        Inbox(database).receive([each])
    return user_of(database, "du_1")


def history(client: TestClient, path: str, limit: int) -> list[dict[str, Any]]:
    """All of it, page by page."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get(path, params={"limit": limit, **after}).raise_for_status().json()
        found += page["data"]
        assert len(page["data"]) == limit or page["next_cursor"] is None
        if page["next_cursor"] is None:
            return found
        after = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("limit", [1, 2, 3, 200])
def test_a_history_is_told_from_its_end(client: TestClient, user_id: str, limit: int) -> None:
    """Each change once, whatever the pages, with what did it; of a group, who came and went."""
    of_user = history(client, f"{HERE}/users/{user_id}/history", limit)
    assert [(change["type"], change["cause"]["id"]) for change in of_user] == [
        ("user.deactivated", "msg_gone"),
        ("role.revoked", "msg_gone"),
        ("membership.removed", "msg_renamed"),
        ("user.updated", "msg_renamed"),
        ("role.granted", "msg_came"),
        ("membership.added", "msg_came"),
        ("user.created", "msg_came"),
    ]
    renamed = of_user[3]
    assert (renamed["before"], renamed["after"]) == ({"name": "Ann"}, {"name": "Anna"})
    assert (renamed["occurred_at"], renamed["cause"]["kind"], renamed["user_id"]) == ("2025-06-15T15:06:42Z", "delivery", user_id)
    of_group = history(client, f"{HERE}/groups/grp_1/history", limit)
    assert [(change["type"], change["cause"]["id"], change["user_id"] == user_id) for change in of_group] == [
        ("membership.removed", "msg_renamed", True),
        ("membership.added", "msg_other", False),
        ("membership.added", "msg_came", True),
        ("group.created", "msg_came", False),
    ]


def test_nobody_elses_history_is_told(client: TestClient, user_id: str) -> None:
    """What is unknown here is not found, wherever else it is."""
    paths = (f"{HERE}/users/usr_0/history", f"{HERE}/groups/grp_0/history", f"/v1/organizations/org_2/users/{user_id}/history")
    for path in paths:
        assert client.get(path).status_code == 404
    elsewhere = history(client, "/v1/organizations/org_2/groups/grp_1/history", 200)
    assert {change["cause"]["id"] for change in elsewhere} == {"msg_elsewhere"}
