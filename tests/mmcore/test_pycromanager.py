"""Learned bursts in a script with pycromanager's own `Acquisition`, on the real MMCore."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from simworld import SimRig

from dmu_hw.data import Estimate
from dmu_hw.errors import DeviceError, InputError, RunError
from dmu_hw.pycromanager import Learned
from dmu_hw.pycromanager.live import Live
from dmu_hw.pycromanager.mirrors import Mirrors

pytest.importorskip("pycromanager")
from pycromanager import Acquisition, Core

# its datasets leave files open
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
HERE = Path(__file__).parent
RUN: dict[str, Any] = {
    "kind": "run",
    "name": "burst",
    "rig": "mm.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "inverse": {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
    "proof": {"marker": "never"},
}
"""SimRig plays by itself and shows no specimen that a marker could tell."""


@dataclass(frozen=True)
class Lab:
    """A script's folder, and the adapter that it speaks with."""

    folder: Path
    sim: SimRig

    def learned(self, **options: Any) -> Learned:
        return Learned(self.folder / "run.yaml", timeout_ms=options.pop("timeout_ms", 700.0), **options)

    def acquisition(self, learned: Learned, **hooks: Any) -> Any:
        return Acquisition(str(self.folder), "data", **(learned.hooks | hooks))


Make = Callable[..., Lab]


@pytest.fixture
def make(tmp_path: Path, rig_yaml: Callable[..., Path], simrig_folder: Path, simrig: SimRig) -> Iterator[Make]:
    """Writes rig and protocol, with some keys changed."""

    def write(stepping: str = "camera", dmd: dict[str, Any] | None = None, **changes: Any) -> Lab:
        link = {"driver": "micromanager", "adapters": str(simrig_folder), "config": str(HERE / "SimRig.cfg")}
        rig = {"name": "mm", "stepping": stepping, "unwatched_light": "accept", "connections": {"core": link}}
        rig_yaml(rig | {"devices": devices(dmd or {})}, name="mm.yaml")
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN | changes))
        return Lab(tmp_path, simrig)

    yield write
    gc.collect()  # here, where what pycromanager leaves open is nobody's fault


def devices(dmd: dict[str, Any]) -> dict[str, Any]:
    """Those of SimRig.cfg. The light is the script's affair, and is not opened."""
    link = {"driver": "micromanager", "connection": "core"}
    trigger = {"camera": {"TriggerMode": "External"}, "dmd": {"TriggerMode": "Internal"}}
    mirrors = link | {"label": "Dmd", "trigger": trigger, "period": {"property": "Period-ms"}}
    camera = link | {
        "label": "Camera",
        "sensor_shape": [64, 64],
        "binnings": [1, 2, 4, 8],
        "readout_ms": 0.1,
        "trigger": {"internal": {"Trigger": "Internal"}, "external": {"Trigger": "External"}},
        "interval": {"property": "Interval-ms"},
        "number_tag": "FrameNumber",
    }
    return {"dmd": mirrors | dmd, "camera": camera, "light": link | {"label": "Laser", "max_power_mw": 5.0}}


def seen(learned: Learned, acquisition: Any, axes: dict[str, int]) -> list[int]:
    """Which place of the sequence each frame saw: SimRig tells it in the first pixel."""
    return [int(frame[0, 0]) - 1 for frame in learned.frames(acquisition, axes)]


