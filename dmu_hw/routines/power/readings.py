"""Who tells how bright it is: a power meter, or the camera on an even layer of dye."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from dmu_hw.errors import DeviceError
from dmu_hw.exposing import fitting_exposure_ms
from dmu_hw.instrument import Instrument
from dmu_hw.ports import Meter

_PART = 0.02
"""Of what the camera can tell: many pixels need little light each, and dye that bleaches less tells more."""

_SHORTEST_MS = 0.1


class Reader(Protocol):
    """Readings now, and without light."""

    facts: dict[str, Any]

    def dark(self, count: int) -> list[float]: ...

    def read(self) -> float: ...


class ByMeter:
    """Milliwatts."""

    def __init__(self, instrument: Instrument) -> None:
        if instrument.rig.meter is None:
            raise DeviceError("meter", f"is none of the devices of rig {instrument.rig.settings.name}")
        self._meter: Meter = instrument.rig.meter
        self.facts: dict[str, Any] = {}

    def dark(self, count: int) -> list[float]:
        return [self.read() for _ in range(count)]

    def read(self) -> float:
        return self._meter.read_mw()


class ByCamera:
    """Numbers of the camera where dye is lit, at one exposure."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        mirrors = np.ones(instrument.mirrors_shape, dtype=bool)
        power_mw = instrument.highest_mw
        exposure_ms = max(_SHORTEST_MS, fitting_exposure_ms(instrument, mirrors, power_mw=power_mw, part=_PART))
        self._mode = instrument.mode(exposure_ms)
        (black,) = instrument.dark(exposure_ms, 1)
        (lit,) = instrument.take(mirrors[None], power_mw=power_mw, exposure_ms=exposure_ms)
        bright = lit.astype(np.float64) - black
        self._lit = (bright > np.percentile(bright, 99) / 3) & (bright < 2 * np.percentile(bright, 99))
        self.facts = {"exposure_ms": exposure_ms}

    def dark(self, count: int) -> list[float]:
        self._instrument.dmd.show(None)
        self._instrument.camera.configure(self._mode)
        return [self.read() for _ in range(count)]

    def read(self) -> float:
        return float(self._instrument.snap(self._mode)[self._lit].mean())
