"""kill -9 at any moment: every burst that was sealed is there, with the pixels that it had, and `dmu run --resume`
brings the run to the end that it would have had."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from fakes import bench_protocol, lines_of, picture, seen_exposure, seen_place
from program import COMMAND, ended

from dmu_hw.omezarr import Store
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
def test_killed_many_times(tmp_path: Path, figure: Callable[..., None]) -> None:
    frames = campaign(tmp_path, 200, seed=1)
    figure("R1", "200 runs killed at random moments", f"{frames} sealed frames, all there and right", "0 lost, 0 wrong")
    assert frames > 0


# ---------------------------------------------------------------- the whole program, killed and resumed


@dataclass
class Whole:
    """A run that nobody killed."""

    protocol: Path
    run: RunFolder
    journal_bytes: int
    seconds: float
    """From its last burst to its end."""


def start(protocol: Path, out: Path) -> tuple[subprocess.Popen[bytes], RunFolder]:
    """`dmu run` in a process of its own, and its folder, once there is a journal in it."""
    command = [*COMMAND, "run", str(protocol), "--out", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (begun := list(out.glob("*/journal.jsonl"))):
        assert child.poll() is None, "the run ended before it began"
        time.sleep(0.002)
    return child, RunFolder(begun[0].parent)


def whole_run(protocol: Path) -> Whole:
    child, run = start(protocol, protocol.parent / "whole")
    while b'"kind":"end"' not in run.journal.read_bytes()[-1000:]:
        time.sleep(0.002)
    ended_s = time.monotonic()
    assert child.wait(timeout=120) == 0
    return Whole(protocol, run, run.journal.stat().st_size, time.monotonic() - ended_s)


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Whole:
    loops = getattr(request, "param", 40)
    return whole_run(bench_protocol(tmp_path, time={"loops": loops}, references={"plain": True}))


@pytest.fixture
def simulated(
    tmp_path: Path,
    rig_yaml: Callable[..., Path],
) -> Whole:
    """With the reconstruction and the truth; in a world without bleaching."""
    protocol = {
        "kind": "run",
        "name": "small",
        "rig": rig_yaml({"optics.excitation": {"kind": "airy", "na": 0.5, "wavelength_nm": 488.0}}).name,
        "field_px": [32, 32],
        "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
        "inverse": {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1},
        "light": {"power_mw": 1.0},
        "exposure_ms": 2.0,
        "positions": [{"x_um": 0.0, "y_um": 0.0}, {"x_um": 40.0, "y_um": 0.0}],
        "time": {"loops": 25, "interval_s": 2.0},
        "references": {"plain": True},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(protocol))
    return whole_run(tmp_path / "run.yaml")


def stores(run: RunFolder) -> dict[str, Any]:
    """All pixels of a run."""
    return {
        f"{path.name} {place}": np.asarray(Store(path).array(place)[:])
        for path in sorted(run.path.glob("*.ome.zarr"))
        for place in range(len(Store(path)))
    }


def stage_of(run: RunFolder) -> str:
    """What a killed run was at."""
    if run.manifest.exists():
        return "ended"
    if run.reconstruction.exists() or not run.spool.exists():
        return "reporting"
    return "storing" if lines_of(run, "end") else "imaging"


def kill_and_resume(whole: Whole, part: float, out: Path) -> str:
    """Killed after so many parts: 1 is all bursts, 2 the end. Says what it hit; the resumed run equals the one that
    nobody killed."""
    child, run = start(whole.protocol, out)
    while run.journal.stat().st_size < min(1.0, part) * whole.journal_bytes and child.poll() is None:
        time.sleep(0.0005)
    time.sleep(max(0.0, part - 1.0) * whole.seconds)
    child.kill()
    child.wait()
    stage = stage_of(run)
    if stage != "ended":
        assert verify(run).damage == []
        assert ended("run", "--resume", run.path) == 0
    wanted, found = stores(whole.run), stores(run)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name], equal_nan=True) for name in wanted)
    facts, uncut = run.read_manifest(), whole.run.read_manifest()
    assert facts["metrics"] == uncut["metrics"]
    assert facts["complete"]
    assert facts["counts"]["saved"] == uncut["counts"]["saved"]
    assert verify(run).damage == []
    lost = sum(line["dose_mj_cm2"] for line in lines_of(run, "unsaved"))
    dose = sum(facts["actual"]["dose_mj_cm2"].values())
    assert dose == pytest.approx(sum(uncut["actual"]["dose_mj_cm2"].values()) + lost)
    return stage


def kills(whole: Whole, count: int, seed: int, folder: Path) -> str:
    """At random moments, half of them while bursts are taken; what they hit."""
    chance = random.Random(seed)
    stages = Counter(kill_and_resume(whole, chance.uniform(0, 2), folder / str(n)) for n in range(count))
    assert stages["imaging"] > 0
    hit = ", ".join(f"{stage} {runs}" for stage, runs in stages.most_common())
    return f"all resumed and equal to the uncut one; killed while {hit}"


def test_the_program_is_killed_and_resumed(bench: Whole, tmp_path: Path) -> None:
    kills(bench, 2, 1, tmp_path)


def test_a_simulated_microscope_is_killed_and_resumed(simulated: Whole, tmp_path: Path) -> None:
    kills(simulated, 1, 3, tmp_path)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bench", [300], indirect=True)
def test_the_program_is_killed_many_times(bench: Whole, tmp_path: Path, figure: Callable[..., None]) -> None:
    told = kills(bench, 80, 8, tmp_path)
    figure("R12", "80 runs on a bench, killed at random moments and resumed", told, "all equal")


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_simulated_microscope_is_killed_many_times(
    simulated: Whole, tmp_path: Path, figure: Callable[..., None]
) -> None:
    told = kills(simulated, 20, 9, tmp_path)
    figure("R12", "20 runs of a simulated microscope, killed at random moments and resumed", told, "all equal")
