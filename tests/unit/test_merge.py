"""Order, repetition and batches make no difference to what a record's registers end as."""

import json
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from provisioning.bodies import Json, digest
from provisioning.events import Version
from provisioning.merge import Key, Kind, Register, Registers, Write, dump, fold, load, merge, newest

NAMES = ("email", "active", "groups", "$deleted")
values: st.SearchStrategy[Json] = st.sampled_from(
    [None, True, False, 0, 1, 1.0, -0.0, 10**400, "", "1", "é", [], [{}], [{"id": "group_1"}], {"a": 1, "b": None}, {"b": None, "a": 1}]
)
says = st.dictionaries(st.sampled_from(NAMES), values)


@st.composite
def writes(draw: st.DrawFn) -> Write:
    """What an event says; as with events, the version tells two of them apart. Few instants, so that all else has to decide too."""
    statements, hints = draw(says), draw(says)
    version = Version(1, draw(st.integers(-1, 1)), draw(st.integers(0, 1)), draw(st.integers(0, 2)), digest([statements, hints]))
    return Write(Kind.DIRECTORY_USER, Key("org_1", "user_1"), version, statements, hints)


histories = st.lists(writes(), max_size=8)


def write_of(at: int, statements: dict[str, Json], hints: dict[str, Json] | None = None) -> Write:
    return Write(Kind.GROUP, Key("org_1", "group_1"), Version(1, at, 0, 0, ""), statements, hints or {})


def after(history: list[Write], registers: Registers | None = None) -> Registers:
    return fold(registers or {}, enumerate(history))[0]


def same(one: Registers, other: Registers) -> bool:
    """Whether they hold the same JSON (in Python, 1 == 1.0 == True)."""
    return json.dumps(dump(one), sort_keys=True) == json.dumps(dump(other), sort_keys=True)


@given(histories)
def test_registers_are_what_sorting_by_version_says(history: list[Write]) -> None:
    """An oracle that knows nothing of merging: of everything that was said of a key, the last word by version."""
    said = [(write.version._replace(grade=0), write.hints) for write in history] + [(write.version, write.statements) for write in history]
    expected: dict[str, Register] = {}
    for version, words in sorted(said, key=lambda each: each[0]):
        expected |= {key: Register(value, version) for key, value in words.items()}
    assert same(after(history), expected)


@given(histories, st.data())
def test_any_order_any_repetition_and_any_batches_end_in_the_same_registers(history: list[Write], data: st.DataObject) -> None:
    """Merging is commutative, associative and idempotent; and what was stored between two batches is as good as what was not."""
    again = data.draw(st.permutations(history + data.draw(st.lists(st.sampled_from(history)) if history else st.just([]))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(again)), max_size=3)))
    registers: Registers = {}
    for start, end in pairwise([0, *cuts, len(again)]):
        registers = after(again[start:end], load(json.loads(json.dumps(dump(registers)))))
    assert same(registers, after(history))


@given(histories, writes())
def test_a_write_wins_only_where_it_is_newer(history: list[Write], write: Write) -> None:
    """What it does not say stays as it was, and where it says nothing new, None comes back: the event is stale."""
    before = after(history)
    merged = merge(before, write)
    result = before if merged is None else merged
    assert (merged is None) == same(before, result)
    for key in {*before, *write.hints, *write.statements}:
        assert result[key].version >= before.get(key, result[key]).version
        assert result[key] is before.get(key) or key in {*write.hints, *write.statements}
    assert merge(result, write) is None


@given(histories)
def test_the_winners_are_those_that_changed_something_when_their_turn_came(history: list[Write]) -> None:
    """Their numbers come back; the others may be left out, and the registers are the same."""
    registers: Registers = {}
    expected = set()
    for number, write in enumerate(history):
        if not same(registers, step := after([write], registers)):
            expected.add(number)
        registers = step
    result, won = fold({}, enumerate(history))
    assert won == expected
    assert same(result, after([history[number] for number in sorted(won)]))


def test_merging_leaves_the_registers_it_was_given_as_they_were() -> None:
    """A batch that fails is done again from what was read."""
    before = after([write_of(1, {"email": "a"})])
    kept = dict(before)
    assert merge(before, write_of(2, {"email": "b", "name": "B"})) is not None
    assert fold(before, [(0, write_of(2, {"email": "b"}))])[1] == {0}
    assert before == kept


def test_a_statement_beats_every_hint_and_a_hint_the_older_ones() -> None:
    """In either order; a null that is stated is a statement."""
    old, new = write_of(1, {"email": None}), write_of(2, {}, {"email": "hint", "name": "new"})
    older = write_of(0, {}, {"name": "old"})
    for history in ([old, new, older], [older, new, old]):
        found = after(history)
        assert (found["email"].value, found["name"].value) == (None, "new")
        assert (found["email"].version.grade, found["name"].version.grade) == (1, 0)


def test_a_write_may_hint_and_state_the_same_key() -> None:
    """Its statement counts."""
    assert after([write_of(1, {"name": "stated"}, {"name": "hinted"})])["name"] == Register("stated", Version(1, 1, 0, 0, ""))


@given(histories, writes())
def test_what_is_only_inferred_is_written_whole_or_not_at_all(history: list[Write], write: Write) -> None:
    """It yields to anything newer that was said of the record, of whichever key; not to what is as old."""
    before = after(history)
    yields = any(register.version.occurred_at > write.version.occurred_at for register in before.values())
    assert merge(before, replace(write, inferred=True)) == (None if yields else merge(before, write))


def test_what_a_write_says_of_a_key_is_its_statement_or_else_its_hint() -> None:
    """A null that is stated is said; of other keys it says nothing."""
    write = write_of(1, {"email": None, "name": "stated"}, {"email": "hint", "name": "hint", "dp_id": "hint"})
    assert [write.said(key) for key in ("email", "name", "dp_id", "active")] == [None, "stated", "hint", None]


def test_a_write_that_says_nothing_wins_nothing() -> None:
    """A group that is only mentioned gets a record without registers."""
    assert fold({}, [(0, write_of(1, {}))]) == ({}, set())


@given(histories)
def test_what_is_dumped_can_be_loaded(history: list[Write]) -> None:
    """Through JSON, exactly: the versions too."""
    registers = after(history)
    loaded = load(json.loads(json.dumps(dump(registers))))
    assert loaded == registers
    assert same(loaded, registers)
    assert all(type(register.version) is Version for register in loaded.values())


@given(histories)
def test_equal_registers_dump_equally(history: list[Write]) -> None:
    """Whatever order their keys were written in; a version is written once, the newest first."""
    registers = after(history)
    dumped = dump(registers)
    assert json.dumps(dump(dict(reversed(list(registers.items()))))) == json.dumps(dumped)
    versions = [tuple(version) for version, _ in dumped if isinstance(version, list)]
    assert versions == sorted({tuple(register.version) for register in registers.values()}, reverse=True)


@given(histories)
def test_a_record_is_as_fresh_as_its_newest_register(history: list[Write]) -> None:
    """One of which only hints are known is older than any that was stated; of nothing, nothing is known."""
    registers = after(history)
    said = [write.version._replace(grade=grade) for write in history for grade, words in ((0, write.hints), (1, write.statements)) if words]
    assert newest(registers) in [*said, None]
    assert all(register.version <= (newest(registers) or register.version) for register in registers.values())
    assert (newest(registers) is None) == (not registers)
