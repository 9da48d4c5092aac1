"""One pattern alone in a burst: are the places that its marker lights, and no others, as bright as its frame?

Where the marker is lit it must be what the frame is, whatever that is; where it is not, nothing that stands out of the
background may be seen in it. Places are counted, so that it takes many that are wrong, and few that are right.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from dmu_hw.marker import Marker

Array = NDArray[np.float32]
_BLOCK_PX = 8
"""Side of blocks of which each has its background, and between whose middles it changes evenly…"""
_DARKER = 0.25
"""…and the part of their pixels that are no brighter."""
_BACKGROUND, _SIGMAS, _HOT, _HOT_SIGMAS = 0.3, 6.0, 2, 2.0
"""What stands out is brighter than it: by so much of it, of noise, and more than so many hot pixels at once, and than
they vary by."""
_UNLIKE = 0.5
"""Part of the light that must be missing, or too much, for a place to be wrong."""
_LEAST, _PART = 8, 0.4
"""How many must be wrong, and what part of those that stand out."""


def fault(marker: Marker, frame: Array, shown: Array) -> str:
    """What speaks against frame and marker, both (y, x) over the camera's offset; empty if nothing does."""
    readings, lit = marker.readings, marker.codes == 0
    backgrounds = _background(frame), _background(shown)
    brighter = np.maximum(*backgrounds)
    noise = np.sqrt(readings.gain_adu_per_e * np.maximum(brighter, 0) + readings.read_variance)
    hot = _HOT * readings.hot_adu + _HOT_SIGMAS * np.sqrt(readings.hot_variance)
    # hot pixels are the same in both: they cannot be wrong but where there should be no light
    least = _BACKGROUND * brighter + _SIGMAS * noise + np.where(lit, 0, hot)
    darker = np.minimum(*backgrounds)
    over = np.maximum(frame, shown) - darker
    unlike = np.where(lit, np.abs(frame - shown), shown - darker) > _UNLIKE * over
    for places, what in ((lit, "is not what the marker shows"), (~lit, "is also where the marker shows none")):
        seen = places & (over > least)
        wrong = np.count_nonzero(seen & unlike)
        if wrong >= max(_LEAST, _PART * np.count_nonzero(seen)):
            return f"the light of pattern 0 {what}"
    return ""


def _background(light: Array) -> Array:
    """Of each block, even or on a slope, as large as the field."""
    starts = [range(0, length, _BLOCK_PX) for length in light.shape]
    blocks = [[np.quantile(light[y : y + _BLOCK_PX, x : x + _BLOCK_PX], _DARKER) for x in starts[1]] for y in starts[0]]
    found = np.asarray(blocks, dtype=np.float32)
    for axis, length in enumerate(light.shape):
        middles = np.array([(start + min(start + _BLOCK_PX, length) - 1) / 2 for start in starts[axis]])
        found = np.apply_along_axis(partial(np.interp, np.arange(length), middles), axis, found)
    return found.astype(np.float32)
