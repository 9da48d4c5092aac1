"""Runs make images with what was measured of each pixel, keep it, and end with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from toys import recipe

from dmu_hw.belief import believe
from dmu_hw.cli import acquire
from dmu_hw.cli.session import open_session
from dmu_hw.guard import Guard
from dmu_hw.kept import read_kept
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.reconstruct import Calibrated, Window
from dmu_hw.rig import Rig, load_rig
from dmu_hw.view.window import window_of
from tests.twin.rigs import draw_rig, measured

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
UNEVEN = {
    "gain_adu_per_e": 0.6,
    "offset_spread_adu": 8.0,
    "gain_spread": 0.08,
    "hot_fraction": 0.01,
    "dead_fraction": 0.005,
    "full_well_e": 30_000.0,
}
PROTOCOL: dict[str, Any] = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
    "inverse": {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1},
}
ROUTINE = """
import numpy as np

from dmu_hw.files import Settings
from dmu_hw.routine import Evidence, Finding


class ToySettings(Settings):
    more_adu: float = 0.0


class Routine:
    Settings = ToySettings
    sample, needs, devices, per_channel, valid_days = "any", (), ("camera",), False, 7.0

    def __init__(self, settings):
        self.settings = settings

    def measure(self, instrument):
        return Evidence({"frames": instrument.dark(1.0, 2)})

    def fit(self, evidence, optics):
        frame = evidence.arrays["frames"].mean(axis=0)
        maps = {"offset_adu": frame + self.settings.more_adu, "response": np.ones_like(frame)}
        maps |= {"dark_e_per_ms": np.zeros_like(frame), "bad": np.zeros(frame.shape, dtype=np.uint8)}
        return Finding({"sensor": {"offset_adu": float(frame.mean())}}, {"offset_adu": 1.0}, maps)

    def judge(self, finding):
        return ()
"""


@pytest.mark.parametrize(("flip_x", "binning"), [(True, 1), (False, 2)])
def test_an_uneven_camera_makes_even_images(flip_x: bool, binning: int, tmp_path: Path) -> None:
    """Measured on the whole chip and with its frames as they lie there; used in a window, binned, and turned."""
    small = {"sensor_shape": [128, 128]}
    drawn = draw_rig(4, tmp_path, world=small, truth={"sensor": UNEVEN}, calibration={"results": "results"})
    (outcome,) = measured(drawn, {"routine": "sensor", "dark_frames": 32, "flat_frames": 24})
    assert outcome.good, outcome.result and outcome.result.record
    given = yaml.safe_load(drawn.path.read_text())
    given["devices"]["camera"]["flip_x"] = flip_x
    drawn.path.write_text(yaml.safe_dump(given))
    rig = Rig(load_rig(drawn.path))
    believe(rig)
    assert rig.pixels is not None
    roi, power_mw, exposure_ms = Roi(24, 40, 64, 48), 20.0, 20.0 / binning**2
    pixels = rig.pixels.seen(slice(40, 88), slice(24, 88), binning)
    (link,) = rig.connections
    link.hold("dye")  # type: ignore[attr-defined]
    with rig.opened():
        rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
        rig.dmd.show(0)
        rig.camera.configure(CameraMode(exposure_ms, binning, roi))
        with Guard(rig).light_on(power_mw, 5000.0):
            rig.camera.arm(16)
            frames = np.stack([rig.camera.pop(1000.0).pixels.copy() for _ in range(16)])
    rough: list[float] = []
    for maps in (None, pixels):
        window = Window(rig.optics, (48, 64), (0.0, 0.0), power_mw, exposure_ms, maps)
        signal = Calibrated(window, binning).signal(frames).mean(dim=0)
        bend = signal[:, 2:] - 2 * signal[:, 1:-1] + signal[:, :-2]  # the light itself is smooth
        rough.append(float(bend.std() / signal.mean() / np.sqrt(6)))
    assert rough[0] > 0.05
    assert rough[1] < rough[0] / 8, "photons alone are left"


@pytest.fixture(name="lab")
def _lab(tmp_path: Path, rig_yaml: Yaml, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rig_yaml({"calibration.results": "results", "optics.sensor.offset_spread_adu": 5.0})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(PROTOCOL))
    (tmp_path / "sensor.py").write_text(ROUTINE)
    return tmp_path


def calibrate(lab: Path, dmu: Dmu, more_adu: float = 0.0) -> None:
    assert dmu("calibrate", recipe(lab, {"routine": "sensor.py", "more_adu": more_adu}), "--json").status == 0


def test_a_plan_looks_through_the_pixels_of_its_frames(lab: Path, dmu: Dmu) -> None:
    assert window_of(open_session(lab / "run.yaml").plan, "patterns").pixels is None
    calibrate(lab, dmu)
    plan = open_session(lab / "run.yaml").plan
    found = window_of(plan, "patterns")
    assert found.pixels is not None
    assert found.pixels.bad.shape == plan.takes["patterns"].mode.shape
    frames = np.full((4, *found.pixels.bad.shape), 200, dtype=np.uint16)
    signal = Calibrated(found, 4).signal(frames)
    offset = torch.from_numpy(found.pixels.offset_adu.copy())
    assert float(torch.corrcoef(torch.stack([signal[0].flatten(), offset.flatten()]))[0, 1]) < -0.999


def test_a_run_keeps_the_maps_and_ends_with_them(lab: Path, dmu: Dmu, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate(lab, dmu)

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(acquire, "finish", die)
        cut = dmu("run", lab / "run.yaml", "--out", lab / "runs", "--json")
    assert cut.status == 1
    run = Path(cut.told["run"])
    before = (run / "pixels.safetensors").read_bytes()
    calibrate(lab, dmu, more_adu=50.0)
    (run / "pixels.safetensors").write_bytes(before[:-1] + b"\1")
    refused = dmu("run", "--resume", run)
    assert refused.status == 2
    assert "pixels.safetensors: is not what was believed of the camera's pixels when the run began" in refused.err
    (run / "pixels.safetensors").write_bytes(before)
    assert dmu("run", "--resume", run, "--json").status == 0
    assert (run / "pixels.safetensors").read_bytes() == before
    assert read_kept(run / "calibration.yaml").pixels is not None
    assert dmu("verify", run).status == 0


def test_without_maps_none_are_kept(lab: Path, dmu: Dmu) -> None:
    said = dmu("run", lab / "run.yaml", "--out", lab / "runs", "--json")
    assert said.status == 0
    assert not (Path(said.told["run"]) / "pixels.safetensors").exists()
    assert read_kept(Path(said.told["run"]) / "calibration.yaml").pixels is None
