"""A long run: nothing lost, no more memory at its end than at its beginning, and a spool that keeps up.

The run is made in a process of its own, that others do not disturb: bursts of four small frames, one after
the other, which is faster than any camera.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
GROWTH_MB, APPEND_MS = 50.0, 50.0
CHILD = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
from fakes import bench_rig, plan_of, spooling
from dmu_hw.engine import Engine

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

folder, bursts, side = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
warm, seen, appends = bursts // 10, {}, np.full(4 * bursts, -1.0)
rig = bench_rig(folder, side=side)
plan = plan_of(rig, side=side, time={"loops": bursts}, frame_timeout_ms=1.0)

def watch(shot, burst):
    if shot.index in (warm, bursts - 1):
        seen[shot.index] = resident_mb()

with spooling(folder / "run") as (run, spool):
    real, done = spool._write, [0]
    def write(pixels):
        began = time.perf_counter()
        place = real(pixels)
        appends[done[0]] = time.perf_counter() - began
        done[0] += 1
        return place
    spool._write = write
    counts = Engine(plan, rig, spool, watch).run()
print(json.dumps({
    "saved": counts.saved, "missing": counts.missing, "grown_mb": seen[bursts - 1] - seen[warm],
    "append_ms": 1e3 * float(np.quantile(appends, 0.999)), "middle_ms": 1e3 * float(np.median(appends)),
}))
"""


def soak(folder: Path, bursts: int, side: int) -> dict[str, Any]:
    home = str(Path(__file__).parents[1] / "acquisition")
    command = [sys.executable, "-c", CHILD, home, str(folder), str(bursts), str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["saved"], told["missing"]) == (4 * bursts, 0)
    assert told["grown_mb"] < GROWTH_MB
    return told


def test_a_soak(tmp_path: Path) -> None:
    told = soak(tmp_path, 150, side=32)
    assert told["middle_ms"] < APPEND_MS


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_bursts(tmp_path: Path, figure: Callable[..., None]) -> None:
    told = soak(tmp_path, 100_000, side=32)
    figure("R19", "memory growth over 100,000 bursts of 4 frames", f"{told['grown_mb']:.1f} MB", f"{GROWTH_MB:g} MB")
    figure("R19", "append to the spool, 99.9 % of 400,000 frames", f"{told['append_ms']:.2f} ms", f"{APPEND_MS:g} ms")
    assert told["append_ms"] < APPEND_MS
