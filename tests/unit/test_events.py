"""Whatever bytes were signed, `parse` says what they are; and what it accepts is fit for both databases and free of secrets."""

import json
import re
from calendar import timegm
from collections.abc import Iterator
from datetime import UTC, datetime
from time import process_time

import pytest
from factories import PAYLOADS
from hypothesis import assume, given
from hypothesis import strategies as st

from provisioning.events import MAX_DEPTH, Delivery, Event, EventType, Json, Parsed, Version, canonical, nanoseconds, parse, rfc3339

DOCUMENTED = {path.stem: path.read_bytes() for path in sorted(PAYLOADS.glob("*.json"))}
SENT = 1_790_000_000
SECOND = 10**9
LONGEST, TOO_LONG = "é" * 256, "é" * 256 + "x"  # 512 and 513 bytes
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


def read(body: bytes | object, *, sent_at: int = SENT, environment_id: str | None = None) -> Parsed:
    """What becomes of a body, or of a document."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(Delivery("msg_1", sent_at, datetime.now(UTC), sent), environment_id)


def document(kind: str = "directory.user_updated", data: Json = None, **envelope: Json) -> dict[str, Json]:
    """An event that is right, but for what is given."""
    return {
        "id": "evt_7",
        "type": f"organization.{kind}",
        "occurred_at": "2025-01-06T18:44:25.153954Z",
        "environment_id": "env_1",
        "organization_id": "org_1",
        "data": {"id": "record_1", **data} if isinstance(data, dict) else data or {"id": "record_1"},
        **envelope,
    }


def accepted(body: bytes | object) -> Event:
    parsed = read(body)
    assert parsed.event is not None, parsed.error
    assert parsed.error is None
    return parsed.event


def refused(body: bytes | object, *, sent_at: int = SENT, environment_id: str | None = None) -> str:
    parsed = read(body, sent_at=sent_at, environment_id=environment_id)
    assert parsed.event is None
    assert parsed.error is not None
    return parsed.error


def without(kept: dict[str, Json], *keys: str) -> dict[str, Json]:
    return {key: value for key, value in kept.items() if key not in keys}


def leaves(value: Json) -> Iterator[str | int | float | None]:
    """Every key and scalar in `value`."""
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(item)
    if not isinstance(value, dict | list):
        yield value


texts = st.text(st.characters(exclude_categories=()))  # NUL and lone surrogates included
numbers = st.integers() | st.floats() | st.integers(-(10**400), 10**400)
values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)
)
_PLACES = re.compile(r': ("[^"]*"|true|false|null|\[\]|\{\})')


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A documented event with other values in some places, and at times with a piece of it cut out or put in."""
    text = draw(st.sampled_from(sorted(DOCUMENTED.values()))).decode()
    places = [match.span(1) for match in _PLACES.finditer(text)]
    for start, end in sorted(draw(st.lists(st.sampled_from(places), unique=True, max_size=3)), reverse=True):
        text = text[:start] + draw(st.sampled_from(AWKWARD) | values.map(json.dumps)) + text[end:]
    body = text.encode()
    if draw(st.integers(0, 3)) == 0:
        start, length = draw(st.integers(0, len(body))), draw(st.integers(0, 40))
        body = body[:start] + draw(st.binary(max_size=8)) + body[start + length :]
    return body


@given(st.binary() | values.map(json.dumps).map(str.encode) | mutated())
def test_every_body_is_an_event_or_an_error_or_neither(body: bytes) -> None:
    """Nothing is raised. What is accepted fits: no NUL, no surrogate, finite numbers, an int64 time, short ids; and is the same as JSON."""
    parsed = read(body)
    assert parsed.event is None or parsed.error is None
    assert parsed.payload == body or re.search(rb"(?i)password|secret|token|\\u", body)
    assert parsed.envelope.occurred_at is None or abs(parsed.envelope.occurred_at) < 2**63
    told = parsed.envelope
    ids = [each for each in (told.event_id, told.type, told.organization_id, told.subject_id) if each is not None]
    if event := parsed.event:
        assert canonical(json.loads(json.dumps(event.data, allow_nan=False))) == canonical(event.data)
        assert all(abs(leaf) < 2**1024 for leaf in leaves(event.data) if isinstance(leaf, int | float))
        ids += [leaf for leaf in leaves(event.data) if isinstance(leaf, str)]
        ids += [event.organization_id, event.subject_id]
    assert all(NUL not in each and each.encode() for each in ids if each)
    assert all(len(each.encode()) <= 512 for each in (told.event_id, told.type, told.organization_id, told.subject_id) if each)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_and_captured_events_are_read(name: str) -> None:
    """Each is of the type and the organization that its envelope says, and its payload is kept byte for byte."""
    parsed, said = read(DOCUMENTED[name]), json.loads(DOCUMENTED[name])
    assert parsed.event is not None
    assert (parsed.event.type, parsed.event.organization_id, parsed.event.subject_id) == (
        said["type"],
        said["organization_id"],
        said["data"]["id"],
    )
    assert (parsed.event.version.event, parsed.event.data) == (int(said["id"][4:]), said["data"])
    assert parsed.payload == DOCUMENTED[name]


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b'{"a":1}x', b"\xff", b'\xef\xbb\xbf{"a":1}', b'{"a":NaN}', b'{"a":"\0"}', b'{"token":what it is}']
)
def test_what_is_not_json_is_kept_as_it_came(body: bytes) -> None:
    """NaN, a byte order mark and a raw control character are not JSON; and scrubbing does not mend what is broken."""
    assert read(body) == read(body[:]) == Parsed(read(b"").envelope, body, error="The body is not JSON.")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"1", b"true"])
