"""Whatever bytes were signed, `parse` says what they are; what it accepts is fit for both databases, and what it keeps holds no secret."""

import json
import re
from collections.abc import Iterator
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from factories import PAYLOADS, delivery, event
from provisioning.bodies import Json, canonical
from provisioning.events import Envelope, Parsed, parse

DOCUMENTED = {path.stem: path.read_bytes() for path in sorted(PAYLOADS.glob("*.json"))}
SECRETS = ("password", "secret", "token")
TOO_DEEP = "The body is nested more than 64 levels deep."
LONE_SURROGATE, NUL = "\ud800", "\0"
AWKWARD = (
    "1e999",
    "-1e999",
    "-0.0",
    "9" * 309,
    "9" * 5000,
    "NaN",
    "-Infinity",
    r'"\u0000"',
    r'"\udead"',
    '"\0"',
    '""',
    '" "',
    "[[]]",
    "null",
)


def read(body: bytes) -> Parsed:
    return parse(delivery(body))


def holding(writing: str) -> bytes:
    """A right event, in whose data stands this JSON."""
    return event("user_updated", "user_1", number=1, more=0).replace(b'"more": 0', f'"more": {writing}'.encode())


def leaves(value: Json) -> Iterator[str | int | float | None]:
    """Every key and every scalar of `value`."""
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


texts = st.text(st.characters(exclude_categories=()), max_size=20)  # NUL and lone surrogates included
numbers = st.integers() | st.floats() | st.integers(-(10**400), 10**400)
values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=10
)
_PLACES = re.compile(r': ("[^"]*"|true|false|null|\[\]|\{\})')


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A documented event with other values in some places; at times a piece of it is cut out, or something put in."""
    text = draw(st.sampled_from(sorted(DOCUMENTED.values()))).decode()
    places = [match.span(1) for match in _PLACES.finditer(text)]
    for start, end in sorted(draw(st.lists(st.sampled_from(places), unique=True, max_size=3)), reverse=True):
        text = text[:start] + draw(st.sampled_from(AWKWARD) | values.map(json.dumps)) + text[end:]
    start, length = draw(st.integers(0, len(text))), draw(st.sampled_from((0, 0, 0, 1, 40)))
    return text[:start].encode() + (draw(st.binary(max_size=8)) if length else b"") + text[start + length :].encode()


@given(st.binary() | values.map(json.dumps).map(str.encode) | mutated())
def test_every_body_is_an_event_or_an_error_or_neither(body: bytes) -> None:
    """Nothing is raised. What is accepted fits: no NUL, no surrogate, finite numbers, an int64 time; and JSON says all of it."""
    parsed = read(body)
    told = parsed.envelope
    found: list[str | int | float | None] = [told.event_id, told.type, told.organization_id, told.subject_id]
    assert all(each is None or 0 < len(str(each).encode()) <= 512 for each in found)
    assert told.occurred_at is None or abs(told.occurred_at) < 2**63
    if parsed.event is not None:
        assert parsed.error is None
        assert canonical(json.loads(json.dumps(parsed.event.data, allow_nan=False))) == canonical(parsed.event.data)
        found += leaves(parsed.event.data)
        assert (parsed.event.organization_id, parsed.event.subject_id) == (told.organization_id, told.subject_id)
    for each in found:
        if isinstance(each, str):
            assert NUL not in each
            assert each.encode().decode() == each
        else:
            assert each is None or abs(each) < 2**1024


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_and_captured_events_are_read(name: str) -> None:
    """Each says what its envelope says, and is kept byte for byte."""
    parsed, said = read(DOCUMENTED[name]), json.loads(DOCUMENTED[name])
    assert parsed.event is not None
    assert (parsed.event.type, parsed.event.organization_id, parsed.event.subject_id) == (
        said["type"],
        said["organization_id"],
        said["data"]["id"],
    )
    assert (parsed.event.version.event, parsed.event.data, parsed.payload) == (int(said["id"][4:]), said["data"], DOCUMENTED[name])


@pytest.mark.parametrize(
    "body", [b"", b"x", b'{"a":1}x', b"\xff", b'\xef\xbb\xbf{"a":1}', b'{"a":NaN}', b'{"a":"\0"}', b'{"token":not JSON}']
)
def test_what_is_not_json_is_kept_as_it_came(body: bytes) -> None:
    """NaN, a byte order mark and a raw control character are not JSON; and dropping a secret does not mend what is broken."""
    assert read(body) == Parsed(Envelope(), body, error="The body is not JSON.")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"1", b"true"])
def test_json_that_is_no_object_is_no_event(body: bytes) -> None:
    """It is JSON, and kept."""
    assert read(body) == Parsed(Envelope(), body, error="The body is not a JSON object.")


# A writing is a pair: JSON in some spelling, and the same without the members that are named like a secret.
Writing = tuple[str, str]
escaped = [f"\\u{ord(name[0]):04x}{name[1:].upper()}" for name in SECRETS] + ["".join(f"\\u{ord(letter):04X}" for letter in "ToKeN")]
harmless = ("tokens", "a token", r"\\u0074oken", r"token\"", "", "a", "b", "ſecret", r"\ud800")
keys = st.sampled_from([(key, True) for key in (*SECRETS, *(each.title() for each in SECRETS), *escaped, "to\u212aen")]) | st.sampled_from(
    [(key, False) for key in harmless]
)
scalars = st.sampled_from(("1e999", "-0.0", "1.10", "9" * 5000, "true", "null", '"token"', r'"\"}],{[:"', r'"\\"', '"é"', "[ ]", "{\n}"))


def listed(items: list[Writing]) -> Writing:
    return f"[{', '.join(came for came, _ in items)}]", f"[{', '.join(kept for _, kept in items)}]"


def mapped(members: list[tuple[tuple[str, bool], str, Writing]]) -> Writing:
    spelled = [(f'{space}"{key}"{space}:{space}', named, value) for (key, named), space, value in members]
    kept = [key + value for key, named, (_, value) in spelled if not named]
    return "{" + ",".join(key + value for key, _, (value, _) in spelled) + " }", "{" + ",".join(kept) + " }"


writings = st.recursive(
    scalars.map(lambda scalar: (scalar, scalar)),
    lambda inner: (
        st.lists(inner, max_size=4).map(listed) | st.lists(st.tuples(keys, st.sampled_from(("", "\n\t")), inner), max_size=5).map(mapped)
    ),
    max_leaves=12,
)


@given(writings)
@example(('{"a":1 , "token" : {"b":[1,2],"token":3} , "secret":4 }', '{"a":1 }'))
def test_members_named_like_a_secret_are_dropped_and_nothing_else_changes(writing: Writing) -> None:
    """At any depth, in any case and spelling, however often an object has the name; every other byte stays."""
    came, kept = writing
    assert read(came.encode()).payload == kept.encode()


@given(writings)
def test_secrets_are_gone_before_anything_is_computed(writing: Writing) -> None:
    """An event's data, its version and its errors are as if there had been none."""
    came, kept = writing
    assert read(holding(came)) == read(holding(kept))
    assert read(holding(f'{{"token": {came}}}')) == read(holding("{}"))


