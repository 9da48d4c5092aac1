"""How far a bundle's images are to be believed: limits of what good fields look like, and the spread of their errors.

A bundle is taught after its inverse is learned, or whenever its optics or its patterns' light have changed. Neither the
inverse nor the patterns are touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dmu_hw import doubt, spread
from dmu_hw.bundle import Bundle, Weights
from dmu_hw.doubt import FAULTS, Teaching, certainty
from dmu_hw.erring import learn_spread
from dmu_hw.grounds import AT_ONCE, Grounds, Moved
from dmu_hw.images import Images, Split
from dmu_hw.lesson import Lesson
from dmu_hw.traits import content, traits, ways

_HELD_BACK = 0.64
"""So many fields limits are set by, as a part of those that good ones are learned from; draws, of as many images as
there are."""
_PAIRS = 0.16
"""Fields of which each is seen with a fault and without."""
_VISIBLE = 0.03
"""Part of the variance of an image by which a fault must change it to count."""
_FIRST_UM, _MOST = 0.1, 40
"""Faults are tried from here on, and so often, each a quarter larger than the one before."""
_BEYOND = 2.2
"""From what half of the good fields stay below to their limit, in steps to what 95 % of them do; of Gaussian numbers
this is 3.6 standard deviations."""
_PASSED = 0.985
"""Part of held-back good fields that all limits together must let pass…"""
_SPARE = {"focus": 1.1, "registration": 1.1, "residual": 1.3, "unlike": 1.6}
"""…and how far beyond those each limit is laid: farther where nobody knows what is to be told from good fields, and
another specimen is mostly far away."""
_FELT = 0.5
"""Standard deviations by which a fault that can be seen must move the frames, or it is not looked for."""
_FIGURES = ("doubt_", "spread_")
_SHRUNK = 0.02
"""Part of the covariance that is taken as independent: so much less than what it is learned from is needed."""

Fault = Callable[[float], Moved]


@dataclass(frozen=True)
class Taught:
    """What a bundle is given, and how well it does."""

    weights: Weights
    figures: dict[str, float]


def trusted(
    bundle: Bundle,
    lesson: Lesson,
    images: Images,
    delivered: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Bundle:
    """The bundle with what it knows of its own errors, learned anew; inverse and patterns are as they were."""
    grounds = Grounds(bundle, lesson, images, delivered, device)
    taught = teach(grounds)
    weights = without_trust(bundle.weights) | {f"{doubt.PREFIX}{key}": part for key, part in taught.weights.items()}
    figures = taught.figures
    if not grounds.segments:  # what a segmenter looks at is no image that could be wrong
        found, covered = learn_spread(grounds)
        weights |= {f"{spread.PREFIX}{key}": part for key, part in found.weights().items()}
        figures = figures | covered
    kept = {name: value for name, value in bundle.header.metrics.items() if not name.startswith(_FIGURES)}
    header = bundle.header.model_copy(update={"metrics": kept | figures})
    return Bundle(header, bundle.patterns, weights)


def without_trust(weights: Weights) -> Weights:
    """What a bundle was before it was taught."""
    return {key: part for key, part in weights.items() if not key.startswith((doubt.PREFIX, spread.PREFIX))}


# ---------------------------------------------------------------- doubt


@torch.no_grad()
def teach(grounds: Grounds, seed: int = 0) -> Taught:
    """To doubt."""
    side = grounds.eye.sides[0]
    seen = [(signal, image) for _, signal, image in grounds.good("train", grounds.fields(1.0), seed)]
    parts = [grounds.looks(signal, image, side) for signal, image in seen]
    found = ways(torch.cat([part.frames for part in parts]))
    usual = float(torch.cat([content(part) for part in parts]).median())
    weight = torch.cat([certainty(part, usual) for part in parts]).double()[:, None]
    good = torch.cat([traits(part, found) for part in parts]).double()
    mean = (weight**2 * good).sum(dim=0) / (weight**2).sum(dim=0)
    whitener = _whitener(weight * (good - mean)).float()
    plain = Teaching(side, found, usual, mean.float(), whitener, {}, {}, grounds.delivered)
    towards, visible = _directions(grounds, plain, seed + 1)
    teaching = replace(plain, towards=towards)
    limits = _limits(_far(grounds, teaching, "val", seed + 2))
    far = _far(grounds, teaching, "test", seed + 3)
    alarms = float(_worst(far, limits).gt(1).float().mean())
    return Taught(replace(teaching, limits=limits).weights(), {"doubt_false_alarms": alarms} | visible)


def _whitener(good: Tensor) -> Tensor:
    """Of the covariance, drawn a little towards independent traits."""
    scale = good.square().mean(dim=0).sqrt().clamp(min=1e-4)
    centred = good / scale
    covariance = (1 - _SHRUNK) * centred.T @ centred / len(good) + _SHRUNK * torch.eye(len(scale)).double()
    values, vectors = torch.linalg.eigh(covariance)
    whitener: Tensor = (vectors / values.sqrt()) / scale[:, None]
    return whitener


def _directions(grounds: Grounds, teaching: Teaching, seed: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Where each fault moves good fields, and from where on it can be seen in the image."""
    half_px = grounds.side_px / 2
    pixel_um = grounds.bundle.header.optics.object_pixel_um
    shift_px = _visible(grounds, lambda amount: Moved(across_px=amount / pixel_um), seed) / pixel_um
    focus_um = _visible(grounds, lambda amount: Moved(defocus_um=amount), seed)
    # a field that grows or is turned is beside its place at its borders, twice as far as on average
    edge = 2 * shift_px / half_px
    both = [
        (Moved(across_px=shift_px), Moved(across_px=-shift_px)),
        (Moved(down_px=shift_px), Moved(down_px=-shift_px)),
        (Moved(grown=edge), Moved(grown=-edge)),
        (Moved(turned=edge), Moved(turned=-edge)),
    ]
    fields = grounds.fields(_PAIRS)

    def white(moved: Moved) -> Tensor:
        parts = [grounds.looks(*seen, teaching.part) for seen in grounds.faulty(moved, fields, seed)]
        return torch.cat([teaching.white(part) for part in parts])

    focus = _unit((white(Moved(defocus_um=focus_um)) - white(Moved())).mean(dim=0))
    ends = [(white(there).mean(dim=0), white(back).mean(dim=0)) for there, back in both]
    registration = [_unit((there - back) / 2) for there, back in ends]
    found = {"focus": focus[None], "registration": torch.stack(registration)}
    assert tuple(found) == FAULTS  # noqa: S101 - as they are read again
    return found, {"doubt_focus_from_um": focus_um, "doubt_shift_from_um": shift_px * pixel_um}


