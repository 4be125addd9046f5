"""The admin portal over HTTP: who gets in, for how long, and what can be done there."""

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import time_machine
from starlette.applications import Starlette
from starlette.testclient import TestClient

from provisioning.emulator.company import Company
from provisioning.emulator.portal import FEATURES, Dialect, LinkRefused, Portal
from provisioning.emulator.portal_pages import routes
from provisioning.emulator.records import Provider
from provisioning.emulator.store import Store
from provisioning.emulator.structure import Structure
from provisioning.errors import ConfigurationError, Conflict, NotFound

ORIGIN = "http://127.0.0.1:8100"
OFFICIAL = {file.stem: json.loads(file.read_text()) for file in (Path(__file__).parents[1] / "payloads/portal-ui-events").iterdir()}
OKTA = {"provider": "OKTA", "enabled": True}
CROWD = 8
ACTS = ("directory", "sso", "warning", "expiry")


@pytest.fixture
def company() -> Company:
    """Two customers without a directory."""
    company = Company(Store())
    for organization in ("org_1", "org_2"):
        Structure(company).add_organization(f"Company {organization}", organization)
    return company


@pytest.fixture
def portal(company: Company) -> Portal:
    """Their portal, which nobody but itself may embed."""
    return Portal(company, Structure(company), ORIGIN)


@pytest.fixture
def web(portal: Portal) -> Iterator[TestClient]:
    """A client of its pages."""
    with TestClient(Starlette(routes=routes(portal)), base_url=ORIGIN) as client:
        yield client


def link(portal: Portal, organization_id: str = "org_1", features: tuple[str, ...] = ()) -> str:
    """Where a new link leads."""
    return portal.location(portal.make_link(organization_id, features))


def on(page: str, name: str) -> str:
    """What the page keeps for its script."""
    match = re.search(rf'data-{name}="([^"]*)"', page)
    assert match
    return unescape(match[1])


def told(page: str) -> list[dict[str, Any]]:
    """The UI events that the page begins with."""
    events: list[dict[str, Any]] = json.loads(on(page, "answer"))["events"]
    return events


def signed_in(web: TestClient, location: str) -> dict[str, str]:
    """The header of the session that the link opens."""
    return {"X-Portal-Session": on(web.get(location).raise_for_status().text, "session")}


def worded(event: dict[str, Any]) -> str:
    """The event as it is sent, but for whom and what it is about, and when."""
    about = {"organization_id": "", "data": {key: "" if key in {"id", "expiry"} else value for key, value in event["data"].items()}}
    return json.dumps({key: about.get(key, value) for key, value in event.items()})


def at_once(do: Callable[[], object], refusal: type[Exception]) -> int:
    """How many get through of several threads that do the same at the same time; the others are refused."""
    barrier, interval = threading.Barrier(CROWD), sys.getswitchinterval()

    def one(_: int) -> bool:
        barrier.wait(10)
        try:
            do()
        except refusal:
            return False
        return True

    sys.setswitchinterval(1e-6)  # or each is through before the next begins
    try:
        with ThreadPoolExecutor(CROWD) as threads:
            return sum(threads.map(one, range(CROWD)))
    finally:
        sys.setswitchinterval(interval)


def test_a_link_opens_once(portal: Portal, web: TestClient) -> None:
    """The second time the page says so, to whoever reads it and to the page around it."""
    location = link(portal)

    first, second = web.get(location), web.get(location)

    assert (first.status_code, second.status_code) == (200, 410)
    assert [event["event_type"] for event in told(first.text)] == ["PORTAL_LOAD_SUCCESS"]
    assert told(second.text) == [OFFICIAL["PORTAL_LOAD_FAILURE"]]
    assert on(first.text, "session")
    assert not on(second.text, "session")
    assert "It was used before" in second.text


def test_of_those_who_open_a_link_at_once_one_gets_in(portal: Portal) -> None:
    """It is a credential."""
    for _ in range(100):
        made = portal.make_link("org_1", ())
        assert at_once(partial(portal.open, made.id), LinkRefused) == 1


