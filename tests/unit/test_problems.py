"""Every failure is answered as one kind of problem, which tells the caller what to do and nothing else."""

import inspect
import re
from collections.abc import Iterator
from typing import Annotated

import pytest
from fastapi import FastAPI, HTTPException, Query
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from starlette.middleware import Middleware
from structlog.testing import capture_logs

from provisioning import errors
from provisioning.api import problems
from provisioning.api.edge import Edge

CANARY = "canary-5d1f7c0a"
# At this edge these would be faults of ours.
FAULTS = {errors.ProvisioningError, errors.ConfigurationError, errors.Unreadable, errors.ScalekitError, errors.ClockOff}
TREE = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.ProvisioningError)]


class Asked(BaseModel):
    """A body."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    number: int


class Raises:
    """What the next request raises."""

    error: BaseException = Exception()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """An application whose only fault is the one that a test gives it."""
    app = FastAPI(middleware=[Middleware(Edge)], redirect_slashes=False)
    problems.install(app)

    @app.get("/raises")
    def raises() -> None:
        raise Raises.error

    @app.get("/query")
    def query(limit: Annotated[int, Query(le=200)]) -> None:
        """Take a number."""

    @app.post("/body")
    def body(asked: Asked) -> None:
        """Take a body."""

    with TestClient(app) as client:
        yield client


def error(kind: type[errors.ProvisioningError]) -> errors.ProvisioningError:
    """One of this kind, which says something."""
    if issubclass(kind, errors.Refused):
        return kind("missing", "said")
    return kind("said", CANARY) if issubclass(kind, errors.ScalekitError) else kind("said")


@pytest.mark.parametrize("kind", [kind for kind in TREE if kind not in FAULTS])
def test_each_failure_of_ours_has_its_answer(client: TestClient, kind: type[errors.ProvisioningError]) -> None:
    """A row of its own in the table; the message is the detail, and what the vendor said is for the log only."""
    assert kind in problems.KINDS
    Raises.error = error(kind)
    with capture_logs() as logs:
        answer = client.get("/raises")
    problem = answer.json()
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    assert (problem["status"], problem["detail"]) == (answer.status_code, "said")
    assert problem["type"].startswith("urn:provisioning:problem:")
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert CANARY not in answer.text
    asked = issubclass(kind, errors.ScalekitError) and kind is not errors.ScalekitNotConfigured
    assert (CANARY in repr(logs)) == asked


def test_no_two_failures_look_alike() -> None:
    """Each has a type and a title of its own."""
    for fact in ("type", "title"):
        assert len({getattr(kind, fact) for kind in problems.KINDS.values()}) == len(problems.KINDS)


@pytest.mark.parametrize(
    ("raised", "seconds"),
    [
        (errors.Unavailable(), "5"),
        (errors.Unavailable(retry_after=1), "1"),
        (errors.ScalekitUnavailable("x"), "5"),
        (errors.NotFound("x"), None),
    ],
)
def test_whoever_may_try_again_is_told_when(client: TestClient, raised: Exception, seconds: str | None) -> None:
    """Retry-After, in seconds."""
    Raises.error = raised
    assert client.get("/raises").headers.get("retry-after") == seconds


@pytest.mark.parametrize(
    "raised",
    [ValueError(CANARY), KeyError(CANARY), *map(error, FAULTS - {errors.ScalekitError}), ExceptionGroup(CANARY, [ValueError(CANARY)])],
)
def test_what_nobody_expected_is_logged_and_not_told(client: TestClient, raised: Exception) -> None:
    """500 with the request id; the log has the class and the place."""
    Raises.error = raised
    with capture_logs() as logs:
        answer = client.get("/raises")
    assert (answer.status_code, answer.headers["content-type"]) == (500, problems.MEDIA_TYPE)
    assert "said" not in answer.text
    assert CANARY not in answer.text + repr(logs)
    assert type(raised).__name__ in logs[0]["error"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429, 500, 503])
def test_a_plain_http_error_is_a_problem_too(client: TestClient, status: int) -> None:
    """With its own detail, and its headers."""
    Raises.error = HTTPException(status, "why", {"X-Odd": "1"})
    answer = client.get("/raises")
    assert (answer.status_code, answer.json()["detail"], answer.headers["x-odd"]) == (status, "why", "1")
    assert answer.json()["type"] == "about:blank"


def test_unknown_routes_and_methods_are_problems(client: TestClient) -> None:
    """404, and 405 which says what is allowed."""
    unknown, wrong = client.get("/nowhere"), client.delete("/query")
    assert (unknown.status_code, unknown.json()["title"]) == (404, "Not Found")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    assert {answer.headers["content-type"] for answer in (unknown, wrong)} == {problems.MEDIA_TYPE}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (f'{{"number": "{CANARY}"}}', "body.number"),
        (f'{{"number": 1, "{CANARY}": 1}}', "body"),
        (f'{{"{CANARY}"', "body.18"),
        (f'["{CANARY}"]', "body"),
    ],
)
def test_a_wrong_request_hears_where_and_not_what(client: TestClient, body: str, where: str) -> None:
    """422 with the place of each thing that is wrong; neither its value nor a name that the caller made up."""
    answer = client.post("/body", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, problems.MEDIA_TYPE)
    assert where in {each["where"] for each in answer.json()["errors"]}
    assert CANARY not in answer.text


def test_a_wrong_query_hears_where_and_not_what(client: TestClient) -> None:
    """The bound is named, the value is not."""
    assert client.get("/query", params={"limit": 1234567}).json()["errors"] == [
        {"where": "query.limit", "message": "Input should be less than or equal to 200"}
    ]


@given(given_id=st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=255), max_size=80))
def test_a_request_id_is_taken_over_if_it_is_sane(client: TestClient, given_id: str) -> None:
    """1 to 64 letters, digits, dashes and underscores, which no e-mail address is; else the service makes one."""
    answer = client.get("/query", headers=[(b"x-request-id", given_id.encode("latin-1"))])
    sane = 1 <= len(given_id) <= 64 and re.fullmatch("[A-Za-z0-9_-]+", given_id) is not None
    assert (answer.headers["x-request-id"] == given_id) == sane
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_head_is_answered_as_get(client: TestClient) -> None:
    """The same status and headers (RFC 9110, section 9.3.2); that it has no body is the server's doing."""
    head, get = client.head("/query"), client.get("/query")
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_the_access_line_has_the_template_and_not_the_path(client: TestClient) -> None:
    """Paths and queries hold personal data."""
    with capture_logs() as logs:
        client.get(f"/query?limit=1&email={CANARY}")
        client.get(f"/{CANARY}")
    lines = [(line["method"], line["route"], line["status"]) for line in logs]
    assert lines == [("GET", "/query", 200), ("GET", None, 404)]
    assert CANARY not in repr(logs)
