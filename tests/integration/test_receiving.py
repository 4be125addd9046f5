"""What single events do to users, groups, memberships and roles."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from factories import ORGANIZATION, START, delivery, event, named, one_by_one, receive, roles, state, user_rows
from following import everything
from provisioning.bodies import Json
from provisioning.db.models import groups, organizations, reconcile_runs
from provisioning.db.session import Database
from provisioning.inbox import Inbox
from provisioning.settings import LinkUsersByEmail
from service import settings


def test_a_suspended_person_is_inactive_and_comes_back(database: Database) -> None:
    """`active: false` on an update is a suspension, not a profile update."""
    one_by_one(database, [event("user_created", "u", email="a@x.com", roles=roles("admin"), groups=named("g"))])
    (before,) = user_rows(database)
    one_by_one(database, [event("user_updated", "u", at=1, active=False)])
    (suspended,) = user_rows(database)
    assert (suspended["active"], suspended["email"], state(database)["role_grants"]) == (False, "a@x.com", [])
    assert suspended["deactivated_at"] is not None
    one_by_one(database, [event("user_updated", "u", at=2, active=True)])
    (back,) = user_rows(database)
    assert (back["id"], back["active"], back["deactivated_at"]) == (before["id"], True, None)
    assert state(database)["role_grants"] == [(ORGANIZATION, ("u",), "admin", "u")]


def test_a_deletion_writes_nothing_over_the_profile(database: Database) -> None:
    """`user_deleted` carries hardly anything: what it does not say stays."""
    one_by_one(database, [event("user_created", "u", email="a@x.com", name="Ann", department="Sales", groups=named("g"))])
    one_by_one(database, [event("user_deleted", "u", at=1, email="other@x.com", dp_id="9")])
    (user,) = user_rows(database)
    assert (user["active"], user["email"], user["name"], user["attributes"]) == (False, "a@x.com", "Ann", {"department": "Sales"})
    assert state(database)["memberships"] == []


def test_a_deletion_of_somebody_unknown_leaves_a_tombstone_and_no_account(database: Database) -> None:
    assert one_by_one(database, [event("user_deleted", "u", at=5, email="a@x.com")]) == ["processed"]
    assert user_rows(database) == []
    assert one_by_one(database, [event("user_created", "u", at=1, email="a@x.com", groups=named("g"))]) == ["processed"]
    (user,) = user_rows(database)
    assert not user["active"]
    assert state(database)["memberships"] == []


def test_who_comes_back_behind_somebody_elses_account_brings_groups_and_roles(database: Database) -> None:
    """Known by a tombstone, which is no new record; its account is another directory user's."""
    one_by_one(database, [event("user_created", "one", email="a@x.com"), event("user_deleted", "other")])
    one_by_one(database, [event("user_created", "other", at=1, email="a@x.com", groups=named("g"), roles=roles("admin"))])
    assert len(user_rows(database)) == 1
    assert state(database)["role_grants"] == [(ORGANIZATION, ("one", "other"), "admin", "other")]
    assert state(database, ORGANIZATION)["memberships"] == [("other", "g", True)]


def test_an_entra_soft_delete_keeps_the_address(database: Database) -> None:
    one_by_one(database, [event("user_created", "u", email="ann@x.com", preferred_username="ann@x.com")])
    mangled = "0123456789abcdef0123456789ABCDEFann@x.com"
    one_by_one(database, [event("user_updated", "u", at=1, email=mangled, preferred_username=mangled, active=False)])
    (user,) = user_rows(database)
    assert (user["email"], user["preferred_username"], user["active"]) == ("ann@x.com", "ann@x.com", False)


def test_groups_that_a_person_names_exist_even_when_the_event_is_overtaken(database: Database) -> None:
    one_by_one(database, [event("user_updated", "u", at=5, groups=[])])
    assert one_by_one(database, [event("user_updated", "u", at=1, groups=named("late"))]) == ["processed"]
    found = state(database, ORGANIZATION)
    assert [(row[0], row[3]) for row in found["groups"]] == [("late", "Group late")]
    assert found["memberships"] == []