def ended_in(limit_s: float, script: Callable[[], None]) -> None:
    """What hangs fails, and takes no other test with it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            script()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    assert not thread.is_alive(), "it hangs"
    if failures:
        raise failures[0]


# ---------------------------------------------------------------- bursts


@pytest.mark.parametrize("stepping", ["camera", "dmd"])
def test_every_frame_of_every_burst_sees_its_pattern(make: Make, stepping: str) -> None:
    lab = make(stepping)
    with lab.learned() as learned:
        with lab.acquisition(learned) as acquisition:
            for position in range(2):
                for moment in range(2):
                    axes = {"position": position, "time": moment}
                    acquisition.acquire(learned.events(axes, x=10.0 * position, y=5.0, z=1.0))
        learned.check(acquisition)
        for position in range(2):
            for moment in range(2):
                assert seen(learned, acquisition, {"position": position, "time": moment}) == [0, 1, 2, 3]
        assert Core().getXPosition() == pytest.approx(10.0)
        assert Core().getPosition() == pytest.approx(1.0)
    assert lab.sim.count("Dmd", "StartSLMSequence") == 4
    assert lab.sim.count("Camera", "StartSequenceAcquisition") == 4, "one sequence of the camera a burst"


def test_without_sequences_patterns_are_shown_one_by_one_and_the_mirrors_go_dark_in_between(make: Make) -> None:
    lab = make("software")
    with lab.learned() as learned:
        with lab.acquisition(learned) as acquisition:
            for moment in range(2):
                acquisition.acquire(learned.events({"time": moment}))
        learned.check(acquisition)
        assert learned.frames(acquisition, {"time": 1}).shape == (4, 8, 8)
    assert lab.sim.count("Camera", "SnapImage") == 8
    assert lab.sim.count("Dmd", "StartSLMSequence") == 0


def test_a_burst_without_axes_of_its_own(make: Make) -> None:
    lab = make()
    with lab.learned() as learned:
        with lab.acquisition(learned) as acquisition:
            acquisition.acquire(learned.events())
        learned.check(acquisition)
        assert seen(learned, acquisition, {}) == [0, 1, 2, 3]


def test_events_of_the_scripts_own_pass_in_the_dark(make: Make) -> None:
    lab = make()
    with lab.learned() as learned:
        with lab.acquisition(learned) as acquisition:
            acquisition.acquire(learned.events({"time": 0}))
            acquisition.acquire({"axes": {"time": 5}})
            acquisition.acquire(learned.events({"time": 1}))
        learned.check(acquisition)
        assert acquisition.get_dataset().has_image(time=5)
        assert seen(learned, acquisition, {"time": 1}) == [0, 1, 2, 3]


def test_images_come_live_and_the_same_afterwards(make: Make) -> None:
    lab, found = make(), dict[int, Estimate]()
    with lab.learned(on_estimate=lambda axes, estimate: found.update({int(axes["time"]): estimate})) as learned:
        with lab.acquisition(learned) as acquisition:
            for moment in range(3):
                acquisition.acquire(learned.events({"time": moment}))
        learned.check(acquisition)
        late = learned.estimate(acquisition, {"time": 2})
    assert (sorted(found), learned.dropped) == ([0, 1, 2], 0)
    assert np.array_equal(found[2].image, late.image)
    assert late.image.shape == (32, 32)


def test_a_script_may_open_it_again(make: Make) -> None:
    lab = make()
    for _ in range(2):
        with lab.learned() as learned:
            with lab.acquisition(learned) as acquisition:
                acquisition.acquire(learned.events())
            learned.check(acquisition)


# ---------------------------------------------------------------- what goes wrong is told, and nothing hangs


def failing(lab: Lab, limit_s: float = 20.0, bursts: int = 2, **options: Any) -> str:
    """What a script is told in the end, and that it comes to its end."""
    told: list[str] = []

    def script() -> None:
        with lab.learned(**options) as learned:
            try:
                with lab.acquisition(learned) as acquisition:
                    for moment in range(bursts):
                        acquisition.acquire(learned.events({"time": moment}))
            except Exception as error:  # noqa: BLE001 - whatever pycromanager makes of it, or makes not
                told.append(f"pycromanager: {error}")
            with pytest.raises(RunError) as refused:
                learned.check(acquisition)
            told.append(str(refused.value))

    ended_in(limit_s, script)
    return told[-1]


def test_a_camera_that_dies_is_told_with_what_is_missing(make: Make) -> None:
    lab = make()
    lab.sim.fail("Camera", "Expose 2")
    told = failing(lab)
    assert "6 of 8 frames were not saved: time 0 pattern 2; time 0 pattern 3" in told


def test_a_camera_that_never_delivers_is_stopped(make: Make) -> None:
    """Its trigger does not come, since the mirrors do not start: pycromanager would wait for ever."""
    lab = make("dmd")
    lab.sim.fail("Dmd", "StartSLMSequence 0 -1 0")
    began_s = time.monotonic()
    told = failing(lab)
    assert time.monotonic() - began_s < 5.0
    assert "camera: gave 0 of 4 frames within" in told
    assert "8 of 8 frames were not saved" in told


def test_mirrors_that_fail_in_a_hook_are_told(make: Make) -> None:
    lab = make()
    lab.sim.fail("Dmd", "StartSLMSequence")
    told = failing(lab)
    assert "dmd" in told
    assert "8 of 8 frames were not saved" in told
    assert lab.sim.count("Camera", "StartSequenceAcquisition") == 0, "no frame of a burst that did not begin"


def test_a_dropped_frame_is_told(make: Make) -> None:
    lab = make()
    lab.sim.fail("Camera", "Deliver 1 1")
    assert "frames were not saved" in failing(lab)


def test_after_a_fault_no_burst_begins(make: Make) -> None:
    lab = make()
    lab.sim.fail("Dmd", "StartSLMSequence 1 1")
    told = failing(lab, bursts=4)
    assert "12 of 16 frames were not saved" in told
    assert lab.sim.count("Camera", "StartSequenceAcquisition") == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda core: core.setExposure(7.0), "exposes for 7 ms, the protocol says 2 ms"),
        (lambda core: core.setROI(0, 0, 4, 4), "gives frames of (4, 4), the protocol needs (8, 8)"),
    ],
)
def test_a_camera_that_the_script_has_changed_takes_no_burst(
    make: Make, change: Callable[[Any], None], told: str
) -> None:
    lab = make()
    with lab.learned() as learned:
        change(Core())
        with lab.acquisition(learned) as acquisition:
            acquisition.acquire(learned.events())
        with pytest.raises(RunError, match="4 of 4 frames were not saved") as refused:
            learned.check(acquisition)
    assert told in str(refused.value)


def test_events_that_were_merged_though_patterns_are_shown_one_by_one_are_refused(make: Make) -> None:
    lab = make("software")
    with lab.learned() as learned:
        with lab.acquisition(learned) as acquisition:
            acquisition.acquire(list(learned.events()))
        with pytest.raises(RunError, match="pycromanager merged their events"):
            learned.check(acquisition)


def test_what_a_script_does_with_an_image_may_fail_and_no_frame_is_lost(make: Make) -> None:
    def fail(axes: Any, estimate: Estimate) -> None:
        raise ZeroDivisionError("in the script")

    lab = make()
    with lab.learned(on_estimate=fail) as learned:
        with lab.acquisition(learned) as acquisition:
            acquisition.acquire(learned.events())
            time.sleep(0.5)
        with pytest.raises(RunError, match="in the script") as refused:
            learned.check(acquisition)
        assert "not saved" not in str(refused.value)


def test_hooks_that_a_script_leaves_out_are_missed(make: Make) -> None:
    lab = make()
    with lab.learned() as learned:
        with lab.acquisition(learned, image_process_fn=None) as acquisition:
            acquisition.acquire(learned.events())
        with pytest.raises(RunError, match="4 of 4 frames did not pass image_process"):
            learned.check(acquisition)


def test_frames_that_changed_since_they_came_are_told(make: Make) -> None:
    lab = make()
    with lab.learned() as learned:
        with Acquisition(**learned.hooks) as acquisition:  # into memory
            acquisition.acquire(learned.events())
        learned.check(acquisition)
        dataset = acquisition.get_dataset()
        dataset.images[frozenset({("pattern", 2)})][0, 0] += 1
        with pytest.raises(RunError, match="1 of 4 frames are not in the dataset as they came: pattern 2"):
            learned.check(dataset)


def ends_with_a_fault(lab: Lab, error: Exception | None = None) -> None:
    """A script that never asks what became of its burst."""
    with lab.learned() as learned:
        lab.sim.fail("Dmd", "StartSLMSequence")
        with lab.acquisition(learned) as acquisition:
            acquisition.acquire(learned.events())
        if error is not None:
            raise error


def test_a_fault_that_nobody_asked_for_is_raised_at_the_end(make: Make) -> None:
    with pytest.raises(RunError, match=r"[Dd]md"):
        ends_with_a_fault(make())


def test_what_the_script_raises_goes_on_with_a_note(make: Make) -> None:
    with pytest.raises(KeyError) as raised:
        ends_with_a_fault(make(), KeyError("mine"))
    assert any(note.startswith("dmu: ") for note in raised.value.__notes__)


# ---------------------------------------------------------------- before anything moves


def test_a_script_that_started_its_core_lends_it(make: Make, simrig_folder: Path) -> None:
    lab = make()
    text = (lab.folder / "mm.yaml").read_text()
    rig = yaml.safe_load(text)
    rig["connections"]["core"] = {"driver": "micromanager", "backend": "given"}
    (lab.folder / "mm.yaml").write_text(yaml.safe_dump(rig))
    with headless(simrig_folder):
        with lab.learned() as learned:
            with lab.acquisition(learned) as acquisition:
                acquisition.acquire(learned.events())
            learned.check(acquisition)
        assert Core().getLoadedDevices(), "what is lent is not unloaded"


def headless(folder: Path) -> Any:
    """A core as a script starts it."""
    from contextlib import contextmanager

    from pycromanager import start_headless, stop_headless
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

    @contextmanager
    def running() -> Iterator[None]:
        start_headless(str(folder), str(HERE / "SimRig.cfg"), python_backend=True, buffer_size_mb=64)
        try:
            yield
        finally:
            stop_headless()
            del Engine.singleton

    return running()


@pytest.mark.parametrize(
    ("axes", "where", "told"),
    [
        ({"pattern": 1}, {}, "what events() counts itself"),
        ({"time": 1.5}, {}, "should be a whole number or a text, given 1.5"),
        ({"time": 0}, {}, "time 0 was asked for before"),
        ({"field": 0}, {}, "every burst must have the same ones, time"),
        ({"time": 1}, {"tags": {}}, "hangs"),
        ({"time": 1}, {"properties": []}, "leaves them out"),
        ({"time": 1}, {"slm_pattern": b""}, "does not show it"),
        ({"time": 1}, {"timeout_ms": 3}, "takes it for seconds"),
        ({"time": 1}, {"speed": 3}, "is not known; allowed: config_group, min_start_time, x, y, z"),
    ],
)
def test_events_that_pycromanager_would_not_honour_are_refused(
    make: Make, axes: dict[str, Any], where: dict[str, Any], told: str
) -> None:
    learned = make().learned()
    first = learned.events({"time": np.int64(0)}, x=1.0)
    assert [event["axes"] for event in first] == [{"time": 0, "pattern": pattern} for pattern in range(4)]
    assert type(first[0]["axes"]["time"]) is int
    with pytest.raises(InputError) as refused:
        learned.events(axes, **where)
    assert told in str(refused.value)


def test_a_protocol_that_is_not_sound_is_refused_before_a_core_starts(make: Make) -> None:
    lab = make(exposure_ms=-1.0)
    with pytest.raises(InputError, match="exposure_ms"):
        lab.learned()
    with pytest.raises(InputError, match="has no inverse"):
        make(inverse=None).learned(on_estimate=print)
    with pytest.raises(InputError, match="no channel 'red'"):
        make().learned(channel="red")
    with pytest.raises(RunError, match="use it as a context"):
        _ = make().learned().hooks


def test_a_rig_without_a_core_is_refused(make: Make, rig_yaml: Callable[..., Path]) -> None:
    lab = make()
    with pytest.raises(InputError, match="there is no core of Micro-Manager in this process"):
        lab.learned(rig=rig_yaml()).__enter__()


def test_a_buffer_that_is_too_small_for_a_burst_is_told(make: Make) -> None:
    lab = make()
    with lab.learned() as learned:
        Core().getBufferTotalCapacity = lambda: 3
        acquisition = lab.acquisition(learned)
        acquisition.acquire(learned.events())
        acquisition.mark_finished()
        with pytest.raises(Exception, match="did not arrive"):
            acquisition.await_completion()
        with pytest.raises(RunError, match="has a buffer of 3 frames, and a burst has 4"):
            learned.check(acquisition)


def test_images_that_come_too_fast_are_left_out_and_counted() -> None:
    """What saves frames never waits."""
    release, done = threading.Event(), list[Any]()

    class Slow:
        def estimate(self, frames: Any) -> Any:
            release.wait(10.0)
            return int(frames[0, 0, 0])

    live = Live(Slow(), lambda axes, estimate: done.append((axes["time"], estimate)), pytest.fail)
    began_s = time.monotonic()
    for moment in range(9):
        live.add({"time": moment}, np.full((1, 1, 1), moment, np.uint16))
    assert time.monotonic() - began_s < 1.0
    release.set()
    live.close()
    assert len(done) + live.dropped == 9
    assert live.dropped >= 4
    assert all(moment == estimate for moment, estimate in done)


class Mimic:
    """Mirrors that can tell what they have shown, and lose a trigger of the camera's if they are asked to."""

    reads_back, settle_ms = True, 0.0

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.order: tuple[int, ...] = ()

    def start(self, order: Any, _period_ms: float | None) -> None:
        self.order = tuple(order)

    def stop(self) -> None:
        """Nothing to do."""

    def shown(self) -> tuple[int, ...]:
        return self.order[: 5 - self.lost]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_trigger_is_told_by_mirrors_that_can(make: Make, lost: int) -> None:
    learned = make("camera").learned()
    rig, take = learned._session.rig, learned._take
    rig._parts["dmd"] = Mimic(lost)  # type: ignore[assignment]
    mirrors = Mirrors(rig, take)
    mirrors.begin(range(4))
    if not lost:
        mirrors.end()
        return
    with pytest.raises(DeviceError, match=r"showed 4 patterns, \[0, 1, 2, 3\], instead of \[0, 1, 2, 3, 0\]"):
        mirrors.end()