def test_json_that_is_no_object_is_no_event(body: bytes) -> None:
    """Not even one whose text is one."""
    assert refused(body) == "The body is not a JSON object."


# Secrets. A writing is a pair: JSON in some spelling, and the same without the members named like a secret.
def _spelled(name: str) -> st.SearchStrategy[str]:
    return st.tuples(
        *(st.sampled_from((letter, letter.upper(), f"\\u{ord(letter):04x}", f"\\u{ord(letter.upper()):04X}")) for letter in name)
    ).map("".join)


_secret = st.sampled_from(("password", "secret", "token")).flatmap(_spelled).map(lambda name: (f'"{name}"', True))
_other = st.sampled_from(('"tokens"', '"a token"', r'"\\u0074oken"', r'"token\""', '""', '"a"')) | texts.filter(
    lambda text: text.lower() not in {"password", "secret", "token"}
).map(json.dumps)
_keys = _secret | _other.map(lambda key: (key, False))
_leaf = st.sampled_from(("1e999", "-0.0", "1.10", "9" * 5000, "true", "null", '"token"', r'"\"}],{[:"', '"é"', "[]", "{}")) | texts.map(
    json.dumps
)


def _object(members: list[tuple[tuple[str, bool], str, tuple[str, str]]]) -> tuple[str, str]:
    spaced = [(f"{space}{key}{space}:{space}", named, value) for (key, named), space, value in members]
    return (
        "{" + ",".join(key + value[0] for key, _, value in spaced) + "}",
        "{" + ",".join(key + value[1] for key, named, value in spaced if not named) + "}",
    )


writings = st.recursive(
    _leaf.map(lambda leaf: (leaf, leaf)),
    lambda inner: (
        st.lists(inner).map(lambda items: (f"[{','.join(a for a, _ in items)}]", f"[{','.join(b for _, b in items)}]"))
        | st.lists(st.tuples(_keys, st.sampled_from(("", " ", "\n\t")), inner)).map(_object)
    ),
)


@given(writings)
def test_members_named_like_a_secret_are_dropped_and_nothing_else_changes(writing: tuple[str, str]) -> None:
    """At any depth, in any case and spelling, however often one object has the name; every other byte stays."""
    came, kept = writing
    assert read(came.encode()).payload == kept.encode()


@given(writings)
def test_secrets_are_gone_before_anything_is_computed(writing: tuple[str, str]) -> None:
    """Neither an event's data nor its version tells that there were any."""
    came, kept = (read(json.dumps(document(data={"more": 0})).replace('"more": 0', f'"more": {text}').encode()) for text in writing)
    assert (came.event, came.error, came.payload) == (kept.event, kept.error, kept.payload)


