"""What a rig YAML says of a device that obeys lines of text."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dmu_hw.files import NonNegative, Positive, Settings
from dmu_hw.lines import Port, Source

_POWER = re.compile(r"\{(?:power_w|power_mw|percent)(?::[0-9]?(?:\.[0-9])?[fge])?\}")
_PRINTABLE = r"^[ -~]{1,200}$"


def _check_distinct(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    both = sorted(set(one) & set(other))
    if both:
        raise ValueError(f"the reply {both[0]!r} cannot mean both")


def _to_power_command(text: str) -> str:
    """Only these placeholders: a format string of one's choice could do more than write a number."""
    rest = _POWER.sub("", text)
    if rest == text or "{" in rest or "}" in rest:
        raise ValueError("should hold {power_w}, {power_mw} or {percent}, with digits if need be: {power_w:.4f}")
    return text


Text = Annotated[str, Field(pattern=_PRINTABLE)]
"""A command or a reply, without the end of the line."""
PowerText = Annotated[Text, AfterValidator(_to_power_command)]
Replies = Annotated[tuple[Text, ...], Field(min_length=1)]


class State(Settings):
    """Whether it is on, as the device says."""

    ask: Text
    lit: Replies
    """Replies that mean on."""
    dark: Replies
    """Replies that mean off."""

    @model_validator(mode="after")
    def _one_reply_means_one_thing(self) -> Self:
        _check_distinct(self.lit, self.dark)
        return self


class Interlock(Settings):
    """Whether the interlock is closed, as the device says."""

    ask: Text
    closed: Replies
    """Replies that mean that light may go on."""
    open: Replies

    @model_validator(mode="after")
    def _one_reply_means_one_thing(self) -> Self:
        _check_distinct(self.closed, self.open)
        return self


class PortSettings(Port):
    """What is said on a serial port whatever the device."""

    line_end: Annotated[str, Field(pattern=r"^[\r\n]{1,2}$")] = "\r\n"
    set_up: tuple[Text, ...] = ()
    """Commands sent once when it is opened."""
    acknowledged_by: Text | None = None
    """The reply to every command that is no question, if there is one."""


class LightSettings(PortSettings, Source):
    """A light on a serial port."""

    set_on: Text
    set_off: Text
    set_power: PowerText
    """With {power_w}, {power_mw} or {percent}: what the source itself is to give, percent of its own highest."""
    state: State
    interlock: Interlock | None = None
    """Without it nobody knows, and the interlock is taken for closed."""
    watchdog_ms: Positive | None = None
    """After how long without a command the source goes off by itself; null: never, and the rig must accept that."""
    keep_alive: Text | None = None
    """The command that keeps the watchdog quiet; the question for its state if none is given."""


class Place(Settings):
    """One position of a filter wheel."""

    select: Text
    """The command that turns it there."""
    at: Replies
    """Replies that mean that it stands there."""


class FilterSettings(PortSettings):
    """A filter wheel on a serial port."""

    positions: Annotated[dict[Text, Place], Field(min_length=1)]
    """What is in it, by the names that channels use."""
    ask: Text
    """The question where it stands."""
    moving: tuple[Text, ...] = ()
    """Replies that mean that it turns; any other reply is an error. Without them it is given `switch_ms` to turn."""
    switch_ms: NonNegative = 200.0
    """From one position to another, as is to be expected."""

    @model_validator(mode="after")
    def _one_reply_means_one_thing(self) -> Self:
        seen: tuple[str, ...] = self.moving
        for place in self.positions.values():
            _check_distinct(seen, place.at)
            seen += place.at
        return self


class Position(Settings):
    """Whether the shutter is open, as the device says."""

    ask: Text
    open: Replies
    """Replies that mean that light comes through."""
    closed: Replies
    moving: tuple[Text, ...] = ()
    """Replies that mean that it is neither yet; any other reply is an error."""

    @model_validator(mode="after")
    def _one_reply_means_one_thing(self) -> Self:
        _check_distinct(self.open, self.closed)
        _check_distinct(self.moving, (*self.open, *self.closed))
        return self


class ShutterSettings(PortSettings):
    """A shutter on a serial port."""

    set_open: Text
    set_closed: Text
    state: Position
    switch_ms: NonNegative = 30.0
    """Until it stands open, or closed, as is to be expected."""


class MeterSettings(PortSettings):
    """A power meter on a serial port."""

    ask: Text
    """The question for a reading; the answer is a number and nothing else."""
    unit: Literal["W", "mW", "uW"] = "W"
    """Of the answer."""
    transmission: Positive = 1.0
    """What the meter gets, as a part of what reaches the sample: less than 1 behind a beam splitter."""
    set_up: tuple[Text, ...] = ()
    """Commands sent once when it is opened: wavelength, range, averaging."""
