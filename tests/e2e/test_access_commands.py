"""What an operator is told of somebody's access and history: in words, by whatever name is known."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from factories import delivery, event, one_by_one, receive, roles, show_again, user_of
from operators import Command, Done
from provisioning import application_ids
from provisioning.db.models import group_roles, groups, local_roles, role_grants, users
from provisioning.db.session import Database
from provisioning.inbox import Inbox
from provisioning.merge import Key
from rows import NOW, ORGANIZATION, put
from service import bearer, running

# What the commands read is asked of both databases in test_access.py; what they say of it is of this one, and of both among the proofs.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)

JANE: dict[str, Any] = {"email": "jane@x.com", "name": "Jane Doe", "dp_id": "up-1", "active": True}
SALES: dict[str, Any] = {"groups": [{"id": "grp_1", "name": "Sales"}], "roles": roles("member")}
HOSTILE = "<script>\x1b[2J\x9b31m\u202e\n"


def told(kind: str, id_: str, at: int = 0, **data: Any) -> bytes:
    """An event with this data."""
    return event(kind, id_, at=at, **data)


def give(database: Database, user_id: str) -> None:
    """Map the group to a role, grant another, and have the user show both."""
    put(database, group_roles, {"group_id": "grp_1", "role": "editor", "mapped_by": "mapper", "mapped_at": NOW})
    put(database, local_roles, {"user_id": user_id, "role": "auditor", "granted_by": "granter", "granted_at": NOW})
    show_again(database, user_id)


def lines(done: Done, user_id: str) -> list[str]:
    """What was printed, without the times here and our id."""
    assert (done.code, done.stderr) == (0, "")
    return re.sub(r"(?!2025-06-15)\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "<time>", done.stdout).replace(user_id, "<id>").splitlines()


def test_explain_says_what_everything_comes_from(command: Command, database: Database, database_url: str) -> None:
    """Which directory user, in which directory; of each group through whom; of each role because of what; and what does not count."""
    receive(database, told("directory_enabled", "dir_1"), told("directory_enabled", "dir_2"))
    one_by_one(
        database,
        [
            told("user_created", "du_1", directory_id="dir_1", **JANE, **SALES),
            told("user_created", "du_2", directory_id="dir_2", **JANE),
            told("directory_disabled", "dir_2", at=2),
        ],
    )
    user_id = user_of(database, "du_1")
    give(database, user_id)
    with database.writing() as session:
        session.execute(update(role_grants).where(role_grants.c.role == "member").values(since=None))
    assert lines(command(f"explain {ORGANIZATION} jane@x.com", DATABASE_URL=database_url), user_id) == [
        "Jane Doe <jane@x.com> (<id>) has access, since <time>.",
        "",
        "Why",
        "  du_1 is active in its directory dir_1, as it said on 2025-06-15 15:06:40 UTC.",
        "  du_2 does not count: its directory dir_2 is disabled, as it said on 2025-06-15 15:06:42 UTC.",
        "",
        "Groups",
        "  Sales (grp_1), since <time>, through du_1",
        "",
        "Roles",
        "  auditor",
        "    because it was granted here by granter, since <time>",
        "  editor",
        "    because the group Sales (grp_1) is mapped to it here by mapper, since <time>",
        "  member",
        "    because its directory gives it to du_1, since before that was kept",
    ]


def test_explain_says_why_not_and_what_would_give_it_back(command: Command, database: Database, database_url: str) -> None:
    """Somebody suspended in one directory, deleted from another, and active in a third that is disabled."""
    receive(database, *(told("directory_enabled", f"dir_{number}") for number in (2, 3)))
    one_by_one(
        database,
        [
            told("user_created", "du_1", **JANE, **SALES),
            told("user_created", "du_2", directory_id="dir_2", **JANE),
            told("user_created", "du_3", directory_id="dir_3", **JANE),
        ],
    )
    user_id = user_of(database, "du_1")
    give(database, user_id)
    ends = [
        told("user_updated", "du_1", at=1, active=False),
        told("user_deleted", "du_2", at=2),
        told("directory_disabled", "dir_3", at=3),
    ]
    one_by_one(database, ends)
    assert lines(command(f"explain {ORGANIZATION} {user_id}", DATABASE_URL=database_url), user_id) == [
        "Jane Doe <jane@x.com> (<id>) has no access, since <time>.",
        "",
        "Why not",
        "  du_1 is suspended in its directory, as it said on 2025-06-15 15:06:41 UTC.",
        "  du_2 is deleted in its directory dir_2, as it said on 2025-06-15 15:06:42 UTC.",
        "  du_3 does not count: its directory dir_3 is disabled, as it said on 2025-06-15 15:06:43 UTC.",
        "",
        "What would give it back",
        "  That its directory says that du_1 is active again.",
        "  That the same person is in its directory dir_2 again: as du_2, or with the same id upstream.",
        "  That its directory dir_3 is enabled again: du_3 is active in it.",
        "",
        "Granted here, and back with the access",
        "  auditor, by granter, since <time>",
    ]


def test_explain_says_that_a_disabled_directory_freezes_access(command: Command, database: Database, database_url: str) -> None:
    """Of whoever counts although nothing is heard of it; and that it has to be enabled again before it can give access back."""
    receive(database, told("directory_enabled", "dir_1"))
    receive(database, told("user_created", "du_1", directory_id="dir_1", **JANE))
    user_id = user_of(database, "du_1")
    frozen = (
        "That directory has been disabled since 2025-06-15 15:06:43 UTC: nothing is heard from it, and what it said last stays.",
        "That directory has to be enabled again first.",
    )

    def explained() -> list[str]:
        return lines(command(f"explain {ORGANIZATION} du_1", DATABASE_URL=database_url), user_id)[2:]

    receive(database, told("directory_disabled", "dir_1", at=3))
    assert explained()[:2] == ["Why", f"  du_1 is active in its directory dir_1, as it said on 2025-06-15 15:06:40 UTC. {frozen[0]}"]
    receive(database, told("user_updated", "du_1", at=1, active=False))
    assert explained() == [
        "Why not",
        f"  du_1 is suspended in its directory dir_1, as it said on 2025-06-15 15:06:41 UTC. {frozen[0]}",
        "",
        "What would give it back",
        f"  That its directory dir_1 says that du_1 is active again. {frozen[1]}",
    ]
    receive(database, told("user_deleted", "du_1", at=2))
    assert explained() == [
        "Why not",
        f"  du_1 is deleted in its directory dir_1, as it said on 2025-06-15 15:06:42 UTC. {frozen[0]}",
        "",
        "What would give it back",
        f"  That the same person is in its directory dir_1 again: as du_1, or with the same id upstream. {frozen[1]}",
    ]


def test_an_account_that_nobody_is_behind_is_explained(command: Command, database: Database, database_url: str) -> None:
    """As one that waits for its directory."""
    put(database, users, {"id": "usr_1", "active": False, "deactivated_at": NOW})
    assert lines(command(f"explain {ORGANIZATION} usr_1", DATABASE_URL=database_url), "usr_0") == [
        "usr_1 has no access, since <time>.",
        "",
        "Why not",
        "  No directory user is behind it.",
        "",
        "What would give it back",
        "  That a directory user joins it: one with the same e-mail.",
    ]


def test_history_says_when_what_and_by_what(command: Command, database: Database, database_url: str) -> None:
    """With groups and people by their names: of a user, and of a group by its id or its name."""
    inbox = Inbox(database)
    inbox.receive([delivery(told("user_created", "du_1", department={"a": 0}, **JANE, **SALES), "msg_1")])
    user_id = user_of(database, "du_1")
    give(database, user_id)
    ends: dict[str, Any] = {"name": "Jane Roe", "department": {"a": 1}, "groups": None, "active": False, "roles": None}
    inbox.receive([delivery(told("user_updated", "du_1", at=1, **ends), "msg_2")])
    inbox.receive([delivery(told("group_updated", "grp_1", at=2, display_name="Selling"), "msg_3")])
    inbox.receive([delivery(told("group_deleted", "grp_1", at=3), "msg_4")])
    done = command(f"history {ORGANIZATION} du_1", DATABASE_URL=database_url)
    here, there = "2025-06-15T15:06:40Z", "2025-06-15T15:06:41Z"
    assert (done.code, done.stderr, done.stdout.splitlines()[0]) == (0, "", "happened\trecorded\twhat\tby")
    assert [[happened, what, by] for happened, _, what, by in done.rows] == [
        [there, "lost access", "delivery msg_2"],
        [there, "left Selling (grp_1)", "delivery msg_2"],
        [there, "lost the role member", "delivery msg_2"],
        [there, "lost the role editor", "delivery msg_2"],
        [there, "lost the role auditor", "delivery msg_2"],
        [there, 'changed: name: Jane Doe → Jane Roe; department: {"a": 0} → {"a": 1}', "delivery msg_2"],
        ["-", "got the role editor", "operator ops"],
        ["-", "got the role auditor", "operator ops"],
        [here, "got the role member", "delivery msg_1"],
        [here, "entered Selling (grp_1)", "delivery msg_1"],
        [here, "came, with access", "delivery msg_1"],
    ]
    for name in ("grp_1", "Selling"):
        group = command(f"history {ORGANIZATION} {name} --limit 3", DATABASE_URL=database_url)
        assert [row[2:] for row in group.rows] == [
            ["Selling (grp_1) was deleted", "delivery msg_4"],
            ["Selling (grp_1) changed: name: Sales → Selling", "delivery msg_3"],
            [f"Jane Roe <jane@x.com> ({user_id}) left Selling (grp_1)", "delivery msg_2"],
        ]
        assert "there is more" in group.stderr


def test_json_is_what_the_api_answers(command: Command, database: Database, database_url: str) -> None:
    """Of access, and of both histories."""
    receive(database, told("user_created", "du_1", **JANE, **SALES))
    user_id = user_of(database, "du_1")
    here = f"/v1/organizations/{ORGANIZATION}"
    asked = {
        f"explain {ORGANIZATION} du_1 --json": f"{here}/users/{user_id}/access",
        f"history {ORGANIZATION} du_1 --json": f"{here}/users/{user_id}/history",
        f"history {ORGANIZATION} Sales --limit 1 --json": f"{here}/groups/grp_1/history?limit=1",
    }
    printed = [json.loads(command(line, DATABASE_URL=database_url).stdout) for line in asked]
    with running(database_url) as client:
        assert printed == [client.get(path, headers=bearer()).raise_for_status().json() for path in asked.values()]


@pytest.mark.parametrize("name", ["explain", "history"])
def test_whoever_is_meant_is_found_by_any_name(command: Command, database: Database, database_url: str, name: str) -> None:
    """Our id, the directory's, and the e-mail however it is written; of several with one e-mail, the ids are said."""
    receive(database, told("user_created", "du_1", **JANE))
    user_id = user_of(database, "du_1")
    same = {command(f"{name} {ORGANIZATION} {given}", DATABASE_URL=database_url).stdout for given in (user_id, "du_1", "JANE@x.com")}
    assert len(same) == 1
    receive(database, told("user_deleted", "du_1", at=1))
    receive(database, told("user_created", "du_2", at=2, email="Jane@X.com", name="Jane Roe"))
    for option in ("", " --json"):
        several = command(f"{name} {ORGANIZATION} jane@x.com{option}", DATABASE_URL=database_url)
        assert (several.code, several.stdout) == (1, "")
        told_of = f"{user_id} (inactive), {user_of(database, 'du_2')}"
        assert several.stderr == f"provisioning: Several users have this e-mail: give one's id, of {told_of}.\n"
    for given in ("nobody@x.com", "x" * 600):
        done = command(f"{name} {ORGANIZATION} {given}", DATABASE_URL=database_url)
        assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "no such user" in done.stderr