# ---------------------------------------------------------------- in a process of its own

SCRIPT = """
import os, sys, time
from pathlib import Path
from pycromanager import Acquisition
from dmu_hw.pycromanager import Learned
from dmu_hw.pycromanager.live import Live
from dmu_hw.pycromanager.mirrors import Mirrors

with Learned("run.yaml", rig="mm.yaml") as learned:
    assert "torch" not in sys.modules, "only the inverse needs it"
    with Acquisition(os.getcwd(), "data", **learned.hooks) as acquisition:
        acquisition.acquire(learned.events({"time": 0}))
        for _ in range(1000):
            if acquisition.get_dataset().has_image(time=0, pattern=3):
                break
            time.sleep(0.01)
        time.sleep(0.2)
        if "kill" in sys.argv:
            os.kill(os.getpid(), 9)
    learned.check(acquisition)
print("done")
"""


def test_a_process_ends_cleanly_and_needs_no_torch(make: Make) -> None:
    lab = make()
    done = ran(lab)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "done"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_frames_of_a_script_that_was_killed_can_be_found(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    from ndstorage import Dataset

    lab = make()
    assert ran(lab, "kill").returncode == -9
    dataset = Dataset(str(lab.folder / "data_1"))
    frames = [dataset.read_image(time=0, pattern=pattern) for pattern in range(4)]
    dataset.close()
    assert [int(frame[0, 0]) - 1 for frame in frames] == [0, 1, 2, 3]


def ran(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    (lab.folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "script.py", *arguments]
    return subprocess.run(command, cwd=lab.folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_example_that_is_shipped_runs(make: Make) -> None:
    lab = make()
    example = HERE.parents[1] / "protocols" / "pycromanager_example.py"
    command = [sys.executable, example, "--protocol", "run.yaml", "--rig", "mm.yaml", "--out", "out"]
    done = subprocess.run(command, cwd=lab.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 images in " in done.stdout
    with np.load(lab.folder / "out" / "images.npz") as images:
        assert sorted(images) == [f"position{position}-time{time}" for position in (0, 1) for time in (0, 1)]
        assert all(image.shape == (32, 32) and np.ptp(image) > 0 for image in images.values())
