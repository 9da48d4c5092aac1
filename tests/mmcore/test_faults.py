"""What goes wrong on the real MMCore: no frame under a wrong pattern, dark in the end, the device named, and what was
sealed is kept and gone on from.

Faults that come from the world behind SimRig are those of tests/faults/test_injected.py, by the same tests. Left out is
what only mirrors that tell what they have shown can find, since MMCore has no such call: shifted sequences, and pulses
that are lost between a camera that sets the pace and the mirrors. The first pulse of mirrors that set the pace is among
these: that of the dark picture behind the last comes in its place. The light of a marker finds all of them, on any rig:
tests/faults/test_proof.py, and one of them below. Faults of devices that answer with an error, hang or vanish come from
SimRig itself.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from fakes import lines_of, plan_of, run_plan, spooling
from mmrig import Pair, write_demo
from simworld import Behind, SimRig, behind

from dmu_hw.engine import Counts, Engine
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.past import read_past
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig, load_rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.verify import verify

HERE = Path(__file__).parent


def _tests_of_faults() -> ModuleType:
    """tests/faults/test_injected.py as a module."""
    path = HERE.parent / "faults" / "test_injected.py"
    spec = importlib.util.spec_from_file_location("injected_faults", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


INJECTED = _tests_of_faults()
BY_COUNT = [
    *(case for case in INJECTED.TAKEN_AGAIN if case[1] in ("dropped_frame", "repeated_frame")),
    *(("dmd", "lost_trigger", at) for at in (1, 3, 7)),  # the pulse after the last of four is that of the dark picture
]
"""What is found without mirrors that can be read back."""
ONCE = {"devices.dmd.properties": {"AtEnd": "Dark"}}
"""Mirrors that play a sequence once, so that pulses can be counted."""
TIMEOUT_MS = 1000.0
"""For a frame, however busy the machine is."""


@pytest.fixture
def opened(
    mm_rig_yaml: Callable[..., Pair], simrig_folder: Path, simrig: SimRig
) -> Iterator[Callable[..., tuple[Rig, Behind]]]:
    """Opens the small rig on MMCore, with the simulated one behind it."""
    with ExitStack() as stack:

        def make(changes: dict[str, Any] | None = None, mm: dict[str, Any] | None = None) -> tuple[Rig, Behind]:
            pair = mm_rig_yaml(changes, mm)
            made = stack.enter_context(behind(simrig_folder, pair.simulated))
            return stack.enter_context(Rig(load_rig(pair.mm)).opened()), made

        yield make


# ---------------------------------------------------------------- faults of the world


@pytest.fixture
def bench(opened: Callable[..., tuple[Rig, Behind]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """As in the tests of injected faults: a rig, and what its exposures truly saw."""
    monkeypatch.setattr(
        INJECTED, "plan_of", lambda rig, **keys: plan_of(rig, **{**keys, "frame_timeout_ms": TIMEOUT_MS})
    )

    def make(stepping: str, kind: str | None = None, at: int = 0) -> Any:
        faults = [] if kind is None else [{"kind": kind, "at": at}]
        rig, made = opened({"stepping": stepping, "connections.world.faults": faults}, ONCE)
        return INJECTED.watched(rig, made.world, monkeypatch)

    return make


@pytest.mark.parametrize("stepping", INJECTED.MODES)
def test_without_faults_all_is_there(bench: Callable[..., Any], tmp_path: Path, stepping: str) -> None:
    INJECTED.test_without_faults_all_is_there(bench, tmp_path, stepping)


@pytest.mark.parametrize(("stepping", "kind", "at"), BY_COUNT)
def test_a_burst_that_came_back_damaged_is_taken_again(
    bench: Callable[..., Any], tmp_path: Path, stepping: str, kind: str, at: int
) -> None:
    INJECTED.test_a_burst_that_came_back_damaged_is_taken_again(bench, tmp_path, stepping, kind, at)


@pytest.mark.parametrize(("stepping", "kind", "at"), BY_COUNT[::3])
def test_what_is_not_taken_again_is_missing(
    bench: Callable[..., Any], tmp_path: Path, stepping: str, kind: str, at: int
) -> None:
    INJECTED.test_what_is_not_taken_again_is_missing(bench, tmp_path, stepping, kind, at)


def test_the_light_tells_of_a_first_pulse_that_was_lost(bench: Callable[..., Any], tmp_path: Path) -> None:
    """All frames came, in time, each with the pattern after its own."""
    made = bench("dmd", "lost_trigger", 0)
    plan = INJECTED.plan_for(made.rig, retries=1, proof={"marker": "auto"})
    run, counts = run_plan(tmp_path / "run", made.rig, plan)
    assert (counts.saved, counts.missing, counts.retaken_bursts) == (12, 0, 1)
    made.check_frames(run, plan)
    made.check_dark()


# ---------------------------------------------------------------- faults of devices

ROLES = {"Dmd": "dmd", "Camera": "camera", "Laser": "light", "XY": "stage", "Z": "focus"}
POSITIONS = tuple({"x_um": 30.0 * place, "y_um": 0.0, "focus_um": float(place)} for place in range(3))
FRAMES = 4 * len(POSITIONS)


def sealed_in(run: RunFolder) -> set[tuple[Any, ...]]:
    """What of a run is on the disk for good: each pattern of each shot, and its pixels."""
    shots = {shot for line in lines_of(run, "sealed") for shot in line["shots"]}
    keys = ("shot", "pattern", "pattern_hash", "crc32c_pixels")
    return {tuple(line[key] for key in keys) for line in lines_of(run, "frame") if line["shot"] in shots}


class Table:
    """A rig that is opened for each run, and the world that stands behind it all the time."""

    def __init__(self, folder: Path, pair: Pair, made: Behind, simrig: SimRig) -> None:
        self.folder, self.pair, self.made, self.simrig = folder, pair, made, simrig

    def run(self, name: str, *, resumed: bool = False) -> int:
        """How many frames are there in the end."""
        rig = Rig(load_rig(self.pair.mm))
        keys = {"positions": POSITIONS, "references": {"plain": False}, "frame_timeout_ms": TIMEOUT_MS, "retries": 3}
        plan = plan_of(rig, side=32, **keys)
        with rig.opened(), spooling(self.folder / name, resumed=resumed) as (run, spool):
            return Engine(plan, rig, spool, past=read_past(run.journal) if resumed else None).run().saved

    def sealed(self, name: str) -> set[tuple[Any, ...]]:
        run = RunFolder(self.folder / name)
        return sealed_in(run) if run.journal.exists() else set()

    def breaks(self, name: str, label: str, text: str) -> DeviceError | None:
        """A run in which this goes wrong: dark, the device named, nothing damaged; and gone on with to its end."""
        self.simrig.fail(label, text)
        error: DeviceError | None = None
        try:
            assert self.run(name) == FRAMES
        except DeviceError as caught:
            error = caught
            # what does not start is told by its label: nobody knows yet what it is in the rig
            assert any(name in str(error) for name in (ROLES[label], f": {label}: ", f'"{label}"')), error
        assert self.made.is_dark, text
        self.simrig.fail(label, "")
        run, kept = RunFolder(self.folder / name), self.sealed(name)
        if error is None or not run.journal.exists():  # it was over, or nobody was ready for it yet
            return error
        found = verify(run)
        assert (found.damage, found.cut) == ([], True), text
        assert self.run(name, resumed=True) == FRAMES, text
        assert kept <= self.sealed(name), text
        assert {(shot, pattern) for shot, pattern, _, _ in self.sealed(name)} == {
            (shot, pattern) for shot in range(len(POSITIONS)) for pattern in range(4)
        }, text
        assert verify(run).damage == [], text
        return error


@pytest.fixture
def table(
    mm_rig_yaml: Callable[..., Pair],
    simrig_folder: Path,
    simrig: SimRig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], Table]]:
    monkeypatch.setattr("dmu_hw.spool._RESERVE_BYTES", 100)
    monkeypatch.setattr("dmu_hw.engine._MOVE_MARGIN_MS", 200.0)
    with ExitStack() as stack:

        def make(stepping: str) -> Table:
            pair = mm_rig_yaml({"stepping": stepping}, {"connections.mm.timeout_ms": 300.0})
            return Table(tmp_path, pair, stack.enter_context(behind(simrig_folder, pair.simulated)), simrig)

        yield make


FAULTS: dict[str, tuple[str, str, str, type[DeviceError]]] = {
    "a refused upload": ("camera", "Dmd", "SendSLMSequence", DeviceError),
    "a refused part of it": ("dmd", "Dmd", "AddToSLMSequence 2", DeviceError),
    "a refused picture": ("software", "Dmd", "SetImage 3", DeviceError),
    "a refused start": ("dmd", "Dmd", "StartSLMSequence 1", DeviceError),
    "mirrors that hang": ("camera", "Dmd", "StartSLMSequence 1 1 -100", DeviceError),
    "a camera that does not start": ("camera", "Camera", "StartSequenceAcquisition 1", DeviceError),
    "a camera that dies": ("dmd", "Camera", "Expose 6 -1; StartSequenceAcquisition 2 -1 35", DeviceError),
    "a window that is not taken": ("camera", "Camera", "SetROI 0 -1 0", DeviceError),
    "a power that is refused": ("camera", "Laser", "Power-mW 1", DeviceError),
    "a light that does not go on": ("camera", "Laser", "Open 1", DeviceError),
    "a light that does not go off": ("camera", "Laser", "Close 3 -1", DeviceError),
    "a light that cannot be asked": ("dmd", "Laser", "GetOpen 4 -1", DeviceError),
    "a stage that refuses": ("software", "XY", "SetPosition 1", DeviceError),
    "a stage that stays busy": ("camera", "XY", "Busy 1 -1", DeviceTimeout),
    "a stage that does not move": ("camera", "XY", "SetPosition 1 -1 0", DeviceTimeout),
    "a focus that stays busy": ("camera", "Z", "Busy 1 -1", DeviceTimeout),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_device_that_fails_ends_the_run_and_is_named(table: Callable[[str], Table], fault: str) -> None:
    stepping, label, text, kind = FAULTS[fault]
    made = table(stepping)
    error = made.breaks("run", label, text)
    assert isinstance(error, kind), error


def test_a_full_buffer_is_an_error_that_names_the_camera(mm_rig_yaml: Callable[..., Pair], simrig: SimRig) -> None:
    """More frames than MMCore's buffer holds, and nobody who fetches them."""
    pair = mm_rig_yaml({"connections.world.sensor_shape": [512, 512]}, {"connections.mm.buffer_mb": 2})
    with Rig(load_rig(pair.mm)).opened() as rig:
        rig.camera.configure(CameraMode(0.1, 1, Roi(0, 0, 512, 512)))
        rig.camera.arm(100)
        time.sleep(0.1)
        with pytest.raises(DeviceError, match=r"^camera: .*buffer of \d+ frames overflowed") as caught:
            taken(rig, 100)
        assert caught.value.device == "camera"
        rig.camera.arm(3)
        assert taken(rig, 3) == [0, 1, 2]


