"""What is said of answers that Scalekit was never seen to give: each assumption can fail, and says what that changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioning.bodies import Json
from provisioning.cli.assumptions import Finding, Word, of_clock, of_directories, of_directory, of_events, of_organization
from provisioning.directory import Directory
from provisioning.scalekit.reality import Listing, SeenDirectory, SeenEvent, SeenGroup, SeenOrganization, SeenUser

NOW = datetime(2026, 1, 2, tzinfo=UTC)
START = int((NOW - timedelta(days=1)).timestamp()) * 10**9
DETAIL: dict[str, Json] = {"active": True, "dp_id": "00u1", "name": "Canary", "locale": "en"}


def users(number: int, **more: Any) -> list[SeenUser]:
    """So many people in one group, with these details too."""
    return [SeenUser(f"diruser_{n}", frozenset({"dirgroup_1"}), {**DETAIL, **more}) for n in range(number)]


def whole(entries: list[Any], pages: int = 1) -> Listing[Any]:
    """A list that was read to its end."""
    return Listing(entries, pages, True)


def seen(people: list[SeenUser], **more: Any) -> SeenDirectory:
    """A directory with these people, which is as assumed."""
    directory = Directory("dir_1", "OKTA", "SCIM", True, len(people), {"dirgroup_1": frozenset({"seller"})} if people else {})
    groups = [SeenGroup("dirgroup_1", named=True, members=len(people))] if people else []
    pages = max(-(-len(people) // 30), 1)
    given = SeenDirectory(
        directory=directory,
        users=whole(people, pages),
        groups=whole(groups),
        again=[each.id for each in people[:30]],
        small=Listing(people[:30], 3, whole=len(people) <= 30),
        unsized=[replace(each, detail=None) for each in people[:10]],
        refuses_more=True,
    )
    return replace(given, **more)


def events(*ids: str) -> Listing[SeenEvent]:
    """A log of events, the oldest first, a second between them."""
    return whole([SeenEvent(each, START + number * 10**9, None) for number, each in enumerate(ids)])


def stands(findings: list[Finding], word: Word) -> dict[str, str | None]:
    """The assumptions that stand so, with what it changes."""
    return {each.subject: each.changes for each in findings if each.word is word}


def test_what_is_as_assumed_changes_nothing() -> None:
    """All of it ok, and nothing said of a change."""
    organization = of_organization(SeenOrganization("the same", "NOT_FOUND"))
    for findings in (organization, of_directory(seen(users(40))), of_events(events("evt_1", "evt_2"), ["evt_1"], NOW)):
        assert {(each.word, each.changes) for each in findings} == {(Word.OK, None)}


@pytest.mark.parametrize(
    ("more", "subject", "changes"),
    [
        ({"refuses_more": False}, "page size", "larger pages"),
        ({"users": Listing([], 0, False, "page 1: INVALID_ARGUMENT")}, "page size", "runs fail"),
        ({"again": [each.id for each in users(20)]}, "page size", "longer"),
        ({"unsized": users(40, detail=None)[:20]}, "default page", "nothing"),
        ({"users": whole([*users(40), *users(1)], 2)}, "pages", "Try again"),
        ({"again": [each.id for each in reversed(users(30))]}, "pages", "Try again"),
        ({"small": Listing([*users(9), *users(40)[20:]], 3, False)}, "pages", "Try again"),
        ({"small": whole(users(20), 2)}, "pages", "Try again"),
        ({"users": whole(users(20)), "small": whole(users(20), 2), "again": []}, "pages", "Try again"),
        ({"small": Listing(users(10), 1, False, "page 2: UNAVAILABLE")}, "pages", "runs fail"),
        ({"unsized": users(10)}, "user_detail", "nothing"),
        ({"users": whole([replace(each, detail=None) for each in users(40)], 2)}, "user_detail", "reported"),
        ({"users": whole(users(40, active="true"), 2)}, "active", "removals need approval"),
        ({"users": whole([*users(39), *users(40, active=None)[39:]], 2)}, "active", "newcomers are inactive"),
        ({"users": whole(users(40, dp_id=""), 2)}, "dp_id", "e-mail alone"),
        ({"users": whole(users(40, roles=[{"role_name": "member"}]), 2)}, "roles of a person", "ignored"),
        ({"users": whole(users(41), 2)}, "total_users", "removals need approval"),
        ({"groups": whole([SeenGroup("dirgroup_1", named=False, members=40)])}, "groups", "nameless"),
        ({"groups": whole([SeenGroup("dirgroup_2", named=True, members=0)])}, "groups of a person", "no name"),
        ({"groups": whole([SeenGroup("dirgroup_2", named=True, members=0)])}, "role_assignments", "nobody is given"),
        ({"groups": whole([SeenGroup("dirgroup_1", named=True, members=39)])}, "total_users of groups", "look into"),
    ],
)
def test_an_answer_that_is_otherwise_is_told(more: dict[str, Any], subject: str, changes: str) -> None:
    """With what it changes, for the directory in question; nobody's name is in it."""
    findings = of_directory(seen(users(40), **more))
    assert changes in (stands(findings, Word.DIFFERS)[subject] or "")
    assert {each.directory_id for each in findings} == {"dir_1"}
    assert "Canary" not in repr(findings)


