"""What this service takes for granted of Scalekit, each held against what was seen. Pure; of people only counts, of the rest ids."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from provisioning.bodies import Json
from provisioning.directory import Directory
from provisioning.events import rfc3339
from provisioning.scalekit.directories import PAGE_SIZE
from provisioning.scalekit.reality import (
    EVENTS_A_PAGE,
    NOT_FOUND,
    SAME,
    SMALL_PAGE,
    Listing,
    SeenDirectory,
    SeenEvent,
    SeenOrganization,
    SeenUser,
)

DEFAULT_PAGE = 10
SHOWN = 20  # names of fields, at most

_READ = frozenset(
    {"active", "dp_id", "email", "family_name", "given_name", "groups", "id", "name", "organization_id", "preferred_username"}
)
_MOVED = "Try again: people may have come or gone meanwhile. If it stays so, runs may miss somebody"


class Word(StrEnum):
    """How an assumption stands."""

    OK = "ok"
    DIFFERS = "differs"
    NOT_SEEN = "not seen"  # nothing there to judge by


@dataclass(frozen=True, slots=True)
class Finding:
    """One assumption. `changes`: what it changes for the user, of one that does not hold or was not seen."""

    subject: str
    word: Word
    assumed: str
    seen: str
    changes: str | None = None
    directory_id: str | None = None


def of_clock(seconds_ahead: float, tolerance: int) -> Finding:
    """Whether ours is Scalekit's, to the second or so that can be known."""
    seen = f"{abs(seconds_ahead):.0f} s {'ahead of' if seconds_ahead > 0 else 'behind'} Scalekit's"
    right = abs(seconds_ahead) <= tolerance
    return _finding(
        "clock", right, f"within {tolerance} s", seen, "runs fail until this machine's clock is right, and webhooks are refused"
    )


def of_organization(seen: SeenOrganization) -> list[Finding]:
    """Whether it answers to its external id, and nobody to one that is made up."""
    same = None if seen.by_external_id is None else seen.by_external_id == SAME
    changes = "set one in the dashboard to see it" if same is None else "`ext:` and this id does not mean this organization here"
    made_up = "`ext:` and an unknown id is answered as a failure of Scalekit's, not as unknown"
    return [
        _finding("external id", same, "names the same organization", seen.by_external_id or "it has none", changes),
        _finding("unknown external id", seen.by_made_up == NOT_FOUND, NOT_FOUND, seen.by_made_up, made_up),
    ]


def of_directories(directories: Sequence[Directory]) -> Finding:
    """What there is to look at."""
    seen = ", ".join(f"{each.id} ({each.provider or 'no provider'}, {'enabled' if each.enabled else 'disabled'})" for each in directories)
    changes = "connect one, then try again: nothing of it could be tested"
    return _finding("directories", True if any(each.enabled for each in directories) else None, "one is enabled", seen or "none", changes)


def of_directory(seen: SeenDirectory) -> list[Finding]:
    """All that one directory shows."""
    people = seen.users.entries
    findings = [
        _page_size(seen),
        _default_page(seen),
        _order(seen),
        _total(seen),
        _detail(seen),
        _active(people),
        _text("dp_id", people, "somebody who moves to another directory, or comes back, is recognised by the e-mail alone"),
        _text("name", people, "their name is shown as none"),
        _others(people),
        _roles(people),
        _groups(seen),
        _members_groups(seen),
        _group_totals(seen),
        _role_assignments(seen),
    ]
    return [replace(each, directory_id=seen.directory.id) for each in findings]


def of_events(log: Listing[SeenEvent], received: Collection[str], now: datetime) -> list[Finding]:
    """What the log of events shows; `received`: ids of events that came by webhook lately."""
    return [_envelopes(log), _event_ids(log.entries), _reach(log, now), _received(log, received)]


def _page_size(seen: SeenDirectory) -> Finding:
    taken = bool(seen.users.pages)
    said = f"{PAGE_SIZE} {'accepted' if taken else 'refused'}, {PAGE_SIZE + 1} {'refused' if seen.refuses_more else 'accepted'}"
    short = seen.users.pages > 1 and len(seen.again) < PAGE_SIZE
    changes = "runs fail" if not taken else "runs take longer" if short else "nothing: runs could ask for larger pages"
    said += f", and gives {len(seen.again)}" if short else ""
    good = taken and seen.refuses_more and not short
    return _finding("page size", good, f"{PAGE_SIZE} accepted, {PAGE_SIZE + 1} refused", said, changes)


def _default_page(seen: SeenDirectory) -> Finding:
    there = len(seen.users.entries)
    good = None if there <= DEFAULT_PAGE else len(seen.unsized) == DEFAULT_PAGE
    return _finding("default page", good, str(DEFAULT_PAGE), f"{len(seen.unsized)} of {there}", "nothing: runs always say how many")


