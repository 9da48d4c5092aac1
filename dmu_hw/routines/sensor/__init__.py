"""The camera by itself: offset, gain, read noise and their maps, where it clips, and pixels that are not to be trusted.

By photon transfer: counted light has a variance equal to its mean, so the noise tells what one electron is, and no
light needs to be known. What part of the photons become electrons cannot be known so, and stays as believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError
from dmu_hw.routines.sensor import pixels, rounding
from dmu_hw.routines.sensor.series import Series
from dmu_hw.routines.sensor.settings import SensorSettings
from dmu_hw.routines.sensor.transfer import Saturation, Transfer, gathered, linearity, saturation, transfer

if TYPE_CHECKING:
    from dmu_hw.instrument import Instrument

__all__ = ["Routine", "SensorSettings"]
_FEW_NUMBERS = 16
"""Of fewer it cannot be said what they have in common."""
_MOSTLY_DARK = 0.5
_LIT_FRACTION = 0.01
"""Of the chip, from where on it can be said how much the sensitivity of pixels differs."""


class Routine:
    """Offset, gain, noise, and bad pixels."""

    Settings = SensorSettings
    sample, needs, devices, per_channel, valid_days = "dye", (), ("camera",), False, 30.0

    def __init__(self, settings: SensorSettings) -> None:
        self.settings = settings

    def measure(self, instrument: Instrument) -> Evidence:
        return Series(instrument, self.settings).take()

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        _check_numbers(evidence.facts)
        if "pairs" not in evidence.arrays:
            raise FitError(
                "no light reaches the camera, however long it exposes: is the lamp on, is nothing in the way, and does "
                "an even layer of dye lie there?"
            )
        dark = pixels.Dark.of(evidence)
        window = _window(evidence)
        pairs, fine = evidence.arrays["pairs"], dark.cool[window]
        saturated = saturation(evidence.arrays.get("tops", pairs[:0]), dark.offset[window], fine)
        floor = dark.noise_variance or 0.0
        found = transfer(pairs, dark.offset[window], fine, floor, saturated)
        if saturated is not None and not saturated.is_quiet(found.gain_adu_per_e):
            saturated = None
            found = transfer(pairs, dark.offset[window], fine, floor, saturated)
        chip = _Chip(evidence, dark, found.gain_adu_per_e)
        line = linearity(pairs, np.array(evidence.facts["pairs_ms"]), dark.offset[window], fine, saturated)
        figures = {
            "gain_adu_per_e": found.gain_adu_per_e,
            "gain_error": found.error,
            "gain_bend": abs(found.bend),
            "zero_fraction": float(evidence.facts["zero_fraction"]),
            "largest_adu": float(evidence.facts["largest_adu"]),
            "linearity_error": float(np.abs(line[:, 2]).max(initial=0.0)),
            **chip.figures,
            **_ends(evidence, dark, found, saturated, optics),
            **_binning(evidence, dark),
        }
        return Finding(
            optics={"sensor": _believed(figures, saturated, optics)},
            figures=figures,
            arrays=chip.maps,
            pictures=chip.pictures,
            curves=_curves(found, floor, line),
        )

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, settings = finding.figures, self.settings
        checks = [
            Check(
                "zero_fraction",
                figures["zero_fraction"],
                settings.clipped_fraction,
                10 * settings.clipped_fraction,
                "the offset is so low that dark noise is cut off at 0: raise the camera's offset (black level)",
            ),
            Check(
                "bits_off",
                figures["bits_off"],
                0,
                16,
                f"the camera gives {figures['bits']:.0f} bits and not as many as believed: mend `sensor.bits` in the "
                "rig's optics, or switch the camera to the mode that was meant",
            ),
            Check("gain_error", figures["gain_error"], 0.01, 0.05, "take more frames, or light more of the chip"),
            Check(
                "gain_bend",
                figures["gain_bend"],
                0.05,
                0.25,
                "bright light makes other noise than dim light does: switch off the camera's own corrections "
                "(gamma, denoising, high dynamic range)",
            ),
            Check(
                "linearity_error",
                figures["linearity_error"],
                settings.linearity,
                5 * settings.linearity,
                "signals are not in proportion to exposures: is the light steady, and the camera's gamma off?",
            ),
            Check(
                "gain_spread",
                figures["gain_spread"],
                0.05,
                0.2,
                "neighbouring pixels differ much: is it an even layer of dye, in or out of focus, without a specimen?",
            ),
            Check("unevenness", figures["unevenness"], 0.1, 0.2, "the sample is no even layer of dye: put one there"),
            Check("bad_fraction", figures["bad_fraction"], settings.bad_fraction, 10 * settings.bad_fraction),
            Check("read_noise_lost", figures["read_noise_lost"], 0, 2, _LOST),
        ]
        if "binned_signal" in figures:
            advice = "binned pixels are not the sums of their pixels: images of different binning do not compare"
            checks.append(Check("binned_signal", abs(figures["binned_signal"] - 1), 0.05, 10.0, advice))
        return tuple(checks)


_LOST = "read noise is lost in rounding to whole numbers, and stays as believed: a higher gain would show it"


class _Chip:
    """What differs from pixel to pixel."""

    def __init__(self, evidence: Evidence, dark: pixels.Dark, gain: float) -> None:
        facts, floor = evidence.facts, dark.noise_variance or 0.0
        self.dark = dark
        self.noise_e, self.noise_spread = pixels.read_noise(dark, gain)
        self.rate, rate_noise = pixels.dark_rate(evidence, dark, gain)
        hot = pixels.hot_pixels(self.rate, rate_noise)
        count = int(facts["frames"]["flat"])
        flat = evidence.arrays["flat_sum"] / count - dark.offset - gain * self.rate * facts["flat_ms"]
        self.response = pixels.response(flat, hot | ~dark.fine, gain, floor + 1 / 12, count)
        self.bad = hot | self.response.dead | ~dark.fine
        telling = dark.fine & ~hot
        seen = float(np.var(dark.offset[telling])) - floor / dark.count
        known = max(1, int(self.response.known.sum()))
        self.figures = {
            "offset_adu": float(dark.offset[telling].mean()),
            "offset_spread_adu": float(np.sqrt(max(0.0, seen))),
            "read_noise_e": float(np.sqrt(floor)) / gain,
            "read_noise_lost": float(dark.noise_variance is None),
            "read_noise_spread": self.noise_spread,
            "gain_spread": self.response.spread,
            "dark_e_per_ms": float(np.median(self.rate)),
            "hot_fraction": float(hot.mean()),
            "hot_e_per_ms": float(np.median(self.rate[hot])) if hot.any() else 0.0,
            "dead_fraction": float(self.response.dead.sum() / known),
            "odd_fraction": float(np.mean(~dark.fine)),
            "bad_fraction": float(self.bad.mean()),
            "unevenness": pixels.unevenness(self.response.light),
            "lit_fraction": float(self.response.known.mean()),
        }
        self.maps: dict[str, Any] = {
            "offset_adu": dark.offset.astype(np.float32),
            "response": self.response.response.astype(np.float32),
            "dark_e_per_ms": self.rate.astype(np.float32),
            "bad": self.bad.astype(np.uint8),
        }
        if dark.noise_variance is not None:
            self.maps["read_noise_e"] = self.noise_e.astype(np.float32)
        self.pictures = {
            "Offset of each pixel [ADU]": dark.offset,
            "Read noise of each pixel [e]": self.noise_e,
            "Sensitivity of each pixel, uneven light divided out": self.response.response,
            "Light that was divided out [ADU]": self.response.light,
            "Bad pixels": self.bad.astype(np.float64),
        }


def _check_numbers(facts: Mapping[str, Any]) -> None:
    """What is wrong with all numbers alike. FitError says what to change."""
    step = facts["step_adu"]
    if step > 1 and facts["numbers"] >= _FEW_NUMBERS:
        bits = 16 - (step.bit_length() - 1)
        if step & (step - 1) == 0:
            raise FitError(
                f"all numbers are multiples of {step}: the camera fills the high bits of 16 with {bits} bits "
                "(left-justified). Let it, or its driver, align them low (right-justified, least significant bit), "
                f"and say `bits: {bits}` in the rig's optics"
            )
        raise FitError(
            f"all numbers are multiples of {step}: something between chip and program stretches them. Switch off what "
            "scales frames (auto-contrast, conversion from fewer bits), so that raw numbers come"
        )
    if facts["zero_fraction"] > _MOSTLY_DARK:
        raise FitError(
            f"{100 * facts['zero_fraction']:.0f} % of the numbers without light are 0: the offset is so low that dark "
            "noise is cut off. Raise the camera's offset (black level)"
        )


def _window(evidence: Evidence) -> tuple[slice, slice]:
    (row, column), (rows, columns) = evidence.facts["window"], evidence.arrays["pairs"].shape[-2:]
    return slice(row, row + rows), slice(column, column + columns)


def _ends(
    evidence: Evidence, dark: pixels.Dark, found: Transfer, saturated: Saturation | None, optics: Optics
) -> dict[str, float]:
    """Where the numbers end, and how many bits that makes."""
    believed, largest = optics.sensor.bits, int(evidence.facts["largest_adu"])
    bits = max(believed, largest.bit_length())
    figures: dict[str, float] = {}
    if saturated is not None:
        offset = float(np.median(dark.offset[dark.fine]))
        figures["saturation_adu"] = saturated.level_adu
        figures["saturation_e"] = (saturated.level_adu - offset) / found.gain_adu_per_e
        if saturated.is_converter:
            bits = int(saturated.level_adu).bit_length()
    return {**figures, "bits": float(bits), "bits_off": float(abs(bits - believed))}


def _binning(evidence: Evidence, dark: pixels.Dark) -> dict[str, float]:
    """Of two by two pixels: what noise is added, and whether signals are."""
    if "binned_sum" not in evidence.arrays:
        return {}
    mean, variance = pixels.moments(evidence, "binned", dark.count)
    steady = np.abs(mean - np.median(mean)) < 10 * max(pixels.spread(mean), 0.3)
    noise = rounding.variance_of_noise(mean[steady], variance[steady], dark.count)
    figures = {"binned_offset_adu": float(mean[steady].mean())}
    if noise is not None and dark.noise_variance:
        figures["binned_noise"] = float(np.sqrt(noise / dark.noise_variance))
    window = _window(evidence)
    single = evidence.arrays["binned_near"].mean(axis=(0, 1), dtype=np.float64) - dark.offset[window]
    rows, columns = (slice(side.start // 2, side.stop // 2) for side in window)
    pair = evidence.arrays["binned_pair"][:, rows, columns].mean(axis=0, dtype=np.float64)
    figures["binned_signal"] = float((pair.sum() - pair.size * figures["binned_offset_adu"]) / single.sum())
    return figures


def _believed(figures: Mapping[str, float], saturated: Saturation | None, optics: Optics) -> dict[str, Any]:
    """In the layout of the optics: what was found, and nothing that was not."""
    names = ["gain_adu_per_e", "offset_adu", "offset_spread_adu", "hot_fraction"]
    if figures["lit_fraction"] > _LIT_FRACTION:
        names += ["gain_spread", "dead_fraction"]
    if not figures["read_noise_lost"]:
        names += ["read_noise_e", "read_noise_spread"]
    if figures["hot_fraction"] > 0:
        names += ["hot_e_per_ms"]
    found: dict[str, Any] = {name: max(0.0, figures[name]) for name in names}
    if saturated is not None and not saturated.is_converter:
        found["full_well_e"] = figures["saturation_e"]
    if figures["bits"] != optics.sensor.bits:
        found["bits"] = int(figures["bits"])
    if "binned_noise" in figures:
        found["binning"] = "digital" if figures["binned_noise"] > np.sqrt(2) else "charge"
    return found


def _curves(found: Transfer, floor: float, line: pixels.Floats) -> dict[str, Curve]:
    signal, variance = gathered(found.signal_adu, found.variance_adu2)
    fitted = found.gain_adu_per_e * signal + floor + 1 / 12
    curves = {"Photon transfer": Curve(signal, variance, fitted, "signal [ADU]", "variance [ADU²]")}
    if len(line):
        off = 100 * line[:, 2]
        curves["Linearity"] = Curve(line[:, 0], off, np.zeros_like(off), "exposure [ms]", "off a straight line [%]")
    return curves
