"""The pictures of a run: its patterns, and some of its bursts with all that was made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dmu_hw.data import BoolArray, Float32Array, PatternStack
from dmu_hw.doubtful import Burst
from dmu_hw.plan import Plan, Shot
from dmu_hw.view.amounts import decibels, digits, duration, plural
from dmu_hw.view.page import Html, Section, pairs, paragraph, tag
from dmu_hw.view.pictures import Scale, absent, bilevel, lattice, outline, outlines, picture
from dmu_hw.view.samples import MAX_FRAMES, Sample, Sampler

MAX_PATTERNS = 9
_COUNTED = {"reconstruction": "objects", "truth": "true objects"}
_LATTICE = 4, 8
"""Camera pixels of a pattern that are shown, at least and at most."""
IMAGES = {
    "reconstruction": "Reconstruction",
    "truth": "Truth (simulated)",
    "error": "Error",
    "spread": "Spread: may be off by",
    "plain": "Plain camera, bicubic",
    "full": "Full sensor, same dose",
}
_SEGMENTED = "Objects found"
"""What the reconstruction is called where it was made for the objects in it."""
_BRIGHTNESS = "× the brightest dye"


# ---------------------------------------------------------------- patterns


def patterns_section(plan: Plan) -> Section:
    """What the mirrors showed, with the lattice of the camera's pixels on it."""
    stack, pixel_um = plan.stack, plan.optics.object_pixel_um
    side, (rows, columns) = stack.camera_pixel, stack.tile_px
    seen_y, seen_x = (min(max(tile // side, _LATTICE[0]), _LATTICE[1]) for tile in (rows, columns))
    shown = PatternStack(stack.name, stack.masks[:MAX_PATTERNS], side)
    masks = shown.over((seen_y * side, seen_x * side))
    card = pairs(
        [
            ("set", stack.name),
            ("patterns", f"{stack.count:,}"),
            ("tile", f"{columns} × {rows} px"),
            ("object pixel", f"{digits(pixel_um * 1e3)} nm"),
            ("camera pixel", f"{side} × {side} px, {digits(side * pixel_um)} µm"),
            ("hash", tag("code", stack.hash[:16])),
        ]
    )
    told = "White is lit, orange lines are the borders of camera pixels. The tile repeats over the whole field."
    if masks.shape[1] < rows or masks.shape[2] < columns:
        told += f" Of its {columns // side} × {rows // side} camera pixels the first {seen_x} × {seen_y} are shown."
    told += _left_out(stack.count, MAX_PATTERNS, "patterns")
    figures = [_pattern(index, mask, plan) for index, mask in enumerate(masks)]
    strip = tag("div", tag("div", card, class_="card"), *figures, class_="strip")
    return Section("patterns", "Patterns", (paragraph(told), strip))


def _pattern(index: int, mask: BoolArray, plan: Plan) -> Html:
    shape, lit = (mask.shape[0], mask.shape[1]), f"{mask.mean():.0%}"
    return picture(
        bilevel(mask),
        f"Pattern {index}: white mirrors are on, {lit} of them",
        tag("span", tag("b", f"Pattern {index}"), f" · {lit} lit", tag("br"), tag("code", plan.stack.hashes[index])),
        shape=shape,
        width_um=shape[1] * plan.optics.object_pixel_um,
        blocky=True,
        over=lattice(shape, plan.stack.camera_pixel),
    )


# ---------------------------------------------------------------- fields


@dataclass(frozen=True)
class Scales:
    """One for each kind of picture, over all fields, so that they can be compared."""

    raw: Scale
    image: Scale
    error: Scale
    seen: Scale
    """Of what a segmenter looks at."""

    @classmethod
    def of(cls, plan: Plan, samples: list[Sample], *, segments: bool) -> Scales:
        images = ("truth",) if segments else ("truth", "reconstruction")
        frames = [frame for sample in samples for frame in sample.frames if frame is not None]
        return cls(
            Scale.over(frames, plan.optics.sensor.offset_adu, "ADU"),
            Scale.over(_all(samples, *images) or _all(samples, "plain", "full"), 0.0, _BRIGHTNESS),
            Scale.over(_all(samples, "error", "spread"), 0.0, _BRIGHTNESS, percent=99.5).coloured(),
            Scale.over(_all(samples, "reconstruction") if segments else (), 0.0, ""),
        )


def _all(samples: list[Sample], *names: str) -> list[Float32Array]:
    return [sample.images[name] for sample in samples for name in names if name in sample.images]


def fields_section(plan: Plan, sampler: Sampler, shots: list[Shot], dose_mj_cm2: Mapping[int, float]) -> Section:
    """Some bursts: raw frames, and every image that was made of the same place. The dose is that of whole fields."""
    samples = [sampler.sample(shot) for shot in shots]
    scales = Scales.of(plan, samples, segments=sampler.segments)
    legends = [scales.raw.legend("Raw frames")]
    if sampler.segments and _all(samples, "reconstruction"):
        legends.append(scales.seen.legend("What the segmenter looks at"))
    if any(sample.images.keys() - ({"reconstruction"} if sampler.segments else set()) for sample in samples):
        legends.append(scales.image.legend("Images"))
    if _all(samples, "error", "spread"):
        legends.append(scales.error.legend("Error and spread" if _all(samples, "spread") else "Error"))
    rows, columns = sampler.crop.shape
    loops = plan.shots.loops
    count = loops.places // len(loops.channels)
    bursts = plural(count, "burst")
    told = bursts if len(samples) == count else f"{len(samples)} of {bursts}, from first to last"
    told += ", all on the same scales."
    if not sampler.crop.whole:
        told += f" Of each field the middle {columns} × {rows} pixels are shown."
    told += _left_out(plan.stack.count, MAX_FRAMES, "raw frames of each burst")
    gallery = _Gallery(plan, sampler, scales, dose_mj_cm2)
    hint = tag("span", " Click on a picture, or go to it with the tab key, to enlarge it.", class_="screen")
    scale_list = tag("ul", *legends, class_="legends")
    return Section("fields", "Fields", (paragraph(told, hint), scale_list, *map(gallery.field, samples)))


@dataclass(frozen=True)
class _Gallery:
    plan: Plan
    sampler: Sampler
    scales: Scales
    dose_mj_cm2: Mapping[int, float]

    def field(self, sample: Sample) -> Html:
        """One burst."""
        title = self._title(sample.shot)
        name = f"burst-{sample.shot.index}"
        frames = tag("div", self._card(sample), *self._frames(sample, title), class_="strip")
        images = tag("div", *self._images(sample, title), class_="strip")
        return tag("article", tag("h3", title, id=name), frames, images, aria_labelledby=name)

    def _title(self, shot: Shot) -> str:
        name = self.plan.shots.places[shot.position].name
        parts = [f"Field {shot.position}" + (f": {name}" if name else "")]
        if shot.channel:
            parts.append(shot.channel)
        if self.plan.times > 1:
            parts.append(f"time {shot.time}")
        if self.plan.planes > 1:
            parts.append(f"plane {shot.z}")
        return ", ".join(parts)

    def _card(self, sample: Sample) -> Html:
        shot = sample.shot
        places = (("x", shot.x_um), ("y", shot.y_um), ("z", shot.z_um))
        rows = [(axis, f"{place:.1f} µm".replace("-", "−")) for axis, place in places if place is not None]
        if sample.began_s is not None:
            rows.append(("rig's clock", duration(sample.began_s)))
        if shot.position in self.dose_mj_cm2:
            whose = f"dose in {shot.channel}" if shot.channel else "dose of the field"
            rows.append((whose, f"{digits(self.dose_mj_cm2[shot.position])} mJ/cm²"))
        rows += [(_COUNTED[name], f"{count:,}") for name, count in sample.counts.items()]
        if sample.judged is not None:
            rows += _doubts(sample.judged)
        rows.append(("stores", f"*.ome.zarr/{shot.position}"))
        return tag("div", pairs(rows), class_="card")

    def _frames(self, sample: Sample, title: str) -> Iterator[Html]:
        side = self.plan.stack.camera_pixel
        rows, columns = (px // side for px in self.sampler.crop.shape)
        for index, frame in enumerate(sample.frames):
            caption = tag("b", f"Raw, pattern {index}")
            if frame is None:
                yield absent(caption, shape=(rows, columns))
                continue
            alt = f"{title}: raw frame of pattern {index}, {columns} × {rows} camera pixels"
            uri = self.scales.raw.png(frame)
            yield picture(uri, alt, caption, shape=(rows, columns), width_um=self._width_um, blocky=True)

    def _images(self, sample: Sample, title: str) -> Iterator[Html]:
        if sample.overview is not None:
            yield self._overview(sample.overview, title)
        for name, named in IMAGES.items():
            told = _SEGMENTED if name == "reconstruction" and self.sampler.segments else named
            caption = tag("span", tag("b", told), _measured(sample, name))
            if name in sample.images:
                uri, shape = self._scale(name).png(sample.images[name]), self.sampler.crop.shape
                over = outlines(sample.labels[name]) if name in sample.labels else None
                yield picture(uri, f"{title}: {told}", caption, shape=shape, width_um=self._width_um, over=over)
            elif name in self.sampler.expected:
                why = "not kept" if name == "truth" else "missing"
                yield absent(caption, shape=self.sampler.crop.shape, why=why)

    def _scale(self, name: str) -> Scale:
        if name == "reconstruction" and self.sampler.segments:
            return self.scales.seen
        return self.scales.error if name in ("error", "spread") else self.scales.image

    def _overview(self, image: Float32Array, title: str) -> Html:
        """The whole field, and which part of it the other pictures show."""
        part = self.sampler.crop.coarse(self.plan.protocol.field_px[1] // image.shape[1])
        shape = (image.shape[0], image.shape[1])
        return picture(
            self._scale("reconstruction").png(image),
            f"{title}: the whole field, coarsely",
            tag("b", "Whole field"),
            shape=shape,
            width_um=self.plan.protocol.field_px[1] * self.plan.optics.object_pixel_um,
            over=outline(shape, part),
        )

    @property
    def _width_um(self) -> float:
        return self.sampler.crop.shape[1] * self.plan.optics.object_pixel_um


def _doubts(judged: Burst) -> Iterator[tuple[str, str]]:
    """How far an image is to be believed."""
    if math.isfinite(judged.residual):
        yield "residual", digits(judged.residual)
    yield "doubt, 1 is the limit", digits(judged.score)
    if judged.reasons:
        yield "not to be believed", "; ".join(judged.reasons)


def _measured(sample: Sample, name: str) -> str | None:
    """What stands behind the name of an image."""
    if name in sample.counts:
        return f" · {plural(sample.counts[name], 'object')}"
    return f" · {decibels(sample.psnr_db[name])}" if name in sample.psnr_db else None


def _left_out(count: int, shown: int, what: str) -> str:
    return f" Of {count:,} {what} the first {shown} are shown." if count > shown else ""
