"""Where a portal link may lead."""

import pytest

from provisioning.portal import leads_to

ORIGINS = ("https://acme.scalekit.com", "http://127.0.0.1:8001", "http://localhost:8002")


@pytest.mark.parametrize(
    "location",
    ["https://acme.scalekit.com/magicLink/1", "http://127.0.0.1:8001/magicLink/1", "http://localhost:8002/magicLink/1"],
)
def test_a_link_leads_to_an_origin_that_is_named(location: str) -> None:
    """https anywhere, http on loopback."""
    assert leads_to(ORIGINS, location)


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/magicLink/1",
        "https://acme.scalekit.com.evil.example/magicLink/1",
        "https://acme.scalekit.com:8443/magicLink/1",
        "https://acme.scalekit.com@evil.example/magicLink/1",
        "https://evil.example\\@acme.scalekit.com/magicLink/1",
        "https://evil.example/https://acme.scalekit.com/magicLink/1",
        "http://acme.scalekit.com/magicLink/1",
        "http://127.0.0.1:9000/magicLink/1",
        "//acme.scalekit.com/magicLink/1",
        " https://acme.scalekit.com/magicLink/1",
        "javascript:alert(1)//https://acme.scalekit.com/",
        "https://acme.scalekit.com",
        "",
    ],
)
def test_a_link_that_leads_anywhere_else_is_recognised(location: str) -> None:
    """Look-alikes included: what decides is how the location begins."""
    assert not leads_to(ORIGINS, location)


def test_plain_http_is_for_loopback_alone() -> None:
    """Naming an origin does not make it private."""
    assert not leads_to(["http://portal.acme.example"], "http://portal.acme.example/magicLink/1")
