"""Does the light of a burst say that every frame saw its pattern? One verdict a burst, from its marker frame.

Where the marker shows pattern t (slot t) it must be what frame t is there. Every other explanation is a rival, and
their log-likelihoods are compared: slot t shows what frame r is, or the light of none of the frames. A fault is a set
of such rivals: two patterns swapped, all shifted, the marker never shown. A burst is refuted if a fault explains its
marker better, and proven if every fault explains it worse. Where a frame is the same as another but for noise, or as
dark as others are in between, though all others differ, the marker need say less against it.

What is not known of a pixel is part of its variance: noise, and the model's own errors (drift, bleaching, blur across
borders), which grow with what there is to see. Frames are noisy too: what they differ by is believed only as far as
noise does not explain it, so that all rivals are equal where there is nothing to see.

What the marker leaves undecided is asked of the frames by themselves, with what it says for or against each fault:
they may raise a doubt (covariance.py), as they tell little of a specimen that is odd, and they never prove a burst.
One pattern alone is refuted by counting (lone.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dmu_hw import lone
from dmu_hw.covariance import Mistakes, mistakes
from dmu_hw.data import Uint16Array
from dmu_hw.marker import Marker, Readings

Array = NDArray[np.float32]
Codes = NDArray[np.int64]
Said = Literal["proven", "refuted", "doubted", "undecided"]
REFUTED, PROVEN = 14.0, 10.0
"""Log-likelihood by which a fault must explain the light better, or worse…"""
_REFUTED_SIGMAS, _PROVEN_SIGMAS = 3.0, 4.0
"""…beyond so many sigmas of mere noise."""
_HEAVY = 4.0
"""Degrees of freedom of Student's distribution: single odd pixels (hot ones, dust) have little to say."""
_MODEL = (0.02, 0.08, 0.3)
"""Variance of the model's errors, in those of the contrast between patterns; which it is, the burst tells."""
_AT_ONCE = 0.2
"""Part of it that the frame right before the marker has; the rest grows with the square of the time between."""
_SIGNAL, _BORDER_PX = 0.05, 0.3
"""Error of the signal, as a part of it; and of where borders of pixels lie, in object pixels."""
_PRIOR = 2.0
"""Contrast of the whole field counts as so many frames of each pixel's own."""
_ASTRAY, _STRAYS, _STRAYS_SHARE, _STRAYS_SURELY, _STRAYS_DARK = 16.0, 4, 0.1, 0.3, 0.015
"""χ² from which a pixel is astray; how many of a slot may be; what part may, as objects may move, and what part cannot;
and what part if its frame looks dark."""
_RISEN, _LEAST_RISEN, _MANY_RISEN = 6.0, 3, 8
"""Sigmas over the darkest frame from which a pixel is lit; how many a frame needs, and has usually."""
_DARKEST, _BACKGROUND = 0.1, 2.5
"""Part of a field that is taken for background; and by how much that may vary over the field."""
_ALIKE, _ALIKE_PART, _WORSE = 5.0, 0.3, 3.0
"""Sigmas by which two frames may differ and still be alike, and part of those of the next two, which must differ by as
many more; and by how many the marker must fit one of them worse than all other frames, so that it is wrong."""
_UNSPOKEN_SIGMAS = 2.0
_BLEACHED, _BRIGHTENED = 0.12, -0.05
"""Light that a burst may lose, and gain, from its first frame to its last."""


@dataclass(frozen=True)
class Verdict:
    """What the light of one burst says."""

    said: Said
    why: str
    """Empty if it is proven."""
    told: float
    """How well the fault that is told worst is told, in units of what is needed: above 1 is proven."""
    astray: float
    """Largest part of a slot's pixels that are not at all what their frame says."""

    def as_json(self) -> dict[str, Any]:
        return {"said": self.said, "why": self.why, "told": round(self.told, 3), "astray": round(self.astray, 3)}


