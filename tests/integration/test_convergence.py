"""The same events, in any order, any number of times, cut into any batches, end in the same state."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from factories import delivery, event, named, roles, state
from provisioning.bodies import Json
from provisioning.db.models import directories, directory_users, groups, memberships, role_grants, users
from provisioning.db.session import Database
from provisioning.events import Delivery
from provisioning.inbox import Inbox

_numbers = count(1)
# Each tells a history three times, in some twenty transactions: 20 for a change, 400 among the proofs.
EXAMPLES = settings().max_examples * 2 // 5
examples = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

PEOPLE = tuple(f"diruser_{number}" for number in range(1, 6))
GROUPS = ("dirgroup_1", "dirgroup_2", "dirgroup_3")
DIRECTORIES = ("dir_1", "dir_2")


@dataclass(frozen=True)
class Fact:
    """An event without its organization, so that one history can be told to many."""

    kind: str
    id: str
    at: int
    number: int
    data: tuple[tuple[str, str], ...]

    def delivery(self, organization_id: str) -> Delivery:
        data: dict[str, Json] = {key: VALUES[key][value] for key, value in self.data}
        # The same data everywhere: its digest breaks ties.
        return delivery(event(self.kind, self.id, at=self.at, number=self.number, organization_id=organization_id, told="org", **data))


# Values by name, so that a failing example reads well. Some are shared between people only where a test wants it.
VALUES: dict[str, dict[str, Json]] = {
    "active": {"true": True, "false": False, "null": None},
    "name": {"Ann": "Ann", "Bob": "Bob", "null": None},
    "department": {"a": "a", "b": "b", "null": None},
    "groups": {
        "none": [],
        "1": named("dirgroup_1"),
        "2": named("dirgroup_2"),
        "1 and 3": named("dirgroup_1", "dirgroup_3"),
        "all": named(*GROUPS),
        "null": None,
    },
    "roles": {"none": [], "admin": roles("admin"), "both": roles("admin", "member"), "null": None},
    "directory_id": {"1": "dir_1", "2": "dir_2"},
    "email": {
        **{f"{person}{letter}": f"{person}.{letter}@example.com" for person in PEOPLE for letter in "ab"},
        "shared": "Shared@example.com",
        "also shared": "shared@EXAMPLE.com",
        "null": None,
        "empty": "",
    },
    "dp_id": {**{person: f"up-{person}" for person in PEOPLE}, "shared": "up-shared", "empty": ""},
    "display_name": {"a": "A", "b": "B"},
}


def _data(draw: st.DrawFn, **choices: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, draw(st.sampled_from(values))) for key, values in choices.items() if draw(st.booleans())))


@st.composite
def facts(draw: st.DrawFn, *, shared: bool) -> Fact:
    """One event about one of a few people, groups and directories, at one of a few times, so that ties and overtaking are common."""
    at, number = draw(st.integers(0, 6)), draw(st.integers(1, 3))
    subject = draw(st.sampled_from(["user", "user", "user", "group", "directory"]))
    if subject == "directory":
        kind = draw(st.sampled_from(["directory_enabled", "directory_disabled"]))
        return Fact(kind, draw(st.sampled_from(DIRECTORIES)), at, number, ())
    kind = f"{subject}_{draw(st.sampled_from(['created', 'updated', 'updated', 'deleted']))}"
    if subject == "group":
        return Fact(kind, draw(st.sampled_from(GROUPS)), at, number, _data(draw, display_name=["a", "b"]))
    person = draw(st.sampled_from(PEOPLE))
    emails = ["shared", "also shared", "null", "empty"] if shared else [f"{person}a", f"{person}b", "null", "empty"]
    choices = {key: list(VALUES[key]) for key in ("active", "name", "department", "groups", "roles", "directory_id")}
    data = _data(draw, **choices, email=emails, dp_id=["shared" if shared and draw(st.booleans()) else person, "empty"])
    return Fact(kind, person, at, number, data)


@st.composite
def tellings(draw: st.DrawFn, *, shared: bool) -> list[list[list[Fact]]]:
    """One history, told three times: in other orders, with repetitions, in other batches."""
    history = draw(st.lists(facts(shared=shared), min_size=1, max_size=25))
    result = []
    for _ in range(3):
        order = draw(st.permutations(history + draw(st.lists(st.sampled_from(history), max_size=8))))
        result.append(list(_cut(order, draw(st.lists(st.integers(1, 8), min_size=1)))))
    return result


def _cut(order: list[Fact], sizes: list[int]) -> Iterator[list[Fact]]:
    start, turn = 0, 0
    while start < len(order):
        size = sizes[turn % len(sizes)]
        yield order[start : start + size]
        start, turn = start + size, turn + 1


def tell(database: Database, batches: list[list[Fact]]) -> str:
    """Receive the batches into an organization of their own; returns its id."""
    organization_id = f"org_{next(_numbers)}"
    inbox = Inbox(database)
    for batch in batches:
        receipts = inbox.receive([fact.delivery(organization_id) for fact in batch])
        assert {receipt.outcome for receipt in receipts} <= {"processed", "stale"}
    return organization_id


@examples
@given(told=tellings(shared=False))
def test_order_duplicates_and_batches_do_not_matter(database: Database, told: list[list[list[Fact]]]) -> None:
    """Where no two people share an e-mail or an upstream id, everything is the same: records, memberships, users, roles."""
    first, *others = (state(database, tell(database, batches)) for batches in told)
    for other in others:
        assert other == first


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@examples
@given(told=tellings(shared=True))
def test_with_shared_addresses_the_records_are_the_same_and_nobody_is_active_who_should_not_be(
    database: Database, told: list[list[list[Fact]]]
) -> None:
    """Who joined whom may depend on arrival; the records do not, and each user shows what those behind it come to."""
    organizations = [tell(database, batches) for batches in told]
    first, *others = (_records(database, each) for each in organizations)
    for other in others:
        assert other == first
    for organization_id in organizations:
        _check_users(database, organization_id)


def _records(database: Database, organization_id: str) -> dict[str, object]:
    """What there is, whoever joined whom: also whether a membership counts depends on who else is behind the user."""
    found = state(database, organization_id)
    memberships_ = [stated for *stated, _ in found["memberships"]]
    return {**found, "memberships": memberships_, "users": None, "role_grants": None}


def _check_users(database: Database, organization_id: str) -> None:
    """Law 3, written down a second time from the tables alone."""
    with database.reading() as session:

        def rows(table: object) -> list[dict[str, object]]:
            found = session.execute(select(table).where(table.c.organization_id == organization_id))  # type: ignore[call-overload, attr-defined] # a Table
            return [dict(row) for row in found.mappings()]

        disabled = {row["id"] for row in rows(directories) if not row["enabled"]}
        deleted = {row["id"] for row in rows(groups) if row["deleted"]}
        people, granted, told = rows(directory_users), rows(role_grants), rows(memberships)
        for user in rows(users):
            behind = [person for person in people if person["user_id"] == user["id"]]
            assert behind
            live = [person for person in behind if person["directory_id"] not in disabled] or behind
            active = [person for person in live if person["active"] and not person["deleted"]]
            assert user["active"] == bool(active)
            assert (user["deactivated_at"] is None) == user["active"]
            sources = {grant["source"] for grant in granted if grant["user_id"] == user["id"]}
            assert sources <= {person["id"] for person in active}
            stated = [each for each in told if each["user_id"] == user["id"]]
            counting = [each for each in stated if each["directory_user_id"] in {person["id"] for person in active}]
            assert [each for each in stated if each["since"]] == [each for each in counting if each["group_id"] not in deleted]
