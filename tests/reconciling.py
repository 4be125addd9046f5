"""Reconcile runs for tests: on a real database, against a directory of the local Scalekit whose webhooks reach nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

import service
from provisioning.db.runs import Run, one
from provisioning.db.session import Database
from provisioning.emulator.comparison import Difference, GroupAnswer, UserAnswer, compare
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Directory, Event, Group, Provider, User
from provisioning.events import Delivery
from provisioning.inbox import Inbox, Receipt
from provisioning.reconcile import Reconciler
from provisioning.scalekit.client import ScalekitClient
from provisioning.scalekit.directories import DirectoryReader
from rows import all_rows

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

_numbers = count(1)


@dataclass
class Reconciling:
    """An organization with one directory at the local Scalekit, and a service that reconciles it."""

    emulator: Emulator
    database: Database
    scalekit: ScalekitClient
    reconciler: Reconciler
    directory: Directory
    client: TestClient

    @property
    def organization_id(self) -> str:
        return self.directory.organization_id

    def run(self, organization_id: str = "", *, dry_run: bool = False) -> Run:
        """A run, from the request to its end."""
        asked, _ = self.reconciler.request(organization_id or self.organization_id, dry_run=dry_run, requested_by="test")
        return self.work(asked)

    def work(self, asked: Run) -> Run:
        """The run, worked on here to its end."""
        work = self.reconciler.claim([asked.id])
        assert work, "nothing to claim"
        work()
        return self.now(asked)

    def approve(self, run: Run, by: str = "anna") -> Run:
        return self.work(self.reconciler.approve(run, by))

    def now(self, run: Run) -> Run:
        """The run as its row is now."""
        with self.database.reading() as session:
            return one(session, run.organization_id, run.id, datetime.now(UTC))

    def hire(self, number: int, *groups: str, directory: str = "") -> list[User]:
        """So many people who never were there before, in groups that there are."""
        place = directory or self.directory.id
        users = self.emulator.people.enrol((Newcomer("Nova", str(n), f"nova{n}@acme.example") for n in islice(_numbers, number)), place)
        if groups:
            self.emulator.people.settle((user.id, groups) for user in users)
        return [self.emulator.company.user(user.id) for user in users]

    def group(self, name: str) -> Group:
        """A new group in the directory."""
        return self.emulator.structure.add_group(name, self.directory.id)

    def purge(self, *users: User) -> None:
        """They are in the directory no more."""
        for user in users:
            self.emulator.people.purge(user.id)

    def said(self) -> list[Event]:
        """Everything that the directory ever said about the organization, in its order."""
        return [each for each in self.emulator.company.events() if each.organization_id == self.organization_id]

    def hear(self, *events: Event) -> list[Receipt]:
        """These events reach the service; without any, everything that was ever said, in its order."""
        told = events or self.said()
        return Inbox(self.database).receive([Delivery(each.id, int(time.time()), datetime.now(UTC), each.body.encode()) for each in told])

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table."""
        return all_rows(self.database)

    @contextmanager
    def writes(self) -> Iterator[list[str]]:
        """The statements inside the `with` that write."""
        found: list[str] = []

        def note(connection: object, cursor: object, statement: str, *_: object) -> None:
            if statement.lstrip().startswith(("INSERT", "UPDATE", "DELETE")):
                found.append(statement)

        event.listen(self.database.engine, "before_cursor_execute", note)
        yield found
        event.remove(self.database.engine, "before_cursor_execute", note)

    def differences(self) -> list[Difference]:
        """Where the service says of the organization something else than its directories."""
        company, here = self.emulator.company, self.organization_id
        directories = company.directories(here)
        answers = {kind: list(self._listed(kind)) for kind in ("users", "groups")}
        return compare(
            [user for directory in directories for user in company.users(directory.id)],
            [group for directory in directories for group in company.groups(directory.id)],
            [directory.id for directory in directories if not directory.enabled],
            company.roles_of,
            [UserAnswer.model_validate(answer) for answer in answers["users"]],
            [GroupAnswer.model_validate(answer) for answer in answers["groups"]],
            lambda answer: answer.roles,
        )

    def users(self, **asked: str | int) -> list[dict[str, Any]]:
        """The organization's users over HTTP."""
        return list(self._listed("users", **asked))

    def groups(self) -> list[dict[str, Any]]:
        """Its groups."""
        return list(self._listed("groups"))

    def complete_as_of(self) -> str | None:
        """Its mark, over HTTP."""
        answer = self.client.get("/v1/organizations", params={"limit": 200}, headers=service.bearer()).json()
        return next((each["complete_as_of"] for each in answer["data"] if each["id"] == self.organization_id), None)

    def mark(self) -> int | None:
        """The same, in nanoseconds since 1970."""
        return next((row["complete_as_of"] for row in self.dump()["organizations"] if row["id"] == self.organization_id), None)

    def _listed(self, kind: str, **asked: str | int) -> Iterator[dict[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            parameters: dict[str, str | int] = {**asked, "limit": 200, **({"cursor": cursor} if cursor else {})}
            answer = self.client.get(f"/v1/organizations/{self.organization_id}/{kind}", params=parameters, headers=service.bearer())
            assert answer.status_code == 200, answer.text
            yield from answer.json()["data"]
            cursor = answer.json()["next_cursor"]


@pytest.fixture
def reconciling(emulator: Emulator, database_url: str, request: pytest.FixtureRequest) -> Iterator[Reconciling]:
    """An empty organization with one directory of Okta's, on a fresh database of either kind."""
    with connected(emulator, database_url, request.node.name) as desk:
        yield desk


@pytest.fixture
def exact_clock(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scalekit's clock is read to the nanosecond: who heard of something need not wait for the next second to see a run settle it."""
    monkeypatch.setattr(DirectoryReader, "clock", lambda _: (emulator.company.ticks.time(), 0.0))


@contextmanager
def connected(emulator: Emulator, database_url: str, name: str, provider: Provider = Provider.OKTA, **more: Any) -> Iterator[Reconciling]:
    """A service on this database that reconciles a new organization; `more`: settings, by attribute."""
    chosen = service.settings(database_url, **{**reaching(emulator), **more})
    organization = emulator.structure.add_organization(f"{name} {next(_numbers)}")
    directory = emulator.structure.add_directory(organization.id, provider)
    # The application has no credentials: nobody but the test works on runs.
    with (
        closing(Database(database_url, writers=8)) as database,
        closing(ScalekitClient(chosen)) as scalekit,
        service.running(database_url) as client,
    ):
        yield Reconciling(emulator, database, scalekit, Reconciler(database, scalekit, chosen), directory, client)


def reaching(emulator: Emulator) -> dict[str, Any]:
    """Settings, by attribute, with which a service calls this Scalekit as fast as it can."""
    return {
        "scalekit_environment_url": emulator.url,
        "scalekit_client_id": emulator.tokens.client_id,
        "scalekit_client_secret": emulator.tokens.client_secret,
        "scalekit_calls_per_second": 1000,
        "clock_margin": timedelta(0),
    }
