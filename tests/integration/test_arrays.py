"""PostgreSQL reads our arrays as what they were, and says so in its own words."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.db.arrays import TYPES, Array, ArrayDumper

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS | st.just("x" * 5000),
    "json": st.dictionaries(TEXTS, st.integers() | TEXTS | st.none(), max_size=3) | st.lists(st.booleans()),
    "bytea": st.binary(),
    "boolean": st.booleans(),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "timestamptz": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001 (the strategy adds it)
}


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection]:
    """One that takes arrays, and answers times in UTC."""
    with psycopg.connect(postgres_url, autocommit=True, options="-c timezone=UTC") as connection:
        connection.adapters.register_dumper(Array, ArrayDumper)
        yield connection


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_what_is_sent_is_what_arrives(connection: psycopg.Connection, type_: str) -> None:
    """In its order, nulls among it, or nothing else, or nothing at all."""

    @given(st.lists(VALUES[type_] | st.none(), max_size=20))
    def arrives(values: list[Any]) -> None:
        rows = connection.execute(f"SELECT value FROM unnest(%s::{type_}[]) AS sent (value)", [Array(type_, values)]).fetchall()  # noqa: S608  # one of TYPES
        assert [value for (value,) in rows] == values

    arrives()


def test_who_has_been_asked_with_nulls_is_not_planned_anew(connection: psycopg.Connection) -> None:
    connection.prepare_threshold = 1
    for values in (["x"], [None], [None, "x"], [], ["x", "x"]) * 2:
        connection.execute("SELECT * FROM unnest(%s::text[])", [Array("text", values)])
    counted = connection.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%unnest%%'", prepare=False).fetchone()
    assert counted == (1,)


def test_what_is_equal_is_not_the_same(connection: psycopg.Connection) -> None:
    """In JSON 1 is neither true nor 1.0; and where clocks are set back, an hour comes twice."""
    said = connection.execute("SELECT value::text FROM unnest(%s::json[]) AS sent (value)", [Array("json", [[1], [True], [1.0]])])
    assert said.fetchall() == [("[1]",), ("[true]",), ("[1.0]",)]
    twice = [datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold) for fold in (0, 1)]
    times = connection.execute("SELECT value FROM unnest(%s::timestamptz[]) AS sent (value)", [Array("timestamptz", twice)]).fetchall()
    assert times[1][0] - times[0][0] == timedelta(hours=1)
