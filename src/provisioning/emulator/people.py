"""What becomes of people: each change, and the events that a directory of its provider's style makes of it."""

import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from provisioning.emulator.company import Change, Company
from provisioning.emulator.records import Directory, State, User
from provisioning.emulator.styles import STYLES, Leaving
from provisioning.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody to hire. `groups` are names or ids; `dp_id` is given when the person comes over from another directory."""

    given_name: str
    family_name: str
    email: str
    title: str = ""
    department: str = ""
    groups: Sequence[str] = ()
    dp_id: str | None = None


class People:
    """Changes people. References are what Company takes. Every method raises NotFound and Conflict, and then nothing has changed."""

    def __init__(self, company: Company) -> None:
        self._company = company

    def hire(self, newcomer: Newcomer, directory: str | None = None) -> User:
        """Somebody new, in a directory and in groups that there are."""
        with self._company.changing() as change:
            place = self._company.open_directory(directory)
            return self._arrive(change, place, [newcomer])[0]

    def address_for(self, given_name: str, family_name: str, directory: Directory) -> str:
        """An address that nobody in the directory has, such as jane.doe@acme.example."""
        taken = {each.email for each in self._company.users(directory.id)}
        domain = plain(self._company.organization(directory.organization_id).name) or "company"
        name = ".".join(filter(None, map(plain, (given_name, family_name)))) or "somebody"
        return next(each for n in count(1) if (each := f"{name}{n if n > 1 else ''}@{domain}.example") not in taken)

    def enrol(self, newcomers: Iterable[Newcomer], directory: str) -> list[User]:
        """Many at once, as a first sync does it: without groups, whatever the provider; `settle` follows."""
        with self._company.changing() as change:
            place = self._company.open_directory(directory)
            coming = list(newcomers)
            self._free(place.id, [newcomer.email for newcomer in coming])
            users = [self._new(place, newcomer) for newcomer in coming]
            for user in users:
                change.say(self._company.facts.user_created(change.put(user)))
            return users

    def settle(self, users: Iterable[tuple[str, Sequence[str]]]) -> None:
        """The second half of a first sync: people, by id, are put into groups; one event each, and none of who is gone by now."""
        with self._company.changing() as change:
            for user_id, groups in users:
                with suppress(NotFound):
                    user = self._company.user(user_id)
                    self._company.open_directory(user.directory_id)
                    if user.state is not State.GONE:
                        self._say(change, user.model_copy(update={"groups": self._groups(user.directory_id, groups)}))

    def rename(self, user: str, *, given_name: str | None = None, family_name: str | None = None, email: str | None = None) -> User:
        """Another name or address; the ids stay."""
        with self._company.changing() as change:
            found = self._present(user)
            if email and email.lower() != found.email.lower():
                self._free(found.directory_id, [email])
            names = {"given_name": given_name or found.given_name, "family_name": family_name or found.family_name}
            return self._update(change, found, [names, {"email": email or found.email}])

    def move(self, user: str, department: str, title: str | None = None) -> User:
        """To another department: out of the group that is called like the old one, into the one that is called like the new one."""
        with self._company.changing() as change:
            found = self._present(user)
            names = {group.name: group.id for group in self._company.groups(found.directory_id)}
            stays = [group for group in found.groups if group != names.get(found.department)]
            joins = [names[department]] if department in names else []
            place = {"department": department, "title": found.title if title is None else title}
            return self._update(change, found, [place, {"groups": tuple(dict.fromkeys([*stays, *joins]))}])

    def regroup(self, user: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> User:
        """Into groups, and out of others."""
        with self._company.changing() as change:
            found = self._present(user)
            leaves = set(self._groups(found.directory_id, remove))
            groups = [*(group for group in found.groups if group not in leaves), *self._groups(found.directory_id, add)]
            return self._update(change, found, [{"groups": tuple(dict.fromkeys(groups))}])

    def suspend(self, user: str) -> User:
        """Inactive until restored. Every provider says it alike: user_updated with active: false."""
        with self._company.changing() as change:
            found = self._present(user)
            if not found.active:
                raise Conflict(f"{found.email} is suspended already.")
            return self._say(change, found.model_copy(update={"state": State.SUSPENDED}))

    def fire(self, user: str) -> User:
        """Gone, as the provider does it; until purged the person can come back."""
        with self._company.changing() as change:
            found = self._company.user(user)
            self._company.open_directory(found.directory_id)
            if found.state is State.GONE:
                raise Conflict(f"{found.email} is gone already: restore or purge.")
            match STYLES[self._company.directory(found.directory_id).provider].leaving:
                case Leaving.DEACTIVATED:
                    return self._say(change, found.model_copy(update={"state": State.GONE}))
                case Leaving.RENAMED:
                    renamed = f"{secrets.token_hex(16)}{found.email}"
                    return self._say(change, found.model_copy(update={"state": State.GONE, "email": renamed}))
                case Leaving.DELETED:
                    return self._delete(change, found)
                case Leaving.DEACTIVATED_AND_DELETED:
                    self._say(change, found.model_copy(update={"state": State.GONE}))
                    return self._delete(change, found)

    def restore(self, user: str) -> User:
        """Back, with the groups of before. Whom Scalekit has deleted it meets as somebody new, with the provider's old id."""
        with self._company.changing() as change:
            found = self._company.user(user)
            place = self._company.open_directory(found.directory_id)
            if found.active:
                raise Conflict(f"{found.email} is active already.")
            email = found.address
            if email != found.email or not found.listed:
                self._free(place.id, [email])
            if found.listed:
                return self._say(change, found.model_copy(update={"state": State.ACTIVE, "email": email}))
            change.drop(found)
            there = [group for group in found.groups if group in {each.id for each in self._company.groups(place.id)}]
            again = Newcomer(found.given_name, found.family_name, email, found.title, found.department, there, found.dp_id)
            return self._arrive(change, place, [again])[0]

    def purge(self, user: str) -> User:
        """Deleted for good: what Entra ID does a month after the soft delete, and an administrator at any time."""
        with self._company.changing() as change:
            found = self._company.user(user)
            self._company.open_directory(found.directory_id)
            if found.listed:
                change.say(self._company.facts.user_deleted(found))
            change.drop(found)
            return found.model_copy(update={"state": State.GONE, "listed": False})

    def _arrive(self, change: Change, place: Directory, newcomers: Sequence[Newcomer]) -> list[User]:
        self._free(place.id, [newcomer.email for newcomer in newcomers])
        users = []
        for newcomer in newcomers:
            user, groups = self._new(place, newcomer), self._groups(place.id, newcomer.groups)
            if STYLES[place.provider].groups_at_once:
                user = user.model_copy(update={"groups": groups})
            change.say(self._company.facts.user_created(change.put(user)))
            users.append(user if user.groups == groups else self._say(change, user.model_copy(update={"groups": groups})))
        return users

    def _new(self, place: Directory, newcomer: Newcomer) -> User:
        return User(
            id=self._company.ticks.id("diruser"),
            organization_id=place.organization_id,
            directory_id=place.id,
            dp_id=newcomer.dp_id or STYLES[place.provider].upstream_id(),
            email=newcomer.email,
            given_name=newcomer.given_name,
            family_name=newcomer.family_name,
            title=newcomer.title,
            department=newcomer.department,
            updated_at=self._company.ticks.time(),
        )

    def _update(self, change: Change, user: User, steps: Sequence[Mapping[str, object]]) -> User:
        """Each step an event where the provider is piecemeal, else all of them one; nothing where nothing changes."""
        news = [step for step in steps if user.model_copy(update=step) != user]
        if not STYLES[self._company.directory(user.directory_id).provider].piecemeal:
            news = [{name: value for step in news for name, value in step.items()}] if news else []
        for step in news:
            user = self._say(change, user.model_copy(update=step))
        return user

    def _say(self, change: Change, user: User) -> User:
        user = change.put(user.model_copy(update={"updated_at": self._company.ticks.time()}))
        change.say(self._company.facts.user_updated(user))
        return user

    def _delete(self, change: Change, user: User) -> User:
        change.say(self._company.facts.user_deleted(user))
        return change.put(user.model_copy(update={"state": State.GONE, "listed": False, "updated_at": self._company.ticks.time()}))

    def _groups(self, directory_id: str, references: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._company.group(reference, directory_id).id for reference in references))

    def _present(self, user: str) -> User:
        found = self._company.user(user)
        self._company.open_directory(found.directory_id)
        if found.state is State.GONE:
            raise Conflict(f"{found.email} is gone: restore the person first.")
        return found

    def _free(self, directory_id: str, emails: Iterable[str]) -> None:
        """An address is one person's, of those whom Scalekit has."""
        taken = {each.email.lower() for each in self._company.users(directory_id) if each.listed}
        for email in emails:
            if email.lower() in taken:
                raise Conflict(f"Somebody in this directory has the address {email} already.")
            taken.add(email.lower())


def plain(text: str) -> str:
    """The letters and digits of `text`, as an address has them."""
    return re.sub(r"[^a-z0-9]+", "", unicodedata.normalize("NFKD", text).lower())
