"""Does the light of a burst say that every frame saw its pattern? One verdict a burst, from its marker frame.

In the camera pixels where the marker showed pattern t it must equal frame t. How far it may be from it is known:
photons and reading, and the model's own errors, which all grow with what there is to see (blur across the borders of
pixels, drift, bleaching, registration) and are scaled to the burst itself. Each rival, the frame of another pattern or
the dark, is judged by the same measure: the slot is told if the rival fits worse by a margin that noise does not reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import Uint16Array
from dmu_hw.marker import Marker

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Said = Literal["proven", "refuted", "undecided"]
NEEDED = 25.0
"""By how much χ² of a rival must be worse: noise alone does that once in three million."""
SIGMAS = 5.0
_CAP = 9.0
"""No pixel says more than this: hot pixels and other oddities have one voice each."""
_PATTERNS, _NEIGHBOURS, _SIGNAL, _BORDER_PX = 0.25, 0.12, 0.02, 0.3
"""Errors of the model: as a part of what patterns differ by in a pixel, of what neighbours differ by, of the signal;
and how far a border of pixels may lie from where it is believed, in object pixels."""
_SCALES = (2.0, 1.0, 0.5, 0.25, 0.12, 0.06)
"""What there may be of these errors in a burst that agrees that badly, or well."""
_AT_ONCE, _AGED = 0.15, 2.0
"""What drift and bleaching do grows from frame to frame: the variance of a frame that the marker follows at once, and
what comes to it over a whole burst, times the square of its age; in proportion to their mean."""
_REFUTED = -1.5
"""By how much of what is needed a rival must fit better: the model's errors are not only noise."""
_ODD_SLOT, _ODD_TWIN, _ODD_BURST = 0.6, 0.25, 0.25
"""Part of the distance to a rival that a frame may not miss the marker by; one that equals another frame, as a repeated
one does; and all frames together."""
_TWIN = 1.5
"""χ² a pixel up to which two frames are the same but for noise."""
_FEW_CELLS, _DARKEST = 32, 0.1
_LEAST_ODD, _NOISIER = 15.0, 0.3
"""χ² that is never odd, and by how much a camera may be noisier than it is believed to be."""
_TELLING, _LEAST_VOTES, _MOST_AGAINST = 4.0, 20, 0.15
"""χ² between lit and dark from which a pixel has a vote, how many must have one, and what part may be against."""
_BLEACHED, _BRIGHTENED = 0.3, -0.05
"""Light that a burst may lose, and gain, from its first frame to its last."""


@dataclass(frozen=True)
class Verdict:
    """What the light of one burst says."""

    said: Said
    why: str
    """Empty if it is proven."""
    told: float
    """How well the worst told rival is told, in units of what is needed: above 1 is proven."""
    missed: float
    """χ² a pixel of the slot that misses the marker by most; about 1 where all is well."""

    def as_json(self) -> dict[str, Any]:
        return {"said": self.said, "why": self.why, "told": round(self.told, 3), "missed": round(self.missed, 3)}


def judge(marker: Marker, frames: Mapping[int, Uint16Array], pixels: Uint16Array) -> Verdict:
    """Judge the frames of a burst, by pattern, against the frame of its marker; some may be missing."""
    if not frames:
        return Verdict("undecided", "no frame came", 0.0, 0.0)
    return _verdict(_Fit.of(marker, frames, pixels), sorted(frames))


