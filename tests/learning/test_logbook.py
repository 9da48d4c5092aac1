"""The log of a training: complete at any time, gone on with, and in TensorBoard where that is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dmu_hw.logbook import Logbook
from dmu_hw.train import Line, learn

LINES = [Line(0, "image", 0.5, None, None), Line(4, "image", 0.25, 0.3, 0.01), Line(8, "head", 1.5, 2.0, 0.02)]


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Board:
    """In the place of TensorBoard's writer."""

    def __init__(self, folder: str) -> None:
        self.folder, self.scalars, self.closed = folder, [], False

    def add_scalar(self, name: str, value: float, update: int) -> None:
        self.scalars.append((name, value, update))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))


@pytest.fixture
def with_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "tensorboard" else find(name))
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Board  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


@pytest.mark.usefixtures("without_tensorboard")
def test_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    with Logbook.of(tmp_path) as book:
        for count, line in enumerate(LINES, 1):
            book.write(line)
            assert len(read(tmp_path)) == count
        assert book.board is None
    assert read(tmp_path)[1] == {"update": 4, "stage": "image", "val_error": 0.25, "loss": 0.3, "per_update_s": 0.01}
    assert read(tmp_path)[0]["loss"] is None


@pytest.mark.usefixtures("without_tensorboard")
def test_a_log_is_gone_on_with(tmp_path: Path) -> None:
    for line in LINES:
        with Logbook.of(tmp_path) as book:
            book.write(line)
    assert [line["update"] for line in read(tmp_path)] == [0, 4, 8]


@pytest.mark.usefixtures("with_tensorboard")
def test_tensorboard_sees_the_same(tmp_path: Path) -> None:
    with Logbook.of(tmp_path) as book:
        for line in LINES:
            book.write(line)
    assert book.board is not None
    assert Path(book.board.folder) == tmp_path / "tensorboard"
    assert book.board.scalars == [
        ("image/val_error", 0.5, 0),
        ("image/val_error", 0.25, 4),
        ("image/loss", 0.3, 4),
        ("head/val_error", 1.5, 8),
        ("head/loss", 2.0, 8),
    ]
    assert book.board.closed
    assert book.file.closed


@pytest.mark.usefixtures("without_tensorboard")
def test_the_log_of_a_training(small: Any, tmp_path: Path) -> None:
    with Logbook.of(tmp_path) as book:
        for line in learn(small.learner(small.lesson())):
            book.write(line)
    lines = read(tmp_path)
    assert [line["update"] for line in lines] == [0, 4, 8, 12]
    assert all(line["val_error"] > 0 for line in lines)
    assert all(line["loss"] > 0 and line["per_update_s"] > 0 for line in lines[1:])
