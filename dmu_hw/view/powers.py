"""Small numbers that belong together, without their zeros: .00052 and .00094 as 5.2 and 9.4 of 10⁻⁴."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dmu_hw.view.amounts import digits

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Power:
    """A power of ten as a unit; 0: none."""

    exponent: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Power:
        """By the smallest; numbers of about 1 need none."""
        least = min((value for value in values if value > 0), default=1.0)
        exponent = math.floor(math.log10(least))
        return cls(exponent if exponent < -1 else 0)

    @property
    def unit(self) -> str:
        return f"10{str(self.exponent).translate(_RAISED)}" if self.exponent else ""

    def named(self, what: str) -> str:
        """MSE / 10⁻⁴."""
        return f"{what} / {self.unit}" if self.exponent else what

    def scaled(self, value: float) -> float:
        return value * 10.0**-self.exponent

    def shown(self, value: float, spread: float | None = None) -> str:
        """To the digits that mean something: two of the spread, else four."""
        mine = self.scaled(value)
        if not spread:
            return digits(mine, 4)
        theirs = self.scaled(spread)
        places = min(4, max(0, 1 - math.floor(math.log10(theirs))))
        return f"{mine:.{places}f} ± {theirs:.{places}f}"
