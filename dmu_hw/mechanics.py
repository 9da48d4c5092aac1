"""What is believed of how a rig moves: mirrors, camera and stage, beside its optics."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dmu_hw.files import NonNegative, Settings

Place = tuple[float, float]
OF_MECHANICS = ("timing", "stage")
"""Routines that it is measured by."""
_LEAST_UM = 0.02
"""Less backlash is none."""
_BEYOND = 2.0
"""By so many backlashes a stage goes further than it has to, to come back from below."""


class Mechanics(Settings):
    """As measured; what was not measured is as told, or ideal."""

    settle_ms: NonNegative | None = None
    """From a step of the mirrors until the new pattern stands."""
    early_ms: NonNegative = 0.0
    """How much sooner an exposure begins, where the DMD triggers the camera as its driver says."""
    readout_part: NonNegative = 1.0
    """Time that the camera needs after an exposure, as a part of what it says."""
    angle_deg: float = 0.0
    """From the camera's axes to those of the stage, from x towards y."""
    backlash_um: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    """How far short the stage stops when it comes from above."""

    @classmethod
    def of(cls, figures: Mapping[str, Mapping[str, float]]) -> Mechanics:
        """What routines found, by their names; KeyError: something of it is missing."""
        found: dict[str, object] = {}
        if (timing := figures.get("timing")) is not None:
            told_ms = timing["told_readout_ms"]
            needs_ms = max(timing["readout_ms"], timing.get("overhead_ms", 0.0))
            found["settle_ms"], found["early_ms"] = timing["settle_ms"], timing.get("early_ms", 0.0)
            found["readout_part"] = max(1.0, needs_ms / told_ms) if told_ms > 0 else 1.0
        if (stage := figures.get("stage")) is not None:
            found["angle_deg"] = stage["angle_deg"]
            found["backlash_um"] = stage["backlash_x_um"], stage["backlash_y_um"]
        return cls.model_validate(found)

    def turned(self, centre: Place, place: Place) -> Place:
        """A place beside a centre along the camera's axes, as the stage has to go there."""
        return place if self.angle_deg == 0 else _turned(centre, place, -math.radians(self.angle_deg))

    def seen(self, centre: Place, place: Place) -> Place:
        """A place that the stage goes to from a centre, along the camera's axes."""
        return place if self.angle_deg == 0 else _turned(centre, place, math.radians(self.angle_deg))

    def ways(self, here: Place, there: Place, lowest: Place = (-math.inf, -math.inf)) -> list[Place]:
        """Where to send the stage one after the other, so that it arrives from below where it has backlash."""
        beyond = [
            max(low, new - _BEYOND * slack) if new < old and slack > _LEAST_UM else new
            for old, new, slack, low in zip(here, there, self.backlash_um, lowest, strict=True)
        ]
        around = (beyond[0], beyond[1])
        return [there] if around == there else [around, there]


def _turned(centre: Place, place: Place, angle: float) -> Place:
    x, y = place[0] - centre[0], place[1] - centre[1]
    return (
        centre[0] + x * math.cos(angle) - y * math.sin(angle),
        centre[1] + x * math.sin(angle) + y * math.cos(angle),
    )


AS_TOLD = Mechanics()
"""Nothing was measured."""
