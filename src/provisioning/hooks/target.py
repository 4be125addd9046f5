"""Where messages may go: over https to public addresses, over http on this machine, and into networks that were named. No redirects.

A name is looked up anew for every message, what it leads to is judged, and the connection goes to the very address that was judged: a
name that leads elsewhere a moment later leads nowhere.
"""

import asyncio
import socket
import ssl
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from threading import Thread
from typing import TypeAlias

import httpx

from provisioning.errors import ConfigurationError
from provisioning.settings.values import is_loopback

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

SECONDS = 10.0  # for everything, from the look-up to the answer
CONNECT_SECONDS = 3.0  # for each address
IDLE_SECONDS = 30.0  # for which a connection is kept
READ_BYTES = 65_536  # of an answer that nobody is interested in, so that its connection can be used again
ADDRESSES = 3  # of a name that are tried

_AWAY = {429, 502, 503, 504}  # what proxies say of an application that is not there, or one that has too much to do
NOWHERE = "its name leads nowhere"

_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ip_network("2000::/3")  # all that is given out; Python takes more for public


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a message: told, unless there is an `error`, in words of ours.

    `away`: nobody is there, or asks to be left alone, for `retry_after`; it says nothing of this message.
    """

    error: str | None = None
    away: bool = False
    retry_after: timedelta = timedelta(0)


class NoTarget(Exception):
    """It leads to where nothing may be sent; the message says why."""


def checked_url(text: str) -> str:
    """`text`, if messages may be sent there at all, wherever its name leads. Raises ConfigurationError."""
    example = "A good one: https://app.example.com/hooks/provisioning"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise ConfigurationError(f"That is no URL. {example}") from None
    if not text.isprintable() or " " in text or not url.host or not 0 < (url.port or 443) < 65_536:
        raise ConfigurationError(f"That is no URL. {example}")
    if url.userinfo or url.fragment:
        raise ConfigurationError(f"A URL with a user, a password or a fragment is not taken: the signature says who sends. {example}")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(_host(url))):
        raise ConfigurationError(f"Messages go over https, or over http to this machine (http://127.0.0.1:3000/…). {example}")
    return str(url)


def judge(address: Address, networks: Collection[Network], *, here: bool) -> str | None:
    """Why nothing may be sent to this address, or None; `here`: the URL itself says that it is this machine."""
    real = _embedded(address)
    if here:
        return None if real.is_loopback else f"{real} is not this machine"
    if any(real in network for network in networks):
        return None
    if not real.is_global or real.is_multicast or (isinstance(real, IPv6Address) and real not in _GLOBAL_UNICAST):
        return f"{real} is no public address, and PROVISIONING_HOOK_NETWORKS does not name its network"
    return None


async def addresses(host: str, port: int, networks: Collection[Network]) -> list[Address]:
    """Where the host leads, as far as messages may go there. Raises NoTarget."""
    with suppress(ValueError):
        return _allowed([ip_address(host)], networks, here=is_loopback(host))
    return _allowed(await _look_up(host, port), networks, here=is_loopback(host))


def _allowed(found: Iterable[Address], networks: Collection[Network], *, here: bool) -> list[Address]:
    judged = {address: judge(address, networks, here=here) for address in found}
    allowed = [address for address, why_not in judged.items() if why_not is None]
    if not allowed:
        raise NoTarget(next(filter(None, judged.values()), NOWHERE))
    return allowed


def why_not(url: str, networks: Collection[Network]) -> str | None:
    """Why nothing may be sent to where this URL leads now; None also if it leads nowhere yet."""
    asked = httpx.URL(url)

    async def look() -> str | None:
        try:
            await addresses(_host(asked), asked.port or 443, networks)
        except NoTarget as error:
            return None if str(error) == NOWHERE else str(error)
        return None

    return asyncio.run(look())


class Target:
    """One URL, and the connections to it."""

    def __init__(self, url: str, networks: Collection[Network], tls: ssl.SSLContext, at_once: int) -> None:
        self._url = httpx.URL(url)
        self._networks = networks
        self._looking: asyncio.Task[list[Address]] | None = None
        limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once, keepalive_expiry=IDLE_SECONDS)
        self._client = httpx.AsyncClient(
            verify=tls,
            limits=limits,
            timeout=httpx.Timeout(SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,
            trust_env=False,  # a proxy would look names up itself
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """What came of it, within SECONDS."""
        try:
            async with asyncio.timeout(SECONDS):
                return await self._post(body, headers)
        except TimeoutError:
            return Answer(f"no answer within {SECONDS:.0f} s")
        except NoTarget as error:
            return Answer(str(error), away=True)
        except httpx.HTTPError as error:
            return Answer(_words(error), away=isinstance(error, httpx.ConnectError | httpx.ConnectTimeout))

    async def close(self) -> None:
        """End its connections."""
        if self._looking is not None:
            self._looking.cancel()
        await self._client.aclose()

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        host = _host(self._url)
        found = await asyncio.shield(self._addresses(host))
        for number, address in enumerate(found[:ADDRESSES], start=1):
            request = self._client.build_request(
                "POST",
                self._url.copy_with(host=str(address)),
                content=body,
                headers={**headers, "Host": self._url.netloc.decode()},
                extensions={"sni_hostname": host},
            )
            try:
                return await self._send(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(found[:ADDRESSES]):
                    raise
        raise NoTarget(NOWHERE)

    def _addresses(self, host: str) -> "asyncio.Task[list[Address]]":
        """Where it leads now. A look-up that takes long is waited for by every message, and not begun again by each."""
        if self._looking is None or self._looking.done():
            port = self._url.port or {"https": 443, "http": 80}[self._url.scheme]
            self._looking = asyncio.create_task(addresses(host, port, self._networks))
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())  # perhaps nobody waits any more
        return self._looking

    async def _send(self, request: httpx.Request) -> Answer:
        answer = await self._client.send(request, stream=True)
        try:
            read = 0
            async for chunk in answer.aiter_raw():
                read += len(chunk)
                if read > READ_BYTES:
                    break
        finally:
            await answer.aclose()
        if answer.is_success:
            return Answer()
        words = f"HTTP {answer.status_code}" + (", and redirects are not followed" if answer.is_redirect else "")
        return Answer(words, answer.status_code in _AWAY, _retry_after(answer))


def _host(url: httpx.URL) -> str:
    """As it is looked up and as certificates name it, an international one too: others would spell it in their own ways."""
    return url.raw_host.decode()


async def _look_up(host: str, port: int) -> list[Address]:
    """In a thread of its own, which ends with the process however long it takes: others' work does not wait for it. Raises NoTarget."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Address]] = loop.create_future()

    def settle(found: list[Address]) -> None:
        if not answer.done():
            answer.set_result(found)

    def work() -> None:
        found: list[Address] = []
        with suppress(OSError, UnicodeError):
            found = [ip_address(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, found)

    Thread(target=work, name="look-up", daemon=True).start()
    return await answer


def _retry_after(answer: httpx.Response) -> timedelta:
    """In seconds, as RFC 9110 (10.2.3) has it; its other form, a date, would trust another's clock."""
    text = answer.headers.get("Retry-After", "")
    return timedelta(seconds=int(text)) if text.isascii() and text.isdecimal() and len(text) < 7 else timedelta(0)


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _words(error: httpx.HTTPError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not good: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS with it fails"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "cannot be reached"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {SECONDS:.0f} s"
    return "the connection broke"
