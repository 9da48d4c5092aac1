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
_ROUNDS = 200
_NOTHING = 1e-3
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
    background: float = 0.0
    """What of it no dye gives, by a lamp as it is believed."""


Levels = tuple[Level, Level]
"""At first, and now."""


def light_drifts(
    settings: Watch, field: Levels, beside: Levels | None, bleach_dose_mj_cm2: float | None
) -> Iterator[Drift]:
    """Of lamp and dye, from the light of a field; a place beside all fields, which sees the same lamp and has had less
    of it, tells them apart."""
    first, now = field
    dose, background = now.dose_mj_cm2 - first.dose_mj_cm2, first.background
    left = 1.0 if bleach_dose_mj_cm2 is None else math.exp(-dose / bleach_dose_mj_cm2)
    error = _error(first, now)
    if beside is not None and dose > 0 and first.light > background and _part(field, beside) < 1:
        lamp, dye = _lamp_and_dye(field, beside)
        lamp_error, dye_error = _errors(field, beside, lamp)
        if _TELLS * lamp_error < settings.power:
            yield Drift("power", lamp - 1, settings.power, abs(lamp - 1) > _SURE * lamp_error)
            # dye that bleaches less than it might is no reason to warn of anything
            yield Drift("bleaching", dye - left, settings.bleaching, dye - left < -_SURE * dye_error * dye)
            return
    change = now.light / (background + (first.light - background) * left) - 1
    yield Drift("brightness", change, settings.power, abs(change) > _SURE * error)


def _lamp_and_dye(field: Levels, beside: Levels) -> tuple[float, float]:
    """What is left of each. The place beside has bleached too, by its own dose: with every round less is wrong."""
    first, now = field
    seen = beside[1].light / beside[0].light
    lamp, dye = seen, 1.0
    for _ in range(_ROUNDS):
        dye = max((now.light / lamp - first.background) / (first.light - first.background), _NOTHING)
        lamp = seen / dye ** _part(field, beside)
    return lamp, dye


def _errors(field: Levels, beside: Levels, lamp: float) -> tuple[float, float]:
    """Of both, as parts of them: without end where background, or dye that is as bleached beside the field, leave
    nothing to tell them by."""
    now = field[1]
    dye_light = now.light / lamp - now.background
    if not dye_light > 0:
        return math.inf, math.inf
    more = now.light / lamp / dye_light
    part = _part(field, beside) * more
    if part >= 1:
        return math.inf, math.inf
    one, other = _error(*field), _error(*beside)
    return math.hypot(other, part * one) / (1 - part), more * math.hypot(one, other) / (1 - part)


def _part(field: Levels, beside: Levels) -> float:
    """Of the dose of the field, that the place beside has had."""
    doses = [now.dose_mj_cm2 - first.dose_mj_cm2 for first, now in (beside, field)]
    return doses[0] / doses[1]


def focus_drift(settings: Watch, first: tuple[float, float], now: tuple[float, float]) -> Drift:
    """From contrasts with their errors; only a loss is one."""
    (before, before_error), (after, after_error) = first, now
    change = after / before - 1
    return Drift("focus", change, settings.focus, change < -_SURE * math.hypot(before_error, after_error) / before)


def registration_drift(settings: Watch, shift_px: float, error_px: float) -> Drift:
    return Drift("registration", shift_px, settings.shift_px, shift_px > _SURE * error_px)


def _error(first: Level, now: Level) -> float:
    """Of the light against what it was, as a part of it."""
    return math.hypot(first.error / first.light, now.error / now.light, _FLICKER)
