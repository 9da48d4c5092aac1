"""The driver on the real MMCore: the demo devices that everybody has, and SimRig, which fails on request."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mm_test_adapters
import numpy as np
import pymmcore
import pytest
import yaml
from mmrig import Pair
from simworld import SimRig

from dmu_hw.drivers.micromanager import Camera, Connection, lend
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Document, validate
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import CameraMode, MachineClock, Mount, Roi
from dmu_hw.rig import Rig, load_rig

DEMO = Path(mm_test_adapters.device_adapter_path()) / "MMConfig_demo.cfg"
DEVICES: dict[str, Any] = {
    "camera": {
        "label": "Camera",
        "sensor_shape": [512, 512],
        "binnings": [1, 2, 4, 8],
        "readout_ms": 0.2,
        "properties": {"PixelType": "16bit", "FastImage": 1},
    },
    "light": {"label": "White Light Shutter", "max_power_mw": 5.0},
    "light_470": {
        "label": "LED",
        "max_power_mw": 5.0,
        "switch": {"property": "Label", "on": "470nm", "off": "Closed", "also_off": ["550nm"]},
    },
    "filter": {"label": "Emission", "positions": {"green": "Chroma-HQ535", "red": "Chroma-HQ700"}},
    "stage": {"label": "XY", "x_um": [-2000.0, 2000.0], "y_um": [-2000.0, 2000.0], "settle_ms": 0.0},
    "focus": {"label": "Z", "z_um": [-300.0, 300.0], "settle_ms": 0.0},
}
MODE = CameraMode(2.0, 1, Roi(64, 32, 128, 96))


@pytest.fixture
def demo_yaml(tmp_path: Path, rig_yaml: Callable[..., Path]) -> Path:
    """The small simulated rig with what DemoCamera has; its mirrors are simulated, for it has none."""
    told = yaml.safe_load(rig_yaml({}).read_text(encoding="utf-8"))
    for name in set(told["devices"]) - {"dmd"}:
        del told["devices"][name]
    told["connections"]["mm"] = {"driver": "micromanager", "config": str(DEMO), "buffer_mb": 16}
    told["devices"] |= {name: {"driver": "micromanager", "connection": "mm", **part} for name, part in DEVICES.items()}
    told |= {"stepping": "software", "unwatched_light": "accept", "channels": {}, "calibration": None}
    told["channels"] = {
        "white": {"light": "light", "filters": {"filter": "red"}},
        "blue": {"light": "light_470", "filters": {"filter": "green"}},
    }
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.fixture
def demo(demo_yaml: Path) -> Iterator[Rig]:
    with Rig(load_rig(demo_yaml)).opened() as rig:
        yield rig


@pytest.fixture
def sim(mm_rig_yaml: Callable[..., Pair], simrig: SimRig) -> Iterator[Rig]:
    with Rig(load_rig(mm_rig_yaml().mm)).opened() as rig:
        yield rig


def core_of(rig: Rig) -> Any:
    (link,) = [link for link in rig.connections if isinstance(link, Connection)]
    return link.core


def burst(rig: Rig, count: int) -> list[tuple[int, float]]:
    """Numbers and times of the frames that come."""
    rig.camera.arm(count)
    found = []
    for _ in range(count):
        frame = rig.camera.pop(1000.0)
        assert (frame.pixels.dtype, frame.pixels.shape) == (np.uint16, MODE.shape)
        found.append((frame.number, frame.time_ms))
    return found


# ---------------------------------------------------------------- the demo devices


def test_frames_come_with_numbers_and_times(demo: Rig) -> None:
    demo.camera.configure(MODE)
    for _ in range(3):
        armed_ms = MachineClock().now_ms()
        found = burst(demo, 5)
        assert [number for number, _ in found] == list(range(5))
        times = [time_ms for _, time_ms in found]
        assert times == sorted(times)
        assert armed_ms <= times[0]
        assert times[-1] + MODE.exposure_ms <= MachineClock().now_ms()


@pytest.mark.parametrize("binning", [1, 2, 4])
def test_windows_are_told_in_pixels_of_the_chip(demo: Rig, binning: int) -> None:
    demo.camera.configure(CameraMode(2.0, binning, MODE.roi))
    assert core_of(demo).getROI("Camera") == [side // binning for side in (64, 32, 128, 96)]
    demo.camera.arm(1)
    assert demo.camera.pop(1000.0).pixels.shape == (96 // binning, 128 // binning)


def test_the_buffer_holds_what_was_planned_and_no_more(demo: Rig) -> None:
    rows, columns = demo.camera.sensor_shape
    demo.camera.configure(CameraMode(1.0, 1, Roi(0, 0, columns, rows)))
    demo.camera.arm(1)
    demo.camera.pop(1000.0)
    assert demo.camera.buffer_frames == core_of(demo).getBufferTotalCapacity()
    demo.camera.arm(demo.camera.buffer_frames + 5)
    while not core_of(demo).isBufferOverflowed():
        time.sleep(0.005)
    with pytest.raises(DeviceError, match=r"camera: Micro-Manager's 'Camera': buffer of 32 frames overflowed"):
        demo.camera.pop(1000.0)
    demo.camera.configure(MODE)
    assert len(burst(demo, 3)) == 3, "and the next sequence is as good as any"


def test_a_light_behind_a_shutter_and_one_of_several_leds(demo: Rig) -> None:
    white, blue, core = demo.light, demo.lights["light_470"], core_of(demo)
    white.on()
    assert core.getShutterOpen("White Light Shutter")
    white.off()
    assert not white.is_on()
    blue.on()
    assert core.getStateLabel("LED") == "470nm"
    assert blue.is_on()
    core.setStateLabel("LED", "550nm")
    assert not blue.is_on()
    core.setStateLabel("LED", "635nm")
    with pytest.raises(DeviceError, match="light_470: Micro-Manager's 'LED': property 'Label' is '635nm', not '470nm'"):
        blue.is_on()
    blue.off()
    assert core.getStateLabel("LED") == "Closed"


def test_no_shutter_opens_by_itself(demo: Rig) -> None:
    """Micro-Manager's auto shutter is on in the demo configuration, and would light with every sequence."""
    assert not core_of(demo).getAutoShutter()
    opened = threading.Event()

    def look() -> None:
        while not opened.wait(0.001):
            if demo.light.is_on():
                opened.set()
                return

    watching = threading.Thread(target=look)
    watching.start()
    demo.camera.configure(MODE)
    burst(demo, 10)
    lit = opened.is_set()
    opened.set()
    watching.join()
    assert not lit


