"""How a specimen becomes what an inverse is given: believed optics, noise with gradients, and whatever varies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dmu_hw.data import Layout
from dmu_hw.lesson import Lesson, Variation
from dmu_hw.lmmse import Design, magnitude
from dmu_hw.physics import dye
from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.mirrors import leak
from dmu_hw.physics.optics import FlatProfile, Optics
from dmu_hw.physics.sensor import SensorModel

_DARK = 1e-3
"""Part of full light below which patterns count as this bright: those that light nothing would need for ever."""
_MOST_PHASES = 16
"""Strided convolutions for one tile, beyond which blurs of the whole field cost less."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the inverse is given."""

    signal: Tensor
    """(batch, pattern, y, x) on camera pixels, in units of object pixels of brightness 1."""
    kernels: Tensor | None
    """What each camera pixel collects, (phase y, phase x, pattern, y, x); None where fields are blurred whole."""


class Exposure:
    """One way of looking at specimens of one size: light, optics and sensor as the rig is believed to be."""

    def __init__(self, lesson: Lesson, optics: Optics, delivered: Tensor | None = None) -> None:
        """`delivered` is the light that patterns which do not learn were measured to send, (pattern, y, x) over one
        tile, where it was measured."""
        # the uneven light is divided out before the inverse sees anything
        self.optics = optics.model_copy(update={"profile": FlatProfile()})
        self.lesson = lesson
        self.signed = lesson.patterns.binarisation == "signed"
        learned = lesson.patterns
        side = learned.camera_pixel * learned.tile
        self.layout = Layout(learned.count, (side, side), learned.camera_pixel)
        self.side_px = lesson.schedule.crop_px
        self.power_mw = lesson.power_mw
        self.sensor = SensorModel.at(optics.sensor, learned.camera_pixel // optics.sensor_ratio)
        self.delivered = delivered
        self._forwards: dict[torch.device, Forward] = {}

    def frame_ms(self, patterns: Tensor) -> Tensor:
        """Exposure of one frame; where the dose is given, it depends on how much patterns light, with gradients."""
        lesson = self.lesson
        if lesson.exposure_ms is not None:
            return torch.tensor(lesson.exposure_ms)
        if lesson.total_exposure_ms is not None:
            return torch.tensor(lesson.total_exposure_ms / lesson.patterns.count)
        if lesson.peak_ms is not None:
            return lesson.peak_ms / self._light(patterns).sum(dim=0).max().clamp(min=_DARK)
        assert lesson.dose_ms is not None  # noqa: S101 - one of the four is given
        return lesson.dose_ms / self.lit(patterns).clamp(min=_DARK)

    def lit(self, patterns: Tensor) -> Tensor:
        """Frames of full light that give the mean object pixel the light of all patterns together."""
        return self._light(patterns).mean(dim=(1, 2)).sum()

    def _light(self, patterns: Tensor) -> Tensor:
        """What reaches each object pixel, before it is blurred."""
        return leak(magnitude(patterns), self.optics.mirrors.leakage)

    def design(self, patterns: Tensor, reach: int) -> Design:
        """What a linear estimate from patterns is computed for."""
        frame_ms = self.frame_ms(patterns)
        light = patterns if self.delivered is None else self.delivered.to(patterns)
        measured = self.delivered is not None
        return Design(light, self.layout.camera_pixel, self.optics, self.power_mw, frame_ms, reach, measured)

    def varied(self, specimens: Tensor, patterns: Tensor, variation: Variation, generator: torch.Generator) -> Seen:
        """With gradients in the patterns: Gaussian noise of the right size, and whatever varies drawn anew."""
        draws = torch.randn(4, generator=generator).tolist()
        frame_ms = self.frame_ms(patterns)
        light = moved = self._sent(patterns)
        if variation.shift_px:
            moved = shifted(light, variation.shift_px * draws[2], variation.shift_px * draws[3])
        signal, lit, kernels = self._collected(specimens, moved)
        if kernels is not None and moved is not light:
            kernels = self._aligned(specimens.device, light).kernels  # the shift is not known to the inverse
        varied_ms = frame_ms * math.exp(variation.photons * draws[0])
        photons = self._photons(lit, varied_ms).clamp(min=0)  # sharp patterns ring where they are shifted
        noise = self.sensor.surrogate(photons.cpu(), generator).to(photons) - self.sensor.mean_adu(photons)
        adu = self.sensor.mean_adu(self._photons(signal, varied_ms)) + noise + variation.offset_adu * draws[1]
        return Seen(self._signal(adu, frame_ms), kernels)

    @torch.no_grad()
    def drawn(self, specimens: Tensor, patterns: Tensor, generator: torch.Generator) -> Seen:
        """With exact Poisson noise, as the camera gives it."""
        signal, lit, kernels = self._collected(specimens, self._sent(patterns))
        frame_ms = self.frame_ms(patterns)
        photons = self._photons(lit, frame_ms)
        adu = self.sensor.draw(photons.cpu(), generator).to(photons)
        if self.signed:
            adu = adu + self.sensor.mean_adu(self._photons(signal, frame_ms)) - self.sensor.mean_adu(photons)
        return Seen(self._signal(adu, frame_ms), kernels)

    def _sent(self, patterns: Tensor) -> Tensor:
        """The patterns, or the light that they were measured to send."""
        return patterns if self.delivered is None else self.delivered.to(patterns)

    def _collected(self, specimens: Tensor, patterns: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean signal, the light that makes its noise, and the collection kernels. Both signals are the same for
        patterns that a mirror can show; of signed ones the noise is that of their absolute values."""
        forward = self._forward(specimens.device)
        ny, nx = self.layout.phases
        if ny * nx > _MOST_PHASES:
            across = self.side_px // patterns.shape[2]
            field = patterns.repeat(1, self.side_px // patterns.shape[1], across)
            signal = forward.image(specimens, self._illuminated(forward, field))
            lit = (
                forward.image(specimens, forward.illuminate(magnitude(field), self.power_mw)) if self.signed else signal
            )
            return signal, lit, None
        aligned = self._aligned(specimens.device, patterns)
        signal = aligned.image(specimens)
        lit = self._aligned(specimens.device, magnitude(patterns)).image(specimens) if self.signed else signal
        return signal, lit, aligned.kernels

    def _illuminated(self, forward: Forward, field: Tensor) -> Tensor:
        if self.delivered is None:
            return forward.illuminate(field, self.power_mw)
        return dye.saturated(field, self.power_mw, self.optics.dye)

    def _aligned(self, device: torch.device, patterns: Tensor) -> Aligned:
        return Aligned(self._forward(device), patterns, self.power_mw, delivered=self.delivered is not None)

    def _forward(self, device: torch.device) -> Forward:
        if device not in self._forwards:
            shape = (self.side_px, self.side_px)
            self._forwards[device] = Forward(self.optics, shape, self.layout.camera_pixel, device=device)
        return self._forwards[device]

    def _photons(self, signal: Tensor, frame_ms: Tensor) -> Tensor:
        return self._forward(signal.device).photons(signal, self.power_mw, frame_ms.to(signal.device))

    def _signal(self, adu: Tensor, frame_ms: Tensor) -> Tensor:
        """Numbers as the reconstruction of a run turns them into signals: with the light that is believed."""
        dark, one = (self._photons(torch.tensor(value, device=adu.device), frame_ms) for value in (0.0, 1.0))
        return (self.sensor.to_photons(adu) - dark) / (one - dark)


def shifted(tile: Tensor, dx_px: float, dy_px: float) -> Tensor:
    """A periodic tile moved by parts of a pixel, by the phases of its spectrum."""
    rows, columns = tile.shape[-2:]
    fy = torch.fft.fftfreq(rows, device=tile.device)[:, None]
    fx = torch.fft.rfftfreq(columns, device=tile.device)[None, :]
    phase = torch.exp(-2j * math.pi * (fy * dy_px + fx * dx_px))
    moved: Tensor = torch.fft.irfft2(torch.fft.rfft2(tile) * phase, s=(rows, columns))
    return moved