def test_groups_that_only_the_details_have_are_an_alarm() -> None:
    """A run reads them beside the detail, and would find everybody in none."""
    people = [replace(each, groups=frozenset()) for each in users(40, groups=[{"id": "dirgroup_1", "name": "Canary"}])]
    differing = stands(of_directory(seen(people)), Word.DIFFERS)
    assert "do not start one" in (differing["groups of a person"] or "")


def test_of_groups_that_were_not_read_to_their_end_none_is_said_to_be_missing() -> None:
    """What names them may be on a later page."""
    findings = of_directory(seen(users(40), groups=Listing([], 1, False)))
    assert stands(findings, Word.DIFFERS) == {}


def test_roles_without_a_role_name_are_the_providers_own() -> None:
    """They are ignored, as assumed."""
    people = users(40, roles=["Canary", {"value": "Canary"}])
    assert stands(of_directory(seen(people)), Word.OK).keys() >= {"roles of a person"}


def test_of_an_empty_directory_nothing_is_said_to_differ() -> None:
    """Nor, but for the size of its pages, to be so."""
    findings = of_directory(seen([]))
    assert stands(findings, Word.DIFFERS) == {}
    assert stands(findings, Word.OK).keys() == {"page size"}


def test_of_a_list_that_was_not_read_to_its_end_the_total_is_not_judged() -> None:
    """Unless more were listed by then than there should be."""
    first = Listing(users(40), 2, False)
    fewer, more = (replace(seen([]).directory, total_users=number) for number in (39, 41))
    assert "total_users" in stands(of_directory(seen(users(40), users=first, directory=more)), Word.NOT_SEEN)
    assert "total_users" in stands(of_directory(seen(users(40), users=first, directory=fewer)), Word.DIFFERS)


@pytest.mark.parametrize(
    ("log", "subject"),
    [
        (events("evt_2", "evt_1"), "event ids"),
        (events("evt_1", "evt_1"), "event ids"),
        (events("evt_1", "event-2"), "event ids"),
        (whole([SeenEvent("evt_1", START, "no spec_version")]), "event log"),
        (Listing([], 0, False, "page 1: UNIMPLEMENTED"), "event log"),
        (events("evt_3", "evt_4"), "webhooks in the log"),
    ],
)
def test_a_log_that_is_otherwise_is_told(log: Listing[SeenEvent], subject: str) -> None:
    """Ids that fall, are doubled or have another form; another envelope; no log; a webhook's event that it lacks."""
    assert subject in stands(of_events(log, ["evt_1"], NOW), Word.DIFFERS)


def test_an_event_that_came_under_several_webhook_ids_is_one() -> None:
    """It is in the log once."""
    assert "webhooks in the log" in stands(of_events(events("evt_1"), ["evt_1", "evt_1"], NOW), Word.OK)


def test_how_far_the_log_goes_back_is_said() -> None:
    """From its oldest event; and whether there is more."""
    reach = [each.seen for log in (events("evt_1"), Listing(events("evt_1").entries, 50, False)) for each in of_events(log, [], NOW)[2:3]]
    assert reach == ["back to 2026-01-01T00:00:00Z, 1.0 days", "back to 2026-01-01T00:00:00Z, 1.0 days; stopped after 50 pages of 100"]


@pytest.mark.parametrize(("ahead", "word"), [(300, Word.OK), (-300, Word.OK), (301, Word.DIFFERS), (-301, Word.DIFFERS)])
def test_a_clock_may_be_off_by_as_much_as_a_run_allows(ahead: int, word: Word) -> None:
    """Either way."""
    assert of_clock(ahead, 300).word is word


def test_without_an_enabled_directory_there_is_nothing_to_test() -> None:
    """A disabled one is not listed."""
    disabled = replace(seen([]).directory, enabled=False)
    assert [of_directories(each).word for each in ([], [disabled], [disabled, seen([]).directory])] == [
        Word.NOT_SEEN,
        Word.NOT_SEEN,
        Word.OK,
    ]


@pytest.mark.parametrize(
    ("by_external_id", "by_made_up", "differs", "not_seen"),
    [
        (None, "NOT_FOUND", set(), {"external id"}),
        ("another organization", "NOT_FOUND", {"external id"}, set()),
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT", {"external id", "unknown external id"}, set()),
        ("the same", "the same", {"unknown external id"}, set()),
    ],
)
def test_an_organization_that_does_not_answer_to_its_external_id_is_told(
    by_external_id: str | None, by_made_up: str, differs: set[str], not_seen: set[str]
) -> None:
    """Or that answers to any."""
    findings = of_organization(SeenOrganization(by_external_id, by_made_up))
    assert (set(stands(findings, Word.DIFFERS)), set(stands(findings, Word.NOT_SEEN))) == (differs, not_seen)
    assert all(each.changes for each in findings if each.word is not Word.OK)
