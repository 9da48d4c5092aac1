"""What a run costs: time, light, dose and disk, told before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from dmu_hw.data import PatternStack
from dmu_hw.plan import Place, Price, Role, Shots, Take
from dmu_hw.protocol import Protocol
from dmu_hw.rig import Rig

_FRAME_OVERHEAD_BYTES = 700
"""Journal line and TIFF directory of one frame."""


@dataclass(frozen=True)
class Pricing:
    """What shots cost: all places of a loop alike, all loops alike but for the wait."""

    protocol: Protocol
    rig: Rig
    stack: PatternStack
    takes: dict[Role, Take]
    shots: Shots

    def price(self) -> Price:
        shots = self.shots
        bursts = shots.loops * len(shots.places) * len(shots.planes_um)
        upload_s = self.rig.dmd.upload_ms(self.stack.count + (len(self.takes) > 1)) / 1e3
        time_s, late_s = self._time_s(upload_s)
        light_s = bursts * sum(take.burst_ms for take in self.takes.values()) / 1e3
        frames = bursts * sum(take.stack.count for take in self.takes.values())
        frame_bytes = bursts * sum(
            take.stack.count * (2 * math.prod(take.mode.shape) + _FRAME_OVERHEAD_BYTES) for take in self.takes.values()
        )
        image_bytes = 4 * math.prod(self.protocol.field_px) * bursts
        dose = sum(take.dose_mj_cm2 for take in self.takes.values()) * (bursts / len(shots.places))
        # raw data lie in the spool and in the store until the store has been checked
        disk_bytes = 2 * frame_bytes + image_bytes
        return Price(bursts, frames, time_s, upload_s, light_s, disk_bytes, dose, self.stack.compression, late_s)

    def _time_s(self, upload_s: float) -> tuple[float, float]:
        """How long it all takes, and how late the last loop begins."""
        places, planes_um = self.shots.places, self.shots.planes_um
        back_s = self._refocus_s(planes_um[-1], planes_um[0])
        steps_s = sum(self._refocus_s(low, high) for low, high in pairwise(planes_um))
        bursts_s = len(planes_um) * sum(take.burst_ms for take in self.takes.values()) / 1e3
        hops_s = sum(self._hop_s(here, there) for here, there in pairwise(places))
        loop_s = len(places) * (bursts_s + steps_s) + hops_s + (len(places) - 1) * back_s
        # nobody knows where the stage stands before it is opened: the way from its origin is as good a guess as any
        approach_s = self._hop_s((0.0, 0.0), places[0]) + self._refocus_s(0.0, planes_um[0])
        again_s = self._hop_s(places[-1], places[0]) + back_s
        ends_s, late_s = upload_s, 0.0
        for loop in range(self.shots.loops):
            due_s = upload_s + loop * self.shots.interval_s
            late_s = max(0.0, ends_s - due_s)
            ends_s = max(ends_s, due_s) + (again_s if loop else approach_s) + loop_s
        return ends_s, late_s if self.shots.interval_s else 0.0

    def _hop_s(self, here: Place, there: Place) -> float:
        (x, y), (to_x, to_y) = here, there
        if self.rig.stage is None or x is None or y is None or to_x is None or to_y is None:
            return 0.0
        return self.rig.stage.travel_ms(math.hypot(to_x - x, to_y - y)) / 1e3

    def _refocus_s(self, here_um: float | None, there_um: float | None) -> float:
        if self.rig.focus is None or here_um is None or there_um is None:
            return 0.0
        return self.rig.focus.travel_ms(abs(there_um - here_um)) / 1e3