@pytest.mark.parametrize("levels", [1_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_too_deep_to_be_read_is_scrubbed_all_the_same(levels: int, opening: str, closing: str) -> None:
    """Before it, at the bottom of it, and behind it."""
    came = f'{{"token":"x","a":{opening * levels}{{"password":{{"x":"}}"}}}}{closing * levels},"b":{{"c":1,"Secret":[1,{{}}]}}}}'
    kept = f'{{"a":{opening * levels}{{}}{closing * levels},"b":{{"c":1}}}}'
    assert read(came.encode()) == Parsed(Envelope(), kept.encode(), error=TOO_DEEP)


def test_sixty_four_levels_are_read() -> None:
    """The document is the first, its data the second, what `holding` puts there the third."""
    deepest = "[" * 62 + "1" + "]" * 62
    assert read(holding(deepest)).event is not None
    for deeper in (f"[{deepest}]", f'{{"x":{deepest}}}', "[" * 63 + "]" * 63):
        assert read(holding(deeper)).error == TOO_DEEP


@pytest.mark.parametrize("number", ["1e309", "-1e309", "9" * 309, "-" + "9" * 399, "9" * 400, "-" + "9" * 5000])
def test_a_number_that_no_double_can_hold_is_refused(number: str) -> None:
    """However it is written; the envelope is known all the same, and the payload kept as it came."""
    body = holding(f'{{"x":[{number}]}}')
    assert read(body) == Parsed(read(holding("0")).envelope, body, error="The body holds a number that no double can hold.")


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 308, "-" + "9" * 308, "1.7976931348623157e308", "-0.0", "5e-324", "1.0"])
def test_every_other_number_is_kept_exactly(number: str) -> None:
    """Integers of more than 64 bits too."""
    accepted = read(holding(number)).event
    assert accepted is not None
    assert repr(accepted.data["more"]) == number.replace("e308", "e+308")


@pytest.mark.parametrize(
    ("text", "problem"), [(NUL, "a NUL character"), (LONE_SURROGATE, "a lone surrogate"), ("\udc00\ud800", "a lone surrogate")]
)
def test_a_text_that_a_database_cannot_hold_is_refused(text: str, problem: str) -> None:
    """As a value or as a key, in data or beside it. (A pair of surrogates is one character.)"""
    for body in (event("user_updated", text), event("user_updated", "u", x=[f"a{text}"]), event("user_updated", "u", x={text: 1})):
        for where in (body, b'{"x": ' + body[1:-1].partition(b'"data": ')[2] + b"," + event("user_updated", "u")[1:]):
            assert read(where).error == f"The body holds {problem}."
    assert read(holding(json.dumps("\U0001f600"))).event is not None


@pytest.mark.parametrize("filling", ["[", '"token":', r"\"", "9", "1,", "[],", r"\u0041", '"', " ", "\\", '"token" ', "{", '"a":1,', "é"])
def test_a_body_of_anything_is_refused_in_linear_time(filling: str) -> None:
    """Also after brackets that no reader gets to the bottom of, and within what has to be dropped."""
    for start in ("[" * 2000, '{"token":1,"x":' + "[" * 2000, '["'):
        body = (start + filling * (200_000 // len(filling))).encode()
        before = process_time()
        assert read(body).event is None
        assert process_time() - before < 5


@pytest.mark.parametrize("filling", ["1", "[]", '"é"', '{"a":1}'])
def test_a_long_event_is_read_in_linear_time(filling: str) -> None:
    """All of it is looked at, once."""
    body = holding(f"[{','.join([filling] * (200_000 // (len(filling) + 1)))}]")
    before = process_time()
    assert read(body).event is not None
    assert process_time() - before < 5