@pytest.mark.parametrize("name", ["explain", "history"])
def test_an_organization_of_which_nothing_is_known_is_said_to_be_so(
    command: Command, database: Database, database_url: str, name: str
) -> None:
    """Whoever mistyped it need not look for the person."""
    receive(database, told("user_created", "du_1", **JANE))
    done = command(f"{name} org_2 du_1", DATABASE_URL=database_url)
    assert (done.code, done.stdout, done.stderr) == (1, "", "provisioning: Nothing is known of this organization.\n")


@pytest.mark.parametrize("option", ["", " --json"])
def test_groups_of_one_name_are_named_by_their_ids(command: Command, database: Database, database_url: str, option: str) -> None:
    """As a group is that was deleted and made anew."""
    hostile = f"grp{HOSTILE}"
    put(database, groups, {"id": "grp_1", "name": "Sales", "deleted": True}, {"id": hostile, "name": "Sales"}, {"id": "grp_3", "name": "S"})
    done = command(f"history {ORGANIZATION} Sales{option}", DATABASE_URL=database_url)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "Several groups have this name: give one's id, of " in done.stderr
    assert "grp_1 (deleted)" in done.stderr
    assert "grp<script>\\x1b[2J\\x9b31m\\u202e\\n" in done.stderr
    assert "grp_3" not in done.stderr


