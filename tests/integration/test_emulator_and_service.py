"""Whatever happens in a directory, and however badly its webhooks travel: the service ends exactly as the directory is."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import service
from live import listening
from provisioning.app import create_app
from provisioning.emulator.company import Company
from provisioning.emulator.comparison import Difference, GroupAnswer, UserAnswer, compare
from provisioning.emulator.jobs import Job
from provisioning.emulator.people import Newcomer, People
from provisioning.emulator.records import Event, Provider
from provisioning.emulator.scenarios import SCENARIOS
from provisioning.emulator.store import Store
from provisioning.emulator.structure import Structure
from provisioning.emulator.sync import first_sync
from provisioning.errors import Conflict, NotFound
from provisioning.events import Delivery
from provisioning.inbox import Outcome

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """The service; each example brings an organization of its own."""
    with service.running(database_url) as client:
        yield client


_numbers = count(1)

NOWHERE = "http://127.0.0.1:1/webhooks/scalekit"
NAMES = ("Engineering", "Sales", "Chess")
Doing = Callable[[People, Structure], object]


def _hire(n: int, group: str) -> Doing:
    return lambda people, _: people.hire(Newcomer("N", str(n), f"{n}@acme.example", groups=[group]))


person, group = st.integers(0, 4), st.sampled_from(NAMES)
doings: st.SearchStrategy[Doing] = st.one_of(
    st.builds(_hire, person, group),
    st.builds(lambda n: lambda people, _: people.suspend(f"{n}@acme.example"), person),
    st.builds(lambda n: lambda people, _: people.fire(f"{n}@acme.example"), person),
    st.builds(lambda n: lambda people, _: people.restore(_reference(people, n)), person),
    st.builds(lambda n: lambda people, _: people.purge(_reference(people, n)), person),
    st.builds(lambda n, m: lambda people, _: people.rename(f"{n}@acme.example", email=f"{m}@acme.example"), person, person),
    st.builds(lambda n: lambda people, _: people.rename(f"{n}@acme.example", family_name="New"), person),
    st.builds(lambda n, g: lambda people, _: people.move(f"{n}@acme.example", g), person, group),
    st.builds(lambda n, g: lambda people, _: people.regroup(f"{n}@acme.example", add=[g]), person, group),
    st.builds(lambda g: lambda _, structure: structure.add_group(g), group),
    st.builds(lambda g, h: lambda _, structure: structure.rename_group(g, h), group, group),
    st.builds(lambda g: lambda _, structure: structure.delete_group(g), group),
    st.builds(lambda g, role: lambda _, structure: structure.map_role(g, role), group, st.sampled_from([None, "admin", "viewer"])),
)


def _reference(people: People, n: int) -> str:
    """Also somebody whom Entra ID has renamed."""
    company = people._company
    users = [user for directory in company.directories(company.organization(None).id) for user in company.users(directory.id)]
    return next((user.id for user in users if user.email.endswith(f"{n}@acme.example")), "nobody")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(Provider), st.lists(doings, max_size=25), st.randoms(use_true_random=False))
def test_any_history_told_in_any_order_ends_as_the_directory_is(
    client: TestClient, provider: Provider, history: list[Doing], chance: random.Random
) -> None:
    """Each event once, some twice, all shuffled, in batches of any size."""
    company = Company(Store())
    people, structure = People(company), Structure(company)
    # Ids go by the clock, and two short histories begin in one of its ticks.
    organization = structure.add_organization("Acme", f"org_{next(_numbers)}")
    structure.add_directory(organization.id, provider)
    for name in NAMES[:2]:
        structure.add_group(name)
    for doing in history:
        with suppress(Conflict, NotFound):
            doing(people, structure)

    assert _differences(client, company, _shuffled(company.events(), chance), chance) == []


def _shuffled(events: list[Event], chance: random.Random) -> list[Event]:
    told = [*events, *chance.sample(events, len(events) // 3)]
    chance.shuffle(told)
    return told


def _differences(client: TestClient, company: Company, told: list[Event], chance: random.Random) -> list[Difference]:
    """Deliver, then compare what the service answers over HTTP."""
    [organization] = company.organizations()
    inbox = client.app.state.services.inbox  # type: ignore[attr-defined]  # Starlette's, untyped
    while told:
        batch, told = told[: (size := chance.randint(1, 12))], told[size:]
        now = datetime.now(UTC)
        deliveries = [Delivery(f"{organization.id}_{event.id}", int(now.timestamp()), now, event.body.encode()) for event in batch]
        assert {receipt.outcome for receipt in inbox.receive(deliveries)} <= {Outcome.PROCESSED, Outcome.STALE, Outcome.DUPLICATE}
    base = f"/v1/organizations/{organization.id}"
    answers, groups = (client.get(f"{base}/{what}?limit=200", headers=service.bearer()).json()["data"] for what in ("users", "groups"))
    directories = company.directories(organization.id)
    return compare(
        [user for directory in directories for user in company.users(directory.id)],
        [group for directory in directories for group in company.groups(directory.id)],
        [directory.id for directory in directories if not directory.enabled],
        company.roles_of,
        [UserAnswer.model_validate(answer) for answer in answers],
        [GroupAnswer.model_validate(answer) for answer in groups],
        lambda answer: answer.roles,
    )


@pytest.fixture
def emulator(database_url: str, tmp_path: Path) -> Iterator[Emulator]:
    """One that delivers to a real service over HTTP, and asks it what it says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
        from provisioning.emulator.server import Emulator  # noqa: PLC0415  # 1.2 s, only for whoever asks for it

    folder = tmp_path / "emulator"
    with Emulator(folder, deliver_to=NOWHERE) as first:
        webhook_secret = " ".join(first.endpoint.secrets)
    with (
        listening(create_app(service.settings(database_url, scalekit_webhook_secrets=webhook_secret))) as url,
        Emulator(folder, deliver_to=f"{url}/webhooks/scalekit", service_key=service.READ_KEY) as emulator,
    ):
        emulator.deliveries.switch({"at_once": 64, "retry_scale": 0.0001})
        yield emulator


