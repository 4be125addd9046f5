"""The signed events of a first sync and of the updates after it: one organization, everybody in three of fifty groups, with one role.

The shape is that of Scalekit's own events of an Okta directory (tests/payloads), written as Scalekit writes it, at about 1.1 KB.
"""

import json
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence

from provisioning.scalekit.signature import sign

SECRET = f"whsec_{b64encode(bytes(range(32))).decode()}"
KEY = "benchmark-key-0123456789-0123456789"
ORGANIZATION = "org_118460706403795901"
GROUPS = 50
FIRST = 100_000_000  # the number of the first person: all have as many digits
KINDS = ("created", "updated")
PATH = "/webhooks/scalekit"

_OCCURRED = {"created": "2026-02-11T09:31:09.190748Z", "updated": "2026-02-12T14:05:42.518207Z"}


def person(number: int, kind: str) -> dict[str, object]:
    """What the directory says of somebody; whoever is updated has another name, and nothing else that is new."""
    given, family = f"{'Jane' if kind == 'created' else 'Joan'}{number}", f"Doe{number}"
    email, external_id = f"jane.doe.{number}@example.com", f"00u1a2b3c4d{number}"
    return {
        "active": True,
        "department": f"Department {number % 9}",
        "dp_id": external_id,
        "email": email,
        "family_name": family,
        "given_name": given,
        "groups": [{"id": _group_id(each), "name": f"Group {10 + each}"} for each in groups_of(number)],
        "id": directory_user_id(number),
        "locale": "en-US",
        "name": f"{given} {family}",
        "organization_id": ORGANIZATION,
        "preferred_username": email,
        "raw_attributes": {
            "active": True,
            "displayName": f"{given} {family}",
            "emails": [{"primary": True, "type": "work", "value": email}],
            "externalId": external_id,
            "locale": "en-US",
            "name": {"familyName": family, "givenName": given},
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": email,
        },
        "roles": [{"role_name": "member"}],
    }


def group(number: int) -> bytes:
    """The body of the event that a group is there; what users' events say of it is nothing new then."""
    data: dict[str, object] = {"id": _group_id(number), "organization_id": ORGANIZATION, "display_name": f"Group {10 + number}"}
    return _body(f"evt_group_{number}", "group_created", "DirectoryGroup", "2026-02-11T09:30:00Z", data)


def directory_user_id(number: int) -> str:
    """Whose events these are."""
    return f"diruser_118462867{number}"


def groups_of(number: int) -> tuple[int, ...]:
    """Three different groups of somebody."""
    return tuple((number + step) % GROUPS for step in (0, 7, 19))


def body(number: int, kind: str) -> bytes:
    """The body of somebody's event."""
    return _body(f"evt_{kind}_{number}", f"user_{kind}", "DirectoryUser", _OCCURRED[kind], person(number, kind))


def _body(event_id: str, type_: str, of: str, occurred_at: str, data: dict[str, object]) -> bytes:
    event = {
        "spec_version": "1",
        "id": event_id,
        "type": f"organization.directory.{type_}",
        "occurred_at": occurred_at,
        "environment_id": "env_118451842212053207",
        "organization_id": ORGANIZATION,
        "object": of,
        "data": data,
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _group_id(number: int) -> str:
    return f"dirgroup_1184628670000000{10 + number}"


def headers(number: int, kind: str, content: bytes) -> dict[str, str]:
    """What is signed, now, for the only delivery of somebody's event."""
    webhook_id, now = f"msg_{kind}_{number}", int(time.time())
    signature = sign(SECRET, webhook_id, now, content)
    return {"webhook-id": webhook_id, "webhook-timestamp": str(now), "webhook-signature": signature}


def requests(numbers: range, kind: str) -> Iterator[bytes]:
    """The whole HTTP/1.1 requests, signed now, one person's each."""
    for number in numbers:
        content = body(number, kind)
        more = {"content-type": "application/json", "content-length": str(len(content)), **headers(number, kind, content)}
        yield _request("POST", PATH, more) + content


def lookups(user_ids: Sequence[str]) -> Iterator[bytes]:
    """A request for each of these users."""
    for user_id in user_ids:
        yield _request("GET", f"/v1/organizations/{ORGANIZATION}/users/{user_id}", {"authorization": f"Bearer {KEY}"})


def _request(method: str, path: str, more: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *(f"{name}: {value}" for name, value in more.items())]
    return "\r\n".join([*lines, "", ""]).encode()
