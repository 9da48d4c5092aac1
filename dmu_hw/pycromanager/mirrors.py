"""The mirrors through one of pycromanager's bursts: begun by its hooks, ended in darkness whatever comes."""

from __future__ import annotations

from collections.abc import Sequence

from dmu_hw.errors import DeviceError
from dmu_hw.plan import Take
from dmu_hw.ports import Preparing
from dmu_hw.rig import Rig


class Mirrors:
    """Stepped as the rig is wired for it."""

    def __init__(self, rig: Rig, take: Take) -> None:
        self._rig = rig
        self._take = take
        self._stepping = rig.settings.stepping
        self._order: tuple[int, ...] = ()
        """Places in the memory that the burst on its way shows."""

    @property
    def step_by_themselves(self) -> bool:
        """Through a sequence of the camera's; else one pattern is shown for each frame."""
        return self._stepping != "software"

    def begin(self, patterns: Sequence[int]) -> None:
        """Just before the camera starts."""
        order = tuple(self._take.memory[pattern] for pattern in patterns)
        if not self.step_by_themselves and len(order) > 1:
            what = "shows patterns one by one, but pycromanager merged their events: hand over what events() gives"
            raise DeviceError("dmd", what)
        if self.step_by_themselves and len(order) == 1:
            what = "steps with the camera, but pycromanager snaps a burst of one frame: say stepping: software"
            raise DeviceError("dmd", what)
        dmd, period_ms = self._rig.dmd, self._take.period_ms if self._stepping == "dmd" else None
        if self._stepping == "camera" and dmd.reads_back:
            order = (*order, order[0])  # not reached if a trigger is lost on the way, which then can be told
        if self.step_by_themselves and isinstance(dmd, Preparing):
            dmd.prepare(order, period_ms)
        self._order = order
        if self._stepping == "camera":
            dmd.start(order, None)
        elif self._stepping == "software":
            dmd.show(order[0])
        if self._stepping != "dmd":
            self._rig.clock.sleep_ms(self._rig.settle_ms)

    def camera_started(self) -> None:
        """The camera waits for the pulses of mirrors that set the pace."""
        if self._stepping == "dmd":
            self._rig.dmd.start(self._order, self._take.period_ms)

    def end(self) -> None:
        """Dark; what the mirrors say that they have shown must be what they should."""
        order, self._order = self._order, ()
        self._rig.dmd.stop()
        shown = self._rig.dmd.shown() if order and self.step_by_themselves else None
        if shown is not None and tuple(shown) != order:
            raise DeviceError("dmd", f"showed {len(shown)} patterns, {list(shown)[:8]}, instead of {list(order)[:8]}")
