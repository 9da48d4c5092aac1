"""The simulated filter wheel."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from dmu_hw.drivers.simulated.history import BETWEEN, Timeline
from dmu_hw.drivers.simulated.world import world_of
from dmu_hw.errors import DeviceError, DeviceTimeout, InputError, Problem
from dmu_hw.files import NonNegative, Settings
from dmu_hw.ports import Mount


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"should be called each by a name of its own, {twice[0]!r} is there twice")
    return values


Position = Annotated[str, Field(min_length=1)]


class FilterSettings(Settings):
    """A wheel; it begins at its first position."""

    positions: Annotated[tuple[Position, ...], Field(min_length=1), AfterValidator(_distinct)]
    """What is in it, in the order in which it turns."""
    switch_ms: NonNegative = 50.0
    """From one position to any other."""


class Filter:
    """A face of the world."""

    Settings = FilterSettings

    def __init__(self, settings: FilterSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.positions = settings.positions
        self._world = world_of(mount)
        for dye, mine in self._world.settings.dyes.items():
            wanted = mine.filters.get(self.name)
            if wanted is not None and wanted not in self.positions:
                what = f"lacks {wanted!r}, through which dye {dye} of the world is seen"
                raise InputError([Problem(mount.document.where(("positions",)), what)])
        self._line = self._world.history.filters.setdefault(self.name, Timeline(self.positions[0]))

    def open(self) -> None:
        """Nothing to connect."""

    def close(self) -> None:
        """Stays where it is."""

    def switch_ms(self, before: str, after: str) -> float:
        return self.settings.switch_ms if before != after else 0.0

    def select(self, position: str, timeout_ms: float) -> None:
        if position not in self.positions:
            raise DeviceError(self.name, f"has {', '.join(self.positions)}, asked for {position!r}")
        clock, faults = self._world.clock, self._world.faults
        turning_ms = self.switch_ms(self._line.at(clock.now_ms()), position)
        if not turning_ms:
            return
        self._line.set(clock.now_ms(), BETWEEN)
        if faults.strikes("stuck_filter") or turning_ms > timeout_ms:
            clock.sleep_ms(timeout_ms)
            raise DeviceTimeout(self.name, f"did not arrive at {position!r} within {timeout_ms:g} ms")
        clock.sleep_ms(turning_ms)
        too_far = faults.struck("wrong_filter")
        place = self.positions.index(position) + (0 if too_far is None else too_far.by)
        self._line.set(clock.now_ms(), self.positions[place % len(self.positions)])

    def selected(self) -> str:
        position = self._line.at(self._world.clock.now_ms())
        if position == BETWEEN:
            raise DeviceError(self.name, "stands between two positions")
        return position
