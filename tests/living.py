"""The life of a company in the local Scalekit: a first sync, and then one change after another, by chance that repeats."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from threading import Thread
from typing import TYPE_CHECKING

from provisioning.errors import Conflict, NotFound

if TYPE_CHECKING:
    from provisioning.emulator.parts import Parts


@contextmanager
def living(
    parts: Parts, organization_id: str, chance: Random, people: int, enough: Callable[[], bool], ahead: int = 3_000
) -> Iterator[Thread]:
    """A company of so many people, from its first sync on, in which something happens until that is `enough`; never further `ahead` of
    what is delivered than so many deliveries.
    """
    from provisioning.emulator import sample  # noqa: PLC0415  # as in `delivering`
    from provisioning.emulator.jobs import Job  # noqa: PLC0415  # as above
    from provisioning.emulator.records import Provider  # noqa: PLC0415  # as above
    from provisioning.emulator.sync import fill  # noqa: PLC0415  # as above

    failed: list[BaseException] = []

    def live() -> None:
        try:
            directory = parts.structure.add_directory(organization_id, Provider.OKTA).id
            made_up = sample.people("acme.example")
            fill(parts, Job("sync"), directory, [next(made_up) for _ in range(people)])
            ids = [user.id for user in parts.company.users(directory)]
            groups = [group.id for group in parts.company.groups(directory)]
            changes = [
                lambda id_: parts.people.rename(id_, given_name=f"Name{chance.randrange(10**6)}"),
                lambda id_: parts.people.regroup(id_, add=chance.sample(groups, 2), remove=chance.sample(groups, 2)),
                parts.people.suspend,
                parts.people.restore,
                parts.people.fire,
                parts.people.restore,
            ]
            while not enough():
                while parts.deliveries.waiting > ahead:
                    time.sleep(0.05)
                with suppress(Conflict, NotFound):  # who is suspended already, say
                    chance.choice(changes)(chance.choice(ids))
        except BaseException as error:  # told below
            failed.append(error)

    thread = Thread(target=live)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(600)
        assert not failed, failed
