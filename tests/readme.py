"""The README's sections and tables, for tests that hold it to what it speaks of."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text below a heading, up to the next heading of its level or above."""
    found = re.search(rf"^(#+) {title}$\n(.*)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return re.split(rf"^#{{1,{len(found[1])}}} ", found[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the first table in `text`, without its header and without backticks."""
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines(text)]


def lines(text: str) -> list[str]:
    """Return the lines of the first table in `text`, without its header."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table, text
    return table[0].splitlines()[2:]