def test_a_group_event_changes_no_membership(database: Database) -> None:
    one_by_one(database, [event("user_created", "u", groups=named("g")), event("group_updated", "g", at=1, display_name="Renamed")])
    found = state(database, ORGANIZATION)
    assert found["memberships"] == [("u", "g", True)]
    assert [(row[3], row[4]) for row in found["groups"]] == [("Renamed", False)]


def test_events_older_than_the_mark_are_stale(database: Database) -> None:
    """The directory was read whole after them: they make no record, no stub and no account. Directory events are held against no mark."""
    one_by_one(database, [event("user_created", "u", name="Ann", at=50)])
    with database.writing() as session:
        session.execute(update(organizations).values(complete_as_of=(START + 100) * 10**9))
    before = state(database)
    late = [
        event("user_updated", "u", at=99.9, name="Bob"),
        event("user_created", "v", at=99, groups=named("g")),
        event("user_deleted", "w", at=98),
        event("group_created", "g", at=97),
    ]
    assert one_by_one(database, late) == ["stale"] * 4
    assert state(database) == before
    assert (
        one_by_one(database, [event("user_updated", "u", at=100, name="Cid"), event("directory_disabled", "d", at=1)]) == ["processed"] * 2
    )


def test_two_organizations_with_the_same_ids_and_addresses_never_touch(database: Database) -> None:
    def history(organization_id: str) -> list[bytes]:
        return [
            event("user_created", "u", organization_id=organization_id, email="a@x.com", dp_id="1", groups=named("g"), roles=roles("r")),
            event("group_created", "g", organization_id=organization_id, display_name="G"),
            event("directory_enabled", "d", organization_id=organization_id),
        ]

    one_by_one(database, history("org_a") + history("org_b"))
    untouched = state(database, "org_b")
    harm = {"organization_id": "org_a", "at": 9}
    one_by_one(
        database,
        [
            event("user_deleted", "u", **harm),  # type: ignore[arg-type] # organization and time
            event("group_deleted", "g", **harm),  # type: ignore[arg-type]
            event("directory_disabled", "d", **harm),  # type: ignore[arg-type]
        ],
    )
    assert state(database, "org_b") == untouched
    assert [row["active"] for row in user_rows(database, "org_a") + user_rows(database, "org_b")] == [False, True]


def test_a_disabled_directory_lets_nobody_in_that_another_one_has_let_go(database: Database) -> None:
    """A move from one directory to another: when the old one is disabled, leavers stay out and the moved stay in."""
    old, new = {"directory_id": "old"}, {"directory_id": "new"}
    events = [
        event("user_created", "moved_old", email="m@x.com", **old),  # type: ignore[arg-type]
        event("user_created", "left_old", email="l@x.com", **old),  # type: ignore[arg-type]
        event("user_created", "only_old", email="o@x.com", **old),  # type: ignore[arg-type]
        event("user_created", "moved_new", email="m@x.com", at=1, **new),  # type: ignore[arg-type]
        event("user_created", "left_new", email="l@x.com", at=1, **new),  # type: ignore[arg-type]
        event("user_updated", "left_new", at=2, active=False),
        event("directory_disabled", "old", at=3),
    ]
    one_by_one(database, events)
    active = {behind: row["active"] for behind, row in zip(_behind_by_age(database), user_rows(database), strict=True)}
    assert active == {("moved_new", "moved_old"): True, ("left_new", "left_old"): False, ("only_old",): True}
    one_by_one(database, [event("directory_enabled", "old", at=4)])
    assert [row["active"] for row in user_rows(database)] == [True, True, True]


def _behind_by_age(database: Database) -> list[object]:
    by_email = {row[1]: row[0] for row in state(database, ORGANIZATION)["users"]}
    return [by_email[str(row["email"])] for row in user_rows(database)]


CREATED: dict[str, Json] = {"email": "A@x.com ", "dp_id": "1"}