def taken(rig: Rig, count: int) -> list[int]:
    """Numbers of the next frames."""
    return [rig.camera.pop(1000.0).number for _ in range(count)]


# ---------------------------------------------------------------- unplugged


def unplugged(table: Table, label: str, every: int) -> tuple[int, int]:
    """At every so-manieth command that MMCore gives this device, from then on it is gone. How many runs, and how many
    of them said so."""
    table.simrig.forget()
    assert table.run(f"{label}-uncut") == FRAMES
    count, runs, told = table.simrig.count(label, "*"), 0, 0
    for at in range(0, count, every):
        error = table.breaks(f"{label}-{at}", label, f"* {at} -1 35")
        # the last command is Shutdown: of a run that is over, nobody is told of it
        assert error is not None or at == count - 1, f"{label} at {at} of {count}"
        runs, told = runs + 1, told + (error is not None)
    return runs, told


@pytest.mark.parametrize(
    ("stepping", "label", "every"),
    [("dmd", "Dmd", 19), ("camera", "Camera", 23), ("software", "Laser", 13), ("camera", "XY", 5), ("dmd", "Z", 5)],
)
def test_unplugged_at_some_commands(table: Callable[[str], Table], stepping: str, label: str, every: int) -> None:
    runs, told = unplugged(table(stepping), label, every)
    assert runs >= 2
    assert told >= runs - 1


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stepping", INJECTED.MODES)
def test_unplugged_at_every_command(table: Callable[[str], Table], figure: Callable[..., None], stepping: str) -> None:
    made = table(stepping)
    found = [unplugged(made, label, every=1) for label in ROLES]
    value = f"{sum(runs for runs, _ in found)} runs, all dark, all gone on with to their end"
    figure("mmcore", f"each device gone at each of MMCore's commands to it, stepping by {stepping}", value, "all")