def test_a_link_opens_within_its_minute(portal: Portal, web: TestClient) -> None:
    """A second later it is as good as used."""
    late, early = link(portal), link(portal)

    with time_machine.travel(timedelta(seconds=59)):
        assert web.get(early).status_code == 200
    with time_machine.travel(timedelta(seconds=61)):
        answer = web.get(late)
    assert (answer.status_code, on(answer.text, "session")) == (410, "")
    assert web.get(late).status_code == 410


@pytest.mark.parametrize("link_id", ["unknown", "%00", "%3Cscript%3Ealert(1)", "%F0%9F%92%A9", "%FF", "..%2F", "x" * 4000, "$session"])
def test_a_link_that_nobody_made_is_not_found(web: TestClient, link_id: str) -> None:
    """Whatever it looks like, and nothing of it is on the page."""
    answer = web.get(f"/magicLink/{link_id}")

    assert answer.status_code == 404
    assert "alert(1)" not in answer.text
    if answer.headers["content-type"].startswith("text/html"):
        assert [event["data"]["error_code"] for event in told(answer.text)] == ["INVALID_LINK"]


def test_a_link_is_made_for_a_known_organization(portal: Portal) -> None:
    """By its id alone: the API knows no names."""
    for reference in ("org_3", "Company org_1", ""):
        with pytest.raises(NotFound):
            portal.make_link(reference, ())


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
def test_only_opening_a_link_spends_it(portal: Portal, web: TestClient, method: str) -> None:
    """Other methods are not allowed, and cost nothing."""
    location = link(portal)

    assert web.request(method, location).status_code == 405
    assert web.get(location).status_code == 200


@pytest.mark.parametrize("act", ACTS)
def test_acting_is_a_post(web: TestClient, act: str) -> None:
    """A link somewhere to one of the acts does nothing."""
    assert web.get(f"/portal/{act}").status_code == 405


@pytest.mark.parametrize("origins", [(), ("https://app.example.com", "http://127.0.0.1:8000")])
def test_every_answer_says_who_may_embed_it_and_that_nobody_keeps_it(portal: Portal, web: TestClient, origins: tuple[str, ...]) -> None:
    """Without an embedding origin only the emulator itself. No script and no style but the portal's own files."""
    portal.embedding_origins = origins
    location = link(portal)
    opened = web.get(location)
    session = {"X-Portal-Session": on(opened.text, "session")}
    refusals = [web.get(location), web.get("/magicLink/unknown"), web.post("/portal/sso")]
    answers = [
        opened,
        *refusals,
        *(web.get(f"/portal/portal.{kind}") for kind in ("js", "css")),
        web.post("/portal/warning", headers=session),
    ]

    for answer in answers:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["frame-ancestors"] == (" ".join(origins) or "'self'")
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers
    assert not re.search(r"<script(?! type=\"module\" src=)|<style|style=|\son\w+=", opened.text)
    assert on(opened.text, "audience") == " ".join(origins)


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example.com", "app.example.com", "https://a.example; script-src *", "https://a.example/path", "null"]
)
def test_an_embedding_origin_is_one_origin(portal: Portal, origin: str) -> None:
    """Anything else would open the frame to more, or break the policy around it."""
    with pytest.raises(ConfigurationError):
        portal.embedding_origins = (origin,)
    assert portal.embedding_origins == ()


