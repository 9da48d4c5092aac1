"""Timing: how long mirrors turn, how late the camera answers, how fast both can go, and which pattern comes first."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dmu_hw.files import NonNegative, Positive, Settings
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError, Sample
from dmu_hw.routines.timing.measuring import OTHER, exposures_of, groups_of, measured, rates_of
from dmu_hw.routines.timing.transition import Exposures, Rates, Transition, transition

_SURE = 0.6
"""How alike a frame and the pattern that it shows must be."""


class TimingSettings(Settings):
    """How to measure, and what is good enough."""

    power_mw: Positive | None = None
    """null: as much as the rig allows; less is used where it is too bright."""
    tick_ms: Positive = 0.005
    """By so much times may differ from what is told without a word."""
    jitter_ms: NonNegative = 0.05
    """Standard deviation of the camera's answer beyond which people are warned; refused beyond ten times of it."""
    settle_ms: Positive = 100.0
    """Mirrors that take longer are refused."""


class Routine:
    """Exposures that reach from one pattern into the next, a little further each time."""

    Settings = TimingSettings
    sample: ClassVar[Sample] = "dye"
    needs: ClassVar[tuple[str, ...]] = ()
    devices: ClassVar[tuple[str, ...]] = ("dmd", "camera")
    per_channel: ClassVar[bool] = False
    valid_days: ClassVar[float] = 180.0

    def __init__(self, settings: TimingSettings) -> None:
        self.settings = settings

    def measure(self, instrument: Instrument) -> Evidence:
        power_mw = min(self.settings.power_mw or instrument.highest_mw, instrument.highest_mw)
        return measured(instrument, power_mw)

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:  # noqa: ARG002 - light is compared with light only
        arrays, facts = evidence.arrays, evidence.facts
        if "no_light" in facts:
            raise FitError(f"{facts['no_light']}: is the lamp on, is dye under the lens?")
        groups = groups_of(arrays)
        if groups is None:
            raise FitError(
                "two chessboards that complement each other look the same: expected are places that only one of them "
                "lights; is the dye slide in focus, the light path open and the DMD on?"
            )
        if "sequence" in arrays:
            _check_first(_first_step(arrays, facts))
        rates = rates_of(arrays, facts, groups)
        if "fine" not in arrays:
            raise FitError(_nothing_within(facts))
        seen = exposures_of(arrays, facts, "fine", groups)
        jitter_ms = _jitter_ms(evidence, rates, groups) if "again" in arrays else 0.0
        found = transition(seen, rates, facts["scale_ms"], jitter_ms)
        self._check_seen(found, seen, rates, facts)
        figures = _times(found, seen, facts) | _pace(facts)
        if facts["stepping"] == "dmd":
            figures |= _answers(found, facts) | {"trigger_jitter_ms": jitter_ms}
        return Finding(
            optics={},
            figures=figures,
            pictures={"light of one chessboard less that of the other": _difference(arrays)},
            curves=_curves(seen, found),
        )

    def _check_seen(self, found: Transition, seen: Exposures, rates: Rates, facts: Any) -> None:
        """Whether the whole of a transition was seen."""
        latest_ms = float((seen.stop_ms + found.late_ms if seen.floats else seen.start_ms).max())
        rose = np.ptp(seen.light[1]) > 0.5 * rates.after[1] * max(0.0, latest_ms - found.settle_ms)
        if not rose and not seen.floats:
            rose = bool(seen.light[1].min() > 0.5 * rates.after[1] * (seen.stop_ms - seen.start_ms).min())
        if not rose or found.settle_ms > 0.95 * latest_ms:
            raise FitError(_nothing_within(facts))

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, settings = finding.figures, self.settings
        longest_ms, tick_ms = settings.settle_ms, settings.tick_ms
        checks = [
            Check(
                "settle_ms",
                figures["settle_ms"],
                1.05 * figures["told_settle_ms"] + tick_ms,
                longest_ms,
                "runs wait as long as was measured; say it in the rig's file as well",
            ),
            Check(
                "settle_error_ms",
                figures["settle_error_ms"],
                max(tick_ms, 0.05 * figures["settle_ms"]),
                max(4 * tick_ms, 0.3 * figures["settle_ms"]),
                "more light, or a steadier one, tells it better",
            ),
            Check("unexplained", figures["unexplained"], 2.0, 5.0, "is the light steady while it is on?"),
            Check(
                "readout_ms",
                figures["readout_ms"],
                1.05 * figures["told_readout_ms"] + tick_ms,
                longest_ms,
                "runs wait as long as was measured; say it in the rig's file as well",
            ),
        ]
        if "missed_pulses" in figures:
            advice = "the camera does not answer every pulse at the pace of runs: look at the trigger line"
            checks.append(Check("missed_pulses", figures["missed_pulses"], 0.5, 0.5, advice))
            advice = "the camera's answer differs from pulse to pulse: look at its trigger mode"
            jitter_ms = settings.jitter_ms
            checks.append(Check("trigger_jitter_ms", figures["trigger_jitter_ms"], jitter_ms, 10 * jitter_ms, advice))
            advice = "exposures begin before patterns stand: runs wait longer, if the DMD's driver can"
            checks.append(Check("early_ms", figures["early_ms"], tick_ms, longest_ms, advice))
        return tuple(checks)


