"""Objects, and the maps that a network gives in their place.

Two maps: where any object is (foreground), and a hill in every object that falls from 1 at its centre towards its
edge (centre). Touching objects are one in the foreground and two hills in the centre map.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dmu_hw.data import BoolArray, Float32Array, Int32Array

MAPS = ("foreground", "centre")
_CENTRE_PX = 16.0
"""What the centre map counts for beside the depth in the foreground: large objects are told apart by their outline,
small ones by their centres."""
_SMOOTH_PX = 2.0
"""Radius of what is smoothed away before hills are counted."""
_SLICE_PX, _STANDS_OUT_PX = 2.0, 1.2
"""Hills are cut this far below their top; one of which less than the second is left belongs to its neighbour."""


def targets(labels: NDArray[np.integer[Any]]) -> Float32Array:
    """Labels (..., y, x), 0 background and any other number one object → maps (..., 2, y, x) from 0 to 1."""
    maps = np.zeros((*labels.shape[:-2], len(MAPS), *labels.shape[-2:]), dtype=np.float32)
    for index in np.ndindex(labels.shape[:-2]):
        maps[index] = labels[index] != 0
        if maps[index].any():
            maps[index][1][labels[index] != 0] = _hills(labels[index])
    return maps


def _hills(labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Of every pixel in an object: distance to the edge by the sum of the distances to edge and centre."""
    inside = labels != 0
    objects, counts = np.unique(labels[inside], return_inverse=True, return_counts=True)[1:]
    y, x = np.nonzero(inside)
    to_edge = ndimage.distance_transform_edt(inside & ~_edges(labels))[inside] + 1
    # the centre is deep inside and near the mean; of a crescent the mean itself may lie outside
    mean_y, mean_x = (np.bincount(objects, axis) / counts for axis in (y, x))
    central = to_edge - 0.5 * np.hypot(y - mean_y[objects], x - mean_x[objects])
    centres = np.lexsort((central, objects))[np.cumsum(counts) - 1]
    to_centre = np.hypot(y - y[centres][objects], x - x[centres][objects])
    hills: NDArray[np.float64] = to_edge / (to_edge + to_centre)
    return hills


def _edges(labels: NDArray[np.integer[Any]]) -> BoolArray:
    """Pixels beside one of another number; the border of the image is no edge."""
    edges = np.zeros(labels.shape, dtype=np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges


def instances(maps: Float32Array, min_area_px: int = 20) -> Int32Array:
    """Maps (2, y, x) from 0 to 1 → labels 1, 2, 3, ... of objects that are not smaller than `min_area_px`."""
    from skimage.segmentation import watershed  # noqa: PLC0415 - a quarter of a second, only to segment

    foreground = maps[0] > 0.5
    landscape = ndimage.distance_transform_edt(foreground) + _CENTRE_PX * maps[1]
    height = ndimage.gaussian_filter(landscape, _SMOOTH_PX) * foreground
    return _without_small(watershed(-height, _seeds(height, foreground), mask=foreground), min_area_px)


def _seeds(height: NDArray[np.float64], foreground: BoolArray) -> Int32Array:
    """The tops of the hills, one number each, and all of a foreground that has none."""
    from skimage.morphology import reconstruction  # noqa: PLC0415 - as above

    coarse = height[::2, ::2]  # smooth enough, and four times as fast
    filled = reconstruction((coarse - _SLICE_PX).clip(min=0), coarse)
    seeds = np.zeros(foreground.shape, dtype=np.int32)
    seeds[::2, ::2], count = ndimage.label(coarse - filled > _STANDS_OUT_PX)
    parts, number = ndimage.label(foreground)
    bare = np.ones(number + 1, dtype=np.bool_)
    bare[parts[seeds > 0]] = bare[0] = False
    return np.where(bare[parts], parts + count, seeds).astype(np.int32)


def _without_small(labels: Int32Array, min_area_px: int) -> Int32Array:
    kept = np.bincount(labels.ravel()) >= min_area_px
    kept[0] = False
    return (np.cumsum(kept) * kept).astype(np.int32)[labels]