def test_nobodys_name_steers_a_terminal(command: Command, database: Database, database_url: str) -> None:
    """Whatever a directory calls people, groups, roles and directories is shown spelt out, each on its line."""
    hostile: dict[str, Any] = {
        "email": f"j@x.com{HOSTILE}",
        "name": HOSTILE,
        "groups": [{"id": f"grp{HOSTILE}", "name": HOSTILE}],
        "roles": roles(HOSTILE),
        "directory_id": HOSTILE,
        "department": {HOSTILE: HOSTILE},
    }
    Inbox(database).receive([delivery(told("user_created", "du_1", **hostile), f"msg_{HOSTILE}")])
    Inbox(database).receive([delivery(told("user_updated", "du_1", at=1, name="x", department=HOSTILE, title=[HOSTILE]), "msg_2")])
    for line in (f"explain {ORGANIZATION} du_1", f"history {ORGANIZATION} du_1"):
        done = command(line, DATABASE_URL=database_url)
        assert (done.code, done.stderr) == (0, "")
        assert "<script>\\x1b[2J\\x9b31m\\u202e\\n" in done.stdout
        assert done.stdout.replace("\n", "").replace("\t", "").isprintable()
        assert len(done.stdout.splitlines()) == (11 if line.startswith("explain") else 5)


