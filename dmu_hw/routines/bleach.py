"""bleach: after which dose 1/e of the dye is left, by looking at one place again and again while light falls on it.

What a place takes is the dose of the whole array times the profile there, both as believed: `register` and `field` come
before. Half of the dose is given at a quarter of the power, so that a dye that fades otherwise in brighter light shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dmu_hw.exposing import NoLightError, fitting_exposure_ms
from dmu_hw.files import Fraction, Positive, Settings
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import CameraMode
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError, Sample

Floats = NDArray[np.float64]
_BLOCKS = 48
"""Along the longer side of the chip."""
_ELECTRONS, _BRIGHT = 60.0, 99.5
"""Of a bright pixel: looks bleach too, and many pixels are seen."""
_DARKS = 6
_DIM = 20.0
"""By so much the light of looks may be dimmer, and by so much exposures are to be longer than all beside them."""
_BEGIN, _FOUND, _STEP = 2.0**-14, 0.9, 0.06
"""The search for a dose that is seen begins with this part of what is allowed, doubles it until this part of the light
is left, and goes on in steps that take this part of it."""
_ENOUGH, _ROUNDS = 0.6, 4
"""As much light as may be left at the end, and how often it is gone on with until then."""
_FAINT = 4
"""The low power is so much lower."""
_COURSE = (0, 1, 1, 0, 0, 1, 1, 0, 0, 1)
"""Which steps are at high (0) and low power (1)."""
_SLACK_MS = 2000.0
_SIGNAL, _LIT = 0.2, 0.05
"""Of the brightest place that is still looked at, and of the full light that it has at least."""
_SURE = 3.0
"""Standard errors."""
_TELLING = 0.5
"""Part of a rate that its error may be, to say anything."""
_LEAST = 0.02
"""Part of the dye that must be lost to say how fast."""


class BleachSettings(Settings):
    """How much light the sample may take, and what is good enough."""

    dose_mj_cm2: Positive = 200_000.0
    """At most, where all light of the array falls; the rig may allow less."""
    power_mw: Positive | None = None
    """null: as much as the rig allows."""
    depends_on_power: Annotated[float, Field(gt=0)] = 0.25
    """By which part the rates at two powers may differ before people are warned; refused beyond four times that."""
    unexplained: Fraction = 0.01
    """Part of the light that a plain decay may leave over: warned of beyond; refused beyond five times that."""


class Routine:
    """Light, a look, more light."""

    Settings = BleachSettings
    sample: ClassVar[Sample] = "specimen"
    needs: ClassVar[tuple[str, ...]] = ("register", "field")
    devices: ClassVar[tuple[str, ...]] = ("dmd", "light")
    per_channel: ClassVar[bool] = True
    valid_days: ClassVar[float] = 90.0

    def __init__(self, settings: BleachSettings) -> None:
        self.settings = settings

    def measure(self, instrument: Instrument) -> Evidence:
        power_mw = min(self.settings.power_mw or instrument.highest_mw, instrument.highest_mw)
        allowed = min(self.settings.dose_mj_cm2, instrument.rig.settings.limits.dose_mj_cm2 or math.inf)
        mirrors = np.ones(instrument.mirrors_shape, dtype=bool)
        sensor = instrument.optics.sensor
        part = min(0.3, _ELECTRONS * sensor.gain_adu_per_e / sensor.largest_adu)
        dim_mw = power_mw / _DIM
        try:
            exposure_ms = fitting_exposure_ms(instrument, mirrors, power_mw=dim_mw, part=part, bright=_BRIGHT)
        except NoLightError as error:
            return Evidence({}, {"no_light": str(error)})
        # the light is on while the camera reads out too: that should be little beside the exposure, and so it is dim
        beside_ms = instrument.dmd.settle_ms + instrument.camera.readout_ms(instrument.mode(exposure_ms))
        brighter = float(np.clip(exposure_ms / (_DIM * beside_ms + 1e-9), 1.0, _DIM))
        instrument.load(mirrors[None])
        look = _Look(dim_mw * brighter, instrument.mode(exposure_ms / brighter))
        return _Fading(instrument, power_mw, look).evidence(allowed)

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        facts = evidence.facts
        if "no_light" in facts:
            raise FitError(f"{facts['no_light']}: is the lamp on, is a specimen under the lens?")
        seen = _seen(evidence, optics)
        both = _decay(seen, 1)
        total = float(seen.doses.sum(axis=1).max())
        lost = 1 - math.exp(-both.rates[0] * total)
        if both.rates[0] < -_SURE * both.errors[0] and lost < -_LEAST:
            raise FitError(
                f"the dye shines {-lost:.1%} brighter after {total:.4g} mJ/cm² than before, expected is "
                "that it fades: does the sample drift, or the lamp?"
            )
        figures = {
            "lost": lost,
            "unexplained": both.unexplained,
            "dose_mj_cm2": total,
            "places": float(len(seen.parts)),
        }
        curves = {"light that is left": Curve(seen.doses.sum(axis=1), both.left, both.fitted, "dose, mJ/cm²", "part")}
        if both.rates[0] < _SURE * both.errors[0] or lost < _LEAST:
            slower = 1 / (max(0.0, both.rates[0]) + _SURE * both.errors[0])
            optics_found: dict[str, Any] = {"dye": {"bleach_dose_mj_cm2": None}}
            return Finding(optics_found, figures | {"slower_than_mj_cm2": slower}, curves=curves)
        figures |= {"bleach_dose_mj_cm2": 1 / both.rates[0], "error": both.errors[0] / both.rates[0]}
        figures |= _power(_decay(seen, 2))
        return Finding({"dye": {"bleach_dose_mj_cm2": 1 / both.rates[0]}}, figures, curves=curves)

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, settings = finding.figures, self.settings
        checks = [
            Check(
                "unexplained",
                figures["unexplained"],
                settings.unexplained,
                5 * settings.unexplained,
                "does the sample drift, or the lamp flicker?",
            )
        ]
        if "bleach_dose_mj_cm2" not in figures:
            slower = figures["slower_than_mj_cm2"]
            advice = f"it bleaches slower than {slower:.3g} mJ/cm²; a higher dose_mj_cm2 tells more"
            return (*checks, Check("lost", figures["lost"], _LEAST, -1.0, advice))
        checks.append(Check("error", figures["error"], 0.05, 0.2, "a higher dose_mj_cm2 tells it better"))
        if "depends_on_power" in figures:
            # no more is asked than can be told
            spare = 2 * figures["depends_on_power_error"]
            advice = "the dye fades otherwise in brighter light: measure at the power of runs"
            limit = settings.depends_on_power + spare
            checks.append(Check("depends_on_power", abs(figures["depends_on_power"]), limit, 4 * limit, advice))
        return tuple(checks)


def _power(decay: _Decay) -> dict[str, float]:
    """By how much the dye fades faster at the low power, where that can be told."""
    high, low = decay.rates
    if min(high, low) <= 0 or max(decay.errors[0] / high, decay.errors[1] / low) > _TELLING:
        return {}
    error = math.hypot(decay.errors[0] / high, decay.errors[1] / low) * low / high
    return {"depends_on_power": low / high - 1, "depends_on_power_error": error}


@dataclass(frozen=True)
class _Look:
    """How the sample is looked at."""

    power_mw: float
    mode: CameraMode


class _Fading:
    """One place, and what it has taken."""

    def __init__(self, instrument: Instrument, power_mw: float, look: _Look) -> None:
        self.instrument = instrument
        self.powers_mw = power_mw, power_mw / _FAINT
        self.look = look
        self.taken_mw_ms = [0.0, 0.0]
        """At the high power, and at low ones."""
        self.looks: list[NDArray[np.float32]] = []
        self.before_mw_ms: list[tuple[float, float]] = []
        dark = instrument.dark(look.mode.exposure_ms, _DARKS)
        self.dark = _blocks(dark.mean(axis=0))

    def evidence(self, allowed: float) -> Evidence:
        self._look()
        dose, step = _BEGIN * allowed, allowed / 2 / len(_COURSE)
        while self._given() + dose <= allowed / 2:
            self._give(0, dose)
            dose *= 2
            self._look()
            self.instrument.progress(len(self.looks), 24)
            left = self._left()
            if left < _FOUND:
                step = _STEP * self._given() / -math.log(max(left, 0.05))
                break
        for _ in range(_ROUNDS):
            step = min(step, max(0.0, allowed - self._given()) / len(_COURSE))
            for number, power in enumerate(_COURSE):
                self._give(power, step)
                self._look()
                self.instrument.progress(24 + number - len(_COURSE), 24)
            left = self._left()
            if left < _ENOUGH or self._given() > 0.98 * allowed:
                break
            step = _STEP * self._given() / -math.log(min(left, 0.99))
        arrays = {"looks": np.stack(self.looks), "dark": self.dark}
        facts = {
            "before_mw_ms": self.before_mw_ms,
            "look_mw": self.look.power_mw,
            "exposure_ms": self.look.mode.exposure_ms,
            "block_px": _side(self.instrument.sensor_shape),
        }
        return Evidence(arrays, facts)

    def _look(self) -> None:
        """One frame; half of its light counts as before it."""
        instrument, mode, power_mw = self.instrument, self.look.mode, self.look.power_mw
        instrument.camera.configure(mode)
        high, before = self.taken_mw_ms
        with instrument.lit(power_mw, 4 * mode.exposure_ms + 2 * _SLACK_MS):
            instrument.dmd.show(0)
            began_ms = instrument.clock.now_ms()
            instrument.clock.sleep_ms(instrument.dmd.settle_ms)
            frame = instrument.snap(mode)
            instrument.dmd.show(None)
            self.taken_mw_ms[1] += power_mw * (instrument.clock.now_ms() - began_ms)
        self.looks.append(_blocks(frame))
        self.before_mw_ms.append((high, (before + self.taken_mw_ms[1]) / 2))

    def _give(self, power: int, dose_mj_cm2: float) -> None:
        """Light that nobody looks at, in as many goes as the rig wants."""
        instrument, power_mw = self.instrument, self.powers_mw[power]
        left_ms = dose_mj_cm2 / instrument.optics.dose_mj_cm2(power_mw, 1.0)
        longest_ms = max(1.0, instrument.rig.settings.limits.on_time_ms - 2 * _SLACK_MS)
        while left_ms > 0:
            part_ms = min(left_ms, longest_ms)
            with instrument.lit(power_mw, part_ms + _SLACK_MS):
                instrument.dmd.show(0)
                began_ms = instrument.clock.now_ms()
                instrument.clock.sleep_ms(part_ms)
                instrument.dmd.show(None)
                self.taken_mw_ms[power] += power_mw * (instrument.clock.now_ms() - began_ms)
            left_ms -= part_ms

    def _given(self) -> float:
        """Dose so far, looks and all."""
        return self.instrument.optics.dose_mj_cm2(sum(self.taken_mw_ms), 1.0)

    def _left(self) -> float:
        """Part of the light of the bright places."""
        first, last = (np.asarray(look, dtype=float) - self.dark for look in (self.looks[0], self.looks[-1]))
        bright = first > _SIGNAL * np.percentile(first, 99)
        return float(last[bright].sum() / max(first[bright].sum(), 1e-9))


# ---------------------------------------------------------------- pure


@dataclass(frozen=True)
class _Seen:
    """Places that tell something."""

    light: Floats
    """(look, place), in ADU."""
    parts: Floats
    """Of the full light that each of them has."""
    doses: Floats
    """(look, power): what came before, in full light."""


@dataclass(frozen=True)
class _Decay:
    rates: tuple[float, ...]
    """A mJ/cm²: one for all light, or one a power."""
    errors: tuple[float, ...]
    unexplained: float
    """Root mean square over the looks, as a part of their light."""
    left: Floats
    """Part of the light of all places, for each look…"""
    fitted: Floats
    """…and what the decay makes of it."""


def _seen(evidence: Evidence, optics: Optics) -> _Seen:
    facts = evidence.facts
    looks = evidence.arrays["looks"].astype(float) - evidence.arrays["dark"].astype(float)
    rows, columns = looks.shape[1:]
    side_um = facts["block_px"] * optics.sensor_pixel_um
    x_um = (np.arange(columns) - (columns - 1) / 2) * side_um
    y_um = (np.arange(rows) - (rows - 1) / 2) * side_um
    column, row = optics.mirrors.to_sample.invert(*np.meshgrid(x_um, y_um))
    height, width = optics.mirrors.shape
    inside = (np.abs(column) < width / 2) & (np.abs(row) < height / 2)
    parts = np.asarray(optics.profile.at(x_um[None, :], y_um[:, None])) * inside
    first = looks[: max(1, len(looks) // 4)].mean(axis=0)
    shining = first - _background_adu(optics, facts)
    lit = parts > _LIT * parts.max()
    bright = lit & (shining > max(_SIGNAL * np.percentile(shining[lit], 99), 1.0)) if lit.any() else lit
    if bright.sum() < 3:
        raise FitError(
            f"{bright.sum()} places shine where the mirrors are believed to send light, expected are many: is a "
            "specimen under the lens, and is `register` still true?"
        )
    doses = np.array(facts["before_mw_ms"]) * optics.dose_mj_cm2(1.0, 1.0)
    return _Seen((looks - _background_adu(optics, facts))[:, bright], parts[bright], doses)


def _background_adu(optics: Optics, facts: Any) -> float:
    """Light of no dye, as believed: it does not fade."""
    photons = optics.dye.background_photons_per_um2_mw_ms * facts["look_mw"] * facts["exposure_ms"]
    sensor = optics.sensor
    return float(photons * optics.sensor_pixel_um**2 * sensor.quantum_efficiency * sensor.gain_adu_per_e)


def _decay(seen: _Seen, powers: int) -> _Decay:
    """The rate, one for all light or one a power, at which all places fade; each has a brightness of its own."""
    from scipy.optimize import least_squares  # noqa: PLC0415 - slow to load

    doses = seen.doses if powers == 2 else seen.doses.sum(axis=1, keepdims=True)
    weight = 1 / np.sqrt(np.maximum(seen.light.mean(axis=0), 1.0))
    scale = 1 / max(float(doses.sum(axis=1).max()), 1e-12)

    def explained(rates: Floats) -> Floats:
        left = np.exp(-np.outer(doses @ (rates * scale), seen.parts))
        return np.asarray(left * (left * seen.light).sum(axis=0) / (left**2).sum(axis=0))

    def residuals(rates: Floats) -> Floats:
        return np.asarray(((explained(rates) - seen.light) * weight).ravel())

    found = least_squares(residuals, np.full(powers, 0.3), bounds=(-5.0, 50.0))
    fitted = explained(found.x)
    whole, whole_fitted = seen.light.sum(axis=1), fitted.sum(axis=1)
    unexplained = float(np.sqrt(np.mean((whole / whole_fitted - 1) ** 2)))
    # frames vary as a whole, with the lamp, and so no place tells more than the looks do
    jacobian = np.stack(
        [
            (explained(found.x + step) - explained(found.x - step)).sum(axis=1) / (2e-3 * whole_fitted)
            for step in 1e-3 * np.eye(powers)
        ]
    )
    free = max(1, len(whole) - powers - 1)
    spread = float(((whole / whole_fitted - 1) ** 2).sum()) / free
    errors = np.sqrt(np.diag(np.linalg.pinv(jacobian @ jacobian.T)) * max(spread, 1e-8))
    rates = tuple(float(rate * scale) for rate in found.x)
    return _Decay(
        rates,
        tuple(float(error * scale) for error in errors),
        unexplained,
        whole / whole_fitted[0],
        whole_fitted / whole_fitted[0],
    )


def _side(shape: tuple[int, ...]) -> int:
    return max(1, max(shape) // _BLOCKS)


def _blocks(frame: NDArray[Any]) -> NDArray[np.float32]:
    """Means of blocks round the middle of a frame."""
    side = _side(frame.shape)
    rows, columns = (length // side for length in frame.shape)
    top, left = ((length - count * side) // 2 for length, count in zip(frame.shape, (rows, columns), strict=True))
    cut = frame[top : top + rows * side, left : left + columns * side].reshape(rows, side, columns, side)
    return np.asarray(cut.mean(axis=(1, 3)), dtype=np.float32)