def _unit(direction: Tensor) -> Tensor:
    """Of length 1; none of a fault that is not felt."""
    length = float(direction.norm())
    return direction / length if length > _FELT else torch.zeros_like(direction)


def _visible(grounds: Grounds, fault: Fault, seed: int) -> float:
    """The smallest fault that changes images so that it is seen, or the largest that is tried."""
    amount = _FIRST_UM
    plain = torch.cat([image for _, image in grounds.faulty(Moved(), 2 * AT_ONCE, seed, noisy=False)])
    for _ in range(_MOST):
        other = torch.cat([image for _, image in grounds.faulty(fault(amount), 2 * AT_ONCE, seed, noisy=False)])
        if float((other - plain).square().mean()) > _VISIBLE * float(plain.var()):
            break
        amount *= 1.25
    return amount


def _far(grounds: Grounds, teaching: Teaching, split: Split, seed: int) -> dict[str, Tensor]:
    """How far held-back good fields are from good ones, in each way."""
    fields = grounds.good(split, grounds.fields(_HELD_BACK), seed)
    found = [teaching.far(grounds.looks(signal, image, teaching.part), len(signal)) for _, signal, image in fields]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def _limits(far: dict[str, Tensor]) -> dict[str, float]:
    """Each beyond what its tail promises, all together so that few good fields are doubted."""
    limits = {}
    for name, values in far.items():
        half, most = (float(values.quantile(part)) for part in (0.5, 0.95))
        limits[name] = max(half + _BEYOND * (most - half), 1e-6)
    factor = max(1.0, float(_worst(far, limits).quantile(_PASSED)))
    return {name: _SPARE[name] * factor * limit for name, limit in limits.items()}


def _worst(far: dict[str, Tensor], limits: dict[str, float]) -> Tensor:
    """(field,): how far each is beyond the limit that it is farthest beyond."""
    return torch.stack([values / limits[name] for name, values in far.items()]).amax(dim=0)
