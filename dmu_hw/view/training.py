"""report.html of a training: how it went, what was learned, and what it makes of images that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmu_hw import segments
from dmu_hw.bundle import Bundle
from dmu_hw.data import Float32Array, Int32Array
from dmu_hw.files import read_text, write_whole
from dmu_hw.metrics import psnr_db
from dmu_hw.train import Learner, Line
from dmu_hw.view.amounts import decibels, digits, duration
from dmu_hw.view.canvas import BLUE, GREEN, LINE, ORANGE, QUIET, figure_of, svg
from dmu_hw.view.page import Html, Section, page, pairs, paragraph, tag, verbatim
from dmu_hw.view.pictures import Scale, lattice, outlines, picture

_MOST_FRAMES = 9
_MOST_IMAGES = 3
_AROUND = 4
"""Camera pixels of a pattern along each side, at least."""
_STAGES = {"image": ("image", BLUE), "head": ("segmentation alone", GREEN), "joint": ("all together", ORANGE)}
_NAMED = {
    "test_psnr_db": ("PSNR", decibels),
    "test_ssim": ("SSIM", digits),
    "test_mse": ("mean squared error", digits),
    "test_dice": ("Dice", digits),
    "test_ap50": ("AP@0.5", digits),
    "test_count_error": ("count error", digits),
}


@dataclass(frozen=True, eq=False)
class Held:
    """One image of the test split, and what was made of it."""

    signals: Float32Array
    """(pattern, y, x): what the inverse is given."""
    truth: Float32Array
    estimate: Float32Array
    found: Int32Array | None = None
    """Objects, of a bundle that segments."""
    objects: Int32Array | None = None
    """The true ones."""


def held_back(learner: Learner) -> list[Held]:
    """The first images of the test split, as they are judged."""
    taken: list[Held] = []
    for (crops, seen), (_, estimates) in zip(learner.frames("test"), learner.judged("test"), strict=True):
        images = learner.inner(estimates.detach().float().cpu()).numpy()
        found: list[Int32Array | None] = [None] * len(images)
        if learner.segmenter is not None:
            maps = torch.sigmoid(learner.inner(learner.maps(estimates).detach().float())).cpu().numpy()
            found = [segments.instances(one) for one in maps]
        truths = learner.inner(crops.images).numpy()
        objects = [None] * len(images) if crops.labels is None else list(learner.inner(crops.labels).numpy())
        signals = _without_margin(seen.signal.detach().float().cpu().numpy(), learner)
        taken.extend(map(Held, signals, truths, images, found, objects))
        if len(taken) >= _MOST_IMAGES:
            break
    return taken[:_MOST_IMAGES]


def _without_margin(signals: Float32Array, learner: Learner) -> Float32Array:
    """What camera pixels show of the part that is judged."""
    edge = learner.lesson.schedule.margin_px // learner.layout.camera_pixel
    rows, columns = signals.shape[-2:]
    return signals[..., edge : rows - edge, edge : columns - edge]


def write_training(folder: Path, learner: Learner, bundle: Bundle, name: str) -> Path:
    """One file that stands for itself, beside the bundle."""
    header = bundle.header
    sections = [
        Section("course", "How it went", (_course(folder / "log.jsonl"),)),
        Section("patterns", "Patterns", tuple(_patterns(bundle))),
        Section("images", "Images that it has not seen", tuple(_images(held_back(learner), bundle))),
        Section("assumed", "What the bundle assumes", (_assumed(bundle),)),
        Section("settings", "Settings", (verbatim("protocol.yaml", read_text(folder / "protocol.yaml")),)),
    ]
    tiles = [(told, shown(header.metrics[key])) for key, (told, shown) in _NAMED.items() if key in header.metrics]
    stack = bundle.patterns
    tiles += [("patterns", str(stack.count)), ("camera pixel", f"{stack.camera_pixel} × {stack.camera_pixel} px")]
    tiles.append(("compression", f"× {digits(stack.compression)}"))
    top = [
        paragraph("Patterns and their inverse, learned together: judged on the test split"),
        tag("h1", name),
        pairs(tiles, class_="tiles"),
    ]
    report = folder / "report.html"
    write_whole(report, page(f"{name}, training", top, sections).encode())
    return report


# ---------------------------------------------------------------- how it went


def _course(log: Path) -> Html:
    """The error on the validation split, a line a stage."""
    lines = [Line(**json.loads(line)) for line in read_text(log, limit=100_000_000).splitlines()]
    stages = [(name, list(part)) for name, part in groupby(lines, key=lambda line: line.stage)]
    figure, every = figure_of(3.2, len(stages))
    for axes, (name, part) in zip(every, stages, strict=True):
        told, colour = _STAGES.get(name, (name, BLUE))
        xs = [line.update for line in part]
        losses = [(line.update, line.loss) for line in part if line.loss is not None]
        axes.plot(xs, [line.val_error for line in part], "-", color=colour, linewidth=1.8, label="validation")
        if losses:
            axes.plot(*zip(*losses, strict=True), ":", color=QUIET, linewidth=1.2, label="training")
        best = min(part, key=lambda line: line.val_error)
        axes.plot(best.update, best.val_error, "o", color=colour, markersize=7)
        axes.set_yscale("log")
        axes.set_xlabel(f"updates: {told}")
        axes.grid(color=LINE, linewidth=0.6)
        axes.legend(frameon=False, labelcolor=QUIET)
    every[0].set_ylabel("error (lower is better)")
    plot = svg(figure, "Error against updates")
    each_s = [line.per_update_s for line in lines if line.per_update_s is not None]
    spent = f", {duration(float(np.median(each_s)) * lines[-1].update)} of computing" if each_s else ""
    told = f"{lines[-1].update:,} updates{spent}. A dot is the best of its stage, which is what was kept."
    return tag("div", paragraph(told), plot)


# ---------------------------------------------------------------- pictures


def _patterns(bundle: Bundle) -> Sequence[Html]:
    stack, pixel_um = bundle.patterns, bundle.header.optics.object_pixel_um
    side = stack.camera_pixel
    rows, columns = (max(min(tile, 2 * _AROUND * side), _AROUND * side) for tile in stack.tile_px)
    masks = stack.over((rows, columns))[:_MOST_FRAMES]
    figures = [
        picture(
            Scale(0.0, 1.0, "").png(mask),
            f"pattern {number}",
            f"pattern {number}, {mask.mean():.0%} lit",
            shape=(rows, columns),
            width_um=columns * pixel_um,
            blocky=True,
            over=lattice((rows, columns), side),
        )
        for number, mask in enumerate(masks)
    ]
    more = f" The first {len(masks)} of {stack.count}." if len(masks) < stack.count else ""
    told = f"White is lit; lines are the borders of camera pixels. A tile is repeated over the field.{more}"
    return paragraph(told), tag("div", *figures, class_="strip")


def _images(held: Sequence[Held], bundle: Bundle) -> Sequence[Html]:
    if not held:
        return (paragraph("There is no test split."),)
    pixel_um = bundle.header.optics.object_pixel_um
    scale = Scale.over([one.truth for one in held], 0.0, "× the brightest dye")
    error = Scale.over([_off(one) for one in held], 0.0, "× the brightest dye", percent=99.0).coloured()
    raw = Scale.over([one.signals for one in held], 0.0, "signal")
    segmenting = bundle.header.task == "segment"
    legends = [raw.legend("Frames"), scale.legend("Images"), *([] if segmenting else [error.legend("Error")])]
    strips = [_strip(one, number, (raw, scale, error), pixel_um) for number, one in enumerate(held)]
    return tag("ul", *legends, class_="legends"), *strips


def _off(held: Held) -> Float32Array:
    off: Float32Array = np.abs(held.estimate - held.truth)
    return off


def _strip(held: Held, number: int, scales: tuple[Scale, Scale, Scale], pixel_um: float) -> Html:
    """Frames in their order, then what was made of them beside the truth."""
    raw, scale, error = scales
    width_um = held.truth.shape[1] * pixel_um

    def shown(scale: Scale, image: Any, caption: object, over: Html | None = None, *, blocky: bool = False) -> Html:
        rows, columns = image.shape
        return picture(
            scale.png(image), "", caption, shape=(rows, columns), width_um=width_um, blocky=blocky, over=over
        )

    frames = [
        shown(raw, signal, f"frame {index}", blocky=True) for index, signal in enumerate(held.signals[:_MOST_FRAMES])
    ]
    if held.found is None:
        made = [
            shown(scale, held.estimate, f"reconstruction, {decibels(psnr_db(held.estimate, held.truth))}"),
            shown(scale, held.truth, "truth"),
            shown(error, _off(held), "error"),
        ]
    else:
        made = [shown(scale, held.truth, f"found: {_count(held.found)} objects", outlines(held.found))]
        if held.objects is not None:
            made.append(shown(scale, held.truth, f"true: {_count(held.objects)} objects", outlines(held.objects)))
    title = tag("h3", f"Image {number}")
    return tag("article", title, tag("div", *made, class_="strip"), tag("div", *frames, class_="strip"))


def _count(labels: Int32Array) -> int:
    return int(np.count_nonzero(np.unique(labels)))


# ---------------------------------------------------------------- what it rests on


def _assumed(bundle: Bundle) -> Html:
    header, optics = bundle.header, bundle.header.optics
    rows: list[tuple[object, object]] = [
        ("inverse model", f"{header.model}, {sum(weight.size for weight in bundle.weights.values()):,} numbers"),
        ("trained on", header.trained_on),
        ("light", f"{digits(header.power_mw)} mW, {digits(header.exposure_ms)} ms a frame"),
        ("dose of a frame", f"{digits(header.dose_mj_cm2)} mJ/cm²"),
        ("object pixel", f"{digits(optics.object_pixel_um)} µm"),
        ("bundle", tag("code", bundle.hash[:16])),
    ]
    return pairs(rows)
