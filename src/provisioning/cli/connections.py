"""As many connections as there are descriptors for. When they run out, one that asks for nothing makes room: whoever only holds connections
open keeps nobody out, and the database and Scalekit can always be reached.
"""

import asyncio
import resource
from contextlib import suppress
from functools import cache

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST = 65_536  # in one process
RESERVED = 256  # descriptors: of the database, of calls to Scalekit, of files


def allow_many() -> None:
    """Let this process, and those that it starts, have as many descriptors as the system lets it ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + RESERVED if hard == resource.RLIM_INFINITY else min(hard, MOST + RESERVED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@cache
def most() -> int:
    """How many connections this process has at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(soft - RESERVED, soft // 2)


class Connection(HttpToolsProtocol):
    """One of them, as uvicorn serves it."""

    @property
    def _idle(self) -> bool:
        """Whether no request of it is under way. One that has not even sent its headers is as idle as one that has had its answer."""
        return (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take its place, or an idle one's; where there is none, end at once."""
        full = len(self.connections) >= most()
        idle = next((each for each in self.connections if isinstance(each, Connection) and each._idle), self) if full else None
        super().connection_made(transport)
        if idle:
            idle.transport.abort()
