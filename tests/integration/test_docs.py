"""The API describes itself wholly, on a page that asks no other origin for anything."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient

from databases import Databases
from service import running

ORIGIN = "http://testserver"


@pytest.fixture(scope="module")
def client(sqlite_databases: Databases) -> Iterator[TestClient]:
    """The service."""
    with sqlite_databases.fresh(migrated=True) as url, running(url) as client:
        yield client


@pytest.fixture(scope="module")
def description(client: TestClient) -> dict[str, Any]:
    """The OpenAPI description."""
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation by its name."""
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


class Page(HTMLParser):
    """What a page loads, and what it runs by itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag loads or holds."""
        given = dict(attrs)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        if tag in {"script", "link", "img", "iframe"}:
            self.loads.append(given.get("src") or given.get("href") or "")


def test_every_operation_is_described(description: dict[str, Any]) -> None:
    """With a summary, a description, and each error as a problem with an example."""
    for name, operation in operations(description):
        assert operation["summary"], name
        assert operation["description"], name
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert errors, name
        for status, answer in errors.items():
            content = answer["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
            assert content["example"]["status"] == int(status), name


def test_whatever_takes_a_body_says_what_may_be_wrong_with_it(description: dict[str, Any]) -> None:
    """It may be too slow, too large, or too much beside the others'."""
    taking = {name: operation["responses"].keys() for name, operation in operations(description) if "requestBody" in operation}
    assert len(taking) > 6
    assert [name for name, answers in taking.items() if not {"408", "413", "503"} <= answers] == []


def test_a_wrong_method_is_told_every_right_one(client: TestClient, description: dict[str, Any]) -> None:
    """Though each is a route of its own. (What is beside the replay of all deliveries is the delivery `replay`.)"""
    for path, item in description["paths"].items():
        answer = client.patch(path)
        beside = {"GET"} if path == "/v1/deliveries/replay" else {"OPTIONS"} if path.endswith("/portal-links") else set()
        assert (answer.status_code, {*answer.headers["allow"].split(", ")}) == (405, {*map(str.upper, item), *beside})


def test_every_operation_has_a_name_of_its_own(description: dict[str, Any]) -> None:
    """Short and unique: a generated client's functions are called by it."""
    names = [operation["operationId"] for _, operation in operations(description)]
    assert len(set(names)) == len(names)
    assert {"list_users", "receive_webhook", "make_portal_link"} <= set(names)


def test_every_shape_has_a_name_of_its_own(description: dict[str, Any]) -> None:
    """Two of one name would go by their modules' names, in every generated client too."""
    assert [name for name in description["components"]["schemas"] if "__" in name] == []


def test_every_answer_has_an_example(description: dict[str, Any]) -> None:
    """Each text, number and time of our shapes, so that the page shows what to expect."""
    plain = {"Invalid", "Problem", "HTTPValidationError"}
    for name, schema in description["components"]["schemas"].items():
        for field, about in schema.get("properties", {}).items():
            simple = about.get("type") in {"string", "integer"} or "format" in about
            assert not simple or name in plain or "examples" in about or "const" in about, f"{name}.{field}"


def test_whatever_needs_a_key_says_so(description: dict[str, Any]) -> None:
    """A security scheme, and 401, 403 and 503 among its answers."""
    assert description["components"]["securitySchemes"]["API key"]["scheme"] == "bearer"
    for name, operation in operations(description):
        if "/v1/" in name or name.endswith("/metrics"):
            visitors = ["Visitor's token"] if name.endswith("/portal-links") else []
            assert operation["security"] == [{scheme: []} for scheme in ("API key", *visitors)], name
            assert {"401", "403", "503"} <= operation["responses"].keys(), name
        else:
            assert "security" not in operation, name


def test_every_reference_leads_somewhere(client: TestClient, description: dict[str, Any]) -> None:
    """The description is closed in itself."""
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', client.get("/openapi.json").text))
    assert referred <= description["components"]["schemas"].keys()


def test_the_page_loads_from_here_and_runs_nothing_inline(client: TestClient) -> None:
    """Under a content security policy that allows nothing else."""
    answer = client.get("/docs")
    policy = dict(directive.strip().split(" ", 1) for directive in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert all("unsafe" not in sources and "http" not in sources for sources in policy.values())
    page = Page(answer.text)
    assert page.inline == []
    assert len(page.loads) >= 4
    for loaded in page.loads:
        address = urljoin(f"{ORIGIN}/docs", loaded)
        assert address.startswith(f"{ORIGIN}/")
        asset = client.get(urlsplit(address).path)
        assert asset.status_code == 200, loaded
        assert asset.headers["x-content-type-options"] == "nosniff"


def test_the_page_loads_under_a_proxys_prefix(client: TestClient) -> None:
    """Every address in it is relative."""
    html, script = client.get("/docs").text, client.get("/docs/start.js").text
    assert all(not loaded.startswith(("/", "http")) for loaded in Page(html).loads)
    assert 'url: "openapi.json"' in script


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "%00", "__init__.py", "start.js%2F", ""])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    """No file but those of the page."""
    assert client.get(f"/docs/{name}").status_code == 404
