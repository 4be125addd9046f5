"""What is read of an envelope and of its data, and which of two events is the later one."""

import json
from calendar import timegm
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from factories import delivery
from provisioning.bodies import MAX_DEPTH, Json, digest
from provisioning.errors import Unreadable
from provisioning.events import Delivery, Envelope, Event, EventType, Version, listed, nanoseconds, parse, rfc3339

SENT = 1_790_000_000
SECOND = 10**9
LONGEST, TOO_LONG = "é" * 256, "é" * 256 + "x"  # 512 and 513 bytes


def document(kind: str = EventType.USER_UPDATED, data: Json = None, **envelope: Json) -> dict[str, Json]:
    """An event that is right, but for what is given; `data` beside its id."""
    return {
        "id": "evt_7",
        "type": kind,
        "occurred_at": "2025-01-06T18:44:25.153954Z",
        "environment_id": "env_1",
        "organization_id": "org_1",
        "data": {"id": "record_1", **data} if isinstance(data, dict) else {"id": "record_1"},
        **envelope,
    }


def without(kept: dict[str, Json], key: str) -> dict[str, Json]:
    return {name: value for name, value in kept.items() if name != key}


def accepted(said: object) -> Event:
    parsed = parse(delivery(json.dumps(said).encode()))
    assert parsed.event is not None, parsed.error
    assert parsed.error is None
    return parsed.event


def refused(said: object, environment_id: str | None = None) -> str:
    parsed = parse(delivery(json.dumps(said).encode()), environment_id)
    assert parsed.event is None
    assert parsed.error is not None
    return parsed.error


@given(
    st.text(min_size=1, max_size=100),
    st.sampled_from(["id", "data", "occurred_at", "organization_id", "more"]),
    st.sampled_from([None, "\0", 5, 10**400, {"x": "\0"}, "2999-01-01T00:00:00Z"]),
)
def test_an_unknown_type_is_never_an_error(kind: str, field: str, value: Json) -> None:
    """Whatever else is wrong, as long as it is JSON and its type can be read; the envelope is told as far as it can be."""
    assume(kind not in set(EventType) and "\0" not in kind)
    parsed = parse(delivery(json.dumps({**document(kind), field: value}).encode()), "env_2")
    assert (parsed.event, parsed.error, parsed.envelope.type) == (None, None, kind)


@pytest.mark.parametrize("value", ["\0", "a\0", "\ud800", TOO_LONG, "", 5, {}])
def test_an_envelope_tells_no_id_that_a_database_could_not_hold(value: Json) -> None:
    """Not of an unknown type either, of which nothing but the envelope is kept."""
    said = document("another.type", {"id": value, "organization_id": value}, id=value, organization_id=value)
    told = parse(delivery(json.dumps(said).encode())).envelope
    assert told == Envelope(type="another.type", occurred_at=nanoseconds("2025-01-06T18:44:25.153954Z"))


@pytest.mark.parametrize("field", ["id", "type", "organization_id", "occurred_at", "data", "data.id"])
@pytest.mark.parametrize("value", [None, "", 5, 1.5, True, [], {}, TOO_LONG, "x" * 1_000_000])
def test_what_identifies_an_event_is_required(field: str, value: Json) -> None:
    """Missing, null, empty, too long (in bytes) or of another type: the error says which. The rest of the envelope is told all the same."""
    broken = {**document(), **({"data": {"id": value}} if field == "data.id" else {field: value})}
    error = refused(broken)
    assert error.startswith(("data.id" if field == "data" else field) + " is missing, or is not ")
    told, whole = (parse(delivery(json.dumps(said).encode())).envelope for said in (broken, document()))
    lost = {"id": "event_id", "data": "subject_id", "data.id": "subject_id"}.get(field, field)
    assert all(getattr(told, name) == (None if name == lost else getattr(whole, name)) for name in type(told).__slots__)
    assert field == "data.id" or refused(without(document(), field)) == error


def test_an_id_may_have_512_bytes() -> None:
    """All three of them."""
    event = accepted({**document(), "id": LONGEST, "organization_id": LONGEST, "data": {"id": LONGEST}})
    assert (event.organization_id, event.subject_id) == (LONGEST, LONGEST)


