"""What becomes of people."""

from typing import Self

from pydantic import BaseModel, model_validator

from provisioning.emulator import shapes
from provisioning.emulator.actions.action import Action, Address, Json, Names, Reference, Text, Words
from provisioning.emulator.parts import Parts
from provisioning.emulator.people import Newcomer


class Hire(Action):
    """Somebody new; without an `email` it is made of the name."""

    directory: Reference | None = None
    given_name: Text
    family_name: Text
    email: Address | None = None
    title: Words = ""
    department: Words = ""
    groups: Names = ()

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

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.given_name or self.family_name or self.email):
            raise ValueError("say the new given_name, family_name or email")
        return self

    def do(self, parts: Parts) -> Json:
        renamed = parts.people.rename(self.user, given_name=self.given_name, family_name=self.family_name, email=self.email)
        return shapes.user(parts, renamed)


class Move(_OfUser, Action):
    """To another department, and from its group into the other one's."""

    department: Text
    title: Words | None = None

    def do(self, parts: Parts) -> Json:
        return shapes.user(parts, parts.people.move(self.user, self.department, self.title))


class Regroup(_OfUser, Action):
    """Into groups, and out of others."""

    add: Names = ()
    remove: Names = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.add or self.remove):
            raise ValueError("say which groups to add or remove")
        return self

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
