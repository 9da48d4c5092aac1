"""The driver `vialux` on its twin, which has ALP4lib's functions; and ALP4lib, as far as it goes without a board."""

from __future__ import annotations

import ctypes
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bursts import PERIOD_MS, blocks, dark_after, paced_by_camera, paced_by_dmd, paced_by_program

from dmu_hw.drivers.vialux import names
from dmu_hw.errors import DeviceError
from dmu_hw.rig import Rig, load_rig
from dmu_hw.twins.alp import Board

TWIN = {"driver": "dmu_hw.twins.alp", "connection": "world"}
COUNT = 12
ORDER = (*range(COUNT - 1, -1, -1), 7, 7, 3)


@pytest.fixture
def wired(small_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Opens the small rig with another DMD."""
    return lambda **settings: small_rig({"devices.dmd": {**TWIN, **settings}})


@pytest.fixture
def rig(wired: Callable[..., Rig]) -> Iterator[Rig]:
    """On the twin, loaded; it must have nothing to object to in the end."""
    found = wired()
    found.dmd.load(blocks(COUNT))
    yield found
    assert board(found).refusals == []


def board(rig: Rig) -> Board:
    found: Board = rig.dmd.board  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("trigger_in", [None, "falling"])
def test_a_burst_gives_the_frames_of_the_simulated_dmd(
    wired: Callable[..., Rig], small_rig: Callable[..., Rig], trigger_in: str | None
) -> None:
    simulated, twin = small_rig(), wired(trigger_in=trigger_in)
    burst = paced_by_dmd if trigger_in is None else paced_by_camera
    found = []
    for rig in (simulated, twin):
        rig.dmd.load(blocks(COUNT))
        found.append(burst(rig, ORDER))
        rig.dmd.stop()
        found[-1] += paced_by_program(rig, (4, 0))
    assert np.array_equal(*found)
    assert board(twin).refusals == []
    assert board(twin).lost == 0


@pytest.mark.parametrize(("pulse", "late_ms"), [("low", 0.4), ("high", 0.0)])
def test_the_edge_that_a_camera_takes_comes_when_the_mirrors_stand(
    wired: Callable[..., Rig], pulse: str, late_ms: float
) -> None:
    """A low pulse rises again when it ends; a high one falls then, and this camera takes rising edges."""
    rig = wired(pulse=pulse, settle_us=400)
    rig.dmd.load(blocks(COUNT))
    pulses = rig.connection("world").pulses_ms  # type: ignore[union-attr]
    pulses.clear()
    before_ms = rig.clock.now_ms()
    rig.dmd.start((0, 1), PERIOD_MS)
    assert pulses == pytest.approx([before_ms + place * PERIOD_MS + late_ms for place in range(3)])


def test_every_way_out_is_dark(rig: Rig) -> None:
    for shown, left in dark_after(rig):
        assert shown > 5
        assert left == pytest.approx(0, abs=0.5)


def test_an_upload_takes_as_long_as_its_price(rig: Rig) -> None:
    before_ms = rig.clock.now_ms()
    rig.dmd.load(blocks(COUNT))
    assert rig.clock.now_ms() - before_ms == pytest.approx(rig.dmd.upload_ms(COUNT), abs=1)


ASKED: dict[str, tuple[Callable[[Rig], object], str]] = {
    "too fast": (lambda rig: rig.dmd.start((0,), 0.05), "steps every 0.1 to 10000 ms, given 0.05 ms"),
    "too slow": (lambda rig: rig.dmd.start((0,), 1e5), "steps every 0.1 to 10000 ms, given 100000 ms"),
    "no line for the camera": (
        lambda rig: rig.dmd.start((0,), None),
        "cannot be stepped by the camera: say trigger_in",
    ),
    "too long": (lambda rig: rig.dmd.start((0,) * 4096, 1.0), "shows at most 4095 frames in a sequence, given 4096"),
    "no frames": (lambda rig: rig.dmd.start((), 1.0), "a sequence needs at least one frame"),
    "no such frame": (lambda rig: rig.dmd.show(COUNT), f"has no frame {COUNT}: {COUNT} frames are loaded"),
    "waits too long": (lambda rig: rig.dmd.wait_ms(300.0), "can wait 0.001 to 100 ms for its mirrors, given 300"),
    "too many": (lambda rig: rig.dmd.load(blocks(401)), "has memory for 400 frames, given 401"),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_it_cannot_do_is_refused_before_it_is_asked(rig: Rig, what: str) -> None:
    ask, told = ASKED[what]
    with pytest.raises(DeviceError) as caught:
        ask(rig)
    assert str(caught.value).startswith(f"dmd: {told}")


BOARDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "too little memory": (
        {"memory_frames": 511},
        {"DevInquire": lambda _what: 500},
        "the board has memory for 498 frames, given 511",
    ),
    "too slow": ({"shortest_us": 40}, {}, "a picture takes 50 us, the rig says 40"),
    "other mirrors": ({}, {"nSizeX": 64}, r"the board has \(96, 64\) mirrors, optics.mirrors.shape is \(96, 128\)"),
}


@pytest.mark.parametrize("what", BOARDS)
def test_what_is_not_as_the_rig_says_is_not_opened(rig_yaml: Callable[..., Path], what: str, monkeypatch: Any) -> None:
    settings, changes, told = BOARDS[what]
    rig = Rig(load_rig(rig_yaml({"devices.dmd": {**TWIN, **settings}})))
    for name, value in changes.items():
        monkeypatch.setattr(board(rig), name, value)
    with pytest.raises(DeviceError, match=f"dmd: ALP: {told}"):
        rig.dmd.open()
    rig.dmd.close()
    assert not board(rig)._there


def test_a_call_that_fails_is_a_device_error_and_the_next_one_may_not(rig: Rig) -> None:
    for ask in (
        lambda: rig.dmd.load(blocks(COUNT)),
        lambda: rig.dmd.start((0, 1), PERIOD_MS),
        lambda: rig.dmd.show(3),
        rig.dmd.stop,
    ):
        board(rig).fails = 1
        with pytest.raises(DeviceError, match=r"^dmd: ALP: .* failed: communication error: told to fail$"):
            ask()
        rig.dmd.load(blocks(COUNT))
        ask()


def test_a_load_that_breaks_off_leaves_nothing(rig: Rig, monkeypatch: Any) -> None:
    put, left = board(rig).SeqPut, [5]

    def fails(*given: Any, **named: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError("access violation")
        put(*given, **named)

    monkeypatch.setattr(board(rig), "SeqPut", fails)
    with pytest.raises(DeviceError, match="dmd: ALP: the upload of 12 frames failed: access violation"):
        rig.dmd.load(blocks(COUNT))
    with pytest.raises(DeviceError, match="has no frame 0: 0 frames are loaded"):
        rig.dmd.show(0)
    rig.dmd.load(blocks(COUNT))
    rig.dmd.show(0)


def test_a_board_that_is_gone_can_be_closed_and_opened_again(rig: Rig) -> None:
    board(rig).fails = 100
    with pytest.raises(DeviceError, match="dmd: ALP: "):
        rig.dmd.close()
    board(rig).fails = 0
    rig.dmd.close()
    with pytest.raises(DeviceError, match="dmd: is not open"):
        rig.dmd.stop()
    board(rig)._there = False
    rig.dmd.open()
    rig.dmd.load(blocks(COUNT))


# ---------------------------------------------------------------- the library

REAL = {"devices.dmd": {"driver": "vialux"}}


def test_without_alp4lib_it_says_what_to_install(rig_yaml: Callable[..., Path], monkeypatch: Any) -> None:
    rig = Rig(load_rig(rig_yaml(REAL)))
    monkeypatch.setitem(sys.modules, "ALP4", None)
    with pytest.raises(DeviceError, match=r"dmd: needs ALP4lib: pip install 'dmu-hw\[vialux\]'"):
        rig.dmd.open()
    rig.dmd.close()


def alp4(error: Exception | None = None) -> types.ModuleType:
    """A module like ALP4lib's, whose board is not there or has other mirrors."""

    class Alp4Error(Exception):
        pass

    class Device:
        nSizeX, nSizeY = 1, 1  # noqa: N815 - ALP4lib's names

        def __init__(self, version: str, libDir: str | None) -> None:
            print(f"Loading library: {libDir}/{version}")  # noqa: T201 - as it does
            if error is not None:
                raise error

        def Initialize(self, DeviceNum: int | None) -> None:  # noqa: N802
            if DeviceNum is not None:
                raise Alp4Error("The specified ALP device has not been found or is not ready.")

        def Halt(self) -> None:  # noqa: N802
            pass

        def Free(self) -> None:  # noqa: N802
            pass

    module = types.ModuleType("ALP4")
    module.ALP4, module.ALPError = Device, Alp4Error  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("error", "settings", "told"),
    [
        (OSError("alp4395.dll: no such file"), {}, "ViALUX's library ALP-4.3 cannot be loaded: alp4395.dll"),
        (None, {"serial": 7}, "opening the device failed: The specified ALP device has not been found"),
        (None, {}, "ALP: the board has (1, 1) mirrors"),
    ],
)
def test_what_is_wrong_with_library_or_board_is_said(
    rig_yaml: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
    error: Exception | None,
    settings: dict[str, Any],
    told: str,
) -> None:
    rig = Rig(load_rig(rig_yaml({"devices.dmd": {"driver": "vialux", **settings}})))
    monkeypatch.setitem(sys.modules, "ALP4", alp4(error))
    with pytest.raises(DeviceError) as caught:
        rig.dmd.open()
    assert told in str(caught.value)
    assert capsys.readouterr().out == "", "standard output is for what the program says"


