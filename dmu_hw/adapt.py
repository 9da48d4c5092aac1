"""A bundle fitted to an instrument as it was measured: patterns stay, the inverse learns what is otherwise.

It begins with the bundle's own weights, or with its linear part computed anew for the optics that are believed now if
that is better, and goes on learning from specimens as this instrument would see them, and from bursts with references
that it has taken. What is best on held-back fields is kept, so that it cannot end behind where it began.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from dmu_hw import lmmse
from dmu_hw.beginning import statistics_for
from dmu_hw.bundle import Bundle, Weights
from dmu_hw.data import BoolArray, Float32Array
from dmu_hw.files import Settings
from dmu_hw.images import Images
from dmu_hw.judging import scores
from dmu_hw.lesson import BundleStart, Learned, Lesson, SegmentTask
from dmu_hw.pairs import TakenPairs
from dmu_hw.physics.optics import Optics
from dmu_hw.reconstruct import Parts
from dmu_hw.train import Known, Learner, Line, learn

_ON_PAIRS = "pairs_mse"
"""Squared error against references that were taken on the instrument and held back."""
_SLACK = 1.02
_PATIENT = 4
"""Validations without a better one after which nothing more is to be gained."""


@dataclass(frozen=True, eq=False)
class Instrument:
    """What is believed of the instrument, and what it has taken."""

    optics: Optics
    delivered: Float32Array | None = None
    """The light that the patterns were measured to send, (pattern, y, x) over one tile; None: computed."""
    pairs: TakenPairs | None = None

    @property
    def pairs_count(self) -> int:
        return 0 if self.pairs is None else self.pairs.count


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    updates: int = 200
    learning_rate: float = 2e-4
    refine: bool = False
    """Whether the patterns learn too."""
    patterns_rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of it; scores are means over held-back fields, seen by the instrument as it is believed to be."""

    before: dict[str, float]
    after: dict[str, float]
    weights: Weights
    masks: BoolArray
    learned: bool
    """False: the bundle's own weights are as good as any that were tried, and stay."""


class Adapter:
    """One bundle and one instrument."""

    def __init__(
        self,
        path: Path,
        lesson: Lesson,
        network: Settings,
        images: Images,
        instrument: Instrument,
        effort: Effort,
        device: torch.device | str = "cpu",
    ) -> None:
        """`path` is the bundle, `lesson` what it was trained by, with images of the same kind."""
        self.bundle = Bundle.load(path)
        self.parts = Parts.of(self.bundle.weights)
        self.images, self.network, self.device = images, network, device
        self.instrument = instrument
        self.lesson = fine_tuning(lesson, self.bundle, path, effort)

    def before(self) -> dict[str, float]:
        """Scores of the bundle as it is."""
        learner, pairs = self._learner(pairs=None), self.instrument.pairs
        found = scores(learner, "test")
        return found if pairs is None else found | {_ON_PAIRS: pairs.uncorrected_error(learner.model)}

    def learner(self) -> Learner:
        """Ready to learn: with the bundle's weights, or with the linear part of them that of the instrument."""
        plain = self._learner(self.instrument.pairs)
        if not hasattr(plain.model, "tune"):
            return plain
        tuned = self._learner(self.instrument.pairs)
        design = tuned.exposure.design(tuned.shown().cpu().double(), tuned.reach)
        cast("Any", tuned.model).tune(lmmse.compute(design, statistics_for(design, self.images)))
        return min(plain, tuned, key=lambda learner: learner.error("val"))

    def steps(self, learner: Learner) -> Iterator[Line]:
        """Learn to the end; a line at each validation."""
        return learn(learner)

    def adapted(self, learner: Learner, before: dict[str, float]) -> Adapted:
        """What the learner holds in the end, or what the bundle held if that is as good."""
        model, pairs = cast("Any", learner.model), self.instrument.pairs
        after = scores(learner, "test")
        if pairs is not None:
            after |= {_ON_PAIRS: pairs.error(learner.model)}
        segmenter = learner.segmenter.weights() if learner.segmenter is not None else {}
        correction = {} if pairs is None else pairs.correction()
        weights = Parts(model.weights(), segmenter, correction).together()
        if not better(before, after):
            return Adapted(before, before, self.bundle.weights, self.bundle.patterns.masks, learned=False)
        return Adapted(before, after, weights, learner.patterns.masks(), learned=True)

    def _learner(self, pairs: TakenPairs | None) -> Learner:
        delivered = self.instrument.delivered
        known = Known(
            self.parts.inverse,
            self.parts.segmenter or None,
            None if delivered is None else torch.from_numpy(delivered),
            pairs,
        )
        return Learner(self.lesson, self.network, self.instrument.optics, self.images, self.device, known=known)


def fine_tuning(lesson: Lesson, bundle: Bundle, path: Path, effort: Effort) -> Lesson:
    """The lesson that a bundle was trained by, gone on with: its light, its patterns, small steps."""
    header, old = bundle.header, lesson.patterns
    patterns = Learned(
        count=bundle.patterns.count,
        camera_pixel=header.camera_pixel,
        tile=header.tile_px[0] // header.camera_pixel,
        superpixel=old.superpixel if effort.refine else 1,
        start=BundleStart(bundle=path),
        noise=0.0,
        frozen=not effort.refine,
        cap=old.cap if effort.refine else Learned.model_fields["cap"].default,
    )
    schedule = lesson.schedule.model_copy(
        update={
            "updates": effort.updates,
            "learning_rate": effort.learning_rate,
            "patterns_rate": effort.patterns_rate,
            "warmup": min(20, effort.updates),
            "validate_every": max(1, effort.updates // 8),
            "patience": _PATIENT,
            "seed": effort.seed,
        }
    )
    task = lesson.task
    if isinstance(task, SegmentTask):
        task = task.model_copy(update={"stages": (0.0, 0.0, 1.0), "learning_rate": effort.learning_rate})
    light: dict[str, Any] = dict.fromkeys(("total_exposure_ms", "dose_ms", "peak_ms"))
    light |= {"exposure_ms": header.exposure_ms, "power_mw": header.power_mw}
    return lesson.model_copy(update={"patterns": patterns, "schedule": schedule, "task": task, **light})


def better(before: dict[str, float], after: dict[str, float]) -> bool:
    """Whether an adaptation is worth having. What an instrument has taken counts more than what was simulated, which
    must not get worse by it."""
    if _ON_PAIRS in before and not after[_ON_PAIRS] < before[_ON_PAIRS]:
        return False
    if "mse" in before:
        return after["mse"] < before["mse"] * (_SLACK if _ON_PAIRS in before else 1.0)
    return after["ap50"] >= before["ap50"] and after["dice"] > before["dice"]
