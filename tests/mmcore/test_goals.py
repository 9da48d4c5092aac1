"""What a rig on MMCore must reach: the frames of the simulated one, the speed of the core, one upload, and no leaks."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fakes import plan_of, run_plan
from mmrig import Pair
from program import Dmu, Said
from simworld import SimRig, behind

from dmu_hw.burst import BurstTaker
from dmu_hw.guard import Guard
from dmu_hw.omezarr import Store
from dmu_hw.plan import Take
from dmu_hw.rig import Rig, load_rig
from dmu_hw.upload import mirror_frames

REPO = Path(__file__).parents[2]
PROTOCOL: dict[str, Any] = {
    "kind": "run",
    "name": "small",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "inverse": {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
    "positions": [{"x_um": 0.0, "y_um": 0.0, "focus_um": 0.0}, {"x_um": 40.1, "y_um": -7.3, "focus_um": 0.7}],
    "references": {"plain": True, "full": True},
    "retries": 0,
}


# ---------------------------------------------------------------- the same frames


def pixels(told: Said) -> dict[str, Any]:
    """All frames and images of a run; what is true is known of a simulated rig only."""
    assert told.status == 0, told.err
    stores = sorted(path for path in Path(told.told["run"]).glob("*.ome.zarr") if path.name != "truth.ome.zarr")
    return {
        f"{path.name} {place}": np.asarray(Store(path).array(place)[:])
        for path in stores
        for place in range(len(Store(path)))
    }


def both(dmu: Dmu, pair: Pair, adapters: Path, protocol: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same protocol on simulated devices, and through MMCore with the same world behind it."""
    out = pair.mm.parent
    simulated = dmu("run", protocol, "--rig", pair.simulated, "--out", out / "simulated", "--json")
    with behind(adapters, pair.simulated):
        through = dmu("run", protocol, "--rig", pair.mm, "--out", out / "mm", "--json")
    return pixels(simulated), pixels(through)


def check_same(simulated: dict[str, Any], through: dict[str, Any]) -> int:
    """Bit for bit; how many frames."""
    assert through.keys() == simulated.keys()
    different = [name for name in simulated if not np.array_equal(through[name], simulated[name], equal_nan=True)]
    assert different == []
    frames = [array for name, array in simulated.items() if not name.startswith("reconstruction")]
    return sum(int(np.prod(array.shape[:-2])) for array in frames)


@pytest.mark.parametrize(
    ("stepping", "references"), [("camera", ["plain"]), ("dmd", ["plain", "full"]), ("software", ["plain", "full"])]
)
def test_a_protocol_gives_the_frames_of_the_simulated_rig(
    mm_rig_yaml: Callable[..., Pair],
    simrig_folder: Path,
    dmu: Dmu,
    tmp_path: Path,
    stepping: str,
    references: list[str],
) -> None:
    """From protocol to reconstruction, in a world where light bleaches, so that each exposure depends on all before.

    A camera that sets the pace does so for a reference of one frame too. The simulated mirrors then step once more
    before they go dark, those of Micro-Manager hold still: a second reference would see the other dose.
    """
    pair = mm_rig_yaml({"stepping": stepping, "connections.world.truth": {"dye": {"bleach_dose_mj_cm2": 2000.0}}})
    protocol = {**PROTOCOL, "rig": pair.simulated.name, "references": dict.fromkeys(references, True)}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(protocol))
    assert check_same(*both(dmu, pair, simrig_folder, tmp_path / "run.yaml")) == 2 * (4 + len(references))


@pytest.mark.campaign
def test_quickstart_gives_the_frames_of_the_simulated_rig(
    mm_rig_yaml: Callable[..., Pair], simrig_folder: Path, dmu: Dmu, tmp_path: Path, figure: Callable[..., None]
) -> None:
    """The protocol and the rig that are shipped, without what MMCore cannot have: mirrors that tell what they show."""
    rig = yaml.safe_load((REPO / "devices" / "simulated.yaml").read_text(encoding="utf-8"))
    rig["devices"]["dmd"]["read_back"] = False
    rig["calibration"] = None
    (tmp_path / "simulated.yaml").write_text(yaml.safe_dump(rig))
    pair = mm_rig_yaml(simulated=tmp_path / "simulated.yaml")
    began_s = time.monotonic()
    frames = check_same(*both(dmu, pair, simrig_folder, REPO / "protocols" / "quickstart.yaml"))
    value = f"{frames} frames and all images equal, bit for bit, in {time.monotonic() - began_s:.0f} s"
    figure("mmcore", "quickstart on simulated devices and through MMCore", value, "all equal")


