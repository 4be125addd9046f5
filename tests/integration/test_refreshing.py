"""What users show is brought to the records behind them, whatever was written past that; what is right stays untouched."""

import pytest
from sqlalchemy import delete, insert, select, update

from factories import ORGANIZATION, event, named, receive, roles, show_again, state, user_of, user_rows
from following import Copy, everything, original
from operators import Command
from provisioning.db.models import changes, group_roles, groups, memberships, role_grants, users
from provisioning.db.session import Database
from provisioning.refreshing import refresh
from provisioning.roles import Roles
from rows import NOW


@pytest.fixture
def company(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Seven people in groups and with roles, of whom one is suspended; refreshed three at a time."""
    monkeypatch.setattr("provisioning.refreshing.USERS_AT_ONCE", 3)
    receive(database, *(event("user_created", f"u{n}", groups=named("g", "h"), roles=roles("member")) for n in range(7)))
    receive(database, event("user_updated", "u6", at=1, active=False))
    Roles(database).map_group(ORGANIZATION, "g", {"admin"}, "operator")
    Roles(database).grant(ORGANIZATION, user_of(database, "u0"), {"owner"}, "operator")
    return database


def refreshed(database: Database) -> tuple[int, int]:
    """How many users were looked at, and how many changes that came to."""
    *_, last = refresh(database, ORGANIZATION, "somebody")
    return last


def test_where_nothing_is_amiss_nothing_changes(company: Database) -> None:
    """Not even the times at which users last changed."""
    before = (state(company), user_rows(company), everything(company))
    assert refreshed(company) == (7, 0)
    assert (state(company), user_rows(company), everything(company)) == before


PAST_IT = {
    "an older release brought somebody into a group": update(memberships).values(since=None),
    "an older release took what is given here": delete(role_grants).where(role_grants.c.source != "u1"),
    "an older release deleted a group": update(groups).where(groups.c.id == "g").values(deleted=True),
    "an older release deactivated somebody": update(memberships).where(memberships.c.directory_user_id == "u6").values(since=NOW),
    "a hand made somebody active": update(users).values(active=True, deactivated_at=None),
    "a hand mapped a group": insert(group_roles).values(
        organization_id=ORGANIZATION, group_id="h", role="auditor", mapped_by="hand", mapped_at=NOW
    ),
}


@pytest.mark.parametrize("case", PAST_IT)
def test_what_was_written_past_it_is_mended(company: Database, case: str) -> None:
    """Everybody shows what is behind them, as if it had come by events, and the log says who mended it."""
    with company.writing() as session:
        session.execute(PAST_IT[case])
    number = len(everything(company))
    users_seen, changed = refreshed(company)
    mended = everything(company)[number:]
    assert (users_seen, changed) == (7, len(mended))
    assert changed > 0
    assert {(change.cause, change.cause_id) for change in mended} == {("operator", "somebody")}
    after = state(company)
    show_again(company)
    assert (state(company), refreshed(company)) == (after, (7, 0))


def test_a_reader_of_the_feed_is_told_what_was_mended(company: Database) -> None:
    with company.writing() as session:
        session.execute(PAST_IT["a hand mapped a group"])
    refreshed(company)
    assert Copy().follow(everything(company)) == original(company, ORGANIZATION)


def test_the_command_mends_every_organization(company: Database, command: Command) -> None:
    url = company.engine.url.render_as_string(hide_password=False)
    with company.writing() as session:
        session.execute(update(memberships).values(since=None))
    assert command("refresh", DATABASE_URL=url).code == 1
    done = command("refresh --all", DATABASE_URL=url)
    assert (done.code, done.rows[0]) == (0, [ORGANIZATION, "7", "12"])
    assert command(f"refresh {ORGANIZATION}", DATABASE_URL=url).rows[0] == [ORGANIZATION, "7", "0"]
    with company.reading() as session:
        assert session.scalars(select(changes.c.cause_id).order_by(changes.c.position.desc()).limit(1)).one().endswith("(command line)")
