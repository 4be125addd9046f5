"""Who joins whom, which directory users count, and what a user shows."""

from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
from random import Random
from typing import get_args
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.accounts import Candidate, DirectoryUser, Shown, counting, email_key, join, show
from provisioning.bodies import Json
from provisioning.events import Version
from provisioning.merge import DELETED, Key, Register
from provisioning.settings import LinkUsersByEmail

Said = Mapping[str, Json]
NOTHING: Said = {}
POLICIES: tuple[LinkUsersByEmail, ...] = get_args(LinkUsersByEmail)


def person(id_: str = "user_1", said: Said = NOTHING, *, at: int = 1, deleted: bool = False, **more: Json) -> DirectoryUser:
    """A directory user of which this was stated at this instant."""
    version = Version(1, at, 0, 0, "")
    return DirectoryUser(Key("org_1", id_), {key: Register(value, version) for key, value in {**said, **more, DELETED: deleted}.items()})


def roles(*names: str) -> list[Json]:
    return [{"role_name": name} for name in names]


# E-mails.
@given(st.text(st.characters(codec="utf-8")), st.sampled_from(["", " ", "\t\u00a0"]))
def test_an_email_has_one_key_however_it_is_written(email: str, space: str) -> None:
    """Composed or decomposed, with white space around it or none; and a key is its own key."""
    key = email_key(email)
    assert key == email_key(normalize("NFD", email)) == email_key(normalize("NFC", email)) == email_key(space + email + space)
    assert key is None or key == email_key(key) == normalize("NFC", key)
    assert (key is None) == (not email.strip())


@given(st.emails())
def test_the_case_of_an_email_does_not_matter(email: str) -> None:
    """Neither before the @ nor behind it."""
    assert email_key(email.upper()) == email_key(email.lower()) == email_key(email.swapcase())


LOWERED = {
    None: None,
    "": None,
    " \n": None,
    " A@B.c ": "a@b.c",
    "İ@x": "i̇@x",
    "ẞ@x": "ß@x",
    "ss@x": "ss@x",
    "\u212a@x": "k@x",
    "É@x": "é@x",
}


@pytest.mark.parametrize(("email", "key"), LOWERED.items())
def test_an_email_is_lowered_and_never_spelled_out(email: str | None, key: str | None) -> None:
    """What SQL's lower() would do differently from one database to the other; ß stays another letter than ss."""
    assert email_key(email) == key


# Joining. Which policies join is written as their first letters.
SAME, OTHER, NO_EMAIL = "Jane@example.com", "john@example.com", None
LIVE, LEFT = person(dp_id="up_1"), person(dp_id="up_1", deleted=True)


@pytest.mark.parametrize(
    ("case", "newcomer", "email", "behind", "joining"),
    [
        ("somebody is behind it", person(email=SAME), SAME, [person()], "la"),
        ("however the e-mail is written", person(email=" jANE@EXAMPLE.COM"), SAME, [person()], "la"),
        ("an imported account: nobody is behind it yet", person(email=SAME), SAME, [], "la"),
        ("whoever is behind it is suspended", person(email=SAME), SAME, [person(active=False)], "la"),
        ("one behind it left, another one did not", person(email=SAME), SAME, [LEFT, person("user_2")], "la"),
        ("a move between directories", person(email=SAME, dp_id="up_1"), SAME, [LIVE], "lan"),
        ("the address of a leaver was given to a newcomer", person(email=SAME), SAME, [LEFT], "a"),
        ("the newcomer is somebody else upstream", person(email=SAME, dp_id="up_2"), SAME, [LEFT], "a"),
        ("a leaver of whom no upstream id is known", person(email=SAME), SAME, [person(deleted=True)], "a"),
        ("a rehire", person(email=SAME, dp_id="up_1"), SAME, [LEFT], "lan"),
        ("a rehire, behind another leaver", person(email=SAME, dp_id="up_1"), SAME, [person("user_2", deleted=True), LEFT], "lan"),
        ("another e-mail", person(email=OTHER), SAME, [person()], ""),
        ("another e-mail and an imported account", person(email=OTHER), SAME, [], ""),
        ("another e-mail, the same upstream id", person(email=OTHER, dp_id="up_1"), SAME, [LIVE], "n"),
        ("the newcomer has no e-mail", person(dp_id="up_1"), SAME, [LIVE], "lan"),
        ("the newcomer's e-mail is blank", person(email=" ", dp_id="up_1"), SAME, [LIVE], "lan"),
        ("the newcomer has neither", person(), SAME, [person()], ""),
        ("the user has no e-mail", person(email=SAME, dp_id="up_1"), NO_EMAIL, [LIVE], "lan"),
        ("the user has no e-mail and left", person(email=SAME, dp_id="up_1"), NO_EMAIL, [LEFT], "lan"),
        ("the user has no e-mail and is another one", person(email=SAME, dp_id="up_2"), NO_EMAIL, [LIVE], ""),
        ("nobody has an e-mail", person(dp_id="up_1"), NO_EMAIL, [person("user_2"), LIVE], "lan"),
        ("nobody has anything", person(), NO_EMAIL, [person()], ""),
        ("nobody has anything, and nobody is there", person(), NO_EMAIL, [], ""),
    ],
)
def test_who_joins_whom(case: str, newcomer: DirectoryUser, email: str | None, behind: list[DirectoryUser], joining: str) -> None:
    """The same e-mail while somebody is behind it, else the same upstream id too; without e-mails the upstream id alone."""
    candidates = [Candidate("usr_1", email_key(email), behind)]
    found = [policy for policy in POLICIES if join(newcomer, candidates, policy) == "usr_1"]
    assert found == [policy for policy in POLICIES if policy[0] in joining], case
    assert join(newcomer, [], "always") is None


