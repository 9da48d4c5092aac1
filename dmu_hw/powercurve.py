"""What comes of a light's settings, as measured: which setting gives the power that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PowerCurve:
    """Between the points of a table it is straight. Settings rise, and powers do not fall."""

    settings_mw: Floats
    """What the light is told."""
    delivered_mw: Floats
    """What arrives at the sample with all mirrors on."""

    def __post_init__(self) -> None:
        settings, delivered = self.settings_mw, self.delivered_mw
        if settings.ndim != 1 or settings.shape != delivered.shape or settings.size < 2:
            raise ValueError("a power curve needs two points or more, each with a setting and a power")
        if np.any(np.diff(settings) <= 0) or np.any(np.diff(delivered) < 0) or delivered[0] < 0:
            raise ValueError("of a power curve settings must rise and powers must not fall")

    @property
    def highest_mw(self) -> float:
        return float(self.delivered_mw[-1])

    def delivered(self, setting_mw: float) -> float:
        """The power that a setting gives."""
        return float(np.interp(setting_mw, self.settings_mw, self.delivered_mw))

    def setting(self, power_mw: float) -> float:
        """The lowest setting that gives a power; ValueError where none does."""
        if not 0 <= power_mw <= self.highest_mw * (1 + 1e-9):
            raise ValueError(f"gives 0 to {self.highest_mw:.4g} mW as it was measured, asked for {power_mw:g}")
        if power_mw <= self.delivered_mw[0]:
            return float(self.settings_mw[0])
        after = min(int(np.searchsorted(self.delivered_mw, power_mw)), self.settings_mw.size - 1)
        near, far = slice(after - 1, after + 1), self.delivered_mw[after]
        return float(
            self.settings_mw[after]
            if power_mw >= far
            else np.interp(power_mw, self.delivered_mw[near], self.settings_mw[near])
        )
