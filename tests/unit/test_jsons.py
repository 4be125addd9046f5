"""JSON stays what it was, however it is read and written: orjson is quick, and Python's own module the judge."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning import jsons

NUMBERS = st.integers() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Of the same types, too: 1 is neither true nor 1.0."""
    return repr(one) == repr(other)


@given(VALUES)
def test_what_is_written_is_read_as_it_was(value: Any) -> None:
    assert same(json.loads(jsons.dumps(value)), value)
    assert same(jsons.loads(jsons.dumps(value)), value)
    assert jsons.dumped(value).decode() == jsons.dumps(value)


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_what_others_wrote_is_read_as_python_reads_it(value: Any, indent: int | None, ascii_alone: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_alone)
    assert same(jsons.loads(text), value)
    assert same(jsons.loads(text.encode()), value)


AT_THE_LIMITS = """
    9223372036854775807 18446744073709551615 18446744073709551616 9999999999999999999 -9223372036854775808 -9223372036854775809
    -9999999999999999999 1e999 -0.0 [1e22,1E-7,0.1] "\\ud800" {"a":1,"a":2}
"""


@pytest.mark.parametrize("text", AT_THE_LIMITS.split())
def test_at_the_limits_nothing_is_lost(text: str) -> None:
    assert same(jsons.loads(text), json.loads(text))


@pytest.mark.parametrize("text", ["", "{", "01", "[1,]", "\ufeff1", "nul"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsons.loads(text)
