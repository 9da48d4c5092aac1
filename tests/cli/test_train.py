"""`dmu train`: from a protocol to a bundle that images; goes on after a kill; refuses what cannot work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmu_hw.bundle import Bundle

SMALL_LESSON: dict[str, Any] = {
    "kind": "train",
    "name": "lesson",
    "rig": "rig.yaml",
    "data": {
        "kind": "scenes",
        "specimen": {"kind": "nuclei", "seed": 1000},
        "train": 6,
        "held_back": 2,
        "side_px": 64,
    },
    "patterns": {"count": 4, "camera_pixel": 4},
    "power_mw": 1.0,
    "exposure_ms": 2.0,
    "network": {"model": "lattice", "channels": 8, "blocks": 1},
    "schedule": {"updates": 6, "batch": 2, "crop_px": 32, "validate_every": 2, "warmup": 2},
    "trust": {"fields": 0},
}


@pytest.fixture
def lesson_yaml(tmp_path: Path, rig_yaml: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the small training with some keys changed, and the small rig beside it."""

    def write(changes: Mapping[str, Any] | None = None) -> Path:
        rig_yaml(None)
        lesson = copy.deepcopy(SMALL_LESSON)
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            place = lesson
            for parent in parents:
                place = place[parent]
            place[last] = value
        path = tmp_path / "lesson.yaml"
        path.write_text(yaml.safe_dump(lesson))
        return path

    return write


def test_what_was_learned_images(
    dmu: Callable[..., Any], lesson_yaml: Callable[..., Path], run_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    trained = dmu("train", lesson_yaml(), "--out", tmp_path / "trained", "--json")
    assert trained.status == 0
    assert trained.told["updates"] == 6
    bundle = Path(trained.told["bundle"])
    assert dmu("check", bundle).status == 0
    run = dmu("run", run_yaml({"patterns": {"bundle": str(bundle)}}), "--out", tmp_path / "runs", "--json")
    assert run.status == 0
    assert run.told["metrics"]["PSNR reconstruction / dB"] > 10


def test_a_training_that_was_cut_goes_on(
    dmu: Callable[..., Any], lesson_yaml: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lesson_yaml()
    whole = dmu("train", path, "--out", tmp_path / "whole", "--json").told
    with monkeypatch.context() as cut:
        kept = []

        def stop_after_two(*arguments: Any) -> None:
            keep(*arguments)
            kept.append(1)
            if len(kept) == 2:
                raise KeyboardInterrupt

        from dmu_hw.logbook import Logbook

        keep = Logbook.write
        cut.setattr(Logbook, "write", stop_after_two)
        stopped = dmu("train", path, "--out", tmp_path / "cut", "--json")
    assert stopped.status == 1
    folder = stopped.told["folder"]
    assert not list(Path(folder).glob("*.dmu"))
    resumed = dmu("train", path, "--resume", folder, "--json").told
    assert Bundle.load(Path(resumed["bundle"])).hash == Bundle.load(Path(whole["bundle"])).hash
    assert len((Path(folder) / "log.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {"model": "lattice", "chanels": 8}}, "unknown key 'chanels'"),
        ({"network": {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 1}}}, "is computed, not trained"),
        ({"network": {"model": "laticce"}}, "did you mean 'lattice'"),
        ({"schedule.crop_px": 30}, "must be a multiple of the tile of 4"),
        ({"patterns": {"count": 5, "camera_pixel": 4, "start": "hadamard"}}, "hadamard needs count 1, 4, 16"),
        ({"data": {"kind": "folder", "path": "nowhere"}}, "there is no such file or folder"),
        ({"rig": "nowhere.yaml"}, "nowhere.yaml"),
        ({"exposure_ms": -1}, "exposure_ms"),
    ],
)
def test_refused(
    dmu: Callable[..., Any],
    lesson_yaml: Callable[..., Path],
    tmp_path: Path,
    changes: Mapping[str, Any],
    said: str,
) -> None:
    refused = dmu("train", lesson_yaml(changes), "--out", tmp_path / "out")
    assert refused.status == 2
    assert said in refused.err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_none(dmu: Callable[..., Any], lesson_yaml: Callable[..., Path], tmp_path: Path) -> None:
    path = lesson_yaml()
    assert dmu("train", path, "--resume", tmp_path).status == 2
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x80\x04junk" * 40)
    damaged = dmu("train", path, "--resume", tmp_path)
    assert damaged.status == 2
    assert "no sound checkpoint" in damaged.err
