"""The operations page: who gets in and for how long, what is done from where, and that nothing in it is more than text."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from urllib.parse import quote, urlencode

import pytest
import time_machine
from fastapi import FastAPI
from fastapi.routing import APIRoute
from httpx2 import Response
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from databases import Databases
from factories import event
from operations import HERE, MARKUP, PAGES, Visit, fill, heading, visiting
from provisioning.api.admin.route import way_back
from provisioning.api.attempts import ADDRESSES, Attempts
from provisioning.api.changes import change_id
from provisioning.db import refusals
from provisioning.db.lanes import given_up
from provisioning.db.models import deliveries, hook_dead_letters, hook_lanes, hooks, operator_sessions
from provisioning.db.reading.changes import Place
from provisioning.db.session import Database
from rows import NOW, put
from service import OPERATE_KEY, PORTAL_KEY, READ_KEY, bearer, signed

COOKIE = "__Host-provisioning"
OTHER_KEY = "other".ljust(32, "1")
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
KEPT = {"organization_id": "org_1", "received_at": NOW, "attempts": 1}


@pytest.fixture
def visit(database_url: str) -> Iterator[Visit]:
    """Somebody who is not logged in, and knows every key."""
    with visiting(database_url) as visit:
        yield visit


@pytest.fixture
def operator(visit: Visit) -> Visit:
    """Somebody who is."""
    assert visit.log_in().status_code == 303
    return visit


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A service where everything that others say is markup, and its operator."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    with databases.fresh(migrated=True) as url, time_machine.travel(NOW + timedelta(hours=1), tick=True):
        database = Database(url)
        fill(database)
        database.close()
        with visiting(url) as visit:
            assert visit.log_in().status_code == 303
            yield visit


def sessions(database: Database) -> list[dict[str, object]]:
    """What is kept of logins."""
    with database.reading() as session:
        return [dict(row) for row in session.execute(select(operator_sessions)).mappings()]


def is_out(answer: Response) -> bool:
    """Whether it leads to the login."""
    return answer.status_code == 303 and answer.headers["location"].startswith("/admin/login")


# Logging in


def test_who_logs_in_comes_to_the_page_asked_for(visit: Visit) -> None:
    """Without a session every page leads to the login, which leads back: 303 each time."""
    asked = visit.get("/admin/deliveries?outcome=failed")
    assert (asked.status_code, asked.headers["location"]) == (303, "/admin/login?next=%2Fadmin%2Fdeliveries%3Foutcome%3Dfailed")
    assert 'value="/admin/deliveries?outcome=failed"' in visit.get(asked.headers["location"]).text
    on = visit.log_in(wanted="/admin/deliveries?outcome=failed")
    assert on.status_code == 303
    assert visit.get(on.headers["location"]).headers["location"] == "/admin/deliveries?outcome=failed"
    assert visit.heading("/admin/deliveries?outcome=failed") == "Deliveries"


def test_the_session_is_the_browsers_alone(visit: Visit, database: Database) -> None:
    """The cookie goes back to this host, over https, in no other site's requests, for 8 hours; the database has no way to make it."""
    cookie = visit.log_in().headers["set-cookie"]
    name, _, rest = cookie.partition("=")
    token, *attributes = rest.split("; ")
    assert (name, len(token)) == (COOKIE, 43)
    assert {each.lower() for each in attributes} == {"httponly", "secure", "path=/", "samesite=strict", "max-age=28800"}
    (kept,) = sessions(database)
    assert kept["key_name"] == "operator"
    assert not {token, OPERATE_KEY} & set(map(str, kept.values()))
    assert timedelta(hours=7, minutes=59) < kept["expires_at"] - datetime.now(UTC) <= timedelta(hours=8)  # type: ignore[operator]


def test_a_key_that_may_not_operate_is_told_so(visit: Visit, database: Database) -> None:
    """403, in words, and nothing of the key in the page."""
    words = {READ_KEY: "reader lacks the scope operate", PORTAL_KEY: "frontend lacks", "x" * 32: "not an API key", "": "not an API key"}
    for key, said in words.items():
        answer = visit.log_in(key)
        assert (answer.status_code, said in answer.text) == (403, True)
        assert not key or key not in answer.text
        assert "set-cookie" not in answer.headers
    assert sessions(database) == []


