"""Scalekit's clock, as whoever calls it reads it: the Date of every HTTP answer (RFC 9110, section 6.6.1)."""

import time
from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provisioning.emulator.faults import Door, Fault, Faults

WRONG_BY = {Fault.BEHIND: -600, Fault.AHEAD: 600}  # seconds


class Clock:
    """Dates the answers of `app`, whose server must not do so as well."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"date", self._date())]
            await send(message)

        await self._app(scope, receive, dated)

    def _date(self) -> bytes:
        fault = self._faults.current()[Door.CLOCK]
        return formatdate(time.time() + (WRONG_BY[fault] if fault else 0), usegmt=True).encode()
