"""The composition: adjoints, gradients, brute-force sums, the aligned path against the general one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.mirrors import leak
from dmu_hw.physics.optics import AiryPsf, Dye, FlatProfile, GaussianProfile, GaussianPsf, Mirrors, Optics
from dmu_hw.physics.warp import Warp

DOUBLE = torch.float64
AIRY = AiryPsf(na=0.8, wavelength_nm=520)


def optics(**changes: object) -> Optics:
    values: dict[str, object] = {
        "object_pixel_um": 0.3,
        "sensor_pixel_um": 0.3,
        "excitation": GaussianPsf(sigma_um=0.35),
        "emission": GaussianPsf(sigma_um=0.3),
        "mirrors": Mirrors(leakage=0.03),
        "profile": GaussianProfile(sigma_um=12.0, centre_um=(1.0, -2.0)),
        "dye": Dye(photons_per_um2_mw_ms=500.0, background_photons_per_um2_mw_ms=10.0),
    }
    return Optics.model_validate(values | changes)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def binary(*shape: int, seed: int = 1) -> Tensor:
    return (random(*shape, seed=seed) > 0.5).to(DOUBLE)


CHAINS = {
    "gaussian": optics(),
    "airy": optics(excitation=AIRY, emission=AIRY),
    "no blur": optics(excitation=GaussianPsf(sigma_um=0.0), emission=GaussianPsf(sigma_um=0.0)),
    "flat profile": optics(profile=FlatProfile()),
    "saturating": optics(profile=FlatProfile(), dye=Dye(photons_per_um2_mw_ms=500.0, saturation_mw=2.0)),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("camera_pixel", [1, 2, 3, 4, 6, 12])
def test_the_adjoint_is_the_transpose(chain: str, camera_pixel: int) -> None:
    forward = Forward(CHAINS[chain], (24, 36), camera_pixel, dtype=DOUBLE)
    lit = forward.illuminate(binary(3, 24, 36))
    specimen, frames = random(2, 24, 36), random(2, 3, 24 // camera_pixel, 36 // camera_pixel)
    left = (forward.image(specimen, lit) * frames).sum()
    right = (specimen * forward.adjoint(frames, lit)).sum()
    torch.testing.assert_close(left, right, rtol=1e-10, atol=0)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(
    ("camera_pixel", "phases"),
    [
        (d, n)
        for d in (1, 2, 3, 4, 6, 12)
        for n in ((1, 1), (2, 1), (2, 2), (3, 2))
        if 36 % (d * n[0]) == 0 and 24 % (d * n[1]) == 0
    ],
)
def test_the_aligned_path_equals_the_general_one(chain: str, camera_pixel: int, phases: tuple[int, int]) -> None:
    forward = Forward(CHAINS[chain], (36, 24), camera_pixel, dtype=DOUBLE)
    tile = binary(2, camera_pixel * phases[0], camera_pixel * phases[1])
    field = tile.tile(1, 36 // tile.shape[1], 24 // tile.shape[2])
    specimen = random(2, 36, 24)
    aligned = Aligned(forward, tile, power_mw=1.5)
    general = forward.image(specimen, forward.illuminate(field, power_mw=1.5))
    torch.testing.assert_close(aligned.image(specimen), general, rtol=1e-10, atol=1e-12)
    frames = random(*general.shape)
    lit = forward.illuminate(field, power_mw=1.5)
    torch.testing.assert_close(aligned.adjoint(frames), forward.adjoint(frames, lit), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("camera_pixel", [1, 2, 4, 8, 16, 32, 64])
def test_the_aligned_path_in_single_precision(camera_pixel: int) -> None:
    forward = Forward(optics(), (128, 128), camera_pixel)
    tile = binary(4, camera_pixel, camera_pixel).float()
    specimen = random(2, 128, 128).float()
    general = forward.image(specimen, forward.illuminate(tile.tile(1, 128 // camera_pixel, 128 // camera_pixel)))
    torch.testing.assert_close(
        Aligned(forward, tile).image(specimen), general, rtol=1e-5, atol=1e-5 * float(general.max())
    )


def test_a_small_grid_equals_sums_written_out() -> None:
    """Every sum of the model as a loop, with kernels that are not symmetric so that a flip would show."""
    forward = Forward(optics(), (6, 6), 2, dtype=DOUBLE)
    forward.excitation, forward.emission = random(3, 3, seed=5), random(3, 5, seed=6)
    patterns, specimen = binary(1, 6, 6), random(1, 6, 6)
    lit = leak(patterns, 0.03)
    expected = torch.zeros(3, 3, dtype=DOUBLE)
    for vy in range(6):
        for vx in range(6):
            for uy in range(6):
                for ux in range(6):
                    ky, kx = vy - uy + 1, vx - ux + 2
                    if not (0 <= ky < 3 and 0 <= kx < 5):
                        continue
                    light = sum(
                        forward.excitation[sy, sx] * lit[0, (uy - sy + 1) % 6, (ux - sx + 1) % 6]
                        for sy in range(3)
                        for sx in range(3)
                    )
                    expected[vy // 2, vx // 2] += (
                        forward.emission[ky, kx] * specimen[0, uy, ux] * light * forward.profile[uy, ux]
                    )
    got = forward.image(specimen, forward.illuminate(patterns))[0, 0]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chain", CHAINS)
def test_gradients_against_finite_differences(chain: str) -> None:
    forward = Forward(CHAINS[chain], (12, 8), 4, dtype=DOUBLE)
    specimen, patterns = random(1, 12, 8).requires_grad_(), random(2, 12, 8).requires_grad_()
    tile = random(2, 4, 8).requires_grad_()
    # every entry of the Jacobian for the plain chain, a random projection of it for the others
    fast = chain != "flat profile"

    def general(x: Tensor, h: Tensor) -> Tensor:
        return forward.image(x, forward.illuminate(h, power_mw=1.0))

    assert torch.autograd.gradcheck(general, (specimen, patterns), fast_mode=fast)
    assert torch.autograd.gradcheck(
        lambda x, h: Aligned(forward, h, power_mw=1.0).image(x), (specimen, tile), fast_mode=fast
    )


def test_mirrors_arrive_where_the_map_puts_them() -> None:
    """One mirror that is on lights the place that the map names, whatever the rotation, flip and distortion."""
    bend = ((0.5, 0.0, -0.3, 0.0, 0.2, 0.0, 0.0), (0.0, 0.4, 0.0, 0.1, 0.0, 0.0, 0.3))
    to_sample = Warp(matrix=((-0.29, 0.05), (0.06, 0.31)), shift=(1.5, -2.0), distortion=bend, radius=64.0)
    forward = Forward(optics(mirrors=Mirrors(shape=(96, 128), to_sample=to_sample)), (128, 160), 1, dtype=DOUBLE)
    for column, row in [(64, 48), (20, 30), (100, 70)]:
        mirrors = torch.zeros(96, 128, dtype=DOUBLE)
        mirrors[row, column] = 1
        light = forward.from_mirrors(mirrors)
        x = float((light.sum(0) * torch.from_numpy(forward.x_um)).sum() / light.sum())
        y = float((light.sum(1) * torch.from_numpy(forward.y_um)).sum() / light.sum())
        expected = to_sample.apply(column + 0.5 - 64, row + 0.5 - 48)
        assert (x, y) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("shift_px", [0.0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("side_px", [1.6, 4.0])
def test_a_mirror_is_even_from_edge_to_edge(side_px: float, shift_px: float) -> None:
    """Each pixel of the grid sees of it what it covers of it."""
    side_um = 0.3 * side_px
    to_sample = Warp(matrix=((side_um, 0.0), (0.0, -side_um)), shift=(0.3 * shift_px, 0.0))
    forward = Forward(optics(mirrors=Mirrors(shape=(8, 8), to_sample=to_sample)), (32, 32), 1, dtype=DOUBLE)
    mirrors = torch.zeros(8, 8, dtype=DOUBLE)
    mirrors[:, 4] = 1
    line = forward.from_mirrors(mirrors)[16]
    pixels = torch.arange(33, dtype=DOUBLE) - 16 - shift_px
    torch.testing.assert_close(line, pixels.clamp(0, side_px).diff(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("mirrors_a_pixel", [1.0, 2.0, 2.5, 3.3])
def test_a_pixel_gathers_the_light_of_all_mirrors_on_it(mirrors_a_pixel: float) -> None:
    """Of stripes finer than a pixel it sees their mean, and of a square neither more nor less than its area."""
    pitch_um = 0.3 / mirrors_a_pixel
    turn = ((0.96 * pitch_um, -0.28 * pitch_um), (0.28 * pitch_um, 0.96 * pitch_um))
    to_sample = Warp(matrix=turn, shift=(0.13, -0.06))
    forward = Forward(optics(mirrors=Mirrors(shape=(200, 240), to_sample=to_sample)), (48, 56), 1, dtype=DOUBLE)
    square, stripes = torch.zeros(2, 200, 240, dtype=DOUBLE)
    square[90:121, 100:131] = 1
    stripes[:, ::2] = 1
    light = forward.from_mirrors(square)
    assert float(light.sum()) * 0.09 == pytest.approx((31 * pitch_um) ** 2, rel=0.01)
    x = float((light.sum(0) * torch.from_numpy(forward.x_um)).sum() / light.sum())
    y = float((light.sum(1) * torch.from_numpy(forward.y_um)).sum() / light.sum())
    assert (x, y) == pytest.approx(to_sample.apply(115.5 - 120, 105.5 - 100), abs=0.01)
    if mirrors_a_pixel >= 2:
        seen = forward.from_mirrors(stripes)[16:32, 20:36]
        torch.testing.assert_close(seen, torch.full_like(seen, 0.5), atol=0.2, rtol=0)


@pytest.mark.parametrize("mirrors_a_pixel", [0.7, 1.3, 2.0, 3.3])
def test_each_mirror_has_the_same_light(mirrors_a_pixel: float) -> None:
    """Wherever on the grid it falls."""
    pitch_um = 0.3 / mirrors_a_pixel
    to_sample = Warp(matrix=((0.96 * pitch_um, -0.28 * pitch_um), (0.28 * pitch_um, 0.96 * pitch_um)))
    forward = Forward(optics(mirrors=Mirrors(shape=(40, 40), to_sample=to_sample)), (64, 64), 1, dtype=DOUBLE)
    single = torch.zeros(16, 40, 40, dtype=DOUBLE)
    for place in range(16):
        single[place, 15 + place // 4, 15 + place % 4] = 1
    light = forward.from_mirrors(single).sum(dim=(-2, -1)) * 0.09 / pitch_um**2
    torch.testing.assert_close(light, torch.ones_like(light), rtol=0, atol=0.05)


def test_a_distorted_camera_moves_light_and_has_no_aligned_path() -> None:
    shifted = optics(sample_to_sensor=Warp(shift=(0.6, -0.3)))
    forward, plain = (Forward(o, (24, 24), 1, dtype=DOUBLE) for o in (shifted, optics()))
    specimen = torch.zeros(1, 24, 24, dtype=DOUBLE)
    specimen[0, 8:16, 8:16] = 1
    lit = plain.illuminate(torch.ones(1, 24, 24, dtype=DOUBLE))
    moved = plain.image(specimen, lit).roll((-1, 2), (-2, -1))
    torch.testing.assert_close(forward.image(specimen, lit), moved, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="sample_to_sensor"):
        Aligned(forward, torch.ones(1, 4, 4, dtype=DOUBLE))
    with pytest.raises(ValueError, match="sample_to_sensor"):
        forward.adjoint(moved, lit)


def test_photons_scale_with_area_power_and_time() -> None:
    forward = Forward(optics(), (8, 8), 4, dtype=DOUBLE)
    signal = torch.full((1, 1, 2, 2), 3.0, dtype=DOUBLE)
    expected = 3.0 * 500 * 0.09 * 2 * 5 + 10 * 0.09 * 2 * 5 * 16
    assert float(forward.photons(signal, power_mw=2.0, exposure_ms=5.0)[0, 0, 0, 0]) == pytest.approx(expected)


def test_a_finer_grid_sees_the_same_light() -> None:
    coarse = Forward(optics(), (32, 32), 8, dtype=DOUBLE)
    fine = Forward(optics(), (64, 64), 16, dtype=DOUBLE, pixel_um=0.15)
    specimen, patterns = random(1, 32, 32), binary(2, 8, 8)
    frames = coarse.photons(coarse.image(specimen, coarse.illuminate(patterns.tile(1, 4, 4))), 1.0, 1.0)
    finer = specimen.repeat_interleave(2, -1).repeat_interleave(2, -2)
    lit = fine.illuminate(patterns.tile(1, 4, 4).repeat_interleave(2, -1).repeat_interleave(2, -2))
    torch.testing.assert_close(fine.photons(fine.image(finer, lit), 1.0, 1.0), frames, rtol=0.02, atol=0)
