"""Trials for the tests of `dmu sweep`. Workers import this by name."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any


def outcome(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An error that follows from T and d; too much light fails."""
    with open(folder / "begun", "a") as file:
        file.write("x")
    if config["power_mw"] > 100:
        raise ValueError("too bright")
    mse = config["patterns"]["camera_pixel"] ** 2 / config["patterns"]["count"] / 1e4
    mse += config["schedule"]["seed"] * 1e-5
    gpus_seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return {"test_mse": mse, "test_psnr_db": -10 * math.log10(mse), "gpus_seen": gpus_seen}
