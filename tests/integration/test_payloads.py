"""The captured event and the documented ones, as they are, do what a reader expects."""

from factories import delivery_rows, one_by_one, payload, state, user_rows
from provisioning.db.session import Database


def test_the_captured_event_makes_the_person(database: Database) -> None:
    assert one_by_one(database, [payload("organization.directory.user_created.okta")]) == ["processed"]
    (user,) = user_rows(database, "org_118460706403795901")
    assert (user["email"], user["name"], user["active"]) == ("jane.doe@example.com", "Jane Doe", True)
    assert user["preferred_username"] == "jane.doe@example.com"
    assert state(database, "org_118460706403795901")["role_grants"] == [
        (("diruser_118462867007293155",), "member", "diruser_118462867007293155")
    ]
    assert state(database)["memberships"] == []


def test_the_documented_events_one_after_another(database: Database) -> None:
    """They share an event id and a time, and the deletion names another organization inside its data: the envelope decides."""
    names = ("user_created", "user_updated", "user_deleted", "group_created", "group_updated", "group_deleted")
    outcomes = one_by_one(database, [payload(f"organization.directory.{name}") for name in names])
    outcomes += one_by_one(database, [payload(f"organization.directory_{name}") for name in ("enabled", "disabled")])
    assert outcomes == ["processed"] * 8
    created, updated = user_rows(database, "org_53879494091473415")
    assert (created["email"], created["active"]) == ("flavio@runolfsdottir.co.duk", True)
    assert (updated["email"], updated["name"], updated["active"]) == ("john.doe@example.com", "John Doe", False)
    assert {row["outcome"] for row in delivery_rows(database).values()} == {"processed"}
    found = state(database)
    assert {(row[1], row[5]) for row in found["groups"]} == {
        ("dirgroup_12312312312312", False),
        ("dirgroup_38862741498233423", False),
        ("dirgroup_40072007005503806", True),
    }
    assert {(row[1], row[4]) for row in found["directories"]} == {("dir_53879621145330183", False), ("dir_55135622825771522", True)}
    assert found["memberships"] == [("org_53879494091473415", "diruser_53891546960887884", "dirgroup_12312312312312", True)]