def test_the_one_with_the_same_upstream_id_is_joined_before_any_other() -> None:
    """Then the first by id; in whatever order they are found."""
    live, same, stranger = (
        Candidate(f"usr_{n}", email_key(SAME), [who]) for n, who in ((1, person()), (3, LEFT), (0, person(deleted=True)))
    )
    also = Candidate("usr_2", email_key(SAME), [LIVE])
    newcomer = person("user_9", email=SAME, dp_id="up_1")
    for found, expected in (
        ((live, same, stranger), "usr_3"),
        ((live, same, also), "usr_2"),
        ((live, stranger), "usr_1"),
        ((stranger,), None),
    ):
        assert {join(newcomer, order, "live") for order in permutations(found)} == {expected}


# What a directory user's registers come to.
@pytest.mark.parametrize("said", [{"active": True}, {}, {"active": False}])
@pytest.mark.parametrize("deleted", [True, False])
def test_a_directory_user_is_active_unless_it_is_said_otherwise(said: Said, deleted: bool) -> None:
    """An `active` never written reads as true; and nobody who is deleted is active."""
    assert person("user_1", said, deleted=deleted).active is (said.get("active", True) and not deleted)
    assert person("user_1", said, deleted=deleted).deleted is deleted


def test_a_directory_user_of_whom_nothing_was_said() -> None:
    """It is there, in no group and without anything to show."""
    nobody = DirectoryUser(Key("org_1", "user_1"), {})
    assert (nobody.active, nobody.deleted, nobody.email, nobody.external_id, nobody.directory_id, nobody.version) == (
        True,
        False,
        *[None] * 4,
    )
    assert (nobody.group_ids, nobody.roles, nobody.attributes) == (frozenset(), frozenset(), {})


def test_what_a_directory_user_says() -> None:
    """Its groups by id, its roles by name; and as attributes everything that has no place of its own and was not cleared."""
    placed = dict.fromkeys(("email", "dp_id", "directory_id", "name", "given_name", "family_name", "preferred_username"), "x")
    groups: Json = [{"id": "g_1", "name": "G"}, {"id": "g_2"}, {"id": "g_1"}]
    attributes: dict[str, Json] = {"title": "T", "custom_attributes": {"x": None}}
    somebody = person("user_1", {**placed, **attributes}, active=True, groups=groups, roles=roles("r_1", "r_2", "r_1"), division=None)
    assert (somebody.email, somebody.external_id, somebody.directory_id) == ("x", "x", "x")
    assert (somebody.group_ids, somebody.roles) == (frozenset({"g_1", "g_2"}), frozenset({"r_1", "r_2"}))
    assert somebody.attributes == attributes
    assert list(somebody.attributes) == sorted(attributes)
    cleared = person("user_1", dict.fromkeys(placed), groups=[], roles=[])
    assert (cleared.email, cleared.external_id, cleared.directory_id) == (None, None, None)
    assert cleared.group_ids == cleared.roles == frozenset()


# What a user shows.
def some(*values: Json) -> st.SearchStrategy[Json]:
    return st.sampled_from(values)


@st.composite
def people(draw: st.DrawFn) -> list[DirectoryUser]:
    """Those behind one user, in any order."""
    granted = some(roles(), roles("r_1"), roles("r_1", "r_2"))
    maybe = {
        "active": some(True, False),
        "directory_id": some("dir_1", "dir_2"),
        "email": some("a@x", None),
        "title": some(1, 2),
        "roles": granted,
    }
    said = st.fixed_dictionaries({}, optional=maybe)
    ids = draw(st.lists(st.sampled_from(["user_1", "user_2", "user_3", "user_4"]), min_size=1, unique=True))
    return [person(id_, draw(said), at=draw(st.integers(1, 2)), deleted=draw(st.booleans())) for id_ in ids]


