"""The application's own accounts, brought in as an operator does it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from factories import event, one_by_one, receive, user_of
from operators import SECONDS, SETTINGS, Command, Done, Operator, until
from provisioning import application_ids
from provisioning.db import organizations
from provisioning.db.models import application_ids as table
from provisioning.db.reading.users import UserFilter, page_of_users
from provisioning.db.session import Database
from provisioning.merge import Key
from rows import ORGANIZATION

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

HEADER = "organization,email,application_id\n"
FILE = f"{HEADER}org_1,ann@x.com,42\norg_1,new@x.com,43\norg_1,two@x.com,44\norg_1,bob,45\norg_1,eve@x.com,46\n"
Run = Callable[..., Done]


@pytest.fixture
def run(command: Command, database_url: str) -> Run:
    """Runs `import-users` with these options, on a file from standard input."""
    return lambda line, stdin=FILE, **more: command(f"import-users {line} -", stdin=stdin, DATABASE_URL=database_url, **more)


@pytest.fixture
def two(database: Database) -> list[str]:
    """Ann, and Eve, whom the application calls otherwise; returns the ids of two users with the e-mail of the third account."""
    receive(database, *(event("user_created", each, email=f"{each}@x.com") for each in ("ann", "eve")))
    application_ids.call(database, Key(ORGANIZATION, user_of(database, "eve")), "eve", "ops")
    receive(database, event("user_created", "old", email="two@x.com", dp_id="1"))
    one_by_one(database, [event("user_deleted", "old", at=1), event("user_created", "new", at=2, email="two@x.com", dp_id="2")])
    return sorted(user_of(database, each) for each in ("old", "new"))


def ids(database: Database) -> set[str | None]:
    """What the application calls its users."""
    with database.reading() as session:
        return {user.application_id for user in page_of_users(session, ORGANIZATION, UserFilter(), after="", limit=99)}


def test_it_says_what_it_would_do_and_with_apply_does_it(run: Run, two: list[str], database: Database) -> None:
    """A dry run changes nothing and lists the same; what is left is exit code 2, and who they are is in neither."""
    eve = user_of(database, "eve")
    dry, done, again = run(""), run("--apply"), run("--apply")
    assert [dry.code, done.code, again.code] == [2, 2, 2]
    counts = ["1\tlinked to the user with the same e-mail", "1\tmade, for somebody to join", "0\tas they were", "3\tleft"]
    assert dry.stdout.splitlines() == [
        "accounts\twould be",
        *counts,
        "",
        "line\twhy\torganization\tapplication id\tusers",
        f"4\tseveral users have this e-mail\torg_1\t44\t{', '.join(two)}",
        "5\tAn e-mail is one address alone: with an @ inside, and without white space, quotes, <, > or ;.\t-\t-\t-",
        f"6\tthe user with this e-mail has another application id\torg_1\t46\t{eve}",
    ]
    assert done.stdout.splitlines() == ["accounts\tare", *dry.stdout.splitlines()[1:]]
    assert [line.split("\t")[0] for line in again.stdout.splitlines()[1:5]] == ["0", "0", "2", "3"]
    assert "dry run" in dry.stderr
    assert "dry run" not in done.stderr
    assert ids(database) == {"42", "43", "eve", None}
    assert "x.com" not in "".join(each.stdout + each.stderr for each in (dry, done, again))


def test_an_organization_of_which_nothing_is_known_is_made_only_when_told(run: Run, database: Database) -> None:
    """It may be misspelt: its lines are left, and the words name the option. A dry run says the same and changes nothing."""
    file = f"{HEADER}org_1,ann@x.com,42\n"
    for option in ("", "--apply"):
        done = run(option, file)
        assert (done.code, ids(database)) == (2, set())
        assert done.stdout.splitlines()[-1] == "2\tnothing is known of this organization\torg_1\t42\t-"
        assert "Nothing is known of org_1: spelt right? --new-organizations" in done.stderr
    dry = run("--new-organizations", file)
    assert (dry.code, ids(database)) == (0, set())
    assert "Nothing was known yet of org_1" in dry.stderr
    with database.reading() as session:
        assert organizations.unknown(session, [ORGANIZATION]) == {ORGANIZATION}
    assert "never" not in dry.stderr
    never = run("--apply --new-organizations", file, PROVISIONING_LINK_USERS_BY_EMAIL="never")
    assert (never.code, ids(database)) == (0, {"42"})
    assert "PROVISIONING_LINK_USERS_BY_EMAIL=never" in never.stderr
    assert run("--apply", HEADER).code == 0
    assert run("--apply", file).code == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_interrupted_one_says_how_far_it_is(tmp_path: Path, database: Database, database_url: str) -> None:
    """And run again it does the rest."""
    many = 2500
    (tmp_path / "accounts.csv").write_text(HEADER + "".join(f"org_1,p{number}@x.com,{number}\n" for number in range(many)))
    operator, line = Operator(tmp_path, {**SETTINGS, "DATABASE_URL": database_url}), "import-users accounts.csv --apply --new-organizations"

    def some() -> int:
        with database.reading() as session:
            return session.execute(select(func.count()).select_from(table)).scalar_one()

    with (tmp_path / "printed").open("w+") as stdout, (tmp_path / "said").open("w+") as stderr, open(os.devnull) as nothing:
        process = operator.start(line.split(), [nothing, stdout, stderr])
        until(some)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    said = (tmp_path / "said").read_text()
    done = re.search(rf"at least (\d+) of {many} accounts are done", said)
    assert done, said
    assert int(done[1]) <= some() < many
    assert ((tmp_path / "printed").read_text(), said.count("\n")) == ("", 1)
    assert operator.run(*line.split()).returncode == 0
    assert some() == many


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_programs_are_told_in_json(run: Run, two: list[str], database: Database) -> None:
    """The same."""
    told = json.loads(run("--json").stdout)
    left = told.pop("left")
    assert told == {"dry_run": True, "counts": {"linked": 1, "made": 1, "unchanged": 0}, "unknown_organizations": []}
    assert left[0] == {
        "line": 4,
        "reason": "ambiguous",
        "why": "several users have this e-mail",
        "organization_id": "org_1",
        "application_id": "44",
        "user_ids": two,
    }
    assert left[1] == {
        "line": 5,
        "reason": "unread",
        "why": "An e-mail is one address alone: with an @ inside, and without white space, quotes, <, > or ;.",
        "organization_id": None,
        "application_id": None,
        "user_ids": [],
    }


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
@pytest.mark.parametrize(
    ("line", "stdin", "words"),
    [
        ("nowhere.csv", "", "Cannot read nowhere.csv: No such file or directory."),
        ("-", "", "lacks organization, email, application_id"),
        ("- --apply", "organization,email\n", "lacks application_id"),
    ],
)
def test_a_file_that_is_none_is_said_in_one_line(command: Command, database_url: str, line: str, stdin: str, words: str) -> None:
    """Exit code 1."""
    done = command(f"import-users {line}", stdin=stdin, DATABASE_URL=database_url)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert words in done.stderr


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)
def test_an_organization_is_one(run: Run) -> None:
    """What cannot be one's id is a line that is left."""
    done = run("", f"{HEADER}org 1,ann@x.com,42\n")
    assert (done.code, done.rows[-1][:2]) == (
        2,
        ["2", "That is no organization's id: it looks like org_83543878963298576, or ext: and your own id of it."],
    )


