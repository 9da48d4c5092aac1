"""Light that is uneven: as it was measured on a coarse grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from dmu_hw.physics.optics import GaussianProfile, GridProfile, Optics

GAUSSIAN = GaussianProfile(sigma_um=30.0, centre_um=(6.0, -4.0))


def sampled(rows: int = 25, columns: int = 31, pitch_um: float = 3.0) -> GridProfile:
    places: list[NDArray[Any]] = [(np.arange(count) - (count - 1) / 2) * pitch_um for count in (rows, columns)]
    values = GAUSSIAN.at(places[1][None, :], places[0][:, None])
    return GridProfile(kind="grid", pitch_um=pitch_um, values=tuple(map(tuple, values.tolist())))


def points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(-36, 36, 500), rng.uniform(-28, 28, 500)


def test_it_is_smooth_between_its_points() -> None:
    x_um, y_um = points()
    assert sampled().at(x_um, y_um) == pytest.approx(GAUSSIAN.at(x_um, y_um), abs=4e-4)
    on_a_grid = sampled().at(x_um[None, :9], y_um[:7, None])
    assert on_a_grid.shape == (7, 9)
    assert on_a_grid == pytest.approx(GAUSSIAN.at(x_um[None, :9], y_um[:7, None]), abs=4e-4)


@pytest.mark.parametrize("flips", [(True, False), (False, True), (True, True), (False, False)])
def test_it_turns_with_the_camera(flips: tuple[bool, bool]) -> None:
    x_um, y_um = points()
    turned_x, turned_y = (-place if flip else place for place, flip in zip((x_um, y_um), flips, strict=True))
    assert sampled().flipped(*flips).at(turned_x, turned_y) == pytest.approx(sampled().at(x_um, y_um))


def test_it_stretches_with_the_pixels() -> None:
    x_um, y_um = points()
    assert sampled().stretched(1.25).at(1.25 * x_um, 1.25 * y_um) == pytest.approx(sampled().at(x_um, y_um))


def test_beyond_its_border_it_goes_on() -> None:
    profile = sampled()
    beyond, border = np.array([45.0, 80.0, 1e4]), np.array([45.0, 45.0, 45.0])
    assert profile.at(beyond, np.zeros(3)) == pytest.approx(profile.at(border, np.zeros(3)))


def test_it_goes_through_a_file() -> None:
    optics = Optics.model_validate(
        {
            "object_pixel_um": 0.3,
            "sensor_pixel_um": 0.3,
            "excitation": {"kind": "gaussian", "sigma_um": 0.3},
            "emission": {"kind": "gaussian", "sigma_um": 0.3},
            "profile": sampled(),
            "dye": {"photons_per_um2_mw_ms": 1.0},
        }
    )
    assert Optics.model_validate_json(optics.model_dump_json()) == optics


@pytest.mark.parametrize("values", [[[1.0, 1.0], [1.0]], [[1.0, 1.0]], [[1.0], [1.0]], [[1.0, -0.1], [1.0, 1.0]]])
def test_what_is_no_grid_is_refused(values: list[list[float]]) -> None:
    with pytest.raises(ValidationError):
        GridProfile.model_validate({"kind": "grid", "pitch_um": 1.0, "values": values})
