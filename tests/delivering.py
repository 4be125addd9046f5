"""A local Scalekit in this process that delivers to a service in processes of its own, which come and go behind one address."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from operators import KEY, SECONDS, SETTINGS, Operator, Running, free_port
from provisioning.emulator.comparison import Difference

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator


@dataclass(frozen=True)
class Delivering:
    """The two, and the operator of the service."""

    emulator: Emulator
    operator: Operator
    port: int

    def serving(self, workers: int = 1, **more: str) -> AbstractContextManager[Running]:
        """The service, up where webhooks go to; `more`: variables."""
        return self.operator.started("serve", "--workers", str(workers), port=self.port, **more)

    def on(self, database_url: str) -> Delivering:
        """The same with another database."""
        return replace(self, operator=replace(self.operator, settings={**self.operator.settings, "DATABASE_URL": database_url}))

    def settled(self) -> bool:
        """Whether all that is on its way arrives."""
        return self.emulator.deliveries.settled(SECONDS) and not self.emulator.deliveries.counts()["given_up"]

    def differences(self, organization_id: str) -> list[Difference]:
        """As `emulator compare` finds them, less the default role, which no list of a directory shows."""
        _, found = self.emulator.parts.compared(organization_id)
        default = {each.default_role for each in self.emulator.company.directories(organization_id)}

        def told(each: Difference) -> bool:
            one, other = each.directory, each.service
            return (
                each.field == "user's roles"
                and isinstance(one, list)
                and isinstance(other, list)
                and {*one} - default == {*other} - default
            )

        return [each for each in found if not told(each)]


@contextmanager
def delivering(folder: Path, database_url: str, retry_scale: float = 0.0005, **settings: str) -> Iterator[Delivering]:
    """A local Scalekit with nobody in it, whose retries take 50 seconds unless told; `settings`: of the service, by variable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
        from provisioning.emulator.server import Emulator  # noqa: PLC0415  # 1.2 s, only for whoever asks for one
        from provisioning.emulator.switches import Switches  # noqa: PLC0415

    port = free_port()
    deliver_to = f"http://127.0.0.1:{port}/webhooks/scalekit"
    with Emulator(folder / "emulator", deliver_to=deliver_to, service_key=KEY, switches=Switches(retry_scale=retry_scale)) as emulator:
        quick = {"PROVISIONING_CLOCK_MARGIN": "0s", "PROVISIONING_SCALEKIT_CALLS_PER_SECOND": "1000"}
        known = {**SETTINGS, **emulator.settings(), **emulator.trust(), "DATABASE_URL": database_url, **quick, **settings}
        yield Delivering(emulator, Operator(folder, known), port)
