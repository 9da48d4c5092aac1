"""What a camera gives for any pattern, marker or memory, without devices: the physics itself, with all that a real
microscope does and the judge does not know. Pictures are made once for a scene; bursts are drawn from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dmu_hw.data import BoolArray, PatternStack, Uint16Array
from dmu_hw.marker import Marker
from dmu_hw.physics.blur import bin_sum, blur
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import GaussianProfile, Optics
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.physics.specimens import Beads, Filaments, Nuclei
from dmu_hw.ports import CameraMode, Roi

Array = np.ndarray[Any, Any]
EXPOSURE_MS = 10.0
_FINEST = 8
"""Pixels of the rendering along a camera pixel, at most: the larger ones are rendered on a coarser grid."""
_SPECIMENS: dict[str, Any] = {"nuclei": Nuclei, "filaments": Filaments, "beads": Beads}
BELIEF = Optics.model_validate(
    {
        "object_pixel_um": 0.325,
        "sensor_pixel_um": 0.325,
        "excitation": {"kind": "airy", "na": 0.75, "wavelength_nm": 488},
        "emission": {"kind": "airy", "na": 0.75, "wavelength_nm": 525},
        "mirrors": {"leakage": 0.002},
        "dye": {"photons_per_um2_mw_ms": 50.0, "background_photons_per_um2_mw_ms": 0.5},
        "sensor": {"gain_adu_per_e": 0.5, "read_noise_e": 2.0, "full_well_e": 120_000.0, "hot_fraction": 1e-4},
    }
)
DARK, MARKER, STALE = -1, -2, -3
"""What a frame may have been exposed with beside its pattern: nothing, the marker, the marker of an earlier upload.
Patterns of an earlier upload are STALE - 1 - pattern."""


def stack_of(count: int, compression: int, kind: str = "hadamard", seed: int = 0) -> PatternStack:
    side = math.isqrt(compression * count)
    keys = {"superpixel": max(1, side // 8), "seed": seed} if kind == "random" else {}
    return PatternSet.model_validate({"set": kind, "count": count, "camera_pixel": side, **keys}).make()


def marker_of(stack: PatternStack, pixels: int, power_mw: float = 1.0, lit: float | None = None) -> Marker:
    side = pixels * stack.camera_pixel
    mode = CameraMode(EXPOSURE_MS, stack.camera_pixel, Roi(0, 0, side, side))
    return Marker.of(stack, (side, side), BELIEF, mode, power_mw, lit)


@dataclass(frozen=True)
class Nuisances:
    """What is not known of a burst; each is drawn up to these limits."""

    drift_px: float = 0.1
    """Camera pixels from the first frame to the last, but no more than `drift_um`."""
    drift_um: float = 0.3
    bleaching: float = 0.05
    registration_px: float = 0.5
    """Object pixels, along each axis."""
    gain_spread: float = 0.015
    hot_fraction: float = 1e-4
    leakage: float = 0.003


class LightBench:
    """One scene under one stack."""

    def __init__(
        self,
        marker: Marker,
        old: Marker,
        specimen: str | None,
        seed: int,
        nuisances: Nuisances = Nuisances(),
    ) -> None:
        """`old` is what the mirrors held before; no specimen: an empty field."""
        self.marker, self.old = marker, old
        self.rng = rng = np.random.default_rng(seed)
        self.count, self.pixels = marker.stack.count, marker.codes.shape[0]
        side = marker.stack.camera_pixel
        self.fine = min(side, _FINEST)
        self.coarse = side // self.fine
        self.nuisances = nuisances
        pixel_um = BELIEF.object_pixel_um * self.coarse
        shape = (self.pixels * self.fine, self.pixels * self.fine)
        extent_um = shape[0] * pixel_um
        centre_um = (float(rng.uniform(-0.1, 0.1)) * extent_um, float(rng.uniform(-0.1, 0.1)) * extent_um)
        profile = GaussianProfile(sigma_um=0.6 * extent_um, centre_um=centre_um)
        self.forward = Forward(BELIEF.model_copy(update={"profile": profile}), shape, self.fine, pixel_um=pixel_um)
        self.off = rng.uniform(-1, 1, 2) * nuisances.registration_px / self.coarse
        self.gain = 1 + nuisances.gain_spread * rng.standard_normal((self.pixels, self.pixels))
        self.hot_e = rng.poisson(nuisances.hot_fraction * side**2, self.gain.shape) * 5.0 * EXPOSURE_MS
        self.first, self.last = self._scenes(specimen, seed, shape, pixel_um)
        self._pictures: dict[int, tuple[Array, Array]] = {}
        brightest = np.quantile(self._picture(0)[0], 0.95)
        self.photons_of_full = float(brightest)

    def _scenes(
        self, specimen: str | None, seed: int, shape: tuple[int, int], pixel_um: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The specimen at the first and at the last moment of a burst."""
        if specimen is None:
            return torch.zeros(shape), torch.zeros(shape)
        drift = min(self.nuisances.drift_px * self.fine, self.nuisances.drift_um / pixel_um)
        margin = math.ceil(drift) + 2
        place_um = tuple(float(value) for value in self.rng.uniform(-5000, 5000, 2))
        wide = (shape[0] + 2 * margin, shape[1] + 2 * margin)
        image = torch.from_numpy(_SPECIMENS[specimen](seed=seed).scene(place_um, wide, pixel_um).image).float()
        angle, far = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0, drift)
        moved = _moved(image, (far * np.sin(angle), far * np.cos(angle)))
        cut = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
        first, last = image[cut], moved[cut]
        dose = sum(self._lit(self._mask(pattern)) for pattern in range(self.count))
        assert isinstance(dose, torch.Tensor)
        return first, last * torch.exp(-self.rng.uniform(0, self.nuisances.bleaching) * dose / dose.mean())

    def _mask(self, shown: int) -> BoolArray:
        if shown == DARK:
            return np.zeros((1, 1), dtype=bool)
        if shown >= 0:
            return self.marker.stack.masks[shown]
        if shown == MARKER:
            return self.marker.mask()
        return self.old.mask() if shown == STALE else self.old.stack.masks[STALE - 1 - shown]

    def _lit(self, mask: BoolArray) -> torch.Tensor:
        """A mask over the field, shifted by the error of registration, blurred, leaking."""
        side = self.pixels * self.marker.stack.camera_pixel
        tiled = np.tile(mask, (side // mask.shape[0], side // mask.shape[1]))
        seen = torch.from_numpy(tiled[self.coarse // 2 :: self.coarse, self.coarse // 2 :: self.coarse]).float()
        leakage = self.nuisances.leakage
        lit = leakage + (1 - leakage) * _moved(seen, (float(self.off[0]), float(self.off[1])))
        return self.forward.profile * blur(lit, self.forward.excitation, periodic=True)

    @torch.no_grad()
    def _picture(self, shown: int) -> tuple[Array, Array]:
        """Photons per mW and ms at the first and at the last moment."""
        if shown not in self._pictures:
            lit = self._lit(self._mask(shown))
            first, last = (
                self.forward.photons(bin_sum(blur(lit * scene, self.forward.emission), self.fine), 1.0, 1.0).numpy()
                for scene in (self.first, self.last)
            )
            self._pictures[shown] = (first, last)
        return self._pictures[shown]

    def _electrons(self, photons: Array, energy: float) -> Array:
        return np.asarray(BELIEF.sensor.quantum_efficiency * energy * photons * self.gain + self.hot_e)

    def told(self, shown: list[int], electrons: float) -> float:
        """By how many sigmas the marker differs from what the frames let expect of it, for one who knows the specimen,
        and so need not learn from noisy frames where to look, but not how it moved and bleached in this burst: no judge
        of light alone can do better."""
        energy = electrons / (BELIEF.sensor.quantum_efficiency * self.photons_of_full)

        def seen(what: int, moment: int = 0) -> Array:
            return self._electrons(self._picture(what)[moment], energy)

        def mosaic(frames: list[int], moment: int = 0) -> Array:
            pictures = np.stack([seen(what, moment) for what in [*frames, DARK]])
            return np.asarray(np.take_along_axis(pictures, self.marker.codes[None], axis=0)[0])

        right = [*range(self.count)]
        expected = mosaic(shown[:-1])
        borders = seen(MARKER) - mosaic(right)
        variance = (
            seen(shown[-1]) + expected + 2 * BELIEF.sensor.read_noise_e**2 + (mosaic(right, 1) - mosaic(right)) ** 2
        )
        return float(np.sqrt(((seen(shown[-1]) - expected - borders) ** 2 / variance).sum()))

    def burst(self, shown: list[int], electrons: float) -> list[Uint16Array]:
        """Frames of what was truly shown, the marker's last; `electrons` are in the brightest pixels of pattern 0."""
        energy = electrons / (BELIEF.sensor.quantum_efficiency * self.photons_of_full)
        frames = []
        for moment, what in enumerate(shown):
            first, last = self._picture(what)
            photons = first + (last - first) * moment / self.count
            mean = self._electrons(photons, energy)
            collected = np.minimum(self.rng.poisson(mean), BELIEF.sensor.full_well_e)
            adu = 100.0 + 0.5 * (collected + 2.0 * self.rng.standard_normal(mean.shape))
            frames.append(np.clip(np.round(adu), 0, 65535).astype(np.uint16))
        return frames

    def power_mw(self, electrons: float) -> float:
        """What a rig would be set to for bursts of this brightness."""
        return electrons / (BELIEF.sensor.quantum_efficiency * self.photons_of_full * EXPOSURE_MS)


def _moved(image: torch.Tensor, by: tuple[float, float]) -> torch.Tensor:
    """Shifted by parts of a pixel, round the border."""
    for axis, far in zip((-2, -1), by, strict=True):
        whole, rest = math.floor(far), far - math.floor(far)
        image = (1 - rest) * image.roll(whole, axis) + rest * image.roll(whole + 1, axis)
    return image
