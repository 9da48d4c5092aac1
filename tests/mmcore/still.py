"""Mirrors that are not there, for rigs of Micro-Manager's demo devices: they have none. A driver file like others."""

from __future__ import annotations

from collections.abc import Sequence

from dmu_hw.data import BoolArray
from dmu_hw.files import Settings
from dmu_hw.memory import check_frames, check_order
from dmu_hw.ports import Mount


class Dmd:
    """It takes what mirrors take, and refuses what they refuse."""

    class Settings(Settings):
        pass

    memory_frames = 64
    settle_ms = 0.05
    reads_back = False

    def __init__(self, _settings: Settings, mount: Mount) -> None:
        self.name = mount.name
        self.shape = mount.optics.mirrors.shape
        self.held = 0

    def open(self) -> None: ...

    def close(self) -> None: ...

    def upload_ms(self, frames: int) -> float:
        return float(frames)

    def load(self, frames: BoolArray) -> None:
        self.held = 0
        check_frames(self.name, frames, self.shape, self.memory_frames)
        self.held = len(frames)

    def show(self, index: int | None) -> None:
        if index is not None:
            check_order(self.name, [index], self.held)

    def start(self, order: Sequence[int], _period_ms: float | None) -> None:
        check_order(self.name, order, self.held)

    def stop(self) -> None: ...

    def shown(self) -> tuple[int, ...] | None:
        return None
