"""pattern: the light that every pattern of a set truly delivers, seen on even dye at the camera's full resolution.

Frames are divided by the one with all mirrors on, so that neither uneven light nor dye counts. What is seen beyond what
was asked for is taken back through the lens, as far as it lets details through, and told on the object grid: of the
whole field, and as the mean of all tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from dmu_hw.bundle import Bundle
from dmu_hw.data import BoolArray, PatternStack
from dmu_hw.errors import DeviceError
from dmu_hw.exposing import NoLightError, fitting_exposure_ms
from dmu_hw.files import Count, FilePath, Positive, Settings
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.ports import Roi
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError, Sample

Floats = NDArray[np.float64]
_PART = 0.5
_LIT = 0.1
"""Of the brightest light: what has less tells nothing."""
_LEAST_LIT = 0.5
"""Part of the field that has to be lit."""
_HOT_SIGMAS = 8.0
_WEAK, _WEAK_MEAN = 0.1, 0.02
"""Power of details, as a part of that of coarse ones, below which noise would win: in a field, in the mean of tiles."""


class PatternSettings(Settings):
    """Which patterns, and what is good enough."""

    bundle: FilePath | None = None
    """Its patterns, or…"""
    patterns: PatternSet | None = None
    """…those of a fixed set."""
    power_mw: Positive | None = None
    """null: half of what the rig allows."""
    repeats: Count = 4
    """Frames of each pattern."""
    field_px: Count = 512
    """Longest side of the field, in object pixels."""
    shift_px: Positive = 0.25
    """Object pixels that a pattern may lie beside where it was asked for: warned of beyond; refused beyond four times
    that."""
    unlike: Positive = 0.05
    """Root mean square by which light may differ from what the believed mirrors would give: warned of beyond; refused
    beyond four times that."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.bundle is None) == (self.patterns is None):
            raise ValueError("should name a bundle, or patterns")
        return self

    def stack(self) -> PatternStack:
        if self.patterns is not None:
            return self.patterns.make()
        return Bundle.load(cast("Path", self.bundle)).patterns