def test_a_directory_is_added_then_enabled_and_disabled_again(portal: Portal, company: Company, web: TestClient) -> None:
    """Each makes the webhook and the UI event of its kind; it stays one directory."""
    session = signed_in(web, link(portal))
    events = []
    for enabled in (True, False, True):
        answer = (
            web.post("/portal/directory", headers=session, json={"provider": "MICROSOFT_AD", "enabled": enabled}).raise_for_status().json()
        )
        assert answer["state"]["providers"]["MICROSOFT_AD"]["enabled"] is enabled
        events += answer["events"]

    (directory,) = company.directories("org_1")
    assert (directory.provider, directory.enabled) == (Provider.ENTRA_ID, True)
    words = ["enabled", "disabled", "enabled"]
    assert [event.type for event in company.events()] == [f"organization.directory_{word}" for word in words]
    assert [event["event_type"] for event in events] == [f"ORGANIZATION_DIRECTORY_{word.upper()}" for word in words]
    assert {event["data"]["id"] for event in events} == {directory.id}


def test_a_directory_that_several_add_at_once_is_one(portal: Portal, company: Company) -> None:
    """The others hear that it is there."""
    session = portal.open(portal.make_link("org_1", ()).id)

    for provider in Provider:
        assert at_once(partial(portal.switch_directory, session, provider, True), Conflict) == 1

    assert len(company.directories("org_1")) == len(Provider)


def test_a_second_directory_of_a_provider_is_not_enabled_beside_the_first(portal: Portal, company: Company, web: TestClient) -> None:
    """One of the two is as good as both: it is enabled already."""
    _, second = (Structure(company).add_directory("org_1", Provider.OKTA) for _ in range(2))
    Structure(company).disable_directory(second.id)

    answer = web.post("/portal/directory", headers=signed_in(web, link(portal)), json=OKTA)

    assert (answer.status_code, company.directory(second.id).enabled) == (409, False)


def test_every_directory_of_a_provider_is_disabled(portal: Portal, company: Company, web: TestClient) -> None:
    """There may be several, made elsewhere."""
    ids = {Structure(company).add_directory("org_1", Provider.OKTA).id for _ in range(2)}

    answer = web.post("/portal/directory", headers=signed_in(web, link(portal)), json={**OKTA, "enabled": False}).json()

    assert {event["data"]["id"] for event in answer["events"]} == ids
    assert not any(directory.enabled for directory in company.directories("org_1"))


def test_another_providers_directory_is_left_alone(portal: Portal, company: Company, web: TestClient) -> None:
    """Both are enabled while a company moves."""
    Structure(company).add_directory("org_1", Provider.OKTA)
    session = signed_in(web, link(portal))

    for enabled in (True, False):
        web.post("/portal/directory", headers=session, json={"provider": "GOOGLE", "enabled": enabled}).raise_for_status()

    assert [(each.provider, each.enabled) for each in company.directories("org_1")] == [(Provider.OKTA, True), (Provider.GOOGLE, False)]


def test_single_sign_on_is_switched(portal: Portal, company: Company, web: TestClient) -> None:
    """And no webhook comes of it."""
    session = signed_in(web, link(portal))
    for enabled, word in ((True, "ENABLED"), (False, "DISABLED")):
        answer = web.post("/portal/sso", headers=session, json={**OKTA, "enabled": enabled}).raise_for_status().json()
        assert [event["event_type"] for event in answer["events"]] == [f"ORGANIZATION_SSO_{word}"]
        assert answer["state"]["sso"] is company.organization("org_1").sso is enabled
    assert company.events() == []


@pytest.mark.parametrize("act", ["directory", "sso"])
@pytest.mark.parametrize("first", [(), (True,), (True, False)])
def test_what_is_so_already_is_a_conflict(portal: Portal, company: Company, web: TestClient, act: str, first: tuple[bool, ...]) -> None:
    """Two pages of one organization: the second hears that the first was there before, and how things are."""
    session = signed_in(web, link(portal))
    for enabled in first:
        web.post(f"/portal/{act}", headers=session, json={**OKTA, "enabled": enabled}).raise_for_status()
    before = len(company.events())

    answer = web.post(f"/portal/{act}", headers=session, json={**OKTA, "enabled": first[-1] if first else False})

    assert answer.status_code == 409
    assert "already" in answer.json()["detail"]
    assert answer.json()["state"]["organization"] == "Company org_1"
    assert (answer.json()["events"], len(company.events())) == ([], before)