def test_a_persons_data_is_handed_over_to_its_owner_alone(command: Command, database: Database, database_url: str, tmp_path: Path) -> None:
    """On standard output, or in a new file that nobody else may read; never over another one."""
    receive(database, told("user_created", "du_1", **JANE))
    told_here = command("export jane@x.com", DATABASE_URL=database_url)
    path = tmp_path / "jane.json"
    written = command(f"export du_1 --output {path}", DATABASE_URL=database_url)
    assert (told_here.code, written.code, written.stdout) == (0, 0, "")
    both = [json.loads(told_here.stdout), json.loads(path.read_text())]
    assert {**both[0], "exported_at": ""} == {**both[1], "exported_at": ""}
    assert both[0]["users"][0]["email"] == "jane@x.com"
    assert path.stat().st_mode & 0o777 == 0o600
    again = command(f"export du_1 --output {path}", DATABASE_URL=database_url)
    assert (again.code, "File exists" in again.stderr) == (1, True)


def test_nobody_is_erased_by_mistake(command: Command, database: Database, database_url: str) -> None:
    """Without a terminal it takes --yes; who is meant by several is asked for; nobody is said to be nobody."""
    for organization_id in (ORGANIZATION, "org_2"):
        receive(database, event("user_created", "du_1", organization_id=organization_id, **JANE))
    for line, words in (
        (f"erase jane@x.com --organization {ORGANIZATION}", "say --yes"),
        ("erase jane@x.com --yes", "org_2"),
        ("erase nobody@x.com --yes", "nobody with this"),
        ("erase --lift du_1", "Nobody was erased"),
    ):
        done = command(line, DATABASE_URL=database_url)
        assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert words in done.stderr
    assert len(json.loads(command("export du_1 --organization org_2", DATABASE_URL=database_url).stdout)["users"]) == 1


