"""Patterns and inverse together: draw specimens, image them with the believed microscope, reconstruct, descend."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from dmu_hw import plugin
from dmu_hw.bundle import Bundle, Header, Weights
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Settings, content_hash
from dmu_hw.images import Images, Split
from dmu_hw.lesson import Lesson
from dmu_hw.lmmse import Design, Statistics
from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.mirrors import LearnedPatterns
from dmu_hw.physics.optics import FlatProfile, Optics
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.physics.sensor import SensorModel

_START_LOGIT = 0.3
_STATISTICS_SCENES = 64
_JUDGED_AT_ONCE = 8
Losses = {"mse": nn.functional.mse_loss, "l1": nn.functional.l1_loss}


class Trainable(Protocol):
    """The promise of a model that can be trained: a torch module that starts from the linear estimate."""

    @classmethod
    def start(cls, settings: Any, design: Design, statistics: Statistics, seed: int) -> Weights: ...

    def weights(self) -> Weights: ...


@dataclass
class Progress:
    """Where a training stands."""

    update: int = 0
    best_update: int = 0
    best_mse: float = math.inf
    stale: int = 0
    """Validations since the best one."""


class Learner:
    """Everything that learns, and everything that a checkpoint must hold."""

    def __init__(self, lesson: Lesson, network: Settings, optics: Optics, images: Images, device: str = "cpu") -> None:
        self.lesson = lesson
        self.network = network
        self.images = images
        self.device = device
        # the uneven light is divided out before the inverse sees anything
        self.optics = optics.model_copy(update={"profile": FlatProfile()})
        side = lesson.schedule.crop_px
        self.forward = Forward(self.optics, (side, side), lesson.patterns.camera_pixel, device=device)
        self.sensor = SensorModel.at(optics.sensor, lesson.patterns.camera_pixel // optics.sensor_ratio)
        self.generator = torch.Generator().manual_seed(lesson.schedule.seed)
        self.patterns = self._first_patterns().to(device)
        self.model = self._first_model()
        self.optimiser = torch.optim.Adam(
            [
                {"params": list(self.model.parameters()), "peak": lesson.schedule.learning_rate},
                {"params": list(self.patterns.parameters()), "peak": lesson.schedule.patterns_rate},
            ]
        )
        self.progress = Progress()
        self.best: dict[str, Any] = {}

    def _first_patterns(self) -> LearnedPatterns:
        learned = self.lesson.patterns
        side = learned.camera_pixel * learned.tile
        shape = (learned.count, side // learned.superpixel, side // learned.superpixel)
        logits = torch.randn(shape, generator=self.generator)
        if learned.start != "noise":
            fixed = PatternSet(set=learned.start, count=learned.count, camera_pixel=learned.camera_pixel).make()
            masks = fixed.over((side, side))[:, :: learned.superpixel, :: learned.superpixel]
            logits = _START_LOGIT * (2 * torch.from_numpy(masks).float() - 1) + learned.noise * logits
        patterns = LearnedPatterns(
            learned.count,
            (side, side),
            superpixel=learned.superpixel,
            parametrisation=learned.parametrisation,
            binarisation=learned.binarisation,
            start=logits,
        )
        return patterns.requires_grad_(not learned.frozen)

    def _first_model(self) -> nn.Module:
        lesson = self.lesson
        found = plugin.load_class("dmu_hw.models", lesson.network.model, "Model", where="network.model", folder=Path())
        if not (issubclass(found, nn.Module) and hasattr(found, "start")):
            raise InputError([Problem("network.model", f"{lesson.network.model!r} is computed, not trained")])
        stack = self.stack()
        reach = getattr(self.network, "reach", 1)
        design = Design.of(stack, self.optics, lesson.power_mw, lesson.exposure_ms, reach)
        statistics = Statistics.of(self.images.squares(design.torus_px(), _STATISTICS_SCENES))
        weights = cast("type[Trainable]", found).start(self.network, design, statistics, lesson.schedule.seed)
        return cast("nn.Module", cast("Any", found)(weights, stack.layout, self.device))

    def stack(self) -> PatternStack:
        """The patterns as they would go onto the mirrors now."""
        return PatternStack(self.lesson.name, self.patterns.masks(), self.lesson.patterns.camera_pixel)

    # ---------------------------------------------------------------- one update

    def step(self) -> float:
        """One batch; returns its loss."""
        lesson, schedule = self.lesson, self.lesson.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * _rate(self.progress.update, schedule.warmup, schedule.updates)
        specimen = self.images.crops("train", schedule.batch, schedule.crop_px, self.generator).images.to(self.device)
        self.model.train()
        estimate = self.model(self._signal(specimen, self.patterns(self._slope()), vary=True))
        loss: Tensor = Losses[lesson.loss](estimate, specimen)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.progress.update += 1
        return float(loss.detach())

    def _slope(self) -> float:
        low, high = self.lesson.patterns.slope
        return low + (high - low) * self.progress.update / self.lesson.schedule.updates

    def _signal(self, specimen: Tensor, tile: Tensor, *, vary: bool) -> Tensor:
        """What the inverse is given for a specimen: noise with gradients, and whatever varies."""
        lesson, variation = self.lesson, self.lesson.variation
        power_mw, exposure_ms = lesson.power_mw, lesson.exposure_ms
        light, offset_adu = 1.0, 0.0
        if vary:
            draws = torch.randn(4, generator=self.generator).tolist()
            light = math.exp(variation.photons * draws[0])
            offset_adu = variation.offset_adu * draws[1]
            if variation.shift_px:
                tile = shifted(tile, variation.shift_px * draws[2], variation.shift_px * draws[3])
        signal = Aligned(self.forward, tile, power_mw).image(specimen)
        photons = self.forward.photons(signal, power_mw * light, exposure_ms)
        noise = self.sensor.surrogate(photons.cpu(), self.generator).to(self.device) if vary else self._drawn(photons)
        dark, one = (float(self.forward.photons(torch.tensor(value), power_mw, exposure_ms)) for value in (0.0, 1.0))
        return (self.sensor.to_photons(noise + offset_adu) - dark) / (one - dark)

    def _drawn(self, photons: Tensor) -> Tensor:
        """Exact Poisson noise, the same in every validation."""
        generator = torch.Generator().manual_seed(self.lesson.schedule.seed + 1)
        return self.sensor.draw(photons.cpu(), generator).to(photons)

    # ---------------------------------------------------------------- judging

    @torch.no_grad()
    def mse(self, split: Split) -> float:
        """Mean squared error on the middle of every image: exact noise, patterns as the mirrors show them."""
        self.model.eval()
        tile = torch.from_numpy(self.patterns.masks()).to(self.device, torch.float32)
        images = self.images.middles(split, self.lesson.schedule.crop_px).images.to(self.device)
        errors = []
        for first in range(0, len(images), _JUDGED_AT_ONCE):
            part = images[first : first + _JUDGED_AT_ONCE]
            estimate = self.model(self._signal(part, tile, vary=False))
            errors.extend((estimate - part).square().mean(dim=(1, 2)).tolist())
        return float(np.mean(errors))

    def validate(self) -> float:
        """Judge on `val`, keep the best; returns the error."""
        error, progress = self.mse("val"), self.progress
        if error < progress.best_mse:
            progress.best_mse, progress.best_update, progress.stale = error, progress.update, 0
            self.best = copy.deepcopy({"model": self.model.state_dict(), "patterns": self.patterns.state_dict()})
        else:
            progress.stale += 1
        return error

    # ---------------------------------------------------------------- in and out

    def state(self) -> dict[str, Any]:
        """All that must survive a kill for the rest to go on bit for bit."""
        return {
            "lesson": content_hash(self.lesson),
            "images": self.images.hash,
            "model": self.model.state_dict(),
            "patterns": self.patterns.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "progress": asdict(self.progress),
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        if state["lesson"] != content_hash(self.lesson) or state["images"] != self.images.hash:
            raise InputError("the checkpoint belongs to another protocol or other images")
        self.model.load_state_dict(state["model"])
        self.patterns.load_state_dict(state["patterns"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.progress = Progress(**state["progress"])
        self.best = state["best"]

    def bundle(self) -> Bundle:
        """The best so far, with its errors on the test split."""
        self.model.load_state_dict(self.best["model"])
        self.patterns.load_state_dict(self.best["patterns"])
        lesson, stack = self.lesson, self.stack()
        metrics = {"val_mse": self.progress.best_mse, "test_mse": self.mse("test")}
        lit = float(stack.masks.mean(axis=(1, 2)).sum())
        header = Header(
            name=lesson.name,
            model=lesson.network.model,
            model_settings=self.network.model_dump(mode="json"),
            patterns_name=stack.name,
            pattern_hashes=stack.hashes,
            tile_px=stack.tile_px,
            camera_pixel=stack.camera_pixel,
            optics=self.optics,
            power_mw=lesson.power_mw,
            exposure_ms=lesson.exposure_ms,
            dose_mj_cm2=self.optics.dose_mj_cm2(lesson.power_mw, lesson.exposure_ms) * lit,
            trained_on=f"images {self.images.hash[:16]}, {self.progress.best_update} updates",
            metrics=metrics,
            command="dmu train",
        )
        return Bundle(header, stack, cast("Trainable", self.model).weights())


def learn(learner: Learner) -> Iterator[dict[str, float]]:
    """Train to the end of the schedule or until nothing gets better; yields a line for the log at each validation."""
    schedule, progress = learner.lesson.schedule, learner.progress
    losses: list[float] = []
    if progress.update == 0:
        # what training cannot better, it must not end behind
        yield {"update": 0, "val_mse": learner.validate()}
    while progress.update < schedule.updates:
        losses.append(learner.step())
        if progress.update % schedule.validate_every == 0 or progress.update == schedule.updates:
            error = learner.validate()
            yield {"update": progress.update, "loss": float(np.mean(losses)), "val_mse": error}
            losses.clear()
            if schedule.patience is not None and progress.stale >= schedule.patience:
                return


def shifted(tile: Tensor, dx_px: float, dy_px: float) -> Tensor:
    """A periodic tile moved by parts of a pixel, by the phases of its spectrum."""
    rows, columns = tile.shape[-2:]
    fy = torch.fft.fftfreq(rows, device=tile.device)[:, None]
    fx = torch.fft.rfftfreq(columns, device=tile.device)[None, :]
    phase = torch.exp(-2j * math.pi * (fy * dy_px + fx * dx_px))
    moved: Tensor = torch.fft.irfft2(torch.fft.rfft2(tile) * phase, s=(rows, columns))
    return moved


def _rate(update: int, warmup: int, updates: int) -> float:
    """Part of the peak rate: a rise, then half a cosine."""
    rise = min(1.0, (update + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * update / updates))