def test_the_envelopes_organization_is_the_tenant() -> None:
    """Its data's counts only when the envelope has none; one that cannot be read is not none."""
    said = document(data={"organization_id": "org_2"})
    assert accepted(said).organization_id == "org_1"
    for empty in ({**said, "organization_id": None}, {**said, "organization_id": ""}, without(said, "organization_id")):
        assert accepted(empty).organization_id == "org_2"
    unreadable: list[Json] = [5, 0, False, [], {}, TOO_LONG]
    for value in unreadable:
        assert refused({**said, "organization_id": value}).startswith("organization_id is missing, or is not")


def test_an_event_more_than_five_minutes_ahead_of_its_delivery_is_refused() -> None:
    """A clock gone wrong must not win for ever; five minutes exactly are allowed. Our own clock does not matter."""
    for ahead, error in ((0, None), (1, "occurred_at lies more than 5 minutes in the future.")):
        body = json.dumps(document(occurred_at=rfc3339((SENT + 300) * SECOND + ahead))).encode()
        assert parse(Delivery("msg_1", SENT, datetime(2020, 1, 1, tzinfo=UTC), body)).error == error


def test_events_of_another_environment_are_refused_when_one_is_set() -> None:
    """One that names none is of another."""
    assert parse(delivery(json.dumps(document()).encode()), "env_1").event == accepted(document())
    for other in (document(environment_id="env_2"), document(environment_id=None), without(document(), "environment_id")):
        assert refused(other, "env_1") == "The event is of another environment than PROVISIONING_ENVIRONMENT_ID."
        assert accepted(other)


@pytest.mark.parametrize("kind", EventType)
def test_an_event_is_all_that_was_said(kind: EventType) -> None:
    """By a webhook: the number of its id breaks ties. By a listing: what is inferred comes after what is stated."""
    said: dict[str, Json] = {"id": "record_1", "x": 1}
    at = nanoseconds("2025-01-06T18:44:25.153954Z")
    assert accepted(document(kind, {"x": 1})) == Event(kind, "org_1", "record_1", Version(1, at, 7, kind.rank, digest(said)), said)
    for inferred in (False, True):
        version = Version(1, at, int(inferred), kind.rank, digest(said))
        expected = Event(kind, "org_1", "record_1", version, said, {"y": 2}, inferred)
        assert listed(kind, "org_1", "record_1", at, said, hints={"y": 2}, inferred=inferred) == expected
    assert (listed(kind, "org_1", "record_1", at, said).hints, listed(kind, "org_1", "record_1", at, said).inferred) == ({}, False)


def test_a_type_may_be_named_by_its_last_word() -> None:
    """What names none of ours is handed back."""
    for kind in EventType:
        assert EventType.named(kind.rpartition(".")[2]) == EventType.named(kind.value) == kind
    assert EventType.named("user_moved") == "user_moved"


def nested(levels: int, *turns: str) -> Json:
    """Lists and objects in each other, by turns."""
    value: Json = []
    for level in range(levels - 1):
        value = [value] if turns[level % len(turns)] == "[" else {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("a\0", "a NUL character"),
        ({"\0": 1}, "a NUL character"),
        (chr(0xD800), "a lone surrogate"),
        (chr(0xDFFF), "a lone surrogate"),
        (10**309, "a number that no double can hold"),
        *((nested(MAX_DEPTH, *turns), "more than 64 levels deep") for turns in ("[", "{", "[{")),
    ],
)
def test_a_listing_says_nothing_that_no_webhook_could_say(value: Json, error: str) -> None:
    """Of what a database cannot hold, nor a reader read."""
    with pytest.raises(Unreadable, match=rf"^The body (holds|is nested) {error}\.$"):
        listed(EventType.USER_UPDATED, "org_1", "user_1", 1, {"x": value})


@pytest.mark.parametrize("value", [*(nested(MAX_DEPTH - 1, *turns) for turns in ("[", "{", "[{")), r"\u0000" + "9" * 300, 10**308])
def test_a_listing_says_what_only_looks_like_it(value: Json) -> None:
    """Sixty-four levels; a long row of digits in a text; the text of an escape."""
    assert listed(EventType.USER_UPDATED, "org_1", "user_1", 1, {"x": value}).data == {"x": value}


@pytest.mark.parametrize("ids", [("", "user_1"), ("org_1", TOO_LONG), ("o\0", "user_1"), ("org_1", "\ud800")])
def test_a_listing_names_nobody_whom_no_webhook_could_name(ids: tuple[str, str]) -> None:
    with pytest.raises(Unreadable, match=r"^An id is not a text of at most 512 bytes\.$"):
        listed(EventType.USER_UPDATED, *ids, 1, {})