def _order(seen: SeenDirectory) -> Finding:
    ids = [each.id for each in seen.users.entries]
    small = [each.id for each in seen.small.entries]
    assumed = "nobody twice, nobody left out, the same again"
    if failure := seen.users.failure or seen.small.failure:
        return _finding("pages", False, assumed, failure, "runs fail while it is so")
    twice = len(ids) - len(set(ids))
    same = seen.again == (ids if seen.users.pages == 1 else ids[: len(seen.again)])
    alike = small == (ids if seen.small.whole else ids[: len(small)])
    said = f"{_read(seen.users)}, {twice} twice; the first page again: {'the same' if same else 'another'}"
    said += f"; in pages of {SMALL_PAGE}: {'the same' if alike else 'others'}"
    good = None if len(ids) <= SMALL_PAGE and same and alike else not twice and same and alike
    return _finding("pages", good, assumed, said, _MOVED if good is False else "nothing: there is but one page")


def _total(seen: SeenDirectory) -> Finding:
    listed, total = len({each.id for each in seen.users.entries}), seen.directory.total_users
    said = f"{total}; {_read(seen.users)}"
    whole = seen.users.whole or listed > total
    good = None if not whole or listed == total == 0 else listed == total
    changes = "removals need approval while it is so" if good is False else "until it was seen, removals need approval"
    return _finding("total_users", good, "as many as are listed", said, changes)


def _detail(seen: SeenDirectory) -> Finding:
    people = seen.users.entries
    detailed, unasked = _count(people, lambda _: True), any(each.detail is not None for each in seen.unsized)
    said = f"asked for: of {detailed} of {len(people)}; otherwise: {'also' if unasked else 'none'}"
    changes = "nothing: runs ask for it" if detailed == len(people) else "who comes without stays as they are here, and is reported"
    good = (detailed == len(people) and not unasked) if people else None
    return _finding("user_detail", good, "when asked for, and only then", said, changes)


def _active(people: Sequence[SeenUser]) -> Finding:
    boolean = _count(people, lambda detail: isinstance(detail.get("active"), bool))
    inactive = _count(people, lambda detail: detail.get("active") is False)
    said = f"of {boolean} of {len(people)}, {inactive} of them false"
    changes = "whoever lacks it stays as they are here, newcomers are inactive, and no run is complete"
    if not boolean:
        changes = "until it was seen, removals need approval, and newcomers are inactive"
    return _finding("active", boolean == len(people) if people else None, "true or false, of everybody", said, changes)


def _text(name: str, people: Sequence[SeenUser], changes: str) -> Finding:
    said = _count(people, lambda detail: isinstance(detail.get(name), str) and bool(detail[name]))
    return _finding(name, said == len(people) if people else None, "a text, of everybody", f"of {said} of {len(people)}", changes)


