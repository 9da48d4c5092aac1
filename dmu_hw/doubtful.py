"""Beside the images of a store: how far each pixel may be off, and which bursts are not to be believed, and why.

The spread of an image is an image itself, in the group `FIELD/spread`, which viewers open by its path. Residuals,
scores and reasons are small arrays (t, c, z) in the group of the field; a reason is a bit, and the store's attributes
say of each what it means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from dmu_hw.data import Estimate, Float32Array
from dmu_hw.omezarr import Image, Store

SPREAD = "spread"
"""The group of a field that holds the spread of its images."""
MOST_TOLD = 1000
"""Doubted images that are named in a manifest; the store knows all."""
_WORDS = "doubts"
"""In the store's attributes: what the bits of `reasons` mean, the lowest first."""
_NUMBERS = ("residual", "doubt")
_DISPLAY = (0.0, 0.2)
_KEPT_BITS = np.uint32(0xFFFF8000)
"""Eight binary digits of a spread are kept: the others are noise, and would not pack."""


@dataclass(frozen=True)
class Burst:
    """What was said of one image."""

    place: tuple[int, int, int]
    """Field, time and plane."""
    residual: float
    """NaN where there is no image of a specimen that could explain frames."""
    score: float
    """1 is what good ones stay below."""
    reasons: tuple[str, ...]


class Doubtful(Store):
    """What is known of the images of a store. They are judged one by one; what nobody judged has no number."""

    @classmethod
    def add(cls, path: Path, images: Sequence[Image], words: Sequence[str], *, spread: bool) -> None:
        """Room for it beside images that are not made yet; `words` are the reasons that there can be."""
        store = Store(path, mode="r+")
        facts: dict[str, Any] = store.facts
        store.root.attrs.update({"dmu": {**facts, _WORDS: list(words)}})
        for field, image in enumerate(images):
            group = cast("zarr.Group", store.root[str(field)])
            for name in _NUMBERS:
                _numbers(group, name, image, "float32", math.nan)
            _numbers(group, "reasons", image, "uint8", 0)
            if spread:
                _spread(group, image)

    @staticmethod
    def there(store: Store) -> bool:
        """Whether a store says anything of its images."""
        return _WORDS in store.facts

    @property
    def spread(self) -> bool:
        """Whether it keeps how far pixels may be off."""
        return f"0/{SPREAD}" in self.root

    @property
    def words(self) -> list[str]:
        return list(self.facts[_WORDS])

    def put(self, place: tuple[int, int, int], channel: int, estimate: Estimate) -> None:
        """What an estimate says of itself."""
        field, time, plane = place
        at = (time, channel, plane)
        if estimate.residual is not None:
            self._of(field, "residual")[at] = estimate.residual
        if estimate.doubt is not None:
            self._of(field, "doubt")[at] = estimate.doubt.score
            words = self.words
            self._of(field, "reasons")[at] = sum(1 << words.index(reason) for reason in estimate.doubt.reasons)
        if estimate.spread is not None and self.spread:
            self._of(field, f"{SPREAD}/0")[at] = rounded(estimate.spread)

    def bursts(self, channel: int = 0) -> Iterator[Burst]:
        """Those of one channel that were judged, in the order of the fields."""
        words = self.words
        for field in range(len(self)):
            scores, residuals, reasons = (
                np.asarray(self._of(field, name))[:, channel] for name in ("doubt", "residual", "reasons")
            )
            for time, plane in np.argwhere(np.isfinite(scores)):
                at = (int(time), int(plane))
                why = tuple(word for bit, word in enumerate(words) if int(reasons[at]) >> bit & 1)
                yield Burst((field, *at), float(residuals[at]), float(scores[at]), why)

    def said(self, place: tuple[int, int, int], channel: int) -> Burst | None:
        """Of one image; None if nobody judged it."""
        field, time, plane = place
        at = (time, channel, plane)
        score, residual = (float(cast("Any", self._of(field, name)[at])) for name in ("doubt", "residual"))
        if not math.isfinite(score):
            return None
        reasons = int(cast("Any", self._of(field, "reasons")[at]))
        return Burst(place, residual, score, tuple(w for bit, w in enumerate(self.words) if reasons >> bit & 1))

    def told(self, channel: int = 0) -> dict[str, Any]:
        """For manifests and programs: how many images of a channel are doubted, why, and which."""
        bursts = list(self.bursts(channel))
        doubted = [burst for burst in bursts if burst.reasons]
        reasons = [reason for burst in doubted for reason in burst.reasons]
        known = [burst.residual for burst in bursts if math.isfinite(burst.residual)]
        return {
            "judged": len(bursts),
            "doubted": len(doubted),
            "reasons": {reason: reasons.count(reason) for reason in self.words if reason in reasons},
            "residual": {"median": float(np.median(known)), "worst": max(known)} if known else None,
            "bursts": [[*burst.place] for burst in doubted[:MOST_TOLD]],
        }

    def spreads(self, place: tuple[int, int, int], channel: int) -> Float32Array | None:
        """(y, x) of one image; None where it was not kept."""
        if not self.spread:
            return None
        field, time, plane = place
        found: Float32Array = np.asarray(self._of(field, f"{SPREAD}/0")[time, channel, plane])
        return found if np.isfinite(found).all() else None

    def _of(self, field: int, name: str) -> zarr.Array[Any]:
        with self._reading(f"field {field}"):
            return cast("zarr.Array[Any]", self.root[f"{field}/{name}"])


def rounded(spread: Float32Array) -> Float32Array:
    """To three digits, which packs to a third."""
    bits: NDArray[np.uint32] = np.ascontiguousarray(spread, dtype=np.float32).view(np.uint32)
    found: Float32Array = ((bits + np.uint32(0x4000)) & _KEPT_BITS).view(np.float32)
    return found


def _numbers(group: zarr.Group, name: str, image: Image, dtype: str, fill: float) -> None:
    sound = ZstdCodec(level=3, checksum=True)
    chunks = (1, *image.shape[1:3])
    group.create_array(name, shape=image.shape[:3], chunks=chunks, dtype=dtype, fill_value=fill, compressors=sound)


def _spread(group: zarr.Group, image: Image) -> None:
    """An image of its own, empty."""
    beside = group.create_group(SPREAD)
    beside.attrs.update(replace(image, name=f"{image.name}: {SPREAD}", display=_DISPLAY).attributes())
    beside.create_array(
        "0",
        shape=image.shape,
        chunks=(1, image.shape[1], 1, *image.shape[3:]),
        dtype="float32",
        dimension_names=["t", "c", "z", "y", "x"],
        fill_value=math.nan,
        compressors=ZstdCodec(level=3, checksum=True),
    )
