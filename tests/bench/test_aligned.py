"""The aligned path against T blurs of the full field, side by side: `pytest -m bench`."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.blur import bin_sum, blur
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import Dye, GaussianPsf, Optics

BATCH, COUNT, SIDE, FIELD = 8, 4, 32, 256


def seconds(work: Callable[[], object]) -> float:
    """The best of several rounds, so that what else the machine does matters little."""
    work()
    rounds = []
    for _ in range(7):
        began = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - began)
    return min(rounds)


@pytest.mark.bench
@pytest.mark.parametrize("training", [False, True], ids=["forward", "forward and backward"])
def test_ten_times_faster_than_full_resolution_blurs(training: bool) -> None:
    """The rival may blur by FFT or by two one-dimensional convolutions, whichever is faster here."""
    blurred = GaussianPsf(sigma_um=0.3)
    optics = Optics(
        object_pixel_um=0.3,
        sensor_pixel_um=0.3,
        excitation=blurred,
        emission=blurred,
        dye=Dye(photons_per_um2_mw_ms=100.0),
    )
    forward = Forward(optics, (FIELD, FIELD), SIDE)
    generator = torch.Generator().manual_seed(0)
    tile = (torch.rand(COUNT, SIDE, SIDE, generator=generator) > 0.5).float()
    specimen = torch.rand(BATCH, FIELD, FIELD, generator=generator)
    line = forward.emission.sum(0)
    reach = line.numel() // 2

    def lines(image: torch.Tensor) -> torch.Tensor:
        flat = image.reshape(-1, 1, FIELD, FIELD)
        across = functional.conv2d(flat, line[None, None, None, :], padding=(0, reach))
        return functional.conv2d(across, line[None, None, :, None], padding=(reach, 0)).reshape(image.shape)

    def full(spread: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        h = tile.clone().requires_grad_(training)
        lit = forward.illuminate(h.repeat(1, FIELD // SIDE, FIELD // SIDE))
        return finished(bin_sum(spread(specimen[:, None] * lit[None]), SIDE))

    def aligned() -> torch.Tensor:
        h = tile.clone().requires_grad_(training)
        return finished(Aligned(forward, h).image(specimen))

    def finished(frames: torch.Tensor) -> torch.Tensor:
        if training:
            frames.square().sum().backward()
        return frames.detach()

    by_fft, by_lines = (lambda: full(lambda image: blur(image, forward.emission))), (lambda: full(lines))
    torch.testing.assert_close(aligned(), by_fft(), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(by_lines(), by_fft(), rtol=1e-5, atol=1e-3)
    fast, rivals = seconds(aligned), {"FFT": seconds(by_fft), "lines": seconds(by_lines)}
    ratio = min(rivals.values()) / fast
    told = ", ".join(f"{name} {time_s * 1e3:.1f} ms" for name, time_s in rivals.items())
    print(f"aligned {fast * 1e3:.2f} ms; full resolution: {told}; ratio {ratio:.1f}")  # noqa: T201
    assert ratio >= 10
