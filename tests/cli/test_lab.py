"""`dmu new`: a lab folder that works at once, and nothing of anybody's overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Dmu = Callable[..., Any]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_new_lab_holds_the_examples_and_is_sound(dmu: Dmu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = dmu("new", "lab", "--json")
    assert (said.status, said.told["folder"]) == (0, "lab")
    lab = tmp_path / "lab"
    assert "lab is ready; try: dmu run lab/protocols/quickstart.yaml" in said.err.replace("\\", "/")
    assert {path.name for path in lab.iterdir()} == {"devices", "calibration", "protocols"}
    assert {"devices/simulated.yaml", "protocols/quickstart.yaml", "protocols/README.md"} <= names(lab)
    assert {"devices/mm-demo.cfg", "devices/own-driver.py", "protocols/pycromanager_example.py"} <= names(lab)
    assert not any("__pycache__" in name for name in names(lab))
    yamls = [lab / name for name in names(lab) if name.endswith(".yaml")]
    assert dmu("check", *yamls).status == 0


def test_the_quickstart_of_a_new_lab_runs(dmu: Dmu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, with its bundle, but for smaller fields, so that it takes a second."""
    monkeypatch.chdir(tmp_path)
    assert dmu("new", "lab").status == 0
    quickstart = tmp_path / "lab" / "protocols" / "quickstart.yaml"
    text = quickstart.read_text(encoding="utf-8")
    smaller = text.replace("field_px: [256, 256]", "field_px: [64, 64]")
    assert smaller != text
    assert (quickstart.parent / "bundles" / "nuclei.dmu").is_file()
    quickstart.write_text(smaller, encoding="utf-8")
    said = dmu("run", quickstart, "--json")
    assert said.status == 0
    run = Path(said.told["run"])
    assert run.parent == Path("runs")
    assert (run / "report.html").is_file()
    assert dmu("verify", run).status == 0


def test_an_empty_folder_is_filled(dmu: Dmu, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert dmu("new", tmp_path / "empty").status == 0
    assert names(tmp_path / "empty")


@pytest.mark.parametrize("what", ["a file", "a folder with a file", "a lab"])
def test_what_is_there_is_left_alone(dmu: Dmu, tmp_path: Path, what: str) -> None:
    place = tmp_path / "lab"
    if what == "a file":
        place.write_text("mine")
    elif what == "a lab":
        assert dmu("new", place).status == 0
    else:
        place.mkdir()
        (place / "mine").write_text("mine")
    before = names(tmp_path)
    said = dmu("new", place)
    assert (said.status, said.err) == (2, f"error: {place}: exists already and is not empty\n")
    assert names(tmp_path) == before


def test_half_a_lab_is_not_left(dmu: Dmu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.copytree

    def full(source: Path, target: Path, *given: Any, **options: Any) -> None:
        real(source, target, *given, **options)
        if Path(target).name == "calibration":
            raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copytree", full)
    said = dmu("new", tmp_path / "lab")
    assert said.status == 1
    assert said.err == f"error: {tmp_path / 'lab' / 'calibration'}: No space left on device\n"
    assert names(tmp_path / "lab") == set()


def test_a_place_that_cannot_be_is_told(dmu: Dmu, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    said = dmu("new", tmp_path / "file" / "lab")
    assert said.status in (1, 2)
    assert str(tmp_path / "file") in said.err