@pytest.mark.parametrize("features", [("dir_sync",), ("sso",)])
def test_a_link_is_good_for_the_features_it_was_made_for(portal: Portal, web: TestClient, features: tuple[str, ...]) -> None:
    """Made without any it is good for all."""
    session = signed_in(web, link(portal, features=features))

    codes = {name: web.post(f"/portal/{act}", headers=session, json=OKTA).status_code for act, name in zip(ACTS, FEATURES, strict=False)}

    assert codes == {name: 200 if name in features else 403 for name in FEATURES}
    assert json.loads(on(web.get(link(portal, features=features)).text, "answer"))["state"]["features"] == list(features)
    assert json.loads(on(web.get(link(portal)).text, "answer"))["state"]["features"] == list(FEATURES)


def test_a_session_is_its_organizations(portal: Portal, company: Company, web: TestClient) -> None:
    """What it switches is never another one's, whatever it sends along."""
    theirs = Structure(company).add_directory("org_2", Provider.OKTA)
    session = signed_in(web, link(portal, "org_1"))

    assert web.post("/portal/directory", headers=session, json={**OKTA, "enabled": False}).status_code == 409
    for more in ({"organization_id": "org_2"}, {"directory_id": theirs.id}, {"id": theirs.id}):
        assert web.post("/portal/directory", headers=session, json={**OKTA, "enabled": False, **more}).status_code == 422
    web.post("/portal/sso", headers=session, json=OKTA).raise_for_status()
    assert company.directories("org_2") == [theirs]
    assert [company.organization(each).sso for each in ("org_1", "org_2")] == [True, False]


@pytest.mark.parametrize("secret", [None, "", "unknown", "x" * 4000])
@pytest.mark.parametrize("act", ACTS)
def test_without_a_session_nothing_is_done(web: TestClient, company: Company, act: str, secret: str | None) -> None:
    """The page around hears that its portal is lost."""
    headers = {} if secret is None else {"X-Portal-Session": secret}

    answer = web.post(f"/portal/{act}", headers=headers, json=OKTA)

    assert (answer.status_code, answer.json()["state"]) == (401, None)
    assert answer.json()["events"] == [OFFICIAL["PORTAL_LOAD_FAILURE"]]
    assert company.directories("org_1") == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"provider": "LDAP", "enabled": true}', b'{"provider": "OKTA"}', b"\xff", b'{"enabled": 1e999}']
)
def test_what_is_no_switch_is_refused(portal: Portal, web: TestClient, body: bytes) -> None:
    """With words for whoever wrote it."""
    answer = web.post("/portal/directory", headers=signed_in(web, link(portal)), content=body)

    assert answer.status_code == 422
    assert "OKTA, MICROSOFT_AD, GOOGLE, JUMPCLOUD" in answer.json()["detail"]


def test_a_long_body_is_refused_before_it_is_read(portal: Portal, web: TestClient) -> None:
    """Whoever sends it."""
    assert web.post("/portal/directory", content=b" " * 1001).status_code == 413


def test_a_session_lasts_six_hours(portal: Portal, company: Company, web: TestClient) -> None:
    """After that it is answered 401, and the page around hears why."""
    opened = web.get(link(portal)).text
    session, began = {"X-Portal-Session": on(opened, "session")}, datetime.now(UTC)

    with time_machine.travel(began + timedelta(hours=5, minutes=59)):
        web.post("/portal/sso", headers=session, json=OKTA).raise_for_status()
    with time_machine.travel(began + timedelta(hours=6, seconds=1)):
        refused, ended = web.post("/portal/directory", headers=session, json=OKTA), web.post("/portal/expiry", headers=session)

    assert (refused.status_code, refused.json()["state"]) == (401, None)
    assert [event["event_type"] for event in refused.json()["events"]] == ["PORTAL_SESSION_EXPIRY"]
    assert (ended.status_code, ended.json()["events"]) == (200, refused.json()["events"])
    assert told(opened)[0]["data"]["expiry"] == ended.json()["events"][0]["data"]["expiry"]
    assert company.directories("org_1") == []