def test_what_moves_arrives(demo: Rig) -> None:
    assert demo.stage is not None
    assert demo.focus is not None
    core, wheel = core_of(demo), demo.filters["filter"]
    demo.stage.move_um(60.0, -40.0, 5000.0)
    assert (core.getXPosition("XY"), core.getYPosition("XY")) == pytest.approx((60.0, -40.0), abs=1.0)
    demo.focus.move_um(3.0, 5000.0)
    assert core.getPosition("Z") == pytest.approx(3.0)
    wheel.select("red", 5000.0)
    assert (wheel.selected(), core.getStateLabel("Emission")) == ("red", "Chroma-HQ700")
    with pytest.raises(DeviceError, match="stage: moves from -2000 to 2000 um, sent to 2001 um"):
        demo.stage.move_um(2001.0, 0.0, 5000.0)


def test_eight_bits(demo_yaml: Path) -> None:
    told = yaml.safe_load(demo_yaml.read_text(encoding="utf-8"))
    told["devices"]["camera"] |= {"bytes_per_pixel": 1, "properties": {"PixelType": "8bit"}}
    with Rig(load_rig(demo_yaml, yaml.safe_dump(told))).opened() as rig:
        rig.camera.configure(MODE)
        rig.camera.arm(1)
        pixels = rig.camera.pop(1000.0).pixels
        assert pixels.dtype == np.uint16
        assert 0 < pixels.max() < 256


@pytest.mark.parametrize("kind", ["32bit", "32bitRGB", "64bitRGB"])
def test_pixels_that_are_no_grey_numbers(demo_yaml: Path, kind: str) -> None:
    told = yaml.safe_load(demo_yaml.read_text(encoding="utf-8"))
    told["devices"]["camera"]["properties"] = {"PixelType": kind}
    with pytest.raises(DeviceError, match=r"camera: Micro-Manager's 'Camera': gives \d bytes and \d colours a pixel"):
        Rig(load_rig(demo_yaml, yaml.safe_dump(told))).open()