# ---------------------------------------------------------------- speed, and uploads


@pytest.fixture
def quick(mm_rig_yaml: Callable[..., Pair], simrig: SimRig) -> Rig:
    """Frames of 512×512 pixels as fast as a camera gives them whose exposures last a millisecond; no world computes
    them. Not opened."""
    sizes = {"connections.world.sensor_shape": [512, 512], "optics.mirrors.shape": [528, 528]}
    at_once = {"devices.dmd.settle_ms": 0.0, "devices.dmd.dark_ms": 0.0, "devices.camera.readout_ms": 0.0}
    return Rig(load_rig(mm_rig_yaml({**sizes, **at_once}).mm))


def take_of(rig: Rig, loops: int = 1) -> Any:
    return plan_of(rig, count=16, camera_pixel=4, side=512, exposure_ms=1.0, time={"loops": loops})


def unbinned(take: Take) -> Take:
    return replace(take, mode=replace(take.mode, binning=1))


def test_patterns_are_uploaded_once(quick: Rig, simrig: SimRig, tmp_path: Path) -> None:
    """However many bursts, fields and references there are."""
    with quick.opened():
        plan = plan_of(quick, side=512, time={"loops": 5}, references={"plain": True, "full": True})
        _, counts = run_plan(tmp_path / "run", quick, plan)
    assert (counts.saved, counts.missing) == (30, 0)
    assert simrig.count("Dmd", "StartSLMSequence") == 5
    assert simrig.count("Dmd", "SendSLMSequence") == 1
    assert simrig.count("Dmd", "AddToSLMSequence") == 4 + 2, "a step too many, and darkness"


def bare_ms(core: Any, count: int) -> float:
    """One burst by the core's calls alone."""
    began_s = time.perf_counter()
    core.startSLMSequence("Dmd")
    core.startSequenceAcquisition("Camera", count, 0.0, True)
    for _ in range(count):
        while core.getRemainingImageCount() == 0:
            time.sleep(1e-4)
        core.popNextImage()
    core.stopSequenceAcquisition("Camera")
    core.stopSLMSequence("Dmd")
    return 1e3 * (time.perf_counter() - began_s)


def driver_ms(rig: Rig, take: Take) -> float:
    """The same by the devices of a rig: frames copied, with numbers and times; mirrors dark in the end."""
    began_s = time.perf_counter()
    rig.dmd.start((*take.memory, take.memory[0]), None)
    rig.camera.arm(take.exposures)
    numbers = [rig.camera.pop(1000.0).number for _ in range(take.exposures)]
    rig.camera.disarm()
    rig.dmd.stop()
    passed_ms = 1e3 * (time.perf_counter() - began_s)
    assert numbers == list(range(take.exposures))
    return passed_ms


@pytest.mark.bench
def test_bursts_are_as_fast_as_the_core(quick: Rig, simrig: SimRig, figure: Callable[..., None]) -> None:
    """In turns, so that what else the machine does meets all of them. What a burst of the engine costs beside its
    frames (light, checks, checksums) is told and not judged here: tests/bench/test_engine.py does that."""
    with quick.opened():
        plan, core = take_of(quick), quick.connection("mm").core  # type: ignore[union-attr]
        take = unbinned(plan.takes["patterns"])
        quick.dmd.load(mirror_frames(plan))
        quick.camera.configure(take.mode)
        taker = BurstTaker(quick, Guard(quick), 1000.0)
        times_ms: dict[str, list[float]] = {"bare": [], "driver": [], "engine": []}
        for _ in range(40):
            burst_began_s = time.perf_counter()
            burst = taker.take(plan.shots[0], take)
            times_ms["engine"].append(1e3 * (time.perf_counter() - burst_began_s))
            assert len(burst.frames) == 16, burst.missing
            times_ms["driver"].append(driver_ms(quick, take))
            times_ms["bare"].append(bare_ms(core, take.exposures))
        uploads = simrig.count("Dmd", "SendSLMSequence")
    # a tenth of them met no other program: that is what it costs
    cost_ms = {name: statistics.quantiles(measured, n=10)[0] for name, measured in times_ms.items()}
    part, whole = (cost_ms["bare"] / cost_ms[name] for name in ("driver", "engine"))
    what = "16 frames of 512×512 pixels, 1 ms each: of the rate of bare startSequenceAcquisition and popNextImage"
    figure("mmcore", what, f"{part:.1%} by the driver; {whole:.1%} with light, checks and checksums", "≥ 95 %, driver")
    assert part >= 0.95
    assert uploads == 1


