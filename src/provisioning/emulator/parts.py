"""What the emulator is made of, for those who drive it."""

from dataclasses import dataclass
from functools import partial

from provisioning.emulator.company import Company
from provisioning.emulator.comparison import Difference, compare
from provisioning.emulator.deliveries import Deliveries
from provisioning.emulator.endpoint import Endpoint
from provisioning.emulator.faults import Faults
from provisioning.emulator.jobs import Jobs
from provisioning.emulator.oauth import Tokens
from provisioning.emulator.people import People
from provisioning.emulator.portal import Portal
from provisioning.emulator.service import Service
from provisioning.emulator.structure import Structure


@dataclass(frozen=True, slots=True)
class Parts:
    """One of each."""

    company: Company
    people: People
    structure: Structure
    deliveries: Deliveries
    endpoint: Endpoint
    faults: Faults
    portal: Portal
    tokens: Tokens
    jobs: Jobs
    service: Service

    def compared(self, organization_id: str) -> tuple[int, list[Difference]]:
        """How many people of the organization were compared, and where the service differs. Raises ServiceSilent."""
        directories = self.company.directories(organization_id)
        users = [user for directory in directories for user in self.company.users(directory.id)]
        groups = [group for directory in directories for group in self.company.groups(directory.id)]
        disabled = [directory.id for directory in directories if not directory.enabled]
        answers, group_answers = self.service.users(organization_id), self.service.groups(organization_id)
        roles_by_directory = partial(self.service.roles_by_directory, organization_id)
        return len(users), compare(users, groups, disabled, self.company.roles_of, answers, group_answers, roles_by_directory)
