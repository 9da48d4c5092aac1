"""Giving a file its name, also where somebody has it open: told as Windows tells it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dmu_hw import moves
from dmu_hw.files import write_whole
from dmu_hw.moves import move


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a move is still refused."""
    left, real = [0], Path.replace

    def replace(path: Path, target: Path) -> Path:
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "The process cannot access the file", str(target))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(moves, "_WINDOWS", True)
    return left


def test_what_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    move(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_bytes() == b"new"


def test_a_folder_gets_its_name(tmp_path: Path) -> None:
    (tmp_path / "part" / "inner").mkdir(parents=True)
    move(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole" / "inner").is_dir()


def test_who_reads_is_waited_for(tmp_path: Path, windows: list[int]) -> None:
    (tmp_path / "state").write_bytes(b"old")
    windows[0] = 3
    write_whole(tmp_path / "state", b"new")
    assert (tmp_path / "state").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_who_reads_for_ever_is_told(tmp_path: Path, windows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "_PATIENCE_S", 0.1)
    windows[0] = 10_000
    began_s = time.monotonic()
    with pytest.raises(PermissionError, match="cannot access"):
        write_whole(tmp_path / "state", b"new")
    assert time.monotonic() - began_s >= 0.1
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_a_refusal_is_one(tmp_path: Path, windows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "_WINDOWS", False)
    windows[0] = 1
    with pytest.raises(PermissionError):
        write_whole(tmp_path / "state", b"new")
