"""A stage and a focus for the bench: a driver file."""

from __future__ import annotations

from typing import Any

from dmu_hw.files import Settings
from dmu_hw.ports import Mount


class _Mover:
    class Settings(Settings):
        pass

    def __init__(self, _settings: Settings, mount: Mount) -> None:
        self.bench: Any = mount.connection

    def open(self) -> None: ...

    def close(self) -> None: ...

    def travel_ms(self, distance_um: float) -> float:
        return 0.1 * distance_um


class Stage(_Mover):
    limits_um = ((-100.0, 100.0), (-100.0, 100.0))
    place_um = (0.0, 0.0)

    def move_um(self, x_um: float, y_um: float, _timeout_ms: float) -> None:
        self.bench.clock.sleep_ms(10.0)
        self.place_um = (x_um, y_um)

    def position_um(self) -> tuple[float, float]:
        return self.place_um


class Focus(_Mover):
    limits_um = (-20.0, 20.0)
    place_um = 0.0

    def move_um(self, z_um: float, _timeout_ms: float) -> None:
        self.bench.clock.sleep_ms(10.0)
        self.place_um = z_um

    def position_um(self) -> float:
        return self.place_um