INDEXED = {"user": ["email", "dp_id", "directory_id"], "group": ["external_id", "dp_id", "directory_id"], "directory": []}
TEXTS = {
    "user": ["name", "given_name", "family_name", "preferred_username"],
    "group": ["display_name", "name"],
    "directory": ["provider", "directory_type"],
}
NOT_TEXT: list[Json] = [5, 1.5, True, [], {}, ["canary"], {"canary": "canary"}]
NOT_NAMED: list[Json] = [5, TOO_LONG, "canary" * 100]
NO_LISTS: list[Json] = ["canary", {}, 0, False, ["canary"]]
OF_A_USER: dict[str, list[Json]] = {
    "active": [0, 1, "canary", "true", [], {}],
    "groups": NO_LISTS + [[{"id": bad}] for bad in NOT_NAMED] + [[{"id": "group_1", "name": ["canary"]}]],
    "roles": NO_LISTS + [[{"role_name": bad}] for bad in NOT_NAMED],
}


@pytest.mark.parametrize("kind", EventType)
def test_a_known_field_of_a_wrong_type_is_refused_by_name(kind: EventType) -> None:
    """Null is of every type, and what is indexed has 512 bytes at most. No error quotes the body."""
    of = next(each for each in INDEXED if f"{each}_" in kind.rpartition(".")[2])
    gone = kind == EventType.USER_DELETED
    wrong = ({} if gone else dict.fromkeys(TEXTS[of], NOT_TEXT)) | {field: [*NOT_TEXT, TOO_LONG, "canary" * 100] for field in INDEXED[of]}
    for field, bad in (wrong | OF_A_USER if of == "user" and not gone else wrong).items():
        for value in bad:
            error = refused(document(kind, data={field: value}))
            assert error.startswith((f"data.{field}: ", f"data.{field}.0"))
            assert "canary" not in error
    nothing: dict[str, Json] = dict.fromkeys([*INDEXED[of], *TEXTS[of], *OF_A_USER])
    assert accepted(document(kind, data=nothing)).data == {"id": "record_1", **nothing}
    longest: dict[str, Json] = {**dict.fromkeys(INDEXED[of], LONGEST), **dict.fromkeys(TEXTS[of], "x" * 10_000)}
    assert accepted(document(kind, data=longest)).data == {"id": "record_1", **longest}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("email", 5, "email: should be a text"),
        ("email", TOO_LONG, "email: longer than 512 bytes"),
        ("active", 1, "active: should be true or false"),
        ("groups", {}, "groups: should be a list"),
        ("groups", [5], "groups.0: should be an object"),
        ("roles", [{}, {"role_name": 5}], "roles.1.role_name: should be a text"),
    ],
)
def test_a_wrong_field_is_told_in_words(field: str, value: Json, words: str) -> None:
    """Where it is, and what it should be."""
    assert refused(document(data={field: value})) == f"data.{words}."


@pytest.mark.parametrize("bad", [{"groups": [{"id": None}, None]}, {"roles": "canary"}, {"given_name": 5}, {"active": "yes"}])
def test_nothing_in_a_deletion_keeps_a_leaver_in(bad: dict[str, Json]) -> None:
    """It needs the person's id, and is applied whatever else is wrong with it."""
    assert accepted(document(EventType.USER_DELETED, data=bad)).subject_id == "record_1"


