"""This machine's clock set wrong, for tests, while the local Scalekit's in this process stays right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, time
from typing import TYPE_CHECKING

import pytest
import time_machine

from provisioning.scalekit.directories import DirectoryReader

if TYPE_CHECKING:
    from provisioning.emulator.server import Emulator


class Clock:
    """The right time, which goes by the monotonic clock: nothing sets that."""

    def __init__(self, machine: time_machine.Traveller) -> None:
        self._machine, self._start = machine, time() - monotonic()

    def time(self) -> float:
        """In seconds since 1970."""
        return self._start + monotonic()

    def time_ns(self) -> int:
        """In nanoseconds."""
        return int(self.time() * 10**9)

    @contextmanager
    def off_by(self, seconds: float) -> Iterator[None]:
        """Inside the `with` this machine's clock is so much ahead; also inside another such `with`."""
        before = time() - self.time()
        self._machine.move_to(self.time() + seconds)
        try:
            yield
        finally:
            self._machine.move_to(self.time() + before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Scalekit's, from now on. This machine's is set within one journey: other threads cannot ask for the time while one begins or ends."""
    with time_machine.travel(time()) as machine:
        yield _right(monkeypatch, Clock(machine))


def _right(monkeypatch: pytest.MonkeyPatch, right: Clock) -> Clock:
    for module in ("clock", "facts"):  # the Date of its answers, the time of what happens there
        monkeypatch.setattr(f"provisioning.emulator.{module}.time", right)
    monkeypatch.setattr("provisioning.emulator.oauth.Tokens.accepts", lambda *_: True)  # by its own clock they are all young
    # What is made of this machine's clock and held against the real one, by gRPC's core.
    monkeypatch.setattr("grpc._server.time", right)
    monkeypatch.setattr("grpc._channel._deadline", lambda timeout: None if timeout is None else right.time() + timeout)
    return right


@pytest.fixture
def exact_difference(emulator: Emulator, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scalekit's clock is read to the nanosecond, as by `exact_clock`; by how much this machine's differs, its answer says, as ever."""
    read = DirectoryReader.clock
    monkeypatch.setattr(DirectoryReader, "clock", lambda reader: (emulator.company.ticks.time(), read(reader)[1]))
