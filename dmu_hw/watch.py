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
_FLICKER = 0.002
"""By which all light of a look may differ from place to place, beside noise."""
_TELLS = 3.0
"""Standard errors within the limit from which on lamp and dye are told apart."""
_ADVICE: dict[Drifting, str] = {
    "registration": "run `dmu calibrate` with a recipe that has the routine register (or say `beyond: register`)",
    "power": "look at lamp and shutter, and run `dmu calibrate` with a recipe that has the routine power",
    "bleaching": "give less light, or run `dmu calibrate` with a recipe that has the routine bleach",
    "focus": "focus anew, or give the protocol an autofocus",
    "brightness": "looks beside the fields (`watch` with every and at_um) tell lamp from dye",
}


class Watch(Settings):
    """What is looked for while a run goes on, and what to do about it."""

    every: Annotated[int, Field(ge=0)] = 0
    """Visits of fields from one look to the next: a burst of fringes at fine camera pixels, which costs light. 0: no
    looks; brightness and focus alone are told, from the bursts of the run itself."""
    at_um: tuple[float, float] | None = None
    """Where the stage stands for looks: somewhere with specimen beside all fields, so that its dye has had no light but
    theirs, which tells lamp from dye. null: in the field that is next."""
    beyond: Literal["warn", "stop", "register"] = "warn"
    """What to do when a limit is exceeded. stop: end the run. register: lay the mirrors' light back where it belongs,
    and warn of all else."""
    channel: Name | None = None
    """In which looks are taken; null: in the first."""
    exposure_ms: Positive | None = None
    """Of each frame of a look; null: a quarter of that of the bursts."""
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
        if self.at_um is not None and not self.every:
            raise ValueError("at_um says where looks are taken: say every so many visits")
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

    @property
    def told(self) -> str:
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
        return f"{self.name}: {what}, allowed is {limit}"

    @property
    def advice(self) -> str:
        return _ADVICE[self.name]


@dataclass(frozen=True)
class Level:
    """Light of a place at a moment, and the dose that it had had by then."""

    light: float
    error: float
    dose_mj_cm2: float


Levels = tuple[Level, Level]
"""At first, and now."""


def light_drifts(
    settings: Watch, field: Levels, beside: Levels | None, bleach_dose_mj_cm2: float | None
) -> Iterator[Drift]:
    """Of lamp and dye, from the light of a field; a place beside all fields, which sees the same lamp and has had less
    of it, tells them apart."""
    change, error, dose = _changed(*field)
    believed = 0.0 if bleach_dose_mj_cm2 is None else dose / bleach_dose_mj_cm2
    if beside is not None:
        other, other_error, other_dose = _changed(*beside)
        lever = dose - other_dose
        lamp_error = math.hypot(other_error * dose, error * other_dose)
        if _TELLS * lamp_error < settings.power * lever:
            lamp = (other * dose - change * other_dose) / lever
            yield Drift("power", math.expm1(lamp), settings.power, abs(lamp) > _SURE * lamp_error / lever)
            dye, dye_error = change - lamp, math.hypot(error, other_error) * dose / lever
            # dye that bleaches less than it might is no reason to warn of anything
            sure = dye + believed < -_SURE * dye_error
            yield Drift("bleaching", math.exp(dye) - math.exp(-believed), settings.bleaching, sure)
            return
    beyond = change + believed
    yield Drift("brightness", math.expm1(beyond), settings.power, abs(beyond) > _SURE * error)


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
