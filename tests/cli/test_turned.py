"""Runs of a camera that turns its frames: patterns, truth, the stage and the mosaic are as the frames are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dmu_hw.omezarr import Store
from dmu_hw.runfolder import RunFolder
from tests.program import Dmu

Yaml = Callable[..., Path]
FLIPS = [(True, False), (False, True), (True, True)]
LOPSIDED = {"matrix": [[0.47, 0.12], [-0.12, 0.47]], "shift": [1.5, -2.0]}
"""A map that no flip maps onto itself."""


def turned_rig(flips: tuple[bool, bool]) -> dict[str, Any]:
    return {
        "optics.mirrors": {"shape": [200, 200], "to_sample": LOPSIDED},
        "optics.profile": {"kind": "gaussian", "sigma_um": 14.0, "centre_um": [5.0, -3.0]},
        "devices.camera.flip_x": flips[0],
        "devices.camera.flip_y": flips[1],
    }


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("flips", FLIPS)
def test_a_run_is_as_good_as_its_truth(
    flips: tuple[bool, bool], dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    """What the rig's file believes is said of frames. The marker is proven, and the image is like the truth and like
    no flip of it."""
    changes = {"inverse": ridge, "proof": {"marker": "always"}, "exposure_ms": 20.0, "positions": ...}
    said = dmu("run", run_yaml(changes, turned_rig(flips)), "--out", tmp_path / "runs", "--json")
    assert said.status == 0, said.err
    run = RunFolder(Path(said.told["run"]))
    image, truth = (Store(path).burst(0, 0, 0)[0] for path in (run.reconstruction, run.truth))
    assert likeness(image, truth) > 0.9
    for other in (truth[::-1], truth[:, ::-1], truth[::-1, ::-1]):
        assert likeness(image, other) < 0.6


@pytest.mark.parametrize("flips", FLIPS)
def test_fields_meet_at_their_seams(
    flips: tuple[bool, bool], dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    """Two fields that overlap by half, along either axis, show the same there, and make one mosaic."""
    places = [{"x_um": 40.0, "y_um": 20.0}, {"x_um": 48.0, "y_um": 20.0}, {"x_um": 40.0, "y_um": 28.0}]
    path = run_yaml({"inverse": ridge, "positions": places, "exposure_ms": 20.0}, turned_rig(flips))
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 0, said.err
    run = RunFolder(Path(said.told["run"]))
    for store, least in ((Store(run.truth), 0.9999), (Store(run.reconstruction), 0.7)):
        first, right, below = (store.burst(field, 0, 0)[0] for field in range(3))
        assert likeness(first[:, 16:], right[:, :16]) > least
        assert likeness(first[16:], below[:16]) > least
    mosaic = tmp_path / "mosaic.ome.tif"
    assert dmu("export", run.path, mosaic, "--what", "truth", "--mosaic").status == 0
    whole, first = tifffile.imread(mosaic).squeeze(), Store(run.truth).burst(0, 0, 0)[0]
    assert whole.shape == (48, 48)
    assert whole[:32, :32] == pytest.approx(first, abs=0.02)
