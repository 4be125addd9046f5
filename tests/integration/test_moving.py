"""A customer moves from one directory to another: nobody is locked out, and no leaver stays in through the old one."""

from __future__ import annotations

from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Provider
from reconciling import Reconciling


def test_a_migration_locks_nobody_out_but_the_leaver(reconciling: Reconciling) -> None:
    """Runs know who is in which directory; so who leaves the new one is out at once, though the old one still lists them as active."""
    okta, company = reconciling.directory, reconciling.emulator
    staff = [Newcomer("Nova", str(n), f"move{n}@acme.example") for n in range(8)]
    company.people.enrol(staff, okta.id)
    reconciling.hear()
    reconciling.run()
    entra = company.structure.add_directory(okta.organization_id, Provider.ENTRA_ID)
    in_both = company.people.enrol(staff, entra.id)
    reconciling.hear()
    reconciling.run()
    assert [len(user["directory_users"]) for user in reconciling.users(active="true")] == [2] * 8

    company.structure.disable_directory(okta.id)
    reconciling.hear()
    assert len(reconciling.users(active="true")) == 8
    leaver = company.people.fire(in_both[0].id)
    reconciling.hear()

    assert [user["email"] for user in reconciling.users(active="false")] == [leaver.address]
    assert len(reconciling.users(active="true")) == 7
    reconciling.run()
    assert [user["email"] for user in reconciling.users(active="false")] == [leaver.address]