def test_organizations_may_be_named_as_the_application_does(run: Run, database: Database) -> None:
    """One that cannot be found is its own lines' fault."""
    with database.writing() as session:
        organizations.set_external_id(session, ORGANIZATION, "acme", datetime.now(UTC))
    done = run("--apply", f"{HEADER}ext:acme,ann@x.com,42\next:other,bob@x.com,43\next:other,eve@x.com,44\n")
    assert (done.code, ids(database)) == (2, {"42"})
    assert [line.split("\t")[0] for line in done.stdout.splitlines()[-2:]] == ["3", "4"]


def test_organizations_are_asked_for_together(run: Run, emulator: Emulator, database: Database) -> None:
    """By one client of Scalekit's, however many a file names; a dry run keeps nothing of what it says, and neither has them as unknown."""
    named = [f"{database.dialect}-{number}" for number in range(3)]
    made = [emulator.structure.add_organization(each, external_id=each).id for each in named]
    file = HEADER + "".join(f"ext:{each},ann@x.com,{number}\n" for number, each in enumerate(named))
    for option, kept in (("", []), ("--apply", sorted(made))):
        issued = emulator.tokens.issued
        done = run(option, file, **emulator.settings())
        assert (done.code, done.rows[1][0]) == (0, "3")
        assert "known" not in done.stderr
        assert emulator.tokens.issued == issued + 1
        with database.reading() as session:
            assert sorted(set(made) - organizations.unknown(session, made)) == kept
