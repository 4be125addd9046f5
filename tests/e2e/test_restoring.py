"""A database restored from a backup, as the README says to: all that happened since is here again, and who has left since is not let in."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from httpx import Response

import postgres
from databases import Databases
from delivering import Delivering, delivering
from operators import Running, until
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Directory, Progress, Provider, User

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator


@dataclass(frozen=True)
class Customer:
    """An organization, its directory, and those who were in it at first."""

    directory: Directory
    people: list[User]

    @property
    def id(self) -> str:
        return self.directory.organization_id


@dataclass
class Scene:
    """The service with its local Scalekit, and a place for the restored database."""

    place: Delivering
    backup: Path
    restored_url: str

    def customer(self, name: str, people: int) -> Customer:
        """A customer with so many people, all of them in Sales."""
        structure, hire = self.place.emulator.structure, self.place.emulator.people.hire
        directory = structure.add_directory(structure.add_organization(name).id, Provider.OKTA)
        structure.add_group("Sales", directory.id)
        newcomers = [Newcomer("Nova", str(n), f"nova{n}@{name}.example", groups=["Sales"]) for n in range(people)]
        return Customer(directory, [hire(newcomer, directory.id) for newcomer in newcomers])

    def back_up(self) -> None:
        """As the README says, while the service runs."""
        url = self.place.operator.settings["DATABASE_URL"]
        if url.startswith("sqlite"):
            with closing(sqlite3.connect(_file(url))) as database:
                database.execute("VACUUM INTO ?", (str(self.backup),))
        else:
            _postgres("pg_dump", "--format=custom", f"--file={self.backup}", url)

    def restore(self) -> None:
        """As the README says, into a database that is nobody's yet; from now on it is the service's."""
        if self.restored_url.startswith("sqlite"):
            self.backup.rename(_file(self.restored_url))
        else:
            _postgres("pg_restore", "--no-owner", f"--dbname={self.restored_url}", str(self.backup))
        self.place = self.place.on(self.restored_url)
        assert self.place.operator.run("migrate").returncode == 0

    def erase(self, directory_user_id: str) -> int:
        """The exit code of `provisioning erase`."""
        return self.place.operator.run("erase", directory_user_id, "--yes").returncode

    def reconcile(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        """The exit code of `provisioning reconcile`, and its runs."""
        now = int(time.time())
        until(lambda: int(time.time()) > now)  # what was said in the second of a listing waits for the next one
        done = self.place.operator.run("reconcile", *arguments, "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)["runs"]


def _file(url: str) -> Path:
    return Path(urlsplit(url).path.removeprefix("/"))


def _postgres(program: str, *arguments: str) -> None:
    done = subprocess.run([postgres.installations()[0] / program, *arguments], capture_output=True, text=True, check=False)
    if "server version mismatch" in done.stderr:
        pytest.skip(f"{program}: {done.stderr}")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def scene(tmp_path: Path, database_url: str, request: pytest.FixtureRequest) -> Iterator[Scene]:
    kind = "sqlite" if database_url.startswith("sqlite") else "postgresql"
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    with delivering(tmp_path, database_url) as place, databases.fresh(migrated=False) as restored_url:
        yield Scene(place, tmp_path / "backup", restored_url)


def happen(emulator: Emulator, customer: Customer) -> None:
    """What there is in a year: three come, three are let in no more, others have another name, group or role."""
    people, structure, directory_id = emulator.people, emulator.structure, customer.directory.id
    [sales] = emulator.company.groups(directory_id)
    for n in range(3):
        people.hire(Newcomer("Late", str(n), f"late{n}@acme.example", groups=["Sales"]), directory_id)
    structure.map_role(structure.add_group("Engineering", directory_id).id, "admin")
    structure.delete_group(structure.add_group("Short-lived", directory_id).id)
    renamed, moved, suspended, fired, purged = (user.id for user in customer.people[:5])
    people.rename(renamed, family_name="King", email="king@acme.example")
    people.regroup(moved, add=["Engineering"], remove=[sales.id])
    people.suspend(suspended)
    people.fire(fired)
    people.purge(purged)


@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_it_ends_equal_to_the_directories(scene: Scene) -> None:
    """Whatever was said since, and whether it is said again or not. Beyond the share it takes an approval, as ever.

    The service starts when nobody is let in any more who has left, but for a directory that is disabled now. Whoever was erased since is
    erased again. Readers of the feed who had come further than the backup are told to begin anew.
    """
    emulator = scene.place.emulator
    people, structure = emulator.people, emulator.structure
    acme, leaving, closed = scene.customer("acme", 14), scene.customer("globex", 9), scene.customer("initech", 3)
    later, gone = acme.people[-1].id, acme.people[4].id
    with scene.place.serving() as service:
        assert scene.place.settled()
        at_backup = follow(service, "latest").json()["next_cursor"]
        scene.back_up()

        happen(emulator, acme)
        for user in (*leaving.people[:7], closed.people[0]):
            people.purge(user.id)
        structure.disable_directory(closed.directory.id)
        unknown = scene.customer("umbrella", 2)
        assert scene.place.settled()
        assert follow(service, at_backup).json()["data"]
        since = follow(service, "latest").json()["next_cursor"]
        assert scene.erase(gone) == 0
        assert service.end() == 0

    people.rename(later, given_name="Meanwhile")  # Scalekit goes on sending this until somebody answers
    scene.restore()
    code, runs = scene.reconcile("--all")
    [held] = [run for run in runs if run["state"] == "needs_approval"]
    assert (code, held["organization_id"]) == (2, leaving.id)
    assert {run["organization_id"] for run in runs} == {acme.id, leaving.id, closed.id}
    assert scene.reconcile("--approve", held["id"])[0] == 0
    assert scene.reconcile(unknown.id)[0] == 0
    assert scene.erase(gone) == 0

    emulator.deliveries.switch({"paused": True})
    with scene.place.serving() as service:
        open_ones = (acme, leaving, unknown)
        assert [scene.place.differences(customer.id) for customer in open_ones] == [[]] * 3
        assert active(service, acme) == 14 - 3 + 3
        assert active(service, leaving) == 2
        assert follow(service, since).status_code == 410
        assert {change["type"] for change in follow(service, at_backup).json()["data"]} >= {"user.deactivated", "user.created"}
        anew = follow(service, "latest").json()["next_cursor"]

        sent = [each.id for each in emulator.deliveries.latest(1000, Progress.DELIVERED) if each.organization_id != closed.id]
        emulator.deliveries.resend(Random(7).sample(sent, len(sent) // 2))  # noqa: S311  # no secret
        emulator.deliveries.switch({"paused": False, "reorder": 0.5})
        people.fire(later)
        assert scene.place.settled()
        assert [scene.place.differences(customer.id) for customer in open_ones] == [[]] * 3
        assert "user.deactivated" in {change["type"] for change in follow(service, anew).json()["data"]}

        assert service.get(f"/v1/organizations/{acme.id}/users?directory_user_id={gone}").json()["data"] == []
        assert active(service, closed) == 3  # nobody lists a disabled directory
        structure.enable_directory(closed.directory.id)
        assert scene.place.settled()
        assert scene.reconcile(closed.id)[0] == 0
        assert scene.place.differences(closed.id) == []
        assert active(service, closed) == 2


def follow(service: Running, after: str) -> Response:
    """What a reader of the feed is answered who stands there."""
    return service.get(f"/v1/changes?limit=200&after={after}")


def active(service: Running, customer: Customer) -> int:
    """How many of the customer's people are let in."""
    return len(service.get(f"/v1/organizations/{customer.id}/users?active=true&limit=200").json()["data"])
