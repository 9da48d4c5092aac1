"""The table of patterns of a DLPC900: which line shows which frame of the memory, and how.

Whatever a sequence shows, the lines stay, and with them their number, images and bits: a change of those would ask for
all images once more (DLPU018, note to the command that loads them). Only times change, and the order.

Where the camera paces, a frame has a second line that waits for a pulse. What stands before a line that waits in the
table gets 105 µs of darkness at its end and stays dark until the pulse; what is put before it by another order stays on
(DLPU018, command for the order, and DLPU102, "Edit LUT"). So before each line that waits there is one that nobody
shows, and a pattern stands until the pulse for the next one. That was read, and tried on no instrument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dmu_hw.drivers.dlpc900.codec import BITS
from dmu_hw.drivers.dlpc900.commands import MOST_ENTRIES, MOST_IN_ORDER, Entry


class Table:
    """Lines for so many frames and a dark one behind them."""

    def __init__(self, frames: int, *, triggered: bool) -> None:
        self.frames = frames
        free = [Entry(place // BITS, place % BITS) for place in range(frames)]
        free.append(Entry(frames // BITS, frames % BITS, silent=True))
        unseen = free[-1]
        waiting = [line for entry in free for line in (unseen, replace(entry, waits=True))] if triggered else []
        self.entries = [*free, *waiting]

    @staticmethod
    def room(*, triggered: bool) -> int:
        """Frames that there is room for; a sequence may show all of them in turn, one more, and the dark one."""
        lines = 3 if triggered else 1
        return min(MOST_ENTRIES // lines - 1, MOST_IN_ORDER - 2)

    @property
    def dark(self) -> int:
        return self.frames

    def waiting(self, frame: int) -> int:
        """The line of a frame that waits for a pulse."""
        return self.frames + 2 + 2 * frame

    def stepped_by_time(self, order: Sequence[int]) -> list[int]:
        return [*order, self.dark]

    def stepped_by_pulses(self, order: Sequence[int]) -> list[int]:
        """The first at once, each next one with a pulse, and darkness with one more."""
        first, *others = order
        return [first, *(self.waiting(frame) for frame in (*others, self.dark))]

    def timed(self, lines: Sequence[int], exposure_us: int, dark_us: int) -> list[int]:
        """Give lines these times; those that had others."""
        changed = []
        for line in dict.fromkeys(lines):
            entry = replace(self.entries[line], exposure_us=exposure_us, dark_us=dark_us)
            if entry != self.entries[line]:
                self.entries[line] = entry
                changed.append(line)
        return changed