def test_the_twin_has_the_functions_of_alp4lib_and_the_driver_its_numbers() -> None:
    """Where ALP4lib is installed: same names, and no argument that it has not."""
    real = pytest.importorskip("ALP4")
    for name, ours in inspect.getmembers(Board, inspect.isfunction):
        if name[0].isupper():
            theirs = inspect.signature(getattr(real.ALP4, name)).parameters
            assert set(inspect.signature(ours).parameters) <= set(theirs), name
    for ours_name, theirs_name in {
        "AVAILABLE_MEMORY": "ALP_AVAIL_MEMORY",
        "SYNCH_POLARITY": "ALP_SYNCH_POLARITY",
        "LEVEL_HIGH": "ALP_LEVEL_HIGH",
        "LEVEL_LOW": "ALP_LEVEL_LOW",
        "EDGE_FALLING": "ALP_EDGE_FALLING",
        "EDGE_RISING": "ALP_EDGE_RISING",
        "BINARY_MODE": "ALP_BIN_MODE",
        "UNINTERRUPTED": "ALP_BIN_UNINTERRUPTED",
        "FLUT_MODE": "ALP_FLUT_MODE",
        "FLUT_9BIT": "ALP_FLUT_9BIT",
        "FLUT_ENTRIES": "ALP_FLUT_ENTRIES9",
        "FLUT_WRITE": "ALP_FLUT_WRITE_9BIT",
        "SHORTEST_PICTURE": "ALP_MIN_PICTURE_TIME",
        "STEP": "ALP_PROJ_STEP",
    }.items():
        assert getattr(names, ours_name) == getattr(real, theirs_name)
    if ctypes.sizeof(ctypes.c_long) == ctypes.sizeof(ctypes.c_int32):  # Windows
        assert ctypes.sizeof(names.FlutWrite) == ctypes.sizeof(real.tFlutWrite)
