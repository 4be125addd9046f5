"""An application with its own users table and sessions, in which people come and go as their directories say.

A hook tells it of a change within moments; the feed, read at its start and every ten seconds, tells it what no hook did. Both end in
`apply`, which may be told anything twice, late, and by both at once. "Into your application" in README.md says how to start it.
"""

import asyncio
import json
import logging
import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from html import escape
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from standardwebhooks import Webhook

SERVICE_URL = os.environ.get("SERVICE_URL", "http://127.0.0.1:8000")
SERVICE_KEY = os.environ.get("SERVICE_KEY") or Path(".provisioning/api-key").read_text().strip()
HOOK = Webhook(os.environ.get("HOOK_SECRET") or sys.exit("HOOK_SECRET is not set: it is the secret that `./run hooks add` prints."))
DATABASE = os.environ.get("DATABASE", ".provisioning/application.db")

TABLES = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS users (organization_id TEXT, id TEXT, email TEXT, name TEXT, roles TEXT NOT NULL, active INTEGER NOT NULL,
        change TEXT NOT NULL, PRIMARY KEY (organization_id, id));
    CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, organization_id TEXT NOT NULL, user_id TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS sessions_of ON sessions (organization_id, user_id);
    CREATE TABLE IF NOT EXISTS feed (one INTEGER PRIMARY KEY CHECK (one = 1), place TEXT NOT NULL);