@pytest.mark.parametrize("levels", [1_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_too_deep_to_be_read_is_scrubbed_all_the_same(levels: int, opening: str, closing: str) -> None:
    """Beside the depth and at the bottom of it."""
    body = '{{"token":"x","a":{}{}{},"b":{{"c":1,"Secret":[1,{{}}]}}}}'
    came = body.format(opening * levels, '{"password":{"x":"}"}}', closing * levels)
    kept = body.format(opening * levels, "{}", closing * levels).replace('"token":"x",', "").replace(',"Secret":[1,{}]', "")
    assert refused(came.encode()) == f"The body is nested more than {MAX_DEPTH} levels deep."
    assert read(came.encode()).payload == kept.encode()


def test_sixty_four_levels_are_read() -> None:
    """The document is the first, its data the second."""
    inner: Json = "x"
    for _ in range(MAX_DEPTH - 2):
        inner = [inner]
    assert accepted(document(data={"x": inner}))
    assert "64 levels" in refused(document(data={"x": [inner]}))


@pytest.mark.parametrize("value", ["1e309", "-1e309", "9" * 309, "9" * 400, "9" * 5000])
def test_a_number_that_no_double_can_hold_is_refused(value: str) -> None:
    """However it is written; the envelope is known all the same."""
    body = json.dumps(document()).replace('{"id": "record_1"', f'{{"id": "record_1", "x": {value}').encode()
    assert refused(body) == "The body holds a number that no double can hold."
    assert read(body).envelope == read(document()).envelope


@pytest.mark.parametrize("value", [2**63, 10**308, -(10**308), 1.7976931348623157e308, -0.0, 5e-324])
def test_every_other_number_is_kept_exactly(value: float) -> None:
    """Integers beyond 64 bits too."""
    assert canonical(accepted(document(data={"x": value})).data) == canonical({"id": "record_1", "x": value})


@pytest.mark.parametrize(
    ("text", "problem"), [(NUL, "a NUL character"), (LONE_SURROGATE, "a lone surrogate"), ("\udc00\ud800", "a lone surrogate")]
)
def test_a_text_that_a_database_cannot_hold_is_refused(text: str, problem: str) -> None:
    """As a value, as a key, in data or anywhere else; a pair of surrogates is one character."""
    for body in (document(data={"x": [text]}), document(data={"x": {text: 1}}), document(more={"x": f"a{text}b"}), document(id=text)):
        assert refused(body) == f"The body holds {problem}."
    assert accepted(document(data={"x": "\U0001f600"})).data["x"] == "\U0001f600"


# What is read of the envelope.
@given(st.text(min_size=1, max_size=100), st.data())
def test_an_unknown_type_is_never_an_error(type_: str, data: st.DataObject) -> None:
    """Whatever else is wrong with it, as long as it is JSON; its envelope is told as far as it can be."""
    assume(type_ not in set(EventType) and NUL not in type_)
    wrong: list[dict[str, Json]] = [
        {"id": None},
        {"id": NUL},
        {"data": "x"},
        {"data": {"x": NUL}},
        {"occurred_at": "2999-01-01T00:00:00Z"},
        {"organization_id": 5},
    ]
    parsed = read(document(**data.draw(st.sampled_from(wrong)) | {"type": type_, "more": 10**400}), environment_id="env_2")
    assert (parsed.event, parsed.error, parsed.envelope.type) == (None, None, type_)


@pytest.mark.parametrize("field", ["id", "type", "organization_id", "occurred_at", "data", "data.id"])
@pytest.mark.parametrize("value", [None, "", 5, 1.5, True, [], {}, "x" * 513, "x" * 1_000_000])
def test_what_identifies_an_event_is_required(field: str, value: Json) -> None:
    """Missing, null, empty, too long or of another type: the error says which. The rest of the envelope is told."""
    broken = document(data={"id": value}) if field == "data.id" else {**document(), field: value}
    error = refused(broken)
    assert error.startswith(("data.id" if field == "data" else field) + " is missing, or is not ")
    told, whole = read(broken).envelope, read(document()).envelope
    lost = {"id": "event_id", "data": "subject_id", "data.id": "subject_id"}.get(field, field)
    assert all(getattr(told, name) == (None if name == lost else getattr(whole, name)) for name in type(told).__slots__)
    if "." not in field:
        assert refused(without(document(), field)) == error


def test_an_id_has_512_bytes_at_most() -> None:
    """Bytes, not characters."""
    event = accepted(document(data={"id": LONGEST}, id=LONGEST, organization_id=LONGEST))
    assert (event.organization_id, event.subject_id) == (LONGEST, LONGEST)
    for broken in (document(id=TOO_LONG), document(organization_id=TOO_LONG), document(data={"id": TOO_LONG})):
        assert "at most 512 bytes" in refused(broken)


def test_the_envelopes_organization_is_the_tenant() -> None:
    """Its data's counts only when the envelope has none; one that cannot be read is not none."""
    inner: dict[str, Json] = {"organization_id": "org_2"}
    assert accepted(document(data=inner)).organization_id == "org_1"
    for empty in (
        document(data=inner, organization_id=None),
        document(data=inner, organization_id=""),
        without(document(data=inner), "organization_id"),
    ):
        assert accepted(empty).organization_id == "org_2"
    for unreadable in (5, 0, False, [], {}, TOO_LONG):
        assert refused(document(data=inner, organization_id=unreadable)).startswith("organization_id is missing, or is not")


def test_an_event_more_than_five_minutes_ahead_of_its_delivery_is_refused() -> None:
    """A clock gone wrong must not win for ever; five minutes exactly are allowed."""
    assert refused(document(occurred_at=rfc3339((SENT + 300) * SECOND + 1))) == "occurred_at lies more than 5 minutes in the future."
    assert accepted(document(occurred_at=rfc3339((SENT + 300) * SECOND))).version.occurred_at == (SENT + 300) * SECOND


def test_events_of_another_environment_are_refused_when_one_is_set() -> None:
    """One that names none is of another."""
    assert read(document(), environment_id="env_1").event == accepted(document())
    for other in (document(environment_id="env_2"), document(environment_id=None), without(document(), "environment_id")):
        assert "another environment" in refused(other, environment_id="env_1")
        accepted(other)


_SHORT = {"user": ("email", "dp_id", "directory_id"), "group": ("external_id", "dp_id", "directory_id"), "": ()}
_LONG = {
    "user": ("name", "given_name", "family_name", "preferred_username"),
    "group": ("display_name", "name"),
    "": ("provider", "directory_type"),
}
_KIND = {"user": "directory.user_created", "group": "directory.group_created", "": "directory_enabled"}


@pytest.mark.parametrize("kind", EventType)
def test_a_known_field_of_a_wrong_type_is_refused_by_name(kind: EventType) -> None:
    """Null is of every type; what is indexed has 512 bytes at most; and no error quotes the body."""
    of = next(each for each in ("user_", "group_", "") if each in kind)[:-1]
    wrong: list[Json] = [5, 1.5, True, [], {}, ["canary"], {"canary": "canary"}]
    cases: list[tuple[str, list[Json]]] = [(field, wrong) for field in _SHORT[of] + _LONG[of]]
    cases += [(field, ["canary" * 100, TOO_LONG]) for field in _SHORT[of]]
    if of == "user":
        cases += [("active", [0, "canary", "true", [], {}]), ("groups", ["canary", {}, 0, False]), ("roles", ["canary", {}, 0, False])]
        cases += [("groups.0", ["canary", None, []]), ("groups.0.id", [None, "", 5, TOO_LONG]), ("groups.0.name", [5, ["canary"]])]
        cases += [("roles.0", ["canary", None, []]), ("roles.0.role_name", [None, "", 5, TOO_LONG])]
    for field, values_ in cases:
        name, *inner = field.split(".")
        for value in values_:
            item = [{"id": "group_1", "role_name": "role", inner[1]: value} if inner[1:] else value]
            error = refused(document(type=kind, data={name: item if inner else value}))
            assert error.startswith(f"data.{field}: ")
            assert "canary" not in error
    nothing: dict[str, Json] = dict.fromkeys((*_SHORT[of], *_LONG[of], "active", "groups", "roles"))
    assert accepted(document(type=kind, data=nothing)).data == {"id": "record_1", **nothing}
    for field in _SHORT[of]:
        assert accepted(document(type=kind, data={field: LONGEST})).data[field] == LONGEST


# Times and versions.
@given(
    st.datetimes(datetime(1679, 1, 1), datetime(2261, 12, 31)),
    st.text("0123456789", max_size=12),
    st.integers(-1439, 1439),
    st.sampled_from("Tt"),
)
def test_a_time_is_exact_to_the_nanosecond(there: datetime, fraction: str, offset: int, t: str) -> None:
    """With any number of digits and any offset."""
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else "Zz"[len(fraction) % 2]
    text = f"{there:%Y-%m-%d}{t}{there:%H:%M:%S}{'.' * bool(fraction)}{fraction}{zone}"
    assert nanoseconds(text) == (timegm(there.timetuple()) - offset * 60) * SECOND + int(f"{fraction:0<9}"[:9])


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_time_can_be_written_and_read_back(time: int) -> None:
    """Every int64."""
    assert nanoseconds(rfc3339(time)) == time


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "2016-12-31T15:59:60-08:00", "2017-01-01T05:29:60.000+05:30"])
def test_a_leap_second_is_the_first_second_of_the_next_day(text: str) -> None:
    """RFC 3339 allows it, at the end of a day in UTC."""
    assert rfc3339(nanoseconds(text)) == "2017-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-01-01",
        "2025-01-01T00:00Z",
        "2025-01-01T00:00:00",
        "2025-01-01 00:00:00Z",
        "2025-01-01T00:00:00.Z",
        "2025-01-01T00:00:00,5Z",
    ]
    + [
        "2025-02-29T00:00:00Z",
        "2025-13-01T00:00:00Z",
        "2025-01-01T24:00:00Z",
        "2025-01-01T00:60:00Z",
        "2025-01-01T00:00:61Z",
        "2025-01-01T12:00:60Z",
    ]
    + [
        "2025-01-01T00:00:00+24:00",
        "2025-01-01T00:00:00+05:60",
        "2025-01-01T00:00:00+0530",
        "２025-01-01T00:00:00Z",
        "2025-01-01T00:00:00Z\n",
    ]
    + ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "1677-09-21T00:12:43Z", "2262-04-11T23:47:17Z", "9999-12-31T23:59:60-23:59"],
)
def test_what_is_no_time_of_ours_is_refused(text: str) -> None:
    """Neither what RFC 3339 does not allow nor what int64 nanoseconds do not hold."""
    with pytest.raises(ValueError, match="time|leap|day|month|year"):
        nanoseconds(text)
    assert refused(document(occurred_at=text)).startswith("occurred_at is missing, or is not an RFC 3339 time")


