"""How the bursts of one channel are taken: frame rate, binning, light and dose of each kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dmu_hw.channels import Channel
from dmu_hw.data import PatternStack
from dmu_hw.fringes import Fringes
from dmu_hw.loops import Role
from dmu_hw.marker import Marker, Readings
from dmu_hw.objections import Objections
from dmu_hw.physics.optics import Optics
from dmu_hw.plan import Part, Take
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.protocol import Protocol, Then
from dmu_hw.rig import Rig
from dmu_hw.routes import Place

_FEW_PIXELS = 32
_LOOK_PART = 4
"""All pixels of a look speak for the same few numbers: they need less light each than an image does."""


@dataclass(frozen=True)
class Asked:
    """What a protocol asks for in one channel, with the patterns that it names."""

    protocol: Protocol
    channel: Channel
    stack: PatternStack
    then: PatternStack | None = None
    """Patterns of fields that were chosen."""
    name: str = ""
    """Of the channel; empty in a run that has one only."""
    key: str = ""
    """Where the protocol says all this: what stands before the names of its keys."""


class Taking:
    """Works out the takes of one channel, and notes all that stands against them."""

    def __init__(self, asked: Asked, rig: Rig, objections: Objections, first_place: int) -> None:
        """`first_place` in the memory of the DMD is this channel's, and those behind it."""
        self.asked = asked
        self.protocol = asked.protocol
        self.optics: Optics = asked.channel.optics
        self.stack = asked.stack
        self.then = asked.then
        self.light = asked.channel.light
        self.rig = rig
        self.objections = objections
        self.first_place = first_place
        self.frames = 0
        """How many places it has."""
        seen = self.stack.masks.mean(axis=(1, 2))
        self.lit = float(np.sum(seen + (1 - seen) * self.optics.mirrors.leakage))
        """Mean light on the field, in full frames of uniform light: leakage counts, since the sample takes it too."""

    def part(self, roi: Roi) -> Part:
        self._check_light()
        return Part(self.asked.channel, self.protocol, self.stack, self._takes(roi))

    def refuse(self, key: str, what: str) -> None:
        """Of a key that all channels share it says in which one."""
        shared = self.asked.name and not key.startswith(self.asked.key)
        self.objections.refuse(key, f"channel {self.asked.name}: {what}" if shared else what)

    def refuse_own(self, key: str, what: str) -> None:
        """Of a key that each channel has of its own."""
        self.refuse(self.asked.key + key, what)

    def _check_light(self) -> None:
        power_mw, highest_mw = self.protocol.light.power_mw, self._highest_mw
        if power_mw > highest_mw:
            allowed = f"rig {self.rig.settings.name} allows {highest_mw:g} mW"
            self.refuse_own("light.power_mw", f"{allowed}, given {power_mw:g}")
        if not self.stack.masks.any():
            self.refuse_own("patterns", "all patterns are dark")

    @property
    def _highest_mw(self) -> float:
        return self.rig.highest_mw(self.light)

    def _takes(self, roi: Roi) -> dict[Role, Take]:
        """Frame rate, binning and dose of each kind of burst."""
        takes: dict[Role, Take] = {"patterns": self._patterns(roi)}
        roles: list[Role] = [role for role in ("plain", "full") if getattr(self.protocol.references, role)]
        for role in roles:
            takes[role] = self._reference(role, roi, takes["patterns"])
        if self.protocol.references.bleaching:
            takes["bleaching"] = self._brightest(takes["patterns"])
        frames = self.stack.count + bool(roles)
        if self._wants_marker() and not self.objections.problems:
            takes["patterns"] = self._marked(takes["patterns"], frames)
            frames += 1
        if self.then is not None and self.protocol.then is not None:
            takes["chosen"] = self._chosen(self.protocol.then, self.then, roi, frames)
            frames += self.then.count
        for take in takes.values():
            self._check_on_time(take)
        self.frames = frames
        buffer = self.rig.camera.buffer_frames
        for role, key in (("patterns", f"{self.asked.key}patterns.count"), ("chosen", "then.patterns.count")):
            exposures = takes[role].exposures if role in takes else 0
            if exposures > buffer:
                self.refuse(key, f"the camera buffers {buffer} frames, needed are {exposures}")
        return takes

    def _wants_marker(self) -> bool:
        """Unless told otherwise only where nothing else can speak for an order that hardware keeps."""
        if self.protocol.proof.marker == "auto":
            by_hardware = self.rig.settings.stepping != "software"
            return by_hardware and self.stack.count > 1 and not self.rig.dmd.reads_back
        return self.protocol.proof.marker == "always"

    def _marked(self, take: Take, place: int) -> Take:
        """With one more frame at the end; the light that it sends counts."""
        marker = Marker.of(
            self.stack, self.protocol.field_px, self.optics, take.mode, take.power_mw, self.protocol.proof.lit
        )
        pixels = marker.pixels_a_pattern
        if pixels < _FEW_PIXELS:
            what = f"each pattern is proven by {pixels} camera pixels: many bursts will stay unproven"
            of = f"channel {self.asked.name}: " if self.asked.name else ""
            self.objections.warn("proof.marker", of + what)
        light = marker.light(self.optics.mirrors.leakage)
        dose = self.optics.dose_mj_cm2(take.power_mw, take.period_ms) * light
        return replace(
            take,
            memory=(*take.memory, self.first_place + place),
            dose_mj_cm2=take.dose_mj_cm2 + dose,
            marker=marker,
            marker_dose_mj_cm2=dose,
        )

    def _patterns(self, roi: Roi) -> Take:
        exposure_ms = self.protocol.exposure_ms
        binning = self._binning(f"{self.asked.key}patterns.camera_pixel", float(self.stack.camera_pixel))
        mode = _mode(self.rig, exposure_ms, binning, roi)
        period_ms = self._overhead_ms(mode) + exposure_ms
        self._check_exposure(f"{self.asked.key}exposure_ms", "", exposure_ms)
        return self._take("patterns", self.stack, mode, period_ms, self.lit)

    def _chosen(self, then: Then, stack: PatternStack, roi: Roi, place: int) -> Take:
        """Bursts of fields that were chosen; their patterns lie behind all others in the memory of the DMD."""
        for side, tile in zip(self.protocol.field_px, stack.tile_px, strict=True):
            if side % tile:
                self.refuse("field_px", f"must be a multiple of then's tile, {tile} object pixels, given {side}")
        light, exposure_ms = then.light or self.protocol.light, then.exposure_ms or self.protocol.exposure_ms
        highest_mw = self._highest_mw
        if light.power_mw > highest_mw:
            allowed = f"rig {self.rig.settings.name} allows {highest_mw:g} mW"
            self.refuse("then.light.power_mw", f"{allowed}, given {light.power_mw:g}")
        if not stack.masks.any():
            self.refuse("then.patterns", "all patterns are dark")
        self._check_exposure("then.exposure_ms", "", exposure_ms)
        mode = _mode(self.rig, exposure_ms, self._binning("then.patterns.camera_pixel", stack.camera_pixel), roi)
        period_ms = self._overhead_ms(mode) + exposure_ms
        seen = stack.masks.mean(axis=(1, 2))
        lit = float(np.sum(seen + (1 - seen) * self.optics.mirrors.leakage))
        dose = self.optics.dose_mj_cm2(light.power_mw, period_ms) * lit
        start = self.first_place + place
        memory = tuple(range(start, start + stack.count))
        return Take(
            "chosen", stack, mode, light.power_mw, period_ms, memory, dose, channel=self.asked.name, light=self.light
        )

    def _reference(self, role: Role, roi: Roi, patterns: Take) -> Take:
        """One frame of uniform light, exposed until the sample has taken as much light as from all patterns."""
        key = f"references.{role}"
        side = self.optics.sensor_ratio if role == "full" else self.stack.camera_pixel / math.sqrt(self.stack.count)
        binning = self._binning(key, side)
        overhead_ms = self._overhead_ms(_mode(self.rig, self.protocol.exposure_ms, binning, roi))
        period_ms = self.lit * patterns.period_ms
        exposure_ms = period_ms - overhead_ms
        if exposure_ms <= 0:
            self.refuse(
                key, f"the patterns give so little light that one frame has it in {overhead_ms:.3g} ms, unexposed"
            )
        self._check_exposure(key, "one frame of the same dose is exposed too long: ", exposure_ms)
        uniform = PatternStack("uniform", np.ones((1, *self.stack.tile_px), dtype=bool), self.stack.camera_pixel)
        mode = _mode(self.rig, exposure_ms, binning, roi)
        return self._take(role, uniform, mode, period_ms, 1.0)

    def focus_take(self, patterns: Take, places: Sequence[Place]) -> Take | None:
        """By which planes are compared: as a burst without its marker, or one frame of it."""
        autofocus = self.protocol.autofocus
        if autofocus is None:
            return None
        if self.rig.focus is not None:
            low, high = self.rig.focus.limits_um
            half_um = autofocus.offsets_um()[-1]
            for z_um in sorted({place.z_um for place in places if place.z_um is not None}):
                if not (low <= z_um - half_um and z_um + half_um <= high):
                    what = f"round {z_um:g} µm it leaves the focus limits: {low:g} to {high:g} µm"
                    self.refuse("autofocus.range_um", what)
        if autofocus.patterns == "one":
            return replace(self._brightest(patterns), role="patterns")
        bare = replace(patterns, memory=patterns.memory[: patterns.stack.count], marker=None, marker_dose_mj_cm2=0.0)
        return replace(bare, dose_mj_cm2=patterns.dose_mj_cm2 - patterns.marker_dose_mj_cm2)

    def watch_take(self, patterns: Take, place: int) -> Take | None:
        """Fringes on the finest camera pixels that divide those of the patterns, behind `place` in the DMD's memory."""
        watch, rig = self.protocol.watch, self.rig
        if watch is None or not watch.every:
            return None
        binning = min(b for b in rig.camera.binnings if patterns.mode.binning % b == 0)
        exposure_ms = watch.exposure_ms or self.protocol.exposure_ms / _LOOK_PART
        self._check_exposure("watch.exposure_ms", "", exposure_ms)
        mode = _mode(rig, exposure_ms, binning, patterns.mode.roi)
        pixel_px = binning * self.optics.sensor_ratio
        readings = Readings.of(self.optics, mode, pixel_px, patterns.power_mw)
        fringes = Fringes.of(self.optics, pixel_px, readings)
        seen = fringes.stack.masks.mean(axis=(1, 2))
        lit = float(np.sum(seen + (1 - seen) * self.optics.mirrors.leakage))
        take = self._take("patterns", fringes.stack, mode, self._overhead_ms(mode) + exposure_ms, lit)
        for device, held in (
            ("DMD holds", rig.dmd.memory_frames - place),
            ("camera buffers", rig.camera.buffer_frames),
        ):
            if take.exposures > held:
                self.refuse("watch", f"the {device} {held} frames at most for its looks, needed are {take.exposures}")
        take = replace(take, memory=tuple(range(place, place + fringes.stack.count)), fringes=fringes)
        self._check_on_time(take, "watch")
        return take

    def _brightest(self, patterns: Take) -> Take:
        """One frame with the pattern that lets most light through, just as in a burst."""
        light = self.stack.masks.mean(axis=(1, 2))
        most = int(np.argmax(light))
        one = PatternStack(self.stack.name, self.stack.masks[most : most + 1], self.stack.camera_pixel)
        lit = float(light[most] + (1 - light[most]) * self.optics.mirrors.leakage)
        take = self._take("bleaching", one, patterns.mode, patterns.period_ms, lit)
        return replace(take, memory=(self.first_place + most,))

    def _take(self, role: Role, stack: PatternStack, mode: CameraMode, period_ms: float, lit: float) -> Take:
        """The light is on between exposures too, and the sample takes it: the dose is that of the whole period."""
        power_mw = self.protocol.light.power_mw
        first, uniform = self.first_place, self.first_place + self.stack.count
        memory = tuple(range(first, first + stack.count)) if role == "patterns" else (uniform,)
        dose = self.optics.dose_mj_cm2(power_mw, period_ms) * lit
        return Take(role, stack, mode, power_mw, period_ms, memory, dose, channel=self.asked.name, light=self.light)

    def _overhead_ms(self, mode: CameraMode) -> float:
        """From the end of an exposure to the next, which the mirrors and the camera both need."""
        return self.rig.settle_ms + self.rig.readout_ms(mode)

    def _binning(self, key: str, side: float) -> int:
        """How many sensor pixels make a camera pixel of so many object pixels."""
        binning, allowed = side / self.optics.sensor_ratio, self.rig.camera.binnings
        if binning == round(binning) and round(binning) in allowed:
            return round(binning)
        sides = ", ".join(str(b * self.optics.sensor_ratio) for b in allowed)
        self.refuse(key, f"needs camera pixels of {side:g} object pixels along a side; the camera can give {sides}")
        return 1

    def _check_exposure(self, key: str, why: str, exposure_ms: float) -> None:
        longest_ms = self.rig.settings.limits.exposure_ms
        if exposure_ms > longest_ms:
            self.refuse(key, f"{why}rig {self.rig.settings.name} allows {longest_ms:g} ms, given {exposure_ms:g}")

    def _check_on_time(self, take: Take, key: str | None = None) -> None:
        longest_ms = self.rig.settings.limits.on_time_ms
        if take.burst_ms > longest_ms:
            keys = {"patterns": f"{self.asked.key}exposure_ms", "chosen": "then.exposure_ms"}
            key = key or keys.get(take.role, f"references.{take.role}")
            allowed = f"rig {self.rig.settings.name} allows {longest_ms:g} ms in one go"
            self.refuse(key, f"the light is on for {take.burst_ms:g} ms, {allowed}")


def _mode(rig: Rig, exposure_ms: float, binning: int, roi: Roi) -> CameraMode:
    if rig.settings.stepping == "dmd":
        return CameraMode(exposure_ms, binning, roi, "external")
    interval_ms = exposure_ms + rig.settle_ms
    mode = CameraMode(exposure_ms, binning, roi, "internal", interval_ms)
    return CameraMode(exposure_ms, binning, roi, "internal", interval_ms + rig.readout_ms(mode))
