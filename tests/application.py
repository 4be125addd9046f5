"""An application, as a hook tells it of changes: it believes what is signed, and does what its test wants. In this process, over HTTP."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from live import listening
from provisioning.api.changes import told
from provisioning.changes import ChangeType
from provisioning.db.hooks import Hook
from provisioning.db.session import Database
from provisioning.hooks import Hooks, subscriptions
from provisioning.hooks.turn import Describe

SECONDS = 30.0


@dataclass(frozen=True)
class Told:
    """One message that was taken: its id, the change, and when (monotonic)."""

    id: str
    change: dict[str, Any]
    at: float

    @property
    def about(self) -> str:
        """The user, group or directory that it is about."""
        return str(self.change["user_id"] or self.change["group_id"] or self.change["directory_id"])

    @property
    def user_id(self) -> str | None:
        """Whom it is about."""
        user_id: str | None = self.change["user_id"]
        return user_id


@dataclass
class Application:
    """What it was told, in order. `answers`: the status that a change gets; `slow`: seconds before each."""

    secrets: list[str] = field(default_factory=list)
    answers: Callable[[dict[str, Any]], int] = lambda _: 204
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    slow: float = 0.0
    told: list[Told] = field(default_factory=list)
    refused: list[Told] = field(default_factory=list)
    at_once: int = 0  # the most messages that were under way together
    at_once_of_one: int = 0  # and the most about one person, group or directory
    url: str = ""
    _under_way: Counter[str | None] = field(default_factory=Counter)
    _news: threading.Condition = field(default_factory=threading.Condition)

    async def __call__(
        self, scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Take a message: an ASGI application."""
        assert scope["type"] == "http"
        body = b""
        while True:
            part = await receive()
            if part["type"] == "http.disconnect":
                return
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        for secret in self.secrets:
            Webhook(secret).verify(body, headers)
        message = json.loads(body)
        about = message["data"].get("user_id") or message["data"].get("group_id") or message["data"].get("directory_id")
        self._under_way[about] += 1
        self.at_once = max(self.at_once, self._under_way.total())
        self.at_once_of_one = max(self.at_once_of_one, self._under_way[about])
        await asyncio.sleep(self.slow)
        status = self.answers(message["data"])
        one = Told(headers["webhook-id"], message["data"], time.monotonic())
        with self._news:
            (self.told if status < 300 else self.refused).append(one)
            self._under_way[about] -= 1
            self._news.notify_all()
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b""})

    def wait(self, claim: Callable[[], bool], within: float = SECONDS) -> None:
        """Return once the claim is true; it is looked at after each message."""
        with self._news:
            assert self._news.wait_for(claim, within), (len(self.told), len(self.refused))

    def ids(self, type_: str | None = None) -> list[str]:
        """Of the messages that were taken, or of those of this type, in order."""
        return [each.id for each in self.told if type_ in {None, each.change["type"]}]


@contextmanager
def application(port: int = 0, **settings: Any) -> Iterator[Application]:
    """One that listens, on a free port unless told."""
    app = Application(**settings)
    with listening(app, port, lifespan="off") as url:
        app.url = f"{url}/hook"
        yield app


@contextmanager
def telling(database: Database, describe: Describe = told) -> Iterator[Hooks]:
    """Somebody who tells hooks, as `serve` and `worker` do."""
    with telling_by(database.engine.url.render_as_string(hide_password=False), describe) as hooks:
        yield hooks


@contextmanager
def telling_by(url: str, describe: Describe = told) -> Iterator[Hooks]:
    """The same, with connections of its own to the database there."""
    with closing(Database(url, writers=2, readers=2)) as own:
        hooks = Hooks(own, describe)
        hooks.start()
        try:
            yield hooks
        finally:
            hooks.stop(6)


def add(database: Database, app: Application, *types: ChangeType, organization_id: str | None = None, from_start: bool = True) -> Hook:
    """A hook to the application, which knows its secret."""
    hook = added(database, app.url, *types, organization_id=organization_id, from_start=from_start)
    app.secrets = [hook.secrets[0].text]
    return hook


def added(database: Database, url: str, *types: ChangeType, organization_id: str | None = None, from_start: bool = True) -> Hook:
    """A hook to this URL."""
    return subscriptions.add(database, url, types=types, organization_id=organization_id, secret=None, from_start=from_start, by="tests")
