"""The views for applications that read the database: they stay as they were promised, and say what the API says."""

import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text, update
from test_convergence import GROUPS, PEOPLE, Fact, facts

from factories import event, one_by_one, roles, user_of
from provisioning.db.models import application_ids, organizations
from provisioning.db.reading.users import UserFilter, page_of_users
from provisioning.db.session import Database
from provisioning.errors import NotFound
from provisioning.inbox import Inbox
from provisioning.roles import Roles
from readme import rows, section
from rows import NOW, ORGANIZATION, put
from viewing import assert_views_are_true, viewed

# What was promised: this is never edited. What is to be otherwise is a version 2, in views of its own.
V1 = {
    "provisioning_v1_users": {
        "organization_id": "TEXT",
        "organization_external_id": "TEXT",
        "user_id": "TEXT",
        "application_id": "TEXT",
        "email": "TEXT",
        "email_key": "TEXT",
        "name": "TEXT",
        "given_name": "TEXT",
        "family_name": "TEXT",
        "preferred_username": "TEXT",
        "active": "BOOLEAN",
        "attributes": "JSON",
        "created_at": "TIMESTAMP WITH TIME ZONE",
        "updated_at": "TIMESTAMP WITH TIME ZONE",
        "deactivated_at": "TIMESTAMP WITH TIME ZONE",
    },
    "provisioning_v1_memberships": {"organization_id": "TEXT", "user_id": "TEXT", "group_id": "TEXT", "group_name": "TEXT"},
    "provisioning_v1_roles": {"organization_id": "TEXT", "user_id": "TEXT", "role": "TEXT"},
}
README = section("From the database")
ASKING, GRANTING = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
COLUMNS = {
    "sqlite": "SELECT name, type FROM pragma_table_info(:view) ORDER BY cid",
    "postgresql": "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = :view ORDER BY ordinal_position",
}

_numbers = count(1)
examples = settings(
    max_examples=settings().max_examples // 5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def test_version_1_is_what_was_promised(database: Database) -> None:
    """After all migrations: the columns, their order and their types, which SQLite has one of for times."""
    with database.reading() as session:
        for view, promised in V1.items():
            found = [(name, type_.upper()) for name, type_ in session.execute(text(COLUMNS[database.dialect]), {"view": view})]
            times = "DATETIME" if database.dialect == "sqlite" else "TIMESTAMP WITH TIME ZONE"
            assert found == [(name, times if type_.startswith("TIME") else type_) for name, type_ in promised.items()]


def test_the_readme_promises_version_1() -> None:
    """Every column, in its order, with its type on PostgreSQL."""
    listed = [tuple(row[:3]) for row in rows(README)]
    in_short = {"TIMESTAMP WITH TIME ZONE": "timestamptz"}
    assert listed == [(view, name, in_short.get(type_, type_.lower())) for view, columns in V1.items() for name, type_ in columns.items()]


@dataclass(frozen=True)
class Decision:
    """Somebody here gives roles, to a group or to the user of somebody there."""

    whom: str
    roles: frozenset[str]


_decisions = st.builds(Decision, st.sampled_from([*GROUPS, *PEOPLE]), st.frozensets(st.sampled_from(["admin", "member", "owner"])))
_histories = st.lists(st.one_of(st.lists(facts(shared=True), min_size=1, max_size=6), _decisions), min_size=1, max_size=10)


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@examples
@given(history=_histories)
def test_the_views_say_what_the_api_says(database: Database, history: list[list[Fact] | Decision]) -> None:
    """Whatever the directories said and whatever roles were given here; of runs: test_reconcile_and_webhooks.py."""
    organization_id = f"org_{next(_numbers)}"
    for step in history:
        if isinstance(step, Decision):
            decide(database, organization_id, step)
        else:
            Inbox(database).receive([fact.delivery(organization_id) for fact in step])
        assert_views_are_true(database, organization_id)


def decide(database: Database, organization_id: str, decision: Decision) -> None:
    """Give the roles, where there is already whom to."""
    if decision.whom in GROUPS:
        with suppress(NotFound):
            Roles(database).map_group(organization_id, decision.whom, decision.roles, "operator")
        return
    with database.reading() as session:
        found = page_of_users(session, organization_id, UserFilter(directory_user_id=decision.whom), after="", limit=1)
    for user in found:
        Roles(database).grant(organization_id, user.id, decision.roles, "operator")


def account(database: Database, directory_user_id: str, application_id: str) -> None:
    """The application has an account of its own for this person, and has said so."""
    user_id = user_of(database, directory_user_id)
    put(database, application_ids, {"user_id": user_id, "application_id": application_id, "set_by": "app", "set_at": NOW})
    with database.writing() as session:
        accounts = {"id": application_id, "organization_id": ORGANIZATION}
        session.execute(text("INSERT INTO accounts (id, organization_id) VALUES (:id, :organization_id)"), accounts)


def test_an_application_asks_who_may_come_in(database: Database) -> None:
    """As the README does: by its own table, under its own ids. Who may not come in is not there, nor is another organization's."""
    with database.writing() as session:
        session.execute(text("CREATE TABLE accounts (id TEXT PRIMARY KEY, organization_id TEXT NOT NULL)"))
    for number, data in enumerate(({"roles": roles("admin", "member")}, {"active": False}, {}), 1):
        one_by_one(database, [event("user_created", f"u{number}", email=f"u{number}@x.com", **data)])  # type: ignore[arg-type] # its data
        account(database, f"u{number}", f"account_{number}")
    one_by_one(database, [event("user_created", "u1", organization_id="org_2", roles=roles("owner"))])
    with database.writing() as session:
        session.execute(update(organizations).where(organizations.c.id == ORGANIZATION).values(external_id="tenant_1"))
    with database.reading() as session:
        found = {n: session.execute(text(ASKING.replace("account_1", f"account_{n}"))).all() for n in (1, 2, 3)}
    first, _, third = (user_of(database, f"u{number}") for number in (1, 2, 3))
    assert sorted(found[1]) == [(first, "u1@x.com", "admin"), (first, "u1@x.com", "member")]
    assert (found[2], found[3]) == ([], [(third, "u3@x.com", None)])
    assert {row["organization_external_id"] for row in viewed(database, "provisioning_v1_users", ORGANIZATION)} == {"tenant_1"}


def test_whoever_may_read_the_views_needs_to_read_nothing_else(postgres_url: str) -> None:
    """With the README's grant. The role is gone with the transaction: a server's roles are everybody's."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute(GRANTING.encode())
        connection.execute("SET LOCAL ROLE application")
        for view in V1:
            assert connection.execute(f"SELECT * FROM {view}".encode()).fetchall() == []  # noqa: S608
        for refused in ("SELECT * FROM users", "SELECT * FROM memberships", "DELETE FROM provisioning_v1_roles"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(refused.encode())
        connection.rollback()
