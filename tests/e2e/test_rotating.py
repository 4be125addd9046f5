"""Each secret rotated as the README says to: the service is restarted with the new one, and nothing that was sent meanwhile is lost."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

import postgres
from databases import Databases
from delivering import Delivering, delivering
from operators import KEY, NOBODY, SECONDS, SECRET, Operator, Running, until
from provisioning.emulator.people import Newcomer
from provisioning.emulator.records import Provider, User

# A secret is no database's business, but for the database's own.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.proof)], indirect=True)


class Customer:
    """An organization with one directory, at a local Scalekit that delivers to the service."""

    def __init__(self, place: Delivering) -> None:
        self._place = place
        self.id = place.emulator.structure.add_organization("Acme").id
        self._directory = place.emulator.structure.add_directory(self.id, Provider.OKTA).id

    def hire(self) -> User:
        """Somebody new, of whom Scalekit tells until it is answered with a 2xx."""
        name = secrets.token_hex(4)
        return self._place.emulator.people.hire(Newcomer("Nova", name, f"{name}@acme.example"), self._directory)

    def statuses(self, user: User) -> list[int | None]:
        """What Scalekit was answered, time after time, once it has told of the user; None where nobody was there."""
        deliveries = self._place.emulator.deliveries
        return [attempt.status for delivery in deliveries.latest(1000, subject_id=user.id) for attempt in delivery.attempts]

    def received(self) -> bool:
        """Whether everything arrives, and the service says what the directory says."""
        return self._place.settled() and self._place.differences(self.id) == []


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Iterator[Delivering]:
    with delivering(tmp_path, database_url) as place:
        yield place


@ON_SQLITE
def test_the_signing_secret(place: Delivering) -> None:
    """With the old one and the new one set, every webhook is accepted at once, whichever signs.

    Where Scalekit has changed to the new one before the service was told, what is refused meanwhile is sent again.
    """
    endpoint, acme, at_once = place.emulator.endpoint, Customer(place), list[User]()
    old, new = endpoint.secrets
    with place.serving(SCALEKIT_WEBHOOK_SECRET=old) as service:
        endpoint.begin_rotation()
        at_once.append(acme.hire())
        assert acme.received()
        assert service.end() == 0
    with place.serving(SCALEKIT_WEBHOOK_SECRET=f"{old} {new}") as service:
        at_once.append(acme.hire())
        assert acme.received()
        endpoint.finish_rotation()
        at_once.append(acme.hire())
        assert acme.received()
        assert service.end() == 0
    with place.serving(SCALEKIT_WEBHOOK_SECRET=new) as service:
        at_once.append(acme.hire())
        assert acme.received()
        assert [acme.statuses(user) for user in at_once] == [[201]] * 4

        endpoint.begin_rotation()
        endpoint.finish_rotation()
        refused = acme.hire()
        until(lambda: acme.statuses(refused))
        assert set(acme.statuses(refused)) == {400}
        assert service.end() == 0
    with place.serving(SCALEKIT_WEBHOOK_SECRET=f"{old} {new}"):
        assert acme.received()
        assert acme.statuses(refused)[-1] == 201


def test_an_api_key(tmp_path: Path, sqlite_databases: Databases) -> None:
    """Under a name of its own: both are good while callers change over. A file is read at the start: what is put into it later waits."""
    old, new = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    steps = {f"app:read:{old}": [200, 401], f"app:read:{old} app-2:read:{new}": [200, 200], f"app-2:read:{new}": [401, 200]}
    file = tmp_path / "api-keys"
    with sqlite_databases.fresh(migrated=True) as url:
        operator = Operator(tmp_path, {"SCALEKIT_WEBHOOK_SECRET": SECRET, "DATABASE_URL": url, "PROVISIONING_API_KEYS_FILE": str(file)})
        for keys, expected in steps.items():
            file.write_text(keys)
            with operator.started("serve") as service:
                assert service.get("/health/live").status_code == 200  # it listens before it reads
                file.write_text(f"another:read:{secrets.token_urlsafe(32)}")
                assert [service.get("/v1/organizations", key).status_code for key in (old, new)] == expected


def reconciled(service: Running, organization_id: str) -> tuple[str, str]:
    """How a run of the service's ended, and why."""
    path, key = f"/v1/organizations/{organization_id}/reconciliations", {"Authorization": f"Bearer {KEY}"}
    asked = httpx.post(f"{service.url}{path}", json={}, headers=key, timeout=SECONDS, trust_env=False, verify=NOBODY)
    assert asked.status_code == 202, asked.text

    def ended() -> dict[str, Any] | None:
        run: dict[str, Any] = service.get(f"{path}/{asked.json()['id']}").json()
        return run if run["finished_at"] else None

    run = until(ended)
    return run["state"], run["error"] or ""


@ON_SQLITE
def test_the_client_secret(place: Delivering) -> None:
    """Webhooks need none. With one that is revoked runs fail, and say why, and `check` says what to do; with the new one they go on."""
    acme, tokens = Customer(place), place.emulator.tokens
    revoked, new = tokens.client_secret, secrets.token_urlsafe(32)
    with place.serving() as service:
        assert reconciled(service, acme.id) == ("done", "")
        tokens.client_secret = new
        assert reconciled(service, acme.id) == ("done", "")  # with the token that it has, while that lasts
        assert service.end() == 0
    with place.emulator.company.silent():
        acme.hire()
    with place.serving(SCALEKIT_CLIENT_SECRET=revoked) as service:
        told = acme.hire()
        until(lambda: acme.statuses(told) == [201])
        assert reconciled(service, acme.id) == ("failed", "Scalekit does not accept the service's credentials.")
        checked = place.operator.run("check", SCALEKIT_CLIENT_SECRET=revoked)
        assert checked.returncode == 1
        assert "SCALEKIT_CLIENT_SECRET" in checked.stdout
        assert service.end() == 0
    with place.serving(SCALEKIT_CLIENT_SECRET=new) as service:
        assert reconciled(service, acme.id) == ("done", "")
        assert acme.received()


def test_the_password_of_the_database(tmp_path: Path) -> None:
    """Open connections stay good. Where a new one is needed webhooks are answered 503, until the restart: they are sent again."""
    role, old, new = "provisioning", secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    with postgres.throw_away() as server, psycopg.connect(server.url, autocommit=True) as admin:

        def set_password(how: str, password: str) -> None:
            admin.execute(SQL("{} ROLE {} LOGIN PASSWORD {}").format(SQL(how), Identifier(role), password))

        set_password("CREATE", old)
        admin.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(role), Identifier(role)))
        [(hba_file,)] = admin.execute("SHOW hba_file").fetchall()
        Path(hba_file).write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        admin.execute("SELECT pg_reload_conf()")
        place_of = urlsplit(server.url)

        def url(password: str) -> str:
            return place_of._replace(netloc=f"{role}:{password}@{place_of.hostname}:{place_of.port}", path=f"/{role}").geturl()

        with delivering(tmp_path, url(old)) as place:
            acme = Customer(place)
            assert place.operator.run("migrate").returncode == 0
            with place.serving() as service:
                acme.hire()
                assert acme.received()
                set_password("ALTER", new)
                at_once = acme.hire()
                assert acme.received()
                assert acme.statuses(at_once) == [201]
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])
                again = acme.hire()
                until(lambda: acme.statuses(again))
                assert set(acme.statuses(again)) == {503}
                assert service.get("/health/ready").status_code == 503
                assert service.end() == 0
            with place.on(url(new)).serving():
                assert acme.received()
                assert acme.statuses(again)[-1] == 201
