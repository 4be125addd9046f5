"""Messages go to public addresses over https, to this machine over http as well, and into networks that were named: nowhere else."""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.errors import ConfigurationError
from provisioning.hooks.target import NoTarget, addresses, checked_url, judge, why_not

PRIVATE = [
    "10.0.0.1",
    "172.16.9.9",
    "192.168.1.1",
    "127.0.0.1",
    "169.254.169.254",  # where clouds keep a machine's credentials
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%2",
    "fc00::1",
    "fd12:3456:789a::1",
    "ff02::1",
    "2001:db8::1",
    "64:ff9b:1::a00:1",
]
DISGUISED = ["::ffff:10.0.0.1", "::ffff:127.0.0.1", "2002:a00:1::", "2002:7f00:1::1", "64:ff9b::a9fe:a9fe", "64:ff9b::127.0.0.1"]


@pytest.mark.parametrize("text", [*PRIVATE, *DISGUISED])
def test_private_addresses_are_refused_in_whatever_dress(text: str) -> None:
    assert "PROVISIONING_HOOK_NETWORKS" in str(judge(ip_address(text), (), here=False))


@pytest.mark.parametrize("text", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_not(text: str) -> None:
    assert judge(ip_address(text), (), here=False) is None


def test_a_network_that_is_named_is_open_and_no_other() -> None:
    networks = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    assert judge(ip_address("10.1.2.3"), networks, here=False) is None
    assert judge(ip_address("::ffff:10.1.2.3"), networks, here=False) is None
    assert judge(ip_address("fd00::1"), networks, here=False) is None
    assert judge(ip_address("10.2.0.1"), networks, here=False)


@given(st.ip_addresses(v=4))
def test_what_an_ipv4_address_is_not_its_ipv6_forms_are_not(address: Any) -> None:
    """Mapped, through 6to4, through NAT64: judged as the address itself."""
    plain = judge(address, (), here=False) is None
    number = int(address)
    for form in (0xFFFF << 32 | number, 0x2002 << 112 | number << 80, 0x64FF9B << 96 | number):
        assert (judge(ip_address(form.to_bytes(16)), (), here=False) is None) == plain


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.com/hooks",
        "https://app.example.com:8443/x?y=1",
        "http://127.0.0.1:3000/h",
        "http://localhost/h",
        "http://[::1]:3000/h",
    ],
)
def test_good_urls_are_taken(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.com/",
        "http://10.0.0.1/",
        "http://127.0.0.1.example.com/",
        "ftp://app.example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "unix:/run/docker.sock",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "//app.example.com/",
        "app.example.com",
        "https://user:password@app.example.com/",
        "https://app.example.com/#here",
        "https://app.example.com/ x",
        "https://app.example.com/\r\nHost: other",
        "https://app.example.com:99999/",
        "https://[::1/",
        "https://0177.0.0.1/",
        "",
        "\x00",
    ],
)
def test_odd_urls_are_refused_with_what_a_good_one_looks_like(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"https"):
        checked_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://10.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
    ],
)
def test_odd_ways_to_write_an_address_lead_nowhere_else(url: str) -> None:
    """The C library reads them as loopback or private addresses; only what is said plainly to be this machine is."""
    assert "no public address" in str(why_not(checked_url(url), ()))


Resolver = Callable[..., Any]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Where names lead: what another DNS would say."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def test_a_name_leads_to_its_public_addresses_alone(names: dict[str, list[str]]) -> None:
    """One that leads to private ones only, or nowhere, leads nowhere."""
    names |= {"both": ["10.0.0.1", "93.184.215.14"], "inside": ["10.0.0.1", "169.254.169.254"], "localhost": ["93.184.215.14"]}
    assert asyncio.run(addresses("both", 443, ())) == [ip_address("93.184.215.14")]
    assert asyncio.run(addresses("inside", 443, [ip_network("10.0.0.0/8")])) == [ip_address("10.0.0.1")]
    for name in ("inside", "unknown", "x" * 70, "localhost"):
        with pytest.raises(NoTarget):
            asyncio.run(addresses(name, 443, ()))
