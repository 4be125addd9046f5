"""Stories that a directory tells, each in a company of its own, so that every one can be played again and again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice

from provisioning.emulator.jobs import Job
from provisioning.emulator.parts import Parts
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Directory, Organization, Provider, User
from provisioning.emulator.sample import people
from provisioning.emulator.service import ServiceSilent
from provisioning.emulator.sync import fill, settle
from provisioning.errors import Conflict

SAMPLE = "Acme"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`what` it shows, and how it goes."""

    what: str
    play: Callable[[Parts, Job], None]


def sample(parts: Parts) -> None:
    """The company that is there from the first start on: Okta, five departments, an administrator."""
    organization = parts.structure.add_organization(SAMPLE, external_id=SAMPLE.lower())
    directory = parts.structure.add_directory(organization.id, Provider.OKTA)
    fill(parts, Job("sample"), directory.id, _staff(organization, 12))
    parts.structure.map_role(parts.company.group("Engineering", directory.id).id, "admin")


def _onboarding(parts: Parts, job: Job) -> None:
    organization, directory = _company(parts, job, "Onboarding", Provider.OKTA)
    fill(parts, job, directory.id, _staff(organization, 10))
    job.begin("Engineering is mapped to the role admin")
    parts.structure.map_role(parts.company.group("Engineering", directory.id).id, "admin")
    _conclude(parts, job, organization)


def _first_sync(parts: Parts, job: Job) -> None:
    organization, directory = _company(parts, job, "First sync", Provider.ENTRA_ID)
    with _switched(parts, duplicates=0.1, reorder=2, drop=0.1):
        fill(parts, job, directory.id, _staff(organization, 500))
        settle(parts, job)
    _conclude(parts, job, organization)


def _leaver(parts: Parts, job: Job) -> None:
    organization, directory = _company(parts, job, "Leavers", Provider.GOOGLE)
    fill(parts, job, directory.id, _staff(organization, 6))
    stays, back, gone, *_ = parts.company.users(directory.id)
    job.begin("One is suspended, one is suspended and comes back, one is fired", 3)
    for user in (stays, back):
        parts.people.suspend(user.id)
    job.advance()
    parts.people.restore(back.id)
    job.advance()
    parts.people.fire(gone.id)
    job.advance()
    settle(parts, job)
    job.begin("The one who was fired is hired again, with the old id upstream")
    parts.people.restore(gone.id)
    _conclude(parts, job, organization)


def _migration(parts: Parts, job: Job) -> None:
    organization, okta = _company(parts, job, "Migration", Provider.OKTA)
    staff = _staff(organization, 20)
    fill(parts, job, okta.id, staff)
    settle(parts, job)
    entra = parts.structure.add_directory(organization.id, Provider.ENTRA_ID)
    fill(parts, job, entra.id, staff)
    settle(parts, job)
    job.begin("Okta is switched off; nobody may lose access")
    parts.structure.disable_directory(okta.id)
    leaver = parts.company.users(entra.id)[0]
    job.begin(f"{leaver.email} leaves, in Entra ID alone")
    parts.people.fire(leaver.id)
    _conclude(parts, job, organization)


def _outage(parts: Parts, job: Job) -> None:
    organization, directory = _company(parts, job, "Outage", Provider.JUMPCLOUD)
    fill(parts, job, directory.id, _staff(organization, 20))
    settle(parts, job)
    with _switched(parts, drop=1, retry_scale=0.00001):
        job.begin("Nothing gets through; meanwhile people join, move and leave")
        _busy_day(parts, parts.company.users(directory.id), directory)
        settle(parts, job)
    job.begin("Over: everything that was given up is sent again")
    parts.deliveries.resend()
    _conclude(parts, job, organization)


SCENARIOS = {
    "onboarding": Scenario("A new customer connects Okta: ten people, their groups, a role for one of them.", _onboarding),
    "first-sync": Scenario("500 people at once from Entra ID, shuffled, a tenth of it twice, a tenth of the attempts lost.", _first_sync),
    "leaver": Scenario("Google: suspended, restored, fired and hired again.", _leaver),
    "migration": Scenario(
        "A company moves from Okta to Entra ID; Okta is switched off, and nobody but a leaver may lose access.", _migration
    ),
    "outage": Scenario("JumpCloud: nothing is delivered until all retries are over; then it is sent again.", _outage),
}


def _company(parts: Parts, job: Job, title: str, provider: Provider) -> tuple[Organization, Directory]:
    taken = {each.name for each in parts.company.organizations()}
    name = next(each for n in count(1) if (each := f"{title} {n}") not in taken)
    job.begin(f"{name} connects its directory")
    organization = parts.structure.add_organization(name)
    return organization, parts.structure.add_directory(organization.id, provider)


def _staff(organization: Organization, number: int) -> list[Newcomer]:
    return list(islice(people(f"{organization.name.lower().replace(' ', '-')}.example"), number))


def _busy_day(parts: Parts, users: Sequence[User], directory: Directory) -> None:
    for user in users[:4]:
        parts.people.fire(user.id)
    for user in users[4:8]:
        parts.people.move(user.id, "Finance")
    for user in users[8:10]:
        parts.people.suspend(user.id)
    parts.people.hire(Newcomer("New", "Face", "new.face@outage.example", groups=["Sales"]), directory.id)
    parts.structure.delete_group(parts.company.group("Support", directory.id).id)


@contextmanager
def _switched(parts: Parts, **switches: float) -> Iterator[None]:
    before = parts.deliveries.switches
    parts.deliveries.switch(switches)
    try:
        yield
    finally:
        parts.deliveries.switch(before.model_dump())


def _conclude(parts: Parts, job: Job, organization: Organization) -> None:
    """When all is delivered: does the service say the same? Raises Conflict when it does not."""
    settle(parts, job)
    job.begin("The service is compared with the directory")
    try:
        compared, differences = parts.compared(organization.id)
    except ServiceSilent as silence:
        job.begin(f"{organization.name}: delivered. Whether the service says the same is not known. {silence}")
        return
    if differences:
        raise Conflict(f"{organization.name}: the service differs in {len(differences)} places: compare says which.")
    job.begin(f"{organization.name}: the service says the same of all {compared} people.")
