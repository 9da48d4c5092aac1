"""A light that its guardian holds: in the controller a `Light` like any other."""

from __future__ import annotations

import math

from dmu_hw.errors import DeviceError
from dmu_hw.guardian.charge import Charge
from dmu_hw.guardian.link import Link
from dmu_hw.ports import Light

_OPEN_S = 60.0
_ANSWER_S = 5.0
"""Longer than any command of a driver takes that keeps its own time-outs."""


class GuardedLight:
    """Asks the guardian for everything. What planning needs is answered by a light that is never opened."""

    def __init__(self, light: Light, charge: Charge, longest_ms: float) -> None:
        """`longest_ms` is the most that any `on` may ask for."""
        self.name = charge.name
        self.charge = charge
        self.longest_ms = longest_ms
        self._light = light
        self._link: Link | None = None

    @property
    def max_power_mw(self) -> float:
        return self._light.max_power_mw

    @property
    def watchdog_ms(self) -> float | None:
        return self._light.watchdog_ms

    def open(self) -> None:
        if self._link is not None and not self._link.alive:
            self._end()
        if self._link is None:
            self._link = Link(self.charge)
        self._ask("open", longest_s=_OPEN_S)
        self._link.put_off = ""

    def close(self) -> None:
        """Also ends the guardian, who makes sure that the light is off."""
        if self._link is None:
            return
        try:
            if self._link.alive:
                self._ask("close")
        finally:
            self._end()

    def set_power(self, power_mw: float) -> None:
        self._ask("set_power", power_mw)

    def on(self, longest_ms: float = math.inf) -> None:
        link = self._linked()
        self._raise_if_put_off(link)
        link.beat(True)
        self._ask("on", min(longest_ms, self.longest_ms))

    def off(self) -> None:
        link = self._linked()
        self._ask("off")
        link.beat(False)

    def is_on(self) -> bool:
        link = self._linked()
        lit = bool(self._ask("is_on"))
        link.beat(lit)
        return lit

    def interlock_closed(self) -> bool:
        closed = bool(self._ask("interlock_closed"))
        self._raise_if_put_off(self._linked())
        return closed

    def _ask(self, what: str, *given: object, longest_s: float = _ANSWER_S) -> object:
        return self._linked().ask(what, *given, longest_s=longest_s)

    def _linked(self) -> Link:
        if self._link is None:
            raise DeviceError(self.name, "is not open")
        return self._link

    def _raise_if_put_off(self, link: Link) -> None:
        """Once, to whoever wants light: that the guardian had to step in ends whatever was going on."""
        why, link.put_off = link.put_off, ""
        if why:
            raise DeviceError(self.name, f"its guardian put it off: {why}")

    def _end(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.end()
