"""The driver `dlpc900` on its twin: the world sees what the simulated DMD would show, and nothing is refused."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bursts import (
    EXPOSURE_MS,
    PERIOD_MS,
    blocks,
    brightness,
    dark_after,
    light_up,
    paced_by_camera,
    paced_by_dmd,
    paced_by_program,
)
from fakes import lines_of, run_plan

from dmu_hw.cli.session import open_session
from dmu_hw.data import BoolArray
from dmu_hw.drivers.dlpc900 import usb
from dmu_hw.drivers.dlpc900.commands import MOST_IN_ORDER, stop
from dmu_hw.drivers.dlpc900.link import Link
from dmu_hw.drivers.dlpc900.packets import Code
from dmu_hw.drivers.dlpc900.settings import MODELS
from dmu_hw.errors import DeviceError, InputError
from dmu_hw.rig import Rig, load_rig
from dmu_hw.upload import mirror_frames

TWIN = "dmu_hw.twins.dlpc900"
WIRED: dict[str, dict[str, Any]] = {
    "simulated": {"driver": "simulated"},
    "exposure out": {"driver": TWIN},
    "exposure out of two controllers": {"driver": TWIN, "dual": True, "dark_us": 400, "settle_us": 50},
    "pulse out, no dark time": {"driver": TWIN, "trigger_out": 2, "dark_us": 0},
    "stepped by the camera": {"driver": TWIN, "trigger_in": "falling"},
}
COUNT = 30


@pytest.fixture
def wired(small_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Opens the small rig with another DMD."""

    def opened(how: str = "exposure out", **settings: Any) -> Rig:
        return small_rig({"devices.dmd": {"connection": "world", **WIRED[how], **settings}})

    return opened


@pytest.fixture
def rig(wired: Callable[..., Rig]) -> Iterator[Rig]:
    """On the twin, loaded; it must have nothing to object to in the end."""
    found = wired()
    found.dmd.load(blocks(COUNT))
    yield found
    assert controller(found).refusals == []


def controller(rig: Rig) -> Any:
    return rig.dmd.controller  # type: ignore[attr-defined]


ORDER = (*range(COUNT - 1, -1, -1), 7, 7, 3)
WAYS = {
    "exposure out": paced_by_dmd,
    "exposure out of two controllers": paced_by_dmd,
    "pulse out, no dark time": paced_by_dmd,
    "stepped by the camera": paced_by_camera,
}


@pytest.mark.parametrize("how", WAYS)
def test_a_burst_gives_the_frames_of_the_simulated_dmd(wired: Callable[..., Rig], how: str) -> None:
    simulated, twin = wired("simulated"), wired(how)
    found = []
    for rig in (simulated, twin):
        rig.dmd.load(blocks(COUNT))
        found.append(WAYS[how](rig, ORDER))
        assert rig is simulated or controller(rig).sequencer.lost == 0
        rig.dmd.stop()
        rig.dmd.show(4)
        found[-1] += paced_by_program(rig, (4, 0, 29))
    assert np.array_equal(*found)
    assert controller(twin).refusals == []


PROTOCOL = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 16, "camera_pixel": 8},
    "light": {"power_mw": 1.0},
    "exposure_ms": EXPOSURE_MS,
}