def _nothing_within(facts: Any) -> str:
    return (
        f"no second pattern within {facts['scale_ms']:.4g} ms of its step: expected is one after "
        f"{facts['told_settle_ms']:g} ms; do the pulses of the DMD reach the camera?"
    )


def _times(found: Transition, seen: Exposures, facts: Any) -> dict[str, float]:
    """Of the mirrors. Where the first exposure after a step already finds the pattern standing, what is told may be so
    as long as it is no longer than that."""
    told_ms, settle_ms = facts["told_settle_ms"], found.settle_ms
    soonest_ms = 0.0 if seen.floats else float(seen.start_ms.min())
    figures = {"settle_ms": settle_ms if settle_ms > soonest_ms else min(told_ms, soonest_ms)}
    if soonest_ms < 0.5 * found.dark_ms:
        figures["dark_ms"] = found.dark_ms
    return figures | {
        "settle_error_ms": found.error_ms,
        "told_settle_ms": told_ms,
        "soonest_ms": soonest_ms,
        "unexplained": found.residual,
    }


def _pace(facts: Any) -> dict[str, float]:
    """Of camera and DMD together."""
    readout_ms = facts["readout_ms"]
    figures = {"told_readout_ms": facts["told_readout_ms"], "readout_ms": readout_ms}
    if "shortest_period_ms" in facts:
        period_ms = facts["shortest_period_ms"]
        figures |= {
            "missed_pulses": float(facts["missed"]),
            "shortest_period_ms": period_ms,
            "overhead_ms": period_ms - facts["pulse_exposure_ms"],
            "highest_rate_hz": 1e3 / period_ms,
        }
    return figures


def _answers(found: Transition, facts: Any) -> dict[str, float]:
    """How late after its pulse the camera exposes, and how that fits what the mirrors need."""
    told_ms = facts["told_settle_ms"]
    latency_ms = found.late_ms - told_ms
    stamped_ms = float(np.median(facts["fine_stamps_ms"])) - told_ms
    return {
        "trigger_latency_ms": latency_ms,
        "trigger_latency_error_ms": found.late_error_ms,
        "early_ms": max(0.0, found.settle_ms - found.late_ms),
        "stamp_late_ms": stamped_ms - latency_ms,
    }


def _jitter_ms(evidence: Evidence, rates: Rates, groups: tuple[NDArray[Any], NDArray[Any]]) -> float:
    """An exposure that begins later ends later, and gathers more of the second pattern. Two halves of the pixels vary
    together by this, and by photons each for itself."""
    light = evidence.arrays["again"].astype(float) - evidence.arrays["dark"].astype(float).mean(axis=0)
    pixels = light[:, groups[1]]
    halves = pixels[:, ::2].sum(axis=1), pixels[:, 1::2].sum(axis=1)
    parts = evidence.arrays["steady"].astype(float).mean(axis=1)[OTHER][groups[1]]
    parts = parts - evidence.arrays["dark"].astype(float).mean(axis=0)[groups[1]]
    more = (rates.after[1] - rates.before[1]) / parts.sum()
    common = float(np.cov(*halves)[0, 1])
    return float(np.sqrt(max(0.0, common / (parts[::2].sum() * more * parts[1::2].sum() * more))))


def _check_first(step: int) -> None:
    if step:
        raise FitError(
            f"the first frame of a sequence sees pattern {step} of its order, expected is 0: look at what starts "
            f"the camera, or add {step} to first_step of the dmd in the rig's file if it always begins there"
        )


def _first_step(arrays: Any, facts: Any) -> int:
    """The place of the pattern in its order that the first frame of a sequence sees."""
    codes = arrays["codes"].astype(float)
    codes -= codes.mean(axis=0)
    numbers = facts["sequence_numbers"]
    expected = 2 * (len(codes) - (facts["stepping"] == "camera"))
    if len(numbers) < expected:
        raise FitError(
            f"the camera gave {len(numbers)} frames for {expected} patterns that were shown slowly; does the "
            "trigger line work?"
        )
    turns = []
    for number, frame in zip(numbers, arrays["sequence"].astype(float) - arrays["codes"].mean(axis=0), strict=True):
        alike = np.array([_alike(frame, code) for code in codes])
        if alike.max() < _SURE:
            raise FitError(
                f"frame {number} of a sequence shows none of its patterns (at best {alike.max():.2f} alike, expected "
                f"is {_SURE} at least); does the camera expose while patterns stand?"
            )
        turns.append(int(alike.argmax() - number) % len(codes))
    if len(set(turns)) > 1:
        raise FitError(f"frames of a sequence are ahead of their order by {turns} patterns: expected is one number")
    return turns[0]


def _alike(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Correlation of two pictures."""
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm else 0.0


def _difference(arrays: Any) -> NDArray[Any]:
    first, other, _ = arrays["steady"].astype(float).mean(axis=1)
    return np.asarray(first - other)


def _curves(seen: Exposures, found: Transition) -> dict[str, Curve]:
    at_ms = seen.stop_ms + found.late_ms if seen.floats else seen.start_ms
    label = "end of the exposure after the step, ms" if seen.floats else "begin of the exposure after the step, ms"
    names = ("light of the first pattern", "light of the next pattern")
    return {
        name: Curve(at_ms, light, fitted, label, "ADU")
        for name, light, fitted in zip(names, seen.light, found.fitted, strict=True)
    }