"""
TURN = threading.Lock()  # SQLite has one writer, too, but lets some wait for seconds while others pass


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """All of it or nothing, and one after another: hook and feed may be at the same person at once."""
    with TURN, closing(sqlite3.connect(DATABASE, timeout=10, isolation_level=None)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        yield database


def apply(database: sqlite3.Connection, change: Mapping[str, Any]) -> None:
    """Have the user whom a change is about as it says, unless something newer did already. Who is not let in any more has no session."""
    if not change.get("user_id") or "user" not in change:
        return  # about a group, a directory, or something of which this application knows nothing
    known = change["user"] or {"email": None, "name": None, "roles": [], "active": False}  # erased
    user = {**known, "organization_id": change["organization_id"], "id": change["user_id"], "change": change["id"]}
    is_newer = database.execute(
        """INSERT INTO users VALUES (:organization_id, :id, :email, :name, :roles, :active, :change)
           ON CONFLICT DO UPDATE SET email = :email, name = :name, roles = :roles, active = :active, change = :change
           WHERE :change > users.change""",
        {**user, "roles": json.dumps(user["roles"])},
    ).rowcount
    if is_newer and not user["active"]:
        database.execute("DELETE FROM sessions WHERE organization_id = :organization_id AND user_id = :id", user)


def catch_up() -> None:
    """Apply what the feed has behind the place that was reached."""
    with httpx.Client(base_url=SERVICE_URL, headers={"Authorization": f"Bearer {SERVICE_KEY}"}, timeout=10) as service:
        with transaction() as database:
            reached = database.execute("SELECT place FROM feed").fetchone()
        place = reached[0] if reached else begin(service)
        while True:
            answer = service.get("/v1/changes", params={"after": place, "limit": 200})
            if answer.status_code == httpx.codes.GONE:  # too long away, or the service was restored from a backup
                place = begin(service)
                continue
            page = answer.raise_for_status().json()
            place = page["next_cursor"]
            with transaction() as database:
                for change in page["data"]:
                    apply(database, change)
                database.execute("REPLACE INTO feed VALUES (1, ?)", [place])
            if not page["data"]:
                return


def begin(service: httpx.Client) -> str:
    """Have everybody as they are now, whatever was here before. What a hook tells meanwhile is newer than the place, and stays."""
    with transaction() as database:
        database.execute("UPDATE users SET change = ''")  # a service that was restored from a backup gives ids again
    place: str = service.get("/v1/changes", params={"after": "latest"}).raise_for_status().json()["next_cursor"]
    everybody = [
        {"organization_id": organization["id"], "user_id": user["id"], "user": user, "id": place}
        for organization in listed(service, "/v1/organizations")
        for user in listed(service, f"/v1/organizations/{organization['id']}/users")
    ]
    with transaction() as database:
        for each in everybody:
            apply(database, each)
        database.execute("UPDATE users SET email = NULL, name = NULL, roles = '[]', active = 0 WHERE change = ''")
        database.execute(
            "DELETE FROM sessions WHERE (organization_id, user_id) IN (SELECT organization_id, id FROM users WHERE NOT active)"
        )
        database.execute("REPLACE INTO feed VALUES (1, ?)", [place])
    return place


def listed(service: httpx.Client, path: str) -> Iterator[Mapping[str, Any]]:
    """All that a list of the service has, page by page."""
    asked: dict[str, Any] | None = {"limit": 200}
    while asked:
        page = service.get(path, params=asked).raise_for_status().json()
        yield from page["data"]
        asked = {"limit": 200, "cursor": page["next_cursor"]} if page["next_cursor"] else None


async def follow() -> None:
    while True:
        try:
            await asyncio.to_thread(catch_up)
        except Exception as error:  # whatever it was, it must not be the last look
            logging.warning("The feed could not be read: %r", error)
        await asyncio.sleep(10)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    with closing(sqlite3.connect(DATABASE)) as database:
        database.executescript(TABLES)
    following = asyncio.create_task(follow())
    yield
    following.cancel()


app = FastAPI(lifespan=lifespan)


async def raw_body(request: Request) -> bytes:
    return await request.body()


RawBody = Annotated[bytes, Depends(raw_body)]


@app.post("/hooks/provisioning", status_code=204)
def take_hook(request: Request, body: RawBody) -> None:
    """Apply a change, if it is signed. Whatever is not answered with a 2xx is sent again."""
    try:
        message = HOOK.verify(body, dict(request.headers))
    except Exception:  # a hostile header raises more than the library's own error
        raise HTTPException(400, "This is not signed as it should be.") from None
    with transaction() as database:
        apply(database, message["data"])


def who(request: Request) -> Any:
    """Whose session it is, if it is one. An application asks this at every request."""
    with closing(sqlite3.connect(DATABASE, timeout=10)) as database:
        return database.execute(
            """SELECT coalesce(name, email, id), organization_id, roles FROM users
               WHERE active AND (organization_id, id) = (SELECT organization_id, user_id FROM sessions WHERE token = ?)""",
            [request.cookies.get("session")],
        ).fetchone()


@app.post("/login")
def login(body: RawBody) -> Response:
    """Begin a session. A real application checks a password or asks the customer's SSO here; this one believes whoever comes."""
    form = dict(parse_qsl(body.decode(errors="replace")))
    token = secrets.token_urlsafe(32)
    with transaction() as database:  # the same that looks whether the person is active: nobody slips in while being let go
        by_email = "SELECT organization_id, id FROM users WHERE active AND lower(email) = lower(?) AND ? IN ('', organization_id)"
        found = database.execute(by_email, [form.get("email"), form.get("organization", "")]).fetchall()
        if len(found) != 1:  # an address is no identity
            return login_page("Several have this address: say of which organization." if found else "Nobody active has this address.", 403)
        database.execute("INSERT INTO sessions VALUES (?, ?, ?)", [token, *found[0]])
    response = RedirectResponse("/", 303)
    response.set_cookie("session", token, httponly=True, samesite="lax")  # over https: secure=True as well
    return response


@app.get("/")
def start(request: Request) -> Response:
    """Who is logged in, or a way to be. The page asks for itself until it is refused."""
    if not (user := who(request)):
        return login_page("Your session has ended." if "session" in request.cookies else "Log in", 401)
    hello = "<h1>Hello, {}</h1><p>{}: {}".format(*map(escape, user))
    return HTMLResponse(f"{hello}<script>setInterval(() => fetch('/').then(it => it.ok || location.reload(), () => 0), 250)</script>")


def login_page(title: str, status: int) -> Response:
    form = """<form method=post action=/login><input name=email type=email placeholder=E-mail required>
        <input name=organization placeholder="org_… (if several have you)"> <button>Log in</button></form>"""
    return HTMLResponse(f"<h1>{title}</h1>{form}", status)
