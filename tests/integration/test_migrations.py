"""Migrations make what the models say, on both databases, there and back, and from any number of replicas at once."""

import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import main as alembic
from crew import Crew, line_up
from sqlalchemy import Engine, inspect, text

from databases import Databases
from factories import ORGANIZATION, event, named, receive, roles, user_of
from faults import opened
from provisioning.db import migrations
from provisioning.db import session as database_session
from provisioning.db.models import metadata
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.roles import Roles

INI = Path(__file__).parents[2] / "alembic.ini"


def tables(engine: Engine) -> set[str]:
    """The names of the tables that are there."""
    return set(inspect(engine).get_table_names())


def to_do(url: str) -> str | None:
    """What `migrations.state` says of the database."""
    with opened(url) as database, database.reading() as session:
        return migrations.state(session)


def test_up_down_and_up_again(empty_database_url: str) -> None:
    with opened(empty_database_url) as database:
        for _ in range(2):
            migrations.upgrade(empty_database_url)
            assert tables(database.engine) == {*metadata.tables, "alembic_version"}
            assert receive(database, event("user_created", "u"))[0].outcome == "processed"
            command.downgrade(migrations.config(empty_database_url), "base")
            assert tables(database.engine) == {"alembic_version"}


def test_a_release_that_knows_no_roles_given_here_gets_none(database: Database) -> None:
    """Nobody could take them away there: going down leaves those that the directories give."""
    receive(database, event("user_created", "u", groups=named("g"), roles=roles("member")))
    Roles(database).map_group(ORGANIZATION, "g", {"admin"}, "operator")
    Roles(database).grant(ORGANIZATION, user_of(database, "u"), {"owner"}, "operator")
    command.downgrade(migrations.config(database.engine.url.render_as_string(hide_password=False)), "2026_11_22_reconcile_runs")
    with database.reading() as session:
        assert session.execute(text("SELECT role, source FROM role_grants")).all() == [("member", "u")]


def shape(engine: Engine) -> dict[str, object]:
    """Each table's columns, keys and indexes, with names and collations."""
    found, names = inspect(engine), metadata.tables.keys()
    return {
        name: (
            [(column["name"], repr(column["type"]), column["nullable"], column["default"]) for column in found.get_columns(name)],
            found.get_pk_constraint(name),
            sorted(found.get_foreign_keys(name), key=repr),
            sorted((_plain(index) for index in found.get_indexes(name)), key=repr),
        )
        for name in names
    }


def _plain(index: Mapping[str, Any]) -> dict[str, Any]:
    """With the condition of a partial index as its text: the clause itself equals nothing but itself."""
    return {**index, "dialect_options": {name: str(value) for name, value in index.get("dialect_options", {}).items()}}


def test_migrations_and_models_are_equal(database: Database, request: pytest.FixtureRequest) -> None:
    """As `alembic check` compares them, and as a database shows them that was made from the models."""
    command.check(migrations.config(database.engine.url.render_as_string(hide_password=False)))
    databases: Databases = request.getfixturevalue(f"{database.dialect}_databases")
    with databases.fresh(migrated=False) as url, opened(url) as modelled:
        metadata.create_all(modelled.engine)
        assert shape(database.engine) == shape(modelled.engine)


def test_state_says_what_to_do(empty_database_url: str) -> None:
    """A revision that this release does not know is a newer one's: it has migrated already."""
    before = to_do(empty_database_url)
    assert before
    assert "provisioning migrate" in before
    migrations.upgrade(empty_database_url)
    assert to_do(empty_database_url) is None
    migrations.upgrade(empty_database_url)
    assert to_do(empty_database_url) is None
    with opened(empty_database_url) as database, database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '2999_01_01_newer'"))
    assert to_do(empty_database_url) is None


def test_plain_alembic_does_the_same(empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`alembic upgrade head` finds the database where the service does: in DATABASE_URL."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    alembic(["-c", str(INI), "upgrade", "head"])
    assert to_do(empty_database_url) is None


def test_the_printed_sql_does_the_same(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`alembic upgrade head --sql` is what an operator runs who lets no program alter tables: one transaction, with its locks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    alembic(["-c", str(INI), "upgrade", "head", "--sql"])
    printed = capsys.readouterr().out
    assert printed.strip().startswith("BEGIN;")
    assert printed.strip().endswith("COMMIT;")
    with opened(empty_database_url) as database:
        connection = database.engine.raw_connection()
        if database.dialect == "sqlite":
            connection.executescript(printed)
        else:
            assert "lock_timeout" in printed
            connection.execute(printed)
        connection.close()
    assert to_do(empty_database_url) is None
    command.check(migrations.config(empty_database_url))


def test_text_keys_are_in_byte_order_on_postgresql_and_no_extension_is_needed(postgres_url: str) -> None:
    """So that both databases sort alike, and a restricted account can migrate."""
    keys = """SELECT DISTINCT attrelid::regclass::text, attname, collname FROM pg_index
        JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) JOIN pg_collation c ON c.oid = attcollation
        WHERE indrelid::regclass::text = ANY (%s)"""
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute(keys, [[f'"{name}"' if name == "groups" else name for name in metadata.tables]]).fetchall()
        assert {table for table, _, _ in found} >= {"users", "deliveries", "memberships"}
        assert [key for key in found if key[2] != "C"] == []
        assert connection.execute("SELECT extname FROM pg_extension").fetchall() == [("plpgsql",)]


def test_a_database_that_is_away_or_busy_is_unavailable(sqlite_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable):
        migrations.upgrade(f"postgresql://postgres@127.0.0.1:{port}/nobody")
    monkeypatch.setattr(database_session, "LOCK_SECONDS", 0.1)
    with sqlite_databases.fresh(migrated=False) as url:
        with opened(url) as database, database.writing() as session:
            session.execute(text("SELECT 1"))
            with pytest.raises(Unavailable):
                migrations.upgrade(url)
        assert to_do(url)


def upgrade(url: str) -> str | None:
    """What a replica does when it starts; returns what there is left to do."""
    line_up()
    migrations.upgrade(url)
    return to_do(url)


def test_replicas_that_start_at_once_migrate_once(sqlite_databases: Databases, postgresql_databases: Databases) -> None:
    """Both succeed and find it migrated, however often they try: SQLite's files are new to both of them then."""
    with Crew.assembled() as replicas:
        for databases in [postgresql_databases] + [sqlite_databases] * 20:
            with databases.fresh(migrated=False) as url:
                assert replicas.run(upgrade, url, url) == [None, None]
                with opened(url) as database, database.reading() as session:
                    assert len(session.execute(text("SELECT version_num FROM alembic_version")).all()) == 1


def test_a_sqlite_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Everybody is in it: no other account of the machine may read it, nor the files that SQLite puts beside it."""
    url = f"sqlite:///{tmp_path / 'people.db'}"
    migrations.upgrade(url)
    with opened(url) as database:
        receive(database, event("user_created", "u"))
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("people.db*")}
    assert set(found.values()) == {0o600}
    assert {"people.db", "people.db-wal"} <= found.keys()
