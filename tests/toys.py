"""Calibration routines as small as can be, written beside a rig and a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROUTINE = '''
import json

import numpy as np

from dmu_hw.errors import DeviceError
from dmu_hw.files import NonNegative, Positive, Settings
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError


class ToySettings(Settings):
    most_adu: Positive = 1000.0
    more_adu: NonNegative = 0.0
    lit_ms: NonNegative = 0.0
    goes: str = "well"
    found: dict[str, object] = {{}}


class Routine:
    """How bright frames are without light."""

    Settings = ToySettings
    sample, needs, devices, per_channel, valid_days = {sample!r}, {needs!r}, ("camera",), {per_channel!r}, 7.0

    def __init__(self, settings):
        self.settings = settings

    def measure(self, instrument):
        if self.settings.goes == "unplugged":
            raise DeviceError("camera", "is not there any more")
        frames = instrument.dark(1.0, 2)
        if self.settings.lit_ms:
            everything = np.ones((1, *instrument.mirrors_shape), dtype=bool)
            frames = instrument.take(everything, power_mw=1.0, exposure_ms=self.settings.lit_ms, repeats=3)
        instrument.progress(1, 1)
        return Evidence({{"frames": frames}}, {{"exposure_ms": np.float64(1.0), "count": np.int64(2)}})

    def fit(self, evidence, optics):
        if self.settings.goes == "broken":
            raise KeyError("nowhere")
        if self.settings.goes == "badly":
            raise FitError("nothing fits: dust?")
        frame = evidence.arrays["frames"][0].astype(float)
        level = float(np.median(frame)) + self.settings.more_adu
        found = json.loads(json.dumps(self.settings.found)) or {{"sensor": {{"offset_adu": level}}}}
        x = np.arange(5.0)
        return Finding(
            found,
            {{"offset_adu": level, "tiny": 1e-200}},
            {{"map": frame}},
            pictures={{"a frame & more": frame, "residual": frame - frame.mean()}},
            curves={{"line": Curve(x, 2 * x + 0.1, 2 * x, "time / ms", "light")}},
            marks={{"a frame & more": np.array([[10.0, 20.0, 0.01, -0.02], [40.0, 30.0, 0.0, 0.0]])}},
        )

    def judge(self, finding):
        most = self.settings.most_adu
        return (Check("offset_adu", finding.figures["offset_adu"], most, 2 * most, "let the <camera> warm up"),)
'''


def toy(folder: Path, name: str, *, sample: str = "any", needs: tuple[str, ...] = (), per_channel: bool = False) -> str:
    """Write one; returns what a recipe calls it."""
    text = ROUTINE.format(sample=sample, needs=needs, per_channel=per_channel)
    (folder / f"{name}.py").write_text(text)
    return f"{name}.py"


def recipe(folder: Path, *steps: dict[str, Any], name: str = "recipe.yaml", **more: Any) -> Path:
    """Write one for the rig beside it."""
    path = folder / name
    given = {"kind": "calibration", "name": "toys", "rig": "rig.yaml", "steps": list(steps), **more}
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return path