def test_a_warned_session_has_five_minutes(portal: Portal, web: TestClient) -> None:
    """A warning late in a session makes it no longer."""
    session, now = signed_in(web, link(portal)), datetime.now(UTC)

    with time_machine.travel(now, tick=False):
        first = web.post("/portal/warning", headers=session).raise_for_status().json()
    with time_machine.travel(now + timedelta(minutes=2)):
        second = web.post("/portal/warning", headers=session).raise_for_status().json()
    with time_machine.travel(now + timedelta(minutes=5, seconds=1)):
        assert web.post("/portal/sso", headers=session, json=OKTA).status_code == 401

    assert [event["event_type"] for event in first["events"]] == ["PORTAL_SESSION_WARNING"]
    assert datetime.fromisoformat(first["state"]["expires_at"]) == now + timedelta(minutes=5)
    assert second == first


def test_an_expired_session_stays_so(portal: Portal, web: TestClient) -> None:
    """Neither a warning nor another expiry changes when it ended."""
    session = signed_in(web, link(portal))

    ended = web.post("/portal/expiry", headers=session).raise_for_status().json()

    assert ended["state"] is None
    assert [web.post(f"/portal/{act}", headers=session, json=OKTA).status_code for act in ("warning", "sso", "directory")] == [401] * 3
    assert web.post("/portal/expiry", headers=session).json() == ended


def test_the_official_events_are_shaped_as_documented(portal: Portal, web: TestClient) -> None:
    """Byte for byte, but for ids and times."""
    opened = web.get(link(portal)).text
    session = {"X-Portal-Session": on(opened, "session")}
    events = told(opened)
    for act, enabled in [("directory", True), ("directory", False), ("sso", True), ("sso", False)]:
        body = {"provider": OFFICIAL[f"ORGANIZATION_{act.upper()}_ENABLED"]["data"]["provider"], "enabled": enabled}
        events += web.post(f"/portal/{act}", headers=session, json=body).raise_for_status().json()["events"]
    for act in ("warning", "expiry"):
        events += web.post(f"/portal/{act}", headers=session).json()["events"]
    events += web.post("/portal/sso").json()["events"]

    assert {event["event_type"] for event in events} == set(OFFICIAL)
    for event in events:
        assert worded(event) == worded(OFFICIAL[event["event_type"]])
        assert event.get("organization_id", "org_1") == "org_1"
        if expiry := event["data"].get("expiry"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", expiry)


def test_the_guides_dialect_has_three_words(portal: Portal, web: TestClient) -> None:
    """For what it has no word it says nothing."""
    portal.dialect = Dialect.GUIDE
    opened = web.get(link(portal)).text
    session = {"X-Portal-Session": on(opened, "session")}
    said = {"load": told(opened)}
    for act, enabled in [("directory", True), ("directory", False), ("sso", True), ("sso", False)]:
        said[f"{act} {enabled}"] = web.post(f"/portal/{act}", headers=session, json={**OKTA, "enabled": enabled}).json()["events"]
    for act in ("warning", "expiry"):
        said[act] = web.post(f"/portal/{act}", headers=session).json()["events"]
    said["unknown"] = told(web.get("/magicLink/unknown").text)

    spoken = {"directory True": "SCIM_CONFIGURED", "sso True": "SSO_CONFIGURED", "expiry": "SESSION_EXPIRED", "unknown": "SESSION_EXPIRED"}
    assert said == {act: [{"type": spoken[act]}] if act in spoken else [] for act in said}


def test_a_secret_is_in_no_repr(portal: Portal) -> None:
    """It is a credential, so no log shows it."""
    session = portal.open(portal.make_link("org_1", ()).id)

    assert session.secret not in repr(session)
