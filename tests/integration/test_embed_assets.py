"""The embed's files, as a page of any origin imports them."""

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from databases import Databases
from service import running

MODULE, TYPES = "/embed/admin-portal.js", "/embed/admin-portal.d.ts"


@pytest.fixture(scope="module")
def client(sqlite_databases: Databases) -> Iterator[TestClient]:
    """The service, of which one origin may ask for portal links."""
    with sqlite_databases.fresh(migrated=True) as url, running(url, allowed_origins="https://app.example.com") as client:
        yield client


@pytest.mark.parametrize(("path", "media_type"), [(MODULE, "text/javascript"), (TYPES, "application/typescript")])
@pytest.mark.parametrize("origin", [None, "https://app.example.com", "https://anybody.example"])
def test_any_page_may_import_it(client: TestClient, path: str, media_type: str, origin: str | None) -> None:
    """Without a key, and as what it is; whoever asks, the answer is the same, so that every cache may keep it."""
    answer = client.get(path, headers={"Origin": origin} if origin else {})

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == f"{media_type}; charset=utf-8"
    assert answer.headers.get_list("Access-Control-Allow-Origin") == ["*"]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("known", ["{tag}", "W/{tag}", '"another", {tag}', "*"])
def test_whoever_has_it_is_not_sent_it_again(client: TestClient, known: str) -> None:
    """By its tag, and for as long again."""
    tag = client.get(MODULE).headers["ETag"]

    answer = client.get(MODULE, headers={"If-None-Match": known.format(tag=tag)})

    assert (answer.status_code, answer.content) == (304, b"")
    assert (answer.headers["ETag"], answer.headers["Cache-Control"]) == (tag, "public, max-age=3600")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_whoever_has_another_is_sent_this_one(client: TestClient) -> None:
    """Each file has a tag of its own."""
    tag = client.get(TYPES).headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)

    answer = client.get(MODULE, headers={"If-None-Match": tag})

    assert (answer.status_code, answer.headers["ETag"] == tag) == (200, False)


@pytest.mark.parametrize("path", ["/embed/", "/embed/start.html", "/embed/..%2fstart.js", "/embed/admin-portal.js/", "/embed/admin-portal"])
def test_nothing_else_is_there(client: TestClient, path: str) -> None:
    """Least of all another file."""
    assert client.get(path).status_code == 404


def test_head_is_answered_as_get(client: TestClient) -> None:
    """Without spending anything: it is a file."""
    assert client.head(MODULE).headers["ETag"] == client.get(MODULE).headers["ETag"]


def test_the_types_name_what_the_module_does(client: TestClient) -> None:
    """Every attribute, event and reason, in both."""
    module, types = client.get(MODULE).text, client.get(TYPES).text
    attributes = re.search(r"observedAttributes = \[(.*)\]", module)
    assert attributes
    assert " ".join(re.findall(r'"(.*?)"', attributes[1])) in types
    told = set(re.findall(r'"((?:portal|sso|directory|session)-\w+)"', module)) - {"session-expired"}
    assert told <= set(re.findall(r'"([a-z-]+)": CustomEvent', types)) | set(re.findall(r'\| "([a-z-]+)"', types))
    assert len(re.findall(r'^  "[a-z-]+": CustomEvent', types, re.MULTILINE)) == 8
    reasons = re.search(r"errors: \{\n(.*?)\n  \},", module, re.DOTALL)
    assert reasons
    assert set(re.findall(r'^    "?([a-z-]+)"?: "', reasons[1], re.MULTILINE)) == set(re.findall(r'^  \| "([a-z-]+)"', types, re.MULTILINE))
