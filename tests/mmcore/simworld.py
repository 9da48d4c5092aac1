"""The world behind SimRig: what its devices are told by MMCore, the faces of a simulated rig do.

The faces are those of a rig YAML whose drivers are all `simulated`, so that the picture is the one that this rig would
give. Time is the world's own: virtual unless its rig says `realtime`, and then the same commands give the same frames
bit for bit. SimRig hands frames to MMCore no earlier than they would be ready by it.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from dmu_hw.errors import DeviceError
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig, load_rig

LIBRARY = "libmmgr_dal_SimRig.so.0"
LATER, ERROR = -1, 1
_ROUNDS = 20
"""A sequence that goes round is written out for so long."""
_ENDLESS = 1_000_000
DEVICES = {
    "Dmd": "dmd",
    "Camera": "camera",
    "Laser": "light",
    "Laser561": "light_561",
    "Lamp": "light",
    "Shutter": "shutter",
    "Wheel": "filter",
    "XY": "stage",
    "Z": "focus",
}
"""Labels in SimRig.cfg → devices of the simulated rig."""


class Mode(ctypes.Structure):
    """SimMode."""

    _fields_ = [
        ("frames", ctypes.c_long),
        ("exposure_ms", ctypes.c_double),
        ("interval_ms", ctypes.c_double),
        *((name, ctypes.c_long) for name in ("binning", "x", "y", "width", "height", "external")),
    ]


_TOLD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_double, ctypes.c_double)
_PICTURE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_long, ctypes.c_long
)
_ARMED = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(Mode))
_FRAME = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint16),
    ctypes.c_long,
    ctypes.c_long,
    ctypes.POINTER(ctypes.c_long),
    ctypes.POINTER(ctypes.c_double),
    ctypes.POINTER(ctypes.c_double),
)


class Callbacks(ctypes.Structure):
    """SimCallbacks."""

    _fields_ = [("told", _TOLD), ("picture", _PICTURE), ("armed", _ARMED), ("frame", _FRAME)]


class SimRig:
    """The functions of the library that are for tests. It is the same library that MMCore loads, from the same file."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(str(folder / LIBRARY))
        self._library.simrig_count.restype = ctypes.c_long

    def connect(self, callbacks: Callbacks | None) -> None:
        self._library.simrig_connect(None if callbacks is None else ctypes.byref(callbacks))

    def fail(self, device: str, text: str) -> None:
        """'CALL [AFTER [TIMES [CODE]]]; …': see World::Fail in SimWorld.h."""
        assert self._library.simrig_fail(device.encode(), text.encode()), text

    def count(self, device: str, call: str) -> int:
        return int(self._library.simrig_count(device.encode(), call.encode()))

    def forget(self) -> None:
        self._library.simrig_forget()


