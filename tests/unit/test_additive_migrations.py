"""Migrations only add: the release before serves on, on the tables that they leave. What it does there for real: e2e/test_upgrading.py."""

import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.operations import AbstractOperations, Operations
from alembic.operations.ops import AddColumnOp, CreateIndexOp, CreateTableOp, ExecuteSQLOp, MigrateOperation
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

from provisioning.db import migrations

SCRIPTS = ScriptDirectory.from_config(migrations.config("sqlite://"))
NEW = re.compile(  # all of one statement
    r"CREATE SEQUENCE \w+( START WITH \d+)?|ALTER TABLE \w+ SET \(fillfactor = \d+\)|CREATE VIEW \w+ AS\s+SELECT [^;]+|"
    r"INSERT INTO (?P<table>\w+) [^;]+|UPDATE (?P<of>\w+) SET (?P<column>\w+) = [^,;]* WHERE [^;]+"
)
# Of these no release deletes a row: of any other, one that knows nothing of a new reference to it would fail to.
KEPT = {"users", "groups"}

Recorded = Callable[[Callable[[], object]], list[MigrateOperation]]


def breaking(operations: list[MigrateOperation]) -> Iterator[str]:
    """Whatever of a migration a release cannot take that knows the tables as they were."""
    tables, columns = set[str | None](), set[tuple[str, str]]()
    for each in operations:
        match each:
            case CreateTableOp():
                tables.add(each.table_name)
                if {key.target_fullname.split(".")[0] for key in each.to_table().foreign_keys} - tables - KEPT:
                    yield f"{each.table_name} keeps rows of another table from being deleted"
            case AddColumnOp():
                column = each.column
                columns.add((each.table_name, column.name))
                if not column.nullable and column.server_default is None:
                    yield f"{each.table_name}.{column.name} has to be given in every insert"
                if column.unique or column.constraints or column.foreign_keys:
                    yield f"{each.table_name}.{column.name} is not free to be anything"
            case CreateIndexOp():
                if each.unique and each.table_name not in tables:
                    yield f"{each.index_name} refuses rows"
            case ExecuteSQLOp():
                found = NEW.fullmatch(str(each.sqltext).strip())
                if not found or not {found["table"]} <= {None, *tables} or not {(found["of"], found["column"])} <= {(None, None), *columns}:
                    yield f"{each.sqltext} changes what was there"
            case _:
                yield type(each).__name__


@pytest.fixture(params=["sqlite", "postgresql"])
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Has a migration tell what it would do on this kind of database, and do nothing."""
    operations: list[MigrateOperation] = []
    monkeypatch.setattr(AbstractOperations, "invoke", lambda _, operation: operations.append(operation))

    def record(upgrade: Callable[[], object]) -> list[MigrateOperation]:
        with Operations.context(MigrationContext.configure(dialect_name=request.param, opts={"as_sql": True})):
            upgrade()
        return operations

    return record


def test_the_service_knows_them_as_alembic_does() -> None:
    """Which is the newest, and all: it reads their names without Alembic."""
    assert migrations._revisions() == (SCRIPTS.get_current_head(), frozenset(each.revision for each in SCRIPTS.walk_revisions()))


@pytest.mark.parametrize("script", [each for each in SCRIPTS.walk_revisions() if each.down_revision], ids=lambda script: script.revision)
def test_a_migration_only_adds(script: Script, recorded: Recorded) -> None:
    """Tables, indexes, and columns that nobody has to fill in: nothing goes or is called otherwise, nothing is refused that was taken."""
    assert list(breaking(recorded(script.module.upgrade))) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda: op.drop_table("users"),
        lambda: op.drop_column("users", "name"),
        lambda: op.drop_index("ix_users_organization_id_active_id"),
        lambda: op.rename_table("users", "people"),
        lambda: op.alter_column("users", "name", new_column_name="title"),
        lambda: op.alter_column("users", "name", nullable=False),
        lambda: op.add_column("users", sa.Column("title", sa.Text(), nullable=False)),
        lambda: op.add_column("users", sa.Column("title", sa.Text(), unique=True)),
        lambda: op.add_column("users", sa.Column("title", sa.Text(), sa.CheckConstraint("title <> ''"))),
        lambda: op.create_index("ix_users_name", "users", ["name"], unique=True),
        lambda: op.create_check_constraint("ck_users_name", "users", "name <> ''"),
        lambda: op.create_unique_constraint("uq_users_name", "users", ["name"]),
        lambda: op.create_table("titles", sa.Column("id", sa.Text(), sa.ForeignKey("deliveries.webhook_id"))),
        lambda: op.create_table("titles", sa.Column("id", sa.Text()), sa.ForeignKeyConstraint(["id"], ["deliveries.webhook_id"])),
        partial(op.execute, "UPDATE users SET active = false WHERE name IS NULL"),
        partial(op.execute, "DELETE FROM users"),
        partial(op.execute, "INSERT INTO organizations (id) VALUES ('org_1')"),
        partial(op.execute, "CREATE SEQUENCE numbers; DELETE FROM users"),
        partial(op.execute, "CREATE SEQUENCE numbers OWNED BY users.id"),
    ],
)
def test_whatever_else_it_did_would_be_seen(change: Callable[[], object], recorded: Recorded) -> None:
    assert list(breaking(recorded(change)))


@pytest.mark.parametrize(
    "statements",
    [
        "UPDATE users SET title = 'x' WHERE active; DROP TABLE users",
        "UPDATE users SET title = 'x'; DELETE FROM users WHERE active",
        "INSERT INTO titles SELECT 'x'; DELETE FROM users",
    ],
)
def test_what_follows_in_the_same_breath_is_no_less_seen(statements: str, recorded: Recorded) -> None:
    """Behind a statement that does no harm."""

    def upgrade() -> None:
        op.create_table("titles", sa.Column("id", sa.Text()))
        op.add_column("users", sa.Column("title", sa.Text()))
        op.execute(statements)

    assert list(breaking(recorded(upgrade)))


def test_what_a_column_is_filled_with_is_no_harm(recorded: Recorded) -> None:
    """A default that the database has; values of the column that is new."""

    def upgrade() -> None:
        op.add_column("users", sa.Column("title", sa.Text(), nullable=False, server_default=""))
        op.execute("UPDATE users SET title = name WHERE active")

    assert list(breaking(recorded(upgrade))) == []