@dataclass(frozen=True, eq=False)
class _Fit:
    """How frames, and the dark behind them, fit the marker in the pixels of each slot."""

    cells: Array
    """Camera pixels of each slot."""
    misfit: Array
    """χ² of (slot, rival)."""
    distance: Array
    """χ² between the frame of a slot and a rival."""
    noise: Array
    """Sum over a slot's pixels of (noise / all errors)²."""
    against: float
    """Part of the pixels, of those where lit and dark differ, that look dark where they should be lit, or lit where
    they should be dark: the lesser of the two."""

    @classmethod
    def of(cls, marker: Marker, frames: Mapping[int, Uint16Array], pixels: Uint16Array) -> _Fit:
        patterns, count = sorted(frames), marker.stack.count
        place = np.full(count + 1, -1)
        place[[*patterns, count]] = np.arange(len(patterns) + 1)
        slots = place[marker.codes.ravel()]
        """Slot of each pixel of the camera; -1 where its frame is missing."""
        codes = slots[marker.judged]
        flat = [frames[pattern].ravel() for pattern in patterns]
        light, beside = (
            np.stack([values[where] for values in flat]).astype(np.float64) - marker.readings.offset_adu
            for where in (marker.judged, marker.beside)
        )
        seen = pixels.ravel()[marker.judged].astype(np.float64) - marker.readings.offset_adu
        dark, spread = _dark(marker, codes, light, seen)
        rivals, around = (np.concatenate([values, np.full_like(values[:1], dark)]) for values in (light, beside))
        ages = np.append((count - np.array(patterns)) / count, 0.0)
        scene = _Scene.of(marker, codes, slots[marker.beside], rivals, around, ages, spread)
        left = 1 - ages * scene.bleaching(ages, seen)
        errors = (seen - scene.border - rivals * left[:, None]) ** 2
        # the dark is a number, frames are noisy: else it would be nearer to the marker where there is nothing to see
        errors[-1] += np.where(codes < len(light), scene.noise / 2, 0.0)
        scale = scene.scale(errors)
        variance = scene.noise + scale * scene.model

        def summed(values: Array) -> Array:
            return np.array([np.bincount(codes[codes >= 0], value[codes >= 0], len(rivals)) for value in values]).T

        return cls(
            np.bincount(codes[codes >= 0], minlength=len(rivals)).astype(float),
            summed(np.minimum(errors / variance, _CAP)),
            summed(np.minimum((rivals - scene.own) ** 2 / variance, _CAP)),
            summed((scene.noise / variance)[None] ** 2)[:, 0],
            _against(codes == len(light), seen - scene.border, scene.own, light.mean(axis=0), dark, variance),
        )


