"""A DMD or SLM in Micro-Manager, by the calls that all of them understand.

Frames are kept here, as bytes; the device holds one picture and one sequence. A sequence is loaded when its order is
not the one that the device has already: once for all bursts of a run, as a rule. Each ends with a dark picture.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from dmu_hw.data import BoolArray
from dmu_hw.drivers.micromanager.core import link_of
from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.drivers.micromanager.settings import DeviceSettings, Pace, Values
from dmu_hw.errors import DeviceError, InputError, Problem
from dmu_hw.files import NonNegative, Settings
from dmu_hw.memory import check_frames, check_order
from dmu_hw.ports import Mount

_MORE = 2
"""Pictures of a sequence beside those of a burst: a step too many where the camera steps it, and the dark one."""


class TriggerSettings(Settings):
    """Properties that are set for each way of stepping."""

    software: Values = Field(default_factory=dict)
    """Before single pictures are shown."""
    camera: Values | None = None
    """Before a sequence that steps whenever the camera ends an exposure; null: no line is wired for that."""
    dmd: Values | None = None
    """Before a sequence that the device steps by itself, with pulses to the camera; null: it cannot, or no line is."""


class DmdSettings(DeviceSettings):
    """A mirror array, or any SLM that is used as one."""

    on: Annotated[int, Field(ge=1, le=255)] = 255
    """The value that sends light to the sample: 255 for most, 1 for some."""
    memory_frames: Annotated[int, Field(ge=1)] = 64
    """How many frames are used; a sequence of two more must fit into the device."""
    sequences: bool = True
    """Whether it has a memory for sequences; without it, bursts are stepped by software."""
    keeps_sequence: bool = True
    """A sequence stays loaded while single pictures are shown; false: it is loaded anew after them."""
    trigger: TriggerSettings = TriggerSettings()
    period: Pace | None = None
    """The property for the time of one picture of a sequence that it steps by itself."""
    settle_us: NonNegative = 50.0
    """From a step until the new pattern stands."""
    upload_ms_per_frame: NonNegative = 5.0
    """For the price of an upload."""


class Dmd:
    """A light that does not go off makes other threads stop it: they take turns, call by call of this class."""

    Settings = DmdSettings
    of_frames = ("properties", "memory_frames", "keeps_sequence", "trigger", "period", "upload_ms_per_frame")
    """Settings that calibrations do not depend on."""
    reads_back = False

    def __init__(self, settings: DmdSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.shape = mount.optics.mirrors.shape
        self.memory_frames = settings.memory_frames
        self.settle_ms = settings.settle_us / 1e3
        self._link = link_of(mount)
        if settings.sequences and self._link.settings.backend == "java":
            what = "sequences do not go over the bridge: say sequences: false, and stepping: software"
            raise InputError([Problem(mount.document.where(("sequences",)), what)])
        self._handle = Handle(self._link, mount.name, settings.label)
        self._turn = threading.RLock()
        self._memory: list[bytes] = []
        self._forget()

    def _forget(self) -> None:
        """Nobody knows what the device holds."""
        self._picture: int | None = None
        """Place of the picture that it holds; the dark one lies behind all frames, None is none that is known."""
        self._sequence: tuple[int, ...] = ()
        """Places of the pictures of the sequence that it holds."""
        self._running = True
        self._way = ""
        """For which way of stepping its properties were set last."""

    @property
    def steppings(self) -> tuple[str, ...]:
        """Who may set the pace of a burst."""
        trigger, sequences = self.settings.trigger, self.settings.sequences
        by_itself = trigger.dmd is not None and self.settings.period is not None
        ways = {"software": True, "camera": sequences and trigger.camera is not None, "dmd": sequences and by_itself}
        return tuple(way for way, possible in ways.items() if possible)

    # ---------------------------------------------------------------- from opening to closing

    def open(self) -> None:
        """Found, checked, and dark."""
        with self._turn:
            self._memory = []
            self._forget()
            self._handle.find("SLM")
            shape = int(self._handle.call("getSLMHeight")), int(self._handle.call("getSLMWidth"))
            if shape != self.shape:
                raise self._handle.error(f"has {shape} mirrors, optics.mirrors.shape is {self.shape}")
            self._link.opened(self.name, self.stop)
            if self.settings.sequences:
                self._check_room()
            self._handle.set_all(self.settings.properties)
            self.stop()

    def close(self) -> None:
        with self._turn:
            if self._link.closed(self.name):
                self.stop()
            self._memory = []

    def _check_room(self) -> None:
        try:
            longest = int(self._handle.call("getSLMSequenceMaxLength"))
        except DeviceError as error:
            raise self._handle.error(f"cannot hold sequences: say sequences: false ({error.what})") from error
        if longest < self.memory_frames + _MORE:
            most = longest - _MORE
            raise self._handle.error(
                f"holds sequences of {longest}: memory_frames can be {most}, given {self.memory_frames}"
            )

    # ---------------------------------------------------------------- the memory

    def upload_ms(self, frames: int) -> float:
        """Of one sequence. Single pictures go up one by one, while they are shown."""
        return (frames + 1) * self.settings.upload_ms_per_frame if self.settings.sequences else 0.0

    def load(self, frames: BoolArray) -> None:
        """Kept here; a sequence goes up when its order is known."""
        with self._turn:
            self._memory = []
            self.stop()
            self._picture, self._sequence = None, ()
            check_frames(self.name, frames, self.shape, self.memory_frames)
            dark = np.zeros((1, *self.shape), dtype=np.bool_)
            on = np.uint8(self.settings.on)
            self._memory = [(frame * on).tobytes() for frame in (*frames, *dark)]
            self._show(len(frames))

    @property
    def _held(self) -> int:
        return max(0, len(self._memory) - 1)

    # ---------------------------------------------------------------- what is shown

    def show(self, index: int | None) -> None:
        with self._turn:
            if index is None:
                self.stop()
                return
            check_order(self.name, [index], self._held)
            self._halt()
            self._show(index)

    def prepare(self, order: Sequence[int], period_ms: float | None) -> None:
        """Everything that `start` would do before the first step, as far as it is not done yet."""
        with self._turn:
            check_order(self.name, order, self._held)
            if not self._holds_still(order, period_ms):
                self._ready(order, period_ms)

    def start(self, order: Sequence[int], period_ms: float | None) -> None:
        with self._turn:
            check_order(self.name, order, self._held)
            if self._holds_still(order, period_ms):
                self._halt()
                self._show(order[0])
                return
            self._ready(order, period_ms)
            self._running = True
            self._handle.call("startSLMSequence")

    def stop(self) -> None:
        with self._turn:
            self._halt()
            self._show(self._held)

    def shown(self) -> tuple[int, ...] | None:
        """No core can tell."""
        return None

    def _holds_still(self, order: Sequence[int], period_ms: float | None) -> bool:
        """One picture, however often, that nobody waits for a pulse of: the sequence that is loaded can stay."""
        return period_ms is None and len(set(order)) == 1 and "camera" in self.steppings

    def _ready(self, order: Sequence[int], period_ms: float | None) -> None:
        """Properties set, and the sequence in the device."""
        way = "camera" if period_ms is None else "dmd"
        if way not in self.steppings:
            raise DeviceError(self.name, _UNABLE[way])
        if period_ms is not None and period_ms <= self.settle_ms:
            raise DeviceError(self.name, f"steps at most every {self.settle_ms:g} ms, given {period_ms:g} ms")
        wanted = (*order, self._held)
        if len(wanted) > self.memory_frames + _MORE:
            most = self.memory_frames + 1
            raise DeviceError(self.name, f"shows at most {most} frames in a sequence, given {len(order)}")
        self._halt()
        self._set(way)
        if period_ms is not None and self.settings.period is not None:
            self._handle.set(self.settings.period.property, self.settings.period.text(period_ms))
        if wanted != self._sequence:
            self._sequence = ()
            self._handle.call("loadSLMSequence", [self._memory[place] for place in wanted])
            self._sequence = wanted

    def _halt(self) -> None:
        """A device that cannot hold sequences refuses to stop one."""
        if self._running and self.settings.sequences:
            self._handle.call("stopSLMSequence")
        self._running = False

    def _show(self, place: int) -> None:
        """A picture goes up only if it is not the one that is there already."""
        self._set("software")
        if not self.settings.keeps_sequence:
            self._sequence = ()
        if self._picture != place or not self._memory:
            self._picture = None
            pixels = self._memory[place] if self._memory else bytes(self.shape[0] * self.shape[1])
            self._handle.call("setSLMImage", self._link.picture(pixels, self.shape))
            self._picture = place if self._memory else None
        self._handle.call("displaySLMImage")

    def _set(self, way: str) -> None:
        if self._way != way:
            self._way = ""
            self._handle.set_all(getattr(self.settings.trigger, way) or {})
            self._way = way


_UNABLE = {
    "camera": "cannot be stepped by the camera: say trigger.camera if a line is wired for it, and sequences: true",
    "dmd": "cannot step by itself: say trigger.dmd and period if properties set that, and sequences: true",
}
