"""A long run needs no more memory than a short one, and neither do its stores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GROWTH_MB = 10.0
CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fakes import bench_of, bench_rig, plan_of, run_plan
from dmu_hw.writer import write_stores

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

bursts, warm = 625, 60
rig = bench_rig(Path(sys.argv[2]))
plan = plan_of(rig, count=16, time={"loops": bursts}, frame_timeout_ms=1.0)
bench_of(rig).faults.dropped = {1600, 5003}
seen = {}

def watch(shot, _burst):
    if shot.index in (warm, bursts - 1):
        seen[shot.index] = resident_mb()

def progress(done, _total):
    if done in (warm, bursts):
        seen[-done] = resident_mb()

run, counts = run_plan(Path(sys.argv[2]) / "run", rig, plan, watch)
write_stores(run, plan, progress)
print(counts.saved, seen[bursts - 1] - seen[warm], seen[-bursts] - seen[-warm])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_thousand_frames(tmp_path: Path) -> None:
    """32×32 pixels, 16 patterns, a segment after 4000 frames; in a process of its own, that others do not disturb."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    saved, taking_mb, storing_mb = map(float, done.stdout.split())
    assert saved == 10_000
    assert taking_mb < GROWTH_MB
    assert storing_mb < GROWTH_MB