@pytest.mark.parametrize("keys", ["", f"reader:read:{READ_KEY}"])
def test_without_a_key_that_may_operate_nobody_logs_in(sqlite_databases: Databases, keys: str) -> None:
    """503, with what to configure."""
    with sqlite_databases.fresh(migrated=True) as url, visiting(url, api_keys=keys) as visit:
        for answer in (visit.get("/admin/login"), visit.log_in(READ_KEY)):
            assert (answer.status_code, "PROVISIONING_API_KEYS" in answer.text) == (503, True)


def test_a_bearer_key_opens_no_page(visit: Visit) -> None:
    """Nor a session the API."""
    for key in (READ_KEY, OPERATE_KEY):
        assert is_out(visit.client.get("/admin/deliveries", headers={"Authorization": f"Bearer {key}"}))
    visit.log_in()
    assert visit.get("/v1/deliveries").status_code == 401


def test_every_page_but_the_login_is_closed(visit: Visit) -> None:
    """Each route under /admin, in each of its methods, and what is no route: nobody learns which of them there are."""
    assert isinstance(visit.client.app, FastAPI)
    routes = _routes(visit.client.app)
    assert len(routes) > 15
    for method, path in routes:
        if path not in {"/admin/login", "/admin/admin.css"}:
            assert is_out(visit.client.request(method, re.sub(r"{.*?}", "x", path), headers={"Origin": HERE})), (method, path)
    assert is_out(visit.get("/admin/nothing"))


def _routes(app: FastAPI) -> list[tuple[str, str]]:
    seen: list[tuple[str, str]] = []

    def collect(routes: object) -> None:
        for route in routes:  # type: ignore[attr-defined]
            if isinstance(route, APIRoute):
                seen.extend((method, route.path.replace(":path", "")) for method in route.methods or () if route.path.startswith("/admin"))
            else:
                collect(getattr(getattr(route, "original_router", route), "routes", ()))

    collect(app.routes)
    return sorted(set(seen))


@given(
    text=st.text(max_size=30) | st.sampled_from(["https://x.example", "//x.example", "/admin//../..", "/admin/%2e%2e/v1", "/administrator"])
)
def test_the_way_back_never_leads_elsewhere(text: str) -> None:
    """Only to a path of these pages, however it is written."""
    assert way_back(text) == "/admin"
    for inside in ("/admin", "/admin/deliveries?a=%2F..", "/admin/organizations/%3Cx"):
        assert way_back(inside) == inside


# Staying in


def test_logging_out_ends_the_session_for_whoever_has_the_cookie(operator: Visit, database: Database) -> None:
    """In the database, too."""
    token = operator.client.cookies[COOKIE]
    assert operator.do("/admin/logout").headers["location"] == "/admin/login?did=logged-out"
    assert sessions(database) == []
    assert is_out(operator.client.get("/admin", headers={"Cookie": f"{COOKIE}={token}"}))


def test_logging_in_again_ends_the_session_before(operator: Visit, database: Database) -> None:
    """That of the same browser, whoever began it; not one of another browser, nor by a login that fails."""
    first = operator.client.cookies[COOKIE]
    operator.log_in(READ_KEY)
    assert operator.get("/admin").status_code == 200
    operator.log_in()
    assert len(sessions(database)) == 1
    assert is_out(operator.client.get("/admin", headers={"Cookie": f"{COOKIE}={first}"}))
    operator.client.cookies.clear()
    operator.log_in()
    assert len(sessions(database)) == 2


def test_a_session_lasts_eight_hours(database_url: str, database: Database) -> None:
    """Then it is void, and forgotten when somebody logs in."""
    with time_machine.travel(datetime(2026, 11, 22, 9, 30, tzinfo=UTC), tick=False) as clock, visiting(database_url) as visit:
        visit.log_in()
        cookie = {"Cookie": f"{COOKIE}={visit.client.cookies[COOKIE]}"}
        clock.shift(timedelta(hours=7, minutes=59))
        assert visit.client.get("/admin", headers=cookie).status_code == 200
        clock.shift(timedelta(minutes=2))
        assert is_out(visit.client.get("/admin", headers=cookie))
        visit.log_in()
        assert len(sessions(database)) == 1


