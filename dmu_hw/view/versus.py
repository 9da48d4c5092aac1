"""The same image by every arm of a comparison, its error, and the patterns that it was seen with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.compare import NAMES, Result, Standing
from dmu_hw.tally import Tally
from dmu_hw.view.amounts import digits
from dmu_hw.view.page import Html, join, paragraph, tag
from dmu_hw.view.pictures import Scale, lattice, picture

SAMPLES = "samples.npz"
_MOST_PATTERNS = 4
_AROUND = 2
"""Camera pixels of a pattern along each side, at least."""
_SIGNED = ("56b4e9", "000000", "e69f00")
Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Shown:
    """What a training left of the first image of the test split."""

    result: Result
    truth: Image
    estimate: Image
    patterns: Image
    """(pattern, y, x)."""

    @classmethod
    def of(cls, result: Result, trials: Path, margin_px: int) -> Shown | None:
        """Of the first seed; None if its file is gone."""
        path = trials / result.trials[0] / SAMPLES
        if not path.exists():
            return None
        with np.load(path) as kept:
            truth, estimate, patterns = (kept[name].astype(np.float32) for name in ("truth", "estimate", "patterns"))
        return cls(result, _inner(truth[0], margin_px), _inner(estimate[0], margin_px), patterns)

    @property
    def error(self) -> Image:
        off: Image = np.abs(self.estimate - self.truth)
        return off

    @property
    def mse(self) -> float:
        return float(np.mean((self.estimate.astype(np.float64) - self.truth) ** 2))


def versus(tally: Tally, one: Standing, trials: Path) -> Html:
    """A column an arm, all on the same scales."""
    margin_px = tally.course.lesson.schedule.margin_px
    shown = [found for result in one.best if (found := Shown.of(result, trials, margin_px)) is not None]
    if not shown:
        return paragraph("The pictures are gone: the folder of the trainings was tidied up.", class_="note")
    columns = _Columns.of(shown, tally.course.optics.object_pixel_um)
    told = "The first image of the test split, by the first seed of each arm, all on the same scales. "
    told += "Below: how far off each is, and its patterns over the borders of camera pixels."
    signed = Scale(-1.0, 1.0, "of full light", _SIGNED)
    legends = [columns.image.legend("Image"), columns.error.legend("Error"), signed.legend("Signed patterns")]
    strip = tag("div", columns.truth(), *map(columns.arm, shown), class_="versus", style=f"--arms: {len(shown) + 1}")
    return join([tag("h3", "The same image"), paragraph(told), tag("ul", *legends, class_="legends"), strip])


@dataclass(frozen=True)
class _Columns:
    image: Scale
    error: Scale
    pixel_um: float
    first: Shown

    @classmethod
    def of(cls, shown: list[Shown], pixel_um: float) -> _Columns:
        image = Scale.over([shown[0].truth], 0.0, "× the brightest dye")
        error = Scale.over([one.error for one in shown], 0.0, "× the brightest dye", percent=99.0).coloured()
        return cls(image, error, pixel_um, shown[0])

    def truth(self) -> Html:
        return tag("div", self._picture(self.image, self.first.truth, tag("b", "Truth")), class_="column")

    def arm(self, shown: Shown) -> Html:
        result = shown.result
        name = "limit" if result.arm == "limit" else NAMES[result.arm].removeprefix("the ")
        choice = f"T {result.choice.count}, d {result.choice.camera_pixel}"
        figures = [
            self._picture(self.image, shown.estimate, tag("span", tag("b", name), tag("br"), choice)),
            self._picture(self.error, shown.error, f"error, MSE {digits(shown.mse)}"),
            tag("div", *self._patterns(shown, name), class_="masks"),
        ]
        return tag("div", *figures, *_more(result), class_="column")

    def _picture(self, scale: Scale, image: Image, caption: object) -> Html:
        rows, columns = image.shape
        shape, width_um = (rows, columns), columns * self.pixel_um
        return picture(scale.png(image), "", caption, shape=shape, width_um=width_um)

    def _patterns(self, shown: Shown, name: str) -> Iterator[Html]:
        side, signed = shown.result.choice.camera_pixel, shown.result.arm == "limit"
        scale = Scale(-1.0, 1.0, "", _SIGNED) if signed else Scale(0.0, 1.0, "")
        for number, mask in enumerate(_several(shown.patterns[:_MOST_PATTERNS], side)):
            rows, columns = mask.shape
            yield picture(
                scale.png(mask),
                f"{name}, pattern {number}",
                "",
                shape=(rows, columns),
                width_um=columns * self.pixel_um,
                blocky=True,
                over=lattice((rows, columns), side),
            )


def _more(result: Result) -> Iterable[Html]:
    count = result.choice.count
    return [paragraph(f"{_MOST_PATTERNS} of {count} patterns", class_="note")] if count > _MOST_PATTERNS else []


def _several(patterns: Image, side: int) -> NDArray[Any]:
    """At least so many camera pixels."""
    rows, columns = (-(-_AROUND * side // length) for length in patterns.shape[1:])
    return np.tile(patterns, (1, max(1, rows), max(1, columns)))


def _inner(image: Image, margin_px: int) -> Image:
    rows, columns = image.shape
    return image[margin_px : rows - margin_px, margin_px : columns - margin_px]