def test_a_person_is_erased_and_that_is_taken_back(command: Command, database: Database, database_url: str) -> None:
    """What was erased is counted, and the way back is said; both are in the log with a name."""
    receive(database, told("user_created", "du_1", **JANE, **SALES))
    user_id = user_of(database, "du_1")
    done = command("erase jane@x.com --yes --by Ada", DATABASE_URL=database_url)
    assert done.code == 0
    assert "     1  account\n" in done.stdout
    assert f"erase --lift {user_id}\n" in done.stdout
    assert ("erased" in done.stderr, "Ada" in done.stderr, "jane" in done.stderr + done.stdout) == (True, True, False)
    for line in (f"explain {ORGANIZATION} du_1", f"history {ORGANIZATION} {user_id}", f"erase {user_id} --yes", "export du_1"):
        gone = command(line, DATABASE_URL=database_url)
        assert (gone.code, "was erased on" in gone.stderr, "by Ada" in gone.stderr) == (1, True, True), line
    lifted = command(f"erase --lift {user_id}", DATABASE_URL=database_url)
    assert (lifted.code, f"reconcile {ORGANIZATION}" in lifted.stdout) == (0, True)
    assert [receipt.outcome for receipt in receive(database, told("user_updated", "du_1", at=3, **JANE))] == ["processed"]


def test_failed_deliveries_are_found_replayed_and_dismissed(command: Command, database: Database, database_url: str) -> None:
    """By what became of them, when they came and whom they are about; a wrong time or no filter is said."""
    receive(database, told("user_created", "du_1", **JANE))
    Inbox(database).receive([delivery(b"{", "msg_dead")])
    listed = command("deliveries list --outcome dead_lettered --not-dismissed --since 1h", DATABASE_URL=database_url)
    assert [row[1:3] for row in listed.rows] == [["msg_dead", "dead_lettered"]]
    assert len(command("deliveries list --about du_1", DATABASE_URL=database_url).rows) == 1
    assert command("deliveries list --until 2020-01-01", DATABASE_URL=database_url).rows == []
    assert len(command("deliveries list --type user_created", DATABASE_URL=database_url).rows) == 1
    again = command("deliveries replay --outcome dead_lettered", DATABASE_URL=database_url)
    assert (again.code, [row[:2] for row in again.rows]) == (1, [["msg_dead", "dead_lettered"]])
    assert "1 replayed, 1 of them bad again" in again.stderr
    fine = command(f"deliveries replay --organization {ORGANIZATION}", DATABASE_URL=database_url)
    assert (fine.code, "1 replayed, 0 of them bad again" in fine.stderr) == (0, True)
    dismissed = command("deliveries dismiss msg_dead --reason Known --by Ada", DATABASE_URL=database_url)
    assert (dismissed.code, dismissed.stdout) == (0, "dismissed msg_dead\n")
    assert "was before" in command("deliveries dismiss msg_dead --reason Again", DATABASE_URL=database_url).stdout
    assert "dismissed by Ada: Known" in command("deliveries list --dismissed", DATABASE_URL=database_url).stdout
    shown = command("deliveries list --about du_1 --json", DATABASE_URL=database_url).stdout
    whole = command(f"deliveries show {json.loads(shown)['data'][0]['webhook_id']}", DATABASE_URL=database_url).stdout
    assert re.search(r"^changed +Jane Doe <jane@x.com> \(usr_\w+\) came, with access$", whole, re.MULTILINE)
    for line, words in (
        ("deliveries replay", "Say which"),
        ("deliveries list --since yesterday", "--since is a time"),
        ("deliveries dismiss msg_dead --reason=", "--reason"),
        ("deliveries dismiss msg_none --reason x", "no delivery msg_none"),
    ):
        done = command(line, DATABASE_URL=database_url)
        assert (done.code, words in done.stderr) == (1, True), line


def test_explain_says_what_the_application_calls_somebody(command: Command, database: Database, database_url: str) -> None:
    """And understands it."""
    receive(database, event("user_created", "ann"))
    application_ids.call(database, Key(ORGANIZATION, user_of(database, "ann")), "4\u202e2", "ops")
    done = command(f"explain {ORGANIZATION} 4\u202e2", DATABASE_URL=database_url)
    assert done.stdout.splitlines()[1] == "The application calls it 4\\u202e2."
