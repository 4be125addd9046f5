"""The local Scalekit that integration tests talk to: one a process, trusted only while a test uses it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator

ORGANIZATION = "org_1"
NOWHERE = "http://127.0.0.1:1/webhooks/scalekit"


@pytest.fixture(scope="session")
def started_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One for the whole process: gRPC keeps the authority that its first channel trusted, and a second emulator would have another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
        from provisioning.emulator.server import Emulator  # noqa: PLC0415  # 1.2 s, only for whoever asks for an emulator
        from provisioning.emulator.switches import Switches  # noqa: PLC0415

    with Emulator(tmp_path_factory.mktemp("emulator"), deliver_to=NOWHERE, switches=Switches(paused=True)) as emulator:
        emulator.structure.add_organization(ORGANIZATION, ORGANIZATION)
        yield emulator


@pytest.fixture
def emulator(started_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A local Scalekit that behaves, knows `org_1`, and is trusted by this process until the test ends."""
    for name, value in started_emulator.trust().items():
        monkeypatch.setenv(name, value)
    yield started_emulator
    started_emulator.faults.clear()
