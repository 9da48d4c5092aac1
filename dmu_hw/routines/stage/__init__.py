"""stage: how large a pixel is in the stage's own micrometres, how camera and stage are turned, and the backlash.

The specimen is moved by known ways, to and fro along both axes, and looked for in what the camera shows.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dmu_hw.errors import DeviceError
from dmu_hw.exposing import NoLightError, fitting_exposure_ms
from dmu_hw.files import Fraction, NonNegative, Positive, Settings
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import Roi, Stage
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError, Sample
from dmu_hw.routines.stage.shifts import Pictures, pairs_of

Floats = NDArray[np.float64]
Place = tuple[float, float]
_LONGEST_PX = 1024
"""Side of the window that is looked at."""
_WAY = (0.5, 1.0, 0.5, 0.0, -0.5, -1.0, -0.5, 0.0)
"""Along an axis, in steps; each begins where it was come to from below."""
_SHORT = 0.3
"""Of the first moves along the axes, by which the others are foretold."""
_STEPS_A_WINDOW = 3.0
_PART, _BRIGHT = 0.5, 99.9
_ALIKE = 0.5
"""How alike two pictures of one place must be."""
_MOVE_MS = 10_000.0
_SCALES = 2.0
"""By how much the believed pixel may be wrong."""


class StageSettings(Settings):
    """How to measure, and what is good enough."""

    power_mw: Positive | None = None
    """null: half of what the rig allows."""
    step_um: Positive | None = None
    """Longest way from the middle; null: as the light and the window allow."""
    settle_ms: NonNegative = 50.0
    """From arrival to exposure."""
    residual_px: Positive = 0.1
    """Beyond it people are warned; refused beyond three times that."""
    angle_deg: Positive = 0.5
    """Beyond it people are warned."""
    pixel_change: Fraction = 0.05
    """Part by which a pixel may differ from what is believed: warned of beyond; refused beyond four times that."""


class Routine:
    """Steps of the stage against steps of the picture."""

    Settings = StageSettings
    sample: ClassVar[Sample] = "specimen"
    needs: ClassVar[tuple[str, ...]] = ()
    devices: ClassVar[tuple[str, ...]] = ("stage", "camera")
    per_channel: ClassVar[bool] = False
    valid_days: ClassVar[float] = 180.0

    def __init__(self, settings: StageSettings) -> None:
        self.settings = settings

    # ---------------------------------------------------------------- measure

    def measure(self, instrument: Instrument) -> Evidence:
        stage = instrument.rig.stage
        if stage is None:
            raise DeviceError("stage", "this rig has none")
        power_mw = self.settings.power_mw or instrument.highest_mw / 2
        mirrors = np.ones(instrument.mirrors_shape, dtype=bool)
        try:
            exposure_ms = fitting_exposure_ms(instrument, mirrors, power_mw=power_mw, part=_PART, bright=_BRIGHT)
        except NoLightError as error:
            return Evidence({}, {"no_light": str(error)})
        window = _window(instrument.whole)

        def look() -> NDArray[np.uint16]:
            instrument.clock.sleep_ms(self.settings.settle_ms)
            frames = instrument.take(mirrors[None], power_mw=power_mw, exposure_ms=exposure_ms, roi=window)
            return np.asarray(frames[0])

        off = instrument.take(~mirrors[None], power_mw=power_mw, exposure_ms=exposure_ms, repeats=4, roi=window)
        dark = off.mean(axis=0, dtype=np.float32)
        home_um = stage.position_um()
        step_um = self.settings.step_um or _step_px(look() - dark) * instrument.optics.sensor_pixel_um
        places, loaded = _route(step_um)
        frames = []
        try:
            _approach(stage, home_um, step_um)
            for number, (x_um, y_um) in enumerate(places):
                stage.move_um(home_um[0] + x_um, home_um[1] + y_um, _MOVE_MS)
                frames.append(look())
                instrument.progress(number + 1, len(places))
        finally:
            _approach(stage, home_um, step_um)
        facts = {"step_um": step_um, "places_um": places, "from_above": loaded, "exposure_ms": exposure_ms}
        facts["signs"] = instrument.orientation.signs
        return Evidence({"frames": np.stack(frames), "dark": dark}, facts)

    # ---------------------------------------------------------------- fit

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        facts = evidence.facts
        if "no_light" in facts:
            raise FitError(f"{facts['no_light']}: is the lamp on, is a specimen under the lens?")
        places = np.array(facts["places_um"], dtype=float)
        above = np.array(facts["from_above"], dtype=float)
        dark = evidence.arrays["dark"].astype(float)
        pictures = Pictures(_without_odd(evidence.arrays["frames"].astype(float) - dark, dark))
        pairs, shifts, alike = _shifts(pictures, places, optics.sensor_pixel_um)
        good = alike > _ALIKE
        if good.sum() < 0.7 * len(good):
            raise FitError(
                f"{good.sum()} of {len(good)} pairs of pictures show the same place (alike by {_ALIKE} at least, the "
                f"median is {np.median(alike):.2f}): is there structure in focus, and does the stage move?"
            )
        one, other = np.array(pairs)[good].T
        # a stage is wired to go with the frames as the camera gives them
        signs = np.array(facts["signs"])
        found = _Moves(places[other] - places[one], above[other] - above[one], shifts[good] * signs)
        return self._finding(found, pictures, float(np.median(alike)), optics)

    def _finding(self, found: _Moves, pictures: Pictures, alike: float, optics: Optics) -> Finding:
        pixel_um, now_um = found.pixel_um, optics.sensor_pixel_um
        backlash_um = found.backlash_um
        figures = {
            "pixel_um": pixel_um,
            "pixel_error_um": pixel_um * found.error / 2,
            "pixel_change": pixel_um / now_um - 1,
            "angle_deg": found.angle_deg,
            "angle_error_deg": math.degrees(found.error),
            "mirrored": float(found.mirrored),
            "anisotropy": found.anisotropy - 1,
            "skew_deg": found.skew_deg,
            "backlash_x_um": backlash_um[0],
            "backlash_y_um": backlash_um[1],
            "residual_px": found.residual_px,
            "alike": alike,
        }
        ways_um = np.hypot(*found.ways_um.T)
        return Finding(
            optics={"sensor_pixel_um": pixel_um, "object_pixel_um": pixel_um * optics.object_pixel_um / now_um},
            figures=figures,
            pictures={"edges of the specimen": pictures.even[0][pictures.lit]},
            curves={
                "moves of the picture against those of the stage": Curve(
                    ways_um, np.hypot(*found.shifts_px.T), np.hypot(*found.explained_px.T), "way, µm", "shift, px"
                )
            },
        )

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, settings = finding.figures, self.settings
        turned = abs(figures["angle_deg"])
        backlash_um = max(figures["backlash_x_um"], figures["backlash_y_um"])
        return (
            Check("residual_px", figures["residual_px"], settings.residual_px, 3 * settings.residual_px, _UNSTEADY),
            Check("angle_error_deg", figures["angle_error_deg"], 0.05, 0.25, _UNSTEADY),
            Check(
                "pixel_change",
                abs(figures["pixel_change"]),
                settings.pixel_change,
                4 * settings.pixel_change,
                "is the objective in place that the rig's file names? If so, mend its sensor_pixel_um",
            ),
            Check("angle_deg", turned, settings.angle_deg, 45.0, "turn the camera, or how its frames are handed over"),
            Check("mirrored", figures["mirrored"], 0.5, 0.5, "the picture is mirrored: say flip_x or flip_y, or swap"),
            Check("anisotropy", abs(figures["anisotropy"]), 0.005, 0.05, "the axes of the stage count differently"),
            Check("skew_deg", abs(figures["skew_deg"]), 0.3, 3.0, "the axes of the stage are not square"),
            Check("backlash_um", backlash_um, 5 * figures["pixel_um"], 1000.0, "runs come to places from below"),
        )


_UNSTEADY = "did the specimen drift, or the stage tremble? More settle_ms may help"


class _Moves:
    """Moves of the picture as linear in those of the stage, and in how often its screws were turned back."""

    def __init__(self, ways_um: Floats, turns: Floats, shifts_px: Floats) -> None:
        self.ways_um, self.shifts_px = ways_um, shifts_px
        design = np.concatenate([ways_um, turns], axis=1)
        found, *_ = np.linalg.lstsq(design, -shifts_px, rcond=None)
        self.explained_px: Floats = -design @ found
        rest = shifts_px - self.explained_px
        free = max(1, rest.size - found.size)
        self.residual_px = float(np.sqrt((rest**2).sum() / free))
        self._matrix, self._slack = found[:2].T, found[2:].T
        covariance = np.linalg.pinv(design.T @ design) * self.residual_px**2
        length = math.sqrt(abs(np.linalg.det(self._matrix)))
        self.error = float(np.sqrt(np.trace(covariance[:2, :2]) / 2)) / length
        """Of lengths as a part of them, and of angles."""
        self.mirrored = bool(np.linalg.det(self._matrix) < 0)
        self.pixel_um = 1 / length

    @property
    def angle_deg(self) -> float:
        (a, b), (c, d) = self._matrix @ np.diag([1.0, -1.0 if self.mirrored else 1.0])
        return math.degrees(math.atan2(c - b, a + d))

    @property
    def anisotropy(self) -> float:
        along, across = np.hypot(*self._matrix)
        return float(along / across)

    @property
    def skew_deg(self) -> float:
        along, across = self._matrix.T / np.hypot(*self._matrix)[:, None]
        return math.degrees(math.asin(float(along @ across)))

    @property
    def backlash_um(self) -> tuple[float, float]:
        """How far short the stage stops when it comes from above: along its own axes."""
        x_um, y_um = np.sum(self._slack * self._matrix, axis=0) / np.sum(self._matrix**2, axis=0)
        return max(0.0, float(x_um)), max(0.0, float(y_um))


def _shifts(pictures: Pictures, places: Floats, pixel_um: float) -> tuple[list[tuple[int, int]], Floats, Floats]:
    """All pairs of frames that overlap, their shifts in pixels, and how alike they are. The first two moves are short,
    one along each axis, and foretell the others, wherever the camera is turned to."""
    first = [pictures.shift(0, number, np.zeros(2)) for number in (1, 2)]
    ways = np.stack([places[number] - places[0] for number in (1, 2)])
    if min(alike for _, alike in first) < _ALIKE or np.linalg.det(np.stack([shift for shift, _ in first])) == 0:
        why = f"{first[0][1]:.2f} along x and {first[1][1]:.2f} along y, expected is {_ALIKE} at least"
        raise FitError(
            f"what is seen after a short move is not what was seen before it (alike by {why}): is there "
            "structure in focus, and does the stage move?"
        )
    foretold = np.linalg.solve(ways, np.stack([shift for shift, _ in first]))
    lengths = np.hypot(*foretold) * pixel_um
    if not np.all((lengths > 1 / _SCALES) & (lengths < _SCALES)):
        raise FitError(
            f"a move of 1 µm takes the picture {lengths[0]:.3g} µm along x and {lengths[1]:.3g} µm along y: is "
            "there structure in focus, is the objective in place that the rig's file names, and does the stage move?"
        )
    pairs = pairs_of([(x, y) for x, y in places], 1.05 * float(np.abs(places).max()))
    found = [pictures.shift(i, j, (places[j] - places[i]) @ foretold) for i, j in pairs]
    return pairs, np.array([shift for shift, _ in found]), np.array([alike for _, alike in found])


def _without_odd(frames: Floats, dark: Floats) -> Floats:
    """Frames with the pixels that shine in the dark taken from their neighbours."""
    from scipy.ndimage import median_filter  # noqa: PLC0415 - slow to load

    level = np.median(dark)
    noise = 1.4826 * np.median(np.abs(dark - level)) + 1e-9
    odd = np.abs(dark - level) > 8 * noise
    return np.stack([np.where(odd, median_filter(frame, 3), frame) for frame in frames])


def _route(step_um: float) -> tuple[list[Place], list[Place]]:
    """Places that the stage is sent to, one after the other, and along which axes it came there from above. It begins
    with a short move along each axis, which foretell the others."""
    short_um = _SHORT * step_um
    places: list[Place] = [(0.0, 0.0), (short_um, 0.0), (short_um, short_um)]
    places += [(part * step_um, 0.0) for part in (-1.0, *_WAY)] + [(0.0, part * step_um) for part in (-1.0, *_WAY)]
    above: list[Place] = [(0.0, 0.0)]
    for (old_x, old_y), (new_x, new_y) in pairwise(places):
        x, y = above[-1]
        above.append((x if new_x == old_x else float(new_x < old_x), y if new_y == old_y else float(new_y < old_y)))
    return places, above


def _approach(stage: Stage, home_um: tuple[float, float], step_um: float) -> None:
    """To where it stood, from below in both axes."""
    (x_low, _), (y_low, _) = stage.limits_um
    stage.move_um(max(x_low, home_um[0] - step_um), max(y_low, home_um[1] - step_um), _MOVE_MS)
    stage.move_um(*home_um, _MOVE_MS)


def _window(whole: Roi) -> Roi:
    """The middle of the chip."""
    width, height = min(whole.width, _LONGEST_PX), min(whole.height, _LONGEST_PX)
    return Roi(whole.x + (whole.width - width) // 2, whole.y + (whole.height - height) // 2, width, height)


def _step_px(frame: Any) -> float:
    """As far as the picture may go while enough of it stays in the light."""
    rows, columns = Pictures(np.asarray(frame, dtype=float)[None]).lit
    return max(4.0, float(min(rows.stop - rows.start, columns.stop - columns.start)) / _STEPS_A_WINDOW)
