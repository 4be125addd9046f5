"""An application that reads the database, for tests: the views say what the service says to whoever asks."""

from typing import Any

from sqlalchemy import JSON, Boolean, text

from provisioning.accounts import email_key
from provisioning.db.models import UtcTime
from provisioning.db.reading.users import UserFilter, page_of_users
from provisioning.db.session import Database

_TYPES = {"active": Boolean, "attributes": JSON, "created_at": UtcTime, "updated_at": UtcTime, "deactivated_at": UtcTime}
_OF_USERS = ("organization_id", "email", "name", "given_name", "family_name", "preferred_username", *_TYPES)
_KEYS = {"user_id", "group_id", "role"}


def viewed(database: Database, view: str, organization_id: str) -> list[dict[str, Any]]:
    """The view's rows of the organization, in the order of their ids."""
    asked = text(f"SELECT * FROM {view} WHERE organization_id = :organization_id")  # noqa: S608 (one of three names)
    with database.reading() as session:
        found = session.execute(asked.columns(**_TYPES) if view.endswith("users") else asked, {"organization_id": organization_id})
        return sorted((dict(row) for row in found.mappings()), key=lambda row: [row[name] for name in row if name in _KEYS])


def assert_views_are_true(database: Database, organization_id: str) -> None:
    """Each user with what it is, and each group and role that it has, once; who is inactive has none."""
    with database.reading() as session:
        users = page_of_users(session, organization_id, UserFilter(), after="", limit=10_000)
    said = [{**{name: getattr(user, name) for name in _OF_USERS}, "user_id": user.id, "email_key": email_key(user.email)} for user in users]
    seen = viewed(database, "provisioning_v1_users", organization_id)
    assert [{name: row[name] for name in (*_OF_USERS, "user_id", "email_key")} for row in seen] == said
    here = {"organization_id": organization_id}
    assert viewed(database, "provisioning_v1_memberships", organization_id) == [
        {**here, "user_id": user.id, "group_id": group.id, "group_name": group.name} for user in users for group in user.groups
    ]
    assert viewed(database, "provisioning_v1_roles", organization_id) == [
        {**here, "user_id": user.id, "role": role} for user in users for role in user.roles
    ]
