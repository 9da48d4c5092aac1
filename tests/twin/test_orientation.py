"""What was registered from the full frame holds in any window, at any binning, and however the camera turns its frames:
patterns designed on the object grid are found where they were designed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.belief import Beliefs
from dmu_hw.data import PatternStack
from dmu_hw.orientation import Orientation
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.physics.warp import Warp
from dmu_hw.ports import CameraMode, Roi
from tests.twin.rigs import PIXEL_UM, SENSOR_PX, Drawn, draw_rig, measured, store_of

Array = np.ndarray[Any, np.dtype[Any]]
FLIPS = [(False, False), (True, False), (False, True), (True, True)]
SPACING_PX = 48
RADII_PX = (9, 11, 13, 15, 17)
"""Edges of spots are rounded to whole mirrors, otherwise in spots of every size."""
POWER_MW, EXPOSURE_MS = 10.0, 100.0


@dataclass(frozen=True)
class Registered:
    """A rig that was registered with frames as the chip gives them."""

    seed: int
    folder: Path

    def turned(self, flips: tuple[bool, bool]) -> Drawn:
        """The same rig with a camera that turns its frames. It was not measured again."""
        return rig(self.seed, self.folder, flips)


def rig(seed: int, folder: Path, flips: tuple[bool, bool]) -> Drawn:
    """Much light on a deep well, so that spots are told to a hundredth of a pixel."""
    return draw_rig(
        seed,
        folder,
        camera={"flip_x": flips[0], "flip_y": flips[1]},
        truth={"sensor": {"full_well_e": 1e6, "gain_adu_per_e": 0.06}},
        calibration={"results": "results", "demand": ["register"]},
    )


@pytest.fixture(scope="module", name="registered", params=[36, 0])
def _registered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """Mirrors of 1.1 and 1.2 camera pixels over the whole chip, one array seen in a mirror, both turned and bent."""
    folder = tmp_path_factory.mktemp("registered")
    drawn = rig(request.param, folder, (False, False))
    (outcome,) = measured(drawn, {"routine": "register"})
    assert outcome.good
    return Registered(request.param, folder)


def spots(roi: Roi) -> tuple[PatternStack, Array]:
    """Discs in the middle of every square of a window, on the object grid, a pattern for each of their sizes; and their
    middles (n, 2), x and y."""
    y, x = np.mgrid[: roi.height, : roi.width] + 0.5
    away = np.hypot(x % SPACING_PX - SPACING_PX / 2, y % SPACING_PX - SPACING_PX / 2)
    rows, columns = roi.height // SPACING_PX, roi.width // SPACING_PX
    middles = [((j + 0.5) * SPACING_PX, (i + 0.5) * SPACING_PX) for i in range(rows) for j in range(columns)]
    whole = (y < rows * SPACING_PX) & (x < columns * SPACING_PX)
    return PatternStack("spots", np.stack([(away < radius) & whole for radius in RADII_PX]), 1), np.array(middles)


def shown(drawn: Drawn, roi: Roi, binning: int) -> tuple[Array, Array]:
    """Middles of spots as designed and as found in frames of the camera, in unbinned pixels from the window's corner:
    with what is believed of frames, and as a plan has the corner of a field."""
    optics = Beliefs(drawn.rig, store_of(drawn), datetime.now(UTC)).of_frames("").optics
    stack, middles = spots(roi)
    corner_um = ((roi.x - SENSOR_PX / 2) * optics.sensor_pixel_um, (roi.y - SENSOR_PX / 2) * optics.sensor_pixel_um)
    designed = onto_mirrors(stack, optics, corner_um)
    frames = np.concatenate([designed, np.ones_like(designed[:1]), np.zeros_like(designed[:1])])
    with drawn.rig.opened() as rig:
        drawn.world.hold("dye")
        rig.dmd.load(frames)
        rig.camera.configure(CameraMode(EXPOSURE_MS / binning, binning, roi))
        rig.light.set_power(POWER_MW)
        rig.light.on()
        taken = []
        for index in range(len(frames)):
            rig.dmd.show(index)
            rig.clock.sleep_ms(1.0)
            rig.camera.arm(1)
            taken.append(rig.camera.pop(1e4).pixels.astype(float))
        rig.light.off()
    *seen, on, off = taken
    full = np.maximum(on - off, 0.05 * np.percentile(on - off, 99))
    return middles, np.mean([centroids((each - off) / full, middles, binning) for each in seen], axis=0)


def centroids(lit: Array, middles: Array, binning: int) -> Array:
    """Of the light in the square round each of the places."""
    y, x = (np.mgrid[: lit.shape[0], : lit.shape[1]] + 0.5) * binning
    number = (y // SPACING_PX * 1000 + x // SPACING_PX).astype(int)
    found = []
    for middle_x, middle_y in middles:
        here = number == int(middle_y // SPACING_PX * 1000 + middle_x // SPACING_PX)
        light = np.clip(lit[here], 0, 1.2)
        light = np.where(light < 0.02, 0, light)
        found.append([(light * x[here]).sum() / light.sum(), (light * y[here]).sum() / light.sum()])
    return np.array(found)


def smooth(middles: Array, away: Array) -> Array:
    """What displacements have in common, at the middles: spots by themselves are rounded to whole mirrors."""
    x, y = ((middles - middles.mean(axis=0)) / 100).T
    terms = np.column_stack([np.ones_like(x), x, y])
    keep = np.ones(len(away), dtype=bool)
    for _ in range(3):
        fit = terms @ np.linalg.lstsq(terms[keep], away[keep], rcond=None)[0]
        off = np.hypot(*(away - fit).T)
        keep = off < 3 * np.median(off) + 1e-9
    return np.hypot(*fit.T)


WINDOWS = {
    1: Roi(0, 0, SENSOR_PX, SENSOR_PX),
    2: Roi(34, 10, 240, 288),
    4: Roi(100, 52, 240, 192),
    8: Roi(8, 128, 336, 240),
}
"""By binning; all but the first are nowhere near the middle of the chip. Spots are cut by whole binned pixels."""


@pytest.mark.parametrize("binning", WINDOWS)
@pytest.mark.parametrize("flips", FLIPS)
def test_spots_are_found_where_they_were_designed(
    flips: tuple[bool, bool], binning: int, registered: Registered
) -> None:
    middles, found = shown(registered.turned(flips), WINDOWS[binning], binning)
    common = smooth(middles, found - middles)
    assert len(middles) >= 20
    assert common.max() < 0.05


def test_the_same_frames_however_they_are_turned(registered: Registered) -> None:
    """A window of the chip as it lies in frames that are turned shows the same specimen, turned."""
    plain = None
    for flips in FLIPS:
        drawn = registered.turned(flips)
        orientation = Orientation(*flips, (SENSOR_PX, SENSOR_PX))
        with drawn.rig.opened() as opened:
            opened.dmd.load(np.ones((1, *opened.dmd.shape), dtype=bool))
            opened.dmd.show(0)
            opened.camera.configure(CameraMode(EXPOSURE_MS, 4, orientation.window(Roi(40, 100, 160, 64))))
            opened.light.set_power(POWER_MW)
            opened.light.on()
            opened.clock.sleep_ms(1.0)
            opened.camera.arm(1)
            upright = orientation.turned(opened.camera.pop(1e4).pixels).copy()
        plain = upright if plain is None else plain
        assert np.array_equal(upright, plain)


@pytest.mark.parametrize("flips", FLIPS)
def test_beliefs_turn_into_frames_and_back(flips: tuple[bool, bool], registered: Registered) -> None:
    """A mirror is seen at the mirrored place of the frame; the lens bends the same light the same way."""
    drawn = registered.turned(flips)
    bend = ((0.5, 0.0, -0.3, 0.1, 0.2, 0.0, 0.0), (0.0, 0.4, 0.0, 0.1, 0.0, 0.3, 0.3))
    lens = Warp(matrix=((1.0, 0.1), (-0.05, 0.97)), shift=(1.5, -2.0), distortion=bend, radius=60.0)
    chip = drawn.world.truth.model_copy(update={"sample_to_sensor": lens})
    orientation = Orientation(*flips, (SENSOR_PX, SENSOR_PX))
    frames = orientation.optics(chip)
    column, row = np.array([-200.0, 0.0, 150.0]), np.array([100.0, -30.0, 10.0])
    sign_x, sign_y = (-1.0 if flip else 1.0 for flip in flips)
    for optics, sx, sy in ((chip, 1.0, 1.0), (frames, sign_x, sign_y)):
        x_um, y_um = optics.sample_to_sensor.apply(*optics.mirrors.to_sample.apply(column, row))
        light = optics.profile.at(x_um, y_um)
        if optics is chip:
            expected = (x_um, y_um, light)
        assert x_um * sx == pytest.approx(expected[0])
        assert y_um * sy == pytest.approx(expected[1])
        assert light == pytest.approx(expected[2])
    again = orientation.optics(frames)
    assert again.mirrors == chip.mirrors
    assert again.sample_to_sensor == chip.sample_to_sensor
    assert frames.sensor_pixel_um == PIXEL_UM
