"""What people are in."""

from pydantic import BaseModel

from provisioning.emulator import shapes
from provisioning.emulator.actions.action import Action, Json, Reference, Text
from provisioning.emulator.parts import Parts
from provisioning.emulator.records import Provider


class AddOrganization(Action):
    """A customer."""

    name: Text
    external_id: Text | None = None

    def do(self, parts: Parts) -> Json:
        return shapes.organization(parts, parts.structure.add_organization(self.name, external_id=self.external_id))


class SetExternalId(Action):
    """What the application calls it; null for nothing."""

    organization: Reference
    external_id: Text | None

    def do(self, parts: Parts) -> Json:
        return shapes.organization(parts, parts.structure.set_external_id(self.organization, self.external_id))


class DeleteOrganization(Action):
    """With all in it, and without an event."""

    organization: Reference

    def do(self, parts: Parts) -> Json:
        return {"id": parts.structure.delete_organization(self.organization).id}


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
