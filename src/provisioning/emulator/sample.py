"""Made-up people for made-up companies."""

from collections.abc import Iterator
from itertools import count

from provisioning.emulator.people import Newcomer, plain

# Each department is a group, too; the first people of a company are one of each title.
DEPARTMENTS = {
    "Engineering": ("Software Engineer", "Engineering Manager", "Site Reliability Engineer"),
    "Sales": ("Account Executive", "Sales Manager"),
    "Finance": ("Accountant", "Controller"),
    "People": ("Recruiter", "People Partner"),
    "Support": ("Support Engineer", "Support Lead"),
}

_GIVEN = """
    Ada Grace Alan Edsger Barbara Donald Frances Dennis Margaret Ken Radia Tim Katherine Vint Hedy Guido Jean Linus Karen Bjarne
    Adele Niklaus Shafi Leslie Anita Tony Lynn Robin Sophie Peter Joan Amir Zoë Chidi Mei Søren Inês Yuki Priya Tomáš
""".split()  # noqa: SIM905  # words are easier to read than a list of literals
_FAMILY = """
    Lovelace Hopper Turing Dijkstra Liskov Knuth Allen Ritchie Hamilton Thompson Perlman Lee Johnson Cerf Lamarr Rossum Bartik
    Torvalds Jones Stroustrup Goldberg Wirth Goldwasser Lamport Borg Hoare Conway Milner Wilson Naur Clarke Okafor Müller Nakamura
    Silva Novák Haddad
""".split()  # noqa: SIM905


def people(domain: str) -> Iterator[Newcomer]:
    """People without end, each with an address of their own at `domain`; the same ones every time."""
    titles = [(department, title) for department, titles in DEPARTMENTS.items() for title in titles]
    for n in count():
        given, family = _GIVEN[n % len(_GIVEN)], _FAMILY[(n + n // len(_GIVEN)) % len(_FAMILY)]
        department, title = titles[n % len(titles)]
        # Names begin again when every pair has been had; from then on a number tells the addresses apart.
        again = n // (len(_GIVEN) * len(_FAMILY))
        yield Newcomer(given, family, f"{plain(given)}.{plain(family)}{again or ''}@{domain}", title, department, [department])
