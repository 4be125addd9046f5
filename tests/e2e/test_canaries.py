"""No personal data and no secret leaks: unique words are planted everywhere that a value can enter, and looked for where none may leave."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, select, text
from sqlalchemy.engine import make_url

from operators import KEY, SECRET, Operator, Running
from provisioning.db.models import deliveries
from provisioning.db.session import Database
from provisioning.scalekit.signature import sign

ORGANIZATION = "org_canary"  # ids may be told: they are what an operator looks for
_planted = count(1)
MARK = f"canary{uuid4().hex[:8]}"


def canary() -> str:
    """A word that nothing but a leak brings back."""
    return f"{MARK}n{next(_planted)}"


def person(id_: str, **more: object) -> bytes:
    """An event with a canary in every value that is not an id."""
    names = ("email", "name", "given_name", "family_name", "preferred_username", "title", "phone_number", "dp_id")
    data = {
        "id": id_,
        "organization_id": ORGANIZATION,
        **{name: canary() for name in names},
        "groups": [{"id": "dirgroup_1", "name": canary()}],
        "roles": [{"role_name": canary()}],
        "custom_attributes": {canary(): [canary(), {canary(): canary()}]},
        "password": canary(),
        "raw_attributes": {"credentials": {"Token": canary(), "secret": canary()}},
    }
    envelope = {
        "spec_version": canary(),
        "id": f"evt_{next(_planted)}",
        "type": "organization.directory.user_created",
        "occurred_at": "2026-01-01T00:00:00Z",
        "environment_id": canary(),
        "organization_id": ORGANIZATION,
        "display_name": canary(),
        "object": canary(),
        "data": data,
    }
    return json.dumps({**envelope, **more}).encode()


def post(running: Running, body: bytes, **headers: str) -> httpx.Response:
    """Post `body`, signed unless a header says otherwise, with a canary in what the edge does not know."""
    webhook_id, now = f"msg_{next(_planted)}", int(time.time())
    given = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(SECRET, webhook_id, now, body),
        "user-agent": canary(),
        "cookie": canary(),
        "referer": f"https://{canary()}.example",
        "x-forwarded-for": canary(),
        "x-request-id": f"{canary()}@example.com",
        "x-unknown": canary(),
        **headers,
    }
    return httpx.post(f"{running.url}/webhooks/scalekit?{canary()}={canary()}", content=body, headers=given, timeout=30)


@pytest.fixture
def operator(tmp_path: Path, database_url: str) -> Operator:
    """An operator whose every secret has a canary in it, too."""
    keys = f"tests:{KEY},other:read:{canary()}{'k' * 32}"
    settings = {
        "SCALEKIT_WEBHOOK_SECRET": SECRET,
        "PROVISIONING_API_KEYS": keys,
        "DATABASE_URL": database_url,
        "SCALEKIT_ENVIRONMENT_URL": "https://127.0.0.1:9",  # nobody listens on it
        "SCALEKIT_CLIENT_ID": canary(),
        "SCALEKIT_CLIENT_SECRET": canary(),
    }
    return Operator(tmp_path, settings)


@contextmanager
def failing_handlers(url: str) -> Iterator[None]:
    """Every write of a directory user fails in the database, with its values in the driver's message."""
    engine = create_engine(url)
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            fail = (
                "CREATE TRIGGER fail BEFORE INSERT ON directory_users BEGIN"
                " INSERT INTO directory_users SELECT NEW.email, NEW.email, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL; END"
            )
            connection.execute(text(fail))
        else:
            connection.execute(
                text(
                    "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'bad value %', NEW.email USING DETAIL = NEW.registers::text; END $$"
                )
            )
            connection.execute(text("CREATE TRIGGER fail BEFORE INSERT ON directory_users FOR EACH ROW EXECUTE FUNCTION fail()"))
    yield
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER fail" + ("" if connection.dialect.name == "sqlite" else " ON directory_users")))
    engine.dispose()


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Nobody else can write."""
    engine = create_engine(url)
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("LOCK TABLE deliveries"))
        yield
    engine.dispose()


@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_nothing_planted_comes_out(operator: Operator, database_url: str) -> None:
    """In no log, no stored error and no answer to others: after success, and after each failure of the table."""
    answers: list[tuple[int, httpx.Response]] = []

    with operator.started("serve") as running:

        def expect(status: int, response: httpx.Response) -> None:
            assert response.status_code == status, response.text
            answers.append((status, response))

        expect(201, post(running, person("u1")))
        expect(201, post(running, person("u1", type="organization.directory.user_deleted")))
        expect(201, post(running, person("u1", type="other.type")))
        expect(201, post(running, person("u1", occurred_at=canary())))
        expect(201, post(running, person("u1", occurred_at="2999-01-01T00:00:00Z")))
        expect(201, post(running, person("u1", data={"id": "u1", "email": {"wrong": canary()}, "groups": canary()})))
        expect(201, post(running, f'{{"broken": "{canary()}'.encode()))
        expect(201, post(running, f'["{canary()}\\u0000", "\\ud800{canary()}", 1e999]'.encode()))
        expect(400, post(running, person("u1"), **{"webhook-signature": f"v1,{canary()}"}))
        expect(400, post(running, person("u1"), **{"webhook-timestamp": canary()}))
        expect(400, post(running, person("u1"), **{"webhook-timestamp": "1700000000"}))
        expect(400, post(running, person("u1"), **{"webhook-id": f"{canary()} {canary()}"}))
        expect(413, post(running, person("u1", object=canary() * 100_000)))
        with failing_handlers(database_url):
            expect(500, post(running, person("u2")))
        with locked(database_url):
            expect(503, post(running, person("u3")))
        for path in (f"/v1/{canary()}", f"/v1/organizations/{ORGANIZATION}/users?email={canary()}@x.com&cursor={canary()}", f"/{canary()}"):
            response = running.get(path)
            assert response.status_code in (404, 422)
            answers.append((404, response))
        expect(401, running.get(f"/v1/organizations/{canary()}/users?email={canary()}", key=canary()))
        expect(404, running.get(f"/v1/organizations/{ORGANIZATION}/users/{canary()}"))
        portal = f"{running.url}/v1/organizations/{ORGANIZATION}/portal-links"
        keyed = {"Authorization": f"Bearer {KEY}"}
        expect(422, httpx.post(portal, json={"features": [canary()]}, headers=keyed))
        expect(504, httpx.post(portal, json={"features": ["sso"]}, headers=keyed, timeout=30))
        assert running.end() == 0
    said = "".join(running.stderr) + (operator.folder / "serve.stdout").read_text()
    assert said.count('"delivery"') >= 9
    _assert_clean("a log", said)
    for status, response in answers:
        _assert_clean(f"an answer {status}", response.text + str(response.headers))
    _assert_clean("a stored error", _stored_errors(database_url))
    for secret in (SECRET, KEY):
        assert secret not in said


def _stored_errors(url: str) -> str:
    with closing(Database(url)) as database, database.reading() as session:
        errors = [str(error) for (error,) in session.execute(select(deliveries.c.error).where(deliveries.c.error.is_not(None)))]
    assert len(errors) >= 6
    return "\n".join(errors)


def _assert_clean(where: str, text_: str) -> None:
    position = text_.find(MARK)
    assert position < 0, f"{where} holds a planted word: …{text_[max(0, position - 200) : position + 80]}…"


def test_what_is_named_like_a_secret_is_not_even_stored(operator: Operator, database_url: str) -> None:
    """Keys named password, secret or token go before anything else is done with a body."""
    body = person("u1").replace(b'"email"', b'"PassWord"')
    planted = [json.loads(body)["data"]["password"], json.loads(body)["data"]["raw_attributes"]["credentials"]["Token"]]
    with operator.started("serve") as running:
        assert post(running, body).status_code == 201
        assert running.end() == 0
    stored = _everything(database_url)
    assert "raw_attributes" in stored
    assert [word for word in planted if word in stored] == []


def _everything(url: str) -> str:
    """All that is in the database, as text."""
    if url.startswith("sqlite"):
        path = Path(str(make_url(url).database))
        return "".join(each.read_bytes().decode("utf-8", "replace") for each in path.parent.glob(f"{path.name}*"))
    with psycopg.connect(url) as connection:
        tables = ("deliveries", "directory_users", "users", "groups")
        rows = [row for table in tables for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))]
    return "".join(str(bytes(value) if isinstance(value, memoryview) else value) for row in rows for value in row)
