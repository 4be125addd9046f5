"""A first sync: everybody is created, then the groups, then everybody is updated with them. In a burst, or at a rate."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from provisioning.emulator.jobs import Job
from provisioning.emulator.parts import Parts
from provisioning.emulator.people import Newcomer
from provisioning.emulator.sample import DEPARTMENTS, people

BATCH = 250
TICK = 0.05  # seconds
AHEAD = 5000  # deliveries

T = TypeVar("T")


def first_sync(parts: Parts, job: Job, directory: str, users: int, rate: float | None, *, silent: bool = False) -> None:
    """Fill a directory with made-up people, and wait until they are delivered, unless it is `silent` and nothing is sent.

    `rate`: people a second. Raises Cancelled.
    """
    place = parts.company.directory(directory)
    taken = {user.email for user in parts.company.users(place.id)}
    made_up = people(f"{place.id.replace('_', '-')}.example")
    newcomers = list(islice((newcomer for newcomer in made_up if newcomer.email not in taken), users))
    if silent:
        with parts.company.silent():
            fill(parts, job, place.id, newcomers, rate)
    else:
        fill(parts, job, place.id, newcomers, rate)
        settle(parts, job)


def fill(parts: Parts, job: Job, directory: str, newcomers: Sequence[Newcomer], rate: float | None = None) -> None:
    """The events of a first sync of `newcomers`, whose groups are departments' names. Raises Cancelled."""
    job.begin("People arrive", len(newcomers))
    created: list[tuple[str, Sequence[str]]] = []
    for part in _paced(parts, job, newcomers, rate):
        users = parts.people.enrol(part, directory)
        created += [(user.id, newcomer.groups) for user, newcomer in zip(users, part, strict=True)]
    job.begin("Groups arrive", len(DEPARTMENTS))
    there = {group.name for group in parts.company.groups(directory)}
    for department in DEPARTMENTS:
        if department not in there:
            parts.structure.add_group(department, directory)
        job.advance()
    job.begin("People are put into groups", len(created))
    for members in _paced(parts, job, created, rate):
        parts.people.settle(members)


def settle(parts: Parts, job: Job) -> None:
    """Wait until every delivery has been answered or given up. Raises Cancelled."""
    waiting = parts.deliveries.waiting
    job.begin("Deliveries are answered", waiting)
    while not parts.deliveries.settled(within=0.2):
        job.done = max(0, waiting - parts.deliveries.waiting)
        job.pause(0)
    job.done = job.total


def _paced(parts: Parts, job: Job, things: Sequence[T], rate: float | None) -> Iterator[Sequence[T]]:
    """In parts, none earlier than `rate` allows, and no further ahead of the deliveries than AHEAD."""
    began = time.monotonic()
    size = BATCH if rate is None else max(1, min(BATCH, int(rate * TICK)))
    for first in range(0, len(things), size):
        part = things[first : first + size]
        yield part
        job.advance(len(part))
        while parts.deliveries.waiting > AHEAD:  # or whoever cancels has to wait for all of them
            job.pause(TICK)
        if rate is not None:
            job.pause(max(0.0, began + job.done / rate - time.monotonic()))
