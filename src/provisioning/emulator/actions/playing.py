"""Long work: a first sync, a scenario."""

from pydantic import Field

from provisioning.emulator import scenarios, shapes
from provisioning.emulator.actions.action import Action, Json, Reference, Text
from provisioning.emulator.parts import Parts
from provisioning.emulator.sync import first_sync
from provisioning.errors import NotFound


class Sync(Action):
    """A first sync of made-up people: created, then groups, then an update for each. `rate`: people a second, none for no limit.

    `silent`: no event tells of it, as if it had happened before anybody listened.
    """

    directory: Reference | None = None
    users: int = Field(ge=1, le=100_000)
    rate: float | None = Field(None, gt=0, le=10_000)
    silent: bool = False

    def do(self, parts: Parts) -> Json:
        place = parts.company.open_directory(self.directory)
        name = f"A first sync of {self.users:,}"
        return shapes.job(parts.jobs.start(name, lambda job: first_sync(parts, job, place.id, self.users, self.rate, silent=self.silent)))


class Scenario(Action):
    """Play one of the named scenarios."""

    name: Text

    def do(self, parts: Parts) -> Json:
        scenario = scenarios.SCENARIOS.get(self.name)
        if scenario is None:
            raise NotFound(f"There is no scenario {self.name}: there are {', '.join(scenarios.SCENARIOS)}.")
        return shapes.job(parts.jobs.start(self.name, lambda job: scenario.play(parts, job)))


class Cancel(Action):
    """End the job that runs."""

    def do(self, parts: Parts) -> Json:
        parts.jobs.cancel()
        return {"job": shapes.job(parts.jobs.latest) if parts.jobs.latest else None}