def judge(marker: Marker, frames: Mapping[int, Uint16Array], pixels: Uint16Array) -> Verdict:
    """Judge the frames of a burst, by pattern, against the frame of its marker; some may be missing."""
    if not frames:
        return Verdict("undecided", "no frame came", 0.0, 0.0)
    scene = _Scene.of(marker, frames, pixels)
    if np.bincount(scene.slot, minlength=len(scene.names)).min() == 0:
        return Verdict("undecided", "the marker has no pixels for some of the patterns", 0.0, 0.0)
    evidence = _Evidence.of(scene)
    verdict = _verdict(evidence, scene.names)
    if verdict.said != "undecided":
        return verdict
    patterns, offset = sorted(frames), np.float32(marker.readings.offset_adu)
    light = np.stack([frames[pattern] for pattern in patterns]).astype(np.float32) - offset
    if marker.stack.count == 1:
        why = lone.fault(marker, light[0], pixels.astype(np.float32) - offset)
        return replace(verdict, said="refuted", why=why) if why else verdict
    flat = light.reshape(len(light), -1)
    flat = flat - scene.faded[:, None] * np.maximum(flat - scene.background, 0)
    found = mistakes(marker.stack, patterns, flat, pixels.shape, marker.readings)
    why = "" if found is None else _mistaken(found, evidence, scene.names)
    return replace(verdict, said="doubted", why=why) if why else verdict


# ---------------------------------------------------------------- what is seen


@dataclass(frozen=True, eq=False)
class _Scene:
    """Frames and marker in the pixels that are judged, slot after slot, and what is believed of each pixel."""

    names: list[str]
    frames: int
    """How many of them are frames; what is over is the dark."""
    starts: Codes
    """Where the pixels of each slot begin."""
    slot: Codes
    rows: Array
    """(frame, pixel): light over the offset, bleached as at the time of the marker."""
    seen: Array
    """The marker's, without what blur brings across borders."""
    noise: Array
    contrast: Array
    """Variances of a frame's light: by noise, and from pattern to pattern."""
    signal: Array
    """What is brighter than the background."""
    error: Array
    """Variance of what blur and bleaching do."""
    age: Array
    """How much more or less the model may be wrong, by the time between frame and marker."""
    telling: Array
    """1 in pixels that can tell, else 0."""
    faded: Array
    """Part of the light over the background that each frame has yet to lose until the marker."""
    background: np.float32

    @classmethod
    def of(cls, marker: Marker, frames: Mapping[int, Uint16Array], pixels: Uint16Array) -> _Scene:
        patterns, count, readings = sorted(frames), marker.stack.count, marker.readings
        offset = np.float32(readings.offset_adu)
        full = np.stack([frames[pattern].ravel() for pattern in patterns]).astype(np.float32) - offset
        shown = pixels.ravel().astype(np.float32) - offset
        at, slot, sides, beside = marker.judged, marker.shown, marker.beside, marker.shown_beside
        if len(patterns) < count:
            slot, beside = _renumbered(patterns, count, slot), _renumbered(patterns, count, beside)
            kept = slot >= 0
            at, slot, sides, beside = at[kept], slot[kept], sides[:, kept], beside[:, kept]
        names = [f"pattern {pattern}" for pattern in patterns]
        telling: Array = np.ones(1, dtype=np.float32)
        if count == 1:
            full, lit = _with_dark(full[0], shown, shown[at[slot == 1]], readings)
            telling, names = lit[at], [*names, "the dark"]
        rows = full.take(at, axis=1)  # in this order in memory too: much faster than full[:, at]
        own = rows[slot, np.arange(len(at))]
        mean = rows.mean(axis=0)
        background = np.float32(np.quantile(mean, _DARKEST))
        border, blurred = _borders(marker, full, own, background, (at, slot), (sides, beside))
        seen = shown[at] - border
        signal = np.maximum(mean - background, 0)
        noise = _noise(readings, mean)
        contrast = _contrast(rows, mean, noise) if count > 1 else telling * rows.var(axis=0, ddof=1)
        noise = noise + np.float32(readings.gain_adu_per_e) * np.sqrt(contrast)
        ages = np.zeros(len(full), dtype=np.float32)
        ages[: len(patterns)] = (count - np.array(patterns)) / count
        weight = 1 / (noise + 0.1 * contrast + (_SIGNAL * signal) ** 2)
        bleachable = np.maximum(rows - background, 0)  # the background does not bleach
        lost = np.float32(_lost(seen - own, ages[slot] * bleachable[slot, np.arange(len(at))], weight))
        return cls(
            names,
            len(patterns),
            np.searchsorted(slot, np.arange(len(full))),
            slot,
            rows - lost * ages[:, None] * bleachable,
            seen,
            noise,
            contrast,
            signal,
            blurred + (_SIGNAL * signal) ** 2,
            (_AT_ONCE + 3 * (1 - _AT_ONCE) * ages**2)[slot],
            telling,
            lost * ages,
            background,
        )


