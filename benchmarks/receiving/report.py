"""What was measured, beside what is asked for: as plain text, or as Markdown for a README."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Line:
    """One figure, of all rounds: the median is held against what is asked for, at least `floor` or at most `ceiling`."""

    what: str
    values: Sequence[float]
    floor: float | None = None
    ceiling: float | None = None
    unit: str = "×"

    @property
    def met(self) -> bool | None:
        """Whether it is; None where nothing is asked for."""
        if self.floor is not None:
            return median(self.values) >= self.floor
        return None if self.ceiling is None else median(self.values) <= self.ceiling

    def cells(self) -> tuple[str, str, str, str, str]:
        """What, median, spread, what is asked for, verdict."""
        low, high = min(self.values), max(self.values)
        spread = f"{_short(low)} – {_short(high)}" if len(self.values) > 1 else ""
        asked = f"≥ {_short(self.floor)}" if self.floor is not None else f"≤ {_short(self.ceiling)}" if self.ceiling is not None else ""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return self.what, f"{_short(median(self.values))} {self.unit}".strip(), spread, asked, verdict


HEAD = ("", "median", "of the rounds", "asked for", "")


@dataclass(frozen=True)
class Table:
    """Lines under a title."""

    title: str
    lines: Sequence[Line]

    def text(self) -> str:
        """In columns."""
        rows = [HEAD, *(line.cells() for line in self.lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
        aligned: Sequence[Callable[[str, int], str]] = (str.ljust, str.rjust, str.rjust, str.rjust, str.ljust)
        shown = ("  ".join(align(cell, width) for align, cell, width in zip(aligned, row, widths, strict=True)).rstrip() for row in rows)
        return "\n".join([self.title, *shown])

    def markdown(self) -> str:
        """As a table."""
        rows = [(self.title, *HEAD[1:]), ("---", "--:", "--:", "--:", "---"), *(line.cells() for line in self.lines)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def circumstances(postgres: str, load: float) -> str:
    """When and on what it was measured, and how many processes wanted a core in the minute before."""
    models = {line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")}
    machine = f"{os.cpu_count()} cores of {', '.join(models) or platform.machine()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine}, {postgres}, Python {platform.python_version()}, load before: {load:.1f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