@given(st.integers(-(2**63) // SECOND + 86_400, 2**63 // SECOND - 86_400), st.text("0123456789", max_size=12), st.integers(-1439, 1439))
def test_a_time_is_exact_to_the_nanosecond(seconds: int, fraction: str, offset: int) -> None:
    """With any number of digits, at any offset, and whatever the case of its letters."""
    there = rfc3339((seconds + offset * 60) * SECOND).rstrip("Z") + "." * bool(fraction) + fraction
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else "z"
    exact = seconds * SECOND + int(f"{fraction:0<9}"[:9])
    assert nanoseconds(there + zone) == nanoseconds(there.replace("T", "t") + zone) == exact


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 (in UTC, as timegm reads it)
def test_a_time_counts_from_1970(moment: datetime) -> None:
    """As every other clock does."""
    assert nanoseconds(f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z") == timegm(moment.timetuple()) * SECOND + moment.microsecond * 1000


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_time_can_be_written_and_read_back(time: int) -> None:
    """Every int64, without a zero too many."""
    assert nanoseconds(rfc3339(time)) == time
    assert "0Z" not in rfc3339(time)[19:]


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "2016-12-31T15:59:60-08:00", "2017-01-01T05:29:60.000+05:30"])
def test_a_leap_second_is_the_first_second_of_the_next_day(text: str) -> None:
    """RFC 3339 allows it, at the end of a day in UTC."""
    assert rfc3339(nanoseconds(text)) == "2017-01-01T00:00:00Z"


NO_TIMES = """
2025-01-01 2025-01-01T00:00Z 2025-01-01T00:00:00 2025-01-01_00:00:00Z 2025-01-01T00:00:00.Z 2025-01-01T00:00:00,5Z 20250101T000000Z
2025-02-29T00:00:00Z 2025-13-01T00:00:00Z 2025-01-01T24:00:00Z 2025-01-01T00:60:00Z 2025-01-01T00:00:61Z 2025-01-01T12:00:60Z
2025-01-01T00:00:00+24:00 2025-01-01T00:00:00+05:60 2025-01-01T00:00:00+0530 2025-01-01T00:00:00UTC 2025-01-01T00:00:00.\u0665Z
0000-01-01T00:00:00Z 0001-01-01T00:00:00+23:59 1677-09-21T00:12:43Z 2262-04-11T23:47:17Z 9999-12-31T23:59:60-23:59
1677-09-21T00:12:43.145224192Z 2262-04-11T23:47:16.854775808Z
"""


@pytest.mark.parametrize("text", ["", "2025-01-01T00:00:00Z\n", *NO_TIMES.split()])
def test_what_is_no_time_of_ours_is_refused(text: str) -> None:
    """Neither what RFC 3339 does not allow, nor what nanoseconds in an int64 do not reach."""
    with pytest.raises(ValueError, match=r"."):
        nanoseconds(text)
    assert refused(document(occurred_at=text)).startswith("occurred_at is missing, or is not an RFC 3339 time")


def test_a_version_is_the_instant_then_the_events_number_then_what_happened() -> None:
    """Each decides only where all before it are the same; what takes access away comes last; different data never tie."""
    times = ("2025-01-01T01:00:01Z", "2025-01-01T01:00:01.000000001Z", "2025-01-01T00:59:01.5-00:01")
    steps = [(at, id_, kind) for at in times for id_ in ("evt_9", "evt_10") for kind in list(EventType)[2:5]]
    ordered = [{accepted(document(kind, {"x": x}, id=id_, occurred_at=at)).version for x in (1, 1.0, None)} for at, id_, kind in steps]
    assert all(len(tied) == 3 for tied in ordered)
    assert all(max(earlier) < min(later) for earlier, later in pairwise(ordered))
    assert accepted(document(EventType.DIRECTORY_ENABLED)).version < accepted(document(EventType.DIRECTORY_DISABLED)).version


def test_a_version_does_not_depend_on_how_the_data_are_spelled() -> None:
    """Neither on the order of keys nor on white space nor on escapes."""
    body = json.dumps(document(data={"é": {"b": [1], "a": None}, "z": 0})).encode()
    other = json.dumps(json.loads(body), indent=1, sort_keys=True, ensure_ascii=False).encode()
    first, second = parse(delivery(body)).event, parse(delivery(other)).event
    assert first is not None
    assert second is not None
    assert first.version == second.version


@pytest.mark.parametrize(
    ("id_", "number"), [("evt_0012", 12), ("evt_", 0), ("evt_12x", 0), ("evt_１２", 0), ("msg_5", 0), ("evt_" + "9" * 508, int("9" * 508))]
)
def test_an_event_id_without_digits_counts_as_zero(id_: str, number: int) -> None:
    """Its digits only break ties, so that no shape of an id is an error."""
    assert accepted(document(id=id_)).version == accepted(document()).version._replace(event=number)


@given(st.lists(st.builds(Version, st.integers(0, 1), st.integers(-2, 2), st.integers(0, 2), st.integers(0, 2), st.sampled_from("ab"))))
def test_any_statement_beats_any_hint(versions: list[Version]) -> None:
    """However much older it is; and events are statements."""
    assert accepted(document()).version.grade == 1
    assert [each.grade for each in sorted(versions)] == sorted(each.grade for each in versions)