@pytest.mark.parametrize("database_url", ["postgresql", pytest.param("sqlite", marks=pytest.mark.proof)], indirect=True)
@pytest.mark.parametrize("people", [60, pytest.param(2000, marks=pytest.mark.proof)])
def test_a_shuffled_duplicated_lossy_first_sync_ends_equal(emulator: Emulator, people: int) -> None:
    """Over HTTP, signed: a tenth of the deliveries twice, a tenth of the attempts lost, all held back for a random time."""
    emulator.deliveries.switch({"duplicates": 0.1, "reorder": 2, "drop": 0.1})
    organization = emulator.structure.add_organization("Acme")
    directory = emulator.structure.add_directory(organization.id, Provider.ENTRA_ID)
    first_sync(emulator.parts, Job("sync"), directory.id, people, None)

    assert emulator.parts.compared(organization.id) == (people, [])
    # It was about as bad as it was meant to be: chance throws the dice, so a fifth of what is to be expected is enough.
    counts = emulator.deliveries.counts()
    attempts = [attempt for each in emulator.deliveries.latest(10_000) for attempt in each.attempts]
    assert (counts["waiting"], counts["given_up"], counts["delivered"]) == (0, 0, 2 * people + 6)
    assert sum(attempt.outcome == "duplicate" for attempt in attempts) > people / 25
    assert sum(attempt.error is not None for attempt in attempts) > people / 25
    assert sum(attempt.outcome == "stale" for attempt in attempts) > people / 20


# On PostgreSQL they are told among the proofs; and 500 people lose nothing that 300 do not, above.
LONG = ("sqlite", "first-sync")


@pytest.mark.parametrize(
    ("database_url", "name"),
    [
        pytest.param(*each, marks=pytest.mark.proof if each == LONG or each[0] == "postgresql" else ())
        for each in product(("sqlite", "postgresql"), SCENARIOS)
    ],
    indirect=["database_url"],
)
def test_every_scenario_ends_with_the_service_saying_the_same(emulator: Emulator, name: str) -> None:
    """Twice, in a company of its own each time; the switches are as before."""
    switches = emulator.deliveries.switches
    for _ in range(1 if name == "first-sync" else 2):
        job = Job(name)
        SCENARIOS[name].play(emulator.parts, job)
        assert "says the same of all" in job.step
    assert emulator.deliveries.switches == switches


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_a_migration_locks_nobody_out_but_the_leaver(emulator: Emulator) -> None:
    """Who is in both directories is one user. (The leaver is known to be gone when it is known who is in the old directory.)"""
    SCENARIOS["migration"].play(emulator.parts, Job("migration"))
    [organization] = emulator.company.organizations()
    users = emulator.service.users(organization.id)
    assert [len(user.directory_users) for user in users] == [2] * 20
    assert {user.email for user in users if not user.active} <= {"ada.lovelace@migration-1.example"}


def test_what_the_service_gives_beside_the_directory_is_no_difference(emulator: Emulator) -> None:
    """Roles that a group is mapped to there, or that a user is granted there; what the directory gives is compared as before."""
    SCENARIOS["onboarding"].play(emulator.parts, Job("onboarding"))
    [organization] = emulator.company.organizations()
    [engineering] = [group for group in emulator.service.groups(organization.id) if group.name == "Engineering"]
    user, *_ = emulator.service.users(organization.id)
    with httpx.Client(base_url=emulator.service.url, headers=service.bearer(service.OPERATE_KEY), timeout=60, trust_env=False) as operator:
        for path in (f"groups/{engineering.id}", f"users/{user.id}"):
            operator.put(f"/v1/organizations/{organization.id}/{path}/roles", json={"roles": ["auditor"]}).raise_for_status()
    assert sum("auditor" in each.roles for each in emulator.service.users(organization.id)) > 1
    assert emulator.parts.compared(organization.id) == (10, [])

    emulator.structure.map_role(engineering.id, "owner", resend=False)
    _, differences = emulator.parts.compared(organization.id)
    assert differences
    assert all((each.field, each.directory, each.service) == ("user's roles", ["owner"], ["admin"]) for each in differences)


def test_a_service_that_does_not_say_where_roles_come_from_is_compared_by_all_of_them(emulator: Emulator) -> None:
    """As one before that was asked of anybody: it answers 404, as it does here of somebody unknown."""
    SCENARIOS["onboarding"].play(emulator.parts, Job("onboarding"))
    [organization] = emulator.company.organizations()
    user = next(user for user in emulator.service.users(organization.id) if user.roles)
    unknown = user.model_copy(update={"id": "usr_0", "roles": ["a", "b"]})
    assert emulator.service.roles_by_directory(organization.id, unknown) == ["a", "b"]
    assert emulator.service.roles_by_directory(organization.id, user) == user.roles


def test_a_scenario_fails_when_the_service_differs(emulator: Emulator) -> None:
    """Somebody was deleted there behind the webhooks' back: here, deliveries that the service never gets."""
    emulator.deliveries.switch({"retry_scale": 0.000001})
    emulator.endpoint.url = NOWHERE
    with pytest.raises(Conflict, match="differs in"):
        SCENARIOS["onboarding"].play(emulator.parts, Job("onboarding"))