@pytest.mark.parametrize(
    ("device", "changes", "why"),
    [
        ("camera", {"label": "Cam"}, "camera: Micro-Manager has no device 'Cam'; it has: 'Camera'"),
        ("camera", {"sensor_shape": [512, 640]}, r"camera: .*has \(512, 512\) pixels, the rig says"),
        ("camera", {"properties": {"Gain": 99}}, "property 'Gain' cannot be set to '99'; allowed: -5 to 8"),
        (
            "camera",
            {"properties": {"CameraID": 3}},
            "property 'CameraID' was set to '3' and is 'V1.0'; it is read only",
        ),
        ("camera", {"properties": {"PixelTipe": "8bit"}}, "none of this name; did you mean 'PixelType'?"),
        ("camera", {"properties": {"TransposeMirrorY": 1}}, "property 'TransposeMirrorY' is '1'"),
        ("light", {"label": "Camera"}, "light: Micro-Manager's 'Camera': is a camera, needed is a shutter"),
        (
            "filter",
            {"positions": {"green": "Chroma", "red": "Chroma-HQ700"}},
            "filter: Micro-Manager's 'Emission': has no state 'Chroma'; it has",
        ),
        ("stage", {"label": "Z"}, "stage: Micro-Manager's 'Z': is a stage, needed is a XY stage"),
    ],
)
def test_a_rig_that_is_not_what_it_says(demo_yaml: Path, device: str, changes: Any, why: str) -> None:
    """Refused at once, with what there is; the core is let go, and the next rig gets it."""
    told = yaml.safe_load(demo_yaml.read_text(encoding="utf-8"))
    told["devices"][device] |= changes
    with pytest.raises(DeviceError, match=why) as caught:
        Rig(load_rig(demo_yaml, yaml.safe_dump(told))).open()
    assert caught.value.device == device
    with Rig(load_rig(demo_yaml)).opened():
        pass


def test_a_dmd_is_no_part_of_the_demo(demo_yaml: Path) -> None:
    told = yaml.safe_load(demo_yaml.read_text(encoding="utf-8"))
    told["devices"]["dmd"] = {"driver": "micromanager", "connection": "mm", "label": "DMD"}
    with pytest.raises(DeviceError, match="dmd: Micro-Manager has no device 'DMD'; it has: no SLM, but 'DHub', 'Cam"):
        Rig(load_rig(demo_yaml, yaml.safe_dump(told))).open()


# ---------------------------------------------------------------- cores, ours and others'


def linked(optics: Optics, **told: Any) -> Connection:
    document = Document(told, {}, Path("rig.yaml"), ("connections", "mm"))
    return Connection(validate(document, Connection.Settings), Mount("mm", optics, document))


@pytest.fixture
def optics(rig_yaml: Callable[..., Path]) -> Optics:
    return load_rig(rig_yaml({})).optics


def test_a_core_is_opened_and_closed_again_and_again(optics: Optics) -> None:
    threads = set(threading.enumerate())
    link = linked(optics, config=str(DEMO))
    for _ in range(5):
        link.open()
        link.open()
        assert "Camera" in link.core.getLoadedDevices()
        core = link.core
        link.close()
        link.close()
        assert core.getLoadedDevices() == ("Core",)
    assert set(threading.enumerate()) <= threads