def test_a_run_gives_the_frames_of_the_simulated_dmd(rig_yaml: Callable[..., Path], tmp_path: Path) -> None:
    """Checksums in the journal, from protocol to spool."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(PROTOCOL))
    told = {}
    for how in ("simulated", "exposure out"):
        rig_yaml({"devices.dmd": {"connection": "world", **WIRED[how]}})
        session = open_session(tmp_path / "run.yaml")
        with session.rig.opened():
            run, counts = run_plan(tmp_path / how.replace(" ", "-"), session.rig, session.plan)
        assert (counts.saved, counts.missing) == (16, 0)
        told[how] = [(line["pattern"], line["crc32c_pixels"]) for line in lines_of(run, "frame")]
    assert told["simulated"] == told["exposure out"]


# ---------------------------------------------------------------- dark


def test_every_way_out_is_dark(rig: Rig) -> None:
    for shown, left in dark_after(rig):
        assert shown > 5
        assert left == pytest.approx(0, abs=0.5)


def test_a_sequence_that_the_camera_paces_ends_dark(wired: Callable[..., Rig]) -> None:
    rig = wired("stepped by the camera")
    rig.dmd.load(blocks(COUNT))
    light_up(rig)
    dark = brightness(rig)
    rig.dmd.start((1, 2), None)
    rig.clock.sleep_ms(500.0)
    assert brightness(rig) > dark + 5, "the first one stands until the camera has exposed"
    rig.clock.sleep_ms(500.0)
    assert brightness(rig) > dark + 5
    rig.clock.sleep_ms(1.0)
    assert brightness(rig) == pytest.approx(dark, abs=0.5)


# ---------------------------------------------------------------- memory and upload


def test_the_memory_is_full_when_it_says_so(wired: Callable[..., Rig]) -> None:
    for how, room in (("exposure out", MOST_IN_ORDER - 2), ("stepped by the camera", 132)):
        rig = wired(how)
        assert rig.dmd.memory_frames == room
        rig.dmd.load(blocks(room))
        if how == "exposure out":
            rig.dmd.start((*range(room), 0), 1.0)
        else:
            rig.dmd.start((*range(room), 0), None)
        with pytest.raises(DeviceError, match=f"dmd: has memory for {room} frames, given {room + 1}"):
            rig.dmd.load(blocks(room + 1))
        with pytest.raises(DeviceError, match="dmd: has no frame 0: 0 frames are loaded"):
            rig.dmd.show(0)
        assert controller(rig).refusals == []


@pytest.mark.parametrize("how", ["exposure out", "exposure out of two controllers", "stepped by the camera"])
def test_an_upload_takes_as_long_as_its_price(wired: Callable[..., Rig], how: str) -> None:
    rig = wired(how)
    dmd: Any = rig.dmd
    noise: BoolArray = np.random.default_rng(3).random((COUNT, 96, 128)) < 0.5
    for what in (blocks(COUNT), noise, blocks(1)):
        before_ms = rig.clock.now_ms()
        dmd.load(what)
        took_ms = rig.clock.now_ms() - before_ms
        assert dmd.coded_upload_ms(what) == pytest.approx(took_ms, abs=10)
        assert dmd.coded_upload_ms(what) <= dmd.upload_ms(len(what))
    assert dmd.upload_ms(len(noise)) < 1.6 * dmd.coded_upload_ms(noise)


def test_a_run_is_priced_by_the_coded_size_of_its_frames(rig_yaml: Callable[..., Path], tmp_path: Path) -> None:
    """Patterns that no mirror shows as a whole cost more than coarse ones, though there are as many."""
    told = {}
    for name, matrix in {"coarse": [[0.5, 0.0], [0.0, 0.5]], "turned": [[0.49, 0.1], [-0.1, 0.49]]}.items():
        changes = {"devices.dmd": {"connection": "world", "driver": TWIN}, "optics.mirrors.to_sample.matrix": matrix}
        rig_yaml(changes)
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(PROTOCOL))
        session = open_session(tmp_path / "run.yaml")
        dmd: Any = session.rig.dmd
        shown = mirror_frames(session.plan)
        assert session.plan.price.upload_s == dmd.coded_upload_ms(shown) / 1e3 < dmd.upload_ms(len(shown)) / 1e3
        told[name] = session.plan.price
    assert told["coarse"].upload_s < told["turned"].upload_s
    assert told["turned"].time_s - told["coarse"].time_s == pytest.approx(
        told["turned"].upload_s - told["coarse"].upload_s
    )


def test_times_are_told_once_and_images_are_not_told_again(rig: Rig) -> None:
    sent: list[int] = []
    twin = controller(rig)
    obey = twin._obey
    twin._obey = lambda body, reads: sent.append(int.from_bytes(body[:2], "little")) or obey(body, reads=reads)
    rig.dmd.start((0, 1, 2, 0), PERIOD_MS)
    assert sent.count(Code.TABLE_ENTRY) == 3
    sent.clear()
    for _ in range(3):
        rig.dmd.start((2, 1, 0), PERIOD_MS)
    assert sent == [Code.START_STOP, Code.TABLE_ORDER, Code.START_STOP] * 3


# ---------------------------------------------------------------- refusals and failures

ASKED: dict[str, tuple[Callable[[Rig], object], str]] = {
    "too fast": (lambda rig: rig.dmd.start((0,), 0.2), "steps every 0.21 to 16777.2 ms, given 0.2 ms"),
    "too slow": (lambda rig: rig.dmd.start((0,), 1e5), "steps every 0.21 to 16777.2 ms, given 100000 ms"),
    "no line for the camera": (
        lambda rig: rig.dmd.start((0,), None),
        "cannot be stepped by the camera: say trigger_in",
    ),
    "too long": (lambda rig: rig.dmd.start((0,) * 250, 1.0), "shows at most 249 frames in a sequence, given 250"),
    "no such frame": (lambda rig: rig.dmd.start((0, COUNT), 1.0), f"has no frame {COUNT}: {COUNT} frames are loaded"),
    "waits too long": (lambda rig: rig.dmd.wait_ms(30.0), "can wait 0.105 to 20.105 ms for its mirrors, given 30"),
    "waits too short": (lambda rig: rig.dmd.wait_ms(0.1), "can wait 0.105 to 20.105 ms for its mirrors, given 0.1"),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_it_cannot_do_is_refused_before_it_is_asked(rig: Rig, what: str) -> None:
    ask, told = ASKED[what]
    with pytest.raises(DeviceError) as caught:
        ask(rig)
    assert str(caught.value).startswith(f"dmd: {told}")


def test_pulses_wait_as_long_as_they_are_told(rig: Rig) -> None:
    rig.dmd.wait_ms(1.605)  # type: ignore[attr-defined]
    assert rig.dmd.settle_ms == 1.605
    before = len(rig.connection("world").pulses_ms)  # type: ignore[union-attr]
    rig.dmd.start((0, 1), PERIOD_MS)
    began_ms = controller(rig).sequencer._ready_ms - 2 * PERIOD_MS - 0.105
    pulses = rig.connection("world").pulses_ms[before:]  # type: ignore[union-attr]
    assert pulses[:2] == pytest.approx([began_ms + 1.5, began_ms + PERIOD_MS + 1.5])


@pytest.mark.parametrize("fault", ["silence", "garble", "fail"])
def test_a_command_that_goes_wrong_is_a_device_error_and_the_next_one_may_not(
    wired: Callable[..., Rig], fault: str
) -> None:
    rig = wired(timeout_ms=20.0)
    rig.dmd.load(blocks(COUNT))
    for ask in (
        lambda: rig.dmd.load(blocks(COUNT)),
        lambda: rig.dmd.start((0, 1), PERIOD_MS),
        lambda: rig.dmd.show(3),
        rig.dmd.stop,
    ):
        assert controller(rig).wrong[fault] == 0
        controller(rig).wrong[fault] = 1
        with pytest.raises(DeviceError, match=r"^dmd: USB: start stop \(1A24\) was "):
            ask()
        rig.dmd.load(blocks(COUNT))
        ask()


def test_a_load_that_breaks_off_leaves_nothing_and_the_next_one_is_whole(wired: Callable[..., Rig]) -> None:
    rig = wired()
    twin = controller(rig)
    rig.dmd.load(blocks(COUNT, seed=5))
    obey, left = twin._obey, 40

    def until(body: bytes, reads: bool) -> bytes:
        nonlocal left
        left -= 1
        twin.wrong["fail"] = int(left == 0)
        return obey(body, reads=reads)

    twin._obey = until
    with pytest.raises(DeviceError, match="was refused: 2, device failure"):
        rig.dmd.load(blocks(COUNT))
    with pytest.raises(DeviceError, match="has no frame 1: 0 frames are loaded"):
        rig.dmd.show(1)
    rig.dmd.load(blocks(COUNT))
    assert twin.refusals == ["34 1a 21 00 69 00 00 10 00 00 00 00 01 48: told to fail"] or len(twin.refusals) == 1
    light_up(rig)
    rig.dmd.show(1)


def test_a_stop_that_is_taken_and_not_obeyed_is_said(rig: Rig, monkeypatch: Any) -> None:
    monkeypatch.setattr("dmu_hw.drivers.dlpc900.dmd._PATIENCE_S", 0.02)
    rig.dmd.show(1)
    controller(rig).wrong["ignore"] = 1
    with pytest.raises(DeviceError, match="dmd: USB: the sequencer still runs though it was told to stop"):
        rig.dmd.stop()
    rig.dmd.stop()


def test_a_sequencer_that_failed_is_said_when_it_is_stopped(rig: Rig) -> None:
    rig.dmd.start((0, 1), PERIOD_MS)
    controller(rig).hardware_status = 0b0100_0001
    with pytest.raises(DeviceError, match="dmd: USB: the controller reports: the sequencer aborted"):
        rig.dmd.stop()


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_whatever_the_controller_did_before_it_is_opened_dark(wired: Callable[..., Rig], mode: int) -> None:
    rig = wired()
    rig.dmd.load(blocks(2))
    rig.dmd.show(1)
    rig.dmd.close()
    controller(rig)._mode = mode
    if mode != 0:
        controller(rig).sequencer.start()
    rig.dmd.open()
    assert not controller(rig).sequencer.is_running
    assert controller(rig)._mode == 3
    with pytest.raises(DeviceError, match="has no frame 1: 0 frames are loaded"):
        rig.dmd.show(1)


def test_a_pulled_cable_is_said_and_the_driver_can_be_closed_and_opened_again(wired: Callable[..., Rig]) -> None:
    rig = wired()
    controller(rig).unplug()
    with pytest.raises(DeviceError, match="dmd: USB is gone"):
        rig.dmd.stop()
    with pytest.raises(DeviceError, match="dmd: USB is gone"):
        rig.dmd.close()
    rig.dmd.close()
    with pytest.raises(DeviceError, match="dmd: is not open"):
        rig.dmd.show(None)
    controller(rig)._plugged = True
    rig.dmd.open()
    rig.dmd.load(blocks(COUNT))


def test_what_is_not_as_the_rig_says_is_not_opened(rig_yaml: Callable[..., Path], monkeypatch: Any) -> None:
    rig = Rig(load_rig(rig_yaml({"devices.dmd": {"connection": "world", "driver": TWIN}})))
    dmd: Any = rig.dmd
    dmd.controller.hardware_status = 0b10
    with pytest.raises(DeviceError, match="reports: it did not start up properly, controller and DMD"):
        dmd.open()
    dmd.controller.hardware_status = 1
    dmd.controller.model = MODELS["dlp9000"]
    with pytest.raises(DeviceError, match="dmd: USB: the DMD is dlp9000, the rig says dlp6500"):
        dmd.open()
    dmd.controller.model = dmd.model
    monkeypatch.setattr("dmu_hw.twins.dlpc900._VERSION", bytes([2, 1, 1, 4]))
    with pytest.raises(DeviceError, match=r"dmd: USB: firmware 4\.1\.258, needed is 5\.0\.0 or later"):
        dmd.open()
    with pytest.raises(DeviceError, match="dmd: is not open"):
        dmd.stop()


# ---------------------------------------------------------------- settings, and hidapi

REAL = {"driver": "dlpc900", "model": "dlp6500"}


def real(rig_yaml: Callable[..., Path], **changes: Any) -> Rig:
    optics = {"optics.mirrors.shape": [1080, 1920]}
    return Rig(load_rig(rig_yaml({**optics, "devices.dmd": {**copy.deepcopy(REAL), **changes}})))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no edges": ({"dark_us": 0}, "trigger_out 1 stays up from pattern to pattern where dark_us is 0"),
    "too short a dark time": ({"dark_us": 50}, "dark_us should be 0 or at least 105, given 50"),
    "another array": (
        {"model": "dlp9000"},
        r"dlp9000 has \(1600, 2560\) mirrors, optics.mirrors.shape is \(1080, 1920",
    ),
    "an unknown model": ({"model": "dlp4500"}, "should be 'dlp6500', 'dlp9000' or 'dlp670s'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_rig_file_is_refused(rig_yaml: Callable[..., Path], what: str) -> None:
    changes, told = WRONG[what]
    with pytest.raises(InputError, match=told):
        real(rig_yaml, **changes)


def test_planning_needs_no_device_and_no_library(rig_yaml: Callable[..., Path]) -> None:
    dmd: Any = real(rig_yaml).dmd
    assert (dmd.shape, dmd.memory_frames, dmd.settle_ms) == ((1080, 1920), 248, 0.125)
    blocks = np.random.default_rng(0).random((23, 135, 240)) < 0.5
    coded_ms = dmd.coded_upload_ms(blocks.repeat(8, axis=1).repeat(8, axis=2))
    assert coded_ms < 0.03 * dmd.upload_ms(23) / 1.3


class FakeHidapi(types.ModuleType):
    """hidapi with some devices, none of which opens."""

    def __init__(self, *serials: str) -> None:
        super().__init__("hid")
        self.serials = serials

    def enumerate(self, vendor: int, product: int) -> list[dict[str, Any]]:
        assert (vendor, product) == (0x0451, 0xC900)
        return [
            {"path": f"{serial}{interface}".encode(), "serial_number": serial, "interface_number": interface}
            for serial in self.serials
            for interface in (0, 1)
        ]

    def device(self) -> Any:
        def open_path(path: bytes) -> None:
            raise OSError(f"open failed: {path.decode()}")

        return types.SimpleNamespace(open_path=open_path)


def test_without_hidapi_it_says_what_to_install(rig_yaml: Callable[..., Path], monkeypatch: Any) -> None:
    rig = real(rig_yaml)
    monkeypatch.setitem(sys.modules, "hid", None)
    with pytest.raises(DeviceError, match=r"dmd: needs hidapi: pip install 'dmu-hw\[dlpc900\]'"):
        rig.dmd.open()
    monkeypatch.setitem(sys.modules, "hid", types.ModuleType("hid"))
    with pytest.raises(DeviceError, match="the module hid is of another package"):
        rig.dmd.open()
    rig.dmd.close()


@pytest.mark.parametrize(
    ("there", "serial", "told"),
    [
        ((), None, "needs one DLPC900 on USB (0451:c900) or say its serial number; there are: none"),
        (("A", "B"), None, "needs one DLPC900 on USB (0451:c900) or say its serial number; there are: 'A', 'B'"),
        (("A",), "C", "needs one DLPC900 on USB (0451:c900) with serial number 'C'; there are: 'A'"),
        (("A", "B"), "B", "USB cannot be opened: open failed: B0; another program may hold it"),
        (("A",), None, "USB cannot be opened: open failed: A0; another program may hold it"),
    ],
)
def test_the_right_controller_is_found(there: tuple[str, ...], serial: str | None, told: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "hid", FakeHidapi(*there))
    with pytest.raises(DeviceError) as caught:
        usb.open_hid("dmd", serial)
    assert str(caught.value).startswith(f"dmd: {told}")


def test_hidapi_itself_fails_as_the_line_expects_it() -> None:
    hid = pytest.importorskip("hid")
    line = Link("dmd", hid.device(), 20.0)
    with pytest.raises(DeviceError, match=r"USB is gone: start stop \(1A24\) failed: not open"):
        line.tell(stop())
    line.close()
