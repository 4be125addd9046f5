"""Everything that can be looked at: one class a view, whose fields are the query's parameters. control.py serves them by name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from provisioning.emulator import shapes
from provisioning.emulator.parts import Parts
from provisioning.emulator.records import Progress
from provisioning.emulator.service import ServiceSilent
from provisioning.errors import NotFound

Json = dict[str, object]


def _one(values: object) -> object:
    """A parameter comes as the list of all its values: one is meant, so the last."""
    return values[-1] if isinstance(values, list) and values else values


Text = Annotated[str, BeforeValidator(_one)]
Limit = Annotated[int, BeforeValidator(_one), Field(ge=1, le=500)]
Offset = Annotated[int, BeforeValidator(_one), Field(ge=0)]


class View(BaseModel):
    """Something to look at, by the class's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    named: ClassVar[dict[str, type["View"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        View.named[cls.__name__.lower()] = cls

    def show(self, parts: Parts) -> Json:
        """What there is to see. Raises ProvisioningError."""
        raise NotImplementedError


class State(View):
    """Everything but the lists, with a `version` that rises when they may have changed."""

    def show(self, parts: Parts) -> Json:
        return shapes.state(parts)


class Users(View):
    """People of a directory, the newest first; `q` is part of a name, an address or a department."""

    directory: Text | None = None
    q: Text = ""
    limit: Limit = 50
    offset: Offset = 0

    def show(self, parts: Parts) -> Json:
        words = self.q.lower().split()
        everybody = reversed(parts.company.users(parts.company.directory(self.directory).id))
        found = [
            user for user in everybody if all(word in f"{user.name} {user.email} {user.title} {user.department}".lower() for word in words)
        ]
        return {"data": [shapes.user(parts, user) for user in found[self.offset : self.offset + self.limit]], "total": len(found)}


class User(View):
    """One person, by id or address."""

    reference: Text

    def show(self, parts: Parts) -> Json:
        return shapes.user(parts, parts.company.user(self.reference))


class Groups(View):
    """Groups of a directory."""

    directory: Text | None = None

    def show(self, parts: Parts) -> Json:
        groups = parts.company.groups(parts.company.directory(self.directory).id)
        return {"data": [shapes.group(parts, group) for group in groups]}


class Deliveries(View):
    """Deliveries, the newest first."""

    limit: Limit = 50
    progress: Annotated[Progress, BeforeValidator(_one)] | None = None
    subject_id: Text | None = None

    def show(self, parts: Parts) -> Json:
        found = parts.deliveries.latest(self.limit, self.progress, self.subject_id)
        return {"data": [shapes.delivery(parts, delivery) for delivery in found]}


class Delivery(View):
    """One delivery, with the event."""

    reference: Text

    def show(self, parts: Parts) -> Json:
        delivery = parts.deliveries.find(self.reference)
        return {**shapes.delivery(parts, delivery), "body": json.loads(parts.company.event(delivery.event_id).body)}


class Service(View):
    """What the service says now about directory users; null of one whom it does not know."""

    user: list[str] = Field(default=[], max_length=100)

    def show(self, parts: Parts) -> Json:
        users: dict[str, object] = {}
        try:
            for directory_user_id in self.user:
                organization_id = parts.company.organization_of(directory_user_id)
                users[directory_user_id] = parts.service.user(organization_id, directory_user_id) if organization_id else None
        except ServiceSilent as silence:
            return {"users": users, "error": str(silence)}
        return {"users": users, "error": None}


class Comparison(View):
    """Where the service says otherwise than an organization's directories."""

    organization: Text | None = None

    def show(self, parts: Parts) -> Json:
        compared, differences = parts.compared(parts.company.organization(self.organization).id)
        return {"equal": not differences, "compared": compared, "differences": [asdict(each) for each in differences]}


_LISTS = ("state", "users", "groups", "deliveries", "service", "comparison")
_ONE_OF = {"users": "user", "deliveries": "delivery"}


def parse(name: str, query: Mapping[str, Sequence[str]], reference: str | None = None) -> View:
    """The view `name` with these parameters, or of the list `name` the one with this reference. Raises NotFound, ValidationError."""
    known: Sequence[str] = _LISTS if reference is None else tuple(_ONE_OF)
    if name not in known:
        raise NotFound(f"There is nothing called {name} to look at: there are {', '.join(known)}.")
    if reference is None:
        return View.named[name].model_validate(query)
    return View.named[_ONE_OF[name]].model_validate({**query, "reference": reference})
