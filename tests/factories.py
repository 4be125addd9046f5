"""Events and deliveries for tests: each shows only the fields that its test is about."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from sqlalchemy import Table, select

from provisioning.bodies import Json
from provisioning.changes import Cause, CauseKind
from provisioning.db import changes
from provisioning.db.models import deliveries, directories, directory_users, groups, memberships, role_grants, users
from provisioning.db.reading.users import UserFilter, page_of_users
from provisioning.db.repository import Writes
from provisioning.db.session import Database
from provisioning.events import Delivery, rfc3339
from provisioning.inbox import Inbox, Receipt
from provisioning.merge import Key
from provisioning.showing import show_anew

PAYLOADS = Path(__file__).parent / "payloads"
ORGANIZATION = "org_1"
START = 1_750_000_000  # unix seconds; tests count time in seconds from here
_numbers = count(1)


def payload(name: str) -> bytes:
    """One of the real or documented events, as it is."""
    return (PAYLOADS / f"{name}.json").read_bytes()


def event(
    kind: str,
    id_: str,
    *,
    at: float = 0,
    organization_id: str = ORGANIZATION,
    number: int | None = None,
    told: str | None = None,
    **data: Json,
) -> bytes:
    """A directory event (`kind` such as `user_created`) of `id_`, `at` seconds after the start; `told`: the organization in its data."""
    prefix = "organization." if kind.startswith("directory_") else "organization.directory."
    document = {
        "spec_version": "1",
        "id": f"evt_{next(_numbers) if number is None else number}",
        "type": prefix + kind,
        "occurred_at": rfc3339(START * 10**9 + int(at * 10**9)),
        "environment_id": "env_1",
        "organization_id": organization_id,
        "object": "DirectoryUser",
        "data": {"id": id_, "organization_id": told or organization_id, **data},
    }
    return json.dumps(document).encode()


def delivery(body: bytes, webhook_id: str | None = None) -> Delivery:
    """`body`, as the edge hands it on once it is verified."""
    now = datetime.now(UTC)
    return Delivery(webhook_id or f"msg_{next(_numbers)}", int(now.timestamp()), now, body)


def receive(database: Database, *bodies: bytes) -> list[Receipt]:
    """Receive `bodies`, one batch, each under an id of its own."""
    return Inbox(database).receive([delivery(body) for body in bodies])


def one_by_one(database: Database, bodies: Iterable[bytes]) -> list[str]:
    """Receive `bodies` one after another; returns their outcomes."""
    return [receipt.outcome for body in bodies for receipt in receive(database, body)]


def named(*ids: str) -> list[Json]:
    """Groups as a user's event names them."""
    return [{"id": id_, "name": f"Group {id_}"} for id_ in ids]


def roles(*names: str) -> list[Json]:
    """Roles as a user's event names them."""
    return [{"role_name": name} for name in names]


def state(database: Database, organization_id: str | None = None) -> dict[str, list[tuple[object, ...]]]:
    """All that the events made, less our own ids and our clock's times: what must not depend on order, duplicates or replicas.

    A user is called by the directory users behind it. With `organization_id`, that organization alone, and without its id.
    """
    with database.reading() as session:

        def rows(table: Table, *left_out: str) -> list[dict[str, object]]:
            chosen = select(*(column for column in table.c if column.name not in left_out))
            if organization_id is not None:
                chosen = chosen.where(table.c.organization_id == organization_id)
            return [dict(row) for row in session.execute(chosen).mappings()]

        people = rows(directory_users, *_OURS)
        behind: dict[object, tuple[object, ...]] = {}
        for person in sorted(people, key=lambda each: str(each["id"])):
            user_id = person.pop("user_id")
            behind[user_id] = (*behind.get(user_id, ()), person["id"])
        accounts, grants = rows(users, *_OURS), rows(role_grants, "since")
        for account in accounts:
            account["id"] = behind[account["id"]]
        for grant in grants:
            grant["user_id"] = behind[grant["user_id"]]
        found = {
            "directories": rows(directories, *_OURS),
            "groups": rows(groups, *_OURS),
            "directory_users": people,
            "memberships": [{**row, "since": row["since"] is not None} for row in rows(memberships, "user_id")],
            "users": accounts,
            "role_grants": grants,
        }
    hidden = {"organization_id"} if organization_id else set()
    return {
        table: sorted((tuple(value for name, value in row.items() if name not in hidden) for row in each), key=repr)
        for table, each in found.items()
    }


def user_of(database: Database, directory_user_id: str, organization_id: str = ORGANIZATION) -> str:
    """Our id of the user that this directory user is behind."""
    with database.reading() as session:
        [found] = page_of_users(session, organization_id, UserFilter(directory_user_id=directory_user_id), after="", limit=2)
    return found.id


def show_again(database: Database, *user_ids: str, organization_id: str = ORGANIZATION, operator: str = "ops") -> None:
    """Have these users show what an operator decided about them."""
    keys = [Key(organization_id, user_id) for user_id in user_ids]
    cause = Cause(CauseKind.OPERATOR, operator)
    now = datetime.now(UTC)
    writes = Writes()
    with database.writing() as session:
        changes.record(session, show_anew(session, dict.fromkeys(keys, cause), now, regrouped=set(keys), writes=writes), now, writes)


_OURS = ("created_at", "updated_at", "deactivated_at", "activated_at")


def user_rows(database: Database, organization_id: str = ORGANIZATION) -> list[dict[str, object]]:
    """The users of an organization, by age."""
    with database.reading() as session:
        found = session.execute(select(users).where(users.c.organization_id == organization_id).order_by(users.c.id)).mappings()
        return [dict(row) for row in found]


def delivery_rows(database: Database) -> dict[str, dict[str, object]]:
    """The inbox, by webhook id."""
    with database.reading() as session:
        return {row["webhook_id"]: dict(row) for row in session.execute(select(deliveries)).mappings()}
