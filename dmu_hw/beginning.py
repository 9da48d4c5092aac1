"""The patterns that a training begins with: a fixed set, noise, those of a bundle, or a draft."""

from __future__ import annotations

import torch
from pydantic import ValidationError
from torch import Tensor

from dmu_hw.bundle import Bundle
from dmu_hw.data import Layout
from dmu_hw.draft import Draft, draft
from dmu_hw.errors import InputError, Problem
from dmu_hw.exposure import Exposure
from dmu_hw.images import Images
from dmu_hw.lesson import BundleStart, Learned
from dmu_hw.lmmse import Design, Statistics
from dmu_hw.physics.mirrors import Binarisation, LearnedPatterns
from dmu_hw.physics.patterns import PatternSet, SetName

_LOGIT = 0.3
_SIGNED = 2.0
"""Logit of a signed pattern that is nearly 1."""
_FULL = 4.0
"""Logit of a signed pattern that is as good as 1, though it can still be turned."""
_REGULAR: tuple[SetName, ...] = ("uniform", "blocks", "hadamard")
_SCENES = 128
_DRAFT_REACH = 1


def first_patterns(learned: Learned, exposure: Exposure, images: Images, generator: torch.Generator) -> LearnedPatterns:
    """As a training protocol asks for; binary ones are drafted as binary, whatever training makes of them."""
    patterns = _patterns(learned, torch.zeros(_shape(learned, learned.tile)), learned.tile, learned.binarisation)
    patterns.begin(_logits(learned, exposure, images, generator))
    return patterns.requires_grad_(not learned.frozen)


def statistics_for(design: Design, images: Images) -> Statistics:
    """Of the training images, on a torus that the design can use."""
    return Statistics.of(images.squares(design.torus_px(), _SCENES))


def _logits(learned: Learned, exposure: Exposure, images: Images, generator: torch.Generator) -> Tensor:
    noise = torch.randn(_shape(learned, learned.tile), generator=generator)
    if learned.start == "noise":
        return noise
    if learned.start == "draft":
        return _draft(learned, exposure, images, generator).repeat(1, learned.tile, learned.tile)
    if isinstance(learned.start, BundleStart):
        masks = _of_bundle(learned, learned.start)
    else:
        masks = _fixed(learned, learned.start, generator.initial_seed()).repeat(1, learned.tile, learned.tile)
    if learned.binarisation == "signed":
        return _SIGNED * masks + learned.noise * noise
    return _LOGIT * (2 * masks - 1) + learned.noise * noise


def _shape(learned: Learned, tile: int) -> tuple[int, int, int]:
    side = learned.camera_pixel * tile // learned.superpixel
    return learned.count, side, side


def _patterns(learned: Learned, start: Tensor, tile: int, binarisation: Binarisation) -> LearnedPatterns:
    return LearnedPatterns(
        start.reshape(_shape(learned, tile)),
        superpixel=learned.superpixel,
        parametrisation=learned.parametrisation,
        binarisation=binarisation,
        sum_lit=learned.cap.sum,
        peak_lit=learned.cap.peak,
    )


def _fixed(learned: Learned, name: SetName, seed: int = 0) -> Tensor:
    """Masks of a fixed set on super-pixels, one camera pixel of them."""
    side = learned.camera_pixel
    superpixel = learned.superpixel if name == "random" else 1
    masks = PatternSet(set=name, count=learned.count, camera_pixel=side, superpixel=superpixel, seed=seed).make().masks
    return torch.from_numpy(masks[:, :: learned.superpixel, :: learned.superpixel]).float()


def _draft(learned: Learned, exposure: Exposure, images: Images, generator: torch.Generator) -> Tensor:
    """For patterns that repeat with the camera pixel: larger tiles gain a draft next to nothing."""
    single = learned.model_copy(update={"tile": 1, "parametrisation": "spatial"})
    noise = torch.randn(_shape(single, 1), generator=generator)

    def design(patterns: Tensor) -> Design:
        return exposure.design(patterns, _DRAFT_REACH)

    side = learned.camera_pixel
    statistics = statistics_for(design(torch.ones(learned.count, side, side)), images)

    def best(starts: dict[str, Tensor], binarisation: Binarisation) -> Draft:
        candidates = {name: _patterns(single, start, 1, binarisation) for name, start in starts.items()}
        return draft(candidates, design, statistics)

    fixed = _fixed_sets(single)
    # a little noise, so that a cap can choose between patterns that are alike
    given = {name: _LOGIT * (2 * masks - 1) + learned.noise * noise for name, masks in fixed.items()}
    found = best({"noise": noise} | given, "hard")
    if learned.binarisation != "signed":
        return found.logits
    # whatever mirrors can show, signed patterns can too
    lit = (found.logits > 0).float()
    whole = {"binary": _SIGNED * lit} | {f"±{name}": _SIGNED * (2 * masks - 1) for name, masks in fixed.items()}
    signed = best(whole, "signed")
    return signed.logits if signed.error < found.error else _FULL * lit


def _fixed_sets(learned: Learned) -> dict[str, Tensor]:
    """Masks of all regular sets that there are with this T and d."""
    found: dict[str, Tensor] = {}
    for name in _REGULAR:
        try:
            found[name] = _fixed(learned, name)
        except ValidationError:  # there is no such set with this count
            continue
    return found


def _of_bundle(learned: Learned, start: BundleStart) -> Tensor:
    bundle = Bundle.load(start.bundle)
    side = learned.camera_pixel * learned.tile
    wanted, given = Layout(learned.count, (side, side), learned.camera_pixel), bundle.patterns.layout
    if given != wanted:
        what = f"T {given.count}, tile {given.tile_px} and camera pixel {given.camera_pixel}"
        raise InputError([Problem(str(start.bundle), f"has {what}; patterns asks for {wanted}")])
    masks = torch.from_numpy(bundle.patterns.masks[:, :: learned.superpixel, :: learned.superpixel])
    return masks.float()
