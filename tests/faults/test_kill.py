"""kill -9 at any moment: every burst that was sealed is there, with the pixels that it had."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile
from fakes import picture, seen_exposure, seen_place

from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import SpoolReader, segment_path
from dmu_hw.verify import verify
from dmu_hw.writer import bursts

SIDE = 96
COUNT = 4
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import dmu_hw.spool as spool_module
from fakes import bench_rig, plan_of, spooling
from dmu_hw.engine import Engine
spool_module._SYNC_S = 0.005
spool_module._SEGMENT_FRAMES = 37
folder, side = Path(sys.argv[2]), int(sys.argv[3])
rig = bench_rig(folder, side=side)
plan = plan_of(rig, side=side, time={"loops": 100_000})
with spooling(folder / "run") as (run, spool):
    real_seal = spool._seal
    def seal():
        shots = list(spool._unsealed)
        real_seal()
        print(*shots, flush=True)
    spool._seal = seal
    print("ready", flush=True)
    Engine(plan, rig, spool).run()
"""


def killed_run(folder: Path, after_s: float) -> list[int]:
    """Runs until it is killed; the shots of which it said that they are on the disk."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1] / "acquisition"), str(folder), str(SIDE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(after_s)
        child.kill()
        told = child.stdout.read()
    whole = told[: told.rfind("\n") + 1]
    return [int(shot) for shot in whole.split()]


def check(folder: Path, acknowledged: list[int]) -> int:
    run = RunFolder(folder / "run")
    reader = SpoolReader(run.spool)
    sealed, frames = [], 0
    for lines in bursts(run.journal):
        sealed.append(lines[0]["shot"])
        assert sorted(line["pattern"] for line in lines) == list(range(COUNT))
        for line in lines:
            pixels = reader.frame(line)
            exposure = COUNT * line["shot"] + line["pattern"]
            assert (seen_place(pixels), seen_exposure(pixels)) == (line["pattern"], exposure)
            assert (pixels == picture(line["pattern"], exposure, pixels.shape)).all()
            frames += 1
    reader.close()
    assert sealed == list(range(len(sealed)))
    assert set(acknowledged) <= set(sealed)
    findings = verify(run)
    assert findings.cut
    assert (findings.damage, findings.frames) == ([], frames)
    if frames:
        with tifffile.TiffFile(segment_path(run.spool, 0)) as tiff:
            assert len(tiff.pages) >= min(frames, 37)
            assert seen_exposure(tiff.pages[0].asarray()) == 0
    return frames


def campaign(folder: Path, kills: int, seed: int) -> int:
    chance = random.Random(seed)
    frames = 0
    for number in range(kills):
        place = folder / str(number)
        place.mkdir()
        frames += check(place, killed_run(place, chance.uniform(0.0, 0.4)))
    return frames


def test_killed_a_few_times(tmp_path: Path) -> None:
    assert campaign(tmp_path, 15, seed=2) > 0


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_killed_many_times(tmp_path: Path) -> None:
    assert campaign(tmp_path, 200, seed=1) > 0
