"""Everything that can be done to the emulator: one class an action, whose fields are what it takes. control.py serves them by name."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from provisioning.emulator import faults, scenarios, shapes
from provisioning.emulator.parts import Parts
from provisioning.emulator.people import Newcomer
from provisioning.emulator.portal import Dialect
from provisioning.emulator.records import Provider
from provisioning.emulator.sync import first_sync
from provisioning.errors import NotFound
from provisioning.settings.values import Origins

Json = dict[str, object]


def _address(text: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError("should look like jane@example.com")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Address = Annotated[Text, AfterValidator(_address)]
Reference = Text
Names = Annotated[list[Text], Field(max_length=100)]


class Action(BaseModel):
    """Something to do. `name` is derived from the class: HireSomebody would be hire-somebody."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    named: ClassVar[dict[str, type["Action"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        Action.named[re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()] = cls

    def do(self, parts: Parts) -> Json:
        """Do it and return what it came to. Raises ProvisioningError, and then nothing has changed."""
        raise NotImplementedError


class AddOrganization(Action):
    """A customer."""

    name: Text

    def do(self, parts: Parts) -> Json:
        return shapes.organization(parts, parts.structure.add_organization(self.name))


class AddDirectory(Action):
    """An empty directory, enabled."""

    organization: Reference | None = None
    provider: Provider

    def do(self, parts: Parts) -> Json:
        return shapes.directory(parts, parts.structure.add_directory(self.organization, self.provider))


class _OfDirectory(BaseModel):
    directory: Reference


class EnableDirectory(_OfDirectory, Action):
    """Its people's changes are sent again."""

    def do(self, parts: Parts) -> Json:
        return shapes.directory(parts, parts.structure.enable_directory(self.directory))


class DisableDirectory(_OfDirectory, Action):
    """Nothing is sent about anybody in it."""

    def do(self, parts: Parts) -> Json:
        return shapes.directory(parts, parts.structure.disable_directory(self.directory))


class DeleteDirectory(_OfDirectory, Action):
    """With all in it, and without an event."""

    def do(self, parts: Parts) -> Json:
        return {"id": parts.structure.delete_directory(self.directory).id}


class Hire(Action):
    """Somebody new; without an `email` it is made of the name."""

    directory: Reference | None = None
    given_name: Text
    family_name: Text
    email: Address | None = None
    title: Annotated[str, Field(max_length=200)] = ""
    department: Annotated[str, Field(max_length=200)] = ""
    groups: Names = []

    def do(self, parts: Parts) -> Json:
        directory = parts.company.directory(self.directory)
        email = self.email or parts.people.address_for(self.given_name, self.family_name, directory)
        newcomer = Newcomer(self.given_name, self.family_name, email, self.title, self.department, self.groups)
        return shapes.user(parts, parts.people.hire(newcomer, directory.id))


class _OfUser(BaseModel):
    user: Reference


class Rename(_OfUser, Action):
    """Another name or address."""

    given_name: Text | None = None
    family_name: Text | None = None
    email: Address | None = None

    def do(self, parts: Parts) -> Json:
        renamed = parts.people.rename(self.user, given_name=self.given_name, family_name=self.family_name, email=self.email)
        return shapes.user(parts, renamed)


class Move(_OfUser, Action):
    """To another department, and from its group into the other one's."""

    department: Text
    title: Annotated[str, Field(max_length=200)] | None = None

    def do(self, parts: Parts) -> Json:
        return shapes.user(parts, parts.people.move(self.user, self.department, self.title))


class Regroup(_OfUser, Action):
    """Into groups, and out of others."""

    add: Names = []
    remove: Names = []

    def do(self, parts: Parts) -> Json:
        return shapes.user(parts, parts.people.regroup(self.user, self.add, self.remove))


class Suspend(_OfUser, Action):
    """Inactive until restored."""

    def do(self, parts: Parts) -> Json:
        return shapes.user(parts, parts.people.suspend(self.user))


class Fire(_OfUser, Action):
    """Gone, in the provider's own way."""

    def do(self, parts: Parts) -> Json:
        return shapes.user(parts, parts.people.fire(self.user))


