"""What keeps nobody out is refused where there is somebody to keep out."""

import re
from pathlib import Path

import pytest

from provisioning.cli import local
from provisioning.cli.production import refuse_demo
from provisioning.errors import ConfigurationError
from provisioning.settings import Settings, demo
from service import READ_KEY, WEBHOOK_SECRET

ROOT = Path(__file__).parents[2]
REAL = "whsec_" + "3q2+7wQkVt9hZ1mXc5RfYpLb0sUeJg8n"
REAL_KEY = "Zt0vQ4bKf1yH8mXr2cWn6pLs3uJd9gEa"
HERE = "postgresql://localhost/provisioning"
FOLDERS = ("README.md", ".env.example", "docker-compose.yml", "tests")


def settings(**given: str) -> Settings:
    """Settings with a real secret and key, unless told."""
    chosen = {"database_url": "sqlite:///provisioning.db", "scalekit_webhook_secrets": REAL, "api_keys": f"app:{REAL_KEY}", **given}
    return Settings(_env_file=None, **chosen)  # type: ignore[call-arg, arg-type]


def said(host: str, **given: str) -> list[str]:
    """What stops the start, line by line."""
    try:
        refuse_demo(settings(**given), host)
    except ConfigurationError as error:
        return str(error).splitlines()
    return []


DEMO = {
    "a secret of Standard Webhooks' documentation": {"scalekit_webhook_secrets": f"{REAL} whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
    "a secret of these tests": {"scalekit_webhook_secrets": WEBHOOK_SECRET},
    "a secret made for this machine": {"scalekit_webhook_secrets": demo.new_webhook_secret()},
    "a key of these tests": {"api_keys": f"app:{REAL_KEY} operator:{READ_KEY}"},
    "a key made for this machine": {"api_keys": f"operator:{demo.new_key()}"},
    "a local Scalekit": {"scalekit_environment_url": "https://localhost:8143"},
}


@pytest.mark.parametrize("case", DEMO)
def test_what_is_for_trying_things_stays_on_this_machine(case: str) -> None:
    """One line that says which, why and what to do instead, without the value; on this machine it may be used."""
    for host, database in (("0.0.0.0", HERE), ("::", HERE), ("10.0.0.1", HERE), ("localhost", "postgresql://db.example/provisioning")):  # noqa: S104  # what has to be refused, or not
        [line] = said(host, **{**DEMO[case], "database_url": database})
        assert re.match(r"SCALEKIT_WEBHOOK_SECRET \(entry \d\) |PROVISIONING_API_KEYS has operator, |SCALEKIT_ENVIRONMENT_URL ", line)
        assert not any(value in line for value in DEMO[case].values())
    for host in ("127.0.0.1", "localhost", "::1"):
        for database in (HERE, "postgresql:///provisioning?host=/run/postgresql", "sqlite:///provisioning.db"):
            assert said(host, **{**DEMO[case], "database_url": database}) == []


def test_what_is_real_may_be_used_anywhere() -> None:
    """Every address, every database."""
    assert said("0.0.0.0", database_url="postgresql://db.example/provisioning") == []  # noqa: S104  # what has to be refused, or not
    assert said("127.0.0.1", database_url="postgresql:///p?host=127.0.0.1,db.example") == []


def test_one_host_elsewhere_is_elsewhere() -> None:
    """Of several that libpq would try, and wherever in the URL they stand."""
    for database in ("postgresql:///p?host=127.0.0.1,db.example", "postgresql:///p?host=localhost&host=db.example"):
        assert len(said("127.0.0.1", database_url=database, api_keys=demo.new_key())) == 1


@pytest.mark.parametrize("more", ["localhost/p?hostaddr=10.0.0.1", "/p?hostaddr=127.0.0.1,10.0.0.1", "/p?service=production"])
def test_what_leads_elsewhere_by_another_option_is_elsewhere(more: str) -> None:
    """An address beside a host is where libpq goes, and a service is described in a file."""
    assert len(said("127.0.0.1", database_url=f"postgresql://{more}", api_keys=demo.new_key())) == 1


def test_what_the_environment_says_counts_where_the_url_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """libpq reads it, too."""
    key = demo.new_key()
    for name, value in (("PGHOST", "db.example"), ("PGHOSTADDR", "10.0.0.1"), ("PGSERVICE", "production")):
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            assert len(said("127.0.0.1", database_url="postgresql:///p", api_keys=key)) == 1
            assert said("127.0.0.1", database_url="sqlite:///p.db", api_keys=key) == []
            assert len(said("127.0.0.1", database_url=HERE, api_keys=key)) == (name != "PGHOST")
    monkeypatch.setenv("PGHOST", "/run/postgresql")
    assert said("127.0.0.1", database_url="postgresql:///p", api_keys=key) == []


def test_a_key_that_somebody_chose_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it begins with; and what an earlier `dev` made and called otherwise is kept."""
    key = f"local-{REAL_KEY}"
    assert said("0.0.0.0", api_keys=f"app:{key}") == []  # noqa: S104  # what has to be refused, or not
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".provisioning").mkdir()
    (tmp_path / ".provisioning" / "api-key").write_text(f"{key}\n")
    assert local.api_key() == key


def test_whatever_this_repository_prints_is_known() -> None:
    """A secret that could be used and stands in a file that everybody can read."""
    places = [file for name in FOLDERS for file in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*.py"))]
    printed = {found for file in places for found in re.findall(r"whsec_[A-Za-z0-9+/]{32,}=*", file.read_text(encoding="utf-8"))}
    usable = {each for each in printed if usable_secret(each)}
    assert len(usable) >= 2
    assert [each for each in usable if not demo.why(each)] == []


def usable_secret(text: str) -> bool:
    """Whether the settings would take it."""
    try:
        settings(scalekit_webhook_secrets=text)
    except ValueError:
        return False
    return True
