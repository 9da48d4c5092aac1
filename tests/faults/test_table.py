"""The README beside this file names a test for each fault, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from figures import FILE, MANUAL, TWIN, kept, manual, table

ROOT = Path(__file__).parents[2]
ROWS = {
    row[0]: row[2]
    for line in Path(__file__).with_name("README.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| (R\d+|speed|watch|mmcore|doubt) \|", line)
    for row in [[cell.strip() for cell in line.strip("|").split("|")]]
}


@cache
def defined_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_fault_has_its_row() -> None:
    assert list(ROWS) == [*(f"R{number}" for number in range(1, 21)), "speed", "watch", "mmcore", "doubt"]


@pytest.mark.parametrize("row", ROWS)
def test_the_tests_of_a_row_are_there(row: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", ROWS[row])
    assert named or ROWS[row].startswith("None: "), "neither a test nor why there is none"
    for path, test in named:
        assert test in defined_in(ROOT / path), f"{path}::{test}"


@pytest.mark.parametrize("file", [FILE, TWIN], ids=["faults", "twin"])
def test_the_tests_of_the_figures_are_there(file: Path) -> None:
    for figure in kept(file):
        path, _, test = figure.test.partition("::")
        assert test.partition("[")[0] in defined_in(ROOT / path), figure.test
        assert file == TWIN or figure.row in ROWS


def test_the_tables_show_the_figures() -> None:
    if FILE.exists():
        assert FILE.with_suffix(".md").read_text(encoding="utf-8") == table()
    if TWIN.exists():
        assert MANUAL.read_text(encoding="utf-8") == manual()
