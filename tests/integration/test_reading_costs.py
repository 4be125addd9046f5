"""What a page costs: a fixed number of statements, each by an index, and no more on the last page than on the first."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from databases import Databases
from provisioning.db.deliveries import EVERY, Wanted, page_of_deliveries
from provisioning.db.models import changes, deliveries, hook_lanes, hooks
from provisioning.db.reading import figures
from provisioning.db.reading.access import access_of
from provisioning.db.reading.changes import history_of_group, history_of_user, kinds, last_place, page_of_changes
from provisioning.db.reading.groups import page_of_groups
from provisioning.db.reading.users import UserFilter, one_user, page_of_users, summaries
from provisioning.db.session import Database
from provisioning.merge import Key
from rows import NOW, analyze, big_organization, put

PEOPLE = 10_000
BIG = {"users", "directory_users", "memberships", "role_grants", "application_ids", "changes", "deliveries", "hook_lanes"}
WAITING = 3_000  # lanes
LIMIT = 50
SECOND = timedelta(seconds=1)
END = (NOW + timedelta(days=999), "")
MIDDLE, LAST = (f"usr_{number:05}" for number in (PEOPLE // 2, PEOPLE - 61))


@dataclass
class Cost:
    """What reading something took: statements, and the work they did (blocks on PostgreSQL, steps of its machine on SQLite)."""

    statements: int
    work: int
    scans: list[str]
    """Steps that read a big table, or an organization, from end to end."""


@pytest.fixture(scope="module", params=(pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"))
def full(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An organization of ten thousand among others, with the statistics that a server in use has; the tests only read."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    with databases.fresh(migrated=True) as url:
        database = Database(url)
        fill(database)
        yield database
        database.close()


def fill(database: Database) -> None:
    """Put everything in."""
    for organization_id, people in (("org_0", 2_000), ("org_1", PEOPLE), ("org_2", 2_000)):
        big_organization(database, organization_id, people)
        happened(database, organization_id, people)
    kept = {"outcome": "processed", "attempts": 1}
    put(database, deliveries, *({"webhook_id": f"msg_{n:05}", "received_at": NOW + n * SECOND, **kept} for n in range(PEOPLE)))
    put(database, hooks, {"id": "hook_0", "position": 10**6}, {"id": "hook_1", "position": 10**9})
    lanes = (
        {"hook_id": f"hook_{n % 2}", "subject_id": f"usr_{n:05}", "failing_since": NOW if n % 99 == 0 else None} for n in range(WAITING)
    )
    put(database, hook_lanes, *lanes)
    analyze(database)


def happened(database: Database, organization_id: str, people: int) -> None:
    """Everybody came, and entered two groups; the last one, who came and went all the time, did so a hundred times."""
    common = {"organization_id": organization_id, "cause": "delivery", "cause_id": "msg_1", "recorded_at": NOW}
    came: list[tuple[str, int, str | None]] = [("user.created", number, None) for number in range(people)]
    came += [("membership.added", number, f"grp_{group:03}") for number in range(people) for group in (0, 1 + number % 99)]
    came += [("membership.added", people - 1, "grp_000")] * 100
    put(
        database,
        changes,
        *(
            {
                **common,
                "position": 10**6 * int(organization_id[-1]) + place,
                "type": type_,
                "user_id": f"usr_{number:05}",
                "group_id": group,
            }
            for place, (type_, number, group) in enumerate(came)
        ),
    )


def users(after: str = "", **filters: Any) -> Callable[[Session], object]:
    """Reading a page of users."""
    return lambda session: page_of_users(session, "org_1", UserFilter(**filters), after=after, limit=LIMIT)


LOOKUPS = {
    "one": lambda session: one_user(session, "org_1", "usr_00077"),
    "email": users(email="P77@x.com"),
    "directory user": users(directory_user_id="du_00077"),
    "application id": users(application_id="77"),
    "email and active": users(email="P77@x.com", active=True),
    "email, group and role": users(email="p77@x.com", group_id="grp_000", role="member", active=True),
}
LISTS: dict[str, dict[str, Any]] = {
    "all": {},
    "active": {"active": True},
    "group": {"group_id": "grp_000"},
    "role": {"role": "member"},
    "group and role": {"group_id": "grp_000", "role": "member", "active": True},
}


def test_a_page_of_users_costs_the_same_everywhere(full: Database) -> None:
    """Whatever the filter, four statements by indexes; the last page is as cheap as the first, a look-up is far cheaper."""
    with full.reading() as session:
        for name, filters in LISTS.items():
            pages = [cost(session, users(after=after, **filters)) for after in ("", MIDDLE, LAST)]
            assert [(page.scans, page.statements) for page in pages] == [([], 4)] * 3, name
            assert max(page.work for page in pages) <= 2 * min(page.work for page in pages), (name, pages)
            assert len(page_of_users(session, "org_1", UserFilter(**filters), after=LAST, limit=LIMIT)) == LIMIT, name
        page = cost(session, users())
        for name, lookup in LOOKUPS.items():
            looked_up = cost(session, lookup)
            assert (looked_up.scans, looked_up.statements) == ([], 4), name
            assert looked_up.work <= page.work / 5, name


def test_a_few_among_many_cost_what_they_are(full: Database) -> None:
    """A page of a small group, or of a rare role, is found by its index and not by looking through everybody."""
    with full.reading() as session:
        page = cost(session, users())
        for filters in ({"group_id": "grp_007"}, {"role": "admin"}, {"active": False}):
            rare = cost(session, users(**filters))
            assert rare.scans == []
            assert rare.statements <= 4
            assert rare.work <= 4 * page.work, filters


def test_access_costs_the_same_in_a_big_organization(full: Database) -> None:
    """Three statements by keys for whoever has access and two for whoever has none, whoever it is, and however many others there are."""
    with full.reading() as session:
        for number, statements in ((0, 3), (77, 3), (PEOPLE - 2, 3), (79, 2), (PEOPLE - 1, 2)):
            small = cost(session, access("org_0", number % 2_000))
            big = cost(session, access("org_1", number))
            assert (big.statements, big.scans, small.scans) == (statements, [], [])
            assert big.work <= 1.5 * small.work + 5, (number, small, big)
        assert access_of(session, "org_1", "usr_00077").roles


def access(organization_id: str, number: int) -> Callable[[Session], object]:
    """Reading what the user of this number may do."""
    return lambda session: access_of(session, organization_id, f"usr_{number:05}")


def test_a_history_costs_what_is_shown_of_it(full: Database) -> None:
    """One statement by an index: of a user, and of a group that everybody came to, at its newest page and at an old one."""
    with full.reading() as session:
        for before in (10**9, 10**6 + 3 * PEOPLE // 2):
            for history in (user_history("usr_00077", before), group_history("grp_000", before)):
                costs = cost(session, history)
                assert (costs.statements, costs.scans) == (1, [])


def user_history(user_id: str, before: int) -> Callable[[Session], object]:
    """Reading a page of what happened to a user."""
    return lambda session: history_of_user(session, "org_1", user_id, before=before, limit=LIMIT)


def group_history(group_id: str, before: int) -> Callable[[Session], object]:
    """The same of a group."""
    return lambda session: history_of_group(session, "org_1", group_id, before=before, limit=LIMIT)


@pytest.mark.parametrize(
    "asked",
    [
        "provisioning_v1_users u WHERE u.user_id = 'usr_00077'",
        "provisioning_v1_users u WHERE u.application_id = '77'",
        "provisioning_v1_users u WHERE u.email_key = 'p77@x.com'",
        "provisioning_v1_memberships u WHERE u.user_id = 'usr_00077'",
        "provisioning_v1_memberships u WHERE u.group_id = 'grp_007'",
        "provisioning_v1_roles u WHERE u.user_id = 'usr_00077'",
        "provisioning_v1_users u LEFT JOIN provisioning_v1_roles r ON r.organization_id = u.organization_id AND r.user_id = u.user_id"
        " LEFT JOIN provisioning_v1_memberships m ON m.organization_id = u.organization_id AND m.user_id = u.user_id"
        " WHERE u.application_id = '77'",
    ],
)
def test_a_view_is_read_by_indexes(full: Database, asked: str) -> None:
    """Within an organization, by each key that an application has; also joined to one another."""
    statement = text(f"SELECT * FROM {asked} AND u.organization_id = 'org_1'")  # noqa: S608 (one of those above)
    with full.reading() as session:
        assert session.execute(statement).all()
        assert cost(session, lambda session: session.execute(statement)).scans == []


def test_groups_are_listed_by_an_index(full: Database) -> None:
    """A second statement counts the members of the page's groups, and no others."""
    with full.reading() as session:
        first, last = (cost(session, ten_groups(after)) for after in ("grp_000", "grp_089"))
        assert first.statements == last.statements == 2
        assert last.work <= 1.5 * first.work
        if full.dialect == "sqlite":  # PostgreSQL may rather read a table of 14,000 rows than look up a thousand of them
            assert first.scans == last.scans == []


