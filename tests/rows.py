"""Rows put straight into the tables, for tests of what reads them: each shows only the columns that its test is about."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, insert, text

from provisioning.db.models import directories, groups
from provisioning.db.session import Database

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
ORGANIZATION = "org_1"

_TIMES = {"created_at": NOW, "updated_at": NOW}
_DEFAULTS: dict[str, dict[str, object]] = {
    "users": {"active": True, "attributes": {}, **_TIMES},
    "directory_users": {"user_id": None, "directory_id": None, "active": True, "deleted": False, "registers": {}, **_TIMES},
    "groups": {"name": None, "deleted": False, "registers": {}, **_TIMES},
    "directories": {"enabled": True, "registers": {}, **_TIMES},
}


def put(database: Database, table: Table, *rows: dict[str, Any]) -> None:
    """Insert these rows; all of one call name the same columns."""
    common = {"organization_id": ORGANIZATION} if "organization_id" in table.c else {}
    with database.writing() as session:
        session.execute(insert(table), [{**common, **_DEFAULTS.get(table.name, {}), **row} for row in rows])


def big_organization(database: Database, organization_id: str, people: int) -> None:
    """An organization of `people` users, each with a directory user, in the group of everybody and in one of 99 small ones.

    Every tenth is inactive, every fortieth of the active has the role admin, all active ones member.
    """
    of = f"'{organization_id}'"
    user, person, small = (_padded(prefix, number) for prefix, number in (("usr_", "i"), ("du_", "i"), ("grp_", "1 + i % 99")))
    at = "'2026-11-22 09:30:00+00:00'" if database.dialect == "postgresql" else "'2026-11-22 09:30:00.000000'"
    active = "i % 10 <> 0"
    put(database, directories, {"organization_id": organization_id, "id": "dir_1"}, {"organization_id": organization_id, "id": "dir_2"})
    put(database, groups, *({"organization_id": organization_id, "id": f"grp_{number:05}"} for number in range(100)))
    statements = (
        f"INTO users (organization_id, id, email, email_key, active, attributes, created_at, updated_at)"
        f" SELECT {of}, {user}, 'p' || i || '@example.com', 'p' || i || '@example.com', {active}, '{{}}', {at}, {at} FROM n",
        f"INTO directory_users (organization_id, id, user_id, directory_id, active, deleted, registers, created_at, updated_at)"
        f" SELECT {of}, {person}, {user}, 'dir_1', {active}, false, '{{}}', {at}, {at} FROM n",
        f"INTO memberships (organization_id, directory_user_id, group_id, user_id) SELECT {of}, {person}, 'grp_00000', {user} FROM n",
        f"INTO memberships (organization_id, directory_user_id, group_id, user_id) SELECT {of}, {person}, {small}, {user} FROM n",
        f"INTO role_grants (organization_id, user_id, role, source) SELECT {of}, {user}, 'member', {person} FROM n WHERE {active}",
        f"INTO role_grants (organization_id, user_id, role, source) SELECT {of}, {user}, 'admin', {person} FROM n WHERE i % 40 = 1",
    )
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :people)"
    with database.writing() as session:
        for statement in statements:
            into, select = statement.split(" SELECT ", 1)
            session.execute(text(f"INSERT {into} {numbers} SELECT {select}"), {"people": people})


def _padded(prefix: str, number: str) -> str:
    return f"'{prefix}' || substr('00000' || ({number}), length('00000' || ({number})) - 4)"
