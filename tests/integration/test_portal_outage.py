"""While Scalekit's API hangs, whoever asks for portal links is told so, and nobody else notices. Never timed: the benchmark is."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import pytest

from factories import event
from live import listening
from provisioning.app import create_app
from provisioning.emulator.faults import Door, Fault
from provisioning.scalekit.client import THREADS, ScalekitClient
from service import PORTAL_KEY, READ_KEY, bearer, settings, signed

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

LINKS = "/v1/organizations/org_1/portal-links"
AT_ONCE = 200
WEBHOOKS = 20
WITHIN = 60  # seconds, half of the patience of those that hang


@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.proof), "postgresql"], indirect=True)
def test_a_scalekit_that_hangs_costs_webhooks_and_reading_nothing(emulator: Emulator, database_url: str) -> None:
    """Of 200 requests at once as many hang as there are threads for them, and get a 504 in the end; the others get a 503 at once.

    Webhooks are received, people are read and the service is ready while they hang.
    """
    chosen = settings(
        database_url,
        scalekit_environment_url=emulator.url,
        scalekit_client_id=emulator.tokens.client_id,
        scalekit_client_secret=emulator.tokens.client_secret,
        portal_origins=emulator.portal_origin,
    )
    app = create_app(chosen)
    # So patient that none of them ends while the test looks.
    with listening(app) as service, closing(ScalekitClient(chosen, deadline=120)) as patient:
        app.state.services = dataclasses.replace(app.state.services, scalekit=patient)
        asyncio.run(_outage(emulator, service))


async def _outage(emulator: Emulator, service: str) -> None:
    limits = httpx.Limits(max_connections=AT_ONCE + 10)
    async with httpx.AsyncClient(base_url=service, limits=limits, timeout=150, trust_env=False) as client:
        assert (await client.post(LINKS, headers=bearer(PORTAL_KEY))).status_code == 201  # the SDK is imported and signed in
        try:
            emulator.faults.set(Door.API, Fault.HANG)
            asked = [asyncio.create_task(client.post(LINKS, headers=bearer(PORTAL_KEY))) for _ in range(AT_ONCE)]
            answers = asyncio.as_completed(asked)
            async with asyncio.timeout(WITHIN):
                refused = [(await next(answers)).status_code for _ in range(AT_ONCE - THREADS)]
            for number in range(WEBHOOKS):
                body = event("user_created", f"u{number}")
                received = await client.post("/webhooks/scalekit", content=body, headers=signed(body, f"msg_{number}"))
                assert (received.status_code, received.json()["status"]) == (201, "processed")
            people = await client.get("/v1/organizations/org_1/users", headers=bearer(READ_KEY))
            assert len(people.json()["data"]) == WEBHOOKS
            assert (await client.get("/health/ready")).status_code == 200
            assert sum(not each.done() for each in asked) == THREADS  # all of that was while they hung
        finally:
            emulator.faults.set(Door.API, Fault.AWAY)
        assert set(refused) == {503}
        assert Counter(answer.status_code for answer in await asyncio.gather(*asked)) == {503: AT_ONCE - THREADS, 504: THREADS}
        emulator.faults.clear()
        assert (await client.post(LINKS, headers=bearer(PORTAL_KEY))).status_code == 201