def ten_groups(after: str) -> Callable[[Session], object]:
    """Reading a page of groups."""
    return lambda session: page_of_groups(session, "org_1", include_deleted=False, after=after, limit=10)


def test_deliveries_are_listed_by_an_index(full: Database) -> None:
    """The newest page and the oldest."""
    with full.reading() as session:
        first, last = (cost(session, fifty_deliveries(number)) for number in (PEOPLE, 51))
        assert first.scans == last.scans == []
        assert first.statements == last.statements == 1
        assert last.work <= 1.5 * first.work


def test_deliveries_are_found_by_an_index(full: Database) -> None:
    """Whom they are about, and what became of them, few among many; also when there are none."""
    with full.reading() as session:
        page = cost(session, fifty_deliveries(PEOPLE))
        for wanted in (
            Wanted(subject_id="du_1"),
            Wanted(outcome="failed"),
            Wanted(outcome="failed", dismissed=False),
            Wanted("dead_lettered"),
        ):
            found = cost(session, narrowed(wanted))
            assert (found.statements, found.scans) == (1, []), wanted
            assert found.work <= page.work, wanted


def narrowed(wanted: Wanted) -> Callable[[Session], object]:
    """Reading the newest page of some deliveries."""
    return lambda session: page_of_deliveries(session, wanted, before=END, limit=LIMIT)


