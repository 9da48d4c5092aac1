"""By how much a picture moved on the camera, where light and dust stay. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_FINE_PX, _COARSE_PX = 1.5, 4.0
"""Structure between these sizes is looked at: what is finer is noise and pixels, and what is coarser is drawn towards
where the light is brighter."""
_BRIGHT = 0.1
"""Of the brightest structure: it shows where there is light."""
_BORDER_PX = 6
"""Less than so far from where the light ends it is dimmer."""
_UPSAMPLED = 100
_LEAST_PX = 24
_LOOKS = 3


@dataclass(frozen=True, eq=False)
class Pictures:
    """Frames (frame, y, x) of one specimen at several places, without the light that comes with all mirrors off."""

    frames: Floats

    @cached_property
    def even(self) -> Floats:
        """The edges of what is to be seen."""
        from scipy.ndimage import gaussian_filter  # noqa: PLC0415 - slow to load

        return np.stack(
            [gaussian_filter(frame, _FINE_PX) - gaussian_filter(frame, _COARSE_PX) for frame in self.frames]
        )

    @cached_property
    def lit(self) -> tuple[slice, slice]:
        """A large window that is lit throughout. The light of an array has no hollows: what lies between lit places is
        lit too."""
        from scipy.ndimage import binary_erosion, gaussian_filter  # noqa: PLC0415 - slow to load
        from skimage.morphology import convex_hull_image  # noqa: PLC0415 - slow to load

        brightest = gaussian_filter(self.frames.max(axis=0), _COARSE_PX)
        hull = convex_hull_image(brightest > _BRIGHT * np.percentile(brightest, 99.5))
        bright = binary_erosion(hull, iterations=_BORDER_PX, border_value=1)
        if not bright.any():
            return slice(0, 0), slice(0, 0)
        rows, columns = np.nonzero(bright)
        row, column = int(np.median(rows)), int(np.median(columns))
        top, bottom, left, right = row, row + 1, column, column + 1
        grown = True
        while grown:  # one line at each border at a time, while all of it is lit
            grown = False
            if top > 0 and bright[top - 1, left:right].all():
                top, grown = top - 1, True
            if bottom < bright.shape[0] and bright[bottom, left:right].all():
                bottom, grown = bottom + 1, True
            if left > 0 and bright[top:bottom, left - 1].all():
                left, grown = left - 1, True
            if right < bright.shape[1] and bright[top:bottom, right].all():
                right, grown = right + 1, True
        return slice(top, bottom), slice(left, right)

    def shift(self, one: int, other: int, guess_px: Floats) -> tuple[Floats, float]:
        """Where (x, y) a frame lies against another one, looked for near a guess, and how alike both are there."""
        found = np.asarray(guess_px, dtype=float)
        alike = 0.0
        for _ in range(_LOOKS):
            whole = np.rint(found).astype(int)
            here, there = self._common(whole)
            if min(here[0].stop - here[0].start, here[1].stop - here[1].start) < _LEAST_PX:
                return found, 0.0
            before, after = self.even[one][here], self.even[other][there]
            rest_px = _rest(before, after)
            found = whole + rest_px
            alike = _alike(before, after)
            if np.all(np.abs(rest_px) < 1):
                break
        return found, alike

    def _common(self, shift_px: NDArray[np.int64]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of one frame that the other shows too, shifted, both within what is lit."""
        here, there = [], []
        for window, by in zip(self.lit, shift_px[::-1], strict=True):
            low, high = window.start + max(0, -by), window.stop - max(0, by)
            here.append(slice(low, high))
            there.append(slice(low + by, high + by))
        return (here[0], here[1]), (there[0], there[1])


def pairs_of(places: Sequence[tuple[float, float]], longest: float) -> list[tuple[int, int]]:
    """Frames that follow each other, and all with the first: those that are not too far from each other."""
    count = len(places)
    pairs = {(i, i + 1) for i in range(count - 1)} | {(0, i) for i in range(1, count)}
    return sorted((i, j) for i, j in pairs if 0 < np.hypot(*np.subtract(places[i], places[j])) <= longest)


def _rest(before: Floats, after: Floats) -> Floats:
    """(x, y) that is left of a shift."""
    from skimage.registration import phase_cross_correlation  # noqa: PLC0415 - slow to load

    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    one, other = ((picture - picture.mean()) * window for picture in (before, after))
    (down, right), _, _ = phase_cross_correlation(other, one, upsample_factor=_UPSAMPLED, normalization=None)
    return np.array([right, down])


def _alike(before: Floats, after: Floats) -> float:
    one, other = before - before.mean(), after - after.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm else 0.0