def test_a_session_goes_with_its_key(database_url: str) -> None:
    """At the next request to a service that was started with the key removed, replaced, renamed, or without its right to operate."""
    with visiting(database_url) as visit:
        visit.log_in()
        cookie = {"Cookie": f"{COOKIE}={visit.client.cookies[COOKIE]}"}
    other = f"other:operate:{OTHER_KEY}"
    changed = (other, f"operator:operate:{OTHER_KEY}", f"renamed:operate:{OPERATE_KEY}", f"operator:read:{OPERATE_KEY} {other}")
    for keys in changed:
        with visiting(database_url, api_keys=keys) as visit:
            assert is_out(visit.client.get("/admin", headers=cookie)), keys
    with visiting(database_url) as visit:  # another process with the same keys
        assert visit.client.get("/admin", headers=cookie).status_code == 200


@given(cookie=st.binary(min_size=1, max_size=60))
def test_no_cookie_is_too_odd_to_be_refused(odd: Visit, cookie: bytes) -> None:
    """Whatever bytes stand there."""
    assert is_out(odd.client.get("/admin", headers=[(b"cookie", COOKIE.encode() + b"=" + cookie)]))


@pytest.fixture(scope="module")
def odd(sqlite_databases: Databases) -> Iterator[Visit]:
    """One for all examples."""
    with sqlite_databases.fresh(migrated=True) as url, visiting(url) as visit:
        yield visit


# Trying keys


def test_the_sixth_login_of_a_minute_waits(visit: Visit) -> None:
    """429 with Retry-After, with the right key as well. A login that succeeds does not count."""
    for _ in range(6):
        assert visit.log_in().status_code == 303
    assert [visit.log_in(key).status_code for key in (*["wrong"] * 5, OPERATE_KEY)] == [403] * 5 + [429]
    refused = visit.log_in()
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert "Come again in" in refused.text
    assert "set-cookie" not in refused.headers


def test_a_minute_later_an_address_is_heard_again() -> None:
    """Each failure counts for a minute; one that is forgiven not at all."""
    moments = iter([0, 0, 10, 20, 30, 40, 40.5, 59.9, 60, 60.1])
    attempts = Attempts(clock=lambda: next(moments))
    attempts.begin("host")
    attempts.forgive("host")
    assert [attempts.begin("host") for _ in range(9)] == [0] * 5 + [20, 1, 0, 10]


def test_addresses_are_told_apart_and_not_kept_for_ever() -> None:
    """Another address is heard; of IPv6 a whole network counts as one; what is remembered is bounded."""
    attempts = Attempts(clock=lambda: 0.0)
    for each in range(5):
        assert attempts.begin("192.0.2.1") == attempts.begin(f"2001:db8:1:2::{each}") == 0
    assert attempts.begin("192.0.2.1") == attempts.begin("2001:db8:1:2:ffff::") == 60
    assert attempts.begin("192.0.2.2") == attempts.begin("2001:db8:1:3::") == attempts.begin("::ffff:192.0.2.3") == 0
    for each in range(ADDRESSES):
        attempts.begin(f"host {each}")
    assert attempts.begin("192.0.2.1") == 0


# From where


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://testserver.evil.example"},
    {"Origin": "https://testserver:8443"},
    {"Origin": "http://testserver"},
    {"Origin": "https://testserver:x"},
    {"Origin": "ftp://testserver"},
    {"Origin": ""},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin", "Referer": f"{HERE}/admin"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none", "Referer": f"{HERE}/admin"},
    {"Referer": "https://evil.example/testserver"},
    {},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=repr)
def test_no_other_site_sends_a_form(filled: Visit, headers: dict[str, str]) -> None:
    """403, whatever token comes with it, and nothing is done; the login is no exception."""
    token = filled.token()
    answer = filled.client.post("/admin/deliveries/dead/dismiss", data={"token": token, "reason": "x"}, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert filled.client.post("/admin/login", data={"key": OPERATE_KEY}, headers=headers).status_code == 403
    assert "Dismiss</button>" in filled.get("/admin/deliveries/dead").text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": HERE},
        {"Origin": "https://testserver:443"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Referer": f"{HERE}/admin/deliveries"},
        {"Origin": "https://ops.example.com", "Host": "ops.example.com"},
        {"Origin": "https://ops.example.com", "Host": "ops.example.com:443"},
    ],
    ids=repr,
)
def test_this_site_is_what_the_host_says(filled: Visit, headers: dict[str, str]) -> None:
    """As a proxy passes it on, with the port that goes without saying or without."""
    assert filled.client.post("/admin/login", data={"key": OPERATE_KEY}, headers=headers).status_code == 303