def test_a_version_is_the_instant_then_the_events_number_then_what_happened() -> None:
    """Each decides only when all before it are the same; what takes access away comes last; different data never tie."""
    times, ids = ("2025-01-01T01:00:01Z", "2025-01-01T01:00:01.000000001Z", "2025-01-01T00:59:01.5-00:01"), ("evt_9", "evt_10")
    kinds = [EventType.USER_CREATED, EventType.USER_UPDATED, EventType.USER_DELETED]
    ordered = [
        [accepted(document(type=kind, id=id_, occurred_at=time, data={"x": x})).version for x in (1, 1.0, None)]
        for time in times
        for id_ in ids
        for kind in kinds
    ]
    assert all(lower < higher for group, after in zip(ordered, ordered[1:], strict=False) for lower in group for higher in after)
    assert all(len(set(group)) == 3 for group in ordered)
    enabled, disabled = (accepted(document(kind)).version for kind in ("directory_enabled", "directory_disabled"))
    assert enabled < disabled


def test_a_version_does_not_depend_on_how_the_data_are_spelled() -> None:
    """Neither on the order of keys nor on white space: the same event sent twice is one version."""
    said = document(data={"a": 1, "é": {"c": [], "d": None}})
    assert (
        accepted(said).version
        == accepted(
            json.dumps(
                dict(reversed(said.items())) | {"data": {"é": {"d": None, "c": []}, "a": 1, "id": "record_1"}}, ensure_ascii=False, indent=2
            ).encode()
        ).version
    )


