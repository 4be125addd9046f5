"""The unmodified SDK over real TLS, and what our client makes of its slowness and its moods."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provisioning.directory import Feature
from provisioning.emulator.faults import Door, Fault
from provisioning.errors import ScalekitNotConfigured, ScalekitRefused, ScalekitTimeout, ScalekitUnavailable, UnknownOrganization
from provisioning.scalekit.client import ScalekitClient
from provisioning.scalekit.directories import DirectoryReader
from provisioning.settings import Settings
from stalling_proxy import StallingProxy

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

SHORT = 0.3  # seconds: long enough for a call that nothing holds up, short enough to wait for

Connect = Callable[..., ScalekitClient]


@pytest.fixture
def connect(emulator: Emulator) -> Iterator[Connect]:
    """Makes a client of the emulator, and lets go of it after the test."""
    clients: list[ScalekitClient] = []

    def make(deadline: float = 10, threads: int = 8) -> ScalekitClient:
        settings = Settings.model_validate(emulator.settings())
        clients.append(ScalekitClient(settings, deadline=deadline, threads=threads))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_every_call_makes_its_own_link_that_expires_in_a_minute(emulator: Emulator, connect: Connect) -> None:
    """Real token, real TLS, real gRPC."""
    client = connect()

    async def two() -> list[str]:
        links = [await client.portal_link("org_1") for _ in range(2)]
        for link in links:
            assert link.location == f"{emulator.portal_origin}/magicLink/{link.id}"
            assert timedelta(seconds=55) < link.expires_at - datetime.now(UTC) <= timedelta(seconds=60)
        return [link.location for link in links]

    first, second = asyncio.run(two())
    assert first != second


def test_each_call_is_told_of_with_what_it_came_to(emulator: Emulator) -> None:
    """The token too; by words that are fit for a label, and however the call ended."""
    told: list[tuple[str, str]] = []
    settings = Settings.model_validate(emulator.settings())
    with closing(
        ScalekitClient(settings, tell=lambda call, result, seconds: told.append((call, result)) if seconds > 0 else None)
    ) as client:
        asyncio.run(client.portal_link("org_1"))
        with pytest.raises(UnknownOrganization):
            DirectoryReader(client, "org_unknown", lambda _: None).directories()
        DirectoryReader(client, "org_1", lambda _: None).clock()
        with emulator.faults.during(Door.API, Fault.REFUSE), pytest.raises(ScalekitRefused):
            asyncio.run(client.portal_link("org_1"))
    links = "GeneratePortalLink"
    assert told == [("token", "ok"), (links, "ok"), ("ListDirectories", "unknown"), ("clock", "ok"), (links, "refused")]


@pytest.mark.parametrize("features", [(), (Feature.SINGLE_SIGN_ON,), (Feature.DIRECTORY_SYNC, Feature.SINGLE_SIGN_ON)])
def test_the_features_asked_for_are_passed_on(emulator: Emulator, connect: Connect, features: tuple[Feature, ...]) -> None:
    """In Scalekit's own words; the emulator's link opens once."""
    link = asyncio.run(connect().portal_link("org_1", features))

    made = emulator.links.open(link.id)

    assert made is not None
    assert (made.organization_id, made.features) == ("org_1", tuple(feature.value for feature in features))
    assert emulator.links.open(link.id) is None


def test_a_link_does_not_show_in_its_repr(connect: Connect) -> None:
    """A link is a credential, and its location ends in its id."""
    link = asyncio.run(connect().portal_link("org_1"))

    assert link.location not in repr(link)
    assert link.id not in repr(link)


def test_an_organization_that_scalekit_does_not_know_is_said_to_be_unknown(connect: Connect) -> None:
    """Its words are kept for the log alone."""
    with pytest.raises(UnknownOrganization) as caught:
        asyncio.run(connect().portal_link("org_2"))

    assert "emulator" in caught.value.vendor_message
    assert "emulator" not in str(caught.value)


def test_a_token_endpoint_that_is_not_there_is_no_unknown_organization(emulator: Emulator, connect: Connect) -> None:
    """A wrong environment URL is a refusal: 404 would blame the caller."""
    with emulator.faults.during(Door.OAUTH, Fault.MISSING), pytest.raises(ScalekitRefused):
        asyncio.run(connect().portal_link("org_1"))


def test_wrong_credentials_are_refused_and_shown_nowhere(emulator: Emulator) -> None:
    """Neither in the message nor in what goes to the log."""
    client = ScalekitClient(Settings.model_validate({**emulator.settings(), "SCALEKIT_CLIENT_SECRET": "canary-of-a-client-secret"}))

    with pytest.raises(ScalekitRefused) as caught:
        asyncio.run(client.portal_link("org_1"))

    assert "canary" not in f"{caught.value!r} {caught.value.vendor_message}"
    client.close()


def test_missing_credentials_are_named() -> None:
    """Without them nothing is tried."""
    given = {"SCALEKIT_ENVIRONMENT_URL": "https://acme.scalekit.com", "SCALEKIT_CLIENT_ID": "skc_1"}
    client = ScalekitClient(Settings.model_validate(given))

    with pytest.raises(ScalekitNotConfigured, match=r"set SCALEKIT_CLIENT_SECRET\.$"):
        asyncio.run(client.portal_link("org_1"))


def test_signing_in_says_whether_the_credentials_are_good(emulator: Emulator, connect: Connect) -> None:
    """The token serves the calls that follow."""
    client = connect()
    with emulator.faults.during(Door.OAUTH, Fault.REFUSE), pytest.raises(ScalekitRefused):
        asyncio.run(client.sign_in())
    before = emulator.tokens.issued

    asyncio.run(client.sign_in())
    asyncio.run(client.portal_link("org_1"))

    assert emulator.tokens.issued == before + 1


def test_calls_that_come_together_build_one_client(emulator: Emulator, connect: Connect) -> None:
    """One token for all of them."""
    client = connect()
    before = emulator.tokens.issued

    async def together() -> None:
        await asyncio.gather(*(client.portal_link("org_1") for _ in range(8)))

    asyncio.run(together())
    assert emulator.tokens.issued == before + 1


def test_a_client_that_could_not_be_built_is_built_by_the_next_call(emulator: Emulator, connect: Connect) -> None:
    """A failure is not kept."""
    client = connect()

    with emulator.faults.during(Door.OAUTH, Fault.AWAY), pytest.raises(ScalekitTimeout):
        asyncio.run(client.portal_link("org_1"))

    assert asyncio.run(client.portal_link("org_1")).location


def test_an_expired_token_is_renewed(emulator: Emulator, connect: Connect) -> None:
    """The SDK then sends the new token and the old one."""
    client = connect()
    with emulator.faults.during(Door.OAUTH, Fault.EXPIRED), pytest.raises(ScalekitRefused):
        asyncio.run(client.portal_link("org_1"))
    before = emulator.tokens.issued

    assert asyncio.run(client.portal_link("org_1")).location
    assert emulator.tokens.issued == before + 1


@pytest.mark.parametrize("door", [Door.OAUTH, Door.API])
def test_a_call_ends_at_its_deadline_while_scalekit_is_silent(emulator: Emulator, connect: Connect, door: Door) -> None:
    """The deadline is around the token, the call and the SDK's own retries."""
    client = connect(deadline=SHORT)
    asyncio.run(connect().portal_link("org_1"))  # the import of the SDK is behind us
    emulator.faults.set(door, Fault.HANG)
    began = time.monotonic()

    with pytest.raises(ScalekitTimeout):
        asyncio.run(client.portal_link("org_1"))

    assert SHORT <= time.monotonic() - began < 2


