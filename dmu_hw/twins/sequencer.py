"""How the twin of a DLPC900 plays its table: by time, by pulses on TRIG_IN_1, in an order of its own, and for ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dmu_hw.data import BoolArray
from dmu_hw.drivers.dlpc900.commands import Entry
from dmu_hw.drivers.simulated.history import MirrorFrame
from dmu_hw.twins.mirrors import Mirrors, mirror_frame

_PULSE_MS = 0.02
"""Length of a pulse on TRIG_OUT_2."""


class Sequencer:
    """The camera listens to rising edges of one output; its own output is up while it exposes."""

    def __init__(self, mirrors: Mirrors, frame_of: Callable[[Entry], BoolArray], wired_output: int) -> None:
        self.outputs = {1: (False, 0, 0), 2: (False, 0, 0)}
        """Of each: inverted, and how late its edges are in µs."""
        self.input = (105, False)
        """How late a pattern comes after an edge in µs, and whether it is the falling one."""
        self.lost = 0
        """Pulses that came while a pattern could not change."""
        self.shown: list[int] = []
        """Lines that were shown since the start."""
        self._mirrors = mirrors
        self._frame_of = frame_of
        self._wired = wired_output
        self._entries: tuple[Entry, ...] = ()
        self._order: tuple[int, ...] = ()
        self._count = 0
        self._frames: dict[tuple[int, int], MirrorFrame] = {}
        self._left: list[int] = []
        self._ready_ms = self._ends_ms = 0.0
        self._running = self._is_up = False

    @property
    def is_running(self) -> bool:
        return self._running and (bool(self._left) or self._count == 0 or self._mirrors.now_ms() < self._ends_ms)

    def take(self, entries: tuple[Entry, ...], shown: int) -> None:
        """Another table, in its own order."""
        self._entries = entries
        self._order = tuple(range(len(entries)))
        self._count = shown

    def reorder(self, numbers: Sequence[int], shown: int) -> None:
        self._order, self._count = tuple(numbers), shown

    def start(self) -> None:
        """From the beginning."""
        self.stop()
        self._frames.clear()
        count = self._count or len(self._order)
        self._left = [self._order[place % len(self._order)] for place in range(count)]
        self._running = True
        self.shown.clear()
        if self.input[1]:
            self._mirrors.listen(self._hear)
        if not self._entries[self._left[0]].waits:
            self._play(self._mirrors.now_ms())

    def stop(self) -> None:
        self._running = self._is_up = False
        self._left.clear()
        self._mirrors.cancel()

    def _hear(self, edge_ms: float) -> None:
        """A falling edge of the camera's output."""
        if self._left and edge_ms >= self._ready_ms:
            self._play(edge_ms + self.input[0] / 1e3)
        else:
            self.lost += 1

    def _play(self, at_ms: float) -> None:
        """The next line, and those after it until one waits."""
        while self._left:
            number = self._left.pop(0)
            entry = self._entries[number]
            self.shown.append(number)
            self._mirrors.show(at_ms, self._frame(entry))
            end_ms = at_ms + entry.exposure_us / 1e3
            self._signal(entry, at_ms, end_ms)
            waits = bool(self._left) and self._entries[self._left[0]].waits
            held = self._count == 0 and not self._left
            if entry.dark_us or (waits and self._is_darkened(number)) or not (self._left or held):
                self._mirrors.show(end_ms, None)
            at_ms = self._ready_ms = self._ends_ms = end_ms + entry.dark_us / 1e3
            if waits:
                return

    def _is_darkened(self, number: int) -> bool:
        """A line that stands in the table before one that waits ends in darkness, wherever an order puts it."""
        return self._entries[(number + 1) % len(self._entries)].waits

    def _signal(self, entry: Entry, at_ms: float, end_ms: float) -> None:
        """What the camera gets of a pattern: an edge, where the output was down before it."""
        inverted, up_us, down_us = self.outputs[self._wired]
        if self._wired == 2:
            if not entry.silent:
                self._mirrors.pulse(at_ms + up_us / 1e3 + (_PULSE_MS if inverted else 0.0))
            return
        if inverted and entry.dark_us:
            self._mirrors.pulse(end_ms + down_us / 1e3)
        elif not inverted and not self._is_up:
            self._mirrors.pulse(at_ms + up_us / 1e3)
        self._is_up = not entry.dark_us

    def _frame(self, entry: Entry) -> MirrorFrame:
        place = entry.image, entry.bit
        if place not in self._frames:
            self._frames[place] = mirror_frame(self._frame_of(entry))
        return self._frames[place]
