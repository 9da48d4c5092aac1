"""What light has done to a place is found there again, whatever window it is seen through."""

from __future__ import annotations

import numpy as np
import pytest

from dmu_hw.drivers.simulated.dosemap import DoseMap, _starts, _sums

PITCH = 2.0
TILE_UM = 64 * PITCH
"""Tiles meet here, and at 0."""


@pytest.mark.parametrize(
    "corner_um", [(10.0, 20.0), (0.0, 0.0), (TILE_UM, TILE_UM), (-TILE_UM, -3 * TILE_UM), (-TILE_UM, 5 * TILE_UM)]
)
def test_a_dose_is_where_it_was_given_across_the_borders_of_tiles(corner_um: tuple[float, float]) -> None:
    """A window of 6×4 nodes with its middle at the corner of a tile, an asymmetric dose, read through a larger one."""
    doses = DoseMap(PITCH)
    given = np.arange(1, 25, dtype=np.float32).reshape(6, 4)
    doses.add(corner_um, given, PITCH)
    assert np.array_equal(doses.read(corner_um, (6, 4), PITCH), given)
    wide = doses.read((corner_um[0] + PITCH, corner_um[1] - 3 * PITCH), (16, 10), PITCH)
    expected = np.zeros((16, 10), dtype=np.float32)
    expected[8:14, 2:6] = given
    assert np.array_equal(wide, expected)


def test_doses_add_up() -> None:
    doses = DoseMap(PITCH)
    doses.add((0.0, 0.0), np.full((4, 4), 3.0, dtype=np.float32), PITCH)
    doses.add((PITCH * 2, 0.0), np.full((4, 4), 4.0, dtype=np.float32), PITCH)
    assert doses.read((PITCH, 0.0), (1, 6), PITCH)[0].tolist() == [3, 3, 7, 7, 4, 4]


def test_fine_pixels_are_averaged_over_a_node() -> None:
    doses = DoseMap(PITCH)
    fine = np.arange(64, dtype=np.float32).reshape(8, 8)
    doses.add((-TILE_UM, TILE_UM), fine, PITCH / 4)
    means = fine.reshape(2, 4, 2, 4).mean(axis=(1, 3))
    assert doses.read((-TILE_UM, TILE_UM), (2, 2), PITCH) == pytest.approx(means)
    assert doses.read((-TILE_UM, TILE_UM), (8, 8), PITCH / 4) == pytest.approx(np.kron(means, np.ones((4, 4))))


def test_a_place_without_light_has_no_dose_and_takes_no_memory() -> None:
    doses = DoseMap(PITCH)
    doses.add((1e6, -1e6), np.ones((4, 4), dtype=np.float32), PITCH)
    assert not doses.read((0.0, 0.0), (1000, 1000), PITCH).any()
    assert len(doses._tiles) <= 4


@pytest.mark.parametrize("axis", [0, 1])
def test_sums_are_those_of_numpy_to_the_last_bit(axis: int) -> None:
    rng = np.random.default_rng(3)
    dose = rng.random((90, 70)).astype(np.float32)
    starts = _starts(np.repeat(np.arange(40), rng.integers(1, 6, 40))[: dose.shape[axis]])
    assert np.array_equal(_sums(dose, starts, axis), np.add.reduceat(dose, starts, axis=axis))
