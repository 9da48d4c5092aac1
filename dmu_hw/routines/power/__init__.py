"""What comes of a light's settings: by a power meter where the rig has one, else by the camera on an even layer of dye,
which tells the shape of the curve and not its height.

Settings go up and down again, so that what bleaches or drifts meanwhile falls out of their mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from dmu_hw.files import Fraction, NonNegative, Settings
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Check, Curve, Evidence, Finding
from dmu_hw.routines.power.curves import MISFIT, fitted, points_of, table
from dmu_hw.routines.power.readings import ByCamera, ByMeter, Reader

if TYPE_CHECKING:
    from dmu_hw.instrument import Instrument

__all__ = ["PowerSettings", "Routine"]
_LOW_STEPS, _FINER = 3, 4
"""So many of the lowest steps are looked at more finely, by so much: where a light begins is there."""
_DARKS = 4
"""Readings in the dark are in all others: there are so many times more of them."""
_LONGEST_READING_MS = 1000.0


class PowerSettings(Settings):
    """Which settings, and how often each is looked at."""

    by: Literal["meter", "camera"] | None = None
    """null: by the meter where the rig has one."""
    points: Annotated[int, Field(ge=8, le=200)] = 24
    readings: Annotated[int, Field(ge=1, le=100)] = 4
    """Of each point, going up and again going down."""
    settle_ms: NonNegative = 20.0
    """From a new setting until the light stands at it."""
    flicker: Fraction = 0.03
    """Standard deviation of readings, as a part of them: more, and people are warned."""


class Routine:
    """A table from settings to power."""

    Settings = PowerSettings
    sample, needs, devices, per_channel, valid_days = "dye", (), ("light",), True, 30.0

    def __init__(self, settings: PowerSettings) -> None:
        self.settings = settings

    def measure(self, instrument: Instrument) -> Evidence:
        by = self.settings.by or ("camera" if instrument.rig.meter is None else "meter")
        taking: Reader = ByCamera(instrument) if by == "camera" else ByMeter(instrument)
        limits, light = instrument.rig.settings.limits, instrument.rig.lights[instrument.channel.light]
        top_mw = min(limits.power_mw, light.max_power_mw)
        low = np.arange(1, _LOW_STEPS * _FINER) / _FINER
        parts = np.union1d(low, np.arange(1, self.settings.points + 1)) / self.settings.points
        instrument.load(np.ones((1, *instrument.mirrors_shape), dtype=bool))
        dark = [taking.dark(_DARKS * self.settings.readings)]
        told: list[float] = []
        read: list[list[float]] = []
        for done, part in enumerate(parts):
            told.append(float(part) * top_mw)
            read.append(self._at(instrument, taking, told[-1]))
            instrument.progress(done + 1, 2 * len(parts))
            if by == "meter" and np.mean(read[-1]) > limits.power_mw:
                break  # no more than the rig allows, whatever the light calls it
        for setting_mw in told[::-1]:
            told.append(setting_mw)
            read.append(self._at(instrument, taking, setting_mw))
            instrument.progress(min(len(told), 2 * len(parts)), 2 * len(parts))
        dark.append(taking.dark(_DARKS * self.settings.readings))
        arrays = {"settings_mw": np.array(told), "read": np.array(read), "dark": np.array(dark)}
        return Evidence(arrays, {"by": by, **taking.facts})

    def _at(self, instrument: Instrument, taking: Reader, setting_mw: float) -> list[float]:
        """Readings at one setting."""
        longest_ms = (self.settings.readings + 1) * _LONGEST_READING_MS + self.settings.settle_ms
        with instrument.lit(setting_mw, longest_ms, bare=True):
            instrument.clock.sleep_ms(self.settings.settle_ms)  # the sample is dark meanwhile, and does not bleach
            instrument.dmd.show(0)
            instrument.clock.sleep_ms(instrument.dmd.settle_ms)
            return [taking.read() for _ in range(self.settings.readings)]

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:  # noqa: ARG002 - nothing else needs to be known
        points = points_of(evidence)
        found = fitted(points)
        table_mw, power = table(points, found)
        top_mw = float(table_mw[-1])
        absolute = evidence.facts["by"] == "meter"
        scale = 1.0 if absolute else top_mw / power[-1]
        delivered_mw = power * scale
        line = table_mw / top_mw
        figures = {
            "absolute": float(absolute),
            "threshold_mw": found.threshold_mw,
            "usable_mw": top_mw,
            "highest_mw": float(delivered_mw[-1]),
            "linearity_error": float(np.max(np.abs(delivered_mw / delivered_mw[-1] - line))),
            "full_scale_factor": float(max(delivered_mw[-1] / top_mw, top_mw / delivered_mw[-1])),
            "flicker": points.flicker,
            "lost": abs(points.lost),
            "misfit": found.misfit,
        }
        x, y = points.settings_mw, points.power * scale
        seen = found.model(x) * scale
        unit = "mW" if absolute else "mW if the highest is as believed"
        off = 100 * (y - seen) / delivered_mw[-1]
        return Finding(
            optics={},
            figures=figures,
            arrays={"settings_mw": table_mw, "delivered_mw": delivered_mw},
            curves={
                "Light output": Curve(x, y, seen, "setting [mW]", f"power [{unit}]"),
                "What the curve leaves": Curve(x, off, np.zeros_like(off), "setting [mW]", "off [% of the highest]"),
            },
        )

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures = finding.figures
        return (
            Check("misfit", figures["misfit"], MISFIT, 0.1, "no smooth curve: does the light go by steps, or drift?"),
            Check(
                "flicker",
                figures["flicker"],
                self.settings.flicker,
                0.2,
                "the light is not steady: let it warm up, or look at each setting more often (`readings`)",
            ),
            Check(
                "lost",
                figures["lost"],
                0.3,
                0.6,
                "it was darker going down than going up: let the light warm up; of dye that bleaches so fast, go to a "
                "fresh place, or use a meter",
            ),
            Check(
                "full_scale_factor",
                figures["full_scale_factor"],
                5.0,
                50.0,
                "the light gives another power than its settings say: mend max_power_mw or transmission in the rig",
            ),
        )