def _renumbered(patterns: list[int], count: int, codes: Codes) -> Codes:
    """Slots of the frames that are there; -1 where the frame is missing; what shows nothing still comes after them."""
    places = np.full(count + 1, -1)
    places[[*patterns, count]] = np.arange(len(patterns) + 1)
    return places[codes]


def _with_dark(frame: Array, shown: Array, unlit: Array, readings: Readings) -> tuple[Array, Array]:
    """One pattern alone is told from the dark only: a second frame that shows what the background may be, and where
    there is more than background."""
    dark = float(np.quantile(frame, _DARKEST))
    dark += 1.3 * float(np.sqrt(_noise(readings, np.float32(dark))))
    dark = max(0.0, min(dark, float(np.median(unlit)) if len(unlit) else dark))
    sigma = float(np.sqrt(_noise(readings, np.float32(dark))))
    most = _BACKGROUND * dark + 3 * sigma
    background = np.clip(shown, dark, np.maximum(np.minimum(frame, most), dark))
    lit = np.maximum(frame, shown) > most + 4 * float(np.sqrt(_noise(readings, np.float32(most))))
    return np.stack([frame, background]).astype(np.float32), lit.astype(np.float32)


def _noise(readings: Readings, light: Any) -> Any:
    """Variance of photons and of reading."""
    return np.float32(readings.gain_adu_per_e) * np.maximum(light, 0) + np.float32(readings.read_variance)


def _borders(
    marker: Marker,
    full: Array,
    own: Array,
    background: np.float32,
    here: tuple[Codes, Codes],
    there: tuple[Codes, Codes],
) -> tuple[Array, Array]:
    """What blur brings across the borders to pixels with other patterns, and the variance of that. `here` and `there`
    are places and slots of pixels and of their neighbours, (side, pixel)."""
    (at, slot), (sides, beside) = here, there
    light, pixels, unlit = full.ravel(), full.shape[1], beside >= len(full)
    other = np.where((beside < 0) | unlit, slot, beside)
    mine = own + light[slot * pixels + sides]
    step = (light[other * pixels + at] + light[other * pixels + sides] - mine) / 2
    if unlit.any():
        step = np.where(unlit, background - mine / 2, step)
    spread = marker.exchange / 2 + _BORDER_PX / marker.stack.camera_pixel
    border = np.float32(marker.exchange) * step.sum(axis=0)
    return border, np.float32(spread**2) * np.einsum("sp,sp->p", step, step)


