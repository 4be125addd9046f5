"""No request, with a key or without, makes the service fail: whatever stands in its path, its query and its headers."""

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from provisioning.api.paging import cursor
from provisioning.api.problems import MEDIA_TYPE
from service import OPERATE_KEY, READ_KEY, running

PATHS = (
    "/v1/organizations",
    "/v1/organizations/{}/users",
    "/v1/organizations/{}/users/{}",
    "/v1/organizations/{}/groups",
    "/v1/organizations/{}/groups/{}",
    "/v1/organizations/{}/groups/{}/members",
    "/v1/organizations/{}/directories",
    "/v1/organizations/{}/reconciliations",
    "/v1/organizations/{}/reconciliations/{}",
    "/v1/deliveries",
    "/v1/deliveries/{}",
    "/docs/{}",
    "/{}",
)
PARAMETERS = ("limit", "cursor", "email", "active", "group_id", "role", "directory_user_id", "include_deleted")
HEADERS = ("authorization", "x-request-id", "host", "content-length", "accept", "transfer-encoding", "webhook-id")

# Percent-encoded bytes: NUL, what is not UTF-8, surrogates (ED A0 80) and all the rest.
raw = st.one_of(
    st.sampled_from(["%00", "a%00b", "%ED%A0%80", "%FF%FE", "%F4%90%80%80", "..%2F..", "%25", "-1", "0", "9" * 30, "1e9", "null", "true"]),
    st.binary(min_size=1, max_size=20).map(quote),
    st.text(min_size=1, max_size=20).map(lambda text: quote(text.encode("utf-8", "surrogatepass"))),
    st.text(alphabet="abcABC123_-", min_size=600, max_size=700),
)
# Cursors as if this service had made them, of places that it never gave.
places = st.text(max_size=20) | st.sampled_from(["0:\x00", "0:", f"{'9' * 40}:x", f"-{'9' * 18}:x", "٣:x", "1_0:x", " 1:x"])
cursors = st.builds(cursor, st.sampled_from(["users", "groups", "directories", "organizations", "reconciliations", "deliveries"]), places)
parameters = st.tuples(st.sampled_from(PARAMETERS), raw) | st.tuples(st.just("cursor"), cursors)
headers = st.dictionaries(st.sampled_from(HEADERS), st.binary(max_size=40), max_size=3)


@pytest.fixture(scope="module", params=("sqlite", "postgresql"))
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """One service for all examples: they only read."""
    databases = request.getfixturevalue(f"{request.param}_databases")
    with ExitStack() as stack:
        url = stack.enter_context(databases.fresh(migrated=True))
        yield stack.enter_context(running(url))


@given(
    path=st.sampled_from(PATHS),
    parts=st.tuples(raw, raw),
    query=st.lists(parameters, max_size=4),
    key=st.sampled_from([None, READ_KEY, OPERATE_KEY]),
    odd=headers,
)
def test_no_request_makes_the_service_fail(
    client: TestClient,
    path: str,
    parts: tuple[str, str],
    query: list[tuple[str, str]],
    key: str | None,
    odd: dict[str, bytes],
) -> None:
    """Every answer is a success or a problem that says what the caller did wrong."""
    url = path.format(*parts) + "?" + "&".join(f"{name}={value}" for name, value in query)
    sent = {**({"authorization": f"Bearer {key}".encode()} if key else {}), **odd}
    answer = client.get(url, headers=[(name.encode(), value) for name, value in sent.items()])
    assert answer.status_code < 500, answer.text
    assert answer.status_code < 400 or answer.headers["content-type"] == MEDIA_TYPE
