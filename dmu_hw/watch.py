"""What a run is watched for, and when a drift is one: registration, power, focus, bleaching."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dmu_hw.files import Name, Positive, Settings

Drifting = Literal["registration", "power", "bleaching", "focus", "brightness"]
"""brightness: of power and bleaching one, and what was seen does not tell which."""
Part = Annotated[float, Field(gt=0, lt=1)]
_SURE = 5.0
"""Standard errors that a drift must have beside its limit."""
_FLICKER = 0.005
"""By which all light may differ from frame to frame, beside noise."""
_ADVICE: dict[Drifting, str] = {
    "registration": "run `dmu calibrate` with a recipe that has the routine register (or say `beyond: register`)",
    "power": "look at lamp and shutter, and run `dmu calibrate` with a recipe that has the routine power",
    "bleaching": "give less light, or run `dmu calibrate` with a recipe that has the routine bleach",
    "focus": "focus anew, or give the protocol an autofocus",
    "brightness": "looks (`watch` with every) tell whether lamp or dye",
}


class Watch(Settings):
    """What is looked for while a run goes on, and what to do about it."""

    every: Annotated[int, Field(ge=0)] = 0
    """Visits of fields from one look to the next: a burst of fringes at fine camera pixels, which costs light. 0: no
    looks; brightness and focus alone are told, from the bursts of the run itself."""
    beyond: Literal["warn", "stop", "register"] = "warn"
    """What to do when a limit is exceeded. stop: end the run. register: lay the mirrors' light back where it belongs,
    and warn of all else."""
    channel: Name | None = None
    """In which looks are taken; null: in the first."""
    exposure_ms: Positive | None = None
    """Of each frame of a look; null: as in the bursts."""
    shift_px: Positive = 0.2
    """Camera pixels, unbinned, by which the light may lie beside its place anywhere in a field."""
    power: Part = 0.1
    """Part by which the light may change."""
    bleaching: Part = 0.1
    """Part of the dye that may be lost beyond what is believed."""
    focus: Part = 0.3
    """Part of the contrast of fringes that may be lost; without looks, of the sharpness of bursts."""

    @model_validator(mode="after")
    def _consistent(self) -> Watch:
        if self.beyond == "register" and not self.every:
            raise ValueError("beyond: register needs looks: say every so many visits")
        return self


@dataclass(frozen=True)
class Drift:
    """Something that is not as it was, or not as it is believed."""

    name: Drifting
    value: float
    """registration: camera pixels; else a part, below 0 for a loss."""
    limit: float
    sure: bool
    """Whether it is more than noise."""

    @property
    def beyond(self) -> bool:
        return self.sure and abs(self.value) > self.limit

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "value": self.value, "limit": self.limit, "beyond": self.beyond}

    def __str__(self) -> str:
        match self.name:
            case "registration":
                what = f"the mirrors' light lies {self.value:.2f} camera pixels beside its place"
            case "power":
                what = f"the light of the lamp has changed by {self.value:+.1%}"
            case "bleaching":
                what = f"the dye has lost {-self.value:.1%} more than is believed"
            case "focus":
                what = f"the contrast has changed by {self.value:+.1%}"
            case "brightness":
                what = f"lamp or dye give {self.value:+.1%} beyond what is believed of bleaching"
        limit = f"{self.limit:g}" if self.name == "registration" else f"{self.limit:.0%}"
        return f"{self.name}: {what}, allowed is {limit}; {_ADVICE[self.name]}"


@dataclass(frozen=True)
class Level:
    """Light of a place at a moment, and the dose that it had had by then."""

    light: float
    error: float
    dose_mj_cm2: float


def light_drifts(
    settings: Watch, first: tuple[Level, ...], now: tuple[Level, ...], bleach_dose_mj_cm2: float | None
) -> Iterator[Drift]:
    """Of lamp and dye, from the light of a whole field; with the places that had least and most of the dose behind it,
    these tell lamp from dye: both see the same lamp."""
    (whole, *_), (whole_now, *_) = first, now
    dose = whole_now.dose_mj_cm2 - whole.dose_mj_cm2
    believed = 0.0 if bleach_dose_mj_cm2 is None else dose / bleach_dose_mj_cm2
    if len(first) == 3:
        (low, low_error, low_dose), (high, high_error, high_dose) = map(_changed, first[1:], now[1:])
        lever = high_dose - low_dose
        if lever <= 0:
            return
        loss, loss_error = (low - high) / lever, math.hypot(low_error, high_error) / lever
        power, power_error = low + loss * low_dose, math.hypot(low_error * high_dose, high_error * low_dose) / lever
        yield Drift("power", math.expm1(power), settings.power, abs(power) > _SURE * power_error)
        more = math.exp(-loss * dose) - math.exp(-believed)
        # dye that bleaches less than it might is no reason to warn of anything
        sure = more < 0 and abs(loss * dose - believed) > _SURE * loss_error * dose
        yield Drift("bleaching", more, settings.bleaching, sure)
        return
    change, error, _ = _changed(whole, whole_now)
    change += believed
    yield Drift("brightness", math.expm1(change), settings.power, abs(change) > _SURE * error)


def focus_drift(settings: Watch, first: tuple[float, float], now: tuple[float, float]) -> Drift:
    """From contrasts with their errors; only a loss is one."""
    (before, before_error), (after, after_error) = first, now
    change = after / before - 1
    return Drift("focus", change, settings.focus, change < -_SURE * math.hypot(before_error, after_error) / before)


def registration_drift(settings: Watch, shift_px: float, error_px: float) -> Drift:
    return Drift("registration", shift_px, settings.shift_px, shift_px > _SURE * error_px)


def _changed(first: Level, now: Level) -> tuple[float, float, float]:
    """Logarithm of the light, its error, and the dose in between."""
    error = math.hypot(first.error / first.light, now.error / now.light, _FLICKER)
    return math.log(now.light / first.light), error, now.dose_mj_cm2 - first.dose_mj_cm2