directories = st.sets(st.sampled_from([Key("org_1", "dir_1"), Key("org_1", "dir_2"), Key("org_2", "dir_1"), Key("org_1", "")]))


def counted(behind: Sequence[DirectoryUser], off: Collection[Key]) -> list[DirectoryUser]:
    """An oracle: design.md's words, one after another."""
    is_off = {each.key.id: each.directory_id is not None and ("org_1", each.directory_id) in off for each in behind}
    return [each for each in behind if not is_off[each.key.id] or all(is_off.values())]


@given(people(), directories, st.randoms(use_true_random=False))
def test_what_a_user_shows_does_not_depend_on_who_is_named_first(behind: list[DirectoryUser], off: set[Key], random: Random) -> None:
    """Nor on when anybody joined."""
    shuffled = list(behind)
    random.shuffle(shuffled)
    assert show(behind, off) == show(shuffled, off)


@given(people(), directories)
def test_a_user_is_active_when_one_that_counts_is(behind: list[DirectoryUser], off: set[Key]) -> None:
    """And only then has it roles: those of all active ones that count, each with where it comes from."""
    shown, active = show(behind, off), [each for each in counted(behind, off) if each.active]
    assert counting(behind, off) == counted(behind, off)
    assert shown.active == bool(active)
    assert shown.grants == {(role, each.key.id) for each in active for role in each.roles}


@given(people(), directories)
def test_the_profile_is_that_of_one_who_counts(behind: list[DirectoryUser], off: set[Key]) -> None:
    """All of it: an active one's before others', then the newest one's, then the one with the highest id."""
    considered = counted(behind, off)
    active = [each for each in considered if each.active] or considered
    newest = [each for each in active if each.version == max(other.version or () for other in active)]
    best = max(newest, key=lambda each: each.key.id)
    shown = show(behind, off)
    assert (shown.profile["email"], shown.attributes) == (best.email, best.attributes)


def shown_by(*behind: DirectoryUser, off: Sequence[str] = ()) -> Shown:
    return show(behind, {Key("org_1", id_) for id_ in off})


def test_moving_from_one_directory_to_another_locks_nobody_out_and_lets_no_leaver_stay() -> None:
    """Disabling the old one changes nothing for those who moved; who is gone from the new one is gone, whatever the old one says."""
    old, new = person("user_1", directory_id="old", roles=roles("admin")), person("user_2", directory_id="new", roles=roles("member"))
    gone = person("user_2", directory_id="new", deleted=True)
    assert shown_by(old, new, off=["old"]).active
    assert shown_by(old, new, off=["old"]).grants == {("member", "user_2")}
    assert shown_by(old, gone).active
    assert not shown_by(old, gone, off=["old"]).active
    assert shown_by(old, off=["old"]).active, "with its only directory disabled nobody is locked out"
    assert shown_by(old, new, off=["old", "new"]).grants == {("admin", "user_1"), ("member", "user_2")}


def test_one_whose_directory_is_unknown_counts() -> None:
    """As if it were enabled; and a directory of another organization is another one, whatever its id."""
    unknown, known = person("user_1", active=False), person("user_2", directory_id="dir_1")
    assert not show([unknown, known], {Key("org_1", "dir_1")}).active
    assert show([unknown, known], {Key("org_2", "dir_1")}).active


def test_a_profile_is_never_put_together_from_two() -> None:
    """What the shown one does not say is not taken from another, and a suspended one gives way to an active one, however old."""
    suspended = person("user_1", at=9, active=False, email="old@x", name="Old", title="Boss", roles=roles("admin"))
    active = person("user_2", at=1, email="new@x", roles=roles("member"))
    assert shown_by(suspended, active) == Shown(
        active=True,
        profile={"email": "new@x", "name": None, "given_name": None, "family_name": None, "preferred_username": None},
        attributes={},
        memberships=frozenset(),
        grants=frozenset({("member", "user_2")}),
    )


def test_a_deactivated_user_still_shows_who_it_was() -> None:
    """Users are deactivated, never deleted; but they have no roles."""
    gone = shown_by(
        person(at=2, deleted=True, email="a@x", name="A", title="T", roles=roles("admin")), person("user_2", at=1, active=False)
    )
    assert (gone.active, gone.profile["email"], gone.profile["name"]) == (False, "a@x", "A")
    assert (gone.attributes, gone.grants) == ({"title": "T"}, frozenset())