def test_behind_a_proxy_that_ends_tls_the_scheme_is_the_browsers_to_know(sqlite_databases: Databases) -> None:
    """The service is asked over http, and the page is at https."""
    with sqlite_databases.fresh(migrated=True) as url, visiting(url) as visit:
        visit.client.base_url = "http://testserver"
        for origin in (HERE, "http://testserver"):
            assert visit.log_in(Origin=origin).status_code == 303


@pytest.mark.parametrize("token", ["", "0" * 64, "é", None])
def test_a_form_without_the_sessions_token_does_nothing(filled: Visit, token: str | None) -> None:
    """403: also with that of another login."""
    first = filled.token()
    filled.log_in()
    sent = {"reason": "x", **({} if token is None else {"token": token})}
    for fields in (sent, {**sent, "token": first}):
        answer = filled.client.post("/admin/deliveries/dead/dismiss", data=fields, headers={"Origin": HERE})
        assert answer.status_code == 403
        assert "Dismiss</button>" in filled.get("/admin/deliveries/dead").text


@pytest.mark.parametrize(
    ("content", "type_", "status"),
    [
        ("token={token}&reason=a&reason=b", "application/x-www-form-urlencoded", 400),
        ("token={token}&reason=%00", "application/x-www-form-urlencoded", 400),
        ("token={token}&reason=%FF", "application/x-www-form-urlencoded", 400),
        ("token={token}&reason", "application/x-www-form-urlencoded", 400),
        ("token={token}" + "".join(f"&f{each}=1" for each in range(30)), "application/x-www-form-urlencoded", 400),
        ("token={token}&reason=", "application/x-www-form-urlencoded", 422),
        ("token={token}&reason=" + "x" * 501, "application/x-www-form-urlencoded", 422),
        ("token={token}&reason=%0A%01x", "application/x-www-form-urlencoded", 422),
        ("token={token}&reason=" + "x" * 2**20, "application/x-www-form-urlencoded", 413),
        ('{{"token": "{token}", "reason": "x"}}', "application/json", 415),
        ("", "application/x-www-form-urlencoded", 403),
    ],
)
def test_a_form_that_cannot_be_right_is_told_so(filled: Visit, content: str, type_: str, status: int) -> None:
    """In words, on a page, and nothing is done."""
    body = content.format(token=filled.token())
    answer = filled.client.post("/admin/deliveries/dead/dismiss", content=body, headers={"Origin": HERE, "Content-Type": type_})
    assert answer.status_code == status
    assert heading(answer)
    assert "Dismiss</button>" in filled.get("/admin/deliveries/dead").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/nothing", 404),
        ("/admin/deliveries/none", 404),
        ("/admin/deliveries/%00", 422),
        ("/admin/deliveries/" + "x" * 600, 422),
        ("/admin/deliveries?cursor=none", 422),
        ("/admin/deliveries?outcome=none", 422),
        ("/admin/deliveries?received_after=yesterday", 422),
        ("/admin/deliveries?received_after=0001-01-01T00:00%2B14:00", 422),
        ("/admin/deliveries?type=%00", 422),
        ("/admin/deliveries?tpye=x", 422),
        ("/admin/organizations/none", 404),
        ("/admin/organizations/none/groups", 404),
        ("/admin/organizations/none/directories", 404),
        ("/admin/organizations/none/users/none", 404),
        ("/admin/organizations/none/groups/none", 404),
        ("/admin/organizations/none/runs/none", 404),
        ("/admin/organizations/none/runs?cursor=dXNlcnM6eA", 422),
        ("/admin/organizations?cursor=%F0%9F", 422),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(filled: Visit, path: str, status: int) -> None:
    """With the API's status, as HTML, under the same policy."""
    answer = filled.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == POLICY
    assert heading(answer)