class Routine:
    """All patterns, one by one, and all mirrors on and off."""

    Settings = PatternSettings
    sample: ClassVar[Sample] = "dye"
    needs: ClassVar[tuple[str, ...]] = ("register",)
    devices: ClassVar[tuple[str, ...]] = ("dmd", "camera")
    per_channel: ClassVar[bool] = True
    valid_days: ClassVar[float] = 30.0

    def __init__(self, settings: PatternSettings) -> None:
        self.settings = settings
        self.stack = settings.stack()

    # ---------------------------------------------------------------- measure

    def measure(self, instrument: Instrument) -> Evidence:
        optics, repeats = instrument.optics, self.settings.repeats
        roi = _window(instrument, self.stack, self.settings.field_px)
        rows, columns = instrument.sensor_shape
        corner_um = (roi.x - columns / 2) * optics.sensor_pixel_um, (roi.y - rows / 2) * optics.sensor_pixel_um
        mirrors = onto_mirrors(self.stack, optics, corner_um)
        plain = np.stack([np.ones_like(mirrors[0]), np.zeros_like(mirrors[0])])
        power_mw = self.settings.power_mw or instrument.highest_mw / 2
        try:
            exposure_ms = fitting_exposure_ms(instrument, plain[0], power_mw=power_mw, part=_PART)
        except NoLightError as error:
            return Evidence({}, {"no_light": str(error)})

        def seen(states: BoolArray) -> NDArray[np.float32]:
            frames = instrument.take(states, power_mw=power_mw, exposure_ms=exposure_ms, repeats=repeats, roi=roi)
            each = frames.reshape(len(states), repeats, *frames.shape[1:])
            return np.asarray(each.mean(axis=1, dtype=np.float32))

        on, off = seen(plain)
        instrument.progress(1, 3)
        frames = seen(mirrors)
        instrument.progress(2, 3)
        dark = instrument.dark(exposure_ms, repeats, roi=roi).mean(axis=0, dtype=np.float32)
        arrays = {"on": on, "off": off, "dark": dark, "frames": frames, "masks": self.stack.masks, "mirrors": mirrors}
        return Evidence(arrays, {"corner_um": corner_um, "camera_pixel": self.stack.camera_pixel})

    # ---------------------------------------------------------------- fit

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        if "no_light" in evidence.facts:
            raise FitError(f"{evidence.facts['no_light']}: is the lamp on, is dye under the lens?")
        arrays = {name: evidence.arrays[name].astype(float) for name in ("on", "off", "dark", "frames")}
        relative, good = _relative(arrays, optics.mirrors.leakage)
        masks, mirrors = evidence.arrays["masks"].astype(bool), evidence.arrays["mirrors"].astype(bool)
        model = _Model(optics, relative.shape[1:], evidence.facts["corner_um"])
        lit_part, good = float(good.mean()), good & model.inside
        asked = model.asked(masks)
        fits = [_Fit.of(light, model.seen(one), good) for light, one in zip(relative, asked, strict=True)]
        rendered = [model.seen(one) for one in model.rendered(mirrors)]
        unlike = [_rms(light - one, good) for light, one in zip(relative, rendered, strict=True)]
        delivered, tiles = _delivered(relative, asked, model, good, masks.shape[1:])
        shifts = np.array([fit.shift_px for fit in fits]) * optics.sensor_ratio
        gains, offsets = np.array([fit.gain for fit in fits]), np.array([fit.offset for fit in fits])
        rms = np.array([fit.rms for fit in fits])
        worst = int(np.argmax(rms))
        beyond = np.where(good, relative[worst] - model.seen(asked[worst]), 0.0)
        figures = {
            "rms": float(np.sqrt(np.mean(rms**2))),
            "rms_worst": float(rms.max()),
            "unlike": float(np.sqrt(np.mean(np.square(unlike)))),
            "shift_px": float(np.hypot(*shifts.mean(axis=0))),
            "shift_worst_px": float(np.hypot(*shifts.T).max()),
            "gain": float(gains.mean()),
            "gain_spread": float(gains.std()),
            "offset": float(offsets.mean()),
            "contrast_worst": float(min(fit.contrast for fit in fits)),
            "lit_part": lit_part,
        }
        count = np.arange(len(gains))
        return Finding(
            optics={},
            figures=figures,
            arrays={
                "illumination": tiles.astype(np.float32),
                "illumination_of_field": delivered.astype(np.float32),
                "gain": gains,
                "offset": offsets,
                "shift_px": shifts,
                "rms": rms,
                "masks": masks,
            },
            pictures={
                f"pattern {worst}, which differs most: delivered": relative[worst],
                f"pattern {worst}: delivered less asked for": beyond,
            },
            curves={"gain of each pattern": Curve(count, gains, None, "pattern", "gain")},
        )

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, settings = finding.figures, self.settings
        again, more = "run `register` again", "run `register` again, and `contrast` and `psf`"
        return (
            Check("shift_px", figures["shift_px"], settings.shift_px, 4 * settings.shift_px, again),
            Check("unlike", figures["unlike"], settings.unlike, 4 * settings.unlike, more),
            Check("rms", figures["rms"], 0.2, 1.0, "the mirrors are too coarse for these patterns, or out of focus"),
            Check("contrast_worst", figures["contrast_worst"], 0.7, 0.1, "run `adapt` with what was measured here"),
            Check("lit_part", figures["lit_part"], 0.9, _LEAST_LIT, "light does not fall on all of the field"),
        )


# ---------------------------------------------------------------- pure


@dataclass(frozen=True)
class _Fit:
    """One pattern as it is seen, against the one that was asked for."""

    gain: float
    offset: float
    shift_px: tuple[float, float]
    """Camera pixels, (x, y)."""
    contrast: float
    """Standard deviation, as a part of that asked for."""
    rms: float

    @classmethod
    def of(cls, light: Floats, asked: Floats, good: BoolArray) -> Self:
        """Linear in a small shift. A pattern without structure has no gain of its own."""
        columns = [asked, np.ones_like(asked), np.gradient(asked, axis=1), np.gradient(asked, axis=0)]
        if asked[good].std() < 1e-6:
            return cls(
                float(light[good].mean() / max(asked[good].mean(), 1e-9)),
                0.0,
                (0.0, 0.0),
                1.0,
                _rms(light - asked, good),
            )
        design = np.stack([column[good] for column in columns], axis=1)
        (gain, offset, by_x, by_y), *_ = np.linalg.lstsq(design, light[good], rcond=None)
        along = max(abs(gain), 1e-3)
        shift = float(-by_x / along), float(-by_y / along)
        fitted = design @ np.array([gain, offset, by_x, by_y])
        contrast = float(fitted.std() / asked[good].std())
        return cls(float(gain), float(offset), shift, contrast, _rms(light - asked, good))


