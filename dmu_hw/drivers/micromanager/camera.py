"""A camera in Micro-Manager: sequences into MMCore's buffer, frames out of it.

A burst is one sequence, and so is a single frame: `snapImage` is a little quicker, and would keep the adapter locked
for as long as the exposure lasts, a light in the same adapter included.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dmu_hw.drivers.micromanager.core import link_of
from dmu_hw.drivers.micromanager.frames import Frames, grey, lacking
from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.drivers.micromanager.settings import DeviceSettings, Pace, StampSettings, Text, Values
from dmu_hw.drivers.micromanager.stamps import Stamps, now_ms
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Count, NonNegative, Range, Settings
from dmu_hw.ports import CameraMode, Mount, RawFrame

_SHORTEST_S, _LONGEST_S = 1e-4, 1e-3
"""From one look into the buffer to the next."""
_OFF_BY = 0.01
"""So much may the exposure that the camera takes differ from what it was told."""
_TURNS = {"ReverseX": "flip_x", "ReverseY": "flip_y"}
_MARKS = ("TransposeXY", "TransposeMirrorX", "TransposeMirrorY")
_SET = {"1", "on", "yes", "true"}


def _to_count(key: object) -> object:
    """Keys of a YAML file are text."""
    return int(key) if isinstance(key, str) and key.isdecimal() else key


class TriggerSettings(Settings):
    """Properties that are set for each way of triggering."""

    internal: Values = Field(default_factory=dict)
    """The camera starts its exposures itself."""
    external: Values | None = None
    """A pulse starts each of them; null: no line is wired to it."""


class CameraSettings(DeviceSettings):
    """A camera."""

    sensor_shape: tuple[Count, Count]
    """Rows and columns of the whole chip."""
    bytes_per_pixel: Literal[1, 2] = 2
    binnings: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    binning_values: dict[Annotated[Count, BeforeValidator(_to_count)], Text] = Field(default_factory=dict)
    """What the property Binning says for them where it is no number: {2: 2x2}."""
    exposure_ms: Range = (0.01, 10_000.0)
    """Shortest and longest exposure."""
    readout_ms: NonNegative
    """Time after an exposure before the next can begin."""
    readout_by_rows: bool = False
    """A window with half of the rows is read out in half of that time."""
    trigger: TriggerSettings = TriggerSettings()
    interval: Pace | None = None
    """The property for the least time from frame to frame; null: it cannot be told."""
    pause_ms: NonNegative = 0.0
    """What always passes between two exposures of a sequence that it paces itself; the mirrors have so long to settle
    where `interval` is not there."""
    number_tag: Text = "ImageNumber"
    """The tag that counts exposures. MMCore's own, ImageNumber, counts only frames that have come."""
    first_number: int = 0
    """What it says of the first exposure after arming."""
    time: StampSettings = StampSettings()
    flip_x: bool = False
    """Frames are handed over with x, or y, running against the chip."""
    flip_y: bool = False