@dataclass(frozen=True, eq=False)
class _Scene:
    """What is expected of the marker in each camera pixel, and how far it may be from that."""

    codes: Codes
    own: Array
    """What the frame of the pixel's own slot says."""
    border: Array
    """What blur across borders to other slots adds."""
    noise: Array
    model: Array
    """Variances."""

    @classmethod
    def of(
        cls, marker: Marker, codes: Codes, sides: Codes, rivals: Array, around: Array, ages: Array, spread: float
    ) -> _Scene:
        """`sides` are the codes of the neighbours, (side, pixel), and `around` what each rival says there."""
        readings, lit, light = marker.readings, codes < len(rivals) - 1, rivals[:-1]
        own = _of(rivals, codes)
        border, blurred, nearby = np.zeros_like(own), np.zeros_like(own), np.zeros_like(own)
        brightest = light.mean(axis=0)
        for side, other in enumerate(sides):
            beside = around[:, side]
            differ = (_of(rivals, other) + _of(beside, other) - own - _of(beside, codes)) / 2
            differ[(other == codes) | (other < 0)] = 0.0
            border += marker.exchange * differ
            blurred += ((marker.exchange / 2 + _BORDER_PX / marker.stack.camera_pixel) * differ) ** 2
            nearby = np.maximum(nearby, (_of(beside, codes) - own) ** 2)
            brightest = np.maximum(brightest, beside[:-1].mean(axis=0))
        leaked = readings.leakage * light.mean(axis=0) / marker.stack.masks.mean()
        noise = readings.gain_adu_per_e * np.maximum(own + border, 0.0) + readings.read_variance
        model = (
            (_SIGNAL * np.maximum(own, brightest)) ** 2 + blurred + (0.3 * readings.dark_adu) ** 2 + (1.5 * leaked) ** 2
        )
        seen = (_PATTERNS * _contrast(light, own)) ** 2 + _NEIGHBOURS**2 * nearby
        grown = _AT_ONCE + _AGED * ages**2
        seen *= (grown / grown[:-1].mean())[codes]
        noise *= 1.0 + lit
        noise += np.where(lit, 0.0, spread**2 + readings.hot_variance)
        return cls(codes, own, border, noise, model + np.where(lit, seen, 0.0))

    def bleaching(self, ages: Array, seen: Array) -> float:
        """Part of the light that was lost in the whole burst, so that frames agree best."""
        missed, aged = seen - self.own - self.border, ages[self.codes] * self.own
        weight = np.where(self.codes < 0, 0.0, 1 / (self.noise + self.model + missed**2))
        lost = -(missed * aged * weight).sum() / ((aged**2 * weight).sum() + 1 / 0.1**2)
        return float(np.clip(lost, _BRIGHTENED, _BLEACHED))

    def scale(self, errors: Array) -> float:
        """The least part of the model's errors with which the frame in the middle of all still fits."""
        own, known, slots = _of(errors, self.codes), self.codes >= 0, len(errors) - 1
        cells = np.bincount(self.codes[known], minlength=slots + 1)[:slots]
        # a frame that is alone has no others by which the model could be found to be that wrong
        best, *less = _SCALES if slots > 1 else _SCALES[1:]
        for scale in less:
            misfit = np.minimum(own / (self.noise + scale * self.model), _CAP)
            sums = np.bincount(self.codes[known], misfit[known], slots + 1)[:slots]
            means = np.sort(sums[cells > 0] / cells[cells > 0])
            if not len(means) or means[(len(means) - 1) // 2] > 1:
                break
            best = scale
        return best


def _dark(marker: Marker, codes: Codes, light: Array, seen: Array) -> tuple[float, float]:
    """Level and spread of the marker's dark pixels, as far as they can be dark at all: half way to the others they are
    not, and what believes them so is refuted."""
    believed = marker.readings.dark_adu
    unlit, lit = codes == len(light), (codes >= 0) & (codes < len(light))
    if not (unlit.any() and lit.any()):
        return believed, 0.0
    above = max(0.0, float(np.median(_of(light, np.where(lit, codes, 0))[lit])) - believed) / 2
    most = believed + above
    if len(light) > 1:
        # what patterns have in common even in the darkest parts is background, however little was believed of it
        most = max(most, float(np.quantile(light.min(axis=0), _DARKEST)))
    level = float(np.clip(np.median(seen[unlit]), 0.0, most))
    return level, min(1.48 * float(np.median(np.abs(seen[unlit] - level))), 0.3 * above)


def _against(unlit: NDArray[np.bool_], seen: Array, own: Array, light: Array, dark: float, variance: Array) -> float:
    """Pixels have one vote each, whatever they are off by."""
    opposite = np.where(unlit, light, dark)
    telling = (opposite - own) ** 2 > _TELLING * variance
    wrong = np.abs(seen - opposite) < np.abs(seen - own)
    sides = (telling & unlit, telling & ~unlit)
    if min(side.sum() for side in sides) < _LEAST_VOTES:
        return 0.0
    return min(float(wrong[side].mean()) for side in sides)


def _contrast(light: Array, own: Array) -> Array:
    """What patterns differ by in a pixel: the median over the others."""
    if len(light) == 1:
        return np.zeros_like(own)
    apart = np.sort(np.abs(light - own), axis=0)[1:]
    return np.asarray(apart[(len(light) - 1) // 2])


def _of(rivals: Array, codes: Codes) -> Array:
    """Of each pixel what the rival of its code says."""
    return np.asarray(np.take_along_axis(rivals, np.maximum(codes, 0)[None], axis=0)[0])


def _doubt(cells: Any) -> Any:
    """What χ² may exceed its mean by and be nothing but noise."""
    return SIGMAS * np.sqrt(2 * cells) + _LEAST_ODD * _few(cells) + _NOISIER * cells


def _few(cells: Any) -> Any:
    """The model's errors do not average out over few pixels."""
    return 1 + _FEW_CELLS / np.maximum(cells, 1)


def _verdict(fit: _Fit, patterns: list[int]) -> Verdict:
    slots = len(patterns)
    names = [*(f"pattern {pattern}" for pattern in patterns), "the dark"]
    own = np.diag(fit.misfit)
    others = ~np.eye(slots + 1, dtype=bool)
    apart = np.array([np.median(row[other]) for row, other in zip(fit.distance, others, strict=True)])
    excess, doubt = own - fit.cells, _doubt(fit.cells)
    nearest = np.where(others, fit.distance, np.inf).min(axis=1)
    share = np.where(nearest < _TWIN * fit.cells, _ODD_TWIN, _ODD_SLOT)
    odd = (excess > share * apart) & (excess > doubt)
    all_odd = excess.sum() > max(_ODD_BURST * apart.sum(), float(_doubt(fit.cells.sum())))
    # frames are noisy too: where there is nothing but noise, so are the differences of their misfits
    needed = NEEDED * _few(fit.cells[:slots]) + SIGMAS * np.sqrt(3 * fit.noise[:slots])
    told = np.where(others, fit.misfit - own[:, None], np.inf)[:slots] / needed[:, None]
    slot, rival = np.unravel_index(int(np.argmin(told)), told.shape)
    least, missed = float(told[slot, rival]), float((own / np.maximum(fit.cells, 1)).max())
    if least < _REFUTED:
        return Verdict("refuted", f"the light of frame {patterns[slot]} is that of {names[rival]}", least, missed)
    if odd.any():
        which = int(np.argmax(np.where(odd, excess, -np.inf)))
        what = f"the light of frame {patterns[which]} is" if which < slots else "dark parts of the marker are"
        return Verdict("refuted", f"{what} not what the marker shows", least, missed)
    if all_odd or fit.against > _MOST_AGAINST:
        return Verdict("refuted", "the light of the frames is not what the marker shows", least, missed)
    if least > 1:
        return Verdict("proven", "", least, missed)
    why = f"the light cannot tell frame {patterns[slot]} from {names[rival]}"
    return Verdict("undecided", why, least, missed)