def test_devices_that_do_not_let_themselves_be_unloaded(optics: Optics) -> None:
    """It is said, and nobody else has to do without a core for that."""
    link = linked(optics, config=str(DEMO))
    link.open()

    def refuse() -> None:
        raise RuntimeError("Camera is running")

    link.core.unloadAllDevices = refuse
    with pytest.raises(DeviceError, match="mm: Micro-Manager does not unload its devices: Camera is running"):
        link.close()
    link.open()
    assert "Camera" in link.core.getLoadedDevices()
    link.close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Device,Camera,DemoCamera,DCamm\n", "mm: Micro-Manager: loadSystemConfiguration failed: .*DCamm"),
        ("Device,Camera,NoSuchAdapter,DCam\n", "mm: Micro-Manager: loadSystemConfiguration failed: .*NoSuchAdapter"),
        ("Property,Camera,Binning,1\n", "mm: Micro-Manager: loadSystemConfiguration failed: .*Camera"),
    ],
)
def test_a_configuration_that_does_not_load(optics: Optics, tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.cfg"
    path.write_text(f"Device,Z,DemoCamera,DStage\n{text}Property,Core,Initialize,1\n")
    with pytest.raises(DeviceError, match=why):
        linked(optics, config=str(path)).open()
    link = linked(optics, config=str(DEMO))
    link.open()
    link.close()


def test_files_and_folders_that_are_not_there(optics: Optics, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"mm: there is no file .*nix.cfg"):
        linked(optics, config=str(tmp_path / "nix.cfg")).open()
    with pytest.raises(DeviceError, match=r"mm: there is no folder of adapters .*nix"):
        linked(optics, config=str(DEMO), adapters=str(tmp_path / "nix")).open()


def test_one_core_a_process(optics: Optics) -> None:
    """pycromanager would hand out the first one to whoever asks for the second."""
    first, second = linked(optics, config=str(DEMO)), linked(optics, config=str(DEMO))
    first.open()
    try:
        for other in (second, linked(optics, backend="java")):
            with pytest.raises(DeviceError, match="this process has a core"):
                other.open()
    finally:
        first.close()
    second.open()
    second.close()


@contextmanager
def bare_core() -> Iterator[Any]:
    core = pymmcore.CMMCore()
    core.setDeviceAdapterSearchPaths([mm_test_adapters.device_adapter_path()])
    core.loadSystemConfiguration(str(DEMO))
    yield core
    core.unloadAllDevices()


@contextmanager
def pycromanagers_core() -> Iterator[Any]:
    from pycromanager import Core, start_headless, stop_headless
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

    start_headless(mm_test_adapters.device_adapter_path(), str(DEMO), python_backend=True, buffer_size_mb=64)
    yield Core()
    stop_headless()
    del Engine.singleton


@pytest.mark.parametrize("source", [bare_core, pycromanagers_core])
def test_the_core_of_a_script_is_given_back_as_it_was(optics: Optics, source: Callable[[], Any]) -> None:
    def state(core: Any) -> dict[str, Any]:
        settings = core.getSystemState()
        found = {
            (one.getDeviceLabel(), one.getPropertyName()): one.getPropertyValue()
            for one in (settings.getSetting(place) for place in range(settings.size()))
        }
        more = core.getROI("Camera"), core.getExposure("Camera"), core.getCircularBufferMemoryFootprint()
        return {**found, "more": more}

    with source() as core:
        core.setProperty("Camera", "Binning", "2")
        core.setROI("Camera", 10, 20, 100, 80)
        core.setExposure("Camera", 17.0)
        before = state(core)
        link = linked(optics, backend="given", buffer_mb=16)
        document = Document(_tuples(DEVICES["camera"]), {}, Path("rig.yaml"))
        camera = Camera(validate(document, Camera.Settings), Mount("camera", optics, document, link))
        with lend(core):
            link.open()
            camera.open()
            camera.configure(MODE)
            camera.arm(2)
            assert [camera.pop(1000.0).number for _ in range(2)] == [0, 1]
            assert state(core) != before
            camera.close()
            link.close()
        assert state(core) == before
        assert "Camera" in core.getLoadedDevices(), "and it is still there"


def _tuples(told: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}


def test_a_process_ends_even_if_nobody_closes(demo_yaml: Path) -> None:
    """With frames on their way, and a light on."""
    code = f"""
from pathlib import Path
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig, load_rig
rig = Rig(load_rig(Path({str(demo_yaml)!r})))
rig.open()
rig.camera.configure(CameraMode(2.0, 1, Roi(0, 0, 64, 64)))
rig.light.on()
rig.camera.arm(1000)
rig.camera.pop(1000.0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("stepping", ["camera", "dmd"])
def test_frames_that_never_came_are_gaps(sim: Rig, simrig: SimRig, stepping: str) -> None:
    """MMCore's own number does not know of them: the camera's tag does."""
    external = stepping == "dmd"
    mode = CameraMode(2.0, 1, Roi(0, 0, 32, 32), "external" if external else "internal", 0.0 if external else 4.0)
    sim.dmd.load(np.ones((4, *sim.dmd.shape), dtype=bool))
    sim.camera.configure(mode)
    simrig.fail("Camera", "Deliver 1 1 0")
    if external:
        sim.camera.arm(4)
        sim.dmd.start((0, 1, 2, 3), 8.0)
    else:
        sim.dmd.start((0, 1, 2, 3, 0), None)
        sim.camera.arm(4)
    frames = [(frame.number, frame.time_ms) for frame in (sim.camera.pop(1000.0) for _ in range(3))]
    assert [number for number, _ in frames] == [0, 2, 3]
    period_ms = 8.0 if external else 4.0
    assert np.diff([at_ms for _, at_ms in frames]) == pytest.approx([2 * period_ms, period_ms], abs=0.5 * period_ms)
    with pytest.raises(DeviceTimeout):
        sim.camera.pop(50.0)


@pytest.mark.parametrize(
    "call", ["SetImage", "DisplayImage", "AddToSLMSequence", "SendSLMSequence", "StartSLMSequence", "StopSLMSequence"]
)
def test_mirrors_that_refuse_are_named(sim: Rig, simrig: SimRig, call: str) -> None:
    sim.dmd.load(np.ones((2, *sim.dmd.shape), dtype=bool))

    def use() -> None:
        sim.dmd.start((0, 1), None)
        sim.dmd.stop()
        sim.dmd.show(1)

    simrig.fail("Dmd", f"{call} 0 1")
    with pytest.raises(DeviceError, match=r"^dmd: Micro-Manager's 'Dmd': .* failed: .*Dmd"):
        use()
    use()


@pytest.mark.parametrize(
    ("device", "call", "ask"),
    [
        ("Camera", "SetROI", lambda rig: rig.camera.configure(CameraMode(2.0, 1, Roi(0, 0, 32, 32)))),
        (
            "Camera",
            "StartSequenceAcquisition",
            lambda rig: (rig.camera.configure(CameraMode(2.0, 1, Roi(0, 0, 32, 32))), rig.camera.arm(1)),
        ),
        ("Laser", "SetOpen", lambda rig: rig.light.on()),
        ("Laser", "GetOpen", lambda rig: rig.light.is_on()),
        ("Laser", "Power-mW", lambda rig: rig.light.set_power(1.0)),
    ],
)
def test_devices_that_refuse_are_named(
    sim: Rig, simrig: SimRig, device: str, call: str, ask: Callable[[Rig], Any]
) -> None:
    simrig.fail(device, f"{call} 0 1")
    with pytest.raises(DeviceError, match=f"Micro-Manager's '{device}': ") as caught:
        ask(sim)
    assert caught.value.device == {"Laser": "light"}.get(device, device.lower())
    ask(sim)


def test_a_camera_that_dies_is_waited_for_no_longer_than_was_said(sim: Rig, simrig: SimRig) -> None:
    sim.camera.configure(CameraMode(2.0, 1, Roi(0, 0, 32, 32), interval_ms=4.0))
    simrig.fail("Camera", "Expose 2 -1")
    sim.camera.arm(5)
    assert [sim.camera.pop(1000.0).number for _ in range(2)] == [0, 1]
    began_s, busy_s = time.monotonic(), time.process_time()
    with pytest.raises(DeviceTimeout, match="camera: gave no frame within 200 ms"):
        sim.camera.pop(200.0)
    assert 0.2 <= time.monotonic() - began_s < 5.0
    assert time.process_time() - busy_s < 0.12, "it sleeps while it waits"


def test_a_stage_that_stays_busy_holds_nobody_up(sim: Rig, simrig: SimRig) -> None:
    """Stage, light and camera are in one adapter here, which MMCore locks call by call."""
    assert sim.stage is not None
    simrig.fail("XY", "Busy 0 -1")
    failed: list[DeviceError] = []

    def move() -> None:
        assert sim.stage is not None
        try:
            sim.stage.move_um(5.0, 5.0, 400.0)
        except DeviceTimeout as error:
            failed.append(error)

    moving = threading.Thread(target=move)
    moving.start()
    sim.light.on()
    began_s = time.monotonic()
    sim.light.off()
    assert not sim.light.is_on()
    assert time.monotonic() - began_s < 0.3
    moving.join()
    assert "did not arrive at 5 5 um within 400 ms" in str(failed[0])


def test_a_light_goes_off_in_the_middle_of_an_exposure(sim: Rig) -> None:
    """Of a camera in the same adapter, while another thread waits for its frame."""
    sim.camera.configure(CameraMode(300.0, 1, Roi(0, 0, 32, 32)))
    sim.light.on()
    sim.camera.arm(1)
    came: list[int] = []
    waiting = threading.Thread(target=lambda: came.append(sim.camera.pop(5000.0).number))
    waiting.start()
    time.sleep(0.05)
    began_s = time.monotonic()
    sim.light.off()
    assert not sim.light.is_on()
    assert time.monotonic() - began_s < 0.2
    assert not came
    waiting.join()
    assert came == [0]


def test_stop_from_another_thread_in_the_middle_of_a_sequence(sim: Rig, simrig: SimRig) -> None:
    """As a guard does whose light does not go off."""
    sim.dmd.load(np.ones((4, *sim.dmd.shape), dtype=bool))
    for _ in range(10):
        sim.dmd.start((0, 1, 2, 3), None)
        stopping = threading.Thread(target=sim.dmd.stop)
        stopping.start()
        sim.dmd.stop()
        stopping.join(5.0)
        assert not stopping.is_alive()
    assert simrig.count("Dmd", "SendSLMSequence") == 1