class Behind:
    """What stands behind SimRig. Camera thread and program come in turns."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        world: Any = rig.connection("world")
        self.world = world
        self.told: list[tuple[str, str, float, float]] = []
        """All commands that were obeyed, in order."""
        self.problems: list[BaseException] = []
        """What nobody has foreseen; a device error is an answer like others."""
        self.callbacks = Callbacks(_TOLD(self._told), _PICTURE(self._picture), _ARMED(self._armed), _FRAME(self._frame))
        self._lock = threading.RLock()
        self._sequence: list[Any] = []
        self._pictures: list[Any] = []
        self._stands_ms = 0.0
        self._armed_ms = 0.0

    @property
    def is_dark(self) -> bool:
        """No light, or no mirror that sends it to the sample."""
        now_ms = self.world.clock.now_ms() + 1.0
        shown = self.world.history.mirrors.at(now_ms)
        powers = [line.at(now_ms) for line in self.world.history.power_mw.values()]
        return not any(powers) or all(frame is None or not frame.on.any() for frame, _ in shown)

    # ---------------------------------------------------------------- what comes from SimRig

    def _told(self, device: bytes, call: bytes, a: float, b: float) -> int:
        return self._answered(self._obey, device.decode(), call.decode(), a, b)

    def _picture(self, device: bytes, call: bytes, on: Any, rows: int, columns: int) -> int:
        frame = np.ctypeslib.as_array(on, (rows, columns)).astype(bool)
        return self._answered(self._show, device.decode(), call.decode(), frame)

    def _armed(self, _device: bytes, mode: Any) -> int:
        return self._answered(self._arm, mode.contents)

    def _frame(self, _device: bytes, pixels: Any, rows: int, columns: int, number: Any, began: Any, ready: Any) -> int:
        into = np.ctypeslib.as_array(pixels, (rows, columns))
        return self._answered(self._expose, into, number, began, ready)

    def _answered(self, ask: Callable[..., int | None], *arguments: Any) -> int:
        """No exception gets through C: a device error is the error of a device, others are kept for the test."""
        try:
            with self._lock:
                return ask(*arguments) or 0
        except DeviceError:
            return ERROR
        except BaseException as error:  # noqa: BLE001 - ctypes would print and forget it; the test raises it in the end
            self.problems.append(error)
            return ERROR

    # ---------------------------------------------------------------- what the faces do then

    def _obey(self, device: str, call: str, a: float, b: float) -> None:
        self.told.append((device, call, a, b))
        rig, name = self.rig, DEVICES[device]
        if name == "dmd":
            self._steer(call, a, b)
        elif name == "camera":
            if call == "StopSequenceAcquisition":
                rig.camera.disarm()
        elif name in rig.lights:
            self._switch(rig.lights[name], call, a)
        elif call == "SetOpen" and rig.shutter is not None:
            rig.shutter.set_open(bool(a))
        elif call == "SetState" and name in rig.filters:
            rig.filters[name].select(rig.filters[name].positions[int(a)], 1e9)
        elif call == "SetPosition" and name == "stage" and rig.stage is not None:
            rig.stage.move_um(a, b, 1e9)
        elif call == "SetPosition" and name == "focus" and rig.focus is not None:
            rig.focus.move_um(a, 1e9)
        elif call not in ("Initialize", "Shutdown"):
            raise DeviceError(name, "the world has none")

    def _switch(self, light: Any, call: str, a: float) -> None:
        if call == "Power-mW":
            light.set_power(a)
        elif call in ("SetOpen", "SetState"):
            light.on() if a else light.off()
        elif call in ("Initialize", "Shutdown"):
            light.off()

    def _steer(self, call: str, a: float, b: float) -> None:
        dmd: Any = self.rig.dmd
        if call == "SendSLMSequence":
            dmd.load(np.stack(self._pictures))
            self._sequence, self._pictures = list(dmd._memory), []
        elif call == "ClearSLMSequence":
            self._pictures = []
        elif call == "StartSLMSequence":
            dmd._memory = list(self._sequence)
            order = tuple(range(len(self._sequence))) * (_ROUNDS if b else 1)
            dmd.start(order, a or None)
            self._stands_ms = 0.0 if a else self.world.clock.now_ms() + dmd.settle_ms
        elif call in ("StopSLMSequence", "Initialize", "Shutdown"):
            dmd.stop()

    def _show(self, device: str, call: str, frame: Any) -> None:
        dmd: Any = self.rig.dmd
        if call == "AddToSLMSequence":
            self._pictures.append(frame)
            return
        self.told.append((device, call, float(frame.sum()), 0.0))
        dmd._memory = [dmd._mirror_frame(frame)]
        dmd.show(0 if frame.any() else None)
        self._stands_ms = self.world.clock.now_ms() + dmd.settle_ms

    def _arm(self, mode: Mode) -> None:
        """Whoever arms a camera that sets the pace has waited until the mirrors stand, by a clock of his own."""
        camera: Any = self.rig.camera
        roi = Roi(mode.x, mode.y, mode.width, mode.height)
        trigger: Any = "external" if mode.external else "internal"
        asked = CameraMode(mode.exposure_ms, mode.binning, roi, trigger, 0.0 if mode.external else mode.interval_ms)
        if asked != camera._mode:
            camera.configure(asked)
        if not (mode.external or self.world.clock.realtime):
            self.world.clock.advance_to(self._stands_ms)
        camera.arm(mode.frames if mode.frames > 0 else _ENDLESS)
        self._armed_ms = self.world.clock.now_ms()

    def _expose(self, into: Any, number: Any, began: Any, ready: Any) -> int | None:
        """A frame, once it is ready: in real time nobody waits for it here, where others want their turn."""
        camera, clock = cast("Any", self.rig.camera), self.world.clock
        start_ms = None if camera._mode is None else next(camera._starts(camera._mode), None)
        if start_ms is None or (clock.realtime and camera._ready_ms(start_ms, camera._mode) > clock.now_ms()):
            return LATER
        frame = camera.pop(1e9)
        into[:] = frame.pixels
        number[0] = frame.number
        began[0] = frame.time_ms - self._armed_ms
        ready[0] = 0.0 if clock.realtime else clock.now_ms() - self._armed_ms
        return None


@contextmanager
def behind(folder: Path, rig_yaml: Path) -> Iterator[Behind]:
    """The simulated rig of a YAML stands behind the SimRig in a folder. Devices must be unloaded before this ends."""
    rig, library = Rig(load_rig(rig_yaml)), SimRig(folder)
    with rig.opened():
        made = Behind(rig)
        rows, columns = rig.camera.sensor_shape
        rig.camera.configure(CameraMode(1.0, 1, Roi(0, 0, columns, rows)))  # it takes seconds to load what renders
        library.forget()
        library.connect(made.callbacks)
        try:
            yield made
        finally:
            library.connect(None)
    for problem in made.problems:
        raise problem


def main() -> None:
    """`python simworld.py FOLDER SIMULATED_RIG ARGUMENTS…` is `dmu ARGUMENTS…` with that world behind SimRig."""
    from dmu_hw.cli.main import main as dmu

    folder, rig_yaml, *arguments = sys.argv[1:]
    with behind(Path(folder), Path(rig_yaml)):
        dmu(arguments)


if __name__ == "__main__":
    main()
