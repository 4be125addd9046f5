"""The local Scalekit is as strict as the real one."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx
import jwt
import pytest
import time_machine

from provisioning.emulator.faults import Door, Fault
from provisioning.emulator.oauth import Tokens
from provisioning.emulator.store import Store

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator


@pytest.fixture
def web(emulator: Emulator) -> httpx.Client:
    """An HTTP client that trusts the emulator."""
    context = ssl.create_default_context(cafile=emulator.trust()["REQUESTS_CA_BUNDLE"])
    return httpx.Client(base_url=emulator.url, verify=context)


def credentials(emulator: Emulator) -> dict[str, str]:
    """A token request that is granted."""
    return {
        "grant_type": "client_credentials",
        "client_id": emulator.tokens.client_id,
        "client_secret": emulator.tokens.client_secret,
    }


def test_a_token_is_signed_with_a_key_of_the_key_set(emulator: Emulator, web: httpx.Client) -> None:
    """So that whoever trusts the issuer can check it."""
    with web:
        answer = web.post("/oauth/token", data=credentials(emulator)).raise_for_status()
        key_set = jwt.PyJWKSet.from_dict(web.get("/keys").raise_for_status().json())

    token = answer.json()["access_token"]
    key = key_set[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, algorithms=["RS256"], issuer=emulator.url)["sub"] == emulator.tokens.client_id
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "wrong"}, 401, "invalid_client"),
        ({"client_id": "", "client_secret": ""}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
def test_a_token_is_for_the_client_alone(emulator: Emulator, web: httpx.Client, changed: dict[str, str], status: int, error: str) -> None:
    """RFC 6749, section 5.2."""
    with web:
        answer = web.post("/oauth/token", data={**credentials(emulator), **changed})

    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_a_token_is_good_for_its_lifetime_and_for_nobody_elses(emulator: Emulator) -> None:
    """Expired, torn or signed by another key: not accepted."""
    token = emulator.tokens.issue()

    assert emulator.tokens.accepts(token)
    assert not emulator.tokens.accepts(token[:-8])
    assert not emulator.tokens.accepts(Tokens(emulator.url, Store()).issue())
    with time_machine.travel(timedelta(hours=1, seconds=1)):
        assert not emulator.tokens.accepts(token)


def test_a_link_opens_within_its_minute_only(emulator: Emulator) -> None:
    """And once: tests/integration/test_scalekit_client.py."""
    late, early = (emulator.links.make("org_1", ()) for _ in range(2))

    with time_machine.travel(timedelta(seconds=61)):
        assert emulator.links.open(late.id) is None
    with time_machine.travel(timedelta(seconds=58)):
        assert emulator.links.open(early.id) == early


@pytest.mark.parametrize(("offered", "chosen"), [(["h2"], "h2"), (["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None)])
def test_a_browser_gets_http_and_grpc_gets_http_2(emulator: Emulator, offered: list[str], chosen: str | None) -> None:
    """One port: a browser offers both, gRPC h2 alone."""
    context = ssl.create_default_context(cafile=emulator.trust()["REQUESTS_CA_BUNDLE"])
    if offered:
        context.set_alpn_protocols(offered)
    host, port = emulator.url.removeprefix("https://").split(":")

    with socket.create_connection((host, int(port)), 5) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        assert tls.selected_alpn_protocol() == chosen


@pytest.mark.parametrize(("fault", "minutes"), [(None, 0), (Fault.BEHIND, -10), (Fault.AHEAD, 10)])
def test_every_https_answer_says_once_what_time_scalekit_has(
    emulator: Emulator, web: httpx.Client, fault: Fault | None, minutes: int
) -> None:
    """The keys, a token, one that is refused, and what is not there; right unless told otherwise."""
    emulator.faults.set(Door.CLOCK, fault)
    before = datetime.now(UTC).replace(microsecond=0)
    with web:
        answers = [
            web.get("/keys"),
            web.post("/oauth/token", data=credentials(emulator)),
            web.post("/oauth/token"),
            web.get("/nowhere"),
            web.get("/keys", headers={"Host": "elsewhere.example"}),
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 400, 404, 400]
    for answer in answers:
        [said] = answer.headers.get_list("date")
        assert before <= parsedate_to_datetime(said) - timedelta(minutes=minutes) <= datetime.now(UTC)
        assert said.endswith(" GMT")
