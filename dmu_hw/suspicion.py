"""How far a run heeds doubts that only its frames raise.

Frames may look wrong because their specimen is odd. What is doubted is taken again; if that is doubted too, it is the
specimen, and the burst is kept as unproven. So nothing is lost by a doubt but one burst more of light, and after such
a one no doubt is heeded until many bursts raised none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DOUBTED = "doubted"
_BURSTS = 50
"""Without doubt, for each burst that was taken again in vain."""


@dataclass
class Suspicion:
    """Of a run so far."""

    clean: int = 0
    """Bursts without doubt, or whose doubt was gone when they were taken again."""
    vain: int = 0
    """Bursts that were doubted again."""

    @property
    def heeds(self) -> bool:
        return self.vain * _BURSTS <= self.clean

    def note(self, said: Sequence[str]) -> None:
        """A burst, by what its light said at each attempt."""
        if said and said[-1] != DOUBTED:
            self.clean += 1
        elif said.count(DOUBTED) > 1:
            self.vain += 1
