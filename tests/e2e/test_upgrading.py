"""Upgrading without a gap: the previous release, as it is in the repository's history, serves on beside this one on this one's tables."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

import service
from databases import Databases
from following import Copy, everything, original
from operators import NOBODY, SECONDS, SECRET, SETTINGS, Operator, Running
from provisioning.db.session import Database
from provisioning.emulator.company import Company
from provisioning.emulator.people import Newcomer, People
from provisioning.emulator.records import Event, Provider
from provisioning.emulator.store import Store
from provisioning.emulator.structure import Structure
from viewing import assert_views_are_true

# The last commit of the release that serves on while this one is brought in. Each release moves it.
PREVIOUS = "be10c358"

ROOT = Path(__file__).parents[2]
ORGANIZATION = "org_1"
AT_ONCE = 4


@pytest.fixture(scope="module")
def previous_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The previous release's code, for PYTHONPATH. Without the history, as in a shallow clone or an export, the test is skipped."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("The previous release cannot be had: there is no git here.")
    done = subprocess.run([git, "-C", ROOT, "archive", PREVIOUS, "src", "migrations"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"The previous release, {PREVIOUS}, cannot be had: {done.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    code = folder / "src"
    asked = [sys.executable, "-c", "import provisioning; print(provisioning.__file__)"]
    told = subprocess.run(asked, env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True, check=True)
    assert Path(told.stdout.strip()).is_relative_to(code)  # and not this release
    return code


def history() -> Iterator[Sequence[Event]]:
    """What a directory says before the upgrade, and what it says while both releases serve."""
    company = Company(Store())
    people, structure = People(company), Structure(company)
    directory = structure.add_directory(structure.add_organization("Acme", ORGANIZATION).id, Provider.OKTA)
    told = 0
    for half in ("one", "two"):
        names = [f"{each} {half}" for each in ("Engineering", "Sales", "Chess")]
        for name in names:
            structure.add_group(name)
        newcomers = [Newcomer("Nova", f"{half}{n}", f"{half}{n}@acme.example", groups=names[n % 2 : n % 2 + 2]) for n in range(12)]
        for newcomer in newcomers:
            people.hire(newcomer)
        active = [user.id for user in company.users(directory.id) if user.active]
        for renamed, moved, suspended, fired, purged, back in (active[:6], active[-6:]):  # those who are known longest, and newcomers
            people.rename(renamed, family_name=half, email=f"{renamed}.{half}@acme.example")
            people.regroup(moved, add=names[:2])
            people.suspend(suspended)
            people.fire(fired)
            people.purge(purged)
            people.suspend(back)
            people.restore(back)
        structure.map_role(names[1], "admin")
        structure.rename_group(names[1], f"Renamed {half}")
        structure.delete_group(names[2])
        events = company.events()
        yield events[told:]
        told = len(events)


def tell(events: Sequence[Event], *services: Running) -> list[int]:
    """Post the events to the services in turn, a few at a time, each signed; returns the statuses."""
    with httpx.Client(trust_env=False, verify=NOBODY, timeout=SECONDS) as client, ThreadPoolExecutor(AT_ONCE) as posting:

        def post(event: Event, running: Running) -> int:
            body = event.body.encode()
            headers = service.signed(body, f"msg_{event.id}", secret=SECRET)
            return client.post(f"{running.url}/webhooks/scalekit", content=body, headers=headers).status_code

        return list(posting.map(post, events, cycle(services)))


def said(running: Running) -> dict[str, Any]:
    """What the service says of the organization, without what a service makes up itself: ids and times."""
    base = f"/v1/organizations/{ORGANIZATION}"
    asked = {
        "users": f"{base}/users",
        "groups": f"{base}/groups",
        "directories": f"{base}/directories",
        "organizations": "/v1/organizations",
    }
    found = {what: running.get(f"{path}?limit=200").json()["data"] for what, path in asked.items()}
    made_up = {"created_at", "updated_at", "deactivated_at", "last_event_at"}
    for answers in found.values():
        for answer in answers:
            for name in made_up & answer.keys():
                answer[name] = answer[name] is not None
    for user in found["users"]:
        del user["id"]
        user.pop("application_id", None)  # of which the previous release does not know
    for organization in found["organizations"]:
        organization.pop("external_id", None)  # the same
    return {what: sorted(answers, key=repr) for what, answers in found.items()}


@pytest.mark.parametrize("empty_database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_the_previous_release_serves_on_while_this_one_is_brought_in(
    empty_database_url: str, previous_release: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Both receive, on one database: every webhook is accepted, both say the same, and it is what this release alone would say.

    The change log has all of it, too, and so have the views. First the old one has served alone, so that whatever it prepared or cached
    is of the old tables.
    """
    settings = {**SETTINGS, "DATABASE_URL": empty_database_url}
    previous = Operator(tmp_path, {**settings, "PYTHONPATH": str(previous_release)}, executes=True)
    present = Operator(tmp_path, settings)
    before, meanwhile = history()
    assert previous.run("migrate").returncode == 0
    with closing(Database(empty_database_url)) as database, previous.started("serve") as old:
        assert set(tell(before, old)) == {201}

        assert present.run("migrate").returncode == 0
        with present.started("serve") as new:
            assert set(tell(meanwhile, old, new)) == {201}
            assert set(tell([*before, *meanwhile][::7], new, old)) == {201}  # again, to the other one
            together = said(old)
            assert together == said(new)
            assert [old.get(path).status_code for path in ("/v1/deliveries", "/v1/changes")] == [200, 200]
            assert (old.end(), new.end()) == (0, 0)
        copy = Copy().follow(everything(database))
        assert copy == replace(original(database, ORGANIZATION), directories=copy.directories)
        assert_views_are_true(database, ORGANIZATION)

    databases: Databases = request.getfixturevalue(f"{database.dialect}_databases")
    with databases.fresh(migrated=True) as url, present.started("serve", DATABASE_URL=url) as alone:
        assert set(tell([*before, *meanwhile], alone)) == {201}
        assert together == said(alone)
    assert not [line for line in old.stderr if '"error"' in line]
