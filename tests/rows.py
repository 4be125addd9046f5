"""Rows put straight into the tables, for tests of what reads them: each shows only the columns that its test is about."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Table, select, text

from provisioning.db.models import application_ids, directories, directory_users, groups, memberships, metadata, role_grants, users
from provisioning.db.repository import Repository
from provisioning.db.session import Database, make_engine

Row: TypeAlias = dict[str, Any]

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
ORGANIZATION = "org_1"

_repository = cache(Repository)
_TIMES = {"created_at": NOW, "updated_at": NOW}
_DEFAULTS: dict[str, Row] = {
    "users": {"active": True, "attributes": {}, **_TIMES},
    "directory_users": {"active": True, "deleted": False, "registers": {}, **_TIMES},
    "groups": {"deleted": False, "registers": {}, **_TIMES},
    "directories": {"enabled": True, "registers": {}, **_TIMES},
    "hooks": {
        "organization_id": None,
        "url": "https://app.example.com/hooks",
        "types": [],
        "secrets": [],
        "position": 0,
        "created_by": "tests",
        "created_at": NOW,
    },
    "hook_lanes": {"kind": "user", "position": 0, "last": 1, "priority": 1, "due_at": NOW, "attempts": 0},
    "hook_dead_letters": {
        "mark": 0,
        "type": "user.created",
        "kind": "user",
        "subject_id": "usr_1",
        "attempts": 9,
        "error": "HTTP 500",
        "died_at": NOW,
    },
}


def put(database: Database, table: Table, *rows: Row) -> None:
    """Insert these rows, in the one organization unless they say another; what they do not name is null."""
    put_all(database, {table: rows})


def put_all(database: Database, rows: Mapping[Table, Sequence[Row]]) -> None:
    """Insert the rows of several tables, in this order."""
    with database.writing() as session:
        for table, of_table in rows.items():
            common = {"organization_id": ORGANIZATION} if "organization_id" in table.c else {}
            missing = dict.fromkeys(table.c.keys())
            given = [{**missing, **common, **_DEFAULTS.get(table.name, {}), **row} for row in of_table]
            assert len(_repository(table).insert(session, given)) == len(given), f"two rows of {table.name} have the same key"


def all_rows(database: Database) -> dict[str, list[Row]]:
    """Every row of every table."""
    with database.reading() as session:
        return {table.name: sorted(map(dict, session.execute(select(table)).mappings()), key=repr) for table in metadata.sorted_tables}


def big_organization(database: Database, organization_id: str, people: int) -> None:
    """An organization of so many users, each with a directory user, in the group grp_000 of everybody and in one of 99 others.

    Every tenth is inactive; all active ones have the role member, every 36th of them admin. All have application ids.
    """
    here = {"organization_id": organization_id}
    numbers = range(people)
    active = [number for number in numbers if number % 10 != 9]

    def membership(number: int, group: int) -> Row:
        ids = {"directory_user_id": f"du_{number:05}", "user_id": f"usr_{number:05}", "group_id": f"grp_{group:03}"}
        return {**here, **ids, "since": NOW if number % 10 != 9 else None}

    def grant(number: int, role: str) -> Row:
        return {**here, "user_id": f"usr_{number:05}", "role": role, "source": f"du_{number:05}"}

    put_all(
        database,
        {
            directories: [{**here, "id": "dir_1"}],
            groups: [{**here, "id": f"grp_{number:03}"} for number in range(100)],
            users: [{**here, "id": f"usr_{number:05}", "active": number % 10 != 9, "email_key": f"p{number}@x.com"} for number in numbers],
            application_ids: [
                {**here, "user_id": f"usr_{number:05}", "application_id": str(number), "set_by": "ops", "set_at": NOW} for number in numbers
            ],
            directory_users: [
                {**here, "id": f"du_{number:05}", "user_id": f"usr_{number:05}", "directory_id": "dir_1", "active": number % 10 != 9}
                for number in numbers
            ],
            memberships: [membership(number, group) for number in numbers for group in (0, 1 + number % 99)],
            role_grants: [grant(number, "member") for number in active]
            + [grant(number, "admin") for number in numbers if number % 40 == 0],
        },
    )


def analyze(database: Database) -> None:
    """Give it the statistics that a server in use has."""
    if database.dialect == "postgresql":
        engine = make_engine(database.engine.url.render_as_string(hide_password=False))
        with engine.execution_options(begin="none").connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()