# ---------------------------------------------------------------- nothing is left behind

CHILD = """
import json, os, sys, threading, time
sys.path[:0] = sys.argv[1].split(os.pathsep)
from pathlib import Path
from fakes import plan_of
from simworld import SimRig
from dmu_hw.burst import BurstTaker
from dmu_hw.guard import Guard
from dmu_hw.upload import mirror_frames
from dmu_hw.rig import Rig, load_rig

path, adapters, cycles, way = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
library, rig = SimRig(adapters), Rig(load_rig(path))
plan = plan_of(rig, side=64)

def burst():
    rig.dmd.load(mirror_frames(plan))
    take = plan.takes["patterns"]
    rig.camera.configure(take.mode)
    taken = BurstTaker(rig, Guard(rig), 5000.0).take(plan.shots[0], take)
    assert len(taken.frames) == 4, taken.missing

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def left():
    return [threading.active_count(), *(len(os.listdir(f"/proc/self/{what}")) for what in ("task", "fd")), resident()]

def settled(before):
    # a thread that was told to end needs a moment for it
    end = time.monotonic() + 5.0
    while before is not None and left()[:3] != before[:3] and time.monotonic() < end:
        time.sleep(0.01)
    return left()

told = []
for cycle in range(cycles):
    rig.open()
    burst()
    if cycle == cycles - 1 and way != "closed":
        break
    rig.close()
    told.append(settled(told[1] if cycle > 1 else None))
counts = {call: library.count("Camera", call) for call in ("Initialize", "Shutdown")}
print(json.dumps({"told": told, "counts": counts}), flush=True)
if way == "in a burst":
    rig.camera.arm(1000)
    rig.dmd.start((0, 1), None)
elif way == "by an error":
    raise ZeroDivisionError
"""


def child(pair: Pair, adapters: Path, cycles: int, way: str) -> tuple[int, dict[str, Any], str]:
    folders = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1] / 'acquisition'}"
    command = [sys.executable, "-X", "faulthandler", "-c", CHILD, folders, str(pair.mm), str(adapters)]
    done = subprocess.run([*command, str(cycles), way], capture_output=True, text=True, timeout=600, check=False)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[0]) if lines else {}, done.stderr


def cycled(pair: Pair, adapters: Path, cycles: int) -> list[list[float]]:
    status, told, said = child(pair, adapters, cycles, "closed")
    assert status == 0, said
    assert told["counts"] == {"Initialize": cycles, "Shutdown": cycles}
    found: list[list[float]] = told["told"]
    settled = found[1][:3]
    assert [line[:3] for line in found[1:]] == [settled] * (cycles - 1), "threads of Python, of all, open files"
    return found


EXITS = {"closed": 0, "left open": 0, "in a burst": 0, "by an error": 1}


def exits(pair: Pair, adapters: Path, ways: Iterable[str]) -> None:
    """The status is the program's own, and no crash comes after it."""
    for way in ways:
        status, _, said = child(pair, adapters, 1, way)
        assert status == EXITS[way], f"{way}: {status} {said}"
        assert "Fatal" not in said, way


def test_opened_and_closed_a_few_times(mm_rig_yaml: Callable[..., Pair], simrig_folder: Path) -> None:
    cycled(mm_rig_yaml(), simrig_folder, 4)


def test_a_few_programs_end(mm_rig_yaml: Callable[..., Pair], simrig_folder: Path) -> None:
    exits(mm_rig_yaml(), simrig_folder, ["in a burst", "by an error"])


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_opened_and_closed_a_hundred_times(
    mm_rig_yaml: Callable[..., Pair], simrig_folder: Path, figure: Callable[..., None]
) -> None:
    found = cycled(mm_rig_yaml(), simrig_folder, 100)
    grown_mb = found[-1][3] - found[9][3]
    threads, files = found[-1][1], found[-1][2]
    value = f"none; {threads:.0f} threads and {files:.0f} files after each, {grown_mb:.1f} MB more after 90"
    figure("mmcore", "hangs, crashes and leaks in 100 times open, burst, close", value, "none, < 20 MB")
    assert grown_mb < 20


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_thirty_programs_end(
    mm_rig_yaml: Callable[..., Pair], simrig_folder: Path, figure: Callable[..., None]
) -> None:
    exits(mm_rig_yaml(), simrig_folder, itertools.islice(itertools.cycle(EXITS), 30))
    figure("mmcore", "hangs and crashes at 30 exits: closed, left open, in a burst, by an error", "none", "none")