def test_the_event_loop_turns_while_a_call_hangs(emulator: Emulator, connect: Connect) -> None:
    """Everything else on the loop goes on."""
    client = connect()

    async def turn() -> None:
        with emulator.faults.during(Door.OAUTH, Fault.HANG):
            call = asyncio.create_task(client.portal_link("org_1"))
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not call.done()
        await call

    asyncio.run(turn())


def test_a_path_that_was_forgotten_costs_one_call(emulator: Emulator) -> None:
    """The next one has a new connection; the SDK alone would notice by its keep-alive, after 70 s."""
    with StallingProxy(emulator.url, "localhost") as path:
        settings = Settings.model_validate({**emulator.settings(), "SCALEKIT_ENVIRONMENT_URL": path.url})
        with closing(ScalekitClient(settings, deadline=2)) as client:
            asyncio.run(client.portal_link("org_1"))
            path.forget()
            with pytest.raises(ScalekitTimeout):
                asyncio.run(client.portal_link("org_1"))
            assert asyncio.run(client.portal_link("org_1")).location
            path.forget()
            reader = DirectoryReader(client, "org_1", lambda _: None)
            assert reader.directories() == []  # tried again, as runs do


def test_a_call_beyond_the_pool_is_refused_at_once(emulator: Emulator, connect: Connect) -> None:
    """Two work, the third hears so before either ends; afterwards both places are free again."""
    client = connect(threads=2)

    async def crowd() -> None:
        with emulator.faults.during(Door.OAUTH, Fault.HANG):
            inside = [asyncio.create_task(client.portal_link("org_1")) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(ScalekitUnavailable) as caught:
                await client.portal_link("org_1")
            assert caught.value.retry_after
            assert not any(call.done() for call in inside)
        await asyncio.gather(*inside)
        await asyncio.gather(*(client.portal_link("org_1") for _ in range(2)))

    asyncio.run(crowd())


def test_a_call_past_its_deadline_keeps_its_place_until_its_thread_ends(emulator: Emulator, connect: Connect) -> None:
    """That is what bounds the threads."""
    client = connect(deadline=SHORT, threads=1)

    async def stuck() -> None:
        with emulator.faults.during(Door.OAUTH, Fault.HANG):
            for end in (ScalekitTimeout, ScalekitUnavailable):
                with pytest.raises(end):
                    await client.portal_link("org_1")
        async with asyncio.timeout(10):
            while not await works():
                pass

    async def works() -> bool:
        try:
            return bool(await client.portal_link("org_1"))
        except (ScalekitTimeout, ScalekitUnavailable):  # the thread has not ended yet
            return False

    asyncio.run(stuck())


def test_closing_ends_a_call_that_hangs(emulator: Emulator, connect: Connect) -> None:
    """A stop does not wait for a silent API."""
    client = connect(deadline=30)

    async def close() -> None:
        await client.portal_link("org_1")
        with emulator.faults.during(Door.API, Fault.HANG):
            call = asyncio.create_task(client.portal_link("org_1"))
            await asyncio.sleep(0)
            client.close()
            with pytest.raises(ScalekitRefused):
                await asyncio.wait_for(call, 5)

    asyncio.run(close())


def test_a_service_that_only_receives_holds_nothing_heavy(tmp_path: Path) -> None:
    """The SDK takes 1.2 s to import, and 40 MB; what checks tokens and what migrates, 16 MB; and in production there is no emulator."""
    sdk, tokens, migrating = ("scalekit", "grpc", "google.protobuf", "requests"), ("jwt", "cryptography"), ("alembic", "mako")
    heavy = (*sdk, *tokens, *migrating, "opentelemetry.sdk", "provisioning.emulator")
    check = f"""
import sys
from fastapi.testclient import TestClient
from provisioning.app import create_app
with TestClient(create_app()) as client:
    print(client.get("/health/ready").status_code, client.post("/webhooks/scalekit").status_code)
print([name for name in {heavy} if name in sys.modules])
"""
    given = {**os.environ, "SCALEKIT_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, timeout=60, env=given, cwd=tmp_path)

    assert (done.stdout.splitlines(), done.returncode) == (["503 400", "[]"], 0), done.stderr
