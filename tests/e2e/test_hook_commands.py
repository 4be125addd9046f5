"""An operator's way with hooks: added, tried, rotated, retried and removed on the command line; told by `serve` and by `worker`."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from application import application
from factories import event, receive, user_of
from operators import SETTINGS, Command, Operator, free_port, until
from provisioning.api.changes import change_id, told
from provisioning.changes import ChangeType
from provisioning.cli.hooks import TYPES
from provisioning.db import hooks, lanes
from provisioning.db.models import hook_lanes
from provisioning.db.reading.changes import Place
from provisioning.db.session import Database
from provisioning.hooks import turn
from provisioning.hooks.message import new_secret

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)


def secret_of(stdout: str) -> str:
    """The secret that was printed."""
    return next(line.split()[1] for line in stdout.splitlines() if line.startswith("secret"))


def the_hook(database: Database) -> hooks.Hook:
    """The only one, as it stands."""
    with database.reading() as session:
        (hook,) = hooks.all_hooks(session)
        return hook


@on_sqlite
def test_a_hook_from_its_beginning_to_its_end(command: Command, database: Database, database_url: str) -> None:
    """Its secret is shown when it is made and never again."""
    with application() as app:
        made = command(
            f"hooks add {app.url}?key=1 --type user.deactivated,user.erased --organization org_1 --by Ada", DATABASE_URL=database_url
        )
        assert made.code == 0, made.stderr
        hook, secret = the_hook(database), secret_of(made.stdout)
        assert made.stdout.startswith(f"id      {hook.id}\n")
        assert (hook.types, hook.organization_id, hook.created_by) == (("user.deactivated", "user.erased"), "org_1", "Ada")
        app.secrets = [secret]
        assert (command(f"hooks test {hook.id}", DATABASE_URL=database_url).stdout, len(app.told)) == ("taken\n", 1)
        listed = command("hooks list --json", DATABASE_URL=database_url)
        (row,) = json.loads(listed.stdout)["data"]
        assert (row["id"], row["waiting"], row["dead_letters"], row["failing_since"]) == (hook.id, 0, 0, None)
        rotated = command(f"hooks rotate-secret {hook.id} --keep 1h", DATABASE_URL=database_url)
        app.secrets = [secret, secret_of(rotated.stdout)]
        assert command(f"hooks test {hook.id}", DATABASE_URL=database_url).code == 0
        assert not any(each in done.stdout + done.stderr for done in (listed,) for each in app.secrets)
        assert rotated.stderr.endswith("Messages are signed with the one before, too, for 1h.\n")
        ended = command(f"hooks rotate-secret {hook.id} --keep 0m", DATABASE_URL=database_url)
        assert ended.stderr.endswith("The one before signs nothing any more.\n")
        app.secrets = [secret_of(ended.stdout)]
        assert the_hook(database).signs_with(datetime.now(UTC)) == app.secrets
        app.answers = lambda _: 418
        refused = command(f"hooks test {hook.id}", DATABASE_URL=database_url)
        assert (refused.code, refused.stderr) == (1, "not taken: HTTP 418\n")
    gone = command(f"hooks remove {hook.id}", DATABASE_URL=database_url)
    assert (gone.code, gone.stdout) == (0, f"removed {hook.id}\n")
    again = command(f"hooks remove {hook.id}", DATABASE_URL=database_url)
    assert (again.code, again.stderr.count("\n")) == (1, 1)


@on_sqlite
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hooks add ftp://x.example/", "Messages go over https"),
        ("hooks add http://app.example.com/", "Messages go over https"),
        ("hooks add https://10.0.0.1/", "PROVISIONING_HOOK_NETWORKS"),
        ("hooks add https://2130706433/", "PROVISIONING_HOOK_NETWORKS"),
        ("hooks add https://u:p@app.example.com/", "a user, a password"),
        (f"hooks add https://app.example.com/{'x' * 2000}", "no longer than 2,000 characters"),
        ("hooks add http://127.0.0.1:1/ --type user.gone", "user.gone is no type of change"),
        ("hooks add http://127.0.0.1:1/ --organization orgé", "no organization's id"),
        ("hooks add http://127.0.0.1:1/ --secret-file nowhere", "cannot be read"),
        ("hooks add http://127.0.0.1:1/ --secret-file short", "too short"),
        ("hooks add http://127.0.0.1:1/ --secret-file none", "one secret"),
        ("hooks rotate-secret hook_1 --keep soon", "--keep is a duration"),
        ("hooks rotate-secret hook_1", "no such hook"),
        ("hooks test hook_1", "no such hook"),
        ("hooks dead-letters hook_1", "no such hook"),
        ("hooks retry hook_1 --all", "no such hook"),
        ("hooks retry hook_1", "Say which"),
        ("hooks retry hook_1 chg_1", "no change's id"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(command: Command, database_url: str, tmp_path: Path, line: str, words: str) -> None:
    """And what a good one looks like; nothing is made."""
    (tmp_path / "short").write_text("whsec_c2VjcmV0")
    (tmp_path / "none").write_text("")
    done = command(line, DATABASE_URL=database_url)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert words in done.stderr
    assert "c2VjcmV0" not in done.stderr


@on_sqlite
def test_the_same_hook_is_not_made_twice_by_mistake(command: Command, database: Database, database_url: str) -> None:
    """It would be told of everything twice; of other types, of another organization or with --again it is another one."""
    receive(database, event("user_created", "u", organization_id="org_1"))
    add = "hooks add http://127.0.0.1:1/h --type user.erased,user.deactivated"
    assert command(add, DATABASE_URL=database_url).code == 0
    first = the_hook(database)
    refused = command(add.replace("user.erased,user.deactivated", "user.deactivated --type user.erased"), DATABASE_URL=database_url)
    assert (refused.code, refused.stdout, first.id in refused.stderr, "--again" in refused.stderr) == (1, "", True, True)
    unheard = "Nothing is known of {} yet"
    for more, words in (("--again", ""), ("--type user.updated", ""), ("--organization org_1", ""), ("--organization org_9", "org_9")):
        done = command(f"{add} {more}", DATABASE_URL=database_url)
        assert (done.code, unheard.format(words) in done.stderr, "Nothing is known" in done.stderr) == (0, bool(words), bool(words))


def test_the_help_names_every_type_of_change() -> None:
    """Also one that is new."""
    assert sorted(ChangeType) == TYPES.split(", ")


@on_sqlite
def test_a_secret_of_the_applications_own(command: Command, database: Database, database_url: str, tmp_path: Path) -> None:
    """From a file, so that both may have it from one place; it is not printed."""
    secret = new_secret()
    (tmp_path / "secret").write_text(f"{secret}\n")
    done = command("hooks add http://127.0.0.1:1/h --secret-file secret", DATABASE_URL=database_url)
    assert done.code == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    assert the_hook(database).secrets[0].text == secret


@on_sqlite
def test_a_dead_letter_is_listed_and_told_again(command: Command, database: Database, database_url: str) -> None:
    """By its id or with all the others; what is not there cannot be told."""
    receive(database, event("user_created", "u", email="ada@x.com"))
    assert command("hooks add http://127.0.0.1:1/h --from-start", DATABASE_URL=database_url).code == 0
    hook, now = the_hook(database), datetime.now(UTC)
    claimed = turn.take(database, told, [], {}, claims=True).errands[0]
    with database.writing() as session:
        session.execute(update(hook_lanes).values(failing_since=now - timedelta(days=2)))
        old = replace(claimed.messages[0].change, recorded_at=now - timedelta(days=2))
        failed = lanes.Progress(claimed.lane, claimed.lane.position, failed=old, error="HTTP 500")
        (dead,) = lanes.settle(session, [failed], now)
    change = change_id(Place(dead.position, dead.mark))
    listed = command("hooks dead-letters", DATABASE_URL=database_url)
    assert listed.rows == [[hook.id, change, "user.created", "org_1", user_of(database, "u"), dead.died_at.isoformat(), "1", "HTTP 500"]]
    assert "ada" not in listed.stdout
    nothing = command(f"hooks retry {hook.id} chg_0000000000009999-000000", DATABASE_URL=database_url)
    assert (nothing.code, nothing.stdout) == (1, "")
    done = command(f"hooks retry {hook.id} {change}", DATABASE_URL=database_url)
    assert (done.code, done.stdout) == (0, "1 told again, with what followed\n")
    with database.reading() as session:
        assert (lanes.waiting(session), lanes.given_up(session)) == ({hook.id: 1}, {})


@on_sqlite
def test_serve_and_worker_tell(database: Database, database_url: str, tmp_path: Path) -> None:
    """Whichever runs; and with the end of either nothing is lost that the other does not tell."""
    operator = Operator(tmp_path, {**SETTINGS, "DATABASE_URL": database_url})
    with application() as app:
        made = operator.run("hooks", "add", app.url, "--from-start")
        app.secrets = [secret_of(made.stdout)]
        with operator.started("serve", port=free_port()) as serving:
            receive(database, event("user_created", "u1"))
            app.wait(lambda: len(app.told) == 1)
            assert serving.end() == 0
        receive(database, event("user_created", "u2"))
        with (tmp_path / "out").open("w") as out, (tmp_path / "in").open("w+") as given:
            working = operator.start(["worker"], [given, out, out])
            try:
                app.wait(lambda: len(app.told) == 2)
            finally:
                working.terminate() if hasattr(working, "terminate") else working.kill()
                until(lambda: working.wait() is not None)