def test_other_methods_are_told_so_on_a_page(filled: Visit) -> None:
    """Not as a problem of the API."""
    for method, path in (("PUT", "/admin"), ("DELETE", "/admin/deliveries"), ("PATCH", "/admin/deliveries/x")):
        answer = filled.client.request(method, path, data={"token": filled.token()}, headers={"Origin": HERE})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


def test_while_the_database_is_away_a_page_says_so(sqlite_databases: Databases) -> None:
    """503, with when to come again."""
    with sqlite_databases.fresh(migrated=False) as url, visiting(url) as visit:
        for answer in (visit.client.get("/admin", headers={"Cookie": f"{COOKIE}=x"}), visit.log_in()):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "provisioning migrate" in answer.text


@example(path="deliveries/{}", ids=("/\n", ""), query={})
@given(
    path=st.sampled_from(["deliveries/{}", "organizations/{}", "organizations/{}/users/{}", "organizations/{}/groups/{}", "{}"]),
    ids=st.tuples(st.text(min_size=1), st.text(min_size=1)),
    query=st.dictionaries(st.sampled_from(["cursor", "history", "who", "active", "outcome", "received_after", "person", "id"]), st.text()),
)
def test_no_address_makes_a_page_fail(filled: Visit, path: str, ids: tuple[str, str], query: dict[str, str]) -> None:
    """Whatever an operator, or a link that one follows, asks for."""
    address = f"/admin/{path.format(*(quote(each, safe='', errors='surrogatepass') for each in ids))}"
    answer = filled.get(f"{address}?{urlencode(query, errors='surrogatepass')}")
    assert answer.status_code < 500
    assert answer.status_code in {303, 307} or answer.headers["content-type"] == "text/html; charset=utf-8"


# What is on the pages