def _others(people: Sequence[SeenUser]) -> Finding:
    found = Counter(name for each in people if each.detail for name in each.detail if name not in _READ | {"roles"})
    names = [f"{name} ({number})" for name, number in found.most_common(SHOWN)]
    names += [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return _finding(
        "other fields", True if found else None, "some; kept as attributes", ", ".join(names) or "none", "users have no attributes"
    )


def _roles(people: Sequence[SeenUser]) -> Finding:
    having = _count(people, lambda detail: bool(detail.get("roles")))
    ours = _count(people, lambda detail: _is_role_of_ours(detail.get("roles")))
    said = f"of {having} of {len(people)}{f', {ours} with a role_name' if ours else ''}"
    changes = "nothing: they are ignored, and role_assignments decide; but they look like the application's"
    return _finding("roles of a person", not ours if people else None, "none, or the provider's own", said, changes)


def _is_role_of_ours(roles: Json) -> bool:
    return isinstance(roles, list) and any(isinstance(each, dict) and "role_name" in each for each in roles)


def _groups(seen: SeenDirectory) -> Finding:
    groups = seen.groups.entries
    twice, named = len(groups) - len({each.id for each in groups}), sum(each.named for each in groups)
    said = seen.groups.failure or f"{_read(seen.groups)}, {twice} twice, {named} with a name"
    good = False if seen.groups.failure else (not twice and named == len(groups)) if groups else None
    return _finding(
        "groups", good, "each once, with a name", said, "runs fail" if seen.groups.failure else "groups may be missed, or nameless"
    )


def _members_groups(seen: SeenDirectory) -> Finding:
    """Where a listing says who is in which group: nobody's groups at all would read as everybody having left them."""
    people, listed = seen.users.entries, {each.id for each in seen.groups.entries}
    having = [each for each in people if each.groups]
    elsewhere = _count([each for each in people if not each.groups], lambda detail: bool(detail.get("groups")))
    unknown = {group for each in having for group in each.groups} - listed if seen.groups.whole else set()
    said = f"of {len(having)} of {len(people)}"
    said += f", {elsewhere} in the detail alone" if elsewhere else ""
    said += f", {len(unknown)} groups not listed: {_some(unknown)}" if unknown else ""
    changes = "runs would take people out of their groups: do not start one" if elsewhere else "these groups have no name here"
    good = False if elsewhere or unknown else bool(having) or None
    return _finding(
        "groups of a person", good, "beside the detail, of those listed", said, changes if good is False else "nobody is in a group"
    )


def _group_totals(seen: SeenDirectory) -> Finding:
    counted = Counter(group for each in seen.users.entries for group in each.groups)
    other = [each.id for each in seen.groups.entries if each.members != counted[each.id]]
    judged = seen.users.whole and seen.groups.whole and any(each.members or counted[each.id] for each in seen.groups.entries)
    said = f"{len(seen.groups.entries) - len(other)} of {len(seen.groups.entries)} groups as counted"
    said += f"; not {_some(other)}" if other else ""
    changes = (
        "memberships are what people's groups say: look into these groups" if judged else "not everybody was read, or nobody is in a group"
    )
    return _finding("total_users of groups", not other if judged else None, "as many as are listed with it", said, changes)


def _role_assignments(seen: SeenDirectory) -> Finding:
    groups, listed = seen.directory.roles.keys(), {each.id for each in seen.groups.entries}
    unknown = groups - listed if seen.groups.whole else set()
    said = f"of {len(groups)} groups{f'; not listed: {_some(unknown)}' if unknown else ''}"
    changes = "nobody is given the roles of these groups" if unknown else "runs grant no role"
    return _finding("role_assignments", not unknown if groups else None, "name groups that are listed", said, changes)


def _envelopes(log: Listing[SeenEvent]) -> Finding:
    wrong = Counter(each.wrong for each in log.entries if each.wrong)
    said = log.failure or f"{len(log.entries)} read, {wrong.total()} otherwise{''.join(f': {why}' for why, _ in wrong.most_common(1))}"
    good = False if log.failure or wrong else bool(log.entries) or None
    return _finding("event log", good, "in the webhooks' envelope", said, "nothing today: runs mend without it")


def _event_ids(events: Sequence[SeenEvent]) -> Finding:
    numbered = [(each.occurred_at, int(each.id[4:])) for each in events if each.occurred_at and re.fullmatch("evt_[0-9]+", each.id)]
    falling = sum(after < before for (_, before), (_, after) in pairwise(sorted(numbered)))
    twice = len(events) - len({each.id for each in events})
    said = f"{len(numbered)} of {len(events)} so, {falling} fall, {twice} twice"
    good = (len(numbered) == len(events) and not falling and not twice) if len(events) > 1 else None
    changes = "of two events at the same nanosecond, the wrong one may win"
    return _finding("event ids", good, "evt_ and digits, which rise with time", said, changes)


def _reach(log: Listing[SeenEvent], now: datetime) -> Finding:
    oldest = min((each.occurred_at for each in log.entries if each.occurred_at), default=None)
    if oldest is None:
        return _finding("event log's reach", None, "not stated", "no event", "nothing today")
    days = (now - datetime.fromtimestamp(oldest // 10**9, UTC)).total_seconds() / 86_400
    stopped = "" if log.whole else f"; stopped after {log.pages} pages of {EVENTS_A_PAGE}"
    return _finding("event log's reach", True, "not stated", f"back to {rfc3339(oldest)}, {days:.1f} days{stopped}")


def _received(log: Listing[SeenEvent], received: Collection[str]) -> Finding:
    wanted = set(received)  # one event may have come under several webhook ids
    found = len({each.id for each in log.entries} & wanted)
    good = found == len(wanted) if wanted and not log.failure else None
    changes = (
        "nothing today: what the log has could not be told from what webhooks brought"
        if good is False
        else "no webhook, or no log, to compare"
    )
    return _finding("webhooks in the log", good, "under the same ids", f"{found} of the last {len(wanted)}", changes)


def _finding(subject: str, good: bool | None, assumed: str, seen: str, changes: str | None = None) -> Finding:
    """`good` is None where nothing was seen to judge by."""
    word = Word.NOT_SEEN if good is None else Word.OK if good else Word.DIFFERS
    return Finding(subject, word, assumed, seen, None if good else changes)


def _count(people: Sequence[SeenUser], claim: Callable[..., bool]) -> int:
    """Of how many people there is a detail, and the claim true of it."""
    return sum(each.detail is not None and claim(each.detail) for each in people)


def _read(listing: Listing[Any]) -> str:
    stopped = f", stopped after {listing.pages} pages" if not listing.whole and not listing.failure else ""
    return f"{len(listing.entries)} listed{stopped}"


def _some(ids: Collection[str]) -> str:
    return ", ".join(sorted(ids)[:3]) + (", …" if len(ids) > 3 else "")