def _contrast(rows: Array, mean: Array, noise: Array) -> Array:
    """Variance from pattern to pattern beyond noise: of each pixel, drawn towards what the field has for its light."""
    own = rows.var(axis=0, ddof=1) - noise if len(rows) > 1 else np.zeros_like(mean)
    square = np.maximum(mean, 0) ** 2
    weight = square / (noise + 0.1 * square) ** 2
    usual = max(0.0, float((own * weight).sum()) / (float((square * weight).sum()) + 1e-9)) * square
    frames = len(rows) - 1
    return np.asarray(np.maximum((_PRIOR * usual + frames * own) / (_PRIOR + frames), 0), dtype=np.float32)


def _lost(missed: Array, aged: Array, weight: Array) -> float:
    """Part of the light that was bleached in the whole burst, so that frames agree best."""
    lost = -float((missed * aged * weight).sum()) / (float((aged**2 * weight).sum()) + 100.0)
    return min(max(lost, _BRIGHTENED), _BLEACHED)


# ---------------------------------------------------------------- what it speaks for


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Log-likelihoods, and what stands out."""

    frames: NDArray[np.float64]
    """(slot, rival): by how much the slot's own frame explains it better than the rival's."""
    others: NDArray[np.float64]
    """The same against the light of no frame: something like them, or anything at all; (slot, which)."""
    blind: NDArray[np.float64]
    """The same against what does not know where the marker shows which: the darkest of the frames everywhere, the
    brightest, or either by chance, if the model errs as little as it can; (slot, which)."""
    noise: NDArray[np.float64]
    """Variance that noise alone gives the evidence of each slot."""
    pixels: Codes
    strays: Codes
    risen: Codes
    """Pixels of a slot; those of them that are astray; and all pixels where a frame is brighter than the darkest."""
    worse: NDArray[np.float64]
    """By how many sigmas the marker differs from the frame of each slot."""
    alike: list[int]
    """Frames that are the same as another, or as the dark, though others are not."""

    @classmethod
    def of(cls, scene: _Scene) -> _Evidence:
        rows, slot, telling = scene.rows, scene.slot, scene.telling
        mean = rows.mean(axis=0)
        # what frames differ by, as far as noise cannot do it
        believed = scene.contrast / (scene.contrast + scene.noise)
        apart = rows - mean
        off = scene.seen - mean
        least = (1 + believed) * scene.noise + scene.error
        missed = off - believed * apart[slot, np.arange(len(slot))]
        spreads = [least + np.float32(model) * scene.age * scene.contrast for model in _MODEL]
        fit = np.stack([telling * _likelihood(missed, spread) for spread in spreads])
        # a wrong frame must not make the model worse than most of them say that it is; of two the worse is believed
        models = np.sort(np.add.reduceat(fit, scene.starts, axis=1).argmax(axis=0))
        variance = spreads[models[len(models) // 2 if len(models) < 3 else (len(models) - 1) // 2]]
        fits = _likelihood(off - believed * apart, variance)
        similar = least + scene.contrast
        anything = similar + scene.signal**2
        unlike = [_likelihood(off, spread) for spread in (similar, anything)]
        table = np.add.reduceat(np.concatenate([fits, unlike]) * telling, scene.starts, axis=1).T.astype(float)
        table = np.diagonal(table)[:, None] - table
        astray = missed**2 * telling > _ASTRAY * variance
        count, pixels = len(rows), np.bincount(slot, minlength=len(rows))
        # light that knows nothing of the slots, if the model errs as little as it can
        ends = _likelihood(off - believed * (np.stack([_dusk(rows), rows.max(axis=0)]) - mean), spreads[0])
        chance = np.logaddexp(ends[0], ends[1]) - np.float32(np.log(2))
        blind = np.add.reduceat(fit[0] - telling * np.stack([*ends, chance]), scene.starts, axis=1).T
        plainly = off - apart[slot, np.arange(len(slot))]
        odd = telling * (np.minimum(plainly**2 / (spreads[0] + (1 - believed) * scene.noise), _ASTRAY) - 1)
        return cls(
            table[:, :count],
            table[:, count:],
            blind.astype(float),
            np.add.reduceat(3 * telling * believed**2 * scene.noise / variance, scene.starts).astype(float),
            pixels,
            np.bincount(slot[astray], minlength=count),
            (rows[: scene.frames] - rows.min(axis=0) > _RISEN * np.sqrt(scene.noise)).sum(axis=1),
            np.add.reduceat(odd, scene.starts) / np.sqrt(2.0 * pixels),
            _alike(rows, scene.noise) if scene.frames > 2 else [],
        )


def _dusk(rows: Array) -> Array:
    """What the darkest quarter of the frames is at each pixel."""
    quarter = len(rows) // 4
    return np.asarray(np.partition(rows, quarter, axis=0)[quarter])


def _alike(rows: Array, noise: Array) -> list[int]:
    """The two frames that differ least, and the one that is nearest to the dark, where it can be but noise."""
    count, pixels = rows.shape
    apart = (np.concatenate([rows, _dusk(rows)[None]]) - rows.mean(axis=0)) / np.sqrt(2 * noise)
    products = (apart @ apart.T).astype(float)
    own = np.diagonal(products)
    sigmas = (own[:, None] + own - 2 * products - pixels) / np.sqrt(2.0 * pixels)
    found: list[int] = []
    for pairs in (np.triu_indices(count, 1), (np.arange(count), np.full(count, count))):
        least, following = np.argpartition(sigmas[pairs], 1)[:2]
        near, far = sigmas[pairs][[least, following]]
        if near < min(_ALIKE + _ALIKE_PART * far, far - _ALIKE):
            found += [int(frames[least]) for frames in pairs if frames[least] < count]
    return found


def _likelihood(missed: Array, variance: Array) -> Array:
    """Its logarithm, but for what all have in common."""
    heavy = np.log1p(missed**2 / (_HEAVY * variance))
    return np.asarray(-(_HEAVY + 1) / 2 * heavy - np.log(variance) / 2, dtype=np.float32)


# ---------------------------------------------------------------- what is said


def _verdict(evidence: _Evidence, names: list[str]) -> Verdict:
    astray = float((evidence.strays / np.maximum(evidence.pixels, 1)).max())
    better, what = min(_refuting(evidence, names), key=lambda fault: fault[0])
    if better < -REFUTED:
        return Verdict("refuted", what, better / PROVEN, astray)
    strays, wrong = _straying(evidence, _STRAYS_SHARE)
    if strays < -REFUTED:
        return Verdict("doubted", f"much light of {names[wrong]} is astray", strays / PROVEN, astray)
    told, which = min(_proving(evidence, names), key=lambda fault: fault[0])
    if told > PROVEN:
        return Verdict("proven", "", told / PROVEN, astray)
    return Verdict("undecided", f"the light cannot tell {which}", told / PROVEN, astray)


def _refuting(evidence: _Evidence, names: list[str]) -> list[tuple[float, str]]:
    """Each fault by how much worse it explains the light than the order that was asked for, noise in its favour."""
    frames, noise, count = evidence.frames, evidence.noise, len(names)
    each, doubt = np.arange(count), _REFUTED_SIGMAS * np.sqrt(noise.sum())
    shifts = [frames[each, (each + by) % count].sum() + doubt for by in range(1, count)]
    plain = frames.sum(axis=0) + doubt
    others = evidence.others.min(axis=1)
    blind = evidence.blind.sum(axis=0).min() + doubt
    if len(evidence.risen) == 1:  # alone, it is told from the dark by single slots too
        blind = min(blind - doubt, evidence.blind[:, 2].min())
    strays, wrong = _straying(evidence, _STRAYS_SURELY if count > 1 else _STRAYS_SHARE)
    unlike = int(np.argmin(others))
    faults = [
        (min(shifts, default=0.0), "the light of the frames is that of shifted patterns"),
        (plain.min(), f"the light of the marker is that of {names[int(np.argmin(plain))]}"),
        (blind, "the light of the marker does not lie where it shows some"),
        (others[unlike], f"the light of {names[unlike]} is not what the marker shows"),
        (strays, f"the light of {names[wrong]} is not what the marker shows"),
        (evidence.others.sum(axis=0).min(), "the light of the frames is not what the marker shows"),
    ]
    if count > 1:
        swapped, (one, other) = _swapped(evidence, _REFUTED_SIGMAS)
        faults.append((swapped, f"the light of {names[one]} is that of {names[other]}"))
    if evidence.alike:
        usual = np.delete(evidence.worse, evidence.alike).max(initial=0.0)
        worse = usual - evidence.worse[evidence.alike].max()
        what = f"{names[evidence.alike[0]]} has the light of another, or none, and not what the marker shows"
        faults.append((REFUTED / _WORSE * worse, what))
    return [(float(worse), what) for worse, what in faults]


def _straying(evidence: _Evidence, share: float) -> tuple[float, int]:
    """The slot with most pixels that are astray, and by how much there are more than that part."""
    allowed = np.where(_looks_dark(evidence), _STRAYS_DARK, share) * np.maximum(evidence.pixels, 1)
    strays = -REFUTED * (evidence.strays - _STRAYS) / allowed
    return float(strays.min()), int(strays.argmin())


def _proving(evidence: _Evidence, names: list[str]) -> list[tuple[float, str]]:
    """The faults that every other is made of, by how much worse they explain the light, noise in their favour."""
    others = evidence.others.min(axis=1)
    worst = int(np.argmin(others))
    told = [(float(others[worst]), f"{names[worst]} from other light")]
    if len(names) > 1:
        swapped, (one, other) = _swapped(evidence, -_PROVEN_SIGMAS)
        told.append((swapped, f"{names[one]} from {names[other]}"))
        darkest = int(np.argmin(evidence.risen))
        told.append((PROVEN * float(evidence.risen[darkest]) / _LEAST_RISEN, f"{names[darkest]} from the dark"))
    return told


def _swapped(evidence: _Evidence, sigmas: float) -> tuple[float, tuple[int, int]]:
    """How much worse the two patterns that are told worst explain the light if they are swapped."""
    both, noise = evidence.frames + evidence.frames.T, evidence.noise
    both = both + sigmas * np.sqrt(noise[:, None] + noise)
    np.fill_diagonal(both, np.inf)
    one, other = np.unravel_index(int(np.argmin(both)), both.shape)
    return float(both[one, other]), (int(one), int(other))


def _mistaken(found: Mistakes, evidence: _Evidence, names: list[str]) -> str:
    """What is more likely than the order that was asked for, by all that is known. Where the frames do not speak for a
    swap by themselves, the marker must be sure of it."""
    noise = evidence.noise
    sigmas = np.where(found.spoken_for, 0.0, _UNSPOKEN_SIGMAS) * np.sqrt(noise[:, None] + noise)
    swapped = found.swapped - evidence.frames - evidence.frames.T - sigmas
    np.fill_diagonal(swapped, -np.inf)
    faults = [(found.other - evidence.others.sum(axis=0).min(), "the light of the frames is that of other patterns")]
    for better, what in ((swapped, "is that of"), (found.repeated, "is once more that of")):
        one, other = np.unravel_index(int(better.argmax()), better.shape)
        faults.append((better[one, other], f"the light of {names[one]} {what} {names[other]}"))
    frame, better = found.dark
    faults.append((better, f"the light of {names[frame]} is that of no pattern"))
    most, what = max(faults, key=lambda fault: fault[0])
    return what if most > REFUTED else ""


def _looks_dark(evidence: _Evidence) -> NDArray[np.bool_]:
    """Frames that are nowhere brighter than the darkest, though most are."""
    return (evidence.risen < _LEAST_RISEN) & (np.median(evidence.risen) >= _MANY_RISEN)
