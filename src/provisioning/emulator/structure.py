"""What people are in: organizations, directories, groups, and the roles that groups give."""

import random
from functools import partial

from provisioning.emulator.company import Company
from provisioning.emulator.records import Directory, Group, Organization, Provider
from provisioning.emulator.styles import STYLES
from provisioning.errors import Conflict


class Structure:
    """Changes it. Every method raises NotFound and Conflict, and then nothing has changed."""

    def __init__(self, company: Company) -> None:
        self._company = company

    def add_organization(self, name: str, organization_id: str | None = None, *, external_id: str | None = None) -> Organization:
        """A customer; no event."""
        with self._company.changing() as change:
            if any(name == each.name for each in self._company.organizations()):
                raise Conflict(f"There is an organization {name} already.")
            self._free_external_id(external_id)
            return change.put(Organization(id=organization_id or self._company.ticks.id("org"), name=name, external_id=external_id))

    def set_external_id(self, organization: str, external_id: str | None) -> Organization:
        """What the application calls it from now on, or nothing; no event."""
        with self._company.changing() as change:
            found = self._company.organization(organization)
            if external_id != found.external_id:
                self._free_external_id(external_id)
            return change.put(found.model_copy(update={"external_id": external_id}))

    def delete_organization(self, organization: str) -> Organization:
        """With everything in it, and as silently as a directory: from now on the API knows no such organization."""
        with self._company.alone():
            found = self._company.organization(organization)
            for directory in self._company.directories(found.id):
                self.delete_directory(directory.id)
            with self._company.changing() as change:
                change.drop(found)
        return found

    def set_sso(self, organization: str, *, on: bool) -> Organization:
        """Whether its single sign-on is enabled, which is the portal's business; no event."""
        with self._company.changing() as change:
            return change.put(self._company.organization(organization).model_copy(update={"sso": on}))

    def add_directory(self, organization: str | None, provider: Provider) -> Directory:
        """An enabled directory with nobody in it."""
        with self._company.changing() as change:
            owner, ticks = self._company.organization(organization), self._company.ticks
            directory = Directory(id=ticks.id("dir"), organization_id=owner.id, provider=provider, updated_at=ticks.time())
            change.say(self._company.facts.directory_enabled(change.put(directory)))
            return directory

    def enable_directory(self, directory: str) -> Directory:
        """Its people's changes reach Scalekit again."""
        with self._company.changing() as change:
            enabled = change.put(self._switched(directory, on=True))
            change.say(self._company.facts.directory_enabled(enabled))
            return enabled

    def disable_directory(self, directory: str) -> Directory:
        """Nothing is said about anybody in it."""
        with self._company.changing() as change:
            disabled = change.put(self._switched(directory, on=False))
            change.say(self._company.facts.directory_disabled(disabled))
            return disabled

    def delete_directory(self, directory: str) -> Directory:
        """With everybody in it, and without an event: Scalekit has none for this, so only its Directory API shows it."""
        with self._company.changing() as change:
            found = self._company.directory(directory)
            for record in (found, *self._company.users(found.id), *self._company.groups(found.id)):
                change.drop(record)
            return found

    def add_group(self, name: str, directory: str | None = None) -> Group:
        """A group without members."""
        with self._company.changing() as change:
            place = self._company.open_directory(directory)
            self._free(place.id, name)
            group = Group(
                id=self._company.ticks.id("dirgroup"),
                organization_id=place.organization_id,
                directory_id=place.id,
                name=name,
                external_id=STYLES[place.provider].upstream_id(),
                updated_at=self._company.ticks.time(),
            )
            change.say(self._company.facts.group_created(change.put(group)))
            return group

    def rename_group(self, group: str, name: str) -> Group:
        """One event, about the group alone."""
        with self._company.changing() as change:
            found = self._company.group(group)
            self._company.open_directory(found.directory_id)
            self._free(found.directory_id, name)
            renamed = change.put(found.model_copy(update={"name": name, "updated_at": self._company.ticks.time()}))
            change.say(self._company.facts.group_updated(renamed))
            return renamed

    def delete_group(self, group: str) -> Group:
        """One event about the group and one about each member, in no order."""
        with self._company.changing() as change:
            found = self._company.group(group)
            place = self._company.open_directory(found.directory_id)
            roles = {group_id: role for group_id, role in place.roles.items() if group_id != found.id}
            if roles != place.roles:
                change.put(place.model_copy(update={"roles": roles}))
            change.drop(found)
            members = []
            for user in self._company.members(found.id):
                left = tuple(each for each in user.groups if each != found.id)
                members.append(change.put(user.model_copy(update={"groups": left, "updated_at": self._company.ticks.time()})))
            facts = self._company.facts
            burst = [partial(facts.group_deleted, found), *(partial(facts.user_updated, member) for member in members)]
            for say in random.sample(burst, len(burst)):  # before they are made: ids and times rise in every order
                change.say(say())
            return found

    def map_role(self, group: str, role: str | None, *, resend: bool = True) -> Directory:
        """The group gives its members `role` from now on, or none.

        `resend`: an event for each of them. Whether Scalekit sends any is not documented, so a service must do without.
        """
        with self._company.alone():
            with self._company.changing() as change:
                found = self._company.group(group)
                place = self._company.open_directory(found.directory_id)
                others = {group_id: given for group_id, given in place.roles.items() if group_id != found.id}
                roles = {**others, found.id: role} if role else others
                mapped = change.put(place.model_copy(update={"roles": roles, "updated_at": self._company.ticks.time()}))
            with self._company.changing() as change:  # which sees the roles of the one before
                for user in self._company.members(found.id) if resend else ():
                    again = change.put(user.model_copy(update={"updated_at": self._company.ticks.time()}))
                    change.say(self._company.facts.user_updated(again))
        return mapped

    def _switched(self, directory: str, *, on: bool) -> Directory:
        found = self._company.directory(directory)
        if found.enabled is on:
            raise Conflict(f"The directory {found.id} is {'enabled' if on else 'disabled'} already.")
        return found.model_copy(update={"enabled": on, "updated_at": self._company.ticks.time()})

    def _free_external_id(self, external_id: str | None) -> None:
        if external_id is not None and any(external_id == each.external_id for each in self._company.organizations()):
            raise Conflict(f"Another organization has the external id {external_id}.")

    def _free(self, directory_id: str, name: str) -> None:
        if any(name == each.name for each in self._company.groups(directory_id)):
            raise Conflict(f"There is a group {name} in this directory already.")