def test_the_feed_is_read_by_an_index_wherever_the_reader_is(full: Database) -> None:
    """All of it, or an organization's; and what comes while somebody waits is found without looking at what was before."""
    end = 10**6 + 3 * PEOPLE
    with full.reading() as session:
        for wanted in ({}, {"organization_id": "org_1"}):
            places = [cost(session, following(after, end, **wanted)) for after in (10**6, 10**6 + PEOPLE, end - 3 * LIMIT)]
            assert [(place.scans, place.statements) for place in places] == [([], 1)] * 3
            assert max(place.work for place in places) <= 2 * min(place.work for place in places)
        for look in (lambda session: last_place(session, end), lambda session: kinds(session, end - 5, end)):
            looked = cost(session, look)
            assert (looked.scans, looked.statements) == ([], 1)
            assert looked.work <= places[0].work
        whose = cost(session, lambda session: summaries(session, {Key("org_1", f"usr_{200 * number:05}") for number in range(LIMIT)}))
        assert (whose.scans, whose.statements) == ([], 4)


def following(after: int, to: int, **wanted: str) -> Callable[[Session], object]:
    """Reading a part of the feed."""
    return lambda session: page_of_changes(session, after=after, to=to, limit=LIMIT, **wanted)


def fifty_deliveries(number: int) -> Callable[[Session], object]:
    """Reading the page before the delivery of this number."""
    return lambda session: page_of_deliveries(session, EVERY, before=(NOW + number * SECOND, ""), limit=LIMIT)


def test_the_figures_for_prometheus_are_read_by_indexes(full: Database) -> None:
    """Seven statements, whatever was received, whoever is here, however often it was reconciled, and whatever waits for hooks."""
    with full.reading() as session:
        found = cost(session, lambda session: figures.read(session, NOW, share=0.2, floor=5))
        assert found.statements == 7
        assert not {"changes", "users", "last_run", "run_before"} & {scan.split()[1] for scan in found.scans}
        assert len([scan for scan in found.scans if "hook_lanes" in scan]) == 1  # they are counted, up to a number
        assert found.work <= 2 * cost(session, users()).work


def cost(session: Session, read: Callable[[Session], object]) -> Cost:
    """What `read` costs, by explaining each statement that it sends."""
    sent: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        sent.append((statement, parameters))

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", note)
    read(session)
    event.remove(connection, "before_cursor_execute", note)
    explain = _on_sqlite if connection.dialect.name == "sqlite" else _on_postgresql
    explained = [explain(connection, statement, parameters) for statement, parameters in sent]
    return Cost(len(sent), sum(work for work, _ in explained), [scan for _, scans in explained for scan in scans])


def _on_sqlite(connection: Connection, statement: str, parameters: Any) -> tuple[int, list[str]]:
    plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    # What scans the statement's own parameter reads no table. An index of which only the organization is used is no better than a scan.
    plan = [step for step in plan if "VIRTUAL TABLE" not in step and step != "SCAN keys"]
    scans = [step for step in plan if step.startswith("SCAN") or (step.endswith("(organization_id=?)") and "directories" not in step)]
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(count, 10)
    connection.exec_driver_sql(statement, parameters).all()
    driver.set_progress_handler(None, 0)
    return steps, scans


def _on_postgresql(connection: Connection, statement: str, parameters: Any) -> tuple[int, list[str]]:
    explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters).scalar_one()
    plan = explained[0]["Plan"]
    steps = list(_steps(plan))
    scans = [f"{step['Node Type']} on {step['Relation Name']}" for step in steps if step.get("Relation Name") in BIG and _reads_all(step)]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], scans


def _steps(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield step
    for below in step.get("Plans", []):
        yield from _steps(below)


def _reads_all(step: dict[str, Any]) -> bool:
    """Whether a step looked at far more rows than fit on a page, each time it ran."""
    looked_at = step["Actual Rows"] + step.get("Rows Removed by Filter", 0)
    return bool(step["Node Type"] == "Seq Scan" or looked_at > 10 * LIMIT)
