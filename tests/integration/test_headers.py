"""What no answer of the service goes without, whoever asks for what."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service import bearer, running, signed

EVERYWHERE = {
    "content-security-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "x-content-type-options",
    "cache-control",
    "x-request-id",
}
ASKED = [
    ("GET", "/v1/organizations", 200),
    ("GET", "/v1/organizations?x=1", 422),
    ("GET", "/v1/deliveries/none", 404),
    ("POST", "/v1/organizations/org_1/reconciliations", 403),
    ("GET", "/nothing", 404),
    ("PUT", "/v1/organizations", 405),
    ("GET", "/health/live", 200),
    ("GET", "/health/ready", 200),
    ("GET", "/docs", 200),
    ("GET", "/docs/swagger-ui.css", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/embed/admin-portal.js", 200),
    ("POST", "/webhooks/scalekit", 400),
    ("HEAD", "/docs", 200),
    ("OPTIONS", "/v1/organizations/org_1/portal-links", 204),
]


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    with running(database_url) as client:
        yield client


@pytest.mark.parametrize(("method", "path", "status"), ASKED)
def test_every_answer_says_how_little_a_browser_may_do_with_it(client: TestClient, method: str, path: str, status: int) -> None:
    """Not sniffed, not framed, not leaked by a referrer; and not kept, unless it is a file for everybody."""
    answer = client.request(method, path, headers=bearer())
    assert answer.status_code == status
    assert answer.headers.keys() >= EVERYWHERE
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert path.startswith("/embed/") or "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store" or path.startswith(("/docs/", "/embed/"))


def test_each_header_is_there_once(client: TestClient) -> None:
    """A page's own takes the place of the usual one: of two policies a browser would heed both."""
    for path in ("/docs", "/embed/admin-portal.js", "/v1/organizations"):
        names = [name for name, _ in client.get(path, headers=bearer()).headers.multi_items()]
        assert sorted(names) == sorted(set(names))


def test_a_webhooks_answer_has_them_too(client: TestClient) -> None:
    """The one that matters most, since it is asked by a stranger."""
    answer = client.post("/webhooks/scalekit", content=b"{}", headers=signed(b"{}"))
    assert answer.status_code == 201
    assert answer.headers.keys() >= EVERYWHERE
