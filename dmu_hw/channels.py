"""What a rig YAML calls a channel: one of its lights, where its filters stand, and what is believed of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Settings
from dmu_hw.physics.optics import Optics, overridden
from dmu_hw.pixels import PixelMaps
from dmu_hw.ports import role_of

_SHARED = ("object_pixel_um", "sensor_pixel_um")
"""Frames of all channels lie on one grid."""


class ChannelSettings(Settings):
    """A light, and what stands in the way to the camera."""

    light: str = "light"
    """Which of the devices."""
    filters: dict[str, str] = Field(default_factory=dict)
    """Device → position, of every filter that the rig has."""
    optics: dict[str, Any] = Field(default_factory=dict)
    """What is believed otherwise than of the rig, in the same layout: `excitation`, `emission`, `dye`, …"""


@dataclass(frozen=True)
class Channel:
    """What a protocol may ask for by name."""

    name: str
    """Empty in a rig that names no channels."""
    light: str
    """Name of the device."""
    filters: Mapping[str, str]
    """Device → position."""
    optics: Optics
    """What is believed of this channel."""
    pixels: PixelMaps | None = field(default=None, compare=False, repr=False)
    """What was measured of the camera pixel by pixel, as its frames show it; None: all pixels are believed alike."""

    def as_json(self) -> dict[str, Any]:
        """What it is on its rig."""
        return {"name": self.name, "light": self.light, "filters": dict(self.filters)}


def channels_of(
    document: Document, devices: Iterable[str], optics: Optics, channels: Mapping[str, ChannelSettings]
) -> dict[str, Channel]:
    """The channels of a rig, by name; or an InputError with all that stands against them. A rig that names none has
    one without a name: the light `light`."""
    devices = tuple(devices)
    lights, filters = ([name for name in devices if role_of(name) == role] for role in ("light", "filter"))
    if not channels:
        if filters:
            what = f"has {', '.join(filters)} and no channels, which say where they stand: add `channels`"
            raise InputError([Problem(document.where(("devices",)), what)])
        return {"": Channel("", "light", {}, optics)}
    found: dict[str, Channel] = {}
    problems: list[Problem] = []
    for name, given in channels.items():
        inner = document.inside(("channels", name))
        problems.extend(_misled(inner, given, lights, filters))
        try:
            found[name] = Channel(name, given.light, given.filters, overridden(optics, given.optics, inner, "optics"))
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    return found


def _misled(document: Document, given: ChannelSettings, lights: list[str], filters: list[str]) -> Iterator[Problem]:
    """What a channel asks for and the rig has not, and what it leaves open: a filter that nobody turns stands where
    the channel before it has left it."""
    if given.light not in lights:
        what = f"there is no light {given.light!r}; there are: {', '.join(lights) or 'none'}"
        yield Problem(document.where(("light",)), what)
    for name in given.filters:
        if name not in filters:
            what = f"there is no filter {name!r}; there are: {', '.join(filters) or 'none'}"
            yield Problem(document.where(("filters", name)), what)
    for name in filters:
        if name not in given.filters:
            yield Problem(document.where(("filters",)), f"does not say where {name!r} is to stand")
    for key in _SHARED:
        if key in given.optics:
            yield Problem(document.where(("optics", key)), "is the same for all channels: say it in the rig's optics")