@pytest.mark.parametrize(
    ("policy", "first_leaves", "newcomer", "joins"),
    [
        ("live", False, {"email": "a@X.com"}, True),
        ("live", True, {"email": "a@x.com"}, False),
        ("live", True, {"email": "a@x.com", "dp_id": "1"}, True),
        ("live", False, {"email": "b@x.com", "dp_id": "1"}, False),
        ("live", False, {"dp_id": "1"}, True),
        ("live", False, {}, False),
        ("always", True, {"email": "a@x.com"}, True),
        ("never", False, {"email": "a@x.com"}, False),
        ("never", False, {"email": "a@x.com", "dp_id": "1"}, True),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
def test_whom_a_newcomer_joins(
    database: Database, policy: LinkUsersByEmail, first_leaves: bool, newcomer: dict[str, Json], joins: bool, batched: bool
) -> None:
    """design.md, *From directory users to users*; a newcomer never inherits a leaver's account."""
    bodies = [event("user_created", "first", **CREATED)]  # type: ignore[arg-type] # its data
    if first_leaves:
        bodies.append(event("user_deleted", "first", at=1))
    bodies.append(event("user_created", "second", at=2, **newcomer))  # type: ignore[arg-type]
    inbox = Inbox(database, link_users_by_email=policy)
    deliveries = [delivery(body) for body in bodies]
    for batch in [deliveries] if batched else [[each] for each in deliveries]:
        inbox.receive(batch)
    assert len(user_rows(database)) == (1 if joins else 2)


def test_an_inbox_does_as_the_settings_say(database: Database) -> None:
    """Whom newcomers join, and which environment's events are applied."""
    inbox = Inbox.of(settings("sqlite:///unused.db", link_users_by_email="always", environment_id="env_1"), database)
    bodies = [event(kind, id_, email="a@x.com") for kind, id_ in (("user_created", "u"), ("user_deleted", "u"), ("user_created", "v"))]
    bodies.append(bodies[0].replace(b"env_1", b"env_2"))
    receipts = inbox.receive([delivery(body) for body in bodies])
    assert [receipt.outcome for receipt in receipts] == ["processed", "processed", "processed", "dead_lettered"]
    assert len(user_rows(database)) == 1


API = {"scalekit_environment_url": "https://acme.scalekit.com", "scalekit_client_id": "skc_1", "scalekit_client_secret": "secret"}


def test_a_directory_that_is_enabled_is_read_whole(database: Database) -> None:
    """Soon, and its organization alone; not for what was known already, and not without API credentials."""
    known, new = event("directory_enabled", "d"), event("directory_enabled", "d", organization_id="org_2")
    receive(database, event("directory_enabled", "d", organization_id="org_4"))  # by an inbox that was told nothing of imports
    for credentials, bodies in (({}, [known]), (API, [known, new, event("user_created", "u", organization_id="org_3")])):
        Inbox.of(settings("sqlite:///unused.db", **credentials), database).receive([delivery(body) for body in bodies])
    with database.reading() as session:
        (run,) = session.execute(select(reconcile_runs)).mappings()
    assert (run["organization_id"], run["requested_by"]) == ("org_2", "organization.directory_enabled")
    assert run["due_at"] - run["requested_at"] == timedelta(seconds=10)


def test_what_a_batch_changes_is_put_down_to_its_newest_event(database: Database) -> None:
    """By when that happened, whatever the deliveries are called and in whichever order they come."""
    newest = delivery(event("user_updated", "u", at=1, name="Ann"), "msg_1")
    Inbox(database).receive([newest, delivery(event("user_created", "u"), "msg_2")])
    assert [change.cause_id for change in everything(database)] == ["msg_1"]


def test_a_reused_address_in_the_batch_that_frees_it(database: Database) -> None:
    """A colleague is renamed and a newcomer gets the old address, both in one batch: two people, and nobody shares an account."""
    one_by_one(database, [event("user_created", "jane", email="jane@x.com", dp_id="1")])
    receive(
        database, event("user_updated", "jane", at=1, email="jane.smith@x.com"), event("user_created", "new", email="jane@x.com", dp_id="2")
    )
    assert [row["email"] for row in user_rows(database)] == ["jane.smith@x.com", "jane@x.com"]


def test_a_newcomer_joins_by_an_address_that_a_colleague_gets_in_the_same_batch(database: Database) -> None:
    one_by_one(database, [event("user_created", "jane", email="jane@x.com")])
    receive(
        database, event("user_updated", "jane", at=1, email="jane.smith@x.com"), event("user_created", "moved", email="Jane.Smith@x.com")
    )
    assert len(user_rows(database)) == 1


def test_a_group_named_again_does_not_look_changed(database: Database) -> None:
    def updated_at() -> object:
        with database.reading() as session:
            return session.scalar(select(groups.c.updated_at))

    one_by_one(database, [event("user_created", "u", groups=named("g"))])
    before = updated_at()
    one_by_one(database, [event("user_created", "v", at=1, groups=named("g"))])
    assert updated_at() == before
    one_by_one(database, [event("group_updated", "g", at=2, display_name="Other")])
    assert updated_at() != before


def test_groups_and_roles_without_an_id_are_none(database: Database) -> None:
    """A suspension must not fail on what stands beside it."""
    one_by_one(database, [event("user_created", "u", groups=named("g"), roles=roles("r"))])
    odd = event("user_updated", "u", at=1, active=False, groups=[None, {"id": None}, *named("h")], roles=[{"role_name": ""}, None])
    assert one_by_one(database, [odd]) == ["processed"]
    assert [row["active"] for row in user_rows(database)] == [False]
    assert state(database, ORGANIZATION)["memberships"] == [("u", "h", False)]


def test_the_link_stays_through_every_change_of_address(database: Database) -> None:
    one_by_one(database, [event("user_created", "u", email="a@x.com"), event("user_created", "v", email="b@x.com")])
    before = [row["id"] for row in user_rows(database)]
    one_by_one(database, [event("user_updated", "v", at=1, email="a@x.com"), event("user_updated", "u", at=1, email="c@x.com")])
    assert [(row["id"], row["email"]) for row in user_rows(database)] == [(before[0], "c@x.com"), (before[1], "a@x.com")]


def test_updated_at_moves_only_when_something_changed(database: Database) -> None:
    one_by_one(
        database, [event("user_created", "u", email="a@x.com", name="Ann", groups=named("g"), roles=roles("r"), extra={"b": 1, "a": 2})]
    )
    (first,) = user_rows(database)
    one_by_one(
        database,
        [event("user_updated", "u", at=1, email="a@x.com", name="Ann", groups=named("g"), roles=roles("r"), extra={"a": 2, "b": 1})],
    )
    assert user_rows(database) == [first]
    for at, change in enumerate(({"name": "Bob"}, {"groups": []}, {"roles": []}, {"extra": None}), start=2):
        (before,) = user_rows(database)
        one_by_one(database, [event("user_updated", "u", at=at, **change)])  # type: ignore[arg-type]
        (after,) = user_rows(database)
        assert after["updated_at"] > before["updated_at"]  # type: ignore[operator] # times
        assert after["created_at"] == first["created_at"]


@pytest.mark.proof
@pytest.mark.parametrize("database_url", [pytest.param("postgresql", marks=pytest.mark.proof), "sqlite"], indirect=True)
def test_one_event_and_ten_thousand_travel_the_same_way(database: Database) -> None:
    """A batch beyond any limit on parameters, of which memberships alone have 80,000: 1,500 people in 500 groups, one of them in all."""
    everything = [f"g{number}" for number in range(500)]
    bodies = [
        event("user_created", f"u{number}", email=f"{number}@x.com", groups=named(everything[number % 500])) for number in range(1500)
    ]
    bodies.append(event("user_created", "all", groups=named(*everything, *(f"h{number}" for number in range(14_000)))))
    started = datetime.now(UTC)
    assert {receipt.outcome for receipt in receive(database, *bodies)} == {"processed"}
    found = state(database)
    assert [len(found[table]) for table in ("directory_users", "users", "groups", "memberships")] == [1501, 1501, 14_500, 16_000]
    assert all(row["created_at"] > started for row in user_rows(database))  # type: ignore[operator] # times
