"""What was measured of each pixel makes frames even again, however they are cut, binned and turned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.physics.optics import Optics
from dmu_hw.physics.sensor import SensorModel
from dmu_hw.pixels import PixelMaps
from dmu_hw.reconstruct import Calibrated, Window

SIDE = 32
OPTICS = Optics.model_validate(
    {
        "object_pixel_um": 0.5,
        "sensor_pixel_um": 0.5,
        "excitation": {"kind": "gaussian", "sigma_um": 0.3},
        "emission": {"kind": "gaussian", "sigma_um": 0.35},
        "dye": {"photons_per_um2_mw_ms": 100.0, "background_photons_per_um2_mw_ms": 1.0},
        "sensor": {"gain_adu_per_e": 0.5, "read_noise_e": 1.0},
    }
)


def chip(seed: int, side: int = SIDE, bad: int = 12) -> PixelMaps:
    rng = np.random.default_rng(seed)
    wrong = np.zeros(side * side, dtype=np.uint8)
    wrong[rng.choice(side * side, bad, replace=False)] = 1
    return PixelMaps.of(
        {
            "offset_adu": 100 + 8 * rng.standard_normal((side, side)),
            "response": 1 + 0.1 * rng.standard_normal((side, side)),
            "dark_e_per_ms": rng.exponential(0.5, (side, side)),
            "bad": wrong.reshape(side, side),
        }
    )


def frames_of(photons: torch.Tensor, maps: PixelMaps, exposure_ms: float, binning: int) -> np.ndarray:
    """What such a chip gives, without noise; bad pixels give anything."""
    offset, response, dark = (
        torch.from_numpy(values.copy()) for values in (maps.offset_adu, maps.response, maps.dark_e_per_ms)
    )
    noise = OPTICS.sensor.read_noise_of(binning)
    adu = SensorModel(OPTICS.sensor, noise, offset, dark * exposure_ms, response).mean_adu(photons)
    given = adu.round().numpy().astype(np.uint16)
    given[:, maps.bad] = np.where(np.arange(int(maps.bad.sum())) % 2, 65_535, 0)
    return given


@pytest.mark.parametrize("binning", [1, 2])
def test_pixels_that_differ_tell_the_same_of_the_same_light(binning: int) -> None:
    maps = chip(1, SIDE * binning, bad=12).seen(slice(0, SIDE * binning), slice(0, SIDE * binning), binning)
    y, x = torch.meshgrid(torch.arange(SIDE) / SIDE, torch.arange(SIDE) / SIDE, indexing="ij")
    photons = torch.stack([2000 * (1 + x), 2000 * (1 + y)]).to(torch.float32) * binning**2
    frames = frames_of(photons, maps, 5.0, binning)
    window = Window(OPTICS, (SIDE * binning, SIDE * binning), (0.0, 0.0), 1.0, 5.0, maps)
    known = Calibrated(window, binning)
    flat = Calibrated(Window(OPTICS, window.field_px, (0.0, 0.0), 1.0, 5.0), binning)
    dark, one = (known.forward.photons(torch.tensor(value), 1.0, 5.0) for value in (0.0, 1.0))
    wanted = (photons - dark) / (one - dark)
    off = ((known.signal(frames) - wanted) / wanted).abs()
    assert off[:, ~torch.from_numpy(maps.bad)].max() < 0.002, "rounding alone"
    assert off.max() < 0.05, "bad pixels are as their neighbours"
    assert ((flat.signal(frames) - wanted) / wanted).abs().max() > 0.1, "or this test tells nothing"


def test_what_is_bad_all_over_is_left_as_it_is() -> None:
    maps = chip(2, bad=SIDE * SIDE)
    signal = Calibrated(Window(OPTICS, (SIDE, SIDE), (0.0, 0.0), 1.0, 5.0, maps), 1).signal(
        np.full((1, SIDE, SIDE), 300, dtype=np.uint16)
    )
    assert bool(torch.isfinite(signal).all())


def test_a_hole_is_filled_from_its_border() -> None:
    maps = chip(3, bad=0)
    maps.bad[10:15, 10:16] = True
    photons = torch.full((1, SIDE, SIDE), 3000.0)
    window = Window(OPTICS, (SIDE, SIDE), (0.0, 0.0), 1.0, 5.0, maps)
    signal = Calibrated(window, 1).signal(frames_of(photons, maps, 5.0, 1))
    assert float(signal.std() / signal.mean()) < 0.002


@given(st.booleans(), st.booleans(), st.sampled_from([1, 2, 4]), st.integers(0, 3), st.integers(0, 3))
def test_cut_and_turned_in_any_order(flip_x: bool, flip_y: bool, binning: int, row: int, column: int) -> None:
    """The same window of the chip, whether its maps are turned first or cut first."""
    maps = chip(4)
    first, length = (4 * row, 4 * column), 16
    here = maps.seen(*(slice(at, at + length) for at in first), binning).turned(flip_x=flip_x, flip_y=flip_y)
    turned_first = [SIDE - length - at if flip else at for at, flip in zip(first, (flip_y, flip_x), strict=True)]
    turned = maps.turned(flip_x=flip_x, flip_y=flip_y)
    there = turned.seen(*(slice(at, at + length) for at in turned_first), binning)
    for name in ("offset_adu", "response", "dark_e_per_ms"):
        assert getattr(here, name) == pytest.approx(getattr(there, name), rel=1e-5)
    assert np.array_equal(here.bad, there.bad)


def test_a_binned_pixel_gathers_the_dark_current_of_all_and_is_bad_if_many_are() -> None:
    maps = chip(5, bad=0)
    maps.bad[:2, :2] = [[True, True], [False, False]]
    for binning, bad in ((1, 2), (2, 1), (4, 0)):
        binned = maps.seen(slice(0, SIDE), slice(0, SIDE), binning)
        assert binned.dark_e_per_ms.sum() == pytest.approx(maps.dark_e_per_ms.sum(), rel=1e-5)
        assert binned.bad.sum() == bad


def test_kept_and_read_again() -> None:
    maps = chip(6).turned(flip_x=True, flip_y=False)
    again = PixelMaps.unpacked(maps.packed())
    assert again.hash == maps.hash != chip(6).hash
    assert np.array_equal(again.offset_adu, maps.offset_adu)
    assert np.array_equal(again.bad, maps.bad)


@pytest.mark.parametrize("wrong", [{"bad": np.zeros((3, 4))}, {"response": np.ones((2, 3))}, {"bad": np.zeros(9)}])
def test_maps_of_different_chips_are_refused(wrong: dict[str, Any]) -> None:
    even = {name: np.ones((3, 3)) for name in ("offset_adu", "response", "dark_e_per_ms", "bad")}
    with pytest.raises(ValueError, match="one shape"):
        PixelMaps.of({**even, **wrong})