class Camera:
    """A sequence at a time."""

    Settings = CameraSettings
    of_frames = ("properties", "exposure_ms", "trigger", "interval", "pause_ms", "number_tag", "first_number", "time")
    """Settings that calibrations do not depend on."""

    def __init__(self, settings: CameraSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.sensor_shape = settings.sensor_shape
        self.binnings = settings.binnings
        self.flips = (settings.flip_x, settings.flip_y)
        self._link = link_of(mount)
        self._handle = Handle(self._link, mount.name, settings.label)
        self._frames = Frames(self._handle)
        self.buffer_frames = self._capacity()
        self._mode: CameraMode | None = None
        self._stamps: Stamps | None = None
        self._may_wrap = False
        """Whether more frames were asked for than the buffer has room for."""
        self._room = 0

    def _capacity(self) -> int:
        """How many frames of the whole chip MMCore's buffer holds, by its own rule."""
        frame_bytes = math.prod(self.sensor_shape) * self.settings.bytes_per_pixel
        return max(1, self._link.settings.buffer_mb * 2**20 // frame_bytes)

    @property
    def steppings(self) -> tuple[str, ...]:
        """Who may set the pace of a burst."""
        by_itself = self.settings.interval is not None or self.settings.pause_ms > 0
        ways = {"software": True, "camera": by_itself, "dmd": self.settings.trigger.external is not None}
        return tuple(way for way, possible in ways.items() if possible)

    # ---------------------------------------------------------------- from opening to closing

    def open(self) -> None:
        self.close()
        self._handle.find("camera")
        if self._handle.call("isSequenceRunning"):
            raise self._handle.error("is taking frames for somebody else: stop the live view first")
        self._link.opened(self.name, self.disarm)
        self._become_current()
        self._handle.set_all(self.settings.properties)
        self._check_turns()
        self._keep()
        self._set_binning(1)
        self._handle.core("clearROI")
        self._check_chip()

    def close(self) -> None:
        self._mode = None
        if self._link.closed(self.name):
            self.disarm()

    def _become_current(self) -> None:
        """MMCore tells some things only of its current camera."""
        before = str(self._handle.core("getCameraDevice"))
        if before != self.settings.label:
            self._link.keep("camera", "setCameraDevice", before)
            self._handle.core("setCameraDevice", self.settings.label)

    def _keep(self) -> None:
        """Window, binning and exposure, put back in the reverse order."""
        label = self.settings.label
        self._link.keep(("exposure", label), "setExposure", label, float(self._handle.call("getExposure")))
        self._link.keep(("roi", label), "setROI", label, *self._window())
        if self._handle.has("Binning"):
            self._link.keep(
                ("property", label, "Binning"), "setProperty", label, "Binning", self._handle.get("Binning")
            )

    def _check_turns(self) -> None:
        """Frames that are turned otherwise than the rig says are wrong data."""
        for name, key in _TURNS.items():
            if self._handle.has(name) and self._is_set(name) != getattr(self.settings, key):
                said = str(getattr(self.settings, key)).lower()
                raise self._handle.error(
                    f"property {name!r} is {self._handle.get(name)!r}, and the rig says {key}: {said}"
                )
        for name in _MARKS:
            if self._handle.has(name) and self._is_set(name):
                what = (
                    f"property {name!r} is {self._handle.get(name)!r}: it turns what Micro-Manager's window shows, and"
                )
                raise self._handle.error(
                    f"{what} no frame; set it to 0, and say flip_x or flip_y of what does turn them"
                )

    def _is_set(self, name: str) -> bool:
        return self._handle.get(name).strip().lower() in _SET

    def _check_chip(self) -> None:
        shape = int(self._handle.core("getImageHeight")), int(self._handle.core("getImageWidth"))
        if shape != self.sensor_shape:
            raise self._handle.error(f"has {shape} pixels, the rig says sensor_shape: {self.sensor_shape}")
        deep, parts = (int(self._handle.core(f"get{what}")) for what in ("BytesPerPixel", "NumberOfComponents"))
        if (deep, parts) != (self.settings.bytes_per_pixel, 1):
            told = f"gives {deep} bytes and {parts} colours a pixel, the rig says {self.settings.bytes_per_pixel} and 1"
            raise self._handle.error(f"{told}: set PixelType, or what it is called, to 8 or 16 bit grey")
        if self.settings.binnings != (1,) and not self._handle.has("Binning"):
            raise self._handle.error("has no property 'Binning': say binnings: [1]")
        allowed = self._handle.allowed("Binning") if self._handle.has("Binning") else ()
        wanted = {binning: self._binning_value(binning) for binning in self.binnings}
        lacking_ones = [value for value in wanted.values() if allowed and value not in allowed]
        if lacking_ones:
            raise self._handle.error(f"cannot bin by {', '.join(lacking_ones)}; it can by {', '.join(allowed)}")

    # ---------------------------------------------------------------- how frames are to be taken

    def readout_ms(self, mode: CameraMode) -> float:
        part = mode.roi.height / self.sensor_shape[0] if self.settings.readout_by_rows else 1.0
        return self.settings.readout_ms * part

    def configure(self, mode: CameraMode) -> None:
        self._check(mode)
        self._mode = None
        self.disarm()
        self._set_binning(mode.binning)
        self._set_window(mode)
        self._handle.call("setExposure", mode.exposure_ms)
        found_ms = float(self._handle.call("getExposure"))
        if abs(found_ms - mode.exposure_ms) > _OFF_BY * mode.exposure_ms:
            raise self._handle.error(f"exposes {found_ms:g} ms where it was told {mode.exposure_ms:g} ms")
        trigger = self.settings.trigger
        self._handle.set_all(trigger.internal if mode.trigger == "internal" else trigger.external or {})
        if self.settings.interval is not None and mode.trigger == "internal":
            self._set_interval(mode, self.settings.interval)
        self._handle.wait(self._link.settings.timeout_ms)
        self._mode = mode

    def _check(self, mode: CameraMode) -> None:
        roi, (rows, columns), (low, high) = mode.roi, self.sensor_shape, self.settings.exposure_ms
        if mode.binning not in self.binnings:
            raise DeviceError(self.name, f"binning must be one of {self.binnings}, given {mode.binning}")
        if not (roi.x >= 0 and roi.y >= 0 and roi.x + roi.width <= columns and roi.y + roi.height <= rows):
            raise DeviceError(self.name, f"{roi} does not fit the sensor of {rows}x{columns} pixels")
        if min(roi.width, roi.height) < 1 or any(side % mode.binning for side in (roi.x, roi.y, roi.width, roi.height)):
            raise DeviceError(self.name, f"{roi} is not a multiple of the binning {mode.binning}")
        if not low <= mode.exposure_ms <= high:
            raise DeviceError(self.name, f"exposure must be {low} to {high} ms, given {mode.exposure_ms}")
        if mode.trigger == "external" and self.settings.trigger.external is None:
            raise DeviceError(self.name, "cannot be triggered: say trigger.external if a line is wired to it")

    def _binning_value(self, binning: int) -> str:
        return self.settings.binning_values.get(binning, str(binning))

    def _set_binning(self, binning: int) -> None:
        if self._handle.has("Binning"):
            self._handle.set("Binning", self._binning_value(binning))
        elif binning != 1:
            raise self._handle.error("has no property 'Binning'")

    def _set_window(self, mode: CameraMode) -> None:
        """Micro-Manager counts windows in binned pixels. Cameras round them; what comes then is not what was asked."""
        roi, side = mode.roi, mode.binning
        self._handle.core("clearROI")
        rows, columns = self.sensor_shape
        asked = (roi.x // side, roi.y // side, roi.width // side, roi.height // side)
        if asked != (0, 0, columns // side, rows // side):
            self._handle.call("setROI", *asked)
        given = self._window()
        if given != asked:
            what = f"takes the window (x, y, width, height) {given} in binned pixels where {asked} was asked for"
            raise self._handle.error(f"{what}: choose a field whose edges it can keep")

    def _window(self) -> tuple[int, int, int, int]:
        """As Micro-Manager has it; over the bridge it is a rectangle of Java's."""
        found = self._handle.call("getROI")
        x, y, width, height = (found.x, found.y, found.width, found.height) if hasattr(found, "width") else found
        return int(x), int(y), int(width), int(height)

    def _set_interval(self, mode: CameraMode, pace: Pace) -> None:
        """A rate cannot be told to be as high as it gets."""
        interval_ms = mode.interval_ms
        if pace.unit == "Hz":
            interval_ms = max(interval_ms, mode.exposure_ms + self.readout_ms(mode))
        self._handle.set(pace.property, pace.text(interval_ms))

    # ---------------------------------------------------------------- frames

    def arm(self, frames: int) -> None:
        mode = self._configured()
        if frames < 1:
            raise DeviceError(self.name, f"takes at least one frame, given {frames}")
        if frames > 1 and mode.trigger == "internal" and self.settings.interval is None:
            self._check_pause(mode)
        self.disarm()
        asked_ms = now_ms()
        # MMCore empties its buffer itself here: a frame of an earlier sequence cannot come out of it
        self._handle.call("startSequenceAcquisition", frames, 0.0, True)
        self._stamps = Stamps(self.settings.time, asked_ms, now_ms())
        self._room = int(self._handle.core("getBufferTotalCapacity"))
        self._may_wrap = frames > self._room

    def _check_pause(self, mode: CameraMode) -> None:
        """Nobody can tell it to be slower than it is."""
        pause_ms = max(self.settings.pause_ms, self.readout_ms(mode))
        if mode.interval_ms - mode.exposure_ms > pause_ms * (1 + 1e-9):
            wanted_ms = mode.interval_ms - mode.exposure_ms
            what = f"leaves {pause_ms:g} ms between exposures where {wanted_ms:g} ms are needed for readout and mirrors"
            raise DeviceError(self.name, f"{what}: say interval, if a property sets its pace")

    def disarm(self) -> None:
        self._stamps = None
        if self._handle.call("isSequenceRunning"):
            self._handle.call("stopSequenceAcquisition")

    def pop(self, timeout_ms: float) -> RawFrame:
        mode = self._configured()
        until_s = time.monotonic() + timeout_ms / 1e3
        nap_s = min(max(mode.exposure_ms / 2e4, _SHORTEST_S), _LONGEST_S)
        while not self._frames.waiting():
            self._check_overflow()
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise DeviceTimeout(self.name, f"gave no frame within {timeout_ms:g} ms")
            time.sleep(min(nap_s, left_s))
        self._check_overflow()
        return self._popped(mode)

    def _popped(self, mode: CameraMode) -> RawFrame:
        stamps = self._stamps
        if stamps is None:
            raise DeviceError(self.name, "has a frame in its buffer, and was not armed")
        count, *clocks = self.settings.number_tag, *stamps.tags()
        pixels, tags = self._frames.pop((count, *clocks))
        if self._may_wrap and self._frames.waiting() >= self._room - 1:
            # MMCore lets go of a frame before it is copied: in a full buffer the next one may have been written over it
            raise self._overflow()
        pixels = grey(self._handle, pixels, mode.shape)
        try:
            number = int(tags.get(count, "")) - self.settings.first_number
        except ValueError:
            raise lacking(self._handle, count, tags) from None
        try:
            began_ms = stamps.began_ms(tags, mode.exposure_ms + self.readout_ms(mode))
        except ValueError:
            raise lacking(self._handle, " or ".join(clocks), tags) from None
        return RawFrame(pixels, number, began_ms)

    def _check_overflow(self) -> None:
        if self._handle.core("isBufferOverflowed"):
            raise self._overflow()

    def _overflow(self) -> DeviceError:
        return self._handle.error(f"buffer of {self._room} frames overflowed")

    def _configured(self) -> CameraMode:
        if self._mode is None:
            raise DeviceError(self.name, "was not configured")
        return self._mode