class Parsed(HTMLParser):
    """A page as a browser takes it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.append((tag, dict(attrs)))

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        """The attributes of every element of these names."""
        return [attributes for tag, attributes in self.tags if tag in tags]


@pytest.mark.parametrize("path", PAGES)
def test_what_others_say_is_text_on_every_page(filled: Visit, path: str) -> None:
    """No element comes out of it, no attribute ends early; and each page is one that assistive technology finds its way in."""
    answer = filled.get(path)
    assert answer.status_code in {200, 404, 422}, answer.text
    page = Parsed(answer.text)
    assert page.all("img", "script", "style", "iframe", "base") == []
    assert [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"] == []
    assert answer.status_code == 404 or "&lt;img src=x" in answer.text
    assert {each["href"] for each in page.all("link")} == {"/docs/favicon-32x32.png", "/admin/admin.css"}
    assert all(str(each["href"]).startswith(("/admin", "#main")) for each in page.all("a"))
    assert answer.headers["content-security-policy"] == POLICY
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "same-origin")

    assert [len(page.all(tag)) for tag in ("h1", "title", "main", "header", "footer")] == [1] * 5
    assert page.all("html") == [{"lang": "en"}]
    labelled = {each["for"] for each in page.all("label")}
    assert all(each["id"] in labelled for each in page.all("input", "select", "progress") if each.get("type") != "hidden")
    assert all(each["scope"] in {"col", "row"} for each in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))
    ids = [each["id"] for _, each in page.tags if "id" in each]
    assert len(ids) == len(set(ids))
    posts = [each for each in page.all("form") if each.get("method") == "post"]
    assert len(posts) == len([each for each in page.all("input") if each.get("name") == "token"])
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z", str(each["datetime"])) for each in page.all("time"))


def test_the_overview_says_what_needs_attention_and_what_to_do(filled: Visit) -> None:
    """Failed, dead-lettered, refused, waiting and stuck; what is dismissed is not among it."""
    page = filled.get("/admin").text
    for said in (
        "1 delivery failed",
        "1 delivery dead lettered",
        "214",
        "SCALEKIT_WEBHOOK_SECRET",
        "needs approval",
        "stuck",
        "3 messages were given up",
    ):
        assert said in re.sub(r"\s+", " ", page), said
    assert 'href="/admin/deliveries/dismissed"' not in page
    assert 'href="/admin/deliveries/dead"' in page
    attention, _, rest = page.partition('aria-labelledby="accepted"')
    assert "headers malformed" not in attention
    assert "Also refused" in rest
    assert "headers malformed" in rest


def test_where_nothing_happened_the_overview_is_calm(operator: Visit) -> None:
    """And asks for an endpoint in the dashboard."""
    page = operator.get("/admin").text
    assert "Nothing does." in page
    assert "None yet. Has Scalekit" in page
    assert "no application is told of changes" in page


def test_what_is_refused_needs_attention_until_one_is_accepted(operator: Visit, database: Database) -> None:
    """As `check` has it: what was refused before is over, and what anybody causes is said, but asks for nothing."""
    with database.writing() as session:
        refusals.add(session, {"signature": 7}, NOW - timedelta(days=3))
    assert "7</td>" in operator.get("/admin").text
    put(database, deliveries, {**KEPT, "webhook_id": "msg_1", "outcome": "processed"})
    with database.writing() as session:
        refusals.add(session, {"signature": 8}, NOW)
        refusals.add(session, {"missing": 9}, NOW + timedelta(minutes=1))
    page = operator.get("/admin").text
    assert "Nothing does." in page
    assert re.findall(r"(\d+)</td>", page) == ["9"]


def test_a_person_is_found_by_what_an_operator_has(operator: Visit) -> None:
    """An e-mail, our id, a directory user's id or the application's lead to the person; the page says why."""
    body, of = event("user_created", "diruser_1", email="ada@example.com"), "/admin/organizations/org_1"
    operator.client.post("/webhooks/scalekit", content=body, headers=signed(body)).raise_for_status()
    user = re.search(r"/users/(usr_\w+)", operator.get(of).text)
    assert user
    path, called = f"/v1/organizations/org_1/users/{user[1]}/application-id", {"application_id": "app-42"}
    operator.client.put(path, json=called, headers=bearer(OPERATE_KEY)).raise_for_status()
    for who in (user[1], "diruser_1", "app-42", "ada@example.com", " ADA@example.com"):
        assert operator.client.get(of, params={"who": who}).headers["location"] == f"{of}/users/{user[1]}"
    assert "Nobody matches" in operator.client.get(of, params={"who": "nobody@example.com"}).text
    page = operator.get(f"{of}/users/{user[1]}").text
    for said in ("Has access", "is active in its directory", "came, with access", "<code>app-42</code>", "/admin/deliveries/msg_1"):
        assert said in page, said


def test_deliveries_are_narrowed_down_and_paged(operator: Visit, database: Database) -> None:
    """By each filter, a page at a time, each once; the next page keeps the filters."""
    rows = [{**KEPT, "webhook_id": f"msg_{each:03}", "outcome": "failed" if each % 2 else "processed"} for each in range(120)]
    put(database, deliveries, *[{**row, "received_at": NOW + timedelta(seconds=each)} for each, row in enumerate(rows)])
    seen, path = [], "/admin/deliveries?outcome=failed&organization_id=org_1&dismissed=false&person=&type="
    while path:
        page = operator.get(path).text
        seen += re.findall(r'href="/admin/deliveries/(msg_\d+)"', page)
        following = re.search(r'class="button" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert seen == [f"msg_{each:03}" for each in reversed(range(1, 120, 2))]
    window = operator.get("/admin/deliveries?received_after=2026-11-22T09:30&received_before=2026-11-22T09:31").text
    assert re.findall(r'href="/admin/deliveries/(msg_\d+)"', window)[0] == "msg_059"
    assert "msg_" not in operator.get("/admin/deliveries?dismissed=true").text


# What is done on them


def test_a_delivery_is_replayed_and_dismissed_by_name(operator: Visit, database: Database) -> None:
    """As the API does it; the log and the record say who."""
    body = event("user_created", "diruser_1", email="ada@example.com")
    put(
        database,
        deliveries,
        {**KEPT, "webhook_id": "msg_1", "outcome": "failed", "payload": body},
        {**KEPT, "webhook_id": "msg_2", "outcome": "dead_lettered"},
    )
    with capture_logs(processors=[merge_contextvars]) as logs:
        replayed = operator.do("/admin/deliveries/msg_1/replay")
        dismissed = operator.do("/admin/deliveries/msg_2/dismiss", reason="A test of theirs & ours")
    assert (replayed.status_code, replayed.headers["location"]) == (303, "/admin/deliveries/msg_1?did=replayed")
    assert "Replayed:" in operator.get(replayed.headers["location"]).text
    assert "processed</span>" in operator.get("/admin/deliveries/msg_1").text
    assert (dismissed.status_code, dismissed.headers["location"]) == (303, "/admin/deliveries/msg_2?did=dismissed")
    page = operator.get("/admin/deliveries/msg_2").text
    assert "by <b>operator</b>: A test of theirs &amp; ours" in page
    assert "Dismiss</button>" not in page
    did = {line["event"]: line["caller"] for line in logs if line["event"].startswith("delivery_")}
    assert did == {"delivery_replayed": "operator", "delivery_dismissed": "operator"}
    assert operator.do("/admin/deliveries/msg_2/replay").status_code == 409
    assert operator.do("/admin/deliveries/msg_1/dismiss", reason="x").status_code == 409


def test_hooks_are_listed_with_how_they_stand(operator: Visit, database: Database) -> None:
    """One that fails needs attention, with its error, since when, and what waits; of a URL nothing is shown but host and path."""
    url, now = "https://app.example.com/hooks?token=canary", datetime.now(UTC)
    secrets = [{"secret": "whsec_canary", "until": None}]
    failing = {"failing_since": now - timedelta(hours=3), "retry_at": now + timedelta(hours=1), "error": "cannot be reached"}
    put(database, hooks, {"id": "hook_1", "position": 9, "url": url, "secrets": secrets, "types": ["user.deactivated"], **failing})
    put(database, hooks, {"id": "hook_2", "position": 9, "organization_id": "org_7", "told_at": now})
    lane = {"hook_id": "hook_1", "due_at": now + timedelta(hours=1)}
    put(database, hook_lanes, {**lane, "subject_id": "usr_1"}, {**lane, "subject_id": "usr_2"})
    overview, page = (re.sub(r"\s+", " ", operator.get(path).text) for path in ("/admin", "/admin/hooks"))
    for said in ("app.example.com/hooks</a>", "failing</span>", "3 h ago</span>: cannot be reached", "2 people (or groups)", "2 hooks"):
        assert said in overview, said
    for said in (
        "app.example.com/hooks",
        "3 h ago</span>: cannot be reached",
        "user.deactivated",
        "/admin/organizations/org_7",
        "every change",
    ):
        assert said in page, said
    assert "canary" not in overview + page
    assert "Retry" not in page


def test_what_a_hook_was_not_told_is_told_again_by_name(operator: Visit, database: Database) -> None:
    """One message, or all of them; a form of no session does nothing, and a second one finds nothing."""
    put(database, hooks, {"id": "hook_1", "position": 100})
    put(database, hook_dead_letters, *({"hook_id": "hook_1", "position": each, "subject_id": f"usr_{each}"} for each in (7, 8, 9)))
    path, one = "/admin/hooks/retry", {"hook_id": "hook_1", "change_id": change_id(Place(7))}
    assert re.findall(r'name="change_id" value="([^"]+)"', operator.get("/admin/hooks").text) == [
        change_id(Place(position)) for position in (7, 8, 9)
    ]
    assert operator.client.post(path, data=one, headers={"Origin": HERE}).status_code == 403
    with capture_logs(processors=[merge_contextvars]) as logs:
        retried = operator.do(path, **one)
        left = _dead_letters(database)
        again, everything = operator.do(path, **one), operator.do(path, hook_id="hook_1")
    assert (left, _dead_letters(database)) == ({"hook_1": 2}, {})
    assert [each.headers["location"] for each in (retried, again, everything)] == [
        f"/admin/hooks?did={did}" for did in ("retried", "nothing-retried", "retried")
    ]
    assert "told again" in operator.get(retried.headers["location"]).text
    assert {line["caller"] for line in logs if line["event"] == "hook_retried"} == {"operator"}
    wrong: list[dict[str, str]] = [{"hook_id": "none"}, {}, {**one, "change_id": "none"}]
    assert [operator.do(path, **each).status_code for each in wrong] == [404, 422, 422]


def _dead_letters(database: Database) -> dict[str, int]:
    with database.reading() as session:
        return given_up(session)


def test_what_a_page_says_was_done_is_one_of_a_few_sentences(filled: Visit) -> None:
    """A link cannot put words into it."""
    for did in (MARKUP, "nothing", "replayed "):
        assert 'class="notice' not in filled.client.get("/admin", params={"did": did}).text
