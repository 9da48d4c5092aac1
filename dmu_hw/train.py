"""Patterns and inverse together: draw specimens, image them with the believed microscope, reconstruct, descend."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from dmu_hw import lmmse, plugin
from dmu_hw.beginning import first_patterns, statistics_for
from dmu_hw.bundle import Weights
from dmu_hw.data import Layout
from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.exposure import Exposure, Seen
from dmu_hw.files import Settings, content_hash
from dmu_hw.images import Crops, Images, Split
from dmu_hw.lesson import ImageTask, Lesson, Stage
from dmu_hw.lmmse import Design, Statistics
from dmu_hw.losses import image_loss, segment_loss
from dmu_hw.physics.optics import Optics
from dmu_hw.ranks import Team
from dmu_hw.segmenter.model import Segmenter
from dmu_hw.segments import targets

_AT_ONCE = 8


class Trainable(Protocol):
    """The promise of a model that can be trained: a torch module that starts from the linear estimate. What it gives
    may be negative: those who show an image cut it off at no light.

    Where it has `see`, it is given what each camera pixel collects under the patterns of an update, before that update;
    where it has `tune`, the best linear estimate for them. Both carry gradients in the patterns."""

    @classmethod
    def start(cls, settings: Any, design: Design, statistics: Statistics, seed: int) -> Weights: ...

    def weights(self) -> Weights: ...


class Pairs(Protocol):
    """Bursts and full-resolution references of the same fields, taken on an instrument: they count beside what is
    simulated."""

    def loss(self, model: nn.Module, generator: torch.Generator) -> Tensor:
        """Of some of them."""

    def error(self, model: nn.Module) -> float:
        """Of those that nothing learns from."""


@dataclass(frozen=True, eq=False)
class Known:
    """What a training may begin with: weights of a bundle, the light that its patterns were measured to send, and what
    was taken on the instrument."""

    weights: Weights | None = None
    segmenter: Weights | None = None
    delivered: Tensor | None = None
    pairs: Pairs | None = None


@dataclass
class Progress:
    """Where a training stands."""

    update: int = 0
    best_update: int = 0
    best_error: float = math.inf
    """On `val`, of the stage that it is in: squared error of the image, later the loss of the segmentation."""
    stale: int = 0
    """Validations since the best one."""
    stage: int = 0


class Learner:
    """Everything that learns, and everything that a checkpoint must hold."""

    def __init__(
        self,
        lesson: Lesson,
        network: Settings,
        optics: Optics,
        images: Images,
        device: torch.device | str = "cpu",
        team: Team | None = None,
        known: Known | None = None,
    ) -> None:
        """`known` is what it begins with instead of nothing."""
        self.lesson, self.network, self.images = lesson, network, images
        self.device, self.team = torch.device(device), team or Team()
        self.known = known or Known()
        self.exposure = Exposure(lesson, optics, self.known.delivered)
        self.generator = torch.Generator().manual_seed(lesson.schedule.seed)
        self.patterns = first_patterns(lesson.patterns, self.exposure, images, self.generator).to(self.device)
        self.model = self._first_model()
        self.segmenter = self._first_segmenter()
        self.optimiser = torch.optim.Adam(self._groups())
        self.progress = Progress()
        self.best: dict[str, Any] = {}
        self.image_loss = image_loss({str(name): weight for name, weight in lesson.losses.items()})
        if lesson.schedule.batch % self.team.size:
            what = f"must be a multiple of the {self.team.size} processes, given {lesson.schedule.batch}"
            raise InputError([Problem("schedule.batch", what)])
        for part in self._modules().values():
            self.team.align(part.state_dict().values())

    def _first_model(self) -> nn.Module:
        name, lesson = self.lesson.network.model, self.lesson
        found = plugin.load_class("dmu_hw.models", name, "Model", where="network.model", folder=Path())
        if not (issubclass(found, nn.Module) and hasattr(found, "start")):
            raise InputError([Problem("network.model", f"{name!r} is computed, not trained")])
        design = self.exposure.design(self.shown().cpu().double(), self.reach)
        self.statistics = statistics_for(design, self.images)
        weights = self.known.weights
        if weights is None:
            weights = cast("type[Trainable]", found).start(self.network, design, self.statistics, lesson.schedule.seed)
        model = cast("nn.Module", cast("Any", found)(weights, self.layout, self.device))
        wanted = lesson.schedule.compiled
        if wanted or (wanted is None and self.device.type == "cuda"):
            model.compile()
        return model

    def _first_segmenter(self) -> Segmenter | None:
        task = self.lesson.task
        if isinstance(task, ImageTask):
            return None
        if self.known.segmenter is not None:
            return Segmenter.of(self.known.segmenter).to(self.device)
        return Segmenter.start(task.network, self.lesson.schedule.seed).to(self.device)

    def _groups(self) -> list[dict[str, Any]]:
        schedule, task = self.lesson.schedule, self.lesson.task
        groups = [
            {"params": list(self.model.parameters()), "peak": schedule.learning_rate, "part": "model"},
            {"params": list(self.patterns.parameters()), "peak": schedule.patterns_rate, "part": "patterns"},
        ]
        if self.segmenter is not None and task.kind == "segment":
            parameters = list(self.segmenter.parameters())
            groups.append({"params": parameters, "peak": task.learning_rate, "part": "segmenter"})
        return groups

    @property
    def layout(self) -> Layout:
        return self.exposure.layout

    @property
    def stage(self) -> Stage:
        """The one that it is in."""
        return self.lesson.stages[self.progress.stage]

    def advance(self) -> None:
        """On to the next stage, in which other things count; what patience left of this one is left out."""
        self.progress.update = self.stage.last
        self.progress.stage += 1
        self.progress.best_error, self.progress.stale = math.inf, 0

    @property
    def exhausted(self) -> bool:
        """Whether nothing has got better for as long as the schedule is patient."""
        patience = self.lesson.schedule.patience
        return patience is not None and self.progress.stale >= patience

    @property
    def reach(self) -> int:
        """Neighbours that the linear estimate of the model looks at."""
        return int(getattr(self.network, "reach", 1))

    @torch.no_grad()
    def shown(self) -> Tensor:
        """The patterns of one tile as they are judged: as the mirrors show them, or what no mirror could show."""
        if self.lesson.patterns.binary:
            return torch.from_numpy(self.patterns.masks()).to(self.device, torch.float32)
        grey: Tensor = self.patterns(self.lesson.patterns.slope[1] if self.patterns.binarisation == "soft" else 1.0)
        return grey

    # ---------------------------------------------------------------- one update

    def step(self) -> float:
        """One batch; returns its loss."""
        stage, schedule = self.stage, self.lesson.schedule
        rate = _rate(self.progress.update - stage.first, schedule.warmup, stage.last - stage.first)
        for group in self.optimiser.param_groups:
            learns = stage.name == "joint" or (group["part"] == "segmenter") == (stage.name == "head")
            group["lr"] = group["peak"] * rate if learns else 0.0
        crops = self.images.crops("train", schedule.batch, schedule.crop_px, self.generator)
        noise = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=self.generator)) + self.team.rank)
        self.model.train(stage.name != "head")
        loss = self._loss(stage, self._share(crops), noise)
        if self.known.pairs is not None:
            loss = loss + self.known.pairs.loss(self.model, self.generator)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.team.average(parameter for group in self.optimiser.param_groups for parameter in group["params"])
        self.optimiser.step()
        self.progress.update += 1
        told = float(loss.detach())
        if not math.isfinite(told):
            raise RunError(f"training ran away at update {self.progress.update}: a smaller learning_rate may help")
        return told

    def _share(self, crops: Crops) -> Crops:
        labels = None if crops.labels is None else self.team.part(crops.labels)
        return Crops(self.team.part(crops.images).to(self.device), labels)

    def _loss(self, stage: Stage, crops: Crops, noise: torch.Generator) -> Tensor:
        with torch.set_grad_enabled(stage.name != "head"), self._precision():
            patterns = self.patterns(self._slope())
            seen = self.exposure.varied(crops.images, patterns, self.lesson.variation, noise)
            self._tune(patterns)
            estimate = self.estimate(seen)
        if stage.name == "image":
            return self.image_loss(self.inner(estimate.float()), self.inner(crops.images))
        with self._precision():
            maps = self.maps(estimate)
        return segment_loss(self.inner(maps.float()), self.inner(_targets(crops)).to(self.device))

    def inner(self, field: Tensor) -> Tensor:
        """What is judged of a field."""
        margin = self.lesson.schedule.margin_px
        return field[..., margin : field.shape[-2] - margin, margin : field.shape[-1] - margin]

    def _precision(self) -> AbstractContextManager[Any]:
        wanted = self.lesson.schedule.precision
        mixed = wanted == "mixed" or (wanted == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext()

    def _slope(self) -> float:
        low, high = self.lesson.patterns.slope
        if self.patterns.binarisation == "signed":
            return 1.0
        return low + (high - low) * self.progress.update / self.lesson.schedule.updates

    def _tune(self, patterns: Tensor) -> None:
        """Keep the linear part of a model up with patterns that learn."""
        if hasattr(self.model, "tune") and not self.lesson.patterns.frozen:
            design = self.exposure.design(patterns.cpu().double(), self.reach)
            cast("Any", self.model).tune(lmmse.compute(design, self.statistics))

    def estimate(self, seen: Seen) -> Tensor:
        """(batch, y, x) on the object grid."""
        if hasattr(self.model, "see") and seen.kernels is not None:
            cast("Any", self.model).see(seen.kernels)
        image: Tensor = self.model(seen.signal)
        return image

    def maps(self, estimate: Tensor) -> Tensor:
        """Logits of the segmentation, (batch, map, y, x)."""
        assert self.segmenter is not None  # noqa: S101 - only asked of those who segment
        maps: Tensor = self.segmenter(estimate)
        return maps

    # ---------------------------------------------------------------- judging

    @torch.no_grad()
    def frames(self, split: Split) -> Iterator[tuple[Crops, Seen]]:
        """The middles of all images of a split and what the inverse is given of them, a few at a time: exact noise,
        always the same, and patterns as they are judged."""
        generator = torch.Generator().manual_seed(self.lesson.schedule.seed + 1)
        tile, middles = self.shown(), self.images.middles(split, self.lesson.schedule.crop_px)
        for first in range(0, len(middles.images), _AT_ONCE):
            crops = middles.part(first, first + _AT_ONCE)
            yield crops, self.exposure.drawn(crops.images.to(self.device), tile, generator)

    @torch.no_grad()
    def judged(self, split: Split) -> Iterator[tuple[Crops, Tensor]]:
        """The same with their estimates."""
        self.model.eval()
        self._tune(self.shown())
        for crops, seen in self.frames(split):
            estimate = self.estimate(seen)
            yield crops, estimate if self.segmenter is not None else estimate.clamp(min=0)

    @torch.no_grad()
    def error(self, split: Split) -> float:
        """What the present stage makes small."""
        errors: list[float] = []
        for crops, estimate in self.judged(split):
            if self.stage.name == "image":
                pairs = zip(self.inner(estimate.cpu().float()), self.inner(crops.images), strict=True)
                errors.extend(float(self.image_loss(mine[None], truth[None])) for mine, truth in pairs)
            else:
                maps = self.inner(self.maps(estimate).float().cpu())
                errors.extend([float(segment_loss(maps, self.inner(_targets(crops))))] * len(estimate))
        error = float(np.mean(errors))
        return error if self.known.pairs is None else error + self.known.pairs.error(self.model)

    def validate(self) -> float:
        """Judge on `val`, keep the best; returns the error."""
        error, progress = self.team.agree(self.error("val")), self.progress
        if error < progress.best_error:
            progress.best_error, progress.best_update, progress.stale = error, progress.update, 0
            self.best = copy.deepcopy(self._parts())
        else:
            progress.stale += 1
        return error

    def take_best(self) -> None:
        """Go back to the best that was seen."""
        for name, part in self._modules().items():
            part.load_state_dict(self.best[name])

    # ---------------------------------------------------------------- in and out

    def _modules(self) -> dict[str, nn.Module]:
        found = {"model": self.model, "patterns": self.patterns}
        return found if self.segmenter is None else found | {"segmenter": self.segmenter}

    def _parts(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._modules().items()}

    def state(self) -> dict[str, Any]:
        """All that must survive a kill for the rest to go on bit for bit."""
        return self._parts() | {
            "course": self._course(),
            "images": self.images.hash,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "progress": asdict(self.progress),
            "best": self.best,
        }

    def _course(self) -> str:
        """Hash of what is learned how; a rig's file may have changed, though the protocol has not."""
        parts = {"lesson": self.lesson, "network": self.network, "optics": self.exposure.optics}
        return content_hash({name: part.model_dump(mode="json") for name, part in parts.items()})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        if state.get("course") != self._course() or state.get("images") != self.images.hash:
            raise InputError("the checkpoint belongs to another protocol, other optics or other images")
        for name, part in self._modules().items():
            part.load_state_dict(state[name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.progress = Progress(**state["progress"])
        self.best = state["best"]


@dataclass(frozen=True)
class Line:
    """One line of the log."""

    update: int
    stage: str
    val_error: float
    loss: float | None
    """Mean over the updates since the last line."""
    per_update_s: float | None
    """With its share of this validation."""


def learn(learner: Learner) -> Iterator[Line]:
    """Train to the end of the schedule; yields a line at each validation. What was best in a stage is what the next one
    begins with, and what the learner holds in the end."""
    progress = learner.progress
    watch = _Watch(learner)
    while True:
        stage = learner.stage
        if math.isinf(progress.best_error):
            # what training cannot better, it must not end behind
            yield watch.line()
        while progress.update < stage.last and not learner.exhausted:
            watch.losses.append(learner.step())
            if progress.update % learner.lesson.schedule.validate_every == 0 or progress.update == stage.last:
                yield watch.line()
        learner.take_best()
        if stage == learner.lesson.stages[-1]:
            return
        learner.advance()


class _Watch:
    """Losses and seconds since the last line."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.losses: list[float] = []
        self.since = time.perf_counter()

    def line(self) -> Line:
        """Validate, and start anew."""
        error, update, stage = self.learner.validate(), self.learner.progress.update, self.learner.stage.name
        now, count = time.perf_counter(), len(self.losses)
        loss, per_update_s = (float(np.mean(self.losses)), (now - self.since) / count) if count else (None, None)
        self.losses, self.since = [], now
        return Line(update, stage, error, loss, per_update_s)


def _targets(crops: Crops) -> Tensor:
    if crops.labels is None:
        raise InputError("segmentation needs labels with its images")
    return torch.from_numpy(targets(crops.labels.numpy()))


def _rate(update: int, warmup: int, updates: int) -> float:
    """Part of the peak rate: a rise, then half a cosine."""
    rise = min(1.0, (update + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * update / updates))
