"""The linear estimate: the right numbers, at any field size, for patterns of any tile."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dmu_hw.data import PatternStack
from dmu_hw.models.ridge import Model, Settings
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import Dye, GaussianPsf, Mirrors, Optics, Sensor
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.physics.sensor import SensorModel
from dmu_hw.physics.specimens import Nuclei

OPTICS = Optics(
    object_pixel_um=0.5,
    sensor_pixel_um=0.5,
    excitation=GaussianPsf(sigma_um=0.4),
    emission=GaussianPsf(sigma_um=0.5),
    mirrors=Mirrors(leakage=0.02),
    dye=Dye(photons_per_um2_mw_ms=200.0, background_photons_per_um2_mw_ms=2.0),
    sensor=Sensor(gain_adu_per_e=0.5),
)
SCENES = Settings(specimen=Nuclei(kind="nuclei", seed=5), scenes=24)

SETS = {
    "uniform": PatternSet(set="uniform", count=1, camera_pixel=4),
    "blocks": PatternSet(set="blocks", count=4, camera_pixel=8),
    "hadamard": PatternSet(set="hadamard", count=4, camera_pixel=8),
    "random": PatternSet(set="random", count=4, camera_pixel=8),
    "random over 2x2 camera pixels": PatternSet(set="random", count=4, camera_pixel=8, tile=2),
}


def specimens(count: int, side: int, seed: int = 77) -> Tensor:
    nuclei = Nuclei(kind="nuclei", seed=seed)
    scenes = [nuclei.scene((400.0 * k, 0.0), (side, side), OPTICS.object_pixel_um).image for k in range(count)]
    return torch.from_numpy(np.stack(scenes))


def signals(stack: PatternStack, scenes: Tensor, exposure_ms: float) -> Tensor:
    """What the camera gives for scenes, with its noise, in the units of the model."""
    forward = Forward(OPTICS, (scenes.shape[1], scenes.shape[2]), stack.camera_pixel)
    sensor = SensorModel.at(OPTICS.sensor, stack.camera_pixel)
    lit = forward.illuminate(torch.from_numpy(stack.over(forward.shape_px)).float())
    photons = forward.photons(forward.image(scenes, lit), 1.0, exposure_ms)
    adu = sensor.draw(photons, torch.Generator().manual_seed(3)).float()
    dark, one = (forward.photons(torch.tensor(value), 1.0, exposure_ms) for value in (0.0, 1.0))
    return (sensor.to_photons(adu) - dark) / (one - dark)


def mse(image: Tensor, truth: Tensor, margin: int = 0) -> float:
    inner = slice(margin, image.shape[-1] - margin)
    return float(((image - truth)[:, inner, inner] ** 2).mean())


@pytest.mark.parametrize("name", SETS)
def test_as_good_as_the_best_linear_map_of_its_neighbourhood(name: str) -> None:
    """Least squares on very many blocks finds the best linear map there is; the computed one is within 5 % of it."""
    stack = SETS[name].make()
    side, phases = stack.camera_pixel, stack.tile_px[0] // stack.camera_pixel
    model = Model(Model.fit(SCENES.model_copy(update={"reach": 1}), stack, OPTICS, 1.0, 1.0), stack.layout)
    scenes = specimens(24, 16 * stack.tile_px[0])
    frames, places = signals(stack, scenes, 1.0), range(phases, 16 * phases - 1, phases)

    def blocks(images: Tensor) -> Tensor:
        """One block a place of the first phase, (block, pixel)."""
        cuts = [images[:, r * side : (r + 1) * side, c * side : (c + 1) * side] for r in places for c in places]
        return torch.stack(cuts, 1).flatten(0, 1).flatten(1).double()

    seen = torch.stack([frames[:, :, r - 1 : r + 2, c - 1 : c + 2].flatten(1) for r in places for c in places], 1)
    seen = torch.nn.functional.pad(seen.flatten(0, 1), (0, 1), value=1.0).double()
    truth = blocks(scenes)
    least = (seen @ torch.linalg.lstsq(seen, truth).solution - truth).square().mean()
    reached = (blocks(model(frames)) - truth).square().mean()
    assert reached <= 1.05 * least


@pytest.mark.parametrize("name", SETS)
def test_a_small_field_is_a_cut_of_a_large_one(name: str) -> None:
    """Applied as convolutions: away from the border it does not matter how large the field is."""
    stack = SETS[name].make()
    model = Model(Model.fit(SCENES, stack, OPTICS, 1.0, 1.0), stack.layout)
    side, tile = stack.camera_pixel, stack.tile_px[0] // stack.camera_pixel
    frames = torch.rand(2, stack.count, 12 * tile, 16 * tile, generator=torch.Generator().manual_seed(1))
    whole, cut = model(frames), model(frames[:, :, 2 * tile : 10 * tile, 4 * tile : 12 * tile])
    margin = 3 * tile * side
    top, left = 2 * tile * side, 4 * tile * side
    same = whole[:, top : top + cut.shape[1], left : left + cut.shape[2]]
    inner = (slice(None), slice(margin, -margin), slice(margin, -margin))
    torch.testing.assert_close(cut[inner], same[inner], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SETS)
def test_the_border_is_no_disaster(name: str) -> None:
    stack = SETS[name].make()
    model = Model(Model.fit(SCENES, stack, OPTICS, 1.0, 1.0), stack.layout)
    scenes = specimens(8, 8 * stack.tile_px[0] if stack.tile_px[0] > 8 else 128)
    image = model(signals(stack, scenes, 1.0))
    assert mse(image, scenes) < 2 * mse(image, scenes, margin=2 * stack.tile_px[0])


def test_more_light_is_better_and_no_light_gives_the_mean() -> None:
    stack = SETS["hadamard"].make()
    scenes = specimens(6, 128)
    errors = []
    for exposure_ms in (0.01, 0.1, 1.0, 10.0):
        model = Model(Model.fit(SCENES, stack, OPTICS, 1.0, exposure_ms), stack.layout)
        errors.append(mse(model(signals(stack, scenes, exposure_ms)), scenes))
    assert errors == sorted(errors, reverse=True)
    weights = Model.fit(SCENES, stack, OPTICS, 1.0, 1e-7)
    assert abs(weights["estimators"]).max() < 1e-3
    assert 0.02 < float(weights["mean"]) < 0.4


def test_the_same_settings_give_the_same_weights() -> None:
    stack = SETS["hadamard"].make()
    one, two = (Model.fit(SCENES, stack, OPTICS, 1.0, 1.0) for _ in range(2))
    assert all(np.array_equal(one[key], two[key]) for key in one)
    assert all(value.dtype == np.float32 for value in one.values())


def test_beats_enlarging_the_same_frame_of_a_plain_camera() -> None:
    stack = SETS["uniform"].make()
    scenes = specimens(6, 128)
    frames = signals(stack, scenes, 0.02)
    bicubic = torch.nn.functional.interpolate(frames / 16, scale_factor=4, mode="bicubic")[:, 0]
    model = Model(Model.fit(SCENES, stack, OPTICS, 1.0, 0.02), stack.layout)
    assert mse(model(frames), scenes) < 0.8 * mse(bicubic, scenes)
