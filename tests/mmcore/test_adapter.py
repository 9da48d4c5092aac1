"""SimRig itself: what MMCore makes of an SLM, a camera and the rest, and that what is to go wrong does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pymmcore
import pytest
from simworld import SimRig, behind

CONFIG = Path(__file__).with_name("SimRig.cfg")
MIRRORS = (96, 128)


@pytest.fixture
def core(simrig_folder: Path, simrig: SimRig) -> Iterator[Any]:
    core = pymmcore.CMMCore()
    core.setDeviceAdapterSearchPaths([str(simrig_folder)])
    core.loadSystemConfiguration(str(CONFIG))
    yield core
    core.unloadAllDevices()


def patterns(count: int) -> list[np.ndarray[Any, Any]]:
    luck = np.random.default_rng(1)
    return [(luck.random(MIRRORS) < 0.5).astype(np.uint8) * 255 for _ in range(count)]


def taken(core: Any, count: int, timeout_s: float = 5.0) -> list[tuple[Any, dict[str, str]]]:
    """Pixels and tags of the frames that come."""
    found: list[tuple[Any, dict[str, str]]] = []
    end = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < end:
        if core.getRemainingImageCount() == 0:
            if not core.isSequenceRunning() and core.getRemainingImageCount() == 0:
                break
            time.sleep(0.001)
            continue
        tags = pymmcore.Metadata()
        pixels = core.popNextImageMD(tags)
        found.append((pixels, {name: tags.GetSingleTag(name).GetValue() for name in tags.GetKeys()}))
    return found


def sequence(core: Any, frames: int, length: int) -> list[tuple[Any, dict[str, str]]]:
    core.loadSLMSequence("Dmd", [pattern.tobytes() for pattern in patterns(length)])
    core.startSLMSequence("Dmd")
    core.setExposure(2.0)
    core.startSequenceAcquisition(frames, 0, True)
    found = taken(core, frames)
    core.stopSequenceAcquisition()
    core.stopSLMSequence("Dmd")
    return found


def test_a_sequence_steps_when_an_exposure_ends_and_goes_round(core: Any) -> None:
    found = sequence(core, 7, 3)
    assert [int(pixels[0, 0]) - 1 for pixels, _ in found] == [0, 1, 2, 0, 1, 2, 0]
    assert [tags["FrameNumber"] for _, tags in found] == [str(number) for number in range(7)]


def test_mirrors_that_set_the_pace_trigger_the_camera(core: Any) -> None:
    core.setProperty("Dmd", "TriggerMode", "Internal")
    core.setProperty("Dmd", "Period-ms", 6.0)
    core.setProperty("Camera", "Trigger", "External")
    core.setExposure(2.0)
    core.loadSLMSequence("Dmd", [pattern.tobytes() for pattern in patterns(4)])
    core.startSequenceAcquisition(4, 0, True)
    time.sleep(0.02)
    assert core.getRemainingImageCount() == 0
    core.startSLMSequence("Dmd")
    found = taken(core, 4)
    began = [float(tags["ElapsedTime-ms"]) for _, tags in found]
    assert np.diff(began) == pytest.approx(6.0, abs=0.01)
    assert [int(pixels[0, 0]) - 1 for pixels, _ in found] == [0, 1, 2, 3]


def test_a_picture_is_loaded_and_then_shown(core: Any, simrig: SimRig) -> None:
    core.setSLMImage("Dmd", patterns(1)[0])
    assert simrig.count("Dmd", "DisplayImage") == 0
    core.displaySLMImage("Dmd")
    assert simrig.count("Dmd", "DisplayImage") == 1


@pytest.mark.parametrize("value", [1, 254])
def test_only_the_value_for_on_is_on(core: Any, value: int) -> None:
    with pytest.raises(RuntimeError, match=r"\(21\)"):
        core.setSLMImage("Dmd", np.full(MIRRORS, value, np.uint8))


def test_mirrors_without_sequences(simrig_folder: Path, tmp_path: Path, simrig: SimRig) -> None:
    config = tmp_path / "still.cfg"
    config.write_text(
        CONFIG.read_text().replace("Property,Dmd,Rows", "Property,Dmd,SequenceMaxLength,0\nProperty,Dmd,Rows")
    )
    core = pymmcore.CMMCore()
    core.setDeviceAdapterSearchPaths([str(simrig_folder)])
    core.loadSystemConfiguration(str(config))
    with pytest.raises(RuntimeError):
        core.getSLMSequenceMaxLength("Dmd")
    core.unloadAllDevices()


def test_the_buffer_overflows(core: Any) -> None:
    core.setCircularBufferMemoryFootprint(1)
    core.setExposure(0.01)
    core.startSequenceAcquisition(1000, 0, True)
    end = time.monotonic() + 10.0
    while core.isSequenceRunning() and time.monotonic() < end:
        time.sleep(0.01)
    assert core.isBufferOverflowed()
    core.stopSequenceAcquisition()


FAULTS: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    "refused upload": ("Dmd", "SendSLMSequence", lambda core: sequence(core, 1, 2)),
    "refused step": ("Dmd", "AddToSLMSequence 1 1", lambda core: sequence(core, 1, 2)),
    "refused start": ("Dmd", "StartSLMSequence", lambda core: sequence(core, 1, 2)),
    "refused window": ("Camera", "SetROI", lambda core: core.setROI("Camera", 0, 0, 32, 32)),
    "light that does not go off": ("Laser", "SetOpen", lambda core: core.setShutterOpen("Laser", False)),
    "wheel that does not turn": ("Wheel", "SetState", lambda core: core.setStateLabel("Wheel", "RFP")),
    "stage that is gone": ("XY", "* 0 -1 35", lambda core: core.setXYPosition("XY", 1.0, 2.0)),
    "stage that is busy": ("XY", "Busy 0 -1", lambda core: core.waitForDevice("XY")),
    "focus that hangs": ("Z", "SetPosition 0 1 -50", lambda core: core.setPosition("Z", 1.0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_to_go_wrong_does(core: Any, simrig: SimRig, fault: str) -> None:
    device, text, command = FAULTS[fault]
    core.setTimeoutMs(50)
    core.setProperty(device, "Fail", text)
    with pytest.raises(RuntimeError):
        command(core)
    core.setProperty(device, "Fail", "")
    command(core)


def test_dropped_frames_and_a_camera_that_dies(core: Any, simrig: SimRig) -> None:
    simrig.fail("Camera", "Deliver 2 1")
    assert [tags["FrameNumber"] for _, tags in sequence(core, 5, 5)] == ["0", "1", "3", "4"]
    simrig.fail("Camera", "Expose 2 -1")
    assert [tags["FrameNumber"] for _, tags in sequence(core, 5, 5)] == ["0", "1"]


def test_what_is_not_understood_is_refused(core: Any) -> None:
    with pytest.raises(RuntimeError):
        core.setProperty("Camera", "Fail", "Expose soon")


def test_a_world_behind_it_gives_the_picture(core: Any, simrig_folder: Path, rig_yaml: Callable[..., Path]) -> None:
    core.unloadAllDevices()
    with behind(simrig_folder, rig_yaml({"stepping": "camera"})) as made:
        core.loadSystemConfiguration(str(CONFIG))
        core.setProperty("Laser", "Power-mW", 5.0)
        core.setShutterOpen("Laser", True)
        core.setXYPosition("XY", 30.0, 0.0)
        assert made.world.place_um[:2] == (30.0, 0.0)
        bright = np.full(MIRRORS, 255, np.uint8)
        core.loadSLMSequence("Dmd", [bright.tobytes(), (0 * bright).tobytes()])
        core.startSLMSequence("Dmd")
        core.setProperty("Camera", "Interval-ms", 6.0)
        core.setExposure(2.0)
        core.startSequenceAcquisition(4, 0, True)
        means = [pixels.mean() for pixels, _ in taken(core, 4)]
        assert min(means[::2]) - 100.0 > 10 * (max(means[1::2]) - 100.0)  # the offset
        core.stopSLMSequence("Dmd")
        core.setShutterOpen("Laser", False)
        assert made.is_dark
        core.unloadAllDevices()