# ---------------------------------------------------------------- kill -9


def program(adapters: Path, pair: Pair, *arguments: object) -> list[str]:
    """`dmu` in a process of its own, with the simulated rig behind SimRig."""
    return [sys.executable, str(HERE / "simworld.py"), str(adapters), str(pair.simulated), *map(str, arguments)]


def killed_and_resumed(adapters: Path, pair: Pair, protocol: Path, out: Path, chance: random.Random) -> int:
    """While bursts are taken. What was sealed is there with the pixels that it had; gone on with, it is complete. How
    many bursts were sealed when it was killed."""
    command = program(adapters, pair, "run", protocol, "--rig", pair.mm, "--out", out)
    wanted = chance.randint(1, 20)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        while sum(journal.read_bytes().count(b'"taken"') for journal in out.glob("*/journal.jsonl")) < wanted:
            if child.poll() is not None:
                pytest.fail(f"it ended by itself: {child.communicate()[1][-2000:]}")
            time.sleep(0.001)
        child.kill()
    (path,) = out.iterdir()
    run = RunFolder(path)
    found, kept = verify(run), sealed_in(run)
    assert (found.damage, found.cut) == ([], True)
    done = subprocess.run(program(adapters, pair, "run", "--resume", path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert verify(run).damage == []
    assert kept <= sealed_in(run)
    assert run.read_manifest()["complete"]
    return len(kept) // 4


@pytest.fixture
def long_protocol(tmp_path: Path) -> Path:
    protocol = {
        "kind": "run",
        "name": "long",
        "rig": "mm-rig.yaml",
        "field_px": [32, 32],
        "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
        "light": {"power_mw": 1.0},
        "exposure_ms": 2.0,
        "frame_timeout_ms": 5000.0,
        "time": {"loops": 25},
        "proof": {"marker": "never"},
    }
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(protocol))
    return tmp_path / "long.yaml"


def test_killed_and_resumed(
    mm_rig_yaml: Callable[..., Pair], simrig_folder: Path, long_protocol: Path, tmp_path: Path
) -> None:
    killed_and_resumed(simrig_folder, mm_rig_yaml(), long_protocol, tmp_path / "runs", random.Random(4))


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_killed_and_resumed_many_times(
    mm_rig_yaml: Callable[..., Pair],
    simrig_folder: Path,
    long_protocol: Path,
    tmp_path: Path,
    figure: Callable[..., None],
) -> None:
    chance, pair = random.Random(5), mm_rig_yaml()
    kept = [killed_and_resumed(simrig_folder, pair, long_protocol, tmp_path / str(n), chance) for n in range(20)]
    value = f"{sum(kept)} sealed bursts, all there and right; all gone on with to their end"
    figure("mmcore", "20 runs killed at random moments and resumed", value, "0 lost")


# ---------------------------------------------------------------- DemoCamera


class Stopped(Exception):  # noqa: N818 - what a program that uses this may raise
    pass


def test_a_run_on_the_demo_devices_is_cut_and_gone_on_with(
    rig_yaml: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no mirrors, no trigger and no faults: what is left is that a program's own error leaves them dark."""
    monkeypatch.setattr("dmu_hw.spool._RESERVE_BYTES", 100)
    path = write_demo(tmp_path, rig_yaml())
    lit: list[bool] = []

    def stop(_shot: object, _burst: object) -> None:
        raise Stopped

    def run(watch: Callable[..., None] | None, *, resumed: bool) -> Counts:
        rig = Rig(load_rig(path))
        keys = {"positions": POSITIONS, "light": {"power_mw": 5.0}, "frame_timeout_ms": 2000.0}
        plan = plan_of(rig, side=64, **keys)
        with rig.opened(), spooling(tmp_path / "run", resumed=resumed) as (folder, spool):
            past = read_past(folder.journal) if resumed else None
            try:
                return Engine(plan, rig, spool, watch, past=past).run()
            finally:
                lit.append(rig.light.is_on())
                assert rig.shutter is not None
                lit.append(rig.shutter.is_open())

    with pytest.raises(Stopped):
        run(stop, resumed=False)
    counts = run(None, resumed=True)
    assert (counts.saved, counts.missing) == (FRAMES, 0)
    assert lit == [False] * 4
    assert verify(RunFolder(tmp_path / "run")).damage == []
