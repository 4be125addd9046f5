"""What SECURITY.md claims and a table can hold: nothing is left out of it, and what it names is there."""

import re
from pathlib import Path

from provisioning.api.changes import UserNow
from provisioning.api.limits import BODY_SECONDS, OTHER_REQUESTS
from provisioning.db.runs import FINDINGS_LIVE
from provisioning.hooks.target import SECONDS
from provisioning.settings import VARIABLES, Scope
from provisioning.tokens import ALGORITHMS, GONE_AFTER, MAX_AGE

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading."""
    return TEXT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of its table, without the header."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]


def test_every_secret_and_every_scope_is_there() -> None:
    """With what whoever has it can do, and how it is replaced."""
    secrets = {name for name, variable in VARIABLES.items() if variable.secret}
    told = rows(section("What each secret opens"))
    assert secrets == {name for row in told for name in re.findall(r"`([A-Z_]+)`", row[0])}
    assert all(len(row) == 3 and all(row) for row in told)
    assert any(row[0].startswith("a hook's secret") and "rotate-secret" in row[2] for row in told)
    assert set(re.findall(r"scope `(\w+)`", section("Who may do what"))) == set(Scope)


def test_what_a_message_tells_of_a_person_is_said() -> None:
    """Each part of the user that goes with a change."""
    told = section("Where trust ends").partition("**The service → your application, by hooks.**")[2].partition("\n- ")[0]
    assert [name for name in UserNow.model_fields if name.replace("email", "e-mail").replace("_", " ") not in told] == []


def test_every_setting_named_exists() -> None:
    """Beside those of uvicorn and libpq."""
    named = set(re.findall(r"`((?:PROVISIONING|SCALEKIT)_[A-Z_]+|DATABASE_URL)`", TEXT))
    assert named <= VARIABLES.keys()


def test_the_numbers_are_those_of_the_code() -> None:
    """How long, and how many."""
    kept = {row[0]: row[1] for row in rows(section("What is kept, and for how long"))}
    for name in ("PROVISIONING_PAYLOAD_RETENTION_DAYS", "PROVISIONING_CHANGE_RETENTION_DAYS"):
        assert f"`{name}` ({VARIABLES[name].default})" in kept.values()
    assert f"{FINDINGS_LIVE.days} days old" in kept["what a run found, addresses among it"]
    assert f"after {BODY_SECONDS:g} s, on every route" in TEXT
    assert f"`PROVISIONING_MAX_WAITING_DELIVERIES` and {OTHER_REQUESTS:,} requests more" in TEXT
    assert f"for {MAX_AGE / 60:g} more minutes" in TEXT
    assert (GONE_AFTER, "for up to a day" in TEXT) == (86_400, True)
    assert f"only the status and `Retry-After` count, within {SECONDS:g} s" in re.sub(r"\s+", " ", section("Where trust ends"))
    assert " and ".join(ALGORITHMS) in section("OWASP ASVS 5.0, level 2")


def test_each_point_of_the_standard_is_there_once_and_in_order() -> None:
    """By its number, with what is missing and whose it is."""
    told = rows(section("OWASP ASVS 5.0, level 2"))
    points = [tuple(map(int, point.split("."))) for row in told for point in row[0].split(", ")]
    assert points == sorted(set(points))
    assert all(len(point) == 3 and 1 <= point[0] <= 17 for point in points)
    assert all(len(row) == 3 and all(row) for row in told)


def test_every_link_leads_somewhere() -> None:
    """To a heading of the README, as GitHub makes its anchors."""
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}
    linked = re.findall(r"\]\(README\.md#([^)]*)\)", TEXT)
    assert linked
    assert set(linked) <= anchors
    assert "(SECURITY.md)" in README