class Restore(_OfUser, Action):
    """Back, after suspending or firing."""

    def do(self, parts: Parts) -> Json:
        return shapes.user(parts, parts.people.restore(self.user))


class Purge(_OfUser, Action):
    """Deleted for good."""

    def do(self, parts: Parts) -> Json:
        return shapes.user(parts, parts.people.purge(self.user))


class AddGroup(Action):
    """A group without members."""

    directory: Reference | None = None
    name: Text

    def do(self, parts: Parts) -> Json:
        return shapes.group(parts, parts.structure.add_group(self.name, self.directory))


class RenameGroup(Action):
    """Another name for it."""

    group: Reference
    name: Text

    def do(self, parts: Parts) -> Json:
        return shapes.group(parts, parts.structure.rename_group(self.group, self.name))


class DeleteGroup(Action):
    """With a burst of events, one for each member."""

    group: Reference

    def do(self, parts: Parts) -> Json:
        return {"id": parts.structure.delete_group(self.group).id}


class MapRole(Action):
    """What role the group gives; null for none. `resend`: an event for each member."""

    group: Reference
    role: Text | None
    resend: bool = True

    def do(self, parts: Parts) -> Json:
        parts.structure.map_role(self.group, self.role, resend=self.resend)
        return shapes.group(parts, parts.company.group(self.group))


class Sync(Action):
    """A first sync of made-up people: created, then groups, then an update for each. `rate`: people a second, none for no limit."""

    directory: Reference | None = None
    users: int = Field(ge=1, le=100_000)
    rate: float | None = Field(None, gt=0, le=10_000)

    def do(self, parts: Parts) -> Json:
        place = parts.company.open_directory(self.directory)
        name = f"A first sync of {self.users:,}"
        return shapes.job(parts.jobs.start(name, lambda job: first_sync(parts, job, place.id, self.users, self.rate)))


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


class Switches(Action):
    """How deliveries go wrong; what is left out stays as it is."""

    duplicates: float | None = None
    reorder: float | None = None
    delay: float | None = None
    drop: float | None = None
    retry_scale: float | None = None
    at_once: int | None = None
    paused: bool | None = None

    def do(self, parts: Parts) -> Json:
        return parts.deliveries.switch(self.model_dump(exclude_none=True)).model_dump()


class Fault(Action):
    """How the API goes wrong at one of its doors; null for not at all."""

    door: faults.Door
    fault: faults.Fault | None

    def do(self, parts: Parts) -> Json:
        parts.faults.set(self.door, self.fault)
        return {"door": self.door, "fault": self.fault}


class RotateSecret(Action):
    """begin: deliveries are signed with the old secret and the new one; finish: with the new one only."""

    step: Literal["begin", "finish"]

    def do(self, parts: Parts) -> Json:
        if self.step == "begin":
            parts.endpoint.begin_rotation()
        else:
            parts.endpoint.finish_rotation()
        return shapes.endpoint(parts)


class Resend(Action):
    """Begin again with these deliveries, or with all that were given up."""

    deliveries: list[Text] | None = None

    def do(self, parts: Parts) -> Json:
        return {"deliveries": parts.deliveries.resend(self.deliveries)}


class PortalLink(Action):
    """A link to the admin portal, as the API makes them."""

    organization: Reference | None = None

    def do(self, parts: Parts) -> Json:
        link = parts.portal.make_link(parts.company.organization(self.organization).id, ())
        return {"location": parts.portal.location(link), "expires_at": link.expires_at}


class Portal(Action):
    """Which dialect of UI events the portal speaks, and which origins may embed it."""

    dialect: Dialect | None = None
    embedding_origins: Origins | None = None

    def do(self, parts: Parts) -> Json:
        if self.dialect is not None:
            parts.portal.dialect = self.dialect
        if self.embedding_origins is not None:
            parts.portal.embedding_origins = self.embedding_origins
        return shapes.portal(parts)


def parse(name: str, body: bytes) -> Action:
    """The action `name` with what `body` says. Raises NotFound, pydantic's ValidationError."""
    kind = Action.named.get(name)
    if kind is None:
        raise NotFound(f"There is no action {name}: there are {', '.join(Action.named)}.")
    return kind.model_validate_json(body or b"{}")
