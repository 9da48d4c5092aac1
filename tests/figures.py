"""What campaigns measure, kept in files and shown as tables.

    pytest -m 'campaign or bench' --figures tests      # measures, and writes the tables
    python tests/figures.py                            # writes the tables again

What tests of the simulated twin measure goes to tests/twin/figures.json and calibration/README.md, all else to
tests/faults/figures.json and figures.md. Each figure belongs to a row (a fault, R1 to R20, "speed", or what is
calibrated) and names the test that measured it; a test that is run again replaces its own figures and no others.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = Path(__file__).parent / "faults" / "figures.json"
TWIN = Path(__file__).parent / "twin" / "figures.json"
MANUAL = Path(__file__).parents[1] / "calibration" / "README.md"
_BEGIN, _END = "<!-- figures: made by python tests/figures.py, do not edit -->", "<!-- end of figures -->"


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    row: str
    what: str
    value: str
    allowed: str
    test: str
    """Its node: `pytest -m 'campaign or bench' NODE` measures it again."""
    load: float
    """Processes that wanted a core while it was measured, its own among them; timings mean little where they are more
    than there are cores."""


def load() -> float:
    """Of the last minute; -1 where the system does not tell."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else -1.0


def kept(file: Path = FILE) -> list[Figure]:
    if not file.exists():
        return []
    return [Figure(**line) for line in json.loads(file.read_text(encoding="utf-8"))["figures"]]


def keep(new: Sequence[Figure]) -> None:
    """Put figures in the place of those that the same tests gave before, and show them."""
    for file in (FILE, TWIN):
        mine = [figure for figure in new if figure.test.startswith("tests/twin/") == (file == TWIN)]
        if mine:
            _keep(mine, file)
    show()


def _keep(new: Sequence[Figure], file: Path) -> None:
    again = {figure.test for figure in new}
    figures = [*(figure for figure in kept(file) if figure.test not in again), *new]
    figures.sort(key=lambda figure: (figure.row[:1] != "R", figure.row[1:].zfill(2), figure.test))
    content = {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()}
    text = json.dumps(content | {"figures": [asdict(figure) for figure in figures]}, indent=1, ensure_ascii=False)
    file.write_text(f"{text}\n", encoding="utf-8")


def show() -> None:
    """Write the tables for people."""
    FILE.with_suffix(".md").write_text(table(), encoding="utf-8")
    if TWIN.exists():
        MANUAL.write_text(manual(), encoding="utf-8")


def table() -> str:
    """Of faults and speed."""
    return "\n".join(["# What was measured", "", *_lines(FILE, "tests")]) + "\n"


def manual() -> str:
    """The manual of calibration with its table as it should be."""
    before, _, rest = MANUAL.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    return "\n".join([f"{before}{_BEGIN}", *_lines(TWIN, "tests/twin"), f"{_END}{after}"])


def _lines(file: Path, tests: str) -> list[str]:
    facts = json.loads(file.read_text(encoding="utf-8"))
    return [
        f"Made by `pytest -m 'campaign or bench' --figures {tests}` (or any of the tests named here); do not edit.",
        f"Python {facts['python']}, {facts['system']}, {facts['cores']} cores.",
        "*Load*: how many processes wanted a core meanwhile; where they are more than the cores, times are too long.",
        "",
        "| # | what | measured | allowed | load | by |",
        "|---|---|---|---|---|---|",
        *(
            f"| {line.row} | {line.what} | {line.value} | {line.allowed} | {line.load:g} | `{line.test}` |"
            for line in kept(file)
        ),
    ]


if __name__ == "__main__":
    show()
    sys.stdout.write(table())