@pytest.mark.parametrize(
    ("id_", "number"), [("evt_0012", 12), ("evt_", 0), ("evt_12x", 0), ("evt_１２", 0), ("msg_5", 0), ("evt_" + "9" * 508, int("9" * 508))]
)
def test_an_event_id_without_digits_counts_as_zero(id_: str, number: int) -> None:
    """The digits only break ties, so that no shape of an id is an error."""
    assert accepted(document(id=id_)).version == accepted(document()).version._replace(event=number)


@given(
    st.lists(
        st.builds(Version, st.integers(0, 1), st.integers(-2, 2), st.integers(0, 2), st.integers(0, 2), st.sampled_from("ab")), min_size=2
    )
)
def test_any_statement_beats_any_hint(versions: list[Version]) -> None:
    """However old."""
    assert [each.grade for each in sorted(versions)] == sorted(each.grade for each in versions)


@pytest.mark.parametrize("filling", ["[", '"token":', r'"\"', "9", "1,", "[],", r"\u0041", '"', " ", "\\", '"token" ', "{", '"a":1,', "é"])
def test_a_megabyte_of_anything_is_read_in_linear_time(filling: str) -> None:
    """Also after brackets that no reader gets to the bottom of, and where text has to be scrubbed."""
    for start in ("[" * 2000, '{"token":1,"type":"organization.directory_enabled","data":{"id":"x","x":[', '{"token":1,"x":"'):
        body = (start + filling * (1_000_000 // len(filling))).encode()
        before = process_time()
        read(body)
        assert process_time() - before < 5