class _Model:
    """What the believed microscope makes of patterns. Loads torch."""

    def __init__(self, optics: Optics, shape_px: tuple[int, ...], corner_um: tuple[float, float]) -> None:
        from dmu_hw.physics.forward import Forward  # noqa: PLC0415 - loads torch

        self.ratio = optics.sensor_ratio
        shape = shape_px[0] * self.ratio, shape_px[1] * self.ratio
        pixel_um = optics.object_pixel_um
        centre_um = corner_um[0] + shape[1] * pixel_um / 2, corner_um[1] + shape[0] * pixel_um / 2
        self.forward = Forward(optics, shape, self.ratio, centre_um=centre_um)
        self.emission: Floats = self.forward.emission.numpy().astype(float)

    @property
    def inside(self) -> BoolArray:
        """Camera pixels so far from the border that no light comes from beyond it, or as far as the field allows."""
        reach = (self.forward.emission.shape[-1] // 2 + self.forward.excitation.shape[-1] // 2) / self.ratio
        shape = tuple(side // self.ratio for side in self.forward.shape_px)
        border = min(math.ceil(reach), min(shape) // 8)
        inside = np.zeros(shape, dtype=bool)
        inside[border : shape[0] - border, border : shape[1] - border] = True
        return inside

    def asked(self, masks: BoolArray) -> Floats:
        """Relative light on the object grid, (pattern, y, x)."""
        import torch  # noqa: PLC0415 - slow to load

        field = self.forward.shape_px
        repeats = -(-field[0] // masks.shape[1]), -(-field[1] // masks.shape[2])
        whole = np.tile(masks, (1, *repeats))[:, : field[0], : field[1]]
        return np.asarray(self.forward.deliver(torch.from_numpy(whole.astype(np.float32))).numpy(), dtype=float)

    def rendered(self, mirrors: BoolArray) -> Floats:
        """The same of the mirrors that stood for them."""
        import torch  # noqa: PLC0415 - slow to load

        from dmu_hw.physics.blur import blur  # noqa: PLC0415 - loads torch
        from dmu_hw.physics.mirrors import leak  # noqa: PLC0415 - loads torch

        on = torch.from_numpy(mirrors.astype(np.float32))
        lit = self.forward.from_mirrors(leak(on, self.forward.optics.mirrors.leakage))
        return np.asarray(blur(lit, self.forward.excitation).numpy(), dtype=float)

    def seen(self, light: Floats) -> Floats:
        """Light on the object grid as the camera sees it on even dye, (y, x)."""
        import torch  # noqa: PLC0415 - slow to load

        even = torch.ones(1, *self.forward.shape_px)
        frames = self.forward.image(even, torch.from_numpy(light.astype(np.float32))[None]).numpy()
        return np.asarray(frames[0, 0], dtype=float) / self.ratio**2


def _relative(arrays: Mapping[str, Floats], leakage: float) -> tuple[Floats, BoolArray]:
    """Frames as parts of the light of all mirrors on, without light that no pattern shapes; and where they tell it."""
    dark = arrays["dark"]
    on, off = arrays["on"] - dark, arrays["off"] - dark
    level = np.median(dark)
    noise = 1.4826 * float(np.median(np.abs(dark - level))) + 1e-6
    bright = float(np.percentile(on, 99))
    good = (on > _LIT * bright) & (np.abs(dark - level) < _HOT_SIGMAS * noise)
    if bright < 10 * noise or good.mean() < _LEAST_LIT:
        raise FitError(
            f"light falls on {good.mean():.0%} of the field ({bright:.4g} ADU where it is bright), expected is all of "
            "it: is the dye slide in place, and is `register` still true?"
        )
    beside = max(0.0, (float(np.median((off / np.where(good, on, 1.0))[good])) - leakage) / (1 - leakage))
    relative = (arrays["frames"] - dark) / np.where(good, on, 1.0)
    relative = np.where(good, (relative - beside) / (1 - beside), 0.0)
    if float(np.median(off[good])) > 0.9 * float(np.median(on[good])):
        raise FitError(
            "mirrors that are off send as much light as those that are on: expected is little; is it the DMD?"
        )
    return relative, good


def _delivered(
    relative: Floats, asked: Floats, model: _Model, good: BoolArray, tile_px: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """Light on the object grid: over the field, and as the mean of its tiles. What the lens does not let through stays
    as it was asked for."""
    rest = np.stack([np.where(good, light - model.seen(one), 0.0) for light, one in zip(relative, asked, strict=True)])
    fine = rest.repeat(model.ratio, axis=1).repeat(model.ratio, axis=2)
    there = good.repeat(model.ratio, axis=0).repeat(model.ratio, axis=1)
    field = asked + _unblurred(fine, model.emission, _WEAK)
    mean = _folded(fine, tile_px) / np.maximum(_folded(there[None].astype(float), tile_px), 1.0)
    tiles = asked[:, : tile_px[0], : tile_px[1]] + _unblurred(mean, model.emission, _WEAK_MEAN)
    return field, tiles


def _folded(field: Floats, tile_px: tuple[int, ...]) -> Floats:
    """The sum of all tiles."""
    rows, columns = (side // tile for side, tile in zip(field.shape[1:], tile_px, strict=True))
    cut = field[:, : rows * tile_px[0], : columns * tile_px[1]]
    return np.asarray(cut.reshape(len(field), rows, tile_px[0], columns, tile_px[1]).sum(axis=(1, 3)))


def _unblurred(pictures: Floats, kernel: Floats, weak: float) -> Floats:
    """Wiener's way back through a blur, on pictures that repeat."""
    rows, columns = pictures.shape[-2:]
    wrapped = np.zeros((rows, columns))
    down, right = (np.arange(side) - side // 2 for side in kernel.shape)
    np.add.at(wrapped, (down[:, None] % rows, right[None, :] % columns), kernel)
    passed = np.fft.rfft2(wrapped)
    back = np.conj(passed) / (np.abs(passed) ** 2 + weak)
    return np.asarray(np.fft.irfft2(np.fft.rfft2(pictures) * back, s=(rows, columns)))


def _rms(difference: Floats, good: BoolArray) -> float:
    return float(np.sqrt(np.mean(difference[good] ** 2)))


def _window(instrument: Instrument, stack: PatternStack, longest_px: int) -> Roi:
    """The largest field of whole tiles round the middle of the chip that the mirrors light all of."""
    optics = instrument.optics
    rows, columns = instrument.sensor_shape
    ratio, (height, width) = optics.sensor_ratio, stack.tile_px
    if height % ratio or width % ratio:
        raise DeviceError("camera", f"a tile of {height}x{width} object pixels is no whole number of its pixels")
    high, wide = height // ratio, width // ratio
    most = min(longest_px // max(height, width), rows // high, columns // wide)
    for count in range(most, 0, -1):
        roi = Roi((columns - count * wide) // 2, (rows - count * high) // 2, count * wide, count * high)
        x_um = (roi.x + roi.width * np.array([0.0, 0.5, 1.0]) - columns / 2) * optics.sensor_pixel_um
        y_um = (roi.y + roi.height * np.array([0.0, 0.5, 1.0]) - rows / 2) * optics.sensor_pixel_um
        column, row = optics.mirrors.to_sample.invert(*np.meshgrid(x_um, y_um))
        if np.all(np.abs(column) < optics.mirrors.shape[1] / 2) and np.all(np.abs(row) < optics.mirrors.shape[0] / 2):
            return roi
    raise DeviceError(
        "dmd", f"lights no field of a whole tile of {height}x{width} object pixels in the middle of the chip"
    )
